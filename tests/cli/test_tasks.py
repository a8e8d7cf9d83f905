"""`gpt1 tasks`: the list, a task's YAML, and a new YAML from a look at a training file."""

import csv
import json
import re

import pytest
import yaml
from helpers.data import write_jsonl

from gpt1_hf.cli import main
from gpt1_hf.tasks import all_tasks, describe, load_task


STARS = [(n, f"Film {n} is fine.", "film", 1 + n % 5) for n in range(40)]
HEADER = ("id", "review", "kind", "stars")


def write_csv(path, rows=STARS, header=HEADER, delimiter=","):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


def new(folder, train_file, *flags) -> int:
    return main(["tasks", "new", str(folder / "mine.yaml"), "--train_file", str(train_file), *flags])


def test_the_list_has_a_line_for_each_task(capsys):
    assert main(["tasks", "ls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*all_tasks(zero_shot=True)]
    assert lines[0].split() == ["cola", "classification", "matthews_correlation", "nyu-mll/glue", "(cola)"]


def test_a_built_in_task_is_shown_as_its_file(capsys):
    assert main(["tasks", "show", "cola"]) == 0
    assert capsys.readouterr().out == describe(load_task("cola"))


def test_an_own_task_is_shown_with_what_is_inferred(tmp_path, capsys):
    write_csv(tmp_path / "train.csv")
    text = (
        "# Mine.\ntrain_file: train.csv\ninput_format: classification\ncolumns: {text: review}\nlabel_column: stars\n"
    )
    (tmp_path / "mine.yaml").write_text(text)
    assert main(["tasks", "show", str(tmp_path / "mine.yaml")]) == 0
    out = capsys.readouterr().out
    assert out.startswith(text + "\n# Inferred from the training rows:\n")
    inferred = {
        "labels": "classes",
        "label_names": ["1", "2", "3", "4", "5"],
        "metric": "accuracy",
        "validation_share": 0.1,
    }
    assert yaml.safe_load(out) == {**yaml.safe_load(text), **inferred}


def test_a_complete_task_is_shown_without_an_empty_list_of_inferences(tmp_path, capsys):
    assert new(tmp_path, write_csv(tmp_path / "train.csv"), "--label_column", "stars") == 0
    capsys.readouterr()
    assert main(["tasks", "show", str(tmp_path / "mine.yaml")]) == 0
    assert "Inferred" not in capsys.readouterr().out


def test_a_task_whose_file_is_missing_is_an_error_of_one_sentence(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("train_file: train.csv\ninput_format: classification\n")
    assert main(["tasks", "show", str(tmp_path / "mine.yaml")]) == 1
    assert capsys.readouterr().err == f"gpt1: error: there is no file {tmp_path / 'train.csv'}\n"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_new_task_is_guessed_from_the_file(tmp_path, capsys, delimiter):
    assert new(tmp_path, write_csv(tmp_path / "train.csv", delimiter=delimiter)) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'mine.yaml'}\n"
    guessed, inferred, command = captured.err.splitlines()
    assert guessed == (
        "guessed: label column 'stars' (by its name); input format classification; text column 'review' (the longest "
        "strings)"
    )
    assert inferred.startswith("task mine: 5 labels, in column 'stars'")
    assert command == f"train with: gpt1 finetune --task {tmp_path / 'mine.yaml'}"
    task = load_task(str(tmp_path / "mine.yaml"))
    assert (task.id, task.columns, task.label_column) == ("mine", {"text": "review"}, "stars")
    assert task.label_names == ("1", "2", "3", "4", "5")
    assert "train_file: train.csv\n" in (tmp_path / "mine.yaml").read_text()
    assert len(task.load("train")) == 35 and len(task.load("validation")) == 5


def test_a_label_without_a_usual_name_has_few_values(tmp_path):
    rows = [(*row[:3], "ab"[n % 2]) for n, row in enumerate(STARS)]
    assert new(tmp_path, write_csv(tmp_path / "train.csv", rows, (*HEADER[:3], "quality"))) == 0
    assert load_task(str(tmp_path / "mine.yaml")).label_column == "quality"


def test_flags_win_over_guesses(tmp_path, capsys):
    rows = [(f"Film {n} is better.", f"Film {n}", f"Good {n} it is, I think.", n % 2, n / 4) for n in range(20)]
    write_csv(tmp_path / "train.csv", rows, ("a", "b", "c", "label", "score"))
    flags = "--text_column b a --label_column score --input_format similarity --metric spearman".split()
    dev = write_csv(tmp_path / "dev.csv", rows, ("a", "b", "c", "label", "score"))
    assert new(tmp_path, tmp_path / "train.csv", *flags, "--validation_file", str(dev)) == 0
    assert "guessed" not in capsys.readouterr().err
    task = load_task(str(tmp_path / "mine.yaml"))
    assert (task.input_format, task.columns) == ("similarity", {"text_a": "b", "text_b": "a"})
    assert (task.labels, task.metric, task.validation_share) == ("scores", "spearman", None)


@pytest.mark.parametrize(
    ("row", "input_format", "columns"),
    [
        ({"premise": "a", "hypothesis": "b", "label": "01"}, "entailment", {"premise": "premise"}),
        ({"sentence1": "a", "sentence2": "b", "score": [0.5, 1.5]}, "similarity", {"text_b": "sentence2"}),
        ({"article": "a", "question": "b", "options": [["x", "y"]] * 2, "answer": "AB"}, "multiple_choice", {}),
        ({"tokens": [["x", "y"]] * 2, "tags": [["A", "B"]] * 2}, "token_classification", {"words": "tokens"}),
        ({"text": "a", "labels": [["x", "y"], ["x"]]}, "classification", {"text": "text"}),
    ],
)
def test_formats_are_guessed_from_names_and_lists(tmp_path, row, input_format, columns):
    rows = [{name: values if len(values) == 1 else values[n % 2] for name, values in row.items()} for n in range(20)]
    assert new(tmp_path, write_jsonl(tmp_path / "train.jsonl", rows)) == 0
    task = load_task(str(tmp_path / "mine.yaml"))
    assert task.input_format == input_format and columns.items() <= task.columns.items()
    assert task.load("train").num_rows == 18


def test_lists_in_csv_are_seen(tmp_path):
    rows = [(json.dumps(["Ann", "sings"]), json.dumps(["NAME", "O"])) for _ in range(12)]
    assert new(tmp_path, write_csv(tmp_path / "train.csv", rows, ("words", "tags"))) == 0
    assert load_task(str(tmp_path / "mine.yaml")).labels == "tags"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--label_column", "star"], "train.csv: column 'star' is missing; the file has id, review, kind, stars"),
        (["--text_column", "kind", "review", "--input_format", "multiple_choice"], "name the columns with --choices"),
        (["--metric", "pearson"], "the metric pearson does not fit labels: classes"),
        (["--metric", "acuracy"], "metric must be one of"),
        (["--label_column", "kind"], "all rows have the same label in column 'kind', 'film'"),
        (["--label_column", "review"], "has 40 different labels in 40 rows: give another label_column"),
        (["--validation_file", "nowhere.csv"], "there is no file .*nowhere.csv"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_nothing_is_written(tmp_path, capsys, flags, message):
    write_csv(tmp_path / "train.csv")
    assert new(tmp_path, tmp_path / "train.csv", *flags) in (1, 2)
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("gpt1: error: ")
    assert re.search(message, error)
    assert not (tmp_path / "mine.yaml").exists()


def test_an_existing_file_stays(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("mine")
    assert new(tmp_path, write_csv(tmp_path / "train.csv")) == 1
    assert "mine.yaml exists" in capsys.readouterr().err
    assert (tmp_path / "mine.yaml").read_text() == "mine"
