"""The LSTM compared with its formulas, and with itself under padding, packing and caches."""

import json

import pytest
import torch
from helpers.models import CLOSE, LENGTHS, VOCAB, assert_cache_keeps_generation, generate, mask_of, random_ids
from huggingface_hub.errors import StrictDataclassClassValidationError
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, DynamicCache, GPT2Config

from gpt1_hf import (
    GPT1Config,
    GPT1ForCausalLM,
    GPT1LSTMConfig,
    GPT1LSTMForCausalLM,
    GPT1LSTMForMultipleChoice,
    GPT1LSTMForSequenceClassification,
    GPT1LSTMForTokenClassification,
    GPT1LSTMModel,
)
from gpt1_hf.hardware import has_half_precision
from gpt1_hf.modeling_gpt1_heads import CACHE


HIDDEN, UNITS = 12, 20
NO_DROPOUT = {"embd_pdrop": 0.0, "resid_pdrop": 0.0, "classifier_dropout": 0.0}
LAYERS = pytest.mark.parametrize("layers", [1, 2])
SIDES = pytest.mark.parametrize("side", ["right", "left"])


def tiny_config(layers=1, **changes) -> GPT1LSTMConfig:
    sizes = {"vocab_size": VOCAB, "hidden_size": HIDDEN, "lstm_size": UNITS, "num_hidden_layers": layers}
    return GPT1LSTMConfig(**{**sizes, "max_position_embeddings": 16, **NO_DROPOUT, **changes})


def randomize(model):
    """Weights far enough from their initial values for every difference to show, and for texts that vary."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.1 if "bias" in name else 0.7))
    return model.eval()


def tiny_lm(layers=1, **changes) -> GPT1LSTMForCausalLM:
    return randomize(GPT1LSTMForCausalLM(tiny_config(layers, **changes)))


def padded_rows(side) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Ids padded on `side`, their mask, and each row on its own."""
    mask = mask_of(side)
    ids = random_ids(*mask.shape) * mask
    return ids, mask, [ids[row][mask[row].bool()][None] for row in range(len(LENGTHS))]


def gradients(model) -> dict[str, torch.Tensor]:
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    return found


def assert_same_gradients(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in theirs:
        # The softmax over answers ignores a constant added to every score.
        assert theirs[name].abs().max() > 1e-4 or theirs[name].shape == (1,), name
        assert_close(ours[name], theirs[name], **CLOSE, msg=lambda message, name=name: f"{name}: {message}")


def by_hand(model, embeddings: torch.Tensor) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
    """Logits of one row, `(seq, vocab)`, and each layer's last (h, c), from its embeddings `(seq, hidden)`."""
    states, ends = embeddings, []
    for block in model.model.h:
        lstm = block.lstm
        h, c = torch.zeros(UNITS), torch.zeros(UNITS)
        outputs = []
        for x in states:
            gates = lstm.weight_ih_l0 @ x + lstm.bias_ih_l0 + lstm.weight_hh_l0 @ h + lstm.bias_hh_l0
            i, f, g, o = gates.split(UNITS)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(block.proj.weight @ h + block.proj.bias)
        states = torch.stack(outputs)
        ends.append((h, c))
    return states @ model.model.tokens_embed.weight.T, ends


# Configuration


def test_the_defaults_are_the_paper_s_lstm_on_gpt_1_s_vocabulary():
    config = GPT1LSTMConfig()
    assert (config.num_hidden_layers, config.lstm_size, config.hidden_size, config.vocab_size) == (1, 2048, 768, 40478)
    with torch.device("meta"):
        model = GPT1LSTMForCausalLM(config)
    lstm = 4 * 2048 * (768 + 2048) + 2 * 4 * 2048
    assert model.num_parameters() == 40478 * 768 + lstm + (2048 * 768 + 768) == 55_745_792


def test_config_json_keeps_every_value(tmp_path):
    changes = {"embd_pdrop": 0.2, "resid_pdrop": 0, "classifier_dropout": 0.4, "initializer_range": 0.0}
    config = tiny_config(3, **changes, lm_coef=0.0, use_cache=False, pad_token_id=0, num_labels=5)
    config.save_pretrained(tmp_path)
    again = GPT1LSTMConfig.from_pretrained(tmp_path)
    assert {**again.to_dict(), "_name_or_path": ""} == {**config.to_dict(), "_name_or_path": ""}
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == again.model_type == "gpt1_lstm"


@pytest.mark.parametrize("other", [GPT1Config, GPT2Config])
def test_the_folder_of_another_model_type_is_refused_by_name(other, tmp_path):
    other().save_pretrained(tmp_path)
    for load in (GPT1LSTMConfig.from_pretrained, GPT1LSTMForCausalLM.from_pretrained):
        with pytest.raises(ValueError, match=f"`{other.model_type}` model") as refusal:
            load(tmp_path)
        assert str(tmp_path) in str(refusal.value)


def test_gpt_1_refuses_the_lstm_s_folder(tmp_path):
    tiny_config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`gpt1_lstm` model"):
        GPT1ForCausalLM.from_pretrained(tmp_path)


# The formulas


@LAYERS
@pytest.mark.parametrize("form", ["ids", "token_type_ids", "inputs_embeds"])
def test_logits_and_state_follow_the_formulas(layers, form):
    model, ids = tiny_lm(layers), random_ids(2, 7)
    embeddings = model.model.tokens_embed(ids)
    batch = {"inputs_embeds": embeddings} if form == "inputs_embeds" else {"input_ids": ids}
    if form == "token_type_ids":
        batch["token_type_ids"] = random_ids(2, 7, seed=1)
        embeddings = embeddings + model.model.tokens_embed(batch["token_type_ids"])
    outputs = model(**batch)
    assert outputs.logits.shape == (2, 7, VOCAB)
    for row in range(2):
        logits, ends = by_hand(model, embeddings[row])
        assert_close(outputs.logits[row], logits, **CLOSE)
        for layer, (h, c) in zip(getattr(outputs, CACHE).layers, ends, strict=True):
            assert_close(layer.keys[row], h, **CLOSE)
            assert_close(layer.values[row], c, **CLOSE)


@LAYERS
def test_gradients_follow_the_formulas_and_reach_every_parameter(layers):
    model, ids = tiny_lm(layers), random_ids(2, 7)
    model(ids, labels=ids).loss.backward()
    ours = gradients(model)
    logits = torch.cat([by_hand(model, model.model.tokens_embed(row))[0][:-1] for row in ids])
    torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten()).backward()
    assert_same_gradients(ours, gradients(model))


def test_hidden_states_are_the_embeddings_and_each_layer_s_projected_output():
    model, ids = tiny_lm(2), random_ids(2, 5)
    outputs = model(ids, output_hidden_states=True, output_attentions=True)
    assert outputs.attentions is None
    assert [tuple(states.shape) for states in outputs.hidden_states] == [(2, 5, HIDDEN)] * 3
    assert_close(outputs.hidden_states[0], model.model.tokens_embed(ids))
    first = model.model.h[0]
    assert_close(outputs.hidden_states[1], first.proj(first.lstm(outputs.hidden_states[0])[0]), **CLOSE)
    assert_close(outputs.hidden_states[2], model.model(ids).last_hidden_state, **CLOSE)
    assert_close(outputs.hidden_states[2] @ model.model.tokens_embed.weight.T, outputs.logits, **CLOSE)
    assert model(ids).hidden_states is None


# Padding


@LAYERS
@SIDES
def test_padded_rows_equal_rows_on_their_own(layers, side):
    model = tiny_lm(layers)
    ids, mask, rows = padded_rows(side)
    before = torch.nn.functional.pad(mask, (1, 0))[:, :-1]  # no token predicts the first one after padding
    outputs = model(ids, attention_mask=mask, labels=ids.masked_fill(mask * before == 0, -100))
    outputs.loss.backward()
    padded_gradients = gradients(model)

    total, n_targets = 0.0, sum(LENGTHS) - len(LENGTHS)
    for row, alone_ids in enumerate(rows):
        alone = model(alone_ids, labels=alone_ids, num_items_in_batch=n_targets)
        assert_close(outputs.logits[row][mask[row].bool()], alone.logits[0], **CLOSE)
        # A text continues from the state after its last token.
        for ours, own in zip(getattr(outputs, CACHE).layers, getattr(alone, CACHE).layers, strict=True):
            assert_close(ours.keys[row], own.keys[0], **CLOSE)
            assert_close(ours.values[row], own.values[0], **CLOSE)
        total = total + alone.loss
    assert_close(outputs.loss, total, **CLOSE)
    total.backward()
    assert_same_gradients(padded_gradients, gradients(model))


@SIDES
def test_the_content_of_padding_does_not_matter(side):
    model = tiny_lm()
    ids, mask, _ = padded_rows(side)
    noise = torch.where(mask.bool(), ids, random_ids(*ids.shape, seed=3))
    logits = [model(variant, attention_mask=mask).logits[mask.bool()] for variant in (ids, noise)]
    assert torch.equal(*logits)


def test_holes_in_a_mask_are_skipped():
    model, ids = tiny_lm(), random_ids(2, 6)
    mask = torch.tensor([[1, 0, 1, 1, 0, 1], [1] * 6])
    logits = model(ids, attention_mask=mask).logits
    assert_close(logits[0, [0, 2, 3, 5]], model(ids[:1, [0, 2, 3, 5]]).logits[0], **CLOSE)
    assert_close(logits[1], model(ids[1:]).logits[0], **CLOSE)


@pytest.mark.parametrize("mask", [[[0, 0, 0], [1, 1, 1]], [[0, 0, 0], [0, 0, 0]]])
def test_a_row_of_only_padding_keeps_its_state(mask):
    model, ids, more = tiny_lm(2), random_ids(2, 4), random_ids(2, 3, seed=1)
    mask = torch.tensor(mask)
    cache = getattr(model(ids), CACHE)
    before = [(layer.keys.clone(), layer.values.clone()) for layer in cache.layers]
    whole_mask = torch.cat([torch.ones(2, 4, dtype=torch.long), mask], dim=1)
    outputs = model(more, attention_mask=whole_mask, cache=cache)
    assert outputs.logits.isfinite().all() and cache.get_seq_length() == 7
    for layer, (h, c) in zip(cache.layers, before, strict=True):
        for row in range(2):
            unread = not mask[row].any()
            assert torch.equal(layer.keys[row], h[row]) == torch.equal(layer.values[row], c[row]) == unread


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 1, 5, 5\).*\(batch, seq\)"):
        tiny_lm()(random_ids(2, 5), attention_mask=torch.ones(2, 1, 5, 5))


# The cache


@LAYERS
@pytest.mark.parametrize("steps", [[1] * 9, [4, 1, 3, 1]])
def test_forward_in_steps_equals_one_forward(layers, steps):
    model, ids = tiny_lm(layers), random_ids(2, 9)
    cache, parts, done = DynamicCache(config=model.config), [], 0
    for step in steps:
        outputs = model(ids[:, done : done + step], cache=cache)
        assert getattr(outputs, CACHE) is cache
        done += step
        assert cache.get_seq_length() == done
        parts.append(outputs.logits)
    assert_close(torch.cat(parts, dim=1), model(ids).logits, **CLOSE)


@SIDES
@pytest.mark.parametrize("first", [2, 5, 10])
def test_padded_forward_in_steps_equals_one_forward(side, first):
    model = tiny_lm(2)
    ids, mask, _ = padded_rows(side)
    full = model(ids, attention_mask=mask).logits
    cache = getattr(model(ids[:, :first], attention_mask=mask[:, :first]), CACHE)
    parts = [model(ids[:, :first], attention_mask=mask[:, :first]).logits]
    for end in range(first + 1, ids.shape[1] + 1):
        parts.append(model(ids[:, end - 1 : end], attention_mask=mask[:, :end], cache=cache).logits)
    assert_close(torch.cat(parts, dim=1)[mask.bool()], full[mask.bool()], **CLOSE)


def test_a_cache_that_is_reset_starts_again():
    model, ids = tiny_lm(), random_ids(2, 5)
    cache = getattr(model(ids), CACHE)
    cache.reset()
    with torch.no_grad():
        assert torch.equal(model(ids, cache=cache).logits, model(ids).logits)


def test_a_cache_for_attention_is_refused():
    with pytest.raises(ValueError, match=r"DynamicCache\(config=model.config\)"):
        tiny_lm()(random_ids(1, 3), cache=DynamicCache())


# Generation


@LAYERS
def test_generation_with_a_cache_equals_generation_without(layers):
    assert_cache_keeps_generation(tiny_lm(layers))


@pytest.mark.parametrize("options", [{}, {"use_cache": False}, {"num_beams": 3}])
def test_left_padded_generation_equals_rows_on_their_own(options):
    model = tiny_lm()
    ids, mask, rows = padded_rows("left")
    sequences, _ = generate(model, ids, attention_mask=mask, **options)
    for row, alone in enumerate(rows):
        assert torch.equal(sequences[row, -LENGTHS[row] - 8 :], generate(model, alone, **options)[0][0])
    assert len({tuple(row) for row in sequences[:, -8:].tolist()}) > 1


@LAYERS
def test_beams_keep_their_state(layers):
    model, ids = tiny_lm(layers), random_ids(3, 6)
    options = {"num_beams": 4, "num_return_sequences": 4}
    beams = generate(model, ids, use_cache=False, **options)[0]
    assert torch.equal(generate(model, ids, **options)[0], beams)
    assert not torch.equal(beams[::4], generate(model, ids)[0])


def test_samples_are_the_same_with_and_without_a_cache():
    model, ids = tiny_lm(), random_ids(2, 4)
    samples = []
    for use_cache in (True, False):
        torch.manual_seed(0)
        samples.append(generate(model, ids, do_sample=True, num_return_sequences=3, use_cache=use_cache)[0])
    assert torch.equal(*samples)
    assert len({tuple(row) for row in samples[0].tolist()}) == 6


def test_generation_continues_from_a_state():
    model, ids = tiny_lm(), random_ids(2, 6)
    cache = getattr(model(ids[:, :4]), CACHE)
    assert torch.equal(generate(model, ids, **{CACHE: cache})[0], generate(model, ids)[0])


def test_generation_from_embeddings_equals_generation_from_ids():
    model, ids = tiny_lm(), random_ids(2, 6)
    sequences = generate(model, None, inputs_embeds=model.model.tokens_embed(ids))[0]
    assert torch.equal(sequences, generate(model, ids)[0][:, 6:])


def test_the_length_of_a_text_is_unlimited():
    model, ids = tiny_lm(), random_ids(1, 14)
    assert model.config.max_position_embeddings == 16
    assert generate(model, ids)[0].shape == (1, 22)


def test_assisted_generation_is_refused():
    with pytest.raises(ValueError, match="stateful"):
        generate(tiny_lm(), random_ids(1, 4), assistant_model=tiny_lm())


# Packed rows


@LAYERS
def test_packed_rows_equal_separate_sequences(layers):
    model = tiny_lm(layers)
    rows = [[4, 1, 7], [6, 6], [12]]  # lengths of the sequences in each row
    positions = torch.tensor([[i for length in row for i in range(length)] for row in rows])
    ids = random_ids(*positions.shape)
    labels = ids.masked_fill(positions == 0, -100)
    packed = model(ids, position_ids=positions, labels=labels)
    packed.loss.backward()
    packed_gradients = gradients(model)

    total, n_targets = 0.0, int((labels[:, 1:] != -100).sum())
    for row, lengths in enumerate(rows):
        start = 0
        for length in lengths:
            own = ids[row : row + 1, start : start + length]
            alone = model(own, labels=own, num_items_in_batch=n_targets)
            assert_close(packed.logits[row, start : start + length], alone.logits[0], **CLOSE)
            total = total + alone.loss
            start += length
        # A row continues from the end of its last sequence.
        for ours, own in zip(getattr(packed, CACHE).layers, getattr(alone, CACHE).layers, strict=True):
            assert_close(ours.keys[row], own.keys[0], **CLOSE)
            assert_close(ours.values[row], own.values[0], **CLOSE)
    assert_close(packed.loss, total, **CLOSE)
    total.backward()
    assert_same_gradients(packed_gradients, gradients(model))


def test_one_row_of_positions_applies_to_every_row():
    model, ids, positions = tiny_lm(), random_ids(2, 6), torch.tensor([[0, 1, 2, 0, 1, 2]])
    logits = model(ids, position_ids=positions).logits
    assert torch.equal(logits, model(ids, position_ids=positions.expand(2, -1)).logits)
    assert_close(logits[:, 3:], model(ids[:, 3:]).logits, **CLOSE)


def test_positions_without_a_restart_do_nothing():
    model, ids = tiny_lm(), random_ids(2, 6)
    positions = torch.stack([torch.arange(6), torch.arange(3, 9)])
    assert torch.equal(model(ids, position_ids=positions).logits, model(ids).logits)


@pytest.mark.parametrize("given", ["mask", "past"])
def test_as_in_gpt_1_rows_with_a_mask_or_a_past_are_not_packed(given):
    model, ids = tiny_lm(), random_ids(2, 6)
    positions = torch.tensor([[0, 1, 2, 0, 1, 2]] * 2)
    if given == "mask":
        logits = model(ids, position_ids=positions, attention_mask=torch.ones_like(ids)).logits
        assert torch.equal(logits, model(ids).logits)
    else:
        caches = [getattr(model(ids), CACHE) for _ in "ab"]
        logits = model(ids, position_ids=positions, cache=caches[0]).logits
        assert torch.equal(logits, model(ids, cache=caches[1]).logits)


# Loss and logits


def test_num_items_in_batch_divides_the_loss():
    model, ids = tiny_lm(), random_ids(2, 8)
    labels = ids.clone()
    labels[0, :5] = -100
    plain = model(ids, labels=labels).loss
    assert_close(model(ids, labels=labels, num_items_in_batch=50).loss, plain * 10 / 50, **CLOSE)
    assert model.loss_type == "ForCausalLM"  # Trainer counts the targets by it


def test_logits_to_keep_are_the_last_ones():
    model, ids = tiny_lm(), random_ids(2, 8)
    full = model(ids).logits
    assert_close(model(ids, logits_to_keep=3).logits, full[:, -3:], **CLOSE)
    assert_close(model(ids, logits_to_keep=torch.tensor([1, 4])).logits, full[:, [1, 4]], **CLOSE)


def test_the_loss_without_logits_is_the_loss_with_them():
    model = tiny_lm()
    ids, mask, _ = padded_rows("right")
    batch = {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}
    expected = model(**batch).loss
    expected.backward()
    wanted = gradients(model)
    outputs = model(**batch, skip_logits=True)
    outputs.loss.backward()
    assert outputs.logits is None
    assert_close(outputs.loss, expected, **CLOSE)
    assert_same_gradients(gradients(model), wanted)


# Heads


def read(model, row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """States of a row of ids on its own, `(seq, hidden)`, and its mean token loss, by the formulas."""
    lm = GPT1LSTMForCausalLM(model.config)
    lm.model = model.model
    logits, _ = by_hand(lm, model.model.tokens_embed(row))
    return model.model(row[None]).last_hidden_state[0], torch.nn.functional.cross_entropy(logits[:-1], row[1:])


def check_head(model, batch, logits: torch.Tensor, task_loss: torch.Tensor, lm_losses: list[torch.Tensor]):
    """Outputs, losses and the gradients of every parameter against sums by hand."""
    lm_loss = torch.stack(lm_losses).mean()
    (task_loss + 0.5 * lm_loss).backward()
    wanted = gradients(model)
    outputs = model(**batch)
    outputs.loss.backward()
    assert_close(outputs.logits, logits, **CLOSE)
    assert_close(outputs.task_loss, task_loss, **CLOSE)
    assert_close(outputs.lm_loss, lm_loss, **CLOSE)
    assert_close(outputs.loss, task_loss + 0.5 * lm_loss, **CLOSE)
    assert_same_gradients(gradients(model), wanted)


@SIDES
@pytest.mark.parametrize("orders", [1, 2])
def test_a_classifier_reads_the_state_of_the_last_token(side, orders):
    model = randomize(GPT1LSTMForSequenceClassification(tiny_config(num_labels=3)))
    ids, mask, rows = padded_rows(side)
    labels, states, lm_losses = torch.tensor([2, 0, 1]), [], []
    batch = {"input_ids": ids, "attention_mask": mask}
    if orders == 2:  # the other order of a pair, here the rows of another seed
        other = random_ids(*ids.shape, seed=5) * mask
        batch = {"input_ids": torch.stack([ids, other], 1), "attention_mask": torch.stack([mask, mask], 1)}
    for index, row in enumerate(rows):
        parts = [row[0]] if orders == 1 else [row[0], other[index][mask[index].bool()]]
        read_parts = [read(model, part) for part in parts]
        states.append(sum(part_states[-1] for part_states, _ in read_parts))
        lm_losses.append(sum(loss for _, loss in read_parts) / orders)
    logits = model.classifier(torch.stack(states))
    task_loss = torch.nn.functional.cross_entropy(logits, labels)
    check_head(model, {**batch, "labels": labels}, logits, task_loss, lm_losses)


@SIDES
def test_multiple_choice_scores_each_answer(side):
    model = randomize(GPT1LSTMForMultipleChoice(tiny_config()))
    mask = mask_of(side).flip(0)[None].expand(2, -1, -1)  # (questions, choices, seq)
    ids, labels = random_ids(*mask.shape) * mask, torch.tensor([2, 0])
    logits, lm_losses = torch.zeros(2, 3), []
    for question in range(2):
        for choice in range(3):
            states, lm_loss = read(model, ids[question, choice][mask[question, choice].bool()])
            logits[question, choice] = model.classifier(states[-1])
            lm_losses.append(lm_loss)
    task_loss = torch.nn.functional.cross_entropy(logits, labels)
    check_head(model, {"input_ids": ids, "attention_mask": mask, "labels": labels}, logits, task_loss, lm_losses)


def test_tokens_are_classified_from_their_own_states():
    model = randomize(GPT1LSTMForTokenClassification(tiny_config(num_labels=4, lm_coef=0.0)))
    ids, mask, rows = padded_rows("left")
    labels = torch.randint(0, 4, ids.shape).masked_fill(mask == 0, -100)
    outputs = model(ids, attention_mask=mask, labels=labels)
    logits = torch.cat([model.classifier(read(model, row[0])[0]) for row in rows])
    assert_close(outputs.logits[mask.bool()], logits, **CLOSE)
    assert_close(outputs.loss, torch.nn.functional.cross_entropy(logits, labels[mask.bool()]), **CLOSE)


def test_packed_rows_hold_several_examples():
    model = randomize(GPT1LSTMForSequenceClassification(tiny_config(num_labels=3)))
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2], [0, 1, 0, 1, 2, 3, 4]])
    ids, labels = random_ids(2, 7), torch.tensor([2, 0, 1, 1])
    parts = [read(model, part) for part in (ids[0, :4], ids[0, 4:], ids[1, :2], ids[1, 2:])]
    logits = model.classifier(torch.stack([states[-1] for states, _ in parts]))
    task_loss = torch.nn.functional.cross_entropy(logits, labels)
    batch = {"input_ids": ids, "position_ids": positions, "labels": labels}
    check_head(model, batch, logits, task_loss, [loss for _, loss in parts])


def test_a_score_is_read_out_of_bins():
    model = randomize(GPT1LSTMForSequenceClassification(tiny_config(num_labels=1, regression_bins=6)))
    ids = random_ids(2, 6)
    bins = model.classifier(model.model(ids).last_hidden_state[:, -1])
    assert bins.shape == (2, 6)
    assert_close(model(ids).logits, (bins.softmax(-1) * torch.arange(6)).sum(-1, keepdim=True), **CLOSE)
    with pytest.raises(StrictDataclassClassValidationError, match="num_labels"):
        tiny_config(num_labels=2, regression_bins=6)


@pytest.mark.parametrize("head", [GPT1LSTMForSequenceClassification, GPT1LSTMForMultipleChoice])
def test_a_head_takes_over_a_language_model_s_weights(head, tmp_path):
    lm = tiny_lm(2)
    lm.save_pretrained(tmp_path)
    model, info = head.from_pretrained(tmp_path, output_loading_info=True)
    assert set(info["missing_keys"]) == {"classifier.weight", "classifier.bias"}
    assert not info["unexpected_keys"]
    for name, weight in lm.model.state_dict().items():
        assert torch.equal(model.model.state_dict()[name], weight), name


# Training


@pytest.mark.parametrize("std", [0.02, 0.3, 0.0])
def test_weights_are_drawn_with_the_initializer_range_and_forget_gates_start_open(std):
    torch.manual_seed(0)
    model = GPT1LSTMForCausalLM(
        GPT1LSTMConfig(vocab_size=500, hidden_size=64, lstm_size=96, initializer_range=std, num_hidden_layers=2)
    )
    for name, parameter in model.named_parameters():
        if "bias_ih" in name:
            assert parameter.tolist() == [0.0] * 96 + [1.0] * 96 + [0.0] * 192, name
        elif "bias" in name:
            assert not parameter.any(), name
        else:
            assert parameter.std().item() == pytest.approx(std, rel=0.05), name
            assert abs(parameter.mean().item()) <= 0.1 * std, name


def test_weights_missing_from_a_checkpoint_are_drawn_and_named(tmp_path):
    torch.manual_seed(0)
    GPT1LSTMForCausalLM(tiny_config(initializer_range=0.1)).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = {name: weight for name, weight in load_file(file).items() if ".lstm." not in name}
    save_file(weights, file, metadata={"format": "pt"})
    model, info = GPT1LSTMForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    kinds = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    assert set(info["missing_keys"]) == {f"model.h.0.lstm.{kind}" for kind in kinds}
    lstm = model.model.h[0].lstm
    assert lstm.weight_hh_l0.std().item() == pytest.approx(0.1, rel=0.1)
    assert lstm.bias_ih_l0[UNITS : 2 * UNITS].tolist() == [1.0] * UNITS and not lstm.bias_hh_l0.any()


def test_gradient_checkpointing_gives_the_same_gradients():
    model = tiny_lm(2, embd_pdrop=0.1, resid_pdrop=0.1).train()
    ids, mask, _ = padded_rows("right")
    results, calls = [], []
    model.model.h[0].lstm.register_forward_hook(lambda *_: calls.append(1))
    for enabled in (False, True):
        if enabled:
            model.activation_checkpointing_enable()
        torch.manual_seed(0)
        model(ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100), use_cache=False).loss.backward()
        results.append(gradients(model))
    assert len(calls) == 1 + 2
    assert_same_gradients(*results)


@pytest.mark.parametrize("name", ["embd_pdrop", "resid_pdrop"])
def test_each_dropout_acts_in_training_only(name):
    model, ids = tiny_lm(**{name: 0.5}), random_ids(2, 8)
    assert_close(model(ids).logits, tiny_lm()(ids).logits, **CLOSE)
    model.train()
    assert not torch.allclose(model(ids).logits, model(ids).logits, atol=1e-2)


def test_full_residual_dropout_leaves_the_projection_s_bias():
    model = tiny_lm(resid_pdrop=1.0).train()
    states = model.model(random_ids(2, 5)).last_hidden_state
    assert_close(states, model.model.h[0].proj.bias.expand(2, 5, -1))


needs_bf16 = pytest.mark.skipif(
    not has_half_precision(torch.bfloat16, torch.device("cpu")), reason="this CPU has no bf16 matrix products"
)


@needs_bf16
@SIDES
def test_bf16_autocast_is_close_to_fp32(side):
    model = tiny_lm(2)
    ids, mask, _ = padded_rows(side)
    expected = model(ids, attention_mask=mask)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(ids, attention_mask=mask, labels=ids)
        step = model(ids[:, :1], cache=getattr(outputs, CACHE)).logits
    outputs.loss.backward()
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())
    real = mask.bool()
    assert_close(outputs.logits[real].float(), expected.logits[real], atol=0.15, rtol=0.05)
    expected_step = model(ids[:, :1], cache=getattr(expected, CACHE)).logits
    assert_close(step.float(), expected_step, atol=0.15, rtol=0.05)


@needs_bf16
@SIDES
def test_an_lstm_may_answer_in_another_type_than_it_was_asked_in(side):
    # As cuDNN's under autocast; the CPU's stays in fp32.
    def to_bf16(_, inputs, outputs):
        output, state = outputs
        return output.to(torch.bfloat16), tuple(part.to(torch.bfloat16) for part in state)

    model = tiny_lm(2)
    ids, mask, _ = padded_rows(side)
    expected = model(ids, attention_mask=mask)
    expected_step = model(ids[:, :1], cache=getattr(expected, CACHE)).logits
    for block in model.model.h:
        block.lstm.register_forward_hook(to_bf16)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(ids, attention_mask=mask)
        assert getattr(outputs, CACHE).layers[0].keys.dtype == torch.bfloat16
        step = model(ids[:, :1], cache=getattr(outputs, CACHE)).logits
    assert_close(outputs.logits[mask.bool()].float(), expected.logits[mask.bool()], atol=0.3, rtol=0.05)
    assert_close(step.float(), expected_step, atol=0.3, rtol=0.05)


def test_a_state_in_another_type_is_read_in_the_model_s():
    model, ids = tiny_lm(2), random_ids(2, 5)
    expected = model(ids[:, 4:], cache=getattr(model(ids[:, :4]), CACHE))
    cache = getattr(model(ids[:, :4]), CACHE)
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys.to(torch.bfloat16), layer.values.to(torch.bfloat16)
    outputs = model(ids[:, 4:], cache=cache)
    assert outputs.logits.dtype == torch.float32
    assert_close(outputs.logits, expected.logits, atol=0.1, rtol=0.05)


# Saving


def test_a_saved_model_is_the_same_and_its_softmax_stays_tied(tmp_path):
    model, ids = tiny_lm(2), random_ids(2, 6)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert "lm_head.weight" not in weights
    assert all(name.startswith("model.") for name in weights)
    for loaded in (GPT1LSTMForCausalLM.from_pretrained(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path)):
        assert type(loaded) is GPT1LSTMForCausalLM
        assert torch.equal(loaded(ids).logits, model(ids).logits)
        assert loaded.lm_head.weight is loaded.model.tokens_embed.weight
    base, info = GPT1LSTMModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert torch.equal(base(ids).last_hidden_state, model.model(ids).last_hidden_state)


def test_weights_in_one_buffer_as_cudnn_wants_them_are_saved(tmp_path):
    model = tiny_lm()
    expected = {name: weight.clone() for name, weight in model.state_dict().items()}
    lstm = model.model.h[0].lstm
    buffer = torch.cat([parameter.data.flatten() for parameter in lstm.parameters()])
    for parameter, part in zip(
        lstm.parameters(), buffer.split([parameter.numel() for parameter in lstm.parameters()]), strict=True
    ):
        parameter.data = part.view_as(parameter)
    model.save_pretrained(tmp_path)
    again = GPT1LSTMForCausalLM.from_pretrained(tmp_path).state_dict()
    assert again.keys() == expected.keys()
    for name in expected:
        assert torch.equal(again[name], expected[name]), name


def test_new_tokens_are_added_to_embeddings_and_softmax():
    model, ids = tiny_lm(), random_ids(2, 6)
    before = model(ids).logits
    model.resize_token_embeddings(VOCAB + 3, mean_resizing=False)
    assert model.config.vocab_size == VOCAB + 3
    after = model(torch.cat([ids, torch.full((2, 1), VOCAB + 2)], dim=1), labels=None).logits
    assert after.shape == (2, 7, VOCAB + 3)
    assert_close(after[:, :6, :VOCAB], before, **CLOSE)
    assert model.lm_head.weight is model.model.tokens_embed.weight
