"""Real data sets in their own layouts as a user's data: every command, from the YAML file to the answers."""

import csv
import json
from pathlib import Path

import pytest
import yaml
from datasets import Dataset

from gpt1_hf.cli import main
from gpt1_hf.data.loading import open_dataset
from gpt1_hf.tasks import load_task


FAST = "--max_steps 2 --per_device_train_batch_size 4 --disable_tqdm true --use_cpu true --max_length 64"
N_TRAIN, N_VALIDATION = 120, 30


def parts(data_dir: str, name: str, config: str) -> dict[str, Dataset]:
    """The first rows of a data set's training and validation files, unchanged."""
    folder = Path(data_dir, name, config)
    if not folder.is_dir():
        pytest.skip(f"needs {name}, {config}")
    sizes = {"train": N_TRAIN, "validation": N_VALIDATION}
    return {split: open_dataset(str(folder), split).select(range(n)) for split, n in sizes.items()}


def write(rows: dict[str, Dataset], kind: str) -> str:
    """Write the splits into the current folder; return the flags that name the files."""
    for split, part in rows.items():
        path = f"own_{split}.{kind}"
        if kind == "jsonl":
            part.to_json(path, force_ascii=False)
        elif kind == "parquet":
            part.to_parquet(path)
        else:
            part.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    return f"--train_file own_train.{kind} --validation_file own_validation.{kind}"


def read(path: str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def run_all(base_model: str, flags: str, kind: str, **keys) -> list[dict]:
    """`gpt1 tasks new`, `finetune`, `evaluate` and `predict`, which agree; returns the predictions."""
    assert main(["tasks", "new", "own.yaml", *flags.split()]) == 0
    with Path("own.yaml").open("a", encoding="utf-8") as file:
        file.write(yaml.safe_dump(keys) if keys else "")
    assert main(["tasks", "show", "own.yaml"]) == 0
    assert main(["finetune", "--task", "own.yaml", "--model", base_model, *FAST.split()]) == 0
    assert main(["evaluate", "--task", "own.yaml", "--model", "runs/own", "--output_dir", "again"]) == 0
    first, again = (json.loads(Path(run, "results.json").read_text()) for run in ("runs/own", "again"))
    assert [row["value"] for row in first] == [row["value"] for row in again]
    argv = ["predict", "--model", "runs/own", "--input", f"own_validation.{kind}", "--output", "answers.jsonl"]
    assert main(argv) == 0
    predictions, answers, names = (
        read("again/predictions.jsonl"),
        read("answers.jsonl"),
        load_task("own.yaml").label_names,
    )
    assert len(answers) == len(predictions) == N_VALIDATION
    for answer, row in zip(answers, predictions, strict=True):
        if not names:
            assert answer["prediction"] == row["prediction"]
        elif isinstance(row["prediction"], list):
            assert answer["label"] == [None if tag < 0 else names[tag] for tag in row["prediction"]]
        else:
            assert list(answer["scores"].values()) == row["scores"]
            assert answer["label"] == names[row["prediction"]]
    return predictions


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_snli(data_dir, base_model, place):
    rows = parts(data_dir, "stanfordnlp/snli", "plain_text")
    predictions = run_all(base_model, write(rows, "csv"), "csv")
    labels = [label for label in rows["validation"]["label"][:] if label != -1]
    assert [row["label"] for row in predictions] == labels


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_race(data_dir, base_model, place, kind, capsys):
    rows = parts(data_dir, "ehovy/race", "middle")
    predictions = run_all(base_model, write(rows, kind), kind)
    assert ["ABCD"[row["label"]] for row in predictions] == rows["validation"]["answer"][:]
    zero_shot = "zero-shot --task own.yaml --max_examples 5 --output_dir zero"
    assert main([*zero_shot.split(), "--model", base_model]) == 0
    assert json.loads(Path("zero/results.json").read_text())[0]["task"] == "own"
    assert main(["report", "runs"]) == 0 and "own" in Path("runs/report.html").read_text(encoding="utf-8")


def test_stsb_in_bins(data_dir, base_model, place):
    rows = parts(data_dir, "nyu-mll/glue", "stsb")
    flags = write(rows, "tsv")
    predictions = run_all(base_model, flags, "tsv", score_range=[0, 5], regression_bins=6)
    assert [row["label"] for row in predictions] == [round(label, 6) for label in rows["validation"]["label"]]
    assert all(0 <= row["prediction"] <= 5 for row in predictions)


def test_story_cloze(data_dir, base_model, place):
    files = sorted(Path(data_dir, "story_cloze").glob("*val*.csv"))
    if not files:
        pytest.skip("needs Story Cloze")
    with files[0].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    own = {"train": rows[:N_TRAIN], "validation": rows[N_TRAIN : N_TRAIN + N_VALIDATION]}
    flags = write({split: Dataset.from_list(part) for split, part in own.items()}, "csv")
    flags += " --input_format multiple_choice --text_column InputSentence4 --label_column AnswerRightEnding"
    flags += " --choices_column RandomFifthSentenceQuiz1 RandomFifthSentenceQuiz2"
    predictions = run_all(base_model, flags, "csv")
    assert [str(row["label"] + 1) for row in predictions] == [row["AnswerRightEnding"] for row in own["validation"]]


def test_words_of_cola_with_tags(data_dir, base_model, place):
    rows = parts(data_dir, "nyu-mll/glue", "cola")
    tagged = {
        split: Dataset.from_list(
            [
                {"tokens": words, "ner_tags": ["NAME" if word[0].isupper() else "O" for word in words]}
                for words in map(str.split, part["sentence"])
            ]
        )
        for split, part in rows.items()
    }
    predictions = run_all(base_model, write(tagged, "jsonl"), "jsonl")
    names = load_task("own.yaml").label_names
    assert [[names[tag] for tag in row["label"]] for row in predictions] == tagged["validation"]["ner_tags"][:]
