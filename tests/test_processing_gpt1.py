"""The processor: token sequences of each input format, truncation, bad rows, and saved files."""

import json
import logging
import random

import pytest
import torch
from helpers.data import WORDS
from transformers import AutoProcessor, AutoTokenizer

from gpt1_hf import GPT1Processor
from gpt1_hf.processing_gpt1 import truncate_pair


START, DELIMITER, EXTRACT = 160, 161, 162  # the tokenizer fixture has 160 entries
MIXED_ROWS = {
    "classification": [{"text": "The lady wept."}, {"text": "the"}, {"text": "the captain smiled, and the lady wept"}],
    "entailment": [
        {"premise": "The lady wept.", "hypothesis": "she smiled"},
        {"premise": "the", "hypothesis": "the captain never answered"},
    ],
}


@pytest.fixture(scope="module")
def classification(tokenizer) -> GPT1Processor:
    return GPT1Processor(tokenizer)


@pytest.fixture(scope="module")
def entailment(tokenizer) -> GPT1Processor:
    return GPT1Processor(tokenizer, "entailment")


@pytest.fixture(params=["classification", "entailment"])
def processor(request, tokenizer) -> GPT1Processor:
    return GPT1Processor(tokenizer, request.param)


@pytest.fixture
def ids(tokenizer):
    """The ids of a text without any special token."""
    return lambda text: tokenizer(text)["input_ids"]


def random_texts(seed: int, n: int, longest: int = 30) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, longest))) for _ in range(n)]


class TestSequences:
    def test_classification_is_start_text_extract(self, classification, tokenizer):
        vocab = tokenizer.get_vocab()
        encoding = classification(text="The lady wept.")
        text = [vocab["the</w>"], vocab["lady</w>"], vocab["wept</w>"], vocab[".</w>"]]
        assert encoding["input_ids"] == [START, *text, EXTRACT]
        assert encoding["attention_mask"] == [1] * 6

    def test_entailment_is_start_premise_delimiter_hypothesis_extract(self, entailment, tokenizer):
        vocab = tokenizer.get_vocab()
        encoding = entailment(premise="The lady wept", hypothesis="the captain smiled")
        premise = [vocab["the</w>"], vocab["lady</w>"], vocab["wept</w>"]]
        hypothesis = [vocab["the</w>"], vocab["captain</w>"], vocab["smiled</w>"]]
        assert encoding["input_ids"] == [START, *premise, DELIMITER, *hypothesis, EXTRACT]
        assert encoding["attention_mask"] == [1] * 9

    def test_the_special_tokens_follow_the_vocabulary_in_the_released_order(self, processor, tokenizer):
        n = len(tokenizer)
        tokens = processor.tokenizer.convert_ids_to_tokens([n, n + 1, n + 2])
        assert tokens == ["_start_", "_delimiter_", "_classify_"]
        assert (n, n + 1, n + 2) == (START, DELIMITER, EXTRACT)
        assert len(processor.tokenizer) == n + 3

    def test_an_unknown_format_names_the_known_ones(self, tokenizer):
        with pytest.raises(ValueError, match="'regression'.*classification, entailment"):
            GPT1Processor(tokenizer, "regression")


class TestShapesOfInput:
    def test_rows_columns_and_keywords_give_the_same(self, processor):
        rows = MIXED_ROWS[processor.input_format]
        columns = {name: [row[name] for row in rows] for name in processor.columns}
        expected = processor(rows)
        assert len(expected["input_ids"]) == len(rows)
        assert processor(columns).data == expected.data
        assert processor(**columns).data == expected.data
        assert processor(tuple(rows)).data == expected.data

    def test_a_single_row_gives_one_flat_list(self, processor):
        row = MIXED_ROWS[processor.input_format][0]
        flat = processor(row)
        assert flat["input_ids"] == processor([row])["input_ids"][0]
        assert flat["attention_mask"] == processor([row])["attention_mask"][0]
        assert processor(**row).data == flat.data

    def test_columns_that_the_format_does_not_read_are_ignored(self, processor):
        row = MIXED_ROWS[processor.input_format][0]
        assert processor({**row, "label": 1, "idx": None}).data == processor(row).data
        assert processor([{**row, "label": 1}]).data == processor([row]).data

    def test_rows_and_keywords_together_are_refused(self, classification):
        with pytest.raises(ValueError, match="not both"):
            classification({"text": "a lady"}, text="a lady")

    def test_columns_of_unequal_length_are_refused(self, entailment):
        with pytest.raises(ValueError, match="unequal lengths"):
            entailment(premise=["the lady", "the"], hypothesis=["she wept"])

    @pytest.mark.parametrize("hypothesis", [["she wept", "she smiled"], ["she wept"]])
    def test_a_text_beside_a_list_of_texts_is_refused(self, entailment, hypothesis):
        with pytest.raises(ValueError):
            entailment(premise="ab"[: len(hypothesis)], hypothesis=hypothesis)

    @pytest.mark.parametrize("rows", ["the lady", ["the lady", "she wept"]], ids=["text", "list of texts"])
    def test_texts_in_place_of_rows_are_refused(self, classification, rows):
        with pytest.raises((TypeError, ValueError)):
            classification(rows)

    def test_no_rows_give_no_sequences(self, processor):
        assert processor([])["input_ids"] == []
        assert processor({name: [] for name in processor.columns})["input_ids"] == []


class TestTruncation:
    def test_a_text_is_cut_at_its_end(self, classification, ids):
        text = " ".join(WORDS)
        whole = ids(text)
        for max_length in range(3, 40):
            kept = whole[: max_length - 2]
            assert classification(text=text, max_length=max_length)["input_ids"] == [START, *kept, EXTRACT]

    def test_a_pair_keeps_every_special_token_and_a_token_of_each_text(self, entailment, ids):
        first, second = random_texts(0, 2)
        for max_length in range(5, 70):
            sequence = entailment(premise=first, hypothesis=second, max_length=max_length)["input_ids"]
            whole = 3 + len(ids(first)) + len(ids(second))
            assert len(sequence) == min(max_length, whole)
            assert sequence[0] == START and sequence[-1] == EXTRACT and sequence.count(DELIMITER) == 1
            delimiter = sequence.index(DELIMITER)
            premise, hypothesis = sequence[1:delimiter], sequence[delimiter + 1 : -1]
            assert premise and premise == ids(first)[: len(premise)]
            assert hypothesis and hypothesis == ids(second)[: len(hypothesis)]

    @pytest.mark.parametrize(
        ("lengths", "budget", "kept"),
        [
            ((3, 10), 9, (3, 6)),
            ((10, 3), 9, (6, 3)),
            ((10, 10), 8, (4, 4)),
            ((10, 10), 9, (4, 5)),
            ((12, 10), 9, (5, 4)),
            ((1, 100), 2, (1, 1)),
            ((4, 5), 9, (4, 5)),
        ],
    )
    def test_of_a_pair_the_longer_is_cut(self, lengths, budget, kept):
        first, second = list(range(lengths[0])), list(range(100, 100 + lengths[1]))
        cut = truncate_pair(first, second, budget)
        assert cut == (first[: kept[0]], second[: kept[1]])

    def test_a_pair_is_cut_as_the_tokenizers_longest_first_does(self, entailment, tmp_path):
        entailment.save_pretrained(tmp_path)
        saved = AutoTokenizer.from_pretrained(tmp_path)
        rng = random.Random(1)
        firsts, seconds = random_texts(2, 150), random_texts(3, 150)
        for first, second in zip(firsts, seconds, strict=True):
            n = rng.randint(5, 64)
            expected = saved(first, second, truncation=True, max_length=n)["input_ids"]
            assert entailment(premise=first, hypothesis=second, max_length=n)["input_ids"] == expected

    def test_a_text_is_cut_as_the_saved_tokenizer_does(self, classification, tmp_path):
        classification.save_pretrained(tmp_path)
        saved = AutoTokenizer.from_pretrained(tmp_path)
        for n, text in enumerate(random_texts(4, 60), start=3):
            expected = saved(text, truncation=True, max_length=n)["input_ids"]
            assert classification(text=text, max_length=n)["input_ids"] == expected

    def test_the_default_is_the_tokenizers_context(self, processor, tokenizer):
        row = dict.fromkeys(processor.columns, " ".join(WORDS * 10))
        assert len(processor(row)["input_ids"]) == tokenizer.model_max_length == 64

    @pytest.mark.parametrize(("input_format", "least"), [("classification", 3), ("entailment", 5)])
    def test_too_small_a_length_is_refused(self, tokenizer, input_format, least):
        processor = GPT1Processor(tokenizer, input_format)
        row = MIXED_ROWS[input_format][0]
        assert len(processor(row, max_length=least)["input_ids"]) == least
        for max_length in (least - 1, 1, 0, -1):
            with pytest.raises(ValueError, match="too short"):
                processor(row, max_length=max_length)

    def test_cut_rows_are_flagged_when_asked(self, classification, caplog):
        rows = {"text": ["the lady", " ".join(WORDS), "a"]}
        encoding = classification(rows, max_length=8, return_truncated=True)
        assert encoding["truncated"] == [False, True, False]
        assert not caplog.records
        assert classification(text=" ".join(WORDS), max_length=8, return_truncated=True)["truncated"] is True

    def test_a_row_of_exactly_the_length_is_not_cut(self, classification, ids):
        text = " ".join(WORDS)
        exact = len(ids(text)) + 2
        assert classification(text=text, max_length=exact, return_truncated=True)["truncated"] is False
        assert classification(text=text, max_length=exact - 1, return_truncated=True)["truncated"] is True

    def test_cut_rows_are_counted_in_one_warning(self, classification, caplog):
        with caplog.at_level(logging.WARNING):
            classification([{"text": " ".join(WORDS)}, {"text": "a"}, {"text": " ".join(WORDS)}], max_length=8)
        assert [record.getMessage() for record in caplog.records] == [
            "2 of 3 rows were longer than the context and were cut"
        ]

    def test_long_texts_give_no_warning_of_the_tokenizers_own(self, classification, caplog):
        with caplog.at_level(logging.WARNING):
            classification(text=" ".join(WORDS * 5), return_truncated=True)
        assert not caplog.records


class TestBadRows:
    @pytest.mark.parametrize("empty", ["", "   ", "\n\t\u00a0"])
    def test_a_single_empty_text_is_refused(self, processor, empty):
        for name in processor.columns:
            row = {**MIXED_ROWS[processor.input_format][0], name: empty}
            with pytest.raises(ValueError, match=f"empty text.*{name}"):
                processor(row)

    def test_empty_texts_in_a_data_set_are_counted_and_kept(self, classification, ids, caplog):
        with caplog.at_level(logging.WARNING):
            encoding = classification({"text": ["", "the lady", " \n"]})
        assert encoding["input_ids"] == [[START, EXTRACT], [START, *ids("the lady"), EXTRACT], [START, EXTRACT]]
        assert [record.getMessage() for record in caplog.records] == ["2 of 3 rows have an empty text"]

    def test_a_pair_with_an_empty_half_is_counted_and_kept(self, entailment, ids, caplog):
        with caplog.at_level(logging.WARNING):
            encoding = entailment(premise=["the lady", "the lady", "a"], hypothesis=["", "she wept", "a"])
        assert encoding["input_ids"][0] == [START, *ids("the lady"), DELIMITER, EXTRACT]
        assert [record.getMessage() for record in caplog.records] == [
            "1 of 3 rows have an empty premise or hypothesis"
        ]

    def test_a_missing_column_is_named(self, processor):
        last = processor.columns[-1]
        row = {name: "the lady" for name in processor.columns if name != last} | {"sentence": "the lady"}
        for rows in (row, {name: [text] for name, text in row.items()}):
            with pytest.raises(ValueError, match=f"'{last}'.*sentence"):
                processor(rows)
        with pytest.raises(ValueError, match=f"'{last}'"):
            processor([row])
        with pytest.raises(ValueError, match=f"'{processor.columns[0]}'"):
            processor()

    @pytest.mark.parametrize("value", [None, 3, float("nan")], ids=["None", "number", "nan"])
    def test_a_column_that_is_not_text_is_named(self, processor, value):
        good = MIXED_ROWS[processor.input_format][0]
        for name in processor.columns:
            bad = {**good, name: value}
            for rows in ([good, bad], {column: [good[column], bad[column]] for column in processor.columns}):
                with pytest.raises(ValueError, match=f"column '{name}' holds {value}.*row 1"):
                    processor(rows)

    @pytest.mark.parametrize("value", [None, 3], ids=["None", "number"])
    def test_a_single_row_that_is_not_text_is_named(self, processor, value):
        for name in processor.columns:
            with pytest.raises(ValueError, match=f"'{name}'"):
                processor({**MIXED_ROWS[processor.input_format][0], name: value})


class TestPadding:
    @pytest.mark.parametrize("side", ["right", "left"])
    def test_a_padded_batch_holds_each_row_and_its_mask(self, tokenizer, side):
        processor = GPT1Processor(tokenizer)
        processor.tokenizer.padding_side = side
        rows = MIXED_ROWS["classification"]
        alone = processor(rows)["input_ids"]
        batch = processor(rows, padding=True, return_tensors="pt")
        longest = max(map(len, alone))
        assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, longest)
        for ids, mask, own in zip(batch["input_ids"], batch["attention_mask"], alone, strict=True):
            assert ids[mask.bool()].tolist() == own
            assert ids[~mask.bool()].tolist() == [0] * (longest - len(own))
            assert mask[0 if side == "right" else -1] == 1 and mask.sum() == len(own)

    def test_padding_to_max_length_fills_up(self, processor):
        row = MIXED_ROWS[processor.input_format][0]
        own = processor(row)["input_ids"]
        padded = processor(row, padding="max_length", max_length=20)
        assert padded["input_ids"] == own + [0] * (20 - len(own))
        assert padded["attention_mask"] == [1] * len(own) + [0] * (20 - len(own))

    def test_tensors_of_a_single_row_are_a_batch_of_one(self, processor):
        row = MIXED_ROWS[processor.input_format][0]
        batch = processor(row, return_tensors="pt")
        assert torch.equal(batch["input_ids"], torch.tensor([processor(row)["input_ids"]]))

    def test_without_padding_rows_stay_lists(self, processor):
        lengths = [len(row) for row in processor(MIXED_ROWS[processor.input_format])["input_ids"]]
        assert len(set(lengths)) > 1


class TestTheTokenizerInside:
    def test_the_callers_tokenizer_is_not_changed(self, tokenizer):
        before, n = tokenizer.backend_tokenizer.to_str(), len(tokenizer)
        processor = GPT1Processor(tokenizer)
        processor.tokenizer.padding_side = "left"
        assert tokenizer.backend_tokenizer.to_str() == before
        assert len(tokenizer) == n
        assert tokenizer.bos_token is tokenizer.sep_token is tokenizer.cls_token is None
        assert tokenizer.padding_side == "right"
        assert tokenizer("the lady")["input_ids"] == tokenizer("the lady", add_special_tokens=False)["input_ids"]

    def test_a_tokenizer_that_has_the_special_tokens_gets_no_second_ones(self, processor):
        again = GPT1Processor(processor.tokenizer, processor.input_format)
        assert len(again.tokenizer) == len(processor.tokenizer)
        rows = MIXED_ROWS[processor.input_format]
        assert again(rows).data == processor(rows).data

    def test_model_inputs_are_ids_and_mask(self, processor):
        assert processor.model_input_names == ["input_ids", "attention_mask"]
        assert set(processor(MIXED_ROWS[processor.input_format])) == {"input_ids", "attention_mask"}


class TestSaving:
    @pytest.mark.parametrize("loader", [GPT1Processor, AutoProcessor])
    def test_a_reloaded_processor_keeps_format_and_ids(self, processor, tmp_path, loader):
        processor.save_pretrained(tmp_path)
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt1"}), encoding="utf-8")
        reloaded = loader.from_pretrained(tmp_path)
        assert isinstance(reloaded, GPT1Processor)
        assert reloaded.input_format == processor.input_format
        assert reloaded.columns == processor.columns
        assert len(reloaded.tokenizer) == len(processor.tokenizer)
        assert reloaded.tokenizer.model_max_length == 64
        rows = MIXED_ROWS[processor.input_format]
        assert reloaded(rows).data == processor(rows).data

    def test_saving_twice_writes_the_same(self, processor, tmp_path):
        processor.save_pretrained(tmp_path / "first")
        GPT1Processor.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
        for name in ("tokenizer.json", "processor_config.json", "processing_gpt1.py"):
            assert (tmp_path / "first" / name).read_text() == (tmp_path / "second" / name).read_text()

    def test_the_saved_tokenizer_alone_makes_the_same_sequences(self, processor, tmp_path):
        processor.save_pretrained(tmp_path)
        saved = AutoTokenizer.from_pretrained(tmp_path)
        rows = MIXED_ROWS[processor.input_format]
        columns = [[row[name] for row in rows] for name in processor.columns]
        assert saved(*columns)["input_ids"] == processor(rows)["input_ids"]
        assert saved(*[column[0] for column in columns])["input_ids"] == processor(rows[0])["input_ids"]

    def test_the_saved_tokenizers_class_is_the_librarys_own(self, processor, tmp_path):
        processor.save_pretrained(tmp_path)
        config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
        assert config["tokenizer_class"] == "TokenizersBackend"
