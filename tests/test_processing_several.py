"""The processor's formats that make several sequences of a row: similarity and multiple choice."""

import json
import logging
import random

import pytest
from helpers.data import WORDS
from transformers import AutoProcessor

from gpt1_hf import GPT1DataCollator, GPT1Processor
from gpt1_hf.processing_gpt1 import truncate_question


START, DELIMITER, EXTRACT = 160, 161, 162  # the tokenizer fixture has 160 entries
PAIRS = [
    {"text_a": "The lady wept.", "text_b": "she smiled"},
    {"text_a": "the", "text_b": "the captain never answered"},
]
QUESTIONS = [
    {"document": "The lady wept.", "question": "the captain?", "choices": ["she smiled", "a", "never"]},
    {"document": "Night", "question": "", "choices": ["the old garden", "letter", "a kind captain"]},
    {"document": "Night", "question": None, "choices": ("the old", "letter", "a kind captain")},
]
ROWS = {"similarity": PAIRS, "multiple_choice": QUESTIONS}


@pytest.fixture(scope="module")
def similarity(tokenizer) -> GPT1Processor:
    return GPT1Processor(tokenizer, "similarity")


@pytest.fixture(scope="module")
def multiple_choice(tokenizer) -> GPT1Processor:
    return GPT1Processor(tokenizer, "multiple_choice")


@pytest.fixture(params=ROWS)
def processor(request, tokenizer) -> GPT1Processor:
    return GPT1Processor(tokenizer, request.param)


@pytest.fixture
def ids(tokenizer):
    """The ids of a text without any special token."""
    return lambda text: tokenizer(text)["input_ids"]


def random_text(rng, longest=30, shortest=1) -> str:
    return " ".join(rng.choices(WORDS, k=rng.choice([shortest, 1, rng.randint(1, longest)])))


def between(sequence: list[int]) -> list[list[int]]:
    """The parts of a sequence between its special tokens, after a check that it has them at its ends only."""
    assert sequence[0] == START and sequence[-1] == EXTRACT
    parts = [[]]
    for token in sequence[1:-1]:
        assert token not in (START, EXTRACT)
        if token == DELIMITER:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def test_similarity_is_both_orders(similarity, ids):
    a, b = ids("The lady wept."), ids("she smiled")
    encoding = similarity(PAIRS[0])
    assert encoding["input_ids"] == [[START, *a, DELIMITER, *b, EXTRACT], [START, *b, DELIMITER, *a, EXTRACT]]
    assert encoding["attention_mask"] == [[1] * len(encoding["input_ids"][0])] * 2


def test_multiple_choice_is_a_sequence_for_each_choice(multiple_choice, ids):
    document, question = ids("The lady wept."), ids("the captain?")
    encoding = multiple_choice(QUESTIONS[0])
    assert encoding["input_ids"] == [
        [START, *document, DELIMITER, *question, DELIMITER, *ids(choice), EXTRACT]
        for choice in ("she smiled", "a", "never")
    ]
    assert encoding["attention_mask"] == [[1] * len(sequence) for sequence in encoding["input_ids"]]


@pytest.mark.parametrize("question", ["", None, "  \n", "absent"])
def test_no_question_has_no_delimiter(multiple_choice, ids, question):
    row = {"document": "The lady", "question": question, "choices": ["wept", "smiled"]}
    if question == "absent":
        del row["question"]
    expected = [[START, *ids("the lady"), DELIMITER, *ids(choice), EXTRACT] for choice in ("wept", "smiled")]
    assert multiple_choice(row)["input_ids"] == expected
    assert multiple_choice([row, QUESTIONS[0] | {"choices": ["a", "the"]}])["input_ids"][0] == expected
    assert multiple_choice({name: [value] for name, value in row.items()})["input_ids"] == [expected]


def test_document_and_question_without_a_delimiter(tokenizer, multiple_choice, ids, tmp_path):
    plain = GPT1Processor(tokenizer, "multiple_choice", question_delimiter=False)
    document, question = ids("The lady wept."), ids("the captain?")
    expected = [START, *document, *question, DELIMITER, *ids("a"), EXTRACT]
    assert plain(QUESTIONS[0])["input_ids"][1] == expected
    assert plain(QUESTIONS[1])["input_ids"] == multiple_choice(QUESTIONS[1])["input_ids"]
    plain.save_pretrained(tmp_path)
    assert GPT1Processor.from_pretrained(tmp_path)(QUESTIONS[0])["input_ids"][1] == expected


def test_rows_columns_and_keywords_give_the_same(processor):
    rows = ROWS[processor.input_format]
    columns = {name: [row[name] for row in rows] for name in processor.columns}
    expected = processor(rows)
    assert len(expected["input_ids"]) == len(rows)
    assert processor(columns).data == expected.data
    assert processor(**columns).data == expected.data
    for index, row in enumerate(rows):
        assert processor(row)["input_ids"] == expected["input_ids"][index]
        assert processor({**row, "label": 1, "idx": None}).data == processor(row).data
    assert processor([])["input_ids"] == []


def test_similarity_cuts_the_longer_text_the_same_in_both_orders(similarity, ids):
    rng = random.Random(0)
    for _ in range(300):
        a, b = random_text(rng, shortest=0), random_text(rng, shortest=0)
        max_length = rng.randint(5, 64)
        encoding = similarity([{"text_a": a, "text_b": b}], max_length=max_length, return_truncated=True)
        one, other = map(between, encoding["input_ids"][0])
        assert one == other[::-1] and len(one) == 2
        for part, whole in zip(one, (ids(a), ids(b)), strict=True):
            assert part == whole[: len(part)] and bool(part) == bool(whole)
        cut = len(ids(a)) + len(ids(b)) + 3 > max_length
        assert encoding["truncated"] == [cut]
        assert len(encoding["input_ids"][0][0]) == (max_length if cut else len(ids(a)) + len(ids(b)) + 3)
        if cut:  # the shorter text is cut only once it is as long as what is left of the longer
            kept = [len(part) for part in one]
            lengths = [len(ids(a)), len(ids(b))]
            shorter = lengths.index(min(lengths))
            assert kept[shorter] == lengths[shorter] or abs(kept[0] - kept[1]) <= 1


def test_texts_of_equal_length_are_cut_the_same_in_both_orders(similarity):
    row = {"text_a": "the lady the lady", "text_b": "her captain her captain"}
    one, other = map(between, similarity(row, max_length=8)["input_ids"])
    assert one == other[::-1]
    assert sorted(map(len, one)) == [2, 3]


@pytest.mark.parametrize("delimiter", [True, False])
def test_multiple_choice_cuts_document_question_answer_in_this_order(tokenizer, ids, delimiter):
    processor = GPT1Processor(tokenizer, "multiple_choice", question_delimiter=delimiter)
    rng = random.Random(1)
    for _ in range(300):
        document, question = random_text(rng, shortest=0), random_text(rng, shortest=0)
        choices = [random_text(rng) for _ in range(rng.randint(1, 4))]
        max_length = rng.randint(7, 64)
        row = {"document": document, "question": question, "choices": choices}
        encoding = processor([row], max_length=max_length, return_truncated=True)
        longest = max(len(ids(choice)) for choice in choices)
        contexts = []
        for sequence, choice in zip(encoding["input_ids"][0], choices, strict=True):
            d, q, a = ids(document), ids(question), ids(choice)
            parts = between(sequence)
            has_delimiter = bool(q) and delimiter
            assert len(parts) == 3 if has_delimiter else len(parts) == 2
            room = max_length - len(parts) - 1
            if has_delimiter:
                kept_d, kept_q, kept_a = parts
            else:  # the question's share follows from the rule below; here only that the parts are in place
                n_d = min(len(d), max(1, room - len(q) - longest)) if d else 0
                kept_d, kept_q, kept_a = parts[0][:n_d], parts[0][n_d:], parts[1]
            contexts.append((kept_d, kept_q))
            assert len(kept_d) + len(kept_q) + min(longest, room - len(kept_d) - len(kept_q)) == min(
                len(d) + len(q) + longest, room
            )
            assert kept_d == d[: len(kept_d)] and bool(kept_d) == bool(d)
            assert kept_q == q[len(q) - len(kept_q) :] and bool(kept_q) == bool(q)
            assert kept_a == a[: room - len(kept_d) - len(kept_q)] and kept_a
            if len(kept_q) < len(q):
                assert len(kept_d) <= 1
            if len(kept_a) < len(a):
                assert len(kept_d) <= 1 and len(kept_q) <= 1
        assert all(context == contexts[0] for context in contexts)
        assert encoding["truncated"] == [len(d) + len(q) + longest > room]


@pytest.mark.parametrize(
    ("lengths", "budget", "kept"),
    [
        ((10, 3, 2, 1), 15, (10, 3, 2, 1)),
        ((10, 3, 2, 1), 8, (3, 3, 2, 1)),
        ((10, 3, 1, 4), 8, (1, 3, 1, 4)),
        ((10, 3, 2, 2), 5, (1, 2, 2, 2)),
        ((10, 3, 5, 1), 6, (1, 1, 4, 1)),
        ((10, 3, 1, 5), 3, (1, 1, 1, 1)),
        ((0, 3, 5, 2), 3, (0, 1, 2, 2)),
        ((4, 0, 5, 1), 3, (1, 0, 2, 1)),
        ((0, 0, 5, 4), 3, (0, 0, 3, 3)),
    ],
)
def test_a_question_with_two_choices_is_cut_to(lengths, budget, kept):
    document, question, *choices = (list(range(100 * k, 100 * k + length)) for k, length in enumerate(lengths))
    n_document, n_question, *n_choices = kept
    context = document[:n_document], question[lengths[1] - n_question :]
    expected = [choice[:n] for choice, n in zip(choices, n_choices, strict=True)]
    assert truncate_question(document, question, choices, budget) == (*context, expected)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("question", ["", "the"])
def test_choices_of_unequal_length_share_the_whole_context(multiple_choice, side, question):
    """A short choice does not read more of the document than a long one, and the collator holds the document once."""
    multiple_choice.tokenizer.padding_side = side
    row = {"document": " ".join(WORDS * 9), "question": question, "choices": ["a", " ".join(WORDS[:6]), "the she"]}
    encoded = multiple_choice([row, row], max_length=32, return_truncated=True)
    assert encoded["truncated"] == [True, True]
    contexts = [between(sequence)[:-1] for sequence in encoded["input_ids"][0]]
    assert contexts[0] == contexts[1] == contexts[2]
    assert max(map(len, encoded["input_ids"][0])) == 32
    rows = [{"input_ids": ids} for ids in encoded["input_ids"]]
    starts = GPT1DataCollator(multiple_choice)(rows)["branch_starts"]
    n_context = 2 + sum(map(len, contexts[0])) + bool(question)
    assert starts[0, 0] >= n_context  # in the joined row, the first choice begins after all of the context


@pytest.mark.parametrize(("input_format", "least"), [("similarity", 5), ("multiple_choice", 7)])
def test_too_small_a_length_is_refused(tokenizer, input_format, least):
    processor = GPT1Processor(tokenizer, input_format)
    row = ROWS[input_format][0]
    assert max(map(len, processor(row, max_length=least)["input_ids"])) == least
    with pytest.raises(ValueError, match="too short"):
        processor(row, max_length=least - 1)


def test_cut_rows_are_counted_once_whatever_their_sequences(multiple_choice, caplog):
    long = {"document": " ".join(WORDS), "question": "the", "choices": ["a", "the", "she"]}
    with caplog.at_level(logging.WARNING):
        multiple_choice([QUESTIONS[0], long, long], max_length=16)
    assert [record.getMessage() for record in caplog.records] == [
        "2 of 3 rows were longer than the context and were cut"
    ]


@pytest.mark.parametrize("side", ["right", "left"])
def test_tensors_are_of_a_row_a_sequence_and_its_tokens(processor, side):
    processor.tokenizer.padding_side = side
    rows = ROWS[processor.input_format]
    alone = processor(rows)["input_ids"]
    batch = processor(rows, padding=True, return_tensors="pt")
    shape = (len(rows), len(alone[0]), max(len(sequence) for row in alone for sequence in row))
    assert batch["input_ids"].shape == batch["attention_mask"].shape == shape
    for row, own in enumerate(alone):
        for choice, sequence in enumerate(own):
            mask = batch["attention_mask"][row, choice].bool()
            assert batch["input_ids"][row, choice][mask].tolist() == sequence
            assert mask[0 if side == "left" else -1] == (len(sequence) == shape[-1])
    assert processor(rows, padding=True)["input_ids"] == batch["input_ids"].tolist()
    single = processor(rows[0], padding=True, return_tensors="pt")["input_ids"]
    assert single.shape == (1, len(alone[0]), max(map(len, alone[0])))


@pytest.mark.parametrize("empty", ["", "  "])
def test_a_single_empty_text_is_refused_and_one_of_many_is_counted(processor, empty, caplog):
    name = processor.columns[0]
    bad = {**ROWS[processor.input_format][0], name: empty}
    with pytest.raises(ValueError, match=f"empty text.*{name}"):
        processor(bad)
    with caplog.at_level(logging.WARNING):
        encoding = processor([ROWS[processor.input_format][0], bad])
    assert len(encoding["input_ids"]) == 2
    assert "1 of 2 rows have an empty" in caplog.text


@pytest.mark.parametrize("rows", [QUESTIONS[:1], QUESTIONS[:2]])
@pytest.mark.parametrize("choices", [["a", ""], ["a", " \n"]])
def test_an_empty_choice_is_refused(multiple_choice, rows, choices):
    bad = {**QUESTIONS[0], "choices": choices}
    with pytest.raises(ValueError, match="empty choice in row 0"):
        multiple_choice(bad)
    with pytest.raises(ValueError, match="(empty choice|choices, but row 0 has 3).*"):
        multiple_choice([*rows, bad])


@pytest.mark.parametrize("choices", ["a text", None, 3, [], [1, 2], ["a", None], {"a": "b"}])
def test_choices_that_are_not_a_list_of_texts_are_refused(multiple_choice, choices):
    with pytest.raises(ValueError, match="column 'choices' holds .* in row 1, which is not a list of texts"):
        multiple_choice([QUESTIONS[0], {**QUESTIONS[0], "choices": choices}])
    with pytest.raises(ValueError, match="'choices'"):
        multiple_choice({**QUESTIONS[0], "choices": choices})


def test_unequal_numbers_of_choices_are_refused_by_row(multiple_choice):
    with pytest.raises(ValueError, match="row 2 has 2 choices, but row 0 has 3"):
        multiple_choice([*QUESTIONS[:2], {**QUESTIONS[0], "choices": ["a", "the"]}])


@pytest.mark.parametrize(
    ("name", "value"), [("document", None), ("document", 3), ("question", 3), ("question", ["a"])]
)
def test_a_column_that_is_not_text_is_named(multiple_choice, name, value):
    with pytest.raises(ValueError, match=f"column '{name}' holds .*row 1"):
        multiple_choice([QUESTIONS[0], {**QUESTIONS[0], name: value}])


def test_a_missing_column_is_named(processor):
    for name in {*processor.columns} - {"question"}:
        row = {key: value for key, value in ROWS[processor.input_format][0].items() if key != name}
        for rows in (row, {key: [value] for key, value in row.items()}, [row]):
            with pytest.raises(ValueError, match=f"'{name}'"):
                processor(rows)


@pytest.mark.parametrize("loader", [GPT1Processor, AutoProcessor])
@pytest.mark.parametrize("question_delimiter", [True, False])
def test_a_reloaded_processor_keeps_format_and_options(tokenizer, tmp_path, loader, question_delimiter):
    for input_format, rows in ROWS.items():
        processor = GPT1Processor(tokenizer, input_format, question_delimiter=question_delimiter)
        folder = tmp_path / input_format
        processor.save_pretrained(folder)
        (folder / "config.json").write_text(json.dumps({"model_type": "gpt1"}), encoding="utf-8")
        reloaded = loader.from_pretrained(folder)
        assert isinstance(reloaded, GPT1Processor)
        assert reloaded.input_format == input_format
        assert reloaded.question_delimiter == question_delimiter
        assert reloaded(rows).data == processor(rows).data
