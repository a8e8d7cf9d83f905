"""GLUE submissions: predictions score the same after export, and files that the server would reject are refused."""

import json
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gpt1_hf.errors import GPT1Error
from gpt1_hf.evaluation.glue_submission import (
    FILES,
    SubmitArguments,
    format_predictions,
    read_submission,
    submit,
    write_submission,
)
from gpt1_hf.evaluation.metrics import score
from gpt1_hf.tasks import load_task
from gpt1_hf.training.arguments import FinetuneArguments
from gpt1_hf.training.finetune import finetune


# The file names on the server's list.
NAMES = {"CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI-m", "MNLI-mm", "QNLI", "RTE", "WNLI", "AX"}
WORDS = {
    "CoLA": {"0", "1"},
    "SST-2": {"0", "1"},
    "MRPC": {"0", "1"},
    "QQP": {"0", "1"},
    "WNLI": {"0", "1"},
    "QNLI": {"entailment", "not_entailment"},
    "RTE": {"entailment", "not_entailment"},
    "MNLI-m": {"entailment", "neutral", "contradiction"},
    "MNLI-mm": {"entailment", "neutral", "contradiction"},
    "AX": {"entailment", "neutral", "contradiction"},
}
BY_NAME = {file.name: file for file in FILES}


def random_predictions(file, rng: random.Random) -> list[dict]:
    """Random predictions of a whole test set, in random order."""
    task = load_task(file.task)
    choices = range(len(task.label_names))
    rows = [
        {"id": index, "label": -1, "prediction": rng.uniform(-1, 6) if task.score_range else rng.choice(choices)}
        for index in range(file.n_rows)
    ]
    rows = [{**row, "subset": file.subset} if file.subset else row for row in rows]
    rng.shuffle(rows)
    return rows


def write_predictions(folder: Path, rng: random.Random, without: str | None = None):
    for file in FILES:
        if file.task in (None, without):
            continue
        path = folder / file.task / ("predictions_ax.jsonl" if file.name == "AX" else "predictions.jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in random_predictions(file, rng))


@pytest.fixture
def small_qqp(monkeypatch):
    """Shrink QQP's test set of 390,965 rows."""
    monkeypatch.setitem(BY_NAME["QQP"].__dict__, "n_rows", 500)


def test_file_names_and_labels_match_the_server(small_qqp, tmp_path, capsys):
    write_predictions(tmp_path / "predictions", random.Random(0))
    path = submit(SubmitArguments(predictions=str(tmp_path / "predictions"), output_dir=str(tmp_path / "out")))
    with zipfile.ZipFile(path) as archive:
        assert set(archive.namelist()) == {f"{name}.tsv" for name in NAMES}
        lines = archive.read("RTE.tsv").decode().splitlines()
    assert lines[0] == "index\tprediction"
    assert len(lines) == 3001
    assert lines[1].split("\t")[0] == "0"
    contents = read_submission(path)
    for name, rows in contents.items():
        assert list(rows) == list(range(BY_NAME[name].n_rows))
        if name == "STS-B":
            scores = [float(value) for value in rows.values()]
            assert min(scores) == 0.0
            assert max(scores) == 5.0
        elif name != "WNLI":
            assert set(rows.values()) == WORDS[name]
    assert set(contents["WNLI"].values()) == {"0"}
    assert contents["MNLI-m"] != contents["MNLI-mm"]
    assert "0 for all (no model: the paper leaves it out)" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["CoLA", "STS-B", "MRPC", "MNLI-mm", "QNLI"])
def test_predictions_read_back_score_the_same(name, tmp_path):
    """A labelled split with mostly correct predictions, in another order than the rows."""
    file, rng = BY_NAME[name], random.Random(1)
    task = load_task(file.task)
    rows = task.load(f"validation_{file.subset}" if file.subset else "validation", sample=True)
    predictions = []
    for index, label in zip(rows["idx"][:], rows["label"][:], strict=True):
        wrong = min(5.0, label + rng.random()) if task.score_range else rng.choice(range(len(task.label_names)))
        predictions.append({"id": index, "label": label, "prediction": label if rng.random() < 0.6 else wrong})
    rng.shuffle(predictions)
    write_submission(tmp_path / "submission.zip", {name: format_predictions(file, predictions)})
    found = read_submission(tmp_path / "submission.zip")[name]
    ids = {label: index for index, label in enumerate(task.label_names)} if file.has_names else None
    read = [ids[found[i]] if ids else (float if task.score_range else int)(found[i]) for i in rows["idx"][:]]
    for metric in (task.metric, *task.other_metrics):
        before = score(
            metric,
            np.array([row["prediction"] for row in predictions]),
            np.array([row["label"] for row in predictions]),
        )
        assert score(metric, np.array(read), np.array(rows["label"][:])) == pytest.approx(before, abs=1e-4)
        assert 20 < before < 100


def test_what_the_server_rejects_is_refused(small_qqp, tmp_path):
    folder = tmp_path / "predictions"
    args = SubmitArguments(predictions=str(folder), output_dir=str(tmp_path / "out"))
    with pytest.raises(GPT1Error, match="--models"):
        submit(SubmitArguments())
    with pytest.raises(GPT1Error, match="there is no folder"):
        submit(args)
    write_predictions(folder, random.Random(0), without="rte")
    with pytest.raises(GPT1Error, match=r"lacks RTE \(rte: .*predictions.jsonl is missing\).*--fill_missing"):
        submit(args)
    assert not (tmp_path / "out" / "submission.zip").exists()

    args.fill_missing = True
    assert set(read_submission(submit(args))["RTE"].values()) == {"entailment"}
    (folder / "rte").mkdir()
    (folder / "rte" / "predictions.jsonl").write_text('{"id": 0, "prediction": 1}\n')
    with pytest.raises(GPT1Error, match="RTE: the predictions are not for the test set, whose rows are 0 to 2999"):
        submit(args)
    for name, word in (("CoLA", "1"), ("RTE", "not_entailment")):  # NumPy and pandas may write a class id as a float
        assert format_predictions(BY_NAME[name], [{"id": 3, "prediction": 1.0}]) == {3: word}
    with pytest.raises(GPT1Error, match="CoLA: the prediction of row 3 is 2"):
        format_predictions(BY_NAME["CoLA"], [{"id": 3, "prediction": 2}])
    with pytest.raises(GPT1Error, match="two predictions of row 3"):
        format_predictions(BY_NAME["CoLA"], [{"id": 3, "prediction": 1}, {"id": 3, "prediction": 1}])
    with pytest.raises(
        GPT1Error, match="CoLA: the predictions are not for the test set.*`gpt1 evaluate --split test`"
    ):
        format_predictions(BY_NAME["CoLA"], [{"id": 3, "label": 0, "prediction": 1}], complete=True)
    (folder / "rte" / "predictions.jsonl").write_text('{"id": 0}\n')
    args.fill_missing = False
    with pytest.raises(GPT1Error, match="line 1 has no id and prediction"):
        submit(args)
    with pytest.raises(GPT1Error, match="not a score"):
        format_predictions(BY_NAME["STS-B"], [{"id": 3, "prediction": float("nan")}])


@pytest.mark.parametrize("name", sorted(NAMES - {"WNLI"}))
def test_test_rows_are_recognized_by_index_not_by_label(name):
    """The Hub's test set of MRPC has labels, and copies of others may have them."""
    file, task = BY_NAME[name], load_task(BY_NAME[name].task)
    whole = random_predictions(file, random.Random(3))
    labelled = [{**row, "label": row["id"] % 2} for row in whole]
    expected = format_predictions(file, whole, complete=True)
    others = {size for split, size in task.sizes.items() if not split.startswith("test")}
    if name == "QNLI":  # its validation set has as many rows as its test set
        assert file.n_rows in others
        with pytest.raises(GPT1Error, match="have labels, so they are from validation.*--split test"):
            format_predictions(file, labelled, complete=True)
    else:
        assert file.n_rows not in others
        assert format_predictions(file, labelled, complete=True) == expected
    for wrong in (whole[1:], labelled[:400], [{**row, "id": row["id"] + 1} for row in labelled]):
        with pytest.raises(GPT1Error, match="not for the test set"):
            format_predictions(file, wrong, complete=True)


def test_the_hubs_test_sets_match_the_leaderboard(data_dir):
    """Local test sets have the right size and hidden labels, and validation sets are not accepted in their place."""
    for file in FILES:
        if file.task is None or file.name == "AX":
            continue
        task, seen = load_task(file.task), {}
        for split in (f"test_{file.subset}", f"validation_{file.subset}") if file.subset else ("test", "validation"):
            try:
                seen[split] = task.load(split, data_dir)
            except GPT1Error:
                continue
        for split, rows in seen.items():
            predictions = [{"id": row["idx"], "label": row["label"], "prediction": 0} for row in rows]
            if split.startswith("test"):
                assert len(format_predictions(file, predictions, complete=True)) == file.n_rows
                assert set(rows["label"][:]) == {
                    -1
                }  # MRPC's test set, which has labels, is not among the local copies
            else:
                with pytest.raises(GPT1Error, match="--split test"):
                    format_predictions(file, predictions, complete=True)


def test_models_predict_the_test_sets(base_model, tmp_path, monkeypatch):
    """Models for RTE and MultiNLI predict four test rows each, and the one for MultiNLI the diagnostic set, too."""
    models, data = tmp_path / "models", tmp_path / "data"
    pair = {"rte": ("sentence1", "sentence2"), "mnli": ("premise", "hypothesis"), "ax": ("premise", "hypothesis")}
    for name, columns in pair.items():
        label = 1 if name == "rte" else -1  # test rows may have labels, like MRPC's on the Hub
        for split in ("test_matched", "test_mismatched") if name == "mnli" else ("test",):
            rows = [
                {columns[0]: "the old house", columns[1]: "a dark garden", "label": label, "idx": i} for i in range(4)
            ]
            path = data / "nyu-mll" / "glue" / name / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for task, seeds in (("rte", 2), ("mnli", 1)):
        finetune(
            FinetuneArguments(
                task=task,
                model=base_model,
                sample=True,
                seeds=seeds,
                output_dir=str(models / task),
                max_train_examples=4,
                num_train_epochs=1,
                disable_tqdm=True,
                use_cpu=True,
            )
        )
    for file in FILES:
        monkeypatch.setitem(file.__dict__, "n_rows", 4)
    args = SubmitArguments(models=str(models), data_dir=str(data), output_dir=str(tmp_path / "out"), fill_missing=True)
    contents = read_submission(submit(args))
    assert {name for name in NAMES if len(contents[name]) == 4} == NAMES
    assert (tmp_path / "out" / "mnli" / "predictions_ax.jsonl").is_file()
    # The written predictions can be submitted again without the models.
    again = SubmitArguments(
        predictions=str(tmp_path / "out"), output_dir=str(tmp_path / "again"), data_dir=str(data), fill_missing=True
    )
    assert read_submission(submit(again)) == contents
