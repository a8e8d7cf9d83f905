"""`gpt1 evaluate` and `gpt1 zero-shot`: default output folders, hidden labels, and models of the wrong kind."""

import itertools
import json
from pathlib import Path

import pytest
from transformers import OpenAIGPTConfig, OpenAIGPTForSequenceClassification

from gpt1_hf import GPT1ForMultipleChoice, GPT1ForSequenceClassification, GPT1ForTokenClassification
from gpt1_hf.analysis.zero_shot import ZeroShotArguments
from gpt1_hf.cli import main
from gpt1_hf.errors import GPT1Error
from gpt1_hf.evaluation.evaluate import EvaluateArguments, evaluate


@pytest.mark.parametrize("arguments", [EvaluateArguments, ZeroShotArguments])
def test_every_task_split_and_model_has_its_own_folder(arguments):
    models = ("gpt1-tiny", "runs/a/b", "runs/a-b", "runs/a--b", "runs-a/b", "/runs/a/b", "../runs/a/b", "x" * 300)
    splits = (None, "validation", "test", "train")
    choices = [
        dict(task=task, model=model, split=split, sample=sample)
        for task, model, split, sample in itertools.product(("cola", "sst2"), models, splits, (False, True))
    ]
    if arguments is EvaluateArguments:
        choices += [dict(text_file=file, model=model) for file in ("a.txt", "b/a.txt", "b-a.txt") for model in models]
    folders = [Path(arguments(**choice).output_dir) for choice in choices]
    assert len(set(folders)) == len(choices)
    room = "evaluate" if arguments is EvaluateArguments else "zero_shot"
    for choice, folder in zip(choices, folders, strict=True):
        assert folder.parts[:2] == ("runs", room) and ".." not in folder.parts
        assert choice.get("task", "a.txt") in folder.parts[2] and max(map(len, folder.parts)) < 100
    # A given folder is kept.
    assert arguments(task="cola", output_dir="here").output_dir == "here"


def test_results_of_another_task_are_not_overwritten(base_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for task in ("sst2", "dpr"):
        argv = ["--model", base_model, "--sample", "true", "--max_examples", "4"]
        assert main(["zero-shot", "--task", task, *argv]) == 0
        assert f"runs/zero_shot/{task}/" in capsys.readouterr().err
    (tmp_path / "a.txt").write_text("the old house")
    assert main(["evaluate", "--text_file", "a.txt", "--model", base_model]) == 0
    found = [json.loads(file.read_text())[0]["task"] for file in (tmp_path / "runs").rglob("results.json")]
    assert sorted(found) == ["dpr", "language_modeling", "sst2"]


def test_hidden_labels_are_reported(base_model, tmp_path, capsys):
    path = tmp_path / "data" / "nyu-mll" / "glue" / "sst2" / "test.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"sentence": "the old house", "label": -1, "idx": 0}\n')
    data = ["--data_dir", str(tmp_path / "data"), "--split", "test", "--output_dir", str(tmp_path / "out")]
    assert main(["zero-shot", "--task", "sst2", "--model", base_model, *data]) == 0
    assert "the labels of sst2 (test) are hidden" in capsys.readouterr().err


@pytest.fixture(
    params=[GPT1ForSequenceClassification, GPT1ForMultipleChoice, GPT1ForTokenClassification, "openai-gpt"]
)
def task_model(request, config, tokenizer, tmp_path) -> str:
    """Folder of a model that has a task head."""
    if request.param == "openai-gpt":
        sizes = {"vocab_size": len(tokenizer), "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
        model = OpenAIGPTForSequenceClassification(OpenAIGPTConfig(**sizes))
    else:
        model = request.param(config)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_a_classifier_is_not_scored_as_a_language_model(task_model, tmp_path, capsys):
    text = tmp_path / "a.txt"
    text.write_text("the old house")
    out = ["--output_dir", str(tmp_path / "out")]
    for argv in (
        ["evaluate", "--text_file", str(text), *out],
        ["zero-shot", "--task", "sst2", "--sample", "true", *out],
        ["generate", "the house"],
    ):
        assert main([*argv, "--model", task_model]) == 1
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert message.startswith(f"gpt1: error: model {task_model!r} is not a language model but a task model (")
        assert "give the language model that it was fine-tuned from" in message
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_language_model_is_not_scored_as_a_classifier(base_model, tmp_path):
    for task in ("cola", "race", "mrpc", "stsb"):
        with pytest.raises(GPT1Error, match="fine-tune it first|was not fine-tuned for"):
            evaluate(EvaluateArguments(model=base_model, task=task, sample=True, output_dir=str(tmp_path)))


@pytest.mark.parametrize(
    ("more", "scored", "partial"),
    [
        ({}, 26, None),
        ({"max_characters": 26}, 26, None),
        ({"max_characters": 99}, 26, None),
        ({"max_characters": 20}, 20, True),
        ({"max_characters": 14}, 14, True),  # the whole first document
        ({"max_examples": 1}, 14, True),
    ],
)
def test_a_part_of_a_text_is_marked(more, scored, partial, base_model, tmp_path):
    rows = tmp_path / "text.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("the old ladies", "wept loudly.")))
    settings = {"text_file": str(rows), "model": base_model, "output_dir": str(tmp_path / "out"), **more}
    for result in evaluate(EvaluateArguments(**settings)):
        details = result.details
        assert (details["scored_characters"], details["text_characters"], details.get("partial")) == (
            scored,
            26,
            partial,
        )
        assert details["scored_tokens"] > 1
        assert result.rows.endswith(f"({scored} of 26 characters)") == bool(partial)


def test_the_size_of_a_text_on_the_hub_is_not_counted(base_model, tmp_path, monkeypatch):
    def read(*_):
        yield "the old ladies"
        yield "wept loudly."
        yield "and smiled."
        raise AssertionError("it reads on")

    monkeypatch.setattr("gpt1_hf.data.corpus.read_documents", read)
    settings = {"text_file": "someone/text", "model": base_model, "output_dir": str(tmp_path / "out")}
    for n, partial in ((20, True), (14, True)):
        (result, _) = evaluate(EvaluateArguments(max_characters=n, **settings))
        assert (result.details.get("text_characters"), result.details.get("partial")) == (None, partial)
        assert result.rows.endswith(f"(only {n} characters)")
