"""`gpt1 predict`: the answers of `gpt1 evaluate` and of the pipelines, for texts from any file or from a stream."""

import csv
import io
import json
import subprocess
import sys
import tracemalloc
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import pipeline

from gpt1_hf import GPT1Processor
from gpt1_hf.cli import main
from gpt1_hf.errors import GPT1Error, UsageError
from gpt1_hf.evaluation import task_scores
from gpt1_hf.evaluation.evaluate import EvaluateArguments, evaluate
from gpt1_hf.evaluation.predict import PredictArguments, answers, predict_file
from gpt1_hf.evaluation.task_scores import (
    auto_class,
    config_changes,
    encode_rows,
    open_fine_tuned,
    row_logits,
)
from gpt1_hf.tasks import load_task
from gpt1_hf.training.arguments import FinetuneArguments
from gpt1_hf.training.finetune import finetune


TEXTS = ["the old captain, never cruel", "a dark night", 'he said "no"', "the house was kind and bright " * 20, "bad"]


@pytest.fixture
def model_of(base_model, tokenizer, tmp_path):
    """Save a model with the head and the record of a task, as `gpt1 finetune` would, with a random head."""

    def save(task_id: str, record: dict | None = None, **config) -> str:
        task = load_task(task_id)
        folder = tmp_path / f"model-{task_id}"
        torch.manual_seed(0)
        processor = GPT1Processor(tokenizer, task.input_format)
        trained_on = {"task": task_id, "input_format": task.input_format, "labels": list(task.label_names)}
        trained_on = {**trained_on, **(record or {})} if record is None or record else None
        changes = {**config_changes(task), "trained_on": trained_on, **config}
        model = auto_class(task).from_pretrained(base_model, dtype="float32", **changes)
        model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
        torch.nn.init.normal_(model.classifier.weight, std=5.0)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        return str(folder)

    return save


def write(path: Path, columns: dict[str, list]) -> str:
    """Rows in the format that the file's name says."""
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="," if path.suffix == ".csv" else "\t")
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
    elif path.suffix == ".parquet":
        Dataset.from_dict(columns).to_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in Dataset.from_dict(columns)), encoding="utf-8")
    return str(path)


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def numbers(row: dict) -> list[float]:
    return [row["prediction"]] if "prediction" in row else list(row["scores"].values())


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("task_id", ["cola", "snli", "mrpc", "stsb", "race", "story_cloze"])
def test_answers_equal_those_of_evaluate_to_the_last_digit(task_id, suffix, model_of, tmp_path, monkeypatch):
    model, task = model_of(task_id), load_task(task_id)
    monkeypatch.setattr(task_scores, "ROWS_AT_ONCE", 10)  # several parts
    evaluate(
        EvaluateArguments(model=model, task=task_id, sample=True, output_dir=str(tmp_path / "scored"), batch_size=4)
    )
    expected = read(tmp_path / "scored" / "predictions.jsonl")
    rows = task.load("validation", sample=True)
    columns = {name: rows[name][:] for name in task.columns}
    if suffix in (".csv", ".tsv") and "choices" in columns:
        columns["choices"] = [json.dumps(choices) for choices in columns["choices"]]
    if suffix == ".tsv":
        columns = {name: [cell.replace("\n", " ") for cell in cells] for name, cells in columns.items()}
    file = write(tmp_path / f"new{suffix}", {**columns, "idx": rows["idx"][:]})
    args = PredictArguments(model=model, input=file, output=str(tmp_path / "answers.jsonl"), batch_size=4)
    assert predict_file(args) == len(expected)
    found = read(tmp_path / "answers.jsonl")
    for row, answer in zip(expected, found, strict=True):
        assert str(answer["id"]) == str(row["id"]) and answer["truncated"] == row["truncated"]
        assert numbers(answer) == row["scores"]
        if task.score_range:
            assert answer["prediction"] == row["prediction"] and "label" not in answer
        else:
            assert answer["label"] == task.label_names[row["prediction"]]
            assert tuple(answer["scores"]) == task.label_names
    if "choices" in task.columns:
        choices = [rows["choices"][index][row["prediction"]] for index, row in enumerate(expected)]
        assert [answer["answer"] for answer in found] == choices
    assert list(answers(args)) == found
    assert not list(tmp_path.glob("*.unfinished"))


def test_logits_are_in_the_order_of_the_rows(model_of, monkeypatch):
    """Rows of similar length share a batch, in parts of a few rows."""
    model, processor = open_fine_tuned(model_of("cola"), load_task("cola"))
    texts = ["house " * length for length in (3, 1, 7, 2, 2, 9, 1, 4, 6, 5, 8)]
    encoded = encode_rows(Dataset.from_dict({"text": texts, "label": [0] * len(texts)}), processor, 64)
    alone = row_logits(model, processor, encoded, 1)
    monkeypatch.setattr(task_scores, "ROWS_AT_ONCE", 6)
    seen = []
    monkeypatch.setattr(model, "forward", lambda **inputs: seen.append(inputs) or type(model).forward(model, **inputs))
    together = row_logits(model, processor, encoded, 3)
    assert torch.tensor(np.array(together)).allclose(torch.tensor(np.array(alone)), atol=1e-6)
    widths = [inputs["input_ids"].shape[1] for inputs in seen]
    extra = len(encoded[0]["input_ids"]) - 3
    assert widths == [9 + extra, 2 + extra, 8 + extra, 4 + extra]


PLACES = [
    f"the {word} house in the garden" for word in ("old", "dark", "bright", "cruel", "kind", "good", "bad", "young")
]
# Rows of a user's own data, and keys of its task.
OWN = {
    "classes": ({"review": PLACES, "stars": ["low", "high"] * 4}, {"columns": {"text": "review"}}),
    "scores": (
        {"one": PLACES, "two": PLACES[::-1], "score": [str(index / 4 - 1) for index in range(8)]},
        {"input_format": "similarity", "columns": {"text_a": "one", "text_b": "two"}, "labels": "scores"},
    ),
    "multiple": (
        {"text": PLACES, "topics": [["house"], ["garden", "house"], [], ["house"]] * 2},
        {"labels": "multiple"},
    ),
    "tags": (
        {"tokens": [text.split() for text in PLACES], "tags": [["D", "A", "N", "P", "D", "N"]] * 8},
        {"input_format": "token_classification", "columns": {"words": "tokens"}},
    ),
    "choices": (
        {"story": PLACES, "a": ["she wept"] * 8, "b": ["he smiled"] * 8, "c": ["never"] * 8, "answer": ["0", "1"] * 4},
        {"input_format": "multiple_choice", "columns": {"document": "story", "choices": ["a", "b", "c"]}},
    ),
}


@pytest.mark.parametrize("peft", [None, "lora"])
@pytest.mark.parametrize("kind", OWN)
def test_a_model_of_own_data_answers_files_with_the_columns_of_its_training(kind, peft, base_model, tmp_path):
    columns, keys = OWN[kind]
    train, label = write(tmp_path / "train.jsonl", columns), list(columns)[-1]
    task = {"train_file": train, "validation_file": train, "label_column": label, "input_format": "classification"}
    (tmp_path / "own.yaml").write_text(json.dumps({**task, **keys}))
    run, own = str(tmp_path / "run"), str(tmp_path / "own.yaml")
    settings = {"model": base_model, "max_steps": 2, "learning_rate": 0.1, "disable_tqdm": True, "use_cpu": True}
    finetune(FinetuneArguments(task=own, output_dir=run, peft=peft, **settings))
    evaluate(EvaluateArguments(model=run, task=own, output_dir=str(tmp_path / "scored")))
    expected = read(tmp_path / "scored" / "predictions.jsonl")

    new = write(tmp_path / "new.jsonl", {name: values for name, values in columns.items() if name != label})
    output = tmp_path / "answers.csv"
    assert predict_file(PredictArguments(run, new, str(output))) == 8
    found = list(answers(PredictArguments(run, new)))
    with output.open(encoding="utf-8", newline="") as lines:
        assert [row["id"] for row in csv.DictReader(lines)] == [str(row["id"]) for row in found]
    names = json.loads(Path(run, "config.json").read_text())["trained_on"]["labels"]
    for row, answer in zip(expected, found, strict=True):
        predicted = row["prediction"]
        if kind == "scores":
            assert answer == {"id": row["id"], "prediction": predicted, "truncated": False}
            continue
        if kind == "tags":
            assert answer["label"] == [names[tag] for tag in predicted]
            assert [list(word.values()) for word in answer["scores"]] == row["scores"]
            continue
        assert numbers(answer) == row["scores"] and list(answer["scores"]) == names
        if kind == "multiple":
            assert answer["label"] == [name for name, applies in zip(names, predicted, strict=True) if applies]
        else:
            assert answer["label"] == names[predicted]
        if kind == "choices":
            assert answer["answer"] == columns["abc"[predicted]][0]
    if kind == "choices" and not peft:  # the pipeline loads whole models
        choices = list(zip(columns["a"], columns["b"], columns["c"], strict=True))
        rows = [{"document": story, "choices": own} for story, own in zip(PLACES, choices, strict=True)]
        chosen = pipeline("multiple-choice", model=run, device="cpu")(rows)
        assert [one["answer"] for one in chosen] == [answer["answer"] for answer in found]
        for one, answer in zip(chosen, found, strict=True):
            assert one["score"] == pytest.approx(max(answer["scores"].values()), abs=1e-5)


def test_answers_equal_those_of_the_pipelines(model_of, tmp_path):
    classify = pipeline("text-classification", model=model_of("cola"), device="cpu", top_k=None)
    file = write(tmp_path / "new.jsonl", {"text": TEXTS})
    for answer, scores in zip(answers(PredictArguments(model_of("cola"), file)), classify(TEXTS), strict=True):
        by_name = {score["label"]: score["score"] for score in scores}
        assert answer["label"] == scores[0]["label"]
        assert answer["scores"] == pytest.approx(by_name, abs=1e-5)  # rounding in batches of one
    choose = pipeline("multiple-choice", model=model_of("story_cloze"), device="cpu")
    rows = {"document": TEXTS, "choices": [["she wept", "he smiled"]] * len(TEXTS)}
    file = write(tmp_path / "stories.jsonl", rows)
    found = list(answers(PredictArguments(model_of("story_cloze"), file)))
    for answer, document in zip(found, TEXTS, strict=True):
        chosen = choose({"document": document, "choices": ["she wept", "he smiled"]})
        assert (answer["answer"], answer["label"]) == (chosen["answer"], str(chosen["index"] + 1))
        assert max(answer["scores"].values()) == pytest.approx(chosen["score"], abs=1e-5)


def test_columns_are_those_of_training_of_the_format_or_given(model_of, tmp_path):
    model = model_of("cola", record={"task": "reviews", "columns": {"text": ["title", "body"]}})
    joined = [f"{one} {other}" for one, other in zip(TEXTS, reversed(TEXTS), strict=True)]
    expected = list(answers(PredictArguments(model, write(tmp_path / "a.csv", {"text": joined}))))
    columns = {"body": TEXTS[::-1], "text": ["x"] * 5, "stars": ["5"] * 5, "title": TEXTS}
    file = write(tmp_path / "b.csv", columns)
    assert list(answers(PredictArguments(model, file))) == expected
    given = write(tmp_path / "c.csv", {"second": TEXTS[::-1], "first": TEXTS})
    assert list(answers(PredictArguments(model, given, text_column=["first", "second"]))) == expected
    # A built-in task's columns, those of its other layouts, and choices in columns of their own.
    stories = {"document": TEXTS, "one": ["she wept"] * 5, "two": ["he smiled"] * 5}
    file = write(tmp_path / "d.csv", stories)
    args = PredictArguments(model_of("story_cloze"), file, text_column="document", choices_column=["one", "two"])
    expected = list(answers(args))
    sentences = {f"input_sentence_{index}": TEXTS for index in range(1, 5)}
    file = write(tmp_path / "e.csv", {**sentences, "sentence_quiz1": stories["one"], "sentence_quiz2": stories["two"]})
    assert [answer["answer"] for answer in answers(PredictArguments(args.model, file))]
    file = write(tmp_path / "f.jsonl", {"document": TEXTS, "choices": [["she wept", "he smiled"]] * 5})
    assert list(answers(PredictArguments(args.model, file))) == expected


def test_csv_has_a_column_for_each_score(model_of, tmp_path):
    output = tmp_path / "new" / "answers.csv"
    columns = {"id": ["a", "b", "c"], "text": ["", "bad", "good"]}
    model, file = model_of("cola"), write(tmp_path / "new.csv", columns)
    assert predict_file(PredictArguments(model, file, str(output), allow_empty=True)) == 3
    with output.open(encoding="utf-8", newline="") as lines:
        empty, bad, good = csv.DictReader(lines)
    assert list(bad) == ["id", "label", "scores.unacceptable", "scores.acceptable", "truncated"]
    assert empty == dict.fromkeys(bad, "") | {"id": "a"}
    expected = list(answers(PredictArguments(model, file, allow_empty=True)))
    assert expected[0] == {"id": "a", "label": None, "scores": None, "truncated": None}
    assert [float(good[f"scores.{name}"]) for name in expected[2]["scores"]] == numbers(expected[2])


@pytest.mark.parametrize(
    ("task_id", "columns"),
    [
        ("cola", {"text": TEXTS}),
        ("snli", {"premise": TEXTS, "hypothesis": TEXTS[::-1]}),
        ("race", {"document": TEXTS, "question": ["", *TEXTS[:4]], "choices": [["a", "b c", "d", "e"]] * 5}),
        ("story_cloze", {"document": TEXTS, "choices": [["a", "b c"]] * 5}),  # a task without questions
    ],
)
def test_a_line_is_a_text_a_pair_or_a_question(task_id, columns, model_of, tmp_path, monkeypatch, capsys):
    args = PredictArguments(model_of(task_id), write(tmp_path / "new.jsonl", columns))
    expected = list(answers(args))
    rows = zip(*columns.values(), strict=True)
    lines = ["\t".join("\t".join(cell) if isinstance(cell, list) else cell for cell in row) for row in rows]
    text = "\ufeff" + "".join(f"{line}\r\n" for line in lines)
    (tmp_path / "new.txt").write_text(text, encoding="utf-8", newline="")
    args.input = str(tmp_path / "new.txt")
    assert list(answers(args)) == expected
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert main(["predict", "--model", args.model, "--input", "-"]) == 0
    printed = capsys.readouterr()
    assert [json.loads(line) for line in printed.out.splitlines()] == expected


def test_a_stream_is_answered_as_it_comes(model_of, tmp_path):
    argv = [sys.executable, "-m", "gpt1_hf", "predict", "--model", model_of("cola"), "--input", "-"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for index, text in enumerate(TEXTS):
            process.stdin.write(text + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] == index
        process.stdin.close()
        assert process.stdout.read() == ""
        assert process.wait() == 0


def test_a_reader_that_stops_early_is_no_error(model_of, tmp_path):
    (tmp_path / "new.txt").write_text("bad\n" * 5000)
    command = (
        f"{sys.executable} -m gpt1_hf predict --model {model_of('cola')} --input {tmp_path / 'new.txt'} | head -1"
    )
    run = subprocess.run(["bash", "-c", f"{command}; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True)
    line, status = run.stdout.splitlines()
    assert json.loads(line)["id"] == 0 and status == "0" and "rror" not in run.stderr


def test_answers_come_before_all_rows_are_read(model_of, tmp_path, monkeypatch):
    """Memory does not grow with the input: of 40,000 rows only one part is held."""
    monkeypatch.setattr(task_scores, "ROWS_AT_ONCE", 16)
    with (tmp_path / "new.txt").open("w") as file:
        file.writelines(f"the house {'x ' * 200}\n" for _ in range(40_000))  # 16 MB
    tracemalloc.start()
    found = list(islice(answers(PredictArguments(model_of("cola"), str(tmp_path / "new.txt"))), 40))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [row["id"] for row in found] == list(range(40)) and peak < 8e6


NEW = {"id": [1, 2, 3], "tex": ["good", "bad", "x"], "stars": [5, 1, 2]}
ERRORS = {
    "new.csv: column 'sentence' or 'text' is missing; the file has id, tex, stars: name the columns of the texts with "
    "--text_column; did you mean tex?": ("new.csv", NEW, {}),
    "new.csv: column 'review' is missing": ("new.csv", NEW, {"text_column": ["review"]}),
    "new.jsonl: line 2, column 'text' is empty: fill it, remove the row, or give --allow_empty": (
        "new.jsonl",
        {"text": ["good", None, "x"]},
        {},
    ),
    "new.csv: line 4, column 'text' is empty": ("new.csv", {"text": ["good", "bad", "  "], "n": [1, 2, 3]}, {}),
    "new.csv: a line holds nothing but spaces": ("new.csv", {"text": ["good", "bad", "  ", "x"]}, {}),
    "new.jsonl: line 1, column 'stars': 5 is not text": ("new.jsonl", NEW, {"text_column": "stars"}),
    "has an unknown format: give --input a file that ends in .csv, .tsv, .json": ("new.xlsx", NEW, {}),
    "there is no file": ("nowhere.csv", None, {}),
    "there is no file nowhere.txt": ("nowhere.txt", None, {}),
    "new.txt has lines and no columns: drop --text_column": ("new.txt", NEW, {"text_column": ["a"]}),
    "--choices_column is for multiple choice": ("new.csv", NEW, {"choices_column": ["a"]}),
    "a name that ends in .jsonl or .csv": ("new.csv", NEW, {"output": "answers.xlsx"}),
    "is a folder": ("new.csv", NEW, {"output": "folder.csv"}),
    "is both --input and --output": ("new.csv", NEW, {"output": "new.csv"}),
    "cannot write new.csv/in (Not a directory): choose another --output": (
        "new.csv",
        NEW,
        {"output": "new.csv/in/a.csv"},
    ),
    "batch_size must be at least 1": ("new.csv", NEW, {"batch_size": 0}),
}


@pytest.mark.parametrize("message", ERRORS)
def test_a_mistake_is_one_sentence_and_nothing_is_written(message, model_of, tmp_path, monkeypatch):
    name, columns, settings = ERRORS[message]
    monkeypatch.chdir(tmp_path)
    Path("folder.csv").mkdir()
    if columns is not None:
        write(Path(name), columns)
    before = Path(name).read_bytes() if columns is not None else None
    with pytest.raises(GPT1Error) as error:
        predict_file(PredictArguments(**{"model": model_of("cola"), "input": name, "output": "a.jsonl"} | settings))
    assert message in str(error.value)
    assert before is None or Path(name).read_bytes() == before
    assert not Path("a.jsonl").exists() and not list(Path().rglob("*.unfinished"))


@pytest.mark.parametrize(
    ("task_id", "line", "message"),
    [
        ("snli", b"one\ttwo\tthree", "line 3 has 3 of the texts premise, hypothesis: separate them by tabs"),
        ("snli", b"one", "line 3 has 1 of the texts premise, hypothesis"),
        ("snli", b"one\t", "line 3 is empty"),
        ("race", b"one\t\ta\tb", "line 3 has 2 choices: every row needs the same number"),
        ("cola", b"caf\xe9", "line 3 is not UTF-8"),
        ("cola", b" ", "line 3 is empty: fill it, remove the row, or give --allow_empty"),
    ],
)
def test_a_mistake_in_a_stream_names_its_line(task_id, line, message, model_of, monkeypatch, capsys):
    good = {"snli": b"one\ttwo", "race": b"one\ttwo\ta\tb\tc", "cola": b"one"}[task_id]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(good + b"\n" + good + b"\n" + line + b"\n")))
    assert main(["predict", "--model", model_of(task_id), "--input", "-"]) == 1
    printed = capsys.readouterr()
    assert f"gpt1: error: standard input: {message}" in printed.err and not printed.out


def test_a_model_that_was_not_fine_tuned_is_refused(base_model, model_of, tmp_path):
    file = write(tmp_path / "new.csv", {"text": TEXTS})
    for model, message in (
        (base_model, "is not fine-tuned for a task: train it with `gpt1 finetune` first"),
        ("gpt1-tiny", "is not fine-tuned for a task"),
        (model_of("cola", record={}), "has no record of its task"),
    ):
        with pytest.raises(GPT1Error, match=message):
            predict_file(PredictArguments(model, file))
    with pytest.raises(UsageError, match="needs a model and an input"):
        predict_file(PredictArguments(input=file))


def test_an_input_without_rows_of_text_has_null_answers(model_of, tmp_path):
    file = write(tmp_path / "new.jsonl", {"sentence1": ["", "a"], "sentence2": ["b", " "]})
    found = list(answers(PredictArguments(model_of("stsb"), file, allow_empty=True)))
    assert found == [{"id": index, "prediction": None, "truncated": None} for index in range(2)]


def test_predictions_that_are_not_finite_are_null(model_of, tmp_path):
    model = model_of("cola")
    weights = load_file(f"{model}/model.safetensors")
    weights["classifier.bias"][:] = float("nan")
    save_file(weights, f"{model}/model.safetensors", metadata={"format": "pt"})
    (answer,) = answers(PredictArguments(model, write(tmp_path / "new.csv", {"text": ["bad"]})))
    assert answer == {"id": 0, "label": None, "scores": None, "truncated": False}
