"""A common prefix, computed once for all choices, gives the logits, losses and gradients of separate rows."""

import random

import pytest
import torch
from datasets import Dataset
from helpers.models import ATTENTIONS, CLOSE, assert_same_gradients, gradients, randomize, tiny_config
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.testing import assert_close
from transformers import masking_utils
from transformers.integrations import flex_attention as flex_module

from gpt1_hf import (
    GPT1DataCollator,
    GPT1ForMultipleChoice,
    GPT1ForSequenceClassification,
    GPT1LSTMConfig,
    GPT1LSTMForMultipleChoice,
    GPT1Processor,
    GPT1Trainer,
    GPT1TrainingArguments,
)
from gpt1_hf.data.batching import common_prefix
from gpt1_hf.modeling_gpt1 import GPT1Model
from gpt1_hf.modeling_gpt1_heads import CACHE, Branches


SIDES = pytest.mark.parametrize("side", ["right", "left"])
LABELS = [2, 0, 1, 1]


@pytest.fixture
def processor(tokenizer) -> GPT1Processor:
    return GPT1Processor(tokenizer, "multiple_choice")


@pytest.fixture
def rows(processor, texts) -> list[dict]:
    """Four questions with three choices: short, long, with a cut document, and with one token left of the document."""
    documents = [texts[0][:30], texts[1], " ".join(texts[2:6]), " ".join(texts[6:9])]
    questions = ["The lady?", "", "Who smiled at the captain?", " ".join(texts[9:11])]
    choices = [["she", "her captain, and the old lady", "she wept"]] * 3 + [["a lady", " ".join(texts[12:15]), "a"]]
    columns = {"document": documents, "question": questions, "choices": choices}
    encoding = processor(columns, max_length=60, return_truncated=True)
    assert encoding["truncated"] == [False, False, True, True]
    return [{"input_ids": ids, "label": label} for ids, label in zip(encoding["input_ids"], LABELS, strict=True)]


def tiny_model(processor, attention="sdpa", **changes) -> GPT1ForMultipleChoice:
    config = tiny_config(**{"vocab_size": len(processor.tokenizer), "max_position_embeddings": 64, **changes})
    return randomize(GPT1ForMultipleChoice._from_config(config, attn_implementation=attention))


def tiny_lstm(processor) -> GPT1LSTMForMultipleChoice:
    sizes = {"vocab_size": len(processor.tokenizer), "hidden_size": 16, "lstm_size": 24}
    return randomize(GPT1LSTMForMultipleChoice(GPT1LSTMConfig(**sizes, classifier_dropout=0.0)))


def run(model, batch, **options) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Outputs and gradients of a batch."""
    model.zero_grad()
    outputs = model(**batch, **options)
    outputs.loss.backward()
    names = ("logits", "loss", "task_loss", "lm_loss")
    parts = {name: gradient.clone() for name, gradient in gradients(model).items()}
    # The softmax over the answers ignores a constant added to each: only rounding is left.
    assert parts.pop("classifier.bias").abs() < 1e-6
    if "lm_loss" not in outputs:  # nor what the last layer norm adds to each
        assert parts.pop(f"transformer.h.{model.config.num_hidden_layers - 1}.ln_2.bias").abs().max() < 1e-6
    return {name: outputs[name].detach() for name in names if name in outputs}, parts


def assert_same(one, other):
    outputs, other_outputs = one[0], other[0]
    assert outputs.keys() == other_outputs.keys()
    for name in outputs:
        assert_close(outputs[name], other_outputs[name], **CLOSE)
    assert_same_gradients(one[1], other[1])


def test_the_common_prefix_leaves_each_sequence_a_token():
    assert common_prefix([[1, 2, 3, 4], [1, 2, 5, 4]]) == 2
    assert common_prefix([[1, 2, 3], [1, 2, 3]]) == 2
    assert common_prefix([[1, 2], [1, 2, 3, 4], [1, 2, 3]]) == 1
    assert common_prefix([[1, 9], [2, 9]]) == 0
    assert common_prefix([[1, 2, 3]]) == 2
    rng = random.Random(0)
    for _ in range(200):
        sequences = [[rng.randint(0, 1) for _ in range(rng.randint(1, 9))] for _ in range(rng.randint(1, 4))]
        n = common_prefix(sequences)
        assert len({tuple(sequence[:n]) for sequence in sequences}) == 1
        one_more = {tuple(sequence[: n + 1]) for sequence in sequences}
        assert len(one_more) > 1 or n + 1 == min(map(len, sequences))


@SIDES
def test_a_row_holds_the_prefix_once_and_each_branch(processor, rows, side):
    processor.tokenizer.padding_side = side
    batch = GPT1DataCollator(processor)(rows)
    assert set(batch) == {"input_ids", "attention_mask", "branch_starts", "labels"}
    for index, row in enumerate(rows):
        n_prefix = common_prefix(row["input_ids"])
        tokens = batch["input_ids"][index]
        ends = [*batch["branch_starts"][index, 1:].tolist(), int(batch["attention_mask"][index].nonzero().max()) + 1]
        first = int(batch["attention_mask"][index].nonzero().min())
        assert batch["branch_starts"][index, 0] == first + n_prefix
        prefix = tokens[first : first + n_prefix].tolist()
        branches = [tokens[start:end].tolist() for start, end in zip(batch["branch_starts"][index], ends, strict=True)]
        assert [prefix + branch for branch in branches] == row["input_ids"]


@SIDES
@ATTENTIONS
@pytest.mark.parametrize("lm_coef", [0.5, 0.0])
def test_sharing_changes_neither_logits_losses_nor_gradients(processor, rows, side, attention, lm_coef):
    processor.tokenizer.padding_side = side
    model = tiny_model(processor, attention, lm_coef=lm_coef)
    plain = run(model, GPT1DataCollator(processor, shared_prefix=False)(rows))
    shared = run(model, GPT1DataCollator(processor)(rows))
    assert shared[0]["logits"].shape == (4, 3)
    assert ("lm_loss" in shared[0]) == bool(lm_coef)
    assert_same(shared, plain)


@pytest.mark.parametrize("changes", [{"position_embedding_type": "sinusoidal"}, {"position_embedding_type": "none"}])
def test_sharing_works_with_each_kind_of_positions(processor, rows, changes):
    model = tiny_model(processor, **changes)
    plain = run(model, GPT1DataCollator(processor, shared_prefix=False)(rows))
    assert_same(run(model, GPT1DataCollator(processor)(rows)), plain)


def test_each_choice_equals_its_row_alone(processor, rows):
    """Compared with single rows, without padding or neighbours, and with the loss written out."""
    model = tiny_model(processor)
    outputs = model(**GPT1DataCollator(processor)(rows), use_cache=True)
    assert getattr(outputs, CACHE) is None  # no branch could be continued from it
    sums = []
    for index, row in enumerate(rows):
        for choice, ids in enumerate(row["input_ids"]):
            states = model.transformer(torch.tensor([ids])).last_hidden_state[0]
            assert_close(model.classifier(states[-1])[0], outputs.logits[index, choice], **CLOSE)
            scores = states[:-1] @ model.get_input_embeddings().weight.T
            sums.append(torch.nn.functional.cross_entropy(scores, torch.tensor(ids[1:])))
    assert_close(outputs.lm_loss, sum(sums) / len(sums), **CLOSE)


@pytest.mark.parametrize("without", ["a prefix", "a mask"])
def test_rows_without(processor, rows, without):
    model = tiny_model(processor, pad_token_id=0)
    if without == "a prefix":
        rows = [{"input_ids": [ids[index:] for index, ids in enumerate(row["input_ids"])], "label": 0} for row in rows]
        assert {common_prefix(row["input_ids"]) for row in rows} == {0}
    shared, plain = (GPT1DataCollator(processor, shared_prefix=shared)(rows) for shared in (True, False))
    if without == "a mask":
        for batch in (shared, plain):  # the unknown token has the id of padding
            batch["input_ids"][(batch["input_ids"] == 0) & batch["attention_mask"].bool()] = 5
        shared.pop("attention_mask")
    assert_same(run(model, shared), run(model, plain))


def test_ignored_labels_and_the_parts_of_an_update_add_up(processor, rows):
    model = tiny_model(processor)
    rows[1]["label"] = -100
    collator = GPT1DataCollator(processor)
    whole = run(model, GPT1DataCollator(processor, shared_prefix=False)(rows))
    assert_same(run(model, collator(rows)), whole)
    parts = [
        run(model, collator(part), num_items_in_batch=torch.tensor(3)) for part in (rows[:1], rows[1:3], rows[3:])
    ]
    for name in ("loss", "task_loss", "lm_loss"):
        assert_close(sum(outputs[name] for outputs, _ in parts), whole[0][name], **CLOSE)
    total = {name: sum(gradients[name] for _, gradients in parts) for name in whole[1]}
    assert_same_gradients(total, whole[1])


def test_embeddings_in_place_of_ids_and_token_types(processor, rows):
    model = tiny_model(processor)
    batch = GPT1DataCollator(processor)(rows)
    types = batch["input_ids"] % 7
    plain = GPT1DataCollator(processor, shared_prefix=False)(rows)
    expected = model(**plain, token_type_ids=plain["input_ids"] % 7).logits
    assert_close(model(**batch, token_type_ids=types).logits, expected, **CLOSE)
    batch["inputs_embeds"] = model.get_input_embeddings()(batch.pop("input_ids"))
    assert_close(model(**batch, token_type_ids=types).logits, expected, **CLOSE)


def test_gradient_checkpointing_and_a_common_dropout_mask(processor, rows):
    model = tiny_model(processor)
    expected = run(model, GPT1DataCollator(processor)(rows))
    model.train().activation_checkpointing_enable()
    assert_same(run(model, GPT1DataCollator(processor)(rows)), expected)
    model = tiny_model(processor, classifier_dropout=0.5).train()
    row = {"input_ids": [[5, 6, 7]] * 4, "label": 0}
    logits = model(**GPT1DataCollator(processor)([row] * 4)).logits
    assert_close(logits, logits[:, :1].expand(-1, 4), **CLOSE)
    assert logits[:, 0].std() > 1e-3


@SIDES
def test_a_model_that_cannot_share_reads_separate_rows(processor, rows, side, monkeypatch):
    processor.tokenizer.padding_side = side
    shared, plain = (GPT1DataCollator(processor, shared_prefix=shared)(rows) for shared in (True, False))
    lstm = tiny_lstm(processor)
    expected = lstm(**plain)
    outputs = lstm(**shared)
    assert_close(outputs.logits, expected.logits, **CLOSE)
    assert_close(outputs.loss, expected.loss, **CLOSE)
    model = tiny_model(processor)
    expected = run(model, plain)
    monkeypatch.setattr(GPT1Model, "takes_branches", False)  # as with flash attention
    assert_same(run(model, shared), expected)
    shared["inputs_embeds"] = model.get_input_embeddings()(shared.pop("input_ids"))
    assert_close(model(**shared).logits, expected[0]["logits"], **CLOSE)


@pytest.mark.filterwarnings("ignore:.*without torch.compile.*")
def test_flex_attention_sees_the_same(processor, rows, monkeypatch):
    # Uncompiled, which starts faster: the same function of the same block mask.
    def block_mask(*args, **kwargs):
        return create_block_mask(*args, **{**kwargs, "_compile": False})

    monkeypatch.setattr(masking_utils, "create_block_mask", block_mask)
    monkeypatch.setattr(flex_module, "WrappedFlexAttention", lambda training: lambda: flex_attention)
    expected = tiny_model(processor)(**GPT1DataCollator(processor, shared_prefix=False)(rows))
    with torch.no_grad():
        outputs = tiny_model(processor, "flex_attention")(**GPT1DataCollator(processor)(rows))
    assert_close(outputs.logits, expected.logits, **CLOSE)
    assert_close(outputs.loss, expected.loss, **CLOSE)


def test_flash_attention_rejects_branches(processor):
    model = tiny_model(processor)
    assert model.transformer.takes_branches
    model.config._attn_implementation = "flash_attention_2"
    assert not model.transformer.takes_branches
    ids = torch.ones(1, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="branch_ids need"):
        model.transformer(ids, branch_ids=ids, position_ids=ids)


def test_branch_ids_need_positions(processor):
    ids = torch.ones(1, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="branch_ids need position_ids"):
        tiny_model(processor).transformer(ids, branch_ids=ids)


def test_the_rows_of_a_pair_can_share_a_prefix_too(processor, rows):
    """`branch_starts` works for every head."""
    rows = [{**row, "input_ids": row["input_ids"][:2]} for row in rows]
    config = tiny_config(vocab_size=len(processor.tokenizer), max_position_embeddings=64, num_labels=3)
    model = randomize(GPT1ForSequenceClassification(config))
    shared, plain = (model(**GPT1DataCollator(processor, shared_prefix=shared)(rows)) for shared in (True, False))
    assert_close(shared.logits, plain.logits, **CLOSE)
    assert_close(shared.loss, plain.loss, **CLOSE)


def test_branches_of_a_row_by_hand():
    starts = torch.tensor([[3, 5, 6]])
    mask = torch.tensor([[0, 1, 1, 1, 1, 1, 1, 1, 0]])
    branches = Branches.find(starts, mask, mask.shape)
    assert branches.ids.tolist() == [[0, 0, 0, 1, 1, 2, 3, 3, 3]]
    assert branches.position_ids[:, 1:-1].tolist() == [[0, 1, 2, 3, 2, 2, 3]]
    assert branches.ends.tolist() == [[4, 5, 7]]
    assert branches.lengths().tolist() == [[4, 3, 4]]
    apart = branches.separate(torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 0]]))
    assert apart.tolist() == [[[1, 2, 3, 4], [1, 2, 5, 0], [1, 2, 6, 7]]]


@pytest.mark.parametrize("model_of", [tiny_model, tiny_lstm])
def test_the_trainer_shares_by_default_and_learns(processor, texts, tmp_path, model_of):
    """
    The right choice repeats the document's last word. The same number of updates without sharing gives the same
    losses.
    """
    rng = random.Random(0)
    words = ["captain", "lady", "garden", "letter"]
    columns = {"document": [], "question": [], "choices": [], "label": []}
    for _ in range(48):
        choices = rng.sample(words, 3)
        columns["label"].append(rng.randrange(3))
        columns["document"].append(f"{rng.choice(texts)[:40]} {choices[columns['label'][-1]]}")
        columns["question"].append(rng.choice(["", "Who?"]))
        columns["choices"].append(choices)
    data = Dataset.from_dict(columns)
    data = data.map(processor, batched=True, remove_columns=["document", "question", "choices"])
    logs, shapes = {}, []
    for shared in (True, False):
        torch.manual_seed(0)
        args = GPT1TrainingArguments(
            output_dir=str(tmp_path),
            use_cpu=True,
            logging_steps=1,
            max_steps=4,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            learning_rate=1e-3,
            disable_tqdm=True,
        )
        model = model_of(processor)
        collator = None if shared else GPT1DataCollator(processor, shared_prefix=False)
        trainer = GPT1Trainer(model, args, collator, processing_class=processor, train_dataset=data)
        shapes.append(next(iter(trainer.get_train_dataloader()))["input_ids"].dim())
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        trainer.train()
        for name, parameter in model.named_parameters():
            if "k_proj.bias" not in name and name != "classifier.bias":  # their gradients are rounding
                assert not torch.equal(parameter, before[name]), name
        logs[shared] = [entry for entry in trainer.state.log_history if "loss" in entry]
        predictions = trainer.predict(data.select(range(5)))
        assert predictions.predictions.shape == (5, 3)
    assert shapes == [2, 3]
    for with_sharing, without in zip(*logs.values(), strict=True):
        for name in ("loss", "task_loss", "lm_loss", "grad_norm"):
            assert float(with_sharing[name]) == pytest.approx(float(without[name]), rel=2e-3), name


@pytest.mark.slow
def test_shared_prefixes_are_one_graph_for_torch_compile(processor, rows):
    model = tiny_model(processor)
    batch = GPT1DataCollator(processor)(rows)
    expected = model(**batch)
    outputs = torch.compile(model, fullgraph=True)(**batch)
    assert_close(outputs.loss, expected.loss, **CLOSE)
    assert_close(outputs.logits, expected.logits, **CLOSE)
