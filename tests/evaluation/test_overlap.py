"""Overlap of rows and texts with training data, compared with counts by hand."""

import json

import pytest
from datasets import Dataset
from helpers.data import write_jsonl

from gpt1_hf.cli import main
from gpt1_hf.errors import GPT1Error
from gpt1_hf.evaluation.evaluate import EvaluateArguments, evaluate
from gpt1_hf.evaluation.overlap import corpus_overlap, row_overlap, words
from gpt1_hf.tasks import load_task
from gpt1_hf.training.arguments import FinetuneArguments
from gpt1_hf.training.finetune import finetune


def test_texts_are_compared_by_words():
    assert (
        words(" The  OLD,\nhouse\u2026 \u201cof_mine\u201d! ")
        == words("the old house of mine")
        == "the old house of mine"
    )
    assert words("\uff34\uff48\uff45") == "the" and words("?!") == ""
    assert words("not here") != words("nothere")


def test_pairs_are_compared_whole_and_by_column():
    train = Dataset.from_dict({"premise": ["A man.", "A dog.", ""], "hypothesis": ["He runs.", "It sits.", ""]})
    rows = Dataset.from_dict(
        {
            "premise": ["a man", "A man", "A cat", "", "he runs"],
            "hypothesis": ["HE RUNS!", "It sits", "New", "", "a man"],
        }
    )
    found = row_overlap(train, rows, "entailment")
    assert found.whole == [
        True,
        False,
        False,
        False,
        False,
    ]  # texts without words never match, and the order of a pair matters
    assert found.columns == {"premise": 2, "hypothesis": 2}
    pairs = {"premise": "text_a", "hypothesis": "text_b"}
    found = row_overlap(train.rename_columns(pairs), rows.rename_columns(pairs), "similarity")
    assert found.whole == [True, False, False, False, True]


def test_choices_match_in_any_order():
    train = {"document": ["A story."], "question": [""], "choices": [["One.", "Two."]]}
    rows = {"document": ["a story"] * 2, "question": ["", ""], "choices": [["two", "one"], ["two", "three"]]}
    found = row_overlap(Dataset.from_dict(train), Dataset.from_dict(rows), "multiple_choice")
    assert found.whole == [True, False] and found.columns == {"document": 2, "question": 0, "choices": 1}


def test_ngrams_are_found_in_a_corpus_that_is_read_once():
    corpus = iter(["x a b c d e y", "short text"])
    assert corpus_overlap(corpus, ["A b, c d z", "q a b c", "Short, text!", "short", "", "text x"], n=3) == [
        2 / 3,
        1 / 2,
        1.0,
        1.0,
        0.0,
        0.0,
    ]


@pytest.fixture(scope="module")
def run(base_model, tmp_path_factory):
    """A model for SST-2, and data in which five of the thirty validation rows are also in train."""
    folder = tmp_path_factory.mktemp("overlap")
    rows = [{"sentence": row["text"], "label": row["label"]} for row in load_task("sst2").load("train", sample=True)]
    data = folder / "data" / "nyu-mll" / "glue" / "sst2"
    write_jsonl(data / "train.jsonl", rows[:40])
    changed = [{**row, "sentence": f"  {row['sentence'].upper()}"} for row in rows[10:15]]
    write_jsonl(data / "validation.jsonl", [*rows[40:65], *changed])
    settings = {"model": base_model, "data_dir": str(folder / "data"), "max_steps": 2, "use_cpu": True}
    finetune(FinetuneArguments(task="sst2", output_dir=str(folder / "run"), disable_tqdm=True, **settings))
    return folder


def test_a_metric_is_also_computed_without_overlapping_rows(run, tmp_path, capsys):
    argv = ["evaluate", "--model", str(run / "run"), "--task", "sst2", "--data_dir", str(run / "data")]
    assert main([*argv, "--check_overlap", "--output_dir", str(tmp_path)]) == 0
    (row,) = json.loads((tmp_path / "results.json").read_text())
    overlap = row["details"]["overlap"]
    assert overlap["rows_in_train"] == 5 and overlap["columns_in_train"] == {"text": 5} and overlap["train_rows"] == 40
    predictions = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    right = [row["prediction"] == row["label"] for row in predictions]
    assert row["value"] == pytest.approx(100 * sum(right) / 30, abs=0.005) and row["n_examples"] == 30
    assert overlap["value_without"] == pytest.approx(100 * sum(right[:25]) / 25, abs=0.005)
    assert overlap["n_without"] == 25
    out = capsys.readouterr().out
    assert "5 of 30 rows (16.7%) are also in the train split" in out and "without them" in out
    assert main([*argv, "--output_dir", str(tmp_path)]) == 0
    assert "overlap" not in json.loads((tmp_path / "results.json").read_text())[0]["details"]


def test_without_other_rows_there_is_no_second_value(run, tmp_path):
    args = {"model": str(run / "run"), "task": "sst2", "data_dir": str(run / "data"), "output_dir": str(tmp_path)}
    (result,) = evaluate(EvaluateArguments(split="train", check_overlap=True, **args))
    overlap = result.details["overlap"]
    assert (overlap["rows_in_train"], overlap["value_without"], overlap["n_without"]) == (40, None, 0)


def test_overlap_of_text_and_rows_with_a_corpus(run, base_model, texts, tmp_path, capsys):
    corpus, held_out = tmp_path / "corpus.txt", tmp_path / "held_out"
    rows = load_task("sst2").load("train", sample=True)["text"]
    corpus.write_text("\n".join([*texts[:50], rows[60]]))
    held_out.mkdir()
    for name, text in {"seen": texts[20], "new": " ".join(f"w{n}" for n in range(30))}.items():
        (held_out / f"{name}.txt").write_text(text)
    args = {"check_overlap": True, "train_text": str(corpus), "output_dir": str(tmp_path / "out")}
    results = evaluate(EvaluateArguments(model=base_model, text_file=str(held_out), **args))
    for result in results:
        assert result.details["overlap"]["texts_in_corpus"] == 1
    data = {"task": "sst2", "data_dir": str(run / "data")}
    (result,) = evaluate(EvaluateArguments(model=str(run / "run"), **data, **args))
    assert result.details["overlap"]["texts_in_corpus"] == 1
    assert "of 30 texts share 13 words in a row" in capsys.readouterr().out

    with pytest.raises(GPT1Error, match="--check_overlap on text needs --train_text"):
        evaluate(EvaluateArguments(model=base_model, text_file=str(held_out), check_overlap=True))
    with pytest.raises(GPT1Error, match="--train_text is only used by --check_overlap"):
        evaluate(EvaluateArguments(model=base_model, text_file=str(held_out), train_text=str(corpus)))
