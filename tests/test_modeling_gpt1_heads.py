"""The task heads and the chunked language-model loss, compared with sums computed by hand."""

import pytest
import torch
from accelerate.utils import compile_regions
from helpers.models import (
    CLOSE,
    LENGTHS,
    assert_same_gradients,
    gradients,
    positions_of,
    random_ids,
    randomize,
    tiny_classifier,
    tiny_config,
    tiny_lm,
)
from huggingface_hub.errors import StrictDataclassClassValidationError
from torch.testing import assert_close

from gpt1_hf import (
    GPT1Config,
    GPT1ForCausalLM,
    GPT1ForMultipleChoice,
    GPT1ForSequenceClassification,
    GPT1ForTokenClassification,
    GPT1LSTMConfig,
    GPT1LSTMForSequenceClassification,
    modeling_gpt1_heads,
)
from gpt1_hf.modeling_gpt1_heads import linear_cross_entropy


# The chunked loss


def weighted_sum(states, weight, targets, token_weights):
    losses = torch.nn.functional.cross_entropy(states @ weight.T, targets, reduction="none")
    return (losses * token_weights).sum()


@pytest.mark.parametrize("rows", [1, 3, 7, 100])
def test_chunked_loss_equals_the_loss_of_all_logits(rows, monkeypatch):
    monkeypatch.setattr(modeling_gpt1_heads, "LOGITS_PER_CHUNK", 11 * rows)
    torch.manual_seed(0)
    states, weight = torch.randn(7, 5, requires_grad=True), torch.randn(11, 5, requires_grad=True)
    targets, token_weights = torch.randint(0, 11, (7,)), torch.rand(7)
    expected = weighted_sum(states, weight, targets, token_weights)
    expected_gradients = torch.autograd.grad(3 * expected, [states, weight])
    loss = linear_cross_entropy(states, weight, targets, token_weights)
    assert_close(loss, expected, **CLOSE)
    for gradient, wanted in zip(torch.autograd.grad(3 * loss, [states, weight]), expected_gradients, strict=True):
        assert_close(gradient, wanted, **CLOSE)


def test_chunked_loss_in_bf16_autocast_is_that_of_all_logits():
    torch.manual_seed(0)
    states, weight = torch.randn(40, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    targets, token_weights = torch.randint(0, 50, (40,)), torch.rand(40)
    with torch.autocast("cpu", torch.bfloat16):
        expected = weighted_sum(states, weight, targets, token_weights)
        loss = linear_cross_entropy(states, weight, targets, token_weights)
    assert loss.dtype == torch.float32
    assert_close(loss, expected, rtol=1e-5, atol=0)
    for one, other in zip(
        torch.autograd.grad(loss, [states, weight]), torch.autograd.grad(expected, [states, weight]), strict=True
    ):
        assert one.dtype == torch.float32
        assert_close(one, other, rtol=1e-2, atol=1e-2 * other.abs().max().item())


@pytest.mark.parametrize("n_tokens", [64, 32768])
def test_chunked_loss_in_fp16_keeps_the_digits_of_a_scaled_gradient(n_tokens):
    """As under a gradient scaler: fp16 states and weights, the loss times 2^16; the mean weighs a token by 1 / n."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(n_tokens, 16, generator=generator).half()
    weight = torch.randn(128, 16, generator=generator).half()
    targets = torch.randint(0, 128, (n_tokens,), generator=generator)

    def scaled_gradients(dtype, loss_of):
        inputs = [tensor.to(dtype).requires_grad_() for tensor in (states, weight)]
        (2.0**16 * loss_of(*inputs)).backward()
        return [tensor.grad.double() for tensor in inputs]

    exact = scaled_gradients(torch.float64, lambda s, w: torch.nn.functional.cross_entropy(s @ w.T, targets))
    token_weights = torch.full((n_tokens,), 1 / n_tokens)
    found = scaled_gradients(torch.float16, lambda s, w: linear_cross_entropy(s, w, targets, token_weights))
    for gradient, expected in zip(found, exact, strict=True):
        # Logits, their gradients and the result are rounded to fp16 once each.
        assert (gradient - expected).norm() / expected.norm() < 3 * torch.finfo(torch.float16).eps / 2


def test_a_batch_without_targets_has_no_loss():
    states, weight = torch.randn(0, 5, requires_grad=True), torch.randn(11, 5, requires_grad=True)
    loss = linear_cross_entropy(states, weight, torch.zeros(0, dtype=torch.long), torch.zeros(0))
    loss.backward()
    assert loss == 0 and not states.grad.any() and not weight.grad.any()


def test_chunked_loss_of_frozen_parts_and_without_gradients():
    states, weight = torch.randn(4, 3, requires_grad=True), torch.randn(6, 3)
    targets, token_weights = torch.tensor([0, 5, -100, 2]), torch.tensor([1.0, 1, 0, 1])
    loss = linear_cross_entropy(states, weight, targets, token_weights)
    loss.backward()
    assert states.grad is not None and (states.grad[2] == 0).all()
    with torch.no_grad():
        assert_close(linear_cross_entropy(states, weight.requires_grad_(), targets, token_weights), loss.detach())
    assert weight.grad is None


@pytest.mark.parametrize(
    "options", [{}, {"num_items_in_batch": 50}, {"num_items_in_batch": torch.tensor(50)}, "shift"]
)
def test_language_model_loss_without_logits_is_the_loss_with_them(options):
    model, ids = tiny_lm(), random_ids(2, 8)
    labels = ids.clone()
    labels[0, :5] = -100
    if options == "shift":
        options = {"shift_labels": random_ids(2, 8, seed=1)}
    expected = model(ids, labels=labels, **options)
    expected.loss.backward()
    wanted = {name: gradient.clone() for name, gradient in gradients(model).items()}
    model.zero_grad()
    outputs = model(ids, labels=labels, skip_logits=True, **options)
    outputs.loss.backward()
    assert outputs.logits is None
    assert_close(outputs.loss, expected.loss, **CLOSE)
    assert_same_gradients(gradients(model), wanted)


def test_logits_are_skipped_only_where_there_is_a_loss():
    assert tiny_lm()(random_ids(2, 8), skip_logits=True).logits is not None


def test_logits_are_skipped_when_each_block_is_compiled():
    model, ids = randomize(GPT1ForCausalLM(tiny_config())), random_ids(2, 7)
    expected = model(ids, labels=ids).loss
    outputs = compile_regions(model, backend="eager")(ids, labels=ids, skip_logits=True)
    assert outputs.logits is None
    assert_close(outputs.loss, expected, **CLOSE)


# Sequence classification


def rows_and_labels(n_labels=3):
    """Three unpadded rows of different lengths."""
    rows = [random_ids(length, seed=10 + length) for length in LENGTHS]
    return rows, torch.tensor([2, 0, 1]) if n_labels > 1 else torch.tensor([0.3, -1.2, 2.0])


def padded_rows(rows, side) -> dict[str, torch.Tensor]:
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        own = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
        ids[index, own], mask[index, own] = row, 1
    # Default positions count padding, too; a caller who pads on the left gives them.
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions_of(mask)}


def by_hand(model, rows, labels):
    """Class scores, task loss and language-model loss of unpadded rows, token by token."""
    lm = GPT1ForCausalLM(model.config)
    lm.transformer.load_state_dict(model.transformer.state_dict())
    lm.eval()
    scores, task_losses, lm_losses = [], [], []
    for row, label in zip(rows, labels, strict=True):
        state = lm.transformer(row[None]).last_hidden_state[0, -1]
        scores.append(model.classifier.weight @ state + model.classifier.bias)
        if model.config.num_labels == 1:
            task_losses.append((scores[-1][0] - label) ** 2)
        else:
            task_losses.append(-scores[-1].log_softmax(-1)[label])
        logits = lm(row[None]).logits[0]
        tokens = [-logits[i - 1].log_softmax(-1)[row[i]] for i in range(1, len(row))]
        lm_losses.append(sum(tokens) / len(tokens))
    return torch.stack(scores), sum(task_losses) / len(rows), sum(lm_losses) / len(rows)


@pytest.mark.parametrize("lm_coef", [0.5, 2, 0])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("num_labels", [3, 1])
def test_classification_equals_the_sums_by_hand(lm_coef, side, num_labels):
    model = tiny_classifier(num_labels=num_labels, lm_coef=lm_coef)
    rows, labels = rows_and_labels(num_labels)
    outputs = model(**padded_rows(rows, side), labels=labels)
    scores, task_loss, lm_loss = by_hand(model, rows, labels)
    assert outputs.logits.shape == (3, num_labels)
    assert_close(outputs.logits, scores, **CLOSE)
    assert_close(outputs.loss, task_loss + lm_coef * lm_loss, **CLOSE)
    if lm_coef:
        assert_close(outputs.task_loss, task_loss, **CLOSE)
        assert_close(outputs.lm_loss, lm_loss, **CLOSE)
        assert list(outputs)[:2] == ["loss", "logits"]
    else:
        assert "task_loss" not in outputs and "lm_loss" not in outputs


def test_without_a_mask_the_pad_token_marks_padding_on_the_right():
    model = tiny_classifier(num_labels=3, pad_token_id=0)
    rows, labels = rows_and_labels()
    outputs = model(padded_rows(rows, "right")["input_ids"], labels=labels)
    scores, task_loss, lm_loss = by_hand(model, rows, labels)
    assert_close(outputs.logits, scores, **CLOSE)
    assert_close(outputs.task_loss, task_loss, **CLOSE)
    assert_close(outputs.lm_loss, lm_loss, **CLOSE)


def test_without_a_mask_the_pad_token_marks_padding_on_the_left():
    # Without a mask the model attends to padding, so the states differ from those of single rows.
    model = tiny_classifier(num_labels=3, pad_token_id=0)
    rows, labels = rows_and_labels()
    ids = padded_rows(rows, "left")["input_ids"]
    outputs = model(ids, labels=labels)
    states = model.transformer(ids).last_hidden_state
    assert_close(outputs.logits, model.classifier(states[:, -1]), **CLOSE)
    scores = (states @ model.get_input_embeddings().weight.T).log_softmax(-1)
    lm_losses = []
    for row, tokens in enumerate(rows):
        first = ids.shape[1] - len(tokens)
        losses = [-scores[row, i - 1, ids[row, i]] for i in range(first + 1, ids.shape[1])]
        lm_losses.append(sum(losses) / len(losses))
    assert_close(outputs.lm_loss, sum(lm_losses) / len(rows), **CLOSE)


def test_without_a_mask_and_a_pad_token_every_position_counts():
    model = tiny_classifier(num_labels=3)
    ids = random_ids(2, 6)
    ids[:, -1] = 0
    outputs = model(ids, labels=torch.tensor([0, 2]))
    scores, task_loss, lm_loss = by_hand(model, list(ids), torch.tensor([0, 2]))
    assert_close(outputs.logits, scores, **CLOSE)
    assert_close(outputs.loss, task_loss + 0.5 * lm_loss, **CLOSE)


def test_the_mask_takes_precedence_over_the_pad_token():
    model = tiny_classifier(num_labels=3, pad_token_id=0)
    row = random_ids(6)
    row[2] = row[5] = 0  # the pad token is <unk>, which a text can hold
    outputs = model(row[None], attention_mask=torch.ones(1, 6).long(), labels=torch.tensor([1]))
    scores, task_loss, lm_loss = by_hand(model, [row], torch.tensor([1]))
    assert_close(outputs.logits, scores, **CLOSE)
    assert_close(outputs.loss, task_loss + 0.5 * lm_loss, **CLOSE)


@pytest.mark.parametrize("num_labels", [3, 1])
@pytest.mark.parametrize("pad_token_id", [0, None])
def test_a_batch_of_one_needs_no_padding(num_labels, pad_token_id):
    model = tiny_classifier(num_labels=num_labels, pad_token_id=pad_token_id)
    row, labels = random_ids(7), torch.tensor([0])
    outputs = model(row[None], labels=labels)
    scores, task_loss, lm_loss = by_hand(model, [row], labels)
    assert_close(outputs.logits, scores, **CLOSE)
    assert_close(outputs.loss, task_loss + 0.5 * lm_loss, **CLOSE)


def test_a_row_of_one_token_has_no_language_model_loss():
    model = tiny_classifier(num_labels=3)
    rows = [random_ids(5), random_ids(1)]
    outputs = model(**padded_rows(rows, "right"), labels=torch.tensor([0, 1]))
    alone = model(rows[0][None], labels=torch.tensor([0]))
    assert_close(outputs.lm_loss, alone.lm_loss / 2, **CLOSE)


def test_without_labels_there_is_no_loss():
    outputs = tiny_classifier()(random_ids(2, 5))
    assert outputs.loss is None and outputs.task_loss is None and outputs.lm_loss is None


def test_classification_of_embeddings_has_only_the_task_loss():
    model = tiny_classifier(num_labels=3, pad_token_id=0)
    rows, labels = rows_and_labels()
    batch = padded_rows(rows, "right")
    batch["inputs_embeds"] = model.get_input_embeddings()(batch.pop("input_ids"))
    outputs = model(**batch, labels=labels)
    scores, task_loss, _ = by_hand(model, rows, labels)
    assert_close(outputs.logits, scores, **CLOSE)
    assert_close(outputs.loss, task_loss, **CLOSE)
    assert outputs.lm_loss is None


@pytest.mark.parametrize("num_labels", [3, 1])
@pytest.mark.parametrize("parts", [[[0], [1], [2]], [[0, 1], [2]], [[2], [1, 0]]])
@pytest.mark.parametrize("kind", [int, torch.tensor])
def test_split_batches_add_up_to_the_whole(num_labels, parts, kind):
    model = tiny_classifier(num_labels=num_labels)
    rows, labels = rows_and_labels(num_labels)
    batch = padded_rows(rows, "right")
    whole = model(**batch, labels=labels)
    whole.loss.backward()
    expected = {name: gradient.clone() for name, gradient in gradients(model).items()}
    model.zero_grad()

    sums = {"loss": 0.0, "task_loss": 0.0, "lm_loss": 0.0}
    for part in parts:
        part_batch = {name: tensor[part] for name, tensor in batch.items()}
        outputs = model(**part_batch, labels=labels[part], num_items_in_batch=kind(len(rows)))
        outputs.loss.backward()
        sums = {name: value + outputs[name].detach() for name, value in sums.items()}
    for name, value in sums.items():
        assert_close(value, whole[name].detach(), **CLOSE)
    assert_same_gradients(gradients(model), expected)


# Similarity: the two orders of a pair


def stacked(first, second) -> dict[str, torch.Tensor]:
    """Two batches as one of shape `(batch, 2, seq)`."""
    return {name: torch.stack([first[name], second[name]], dim=1) for name in first}


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_states_of_the_two_orders_are_added(side):
    model = tiny_classifier(num_labels=3)
    rows, labels = rows_and_labels()
    turned = [row.flip(0) for row in rows]
    outputs = model(**stacked(padded_rows(rows, side), padded_rows(turned, side)), labels=labels)
    states = [model.transformer(row[None]).last_hidden_state[0, -1] for row in rows]
    turned_states = [model.transformer(row[None]).last_hidden_state[0, -1] for row in turned]
    scores = torch.stack([model.classifier(a + b) for a, b in zip(states, turned_states, strict=True)])
    assert_close(outputs.logits, scores, **CLOSE)
    assert_close(outputs.task_loss, torch.nn.functional.cross_entropy(scores, labels), **CLOSE)
    lm_losses = [by_hand(model, kind, labels)[2] for kind in (rows, turned)]
    assert_close(outputs.lm_loss, sum(lm_losses) / 2, **CLOSE)


def test_the_two_orders_of_embeddings_are_added():
    model = tiny_classifier(num_labels=3)
    ids = random_ids(2, 2, 6)
    embeddings = model.get_input_embeddings()(ids)
    assert_close(model(inputs_embeds=embeddings).logits, model(ids).logits, **CLOSE)


# Multiple choice


def tiny_multiple_choice(**changes) -> GPT1ForMultipleChoice:
    return randomize(GPT1ForMultipleChoice(tiny_config(**changes)))


def choice_batch(side="right") -> tuple[list[list[torch.Tensor]], dict[str, torch.Tensor], torch.Tensor]:
    """Two questions with three answers of unequal lengths: unpadded rows, batch, labels."""
    questions = [[random_ids(length, seed=length + first) for length in (7, 4, 9)] for first in (0, 20)]
    flat = padded_rows([row for rows in questions for row in rows], side)
    return questions, {name: tensor.unflatten(0, (2, 3)) for name, tensor in flat.items()}, torch.tensor([2, 0])


@pytest.mark.parametrize("side", ["right", "left"])
def test_multiple_choice_equals_the_sums_by_hand(side):
    model = tiny_multiple_choice()
    questions, batch, labels = choice_batch(side)
    outputs = model(**batch, labels=labels)
    scores, lm_losses = [], []
    for rows in questions:
        states = torch.stack([model.transformer(row[None]).last_hidden_state[0, -1] for row in rows])
        scores.append(states @ model.classifier.weight[0] + model.classifier.bias[0])
        lm = tiny_lm()
        lm.transformer.load_state_dict(model.transformer.state_dict())
        lm_losses += [lm(row[None], labels=row[None]).loss for row in rows]
    scores = torch.stack(scores)
    task_loss = torch.nn.functional.cross_entropy(scores, labels)
    assert outputs.logits.shape == (2, 3)
    assert_close(outputs.logits, scores, **CLOSE)
    assert_close(outputs.task_loss, task_loss, **CLOSE)
    assert_close(outputs.lm_loss, sum(lm_losses) / 6, **CLOSE)
    assert_close(outputs.loss, task_loss + 0.5 * outputs.lm_loss, **CLOSE)


def test_the_choices_of_a_question_share_a_dropout_mask():
    model = tiny_multiple_choice(classifier_dropout=0.5).train()
    row = random_ids(6)
    outputs = model(row.expand(4, 5, -1))
    assert_close(outputs.logits, outputs.logits[:, :1].expand(-1, 5), **CLOSE)
    assert outputs.logits[:, 0].std() > 1e-3


# Token classification


def test_token_classification_equals_the_sums_by_hand():
    model = randomize(GPT1ForTokenClassification(tiny_config(num_labels=4)))
    rows, _ = rows_and_labels()
    batch = padded_rows(rows, "right")
    labels = torch.where(batch["attention_mask"].bool(), batch["input_ids"] % 4, -100)
    labels[0, 2:] = -100
    outputs = model(**batch, labels=labels)
    scores = model.classifier(model.transformer(rows[1][None]).last_hidden_state[0])
    assert_close(outputs.logits[1, : len(rows[1])], scores, **CLOSE)
    expected = torch.nn.functional.cross_entropy(outputs.logits.flatten(0, 1), labels.flatten())
    assert_close(outputs.task_loss, expected, **CLOSE)
    # A row's weight in the auxiliary term is its number of labels.
    lm_losses = [by_hand(tiny_twin(model), [row], torch.tensor([0]))[2] for row in rows]
    weights = (labels != -100).sum(-1)
    expected = sum(weight * loss for weight, loss in zip(weights, lm_losses, strict=True)) / weights.sum()
    assert_close(outputs.lm_loss, expected, **CLOSE)


def tiny_twin(model) -> GPT1ForSequenceClassification:
    """A sequence classifier on the same transformer."""
    twin = tiny_classifier(num_labels=3)
    twin.transformer.load_state_dict(model.transformer.state_dict())
    return twin


# Packed rows


def packed(rows) -> dict[str, torch.Tensor]:
    return {
        "input_ids": torch.cat(rows)[None],
        "position_ids": torch.cat([torch.arange(len(row)) for row in rows])[None],
    }


@pytest.mark.parametrize("num_labels", [3, 1])
def test_packed_rows_equal_separate_rows(num_labels):
    model = tiny_classifier(num_labels=num_labels)
    rows, labels = rows_and_labels(num_labels)
    outputs = model(**packed(rows), labels=labels)
    scores, task_loss, lm_loss = by_hand(model, rows, labels)
    assert_close(outputs.logits, scores, **CLOSE)
    assert_close(outputs.task_loss, task_loss, **CLOSE)
    assert_close(outputs.lm_loss, lm_loss, **CLOSE)


def test_packed_rows_may_hold_the_padding_token_as_the_unknown_one():
    model = tiny_classifier(num_labels=3, pad_token_id=0)
    rows, labels = rows_and_labels(3)
    for row in rows:
        row[1] = model.config.pad_token_id
    loss = model(**packed(rows), labels=labels).lm_loss
    assert_close(loss, by_hand(model, rows, labels)[2], **CLOSE)


def test_sequences_of_two_packed_rows_are_in_order():
    model = tiny_classifier(num_labels=3)
    rows = [random_ids(length, seed=length) for length in (3, 5, 6, 2)]
    labels = torch.tensor([0, 1, 2, 0])
    first, second = packed(rows[:2]), packed(rows[2:])
    batch = {name: torch.cat([first[name], second[name]]) for name in first}
    outputs = model(**batch, labels=labels)
    scores, task_loss, lm_loss = by_hand(model, rows, labels)
    assert_close(outputs.logits, scores, **CLOSE)
    assert_close(outputs.loss, task_loss + 0.5 * lm_loss, **CLOSE)


def test_packed_tokens_are_labelled_as_separate_ones():
    model = randomize(GPT1ForTokenClassification(tiny_config(num_labels=4)))
    rows, _ = rows_and_labels()
    labels = [row % 4 for row in rows]
    labels[0][3:] = -100
    outputs = model(**packed(rows), labels=torch.cat(labels)[None])
    batch = padded_rows(rows, "right")
    padded_labels = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
    expected = model(**batch, labels=padded_labels)
    assert_close(outputs.task_loss, expected.task_loss, **CLOSE)
    assert_close(outputs.lm_loss, expected.lm_loss, **CLOSE)


# Scores and several labels


def test_a_score_is_learned_as_a_distribution_over_bins():
    model = tiny_classifier(num_labels=1, regression_bins=6)
    rows, _ = rows_and_labels()
    outputs = model(**padded_rows(rows, "right"), labels=torch.tensor([3.25, 0.0, 5.0]))
    states = torch.stack([model.transformer(row[None]).last_hidden_state[0, -1] for row in rows])
    log_probabilities = model.classifier(states).log_softmax(-1)
    assert log_probabilities.shape == (3, 6)
    by_bin = [-(0.75 * log_probabilities[0, 3] + 0.25 * log_probabilities[0, 4])]
    by_bin += [-log_probabilities[1, 0], -log_probabilities[2, 5]]
    assert_close(outputs.task_loss, sum(by_bin) / 3, **CLOSE)
    expectation = (log_probabilities.exp() * torch.arange(6.0)).sum(-1, keepdim=True)
    assert_close(outputs.logits, expectation, **CLOSE)


@pytest.mark.parametrize("score", [-0.1, 5.1])
def test_a_score_outside_the_bins_is_refused(score):
    model = tiny_classifier(num_labels=1, regression_bins=6)
    with pytest.raises(ValueError, match="outside 0 to 5"):
        model(random_ids(1, 4), labels=torch.tensor([score]))


def test_bins_need_one_score():
    with pytest.raises(StrictDataclassClassValidationError, match="set num_labels to 1"):
        GPT1Config(num_labels=3, regression_bins=6)


def test_several_labels_and_several_scores():
    ids = random_ids(2, 5)
    labels = torch.tensor([[1.0, 0, 1], [0, 0, 1]])
    model = tiny_classifier(num_labels=3, problem_type="multi_label_classification")
    outputs = model(ids, labels=labels)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(outputs.logits, labels)
    assert_close(outputs.task_loss, expected, **CLOSE)
    model = tiny_classifier(num_labels=3, problem_type="regression")
    outputs = model(ids, labels=labels)
    assert_close(outputs.task_loss, torch.nn.functional.mse_loss(outputs.logits, labels), **CLOSE)
    assert_close(outputs.lm_loss, by_hand(tiny_twin(model), list(ids), torch.tensor([0, 1]))[2], **CLOSE)


@pytest.mark.parametrize("head", ["transformer", "lstm"])
def test_labels_that_do_not_fit_are_rejected_and_leave_the_problem_type(head):
    model = tiny_classifier(num_labels=3)
    if head == "lstm":
        sizes = {"vocab_size": model.config.vocab_size, "hidden_size": 8, "lstm_size": 8, "num_labels": 3}
        model = GPT1LSTMForSequenceClassification(GPT1LSTMConfig(**sizes))
    ids = random_ids(2, 5)
    for labels in (torch.tensor([[1, 0, 1], [0, 0, 1]]), torch.tensor([0.5, 1.0]), torch.tensor([1])):
        with pytest.raises(
            ValueError, match="do not fit logits of shape .* class id for each row, or a float for each logit"
        ):
            model(ids, labels=labels)
        assert model.config.problem_type is None
    model(ids, labels=torch.tensor([2, 1]))
    assert model.config.problem_type == "single_label_classification"


# Accumulation: the parts of an update add up to one batch


@pytest.mark.parametrize("kind", ["similarity", "multiple_choice", "tokens"])
def test_parts_of_every_head_add_up_to_the_whole(kind):
    if kind == "multiple_choice":
        model = tiny_multiple_choice()
        _, batch, labels = choice_batch()
    else:
        rows, labels = rows_and_labels()
        batch = padded_rows(rows, "right")
        model = tiny_classifier(num_labels=3)
        if kind == "similarity":
            batch = stacked(batch, padded_rows([row.flip(0) for row in rows], "right"))
        else:
            model = randomize(GPT1ForTokenClassification(tiny_config(num_labels=3)))
            labels = torch.where(batch["attention_mask"].bool(), batch["input_ids"] % 3, -100)
            labels[1, :4] = -100
    whole = model(**batch, labels=labels)
    whole.loss.backward()
    expected = {name: gradient.clone() for name, gradient in gradients(model).items()}
    model.zero_grad()
    loss = 0.0
    for index in range(len(labels)):
        part = {name: tensor[index : index + 1] for name, tensor in batch.items()}
        n_items = (labels != -100).sum()
        outputs = model(**part, labels=labels[index : index + 1], num_items_in_batch=n_items)
        outputs.loss.backward()
        loss += outputs.loss.detach()
    assert_close(loss, whole.loss.detach(), **CLOSE)
    parts = gradients(model)
    if kind == "multiple_choice":  # the softmax over the answers ignores a constant added to each
        assert max(parts.pop("classifier.bias").abs(), expected.pop("classifier.bias").abs()) < 1e-6
    assert_same_gradients(parts, expected)


@pytest.mark.slow
@pytest.mark.parametrize("head", [GPT1ForSequenceClassification, GPT1ForMultipleChoice, GPT1ForTokenClassification])
def test_the_heads_are_one_graph_for_torch_compile(head):
    model = randomize(head(tiny_config(num_labels=3)))
    if head is GPT1ForMultipleChoice:
        _, batch, labels = choice_batch()
    else:
        rows, labels = rows_and_labels()
        batch = padded_rows(rows, "right")
    batch.pop("position_ids")
    if head is GPT1ForTokenClassification:
        labels = batch["input_ids"] % 3
    expected = model(**batch, labels=labels)
    outputs = torch.compile(model, fullgraph=True)(**batch, labels=labels)
    assert_close(outputs.loss, expected.loss, **CLOSE)
    assert_close(outputs.logits, expected.logits, **CLOSE)
