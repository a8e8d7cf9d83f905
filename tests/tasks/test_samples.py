"""The samples in the package: the Hub's schema, balanced labels, no duplicates, and no text from the real data."""

import csv
import json
import string
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpt1_hf.data.loading import open_dataset
from gpt1_hf.resources import SAMPLES


@dataclass(frozen=True)
class HubSchema:
    """Schema of a data set on the Hub."""

    folder: str  # repository and configuration, which is also the place of a local copy
    columns: dict[str, pa.DataType]  # of its Parquet files, in order
    texts: tuple[str, ...]  # columns whose sentences or longer texts are different in each row
    label: str = "label"
    values: tuple[int | str, ...] = ()  # the labels; none for STS-B's scores

    @property
    def schema(self) -> pa.Schema:
        return pa.schema(self.columns)


def glue(config: str, *texts: str, values: tuple[int, ...] = (0, 1), label: pa.DataType | None = None) -> HubSchema:
    columns = {**dict.fromkeys(texts, pa.string()), "label": label or pa.int64(), "idx": pa.int32()}
    return HubSchema(f"nyu-mll/glue/{config}", columns, texts, values=values)


PAIR = ("premise", "hypothesis")
STORY = tuple(f"InputSentence{i}" for i in range(1, 5)) + ("RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2")
SCHEMAS = {
    "cola": glue("cola", "sentence"),
    "sst2": glue("sst2", "sentence"),
    "mnli": glue("mnli", *PAIR, values=(0, 1, 2)),
    "qnli": glue("qnli", "question", "sentence"),
    "rte": glue("rte", "sentence1", "sentence2"),
    "mrpc": glue("mrpc", "sentence1", "sentence2"),
    "qqp": glue("qqp", "question1", "question2"),
    "stsb": glue("stsb", "sentence1", "sentence2", values=(), label=pa.float32()),
    "snli": HubSchema(
        "stanfordnlp/snli/plain_text",
        {**dict.fromkeys(PAIR, pa.string()), "label": pa.int64()},
        PAIR,
        values=(0, 1, 2),
    ),
    "scitail": HubSchema(
        "allenai/scitail/tsv_format",
        dict.fromkeys((*PAIR, "label"), pa.string()),
        PAIR,
        values=("entails", "neutral"),
    ),
    "race": HubSchema(
        "ehovy/race/all",
        {
            **dict.fromkeys(("example_id", "article", "answer", "question"), pa.string()),
            "options": pa.list_(pa.string()),
        },
        ("article",),  # questions and options may be as short as "Why?" and "Ten."
        label="answer",
        values=tuple("ABCD"),
    ),
    "story_cloze": HubSchema(  # the authors' CSV files; the Hub does not have them
        "story_cloze",
        {**dict.fromkeys(("InputStoryid", *STORY), pa.string()), "AnswerRightEnding": pa.int64()},
        STORY,
        label="AnswerRightEnding",
        values=(1, 2),
    ),
    "dpr": HubSchema(
        "definite_pronoun_resolution",
        {"sentence": pa.string(), "pronoun": pa.string(), "candidates": pa.list_(pa.string()), "label": pa.int64()},
        ("sentence",),
        values=(0, 1),
    ),
}
SPLITS = {task: ("train", "validation") for task in SCHEMAS} | {
    "mnli": ("train", "validation_matched", "validation_mismatched")
}
FILES = [(task, split) for task in SCHEMAS for split in SPLITS[task]]
PAIRS = [(task, *pair) for task in SCHEMAS for pair in combinations(SPLITS[task], 2)]


def read(task: str, split: str) -> list[dict]:
    lines = (SAMPLES / task / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def labels(task: str, split: str) -> list:
    return [row[SCHEMAS[task].label] for row in read(task, split)]


def plain(text: str) -> str:
    """A text in lower case, without punctuation and extra spaces."""
    return " ".join(text.lower().translate(str.maketrans("", "", string.punctuation)).split())


def texts(task: str, split: str) -> set[str]:
    return {plain(row[column]) for row in read(task, split) for column in SCHEMAS[task].texts}


def real_files(task: str, data_dir: str) -> list[Path]:
    folder = Path(data_dir) / SCHEMAS[task].folder
    files = sorted(file for file in folder.glob("*") if file.suffix in (".parquet", ".csv"))
    if not files:
        pytest.skip(f"there is no copy of {SCHEMAS[task].folder} in the data folder")
    return files


class TestFiles:
    def test_every_sample_has_a_schema(self):
        found = {folder.name: {file.name for file in folder.iterdir()} for folder in SAMPLES.iterdir()}
        assert found == {task: {f"{split}.jsonl" for split in splits} for task, splits in SPLITS.items()}

    @pytest.mark.parametrize(("task", "split"), FILES)
    def test_a_sample_has_enough_rows_and_is_small(self, task, split):
        assert len(read(task, split)) >= (32 if split == "train" else 16)
        assert (SAMPLES / task / f"{split}.jsonl").stat().st_size < 50_000

    @pytest.mark.parametrize(("task", "split"), FILES)
    def test_every_row_has_the_hubs_columns_and_types(self, task, split):
        rows = read(task, split)
        schema = SCHEMAS[task].schema
        assert all(list(row) == schema.names for row in rows)
        label = type(SCHEMAS[task].values[0]) if SCHEMAS[task].values else float
        assert all(type(row[SCHEMAS[task].label]) is label for row in rows)  # pyarrow would take 1 for 1.0
        table = pa.Table.from_pylist(rows, schema=schema)
        assert not any(column.null_count for column in table.columns)

    @pytest.mark.parametrize(("task", "split"), FILES)
    def test_the_package_reads_the_same_rows(self, task, split):
        rows = open_dataset(str(SAMPLES / task), split)
        wider = {pa.int32(): pa.int64(), pa.float32(): pa.float64()}  # JSON knows one kind of each
        assert rows.features.arrow_schema.equals(
            pa.schema({name: wider.get(kind, kind) for name, kind in SCHEMAS[task].columns.items()})
        )
        assert rows.to_list() == read(task, split)

    @pytest.mark.parametrize(("task", "split"), FILES)
    def test_texts_are_clean(self, task, split):
        for row in read(task, split):
            for value in row.values():
                for text in [value] if isinstance(value, str) else value if isinstance(value, list) else []:
                    assert text and text == text.strip()
                    assert text.isprintable() or (task == "race" and text.replace("\n", "").isprintable())


class TestLabels:
    @pytest.mark.parametrize(("task", "split"), [file for file in FILES if file[0] != "stsb"])
    def test_labels_are_balanced(self, task, split):
        counts = Counter(labels(task, split))
        unlabelled = counts.pop(-1, 0)
        assert unlabelled == (task == "snli" and split == "train")  # the Hub's SNLI has such rows
        assert set(counts) == set(SCHEMAS[task].values)
        fair = counts.total() / len(counts)
        assert all(abs(count - fair) <= 0.2 * fair for count in counts.values())

    @pytest.mark.parametrize("split", SPLITS["stsb"])
    def test_scores_are_spread_over_the_whole_range(self, split):
        scores = labels("stsb", split)
        assert min(scores) == 0.0 and max(scores) == 5.0
        bins = Counter(min(int(score), 4) for score in scores)
        assert all(bins[i] >= 0.15 * len(scores) for i in range(5))
        assert 0.3 * len(scores) < sum(score != int(score) for score in scores)

    @pytest.mark.parametrize(("task", "split"), FILES)
    def test_batches_of_eight_have_more_than_one_label(self, task, split):
        found = labels(task, split)
        assert all(len(set(found[i : i + 8])) > 1 for i in range(len(found) - 7))


class TestRepetition:
    @pytest.mark.parametrize(("task", "split"), FILES)
    def test_no_row_is_repeated(self, task, split):
        rows = [{name: value for name, value in row.items() if name != "idx"} for row in read(task, split)]
        assert len({json.dumps(row) for row in rows}) == len(rows)
        inputs = [tuple(plain(str(row[name])) for name in row if name != SCHEMAS[task].label) for row in rows]
        assert len(set(inputs)) == len(inputs)  # nor with another label

    @pytest.mark.parametrize(("task", "split"), [file for file in FILES if len(SCHEMAS[file[0]].texts) == 2])
    def test_the_two_texts_of_a_row_differ(self, task, split):
        first, second = SCHEMAS[task].texts
        assert all(plain(row[first]) != plain(row[second]) for row in read(task, split))

    @pytest.mark.parametrize(("task", "one", "other"), PAIRS)
    def test_splits_share_no_text(self, task, one, other):
        assert not texts(task, one) & texts(task, other)

    @pytest.mark.parametrize(("task", "split"), [file for file in FILES if "idx" in SCHEMAS[file[0]].columns])
    def test_rows_are_numbered(self, task, split):
        rows = read(task, split)
        assert [row["idx"] for row in rows] == list(range(len(rows)))


class TestStructure:
    @pytest.mark.parametrize("split", SPLITS["race"])
    def test_a_passage_of_race_has_one_id_and_some_questions(self, split):
        rows = read("race", split)
        assert len({row["example_id"] for row in rows}) == len({row["article"] for row in rows})
        assert len({(row["example_id"], row["article"]) for row in rows}) == len({row["article"] for row in rows})
        assert set(Counter(row["example_id"] for row in rows).values()) <= {3, 4}
        assert len({(row["example_id"], row["question"]) for row in rows}) == len(rows)
        for row in rows:
            assert 60 <= len(row["article"].split()) <= 150
            assert len(row["options"]) == len(set(row["options"])) == 4
        levels = Counter(row["example_id"].rstrip("0123456789.tx") for row in rows)
        assert levels["middle"] == levels["high"] == len(rows) / 2

    def test_the_splits_of_race_share_no_id(self):
        assert not {row["example_id"] for row in read("race", "train")} & {
            row["example_id"] for row in read("race", "validation")
        }

    def test_stories_have_ids_of_their_own_and_two_endings(self):
        rows = read("story_cloze", "train") + read("story_cloze", "validation")
        assert len({row["InputStoryid"] for row in rows}) == len(rows)
        assert all(len({plain(row[name]) for name in STORY}) == 6 for row in rows)

    @pytest.mark.parametrize("split", SPLITS["dpr"])
    def test_a_pronoun_occurs_once_after_its_candidates(self, split):
        for row in read("dpr", split):
            words = plain(row["sentence"]).split()
            assert words.count(row["pronoun"]) == 1
            before = " ".join(words[: words.index(row["pronoun"])])
            assert len(set(row["candidates"])) == 2
            assert all(plain(candidate) in before for candidate in row["candidates"])


class TestRealData:
    @pytest.mark.parametrize("task", SCHEMAS)
    def test_the_real_files_have_the_same_schema(self, data_dir, task):
        for file in real_files(task, data_dir):
            if file.suffix == ".csv":
                with open(file, encoding="utf-8", newline="") as stream:
                    rows = csv.DictReader(stream)
                    assert rows.fieldnames == SCHEMAS[task].schema.names
                    assert {row[SCHEMAS[task].label] for row in rows} == {str(value) for value in SCHEMAS[task].values}
            else:
                assert pq.read_schema(file).remove_metadata().equals(SCHEMAS[task].schema), file

    @pytest.mark.parametrize("task", SCHEMAS)
    def test_no_text_is_taken_from_the_real_files(self, data_dir, task):
        real = set()
        for file in real_files(task, data_dir):
            if file.suffix == ".csv":
                with open(file, encoding="utf-8", newline="") as stream:
                    real |= {plain(row[name]) for row in csv.DictReader(stream) for name in SCHEMAS[task].texts}
            else:
                table = pq.read_table(file, columns=list(SCHEMAS[task].texts))
                real |= {plain(text) for column in table.columns for text in column.to_pylist()}
        assert real
        for split in SPLITS[task]:
            assert not texts(task, split) & real
