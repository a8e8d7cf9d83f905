"""Zero-shot tasks in lm-evaluation-harness: its numbers for gpt1-tiny equal ours, row by row."""

import json
import os
import subprocess
import sys
from importlib import import_module

import pytest
import yaml
from transformers import AutoTokenizer

from gpt1_hf import GPT1ForCausalLM
from gpt1_hf.analysis.lm_eval_tasks import (
    correlate_cola,
    load_cola,
    load_dpr,
    load_race,
    load_rows,
    load_sst2,
    score_race,
)
from gpt1_hf.analysis.zero_shot import HEURISTICS, ZeroShotArguments, mean_log_prob, open_scorer
from gpt1_hf.cli import main
from gpt1_hf.errors import GPT1Error
from gpt1_hf.resources import model_path, recipes_dir


FOLDER = recipes_dir() / "lm_eval"


class Loader(yaml.SafeLoader):
    """YAML loader for lm_eval's function tags."""


Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node).rpartition("."))


def test_a_yaml_for_every_heuristic_names_functions_that_exist():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(HEURISTICS)
    for task_id in HEURISTICS:
        text = (FOLDER / f"{task_id}.yaml").read_text(encoding="utf-8")
        task = yaml.load(text, Loader)
        assert task["task"] == f"gpt1_{task_id}" and task["tag"] == "gpt1_zero_shot"
        assert f"--include_path recipes/lm_eval --tasks gpt1_{task_id}\n" in text
        functions = [task["custom_dataset"], task.get("process_results"), task["metric_list"][0]["aggregation"]]
        for module, _, name in (value for value in functions if isinstance(value, tuple)):
            assert callable(getattr(import_module(module), name))


def test_rows_are_cut_where_their_tokens_are_counted(base_model, tokenizer):
    def n_tokens(text):
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    options = {"pretrained": base_model, "sample": True, "config_source": "added by lm_eval"}
    cola = load_cola(**options)["rows"]
    assert sum(cola["is_train"][:]) == len(load_rows("cola", "train", sample=True))
    texts = load_rows("cola", sample=True)["text"][:] + load_rows("cola", "train", sample=True)["text"][:]
    for row, text in zip(cola, texts, strict=True):
        assert row["first"] + row["rest"] == text
        assert row["first"] == text.split()[0].rstrip(",.") or "'" in row["first"] + row["rest"].split()[0]
        assert row["n_tokens"] == n_tokens(text) - n_tokens(row["first"]) > 0

    for row in load_race(**options)["rows"]:
        assert row["context"] == f"{row['document']} {row['question']}"
        assert row["n_tokens"] == [n_tokens(choice) for choice in row["choices"]]

    for row in load_dpr(**options)["rows"]:
        for beginning, candidate in zip(row["beginnings"], row["choices"], strict=True):
            assert beginning.endswith(candidate) and row["text"].endswith(row["rest"])

    assert len(load_sst2(**options, max_examples=3)["rows"]) == 3


def test_answers_are_compared_by_token():
    row = {"n_tokens": [4, 1, 2, 2], "label": 0}
    assert score_race(row, [(-4.0, False), (-3.0, True), (-9.0, False), (-2.2, False)]) == {"acc_per_token": 1.0}
    assert score_race({**row, "label": 3}, [(-4.0, False), (-3.0, True), (-9.0, False), (-2.2, False)]) == {
        "acc_per_token": 0.0
    }


def test_cola_without_training_rows_is_one_sentence():
    assert correlate_cola([(-1.0, 1, True), (-2.0, 0, True), (-1.2, 1, False), (-1.8, 0, False)]) == 1.0
    assert correlate_cola([(-1.0, 1, True), (-1.1, 0, True), (-1.2, 1, False), (-1.8, 0, False)]) == 0.0
    with pytest.raises(GPT1Error, match="max_examples=N instead of --limit"):
        correlate_cola([(-1.0, 1, False), (-2.0, 0, False)])


@pytest.fixture(scope="module")
def lm_eval_results(tmp_path_factory):
    """lm_eval's results for gpt1-tiny on the samples, and task -> its log of each row."""
    pytest.importorskip("lm_eval", reason="needs the extra `lm-eval`")
    folder, out = tmp_path_factory.mktemp("gpt1-tiny"), tmp_path_factory.mktemp("out")
    for saved in (GPT1ForCausalLM, AutoTokenizer):
        saved.from_pretrained(model_path("gpt1-tiny")).save_pretrained(folder)
    # In a process that does not know gpt1_hf when it opens the model.
    model_args = f"pretrained={folder},trust_remote_code=True,dtype=float32,prefix_token_id=0"
    command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", model_args, "--device", "cpu"]
    command += ["--include_path", str(FOLDER), "--tasks", "gpt1_zero_shot", "--metadata", "sample=True"]
    command += ["--batch_size", "8", "--log_samples", "--output_path", str(out)]
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path_factory.mktemp("modules"))}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    (file,) = out.glob("*/results_*.json")
    results, samples = json.loads(file.read_text())["results"], {}
    for task_id in HEURISTICS:
        (file,) = out.glob(f"*/samples_gpt1_{task_id}_*.jsonl")
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        samples[task_id] = sorted(rows, key=lambda row: row["doc_id"])
    return results, samples


def log_probs(row: dict) -> list[float]:
    return [float(log_prob) for log_prob, _ in row["filtered_resps"]]


def ours(task_id: str, tmp_path) -> tuple[float, list[dict]]:
    assert main(["zero-shot", "--task", task_id, "--sample", "--output_dir", str(tmp_path)]) == 0
    lines = (tmp_path / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return json.loads((tmp_path / "results.json").read_text())[0]["value"], [json.loads(line) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize(("task_id", "metric"), [("sst2", "acc"), ("dpr", "acc"), ("race", "acc_per_token")])
def test_lm_eval_agrees_with_zero_shot_in_every_row(lm_eval_results, tmp_path, task_id, metric):
    results, samples = lm_eval_results
    value, predictions = ours(task_id, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(model_path("gpt1-tiny"))
    for row, prediction in zip(samples[task_id], predictions, strict=True):
        scores, document = log_probs(row), row["doc"]
        if task_id == "race":
            scores = [score / n for score, n in zip(scores, document["n_tokens"], strict=True)]
        elif task_id == "dpr":
            scores = [
                score / len(tokenizer(document["rest"], add_special_tokens=False)["input_ids"]) for score in scores
            ]
        assert scores == pytest.approx(prediction["scores"], abs=1e-3)
        assert row[metric] == (prediction["prediction"] == prediction["label"])
    assert 100 * results[f"gpt1_{task_id}"][f"{metric},none"] == pytest.approx(value, abs=0.01)


@pytest.mark.slow
def test_cola_in_lm_eval_agrees_from_the_second_word_on(lm_eval_results, tmp_path):
    results, samples = lm_eval_results
    rows = [row["doc"] for row in samples["cola"]]
    scorer = open_scorer(ZeroShotArguments(task="cola"))
    expected, _ = scorer.score_ends([row["first"] for row in rows], [row["first"] + row["rest"] for row in rows])
    for row, by_us in zip(samples["cola"], expected, strict=True):
        assert row["doc"]["n_tokens"] == len(by_us)
        assert row["mcc"][0] == pytest.approx(mean_log_prob(by_us), abs=1e-3)
    mixed = [(mean_log_prob(by_us), row["label"], row["is_train"]) for by_us, row in zip(expected, rows, strict=True)]
    assert results["gpt1_cola"]["mcc,none"] == pytest.approx(correlate_cola(mixed))

    # Where the first word is one token, that is what `gpt1 zero-shot` scores.
    _, predictions = ours("cola", tmp_path)
    scored = [row for row in samples["cola"] if not row["doc"]["is_train"]]
    same = 0
    for row, prediction in zip(scored, predictions, strict=True):
        if len(scorer.encode([row["doc"]["first"]])[0]) == 1:
            assert row["mcc"][0] == pytest.approx(prediction["scores"][0], abs=1e-3)
            same += 1
    assert same > len(scored) / 2
