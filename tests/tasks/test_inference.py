"""Tasks on a user's files: what is inferred from the training rows, and one sentence for each kind of bad input."""

import csv
import json
import math
from collections import Counter
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from helpers.data import write_jsonl
from hypothesis import given
from hypothesis import strategies as st

from gpt1_hf.errors import GPT1Error, MissingSplitError, UsageError
from gpt1_hf.tasks import describe, load_task, task_from_files


REVIEWS = [(f"Film {n} is {'good' if n % 3 else 'bad'}.", ["bad", "good", "so-so"][n % 3]) for n in range(30)]
STORY = {"document": "It rains.", "choices": ["Dry.", "Wet."]}
TAGGED = [
    {"words": ["Ann", "sings"], "label": ["NAME", "O"]},
    {"words": ["She", "met", "Bob"], "label": ["O", "O", "NAME"]},
]


def write_csv(path, rows, header=("text", "label")):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def from_rows(folder, rows, **settings):
    """A task on rows in JSON lines or, if they are tuples, in CSV."""
    if isinstance(rows[0], tuple):
        return task_from_files(write_csv(folder / "train.csv", rows), **settings)
    return task_from_files(write_jsonl(folder / "train.jsonl", rows), **settings)


def message_of(task, split: str = "train") -> str:
    """The one-sentence error for a task's rows."""
    with pytest.raises(GPT1Error) as error:
        task.load(split)
    assert "\n" not in str(error.value)
    return str(error.value)


class TestLabels:
    def test_words_are_classes_in_alphabetical_order(self, tmp_path, capsys):
        task = from_rows(tmp_path, REVIEWS)
        resolved = task.resolved()
        assert not task.is_complete and resolved.is_complete
        assert (resolved.labels, resolved.metric) == ("classes", "accuracy")
        assert resolved.label_names == ("bad", "good", "so-so")
        assert task.resolved() is resolved and resolved.resolved() is resolved
        found = "3 labels, in column 'label': bad, good, so-so; metric accuracy"
        line = f"task {tmp_path.name}: {found}; 10% of the training rows are held out for validation"
        assert capsys.readouterr().err.splitlines()[-1] == line

    @pytest.mark.parametrize("stars", [(10, 9, 1), ("10", "9", "1")])
    def test_numbers_are_classes_in_order_of_size(self, tmp_path, stars):
        rows = [{"text": f"Film {n}", "label": stars[n % 3]} for n in range(12)]
        task = from_rows(tmp_path, rows).resolved()
        assert task.label_names == ("1", "9", "10")
        assert task.load("train")["label"][:3] == [2, 1, 0]

    @pytest.mark.parametrize("score", [float, str])
    def test_fractions_are_scores_without_limits(self, tmp_path, score):
        task = from_rows(tmp_path, [{"text": f"Film {n}", "label": score(n / 2 - 3)} for n in range(10)]).resolved()
        assert (task.labels, task.metric, task.label_names) == ("scores", "pearson", ())
        assert task.score_range == (-math.inf, math.inf)
        assert task.load("train")["label"][0] == -3.0
        assert "score_range" not in describe(task)

    def test_scores_have_the_range_that_is_given(self, tmp_path):
        rows = [(f"Film {n}", n - 2) for n in range(5)]
        task = from_rows(tmp_path, rows, score_range=[-2, 2])
        assert task.load("train")["label"][:] + task.load("validation")["label"][:] != []
        narrow = from_rows(tmp_path, rows, score_range=[-1, 2])
        assert "train.csv: label '-2' is outside the scores -1 to 2 (line 2, column 'label')" in message_of(narrow)

    def test_minus_one_is_a_score_or_a_hidden_label(self, tmp_path):
        scores = from_rows(tmp_path, [(f"Film {n}", n / 2 - 3) for n in range(10)]).resolved()
        assert not scores.is_hidden(-1.0)
        assert load_task("stsb").is_hidden(-1.0) and load_task("cola").is_hidden(-1)
        assert not load_task("cola").is_hidden(0) and not load_task("cola").is_hidden([1.0, 0.0])

    def test_whole_numbers_are_scores_where_asked(self, tmp_path):
        assert from_rows(tmp_path, [(f"Film {n}", n) for n in range(5)], labels="scores").resolved().labels == "scores"

    def test_a_list_is_several_labels_a_row(self, tmp_path):
        rows = [{"text": "a", "label": ["x", "y"]}, {"text": "b", "label": []}, {"text": "c", "label": ["y"]}]
        task = from_rows(tmp_path, rows, validation_share=0.4).resolved()
        assert (task.labels, task.metric, task.label_names) == ("multiple", "f1_micro", ("x", "y"))
        labels = dict(zip(task.load("train")["text"][:], task.load("train")["label"][:], strict=True))
        labels |= dict(zip(task.load("validation")["text"][:], task.load("validation")["label"][:], strict=True))
        assert labels == {"a": [1.0, 1.0], "b": [0.0, 0.0], "c": [0.0, 1.0]}

    def test_lists_in_csv_are_written_as_json_or_python(self, tmp_path):
        rows = [("a", '["x", "y"]'), ("b", "['y']"), ("c", "[]")]
        task = from_rows(tmp_path, rows, labels="multiple", validation_file=write_csv(tmp_path / "dev.csv", rows))
        assert task.load("train")["label"][:] == [[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]
        message = message_of(from_rows(tmp_path, [*rows, ("d", "x; y")], labels="multiple"))
        assert """train.csv: line 5, column 'label': 'x; y' is not a list, such as ["a", "b"]""" == message

    def test_tags_are_class_ids_of_the_words(self, tmp_path):
        task = from_rows(tmp_path, TAGGED * 5, input_format="token_classification").resolved()
        assert (task.labels, task.metric, task.label_names) == ("tags", "accuracy", ("NAME", "O"))
        rows = task.load("train")
        assert rows.column_names == ["words", "label", "idx"]
        assert {tuple(row["label"]) for row in rows} == {(0, 1), (1, 1, 0)}

    def test_tags_may_be_the_numbers_of_named_classes(self, tmp_path):
        features = Features({"words": List(Value("string")), "label": List(ClassLabel(names=["O", "NAME"]))})
        columns = {"words": [row["words"] for row in TAGGED * 4], "label": [[1, 0], [0, 0, 1]] * 4}
        Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "train.parquet")
        task = task_from_files(tmp_path / "train.parquet", input_format="token_classification").resolved()
        assert task.label_names == ("O", "NAME")
        assert {tuple(row["label"]) for row in task.load("train")} == {(1, 0), (0, 0, 1)}

    def test_names_in_the_file_name_the_labels_or_their_numbers(self, tmp_path):
        for labels in (["neg", "pos"], [0, 1]):
            rows = [{"text": f"{n}", "label": labels[n % 2]} for n in range(10)]
            task = from_rows(tmp_path, rows, label_names=["neg", "pos"]).resolved()
            assert task.label_names == ("neg", "pos")
            assert task.load("train")["label"][:2] == [0, 1]

    def test_the_class_names_of_a_parquet_file_are_used(self, tmp_path):
        features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
        data = Dataset.from_dict({"text": ["a", "b", "c", "d"], "label": [0, 1, 0, 1]}, features=features)
        data.to_parquet(tmp_path / "train.parquet")
        task = task_from_files(tmp_path / "train.parquet").resolved()
        assert task.label_names == ("neg", "pos")
        assert task.load("train")["label"][:] + task.load("validation")["label"][:] == [1, 0, 0, 1]

    def test_rows_without_a_label_are_dropped_where_asked(self, tmp_path):
        rows = [{"text": f"{n}", "label": n % 3 - 1} for n in range(30)]
        task = from_rows(tmp_path, rows, drop_unlabelled=True).resolved()
        assert task.label_names == ("0", "1")
        assert len(task.load("train")) + len(task.load("validation")) == 20
        named = from_rows(tmp_path, rows, label_names=["-1", "0", "1"])
        assert {*named.load("train")["label"][:]} == {0, 1, 2}

    def test_a_label_with_a_comma_a_line_end_or_many_characters_is_shown_on_one_line(self, tmp_path, capsys):
        labels = ["a, b", "c\nd", "x" * 99]
        task = from_rows(tmp_path, [(f"Film {n}", labels[n % 3]) for n in range(30)]).resolved()
        assert task.label_names == tuple(labels)
        shown = f"3 labels, in column 'label': 'a, b', 'c\\nd', '{'x' * 40}'; metric"
        assert shown in capsys.readouterr().err.splitlines()[-1]

    def test_a_changed_file_is_inspected_again(self, tmp_path):
        assert from_rows(tmp_path, REVIEWS).resolved().label_names == ("bad", "good", "so-so")
        assert from_rows(tmp_path, REVIEWS[:2] * 4).resolved().label_names == ("bad", "good")


class TestChoices:
    @pytest.mark.parametrize(
        ("labels", "names"),
        [((0, 1), ("0", "1")), ((1, 2), ("1", "2")), (("A", "B"), ("A", "B")), (("b", "a"), ("a", "b"))],
    )
    def test_the_right_choice_is_a_number_or_a_letter(self, tmp_path, labels, names):
        rows = [{**STORY, "label": label} for label in labels * 5]
        columns = {"input_format": "multiple_choice", "text_columns": "document"}
        task = from_rows(tmp_path, rows, **columns).resolved()
        assert task.label_names == names
        assert task.load("train")[0] == {
            **STORY,
            "question": "",
            "label": names.index(str(labels[0])),
            "idx": 0,
        }

    def test_choices_may_be_columns_named_by_the_label(self, tmp_path):
        rows = [("It rains.", "Why?", "Dry.", "Wet.", "b"), ("It snows.", "", "Hot.", "Cold.", "a")] * 5
        write_csv(tmp_path / "train.csv", rows, ("story", "ask", "a", "b", "label"))
        settings = {"text_columns": ["story", "ask"], "choices_columns": ["a", "b"]}
        task = task_from_files(tmp_path / "train.csv", input_format="multiple_choice", **settings)
        row = {"document": "It rains.", "question": "Why?", "choices": ["Dry.", "Wet."], "label": 1, "idx": 0}
        assert task.load("train")[0] == row

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                {"choices": ["Dry."]},
                "line 1 has 2 choices in column 'choices' and line 5 has 1: every row needs equally",
            ),
            ({"choices": ["Dry.", ""]}, "choice 1 of line 5 is empty"),
            ({"choices": ["Dry.", None]}, "the choices of line 5 are .*, which is not a list of texts"),
            ({"label": 7}, "line 5, column 'label': '7' names none of the 2 choices"),
            ({"document": ""}, "line 5, column 'document' is empty"),
        ],
    )
    def test_a_bad_row_is_named(self, tmp_path, change, message):
        rows = [{**STORY, "label": n % 2} for n in range(4)] + [{**STORY, "label": 0, **change}]
        task = from_rows(tmp_path, rows, input_format="multiple_choice", text_columns="document")
        with pytest.raises(GPT1Error, match=f"train.jsonl: {message}"):
            task.load("train")

    def test_labels_that_may_count_from_0_or_1_are_refused(self, tmp_path):
        rows = [{**STORY, "label": 1}] * 10
        settings = {"input_format": "multiple_choice", "text_columns": "document"}
        message = message_of(from_rows(tmp_path, rows, **settings))
        assert """may count from 0 or from 1: give label_names: ["0", "1"] or ["1", "2"]""" in message
        assert from_rows(tmp_path, rows, **settings, label_names=[1, 2]).load("train")["label"][0] == 0

    @pytest.mark.parametrize("column", ["choices", ["x", "y"]])
    def test_a_file_without_questions_is_read(self, tmp_path, column):
        row = {"document": "It rains.", "choices": ["Dry.", "Wet."], "x": "Dry.", "y": "Wet."}
        rows = [{**row, "label": label} for label in "ABAB"]
        settings = {"input_format": "multiple_choice", "choices_columns": column, "validation_share": 0.5}
        task = from_rows(tmp_path, rows, **settings)
        assert task.load("train")["question"][:] == ["", ""]
        assert "question" not in task.resolved().columns
        rows = [{**row, "question": "Why?"} for row in rows]
        assert from_rows(tmp_path, rows, **settings).load("train")["question"][:] == ["Why?", "Why?"]


class TestColumns:
    def test_own_names_may_be_those_of_other_roles(self, tmp_path):
        write_csv(tmp_path / "train.csv", [(label, text, "more") for text, label in REVIEWS], ("text", "label", "idx"))
        task = task_from_files(tmp_path / "train.csv", text_columns="label", label_column="text")
        assert task.load("train")[0] == {"text": REVIEWS[0][0], "label": 0, "idx": 0}
        rows = [("It rains.", "So?", "Dry.", "Wet.", n % 2) for n in range(9)]
        write_csv(tmp_path / "train.csv", rows, ("choices", "question", "document", "text", "label"))
        settings = {"text_columns": ["choices"], "choices_columns": ["document", "text"]}
        task = task_from_files(tmp_path / "train.csv", input_format="multiple_choice", **settings)
        row = {"document": "It rains.", "question": "", "choices": ["Dry.", "Wet."], "label": 0, "idx": 0}
        assert task.load("train")[0] == row

    def test_texts_of_several_columns_are_joined(self, tmp_path):
        write_csv(tmp_path / "train.csv", [("A title", *row) for row in REVIEWS], ("title", "text", "label"))
        task = task_from_files(tmp_path / "train.csv", text_columns=["title", "text"])
        assert task.load("train")["text"][0] == f"A title {REVIEWS[0][0]}"


class TestSplits:
    def test_a_share_is_held_out_by_classes_and_always_the_same(self, tmp_path):
        rows = [(f"Film {n}", "bad" if n % 10 == 0 else "good") for n in range(200)]
        task = from_rows(tmp_path, rows, validation_share=0.2).resolved()
        train, validation = task.load("train"), task.load("validation")
        assert Counter(validation["label"][:]) == {0: 4, 1: 36}
        assert sorted([*train["idx"][:], *validation["idx"][:]]) == list(range(200))
        assert train["idx"][:] == sorted(train["idx"][:])
        assert from_rows(tmp_path, rows, validation_share=0.2).load("validation").to_list() == validation.to_list()
        assert (task.splits, task.scored_splits) == (("train", "validation"), ("validation",))
        with pytest.raises(UsageError, match="has no split 'test'"):
            task.load("test")

    def test_a_class_of_one_row_stays_in_the_training_rows(self, tmp_path):
        task = from_rows(tmp_path, [*REVIEWS, ("Alone.", "single")])
        assert 2 in task.load("train")["label"][:] and task.resolved().label_names[2] == "single"
        assert {*task.load("validation")["label"][:]} == {0, 1, 3}

    def test_separate_split_files_are_used(self, tmp_path):
        more = {name: write_csv(tmp_path / f"{name}.csv", REVIEWS[:n]) for name, n in (("dev", 4), ("test", 6))}
        task = from_rows(tmp_path, REVIEWS, validation_file=more["dev"], test_file=more["test"]).resolved()
        assert task.validation_share is None
        assert [len(task.load(split)) for split in ("train", "validation", "test")] == [30, 4, 6]

    @pytest.mark.parametrize("has_validation", [True, False])
    def test_a_data_set_with_or_without_a_validation_split(self, tmp_path, has_validation):
        rows = [{"review": text, "label": label} for text, label in REVIEWS]
        write_jsonl(tmp_path / "data" / "someone" / "reviews" / "train.jsonl", rows)
        if has_validation:
            write_jsonl(tmp_path / "data" / "someone" / "reviews" / "validation.jsonl", rows[:5])
        (tmp_path / "my.yaml").write_text(
            "dataset: someone/reviews\ninput_format: classification\ncolumns: {text: review}\n"
        )
        data_dir = str(tmp_path / "data")
        task = load_task(str(tmp_path / "my.yaml")).resolved(data_dir)
        assert task.validation_share == (None if has_validation else 0.1)
        assert len(task.load("validation", data_dir)) == (5 if has_validation else 3)
        with pytest.raises(MissingSplitError, match="no file of the split 'test'"):
            task.load("test", data_dir)

    def test_there_is_no_sample(self, tmp_path):
        with pytest.raises(UsageError, match="only built-in tasks have a sample in the package"):
            from_rows(tmp_path, REVIEWS).load("train", sample=True)


class TestBadInput:
    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([("a", "x")], "train.csv has one row"),
            ([("a", "x"), ("b", "x")], "all rows have the same label in column 'label', 'x'"),
            ([("a", "x"), ("b", "y")], "train.csv has 2 rows, too few to hold some out"),
            ([*REVIEWS, ("", "good")], "line 32, column 'text' is empty: remove the row or fill the cell"),
            ([*REVIEWS, (" ", "good"), ("", "bad")], "line 32, column 'text' is empty (2 rows are)"),
            ([*REVIEWS, ("a", "")], "line 32 has no 'label'"),
            ([*REVIEWS, ("a", " ")], "line 32, column 'label' is empty"),
            (
                [*REVIEWS, ("a", "Good")],
                "the labels 'good' (line 3) and 'Good' (line 32) in column 'label' differ only",
            ),
            ([*REVIEWS, ("a", "good ")], "the labels 'good' (line 3) and 'good ' (line 32)"),
            ([*REVIEWS, ("a", "NaN")], "line 32, column 'label' has the label 'NaN', which may mean a missing value"),
            ([*REVIEWS, ("a", "5")], "mixes numbers and words: '5' in line 32, 'bad' in line 2"),
            ([("a", "1"), ("b", "2"), ("c", "01")], "the labels '1' (line 2) and '01' (line 4)"),
            ([("a", "-1"), ("b", "0"), ("c", "1")], "line 2, column 'label' has the label -1, which may mean"),
            ([("a", f"label {n}") for n in range(200)], "200 different labels in 200 rows: give another label_column"),
        ],
    )
    def test_of_a_csv_file(self, tmp_path, rows, message):
        task = from_rows(tmp_path, rows)
        found = message_of(task)
        assert message in found and "train.csv" in found

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"text": "a", "label": None}, "line 31 has no 'label'"),
            ({"text": None, "label": "good"}, "line 31 has no 'text'"),
            ({"label": "good"}, "line 31 has no 'text'"),
            ({"text": "a", "label": math.nan}, "line 31 has no 'label'"),
            ({"text": "a", "label": 5}, "line 31, column 'label': 5 is a number, but the rows before hold text"),
            ({"text": 5, "label": "good"}, "line 31, column 'text': 5 is a number, but the rows before hold text"),
            ({"text": "a", "label": ["good"]}, "line 31, column 'label': ['good'] is a list, but"),
        ],
    )
    def test_of_json_lines(self, tmp_path, row, message):
        rows = [*({"text": text, "label": label} for text, label in REVIEWS), row]
        assert message_of(from_rows(tmp_path, rows)).startswith(f"train.jsonl: {message}")

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("high", "line 12, column 'label': 'high' is not a score"),
            ("nan", "'nan' is not a score"),
            ("", "no 'label'"),
        ],
    )
    def test_of_scores(self, tmp_path, value, message):
        rows = [*((f"{n}", n / 2) for n in range(10)), ("x", value)]
        assert message in message_of(from_rows(tmp_path, rows, labels="scores"))
        same = from_rows(tmp_path, [("a", 0.5), ("b", 0.5)], labels="scores")
        assert "all rows have the same score in column 'label', 0.5" in message_of(same)

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            (
                {"words": ["She"], "label": ["O", "O"]},
                "line 3 has 1 words in column 'words' and 2 tags in column 'label'",
            ),
            ({"words": [], "label": []}, "line 3, column 'words': [] is not a list of words"),
            ({"words": ["She"], "label": [None]}, "line 3, column 'label' holds an empty label"),
            (
                {"words": "She", "label": ["O"]},
                "line 3, column 'words': 'She' is text, but the rows before hold a list",
            ),
        ],
    )
    def test_of_tags(self, tmp_path, row, message):
        task = from_rows(tmp_path, [*TAGGED, row], input_format="token_classification")
        assert message_of(task).startswith(f"train.jsonl: {message}")

    def test_dates_are_labels(self, tmp_path):
        rows = [{"text": "a", "label": f"2020-01-0{1 + n % 2}"} for n in range(10)]
        assert from_rows(tmp_path, rows).resolved().label_names == ("2020-01-01", "2020-01-02")

    def test_numbers_with_and_without_quotation_marks_in_json_lines(self, tmp_path):
        task = from_rows(tmp_path, [{"text": "a", "label": label} for label in ("0", "1", "0", 1, "0")])
        assert "train.jsonl: line 4, column 'label': 1 is a number, but the rows before hold text" in message_of(task)

    def test_a_label_of_the_validation_file_only(self, tmp_path):
        validation = write_csv(tmp_path / "dev.csv", [*REVIEWS[:5], ("a", "great")])
        task = from_rows(tmp_path, REVIEWS, validation_file=validation)
        assert len(task.load("train")) == 30
        message = "dev.csv: label 'great' is outside the set bad, good, so-so (line 7, column 'label')"
        assert message_of(task, "validation") == message

    @pytest.mark.parametrize("column", ["text", "label"])
    def test_a_missing_column(self, tmp_path, column):
        write_csv(tmp_path / "train.csv", REVIEWS, ["other" if name == column else name for name in ("text", "label")])
        message = message_of(task_from_files(tmp_path / "train.csv"))
        assert message.startswith(f"train.csv: column '{column}' is missing; the file has ")
        assert message.endswith(f": name yours with --{column}_column, or in the task's YAML file")

    @pytest.mark.parametrize("name", ["Text", " text"])
    def test_a_column_that_differs_in_case_or_blanks_is_suggested(self, tmp_path, name):
        write_csv(tmp_path / "train.csv", REVIEWS, [name, "label"])
        assert message_of(task_from_files(tmp_path / "train.csv")).endswith(f"did you mean {name!r}?")

    def test_rows_of_other_files_are_counted_from_1(self, tmp_path):
        columns = {"text": ["a", "b", ""], "label": ["x", "y", "x"]}
        pq.write_table(pa.table(columns), tmp_path / "train.parquet")
        message = message_of(task_from_files(tmp_path / "train.parquet"))
        assert message.startswith("train.parquet: row 3 (counted from 1), column 'text' is empty")

    def test_only_the_main_process_says_what_it_inferred(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setenv("RANK", "1")
        from_rows(tmp_path, REVIEWS).resolved()
        assert "3 labels" not in capsys.readouterr().err

    def test_a_missing_or_empty_file(self, tmp_path):
        assert "there is no file" in message_of(task_from_files(tmp_path / "train.csv"))
        (tmp_path / "dev.csv").touch()
        task = from_rows(tmp_path, REVIEWS, validation_file=tmp_path / "dev.csv")
        assert "dev.csv is empty" in message_of(task)  # before anything is trained
        write_csv(tmp_path / "train.csv", [])
        assert "train.csv has no rows, only a header" in message_of(task_from_files(tmp_path / "train.csv"))

    def test_a_label_that_label_names_lacks(self, tmp_path):
        task = from_rows(tmp_path, REVIEWS, label_names=["bad", "good"])
        expected = "train.csv: line 4, column 'label' has the label 'so-so', which is none of the label_names bad, "
        assert message_of(task) == expected + "good"

    def test_f1_of_three_classes(self, tmp_path):
        assert "f1 needs two classes, but train.csv has 3" in message_of(from_rows(tmp_path, REVIEWS, metric="f1"))
        assert "accuracy does not fit labels: scores" in message_of(
            from_rows(tmp_path, [("a", 0.5), ("b", 1.5)], metric="accuracy")
        )


class TestAsTheBuiltInTask:
    """A benchmark's data in a user's own files gives the rows of the built-in task."""

    def same(self, task_id: str, data_dir: str, folder, **settings):
        """The built-in task's validation rows, and those of a user's task on the same rows in another kind of file."""
        built_in = load_task(task_id)
        rows = {split: built_in.load(split, data_dir).select(range(150)) for split in ("train", "validation")}
        kind = settings.pop("kind")
        for split, part in rows.items():
            part = part.select_columns([name for name in part.column_names if name not in ("idx", "subset")])
            path = str(folder / f"{split}.{kind}")
            if kind == "jsonl":
                part.to_json(path)
            else:
                part.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
        own = task_from_files(
            folder / f"train.{kind}", folder / f"validation.{kind}", built_in.input_format, **settings
        )
        columns = [name for name in rows["validation"].column_names if name not in ("idx", "subset")]
        for split, part in rows.items():
            assert own.load(split).select_columns(columns).to_list() == part.select_columns(columns).to_list()
        return own.resolved()

    @pytest.mark.parametrize(("task_id", "kind"), [("snli", "csv"), ("scitail", "tsv"), ("cola", "jsonl")])
    def test_classes(self, data_dir, tmp_path, task_id, kind):
        own = self.same(task_id, data_dir, tmp_path, kind=kind, label_names=list(load_task(task_id).label_names))
        assert own.label_names == load_task(task_id).label_names

    def test_scores(self, data_dir, tmp_path):
        assert self.same("stsb", data_dir, tmp_path, kind="csv", score_range=[0, 5]).metric == "pearson"

    def test_choices(self, data_dir, tmp_path):
        assert self.same("race", data_dir, tmp_path, kind="jsonl").label_names == ("0", "1", "2", "3")

    def test_the_layout_of_scitail_is_read_where_it_is(self, data_dir, tmp_path):
        (tmp_path / "mine.yaml").write_text(
            json.dumps(
                {
                    "dataset": "allenai/scitail",
                    "config": "tsv_format",
                    "input_format": "entailment",
                    "label_names": ["entails", "neutral"],
                }
            )
        )
        own, built_in = load_task(str(tmp_path / "mine.yaml")), load_task("scitail")
        for split in ("train", "validation"):
            assert own.load(split, data_dir).to_list() == built_in.load(split, data_dir).to_list()


GOOD = {
    "classification": {"text": st.text("ab", min_size=1), "label": st.sampled_from("ab")},
    "entailment": {"premise": st.just("a"), "hypothesis": st.just("b"), "label": st.sampled_from("ab")},
    "multiple_choice": {
        "document": st.just("a"),
        "question": st.just(""),
        "choices": st.just(["x", "y"]),
        "label": st.integers(0, 1),
    },
    "token_classification": {
        "words": st.just(["x", "y"]),
        "label": st.lists(st.sampled_from("AB"), min_size=2, max_size=2),
    },
}
CELLS = st.sampled_from(["a", "b", "A", "1", "2", "-1", "", " ", "0.5", "[1]", '["a", "b"]'])
VALUES = (
    CELLS,
    st.text(max_size=3),
    st.integers(-2, 3),
    st.floats(),
    st.booleans(),
    st.dates(),
    st.binary(max_size=3),
)
LISTS = (st.lists(CELLS, max_size=3), st.lists(st.integers(-1, 2), max_size=2), st.lists(st.lists(CELLS, max_size=2)))
ANY = [kind for one in (*VALUES, *LISTS) for kind in (one, one | st.none())] + [st.none(), st.just({"a": 1})]


@given(data=st.data())
def test_rows_of_any_columns_are_loaded_or_refused_in_one_sentence(data, tmp_path_factory):
    input_format, n = data.draw(st.sampled_from(sorted(GOOD))), data.draw(st.integers(2, 6))
    columns = {name: data.draw(st.lists(one, min_size=n, max_size=n)) for name, one in GOOD[input_format].items()}
    for name in data.draw(st.sets(st.sampled_from([*columns, "idx", "subset"]), max_size=2)):
        columns[name] = data.draw(st.sampled_from(ANY).flatmap(lambda one: st.lists(one, min_size=n, max_size=n)))
    settings = data.draw(st.fixed_dictionaries({}, optional={"label_names": st.just(["a", "b"])}))
    folder = tmp_path_factory.mktemp("any")
    pq.write_table(pa.table(columns), folder / "train.parquet")
    with mock.patch("datasets.config.HF_DATASETS_CACHE", folder / "cache"):
        try:
            task = task_from_files(folder / "train.parquet", input_format=input_format, **settings).resolved()
            rows = [task.load(split) for split in ("train", "validation")]
        except GPT1Error as error:
            assert "\n" not in str(error) and str(error).startswith("train.parquet")
            return
    assert task.is_complete and sum(map(len, rows)) == n
