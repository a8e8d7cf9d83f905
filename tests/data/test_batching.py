"""The collator and the order of rows: padding, packing, several sequences per row, and grouping by length."""

import pytest
import torch
from datasets import Dataset
from torch.testing import assert_close
from torch.utils.data import DataLoader

from gpt1_hf import (
    GPT1Config,
    GPT1DataCollator,
    GPT1ForSequenceClassification,
    GPT1ForTokenClassification,
    GPT1LSTMConfig,
    GPT1LSTMForSequenceClassification,
    GPT1Processor,
    GPT1Trainer,
    GPT1TrainingArguments,
)
from gpt1_hf.data.batching import UPDATES_PER_SORT, LengthGroupedSampler, PackingCollator, row_lengths


ROWS = [[5, 6, 7], [8, 9, 10, 11, 12], [13, 14]]
LABELLED = [{"input_ids": row, "label": label} for row, label in zip(ROWS, (1, 0, 1), strict=True)]


@pytest.fixture
def processor(tokenizer) -> GPT1Processor:
    return GPT1Processor(tokenizer)


def tiny_model(kind, processor):
    torch.manual_seed(0)
    sizes = {"vocab_size": len(processor.tokenizer), "hidden_size": 16, "initializer_range": 0.3}
    off = {"embd_pdrop": 0.0, "resid_pdrop": 0.0, "classifier_dropout": 0.0}
    if kind == "lstm":
        return GPT1LSTMForSequenceClassification(GPT1LSTMConfig(**sizes, **off, lstm_size=16))
    config = GPT1Config(**sizes, **off, attn_pdrop=0.0, num_hidden_layers=2, num_attention_heads=2)
    return GPT1ForSequenceClassification(config)


def results(model, batch):
    model.zero_grad()
    outputs = model(**batch)
    outputs.loss.backward()
    return outputs, [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize("kind", ["transformer", "lstm"])
@pytest.mark.parametrize("how", ["left", "packed"])
def test_padding_on_the_left_and_packing_give_what_padding_on_the_right_gives(processor, kind, how):
    model = tiny_model(kind, processor)
    expected, gradients = results(model, GPT1DataCollator(processor)(LABELLED))
    processor.tokenizer.padding_side = "left"
    batch = GPT1DataCollator(processor, packing=how == "packed")(LABELLED)
    outputs, other_gradients = results(model, batch)
    for name in ("logits", "loss", "task_loss", "lm_loss"):
        assert_close(outputs[name], expected[name], atol=1e-5, rtol=1e-5)
    for one, other in zip(gradients, other_gradients, strict=True):
        assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_with_much_padding_is_packed(processor, side):
    processor.tokenizer.padding_side = side
    collator = PackingCollator(GPT1DataCollator(processor))
    packed = GPT1DataCollator(processor, packing=True)
    for name, expected in packed(LABELLED).items():
        assert_close(collator(LABELLED)[name], expected)
    for unchanged in (
        LABELLED[:1],
        [{"input_ids": row} for row in ROWS],
        [{"input_ids": row, "labels": row} for row in ROWS],
        [{"input_ids": [], "label": 0}, *LABELLED],
    ):
        assert collator(unchanged)["attention_mask"].shape == collator(unchanged)["input_ids"].shape


@pytest.mark.parametrize("attn_pdrop", [0.0, 0.1])
def test_training_packs_where_its_attention_skips_masked_tokens(processor, tmp_path, attn_pdrop):
    model = tiny_model("transformer", processor)
    model.config.attn_pdrop = attn_pdrop
    rows = Dataset.from_list(LABELLED)
    settings = {"use_cpu": True, "report_to": "none", "per_device_train_batch_size": 3}
    args = GPT1TrainingArguments(output_dir=str(tmp_path), **settings)
    trainer = GPT1Trainer(model, args, processing_class=processor, train_dataset=rows, eval_dataset=rows)
    train, evaluation = next(iter(trainer.get_train_dataloader())), next(iter(trainer.get_eval_dataloader()))
    assert ("attention_mask" not in train) == (attn_pdrop > 0)
    assert "attention_mask" in evaluation
    outputs, expected = (trainer.model.eval()(**batch) for batch in (train, GPT1DataCollator(processor)(LABELLED)))
    assert_close(outputs.loss, expected.loss)


def test_packed_rows_have_no_padding_and_no_mask(processor):
    batch = GPT1DataCollator(processor, packing=True)(LABELLED)
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14]],
        "position_ids": [[0, 1, 2, 0, 1, 2, 3, 4, 0, 1]],
        "labels": [1, 0, 1],
    }


def test_a_padded_batch(processor):
    batch = GPT1DataCollator(processor, pad_to_multiple_of=8)(LABELLED)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, 8)
    assert batch["attention_mask"].sum(-1).tolist() == [3, 5, 2]
    assert "labels" not in GPT1DataCollator(processor)([{"input_ids": row} for row in ROWS])
    scores = GPT1DataCollator(processor)([{"input_ids": [5, 6], "label": 2.5}])["labels"]
    assert scores.dtype == torch.float32


@pytest.mark.parametrize("input_format", ["similarity", "multiple_choice"])
def test_several_sequences_per_row_are_padded_to_the_longest_of_all(tokenizer, input_format):
    processor = GPT1Processor(tokenizer, input_format)
    rows = [{"input_ids": [[5, 6], [5, 7, 8]], "label": 0}, {"input_ids": [[9, 9, 9, 9], [9]], "label": 1}]
    batch = GPT1DataCollator(processor, shared_prefix=False)(rows)
    assert batch["input_ids"].tolist() == [[[5, 6, 0, 0], [5, 7, 8, 0]], [[9, 9, 9, 9], [9, 0, 0, 0]]]
    assert batch["attention_mask"].sum(-1).tolist() == [[2, 3], [4, 1]]
    assert batch["labels"].tolist() == [0, 1]
    with pytest.raises(ValueError, match="turn packing off"):
        GPT1DataCollator(processor, packing=True)


def test_unequal_numbers_of_choices_are_refused_by_row(tokenizer):
    collator = GPT1DataCollator(GPT1Processor(tokenizer, "multiple_choice"))
    with pytest.raises(ValueError, match="row 1 of the batch has 1 choices, but row 0 has 2"):
        collator([{"input_ids": [[5, 6], [5, 7]]}, {"input_ids": [[5, 6]]}])


@pytest.mark.parametrize("name", ["label", "labels", "label_ids"])
@pytest.mark.parametrize("packing", [False, True])
def test_labels_by_any_of_their_names(processor, name, packing):
    rows = [{"input_ids": row["input_ids"], name: row["label"]} for row in LABELLED]
    labels = GPT1DataCollator(processor, packing=packing)(rows)["labels"]
    assert labels.tolist() == [1, 0, 1] and labels.dtype == torch.int64


MATRIX = [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.5]]


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize(
    ("labels", "expected", "dtype"),
    [
        ([2, 0, 1], [2, 0, 1], torch.int64),
        ([True, False, True], [1, 0, 1], torch.int64),
        ([2.5, 0.0, 5.0], [2.5, 0.0, 5.0], torch.float32),
        ([2.5, 0, 5], [2.5, 0.0, 5.0], torch.float32),
        (MATRIX, MATRIX, torch.float32),
        ([[2.5], [1.0], [0.0]], [[2.5], [1.0], [0.0]], torch.float32),
        ([[True, False], [False, True], [True, True]], [[1, 0], [0, 1], [1, 1]], torch.float32),
        ([[1, 0], [0, 1], [1, 1]], [[1, 0], [0, 1], [1, 1]], torch.int64),
        ([-1, -1, -1], [-1, -1, -1], torch.int64),  # hidden
        ([None, None, None], None, None),
        ([float("nan"), None, float("nan")], None, None),
    ],
)
def test_labels_of_every_kind(processor, packing, labels, expected, dtype):
    rows = [{"input_ids": ids, "label": label} for ids, label in zip(ROWS, labels, strict=True)]
    batch = GPT1DataCollator(processor, packing=packing)(rows)
    if expected is None:
        assert "labels" not in batch
    else:
        assert batch["labels"].tolist() == expected and batch["labels"].dtype == dtype


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (
            ["good", "bad", "good"],
            "row 0 of the batch has the label 'good', but labels must be numbers: give class",
        ),
        ([1, "0", 1], "row 1 of the batch has the label '0'"),
        ([[1.0, "x"], [0.0, 1.0], [0.0, 1.0]], r"row 0 of the batch has the label \[1.0, 'x'\]"),
        ([[1.0, None], [0.0, 1.0], [0.0, 1.0]], "labels must be numbers"),
        ([1.0, float("inf"), 0.0], "row 1 of the batch has the label inf"),
        ([1, None, 0], "row 1 of the batch has no label, but others have"),
        ([1.5, float("nan"), 0.0], "row 1 of the batch has no label"),
        ([None, None, 0], "row 0 of the batch has no label"),
        (
            [[1.0, 0.0], [1.0], [0.0, 1.0]],
            "row 1 of the batch has a list of 1 as its label, but row 0 has a list of 2",
        ),
        ([[1, 0, 1], [1, 0], [1, 1]], "row 1 of the batch has a list of 2"),  # neither of tokens nor of classes
        ([1, [1, 0], 1], "row 1 of the batch has a list of 2 as its label, but row 0 has one"),
    ],
)
def test_labels_that_cannot_be_learnt_are_refused_by_row(processor, labels, match):
    rows = [{"input_ids": ids, "label": label} for ids, label in zip(ROWS, labels, strict=True)]
    with pytest.raises(ValueError, match=match):
        GPT1DataCollator(processor)(rows)


def test_labels_under_two_names_must_agree(processor):
    collator = GPT1DataCollator(processor)
    assert collator([{"input_ids": [5, 6], "label": 1, "labels": 1, "label_ids": None}])["labels"].tolist() == [1]
    with pytest.raises(ValueError, match="row 0 of the batch has different label and label_ids"):
        collator([{"input_ids": [5, 6], "label": 1, "label_ids": 0}])


@pytest.mark.parametrize("how", ["right", "left", "packed"])
def test_labels_of_tokens_are_padded_as_the_tokens_are(processor, how):
    rows = [{"input_ids": ids, "labels": [number % 3 for number in ids]} for ids in ROWS]
    expected = {
        "right": [[2, 0, 1, -100, -100], [2, 0, 1, 2, 0], [1, 2, -100, -100, -100]],
        "left": [[-100, -100, 2, 0, 1], [2, 0, 1, 2, 0], [-100, -100, -100, 1, 2]],
        "packed": [[2, 0, 1, 2, 0, 1, 2, 0, 1, 2]],
    }
    processor.tokenizer.padding_side = "left" if how == "left" else "right"
    batch = GPT1DataCollator(processor, packing=how == "packed")(rows)
    assert batch["labels"].tolist() == expected[how]
    rounded = GPT1DataCollator(processor, pad_to_multiple_of=8)(rows)["labels"]
    assert rounded.shape == (3, 8) and rounded[rounded != -100].tolist() == sum((row["labels"] for row in rows), [])

    # the same loss as of each row by itself
    torch.manual_seed(0)
    sizes = {"vocab_size": len(processor.tokenizer), "hidden_size": 16, "num_hidden_layers": 1}
    model = GPT1ForTokenClassification(GPT1Config(num_attention_heads=2, num_labels=3, lm_coef=0, **sizes)).eval()
    alone = [
        model(input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["labels"]])).loss.item() * len(ids)
        for row, ids in zip(rows, ROWS, strict=True)
    ]
    assert model(**batch).loss.item() == pytest.approx(sum(alone) / sum(map(len, ROWS)), abs=1e-5)


ENCODED = {
    "classification": ROWS,
    "similarity": [[[5, 6, 7], [7, 6, 5]], [[8, 9, 10], [10, 9, 8]], [[13, 14], [14, 13]]],
    "multiple_choice": [[[5, 6, 7], [5, 6]], [[8, 9, 10, 11], [8, 9, 12, 13]], [[13, 14], [13]]],
}


@pytest.mark.parametrize("data_format", [None, "python", "numpy", "torch", "pandas", "arrow"])
@pytest.mark.parametrize("input_format", ENCODED)
@pytest.mark.parametrize("labels", [[1, 0, 1], [0.5, 2.0, 1.0], MATRIX], ids=["classes", "scores", "matrix"])
def test_rows_of_every_format_make_the_same_batch(tokenizer, input_format, data_format, labels):
    collator = GPT1DataCollator(GPT1Processor(tokenizer, input_format))
    lists = [{"input_ids": ids, "label": label} for ids, label in zip(ENCODED[input_format], labels, strict=True)]
    expected, rows = collator(lists), Dataset.from_list(lists).with_format(data_format)
    batches = [collator([rows[index] for index in range(3)])]
    if data_format != "arrow":  # datasets makes no batches of Arrow rows
        batches += DataLoader(rows, batch_size=3, collate_fn=collator)
    for batch in batches:
        assert batch.keys() == expected.keys()
        for name, tensor in batch.items():
            assert tensor.tolist() == expected[name].tolist() and tensor.dtype == expected[name].dtype, name


def test_existing_padding_of_rows_is_not_text(processor):
    texts = ["the old captain", "a dark night in the garden", "cruel"]
    plain = [dict(processor(text=text)) | {"labels": [1] * len(processor(text=text)["input_ids"])} for text in texts]
    for side in ("right", "left"):
        processor.tokenizer.padding_side = side
        padded = processor(text=texts, padding="max_length", max_length=20)
        rows = [{name: values[index] for name, values in padded.items()} for index in range(3)]
        rows = [row | {"labels": [1] * 20} for row in rows]
        expected, batch = GPT1DataCollator(processor)(plain), GPT1DataCollator(processor)(rows)
        assert {name: tensor.tolist() for name, tensor in batch.items()} == {
            name: tensor.tolist() for name, tensor in expected.items()
        }


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([], "at least one row"),
        ([[5, 6]], "rows need input_ids"),
        ([{"text": "a"}], "rows need input_ids"),
        ([{"input_ids": [[5, 6], [7]]}], "row 0 of the batch holds several sequences, but the classification format"),
    ],
)
def test_invalid_rows_are_refused(processor, rows, match):
    with pytest.raises(ValueError, match=match):
        GPT1DataCollator(processor)(rows)


LENGTHS = [(37 * index) % 50 + 1 for index in range(1003)]


def test_grouped_updates_hold_every_row_once_and_little_padding():
    sampler = LengthGroupedSampler(LENGTHS, 8, seed=3)
    order = list(sampler)
    assert sorted(order) == list(range(1003)) and len(sampler) == 1003
    updates = [[LENGTHS[row] for row in order[start : start + 8]] for start in range(0, 1003, 8)]
    assert sum(len(update) * max(update) for update in updates) < 1.1 * sum(LENGTHS)
    longest = [max(update) for update in updates]
    falls = sum(one > other for one, other in zip(longest, longest[1:], strict=False))
    assert 40 < falls < 85  # neither ascending nor descending


def test_the_order_depends_on_seed_and_epoch_alone():
    order = list(LengthGroupedSampler(LENGTHS, 8, seed=3))
    torch.manual_seed(5)
    again = LengthGroupedSampler(LENGTHS, 8, seed=3)
    assert list(again) == order == list(again)
    again.set_epoch(1)
    assert list(again) != order
    assert list(LengthGroupedSampler(LENGTHS, 8, seed=4)) != order


@pytest.mark.parametrize("n", [1, 7, 8, 9, 8 * UPDATES_PER_SORT, 8 * UPDATES_PER_SORT + 1])
def test_few_rows_are_grouped_too(n):
    order = list(LengthGroupedSampler(LENGTHS[:n], 8))
    assert sorted(order) == list(range(n))


def test_rows_of_several_sequences_count_by_the_longest():
    rows = [[1, 2, 3], [[1], [1, 2]], []]
    assert row_lengths(rows) == [3, 2, 0]
    for data_format in ("numpy", "torch"):
        for ids, lengths in ((rows[::2], [3, 0]), ([rows[1], [[1, 2, 3]]], [2, 3])):
            formatted = Dataset.from_dict({"input_ids": ids}).with_format(data_format)
            assert row_lengths(formatted["input_ids"]) == lengths


def test_the_trainer_groups_rows_by_length(processor, tmp_path):
    rows = Dataset.from_dict({"input_ids": [[5] * length for length in LENGTHS[:64]], "label": [0, 1] * 32})
    args = GPT1TrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        train_sampling_strategy="group_by_length",
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        disable_tqdm=True,
        num_train_epochs=2,
    )
    model = tiny_model("transformer", processor)
    trainer = GPT1Trainer(model, args, processing_class=processor, train_dataset=rows)
    lengths = [int(batch["attention_mask"].sum(-1).max()) for batch in trainer.get_train_dataloader()]
    assert len(lengths) == 32
    # Batches of one update differ little: they are neighbours by length among all 64 rows.
    assert all(max(lengths[i : i + 4]) - min(lengths[i : i + 4]) <= 12 for i in range(0, 32, 4))
    assert isinstance(trainer._get_train_sampler(), LengthGroupedSampler)
    trainer.train()
    assert trainer.state.global_step == 16
