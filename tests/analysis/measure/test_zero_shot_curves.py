"""Zero-shot performance through pre-training: which checkpoints are found, which scores are kept, and the figure."""

import json
import os
import shutil
import sys

import pytest
import torch

from gpt1_hf import GPT1ForCausalLM, GPT1LSTMConfig, GPT1LSTMForCausalLM
from gpt1_hf.analysis.measure import zero_shot as module
from gpt1_hf.analysis.measure.zero_shot import checkpoints, curves
from gpt1_hf.analysis.report.analyses.zero_shot import section
from gpt1_hf.analysis.report.runs import CollectedRun
from gpt1_hf.cli import main
from gpt1_hf.evaluation.results import Result


@pytest.fixture
def run(config, tokenizer, tmp_path):
    """A pre-training run's folder: checkpoints of two kinds, one without weights, and the final model."""
    folder = tmp_path / "run"
    torch.manual_seed(0)
    model = GPT1ForCausalLM(config)
    for name in ("checkpoint-10", "checkpoint-2", "weights/updates-1", "."):
        model.save_pretrained(folder / name)
    (folder / "checkpoint-30").mkdir()
    shutil.copyfile(folder / "config.json", folder / "checkpoint-30" / "config.json")
    tokenizer.save_pretrained(folder)
    (folder / "results.json").write_text(json.dumps([{"metric": "perplexity", "details": {"updates": 40}}]))
    return folder


@pytest.fixture
def lstm_run(tokenizer, tmp_path):
    folder = tmp_path / "lstm"
    sizes = {"hidden_size": 8, "lstm_size": 8, "max_position_embeddings": 64}
    GPT1LSTMForCausalLM(GPT1LSTMConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder / "checkpoint-10")
    tokenizer.save_pretrained(folder / "checkpoint-10")
    return folder


def score(*argv) -> int:
    return main(["analyze", "zero-shot", "--tasks", "cola", "sst2", "--sample", *map(str, argv)])


class TestCheckpoints:
    def test_checkpoints_are_numbered_folders_and_the_final_model(self, run):
        found = [(updates, folder.relative_to(run).as_posix()) for updates, folder in checkpoints(run)]
        assert found == [(1, "weights/updates-1"), (2, "checkpoint-2"), (10, "checkpoint-10"), (40, ".")]

    def test_log_spaced_checkpoints_are_preferred_to_those_for_resuming(self, run):
        for number in (1, 30):
            shutil.copytree(run / "checkpoint-2", run / "trajectory" / f"update-{number:07d}")
        assert [updates for updates, _ in checkpoints(run)] == [1, 30, 40]

    def test_the_final_model_counts_once(self, run):
        (run / "results.json").write_text(json.dumps([{"details": {"updates": 10}}] * 2))
        assert [updates for updates, _ in checkpoints(run)] == [1, 2, 10]


class TestCommand:
    def test_every_checkpoint_is_scored_on_every_task(self, run, lstm_run, tmp_path, capsys):
        out = tmp_path / "out"
        assert score("--run", run, "--lstm_run", lstm_run, "--output_dir", out) == 0
        results = [Result(**row) for row in json.loads((out / "results.json").read_text())]
        points = {(r.details["architecture"], r.details["updates"], r.task) for r in results}
        transformer = {("transformer", n, task) for n in (1, 2, 10, 40) for task in ("cola", "sst2")}
        assert points == transformer | {("lstm", 10, "cola"), ("lstm", 10, "sst2")}
        assert "figures/zero_shot.svg" in (out / "analysis.md").read_text()
        assert (out / "figures" / "zero_shot.svg").is_file()
        assert "linguistic acceptability" not in capsys.readouterr().err
        # The same weights have the same scores, whatever folder they are in.
        assert len({value for _, value in curves(results)["sst2", "transformer"]}) == 1

    def test_earlier_scores_are_reused(self, run, tmp_path, monkeypatch):
        out, opened = tmp_path / "out", []
        open_scorer = module.open_scorer
        monkeypatch.setattr(module, "open_scorer", lambda args: opened.append(args.model) or open_scorer(args))
        shutil.rmtree(run / "weights")
        for name in ("config.json", "results.json"):
            (run / name).unlink()
        assert score("--run", run, "--output_dir", out) == 0
        first = (out / "results.json").read_text()
        assert len(opened) == 2
        assert score("--run", run, "--output_dir", out) == 0
        assert len(opened) == 2 and (out / "results.json").read_text() == first
        # Other settings or other weights are scored again.
        assert score("--run", run, "--output_dir", out, "--max_examples", "8") == 0
        assert len(opened) == 4
        weights = run / "checkpoint-2" / "model.safetensors"
        os.utime(weights, (weights.stat().st_atime + 1000, weights.stat().st_mtime + 1000))
        assert score("--run", run, "--output_dir", out, "--max_examples", "8") == 0
        assert len(opened) == 5

    def test_bad_input_is_one_sentence(self, run, tmp_path, capsys):
        (tmp_path / "empty").mkdir()
        cases = {
            "needs --run": [],
            "empty' has no checkpoints": ["--run", tmp_path / "empty"],
            "there is no folder 'nowhere'": ["--run", "nowhere"],
            "are both of architecture transformer": ["--run", run, "--lstm_run", run],
            "no zero-shot heuristic for task mnli": ["--run", run, "--tasks", "mnli"],
        }
        for message, argv in cases.items():
            assert score(*argv, "--output_dir", tmp_path / "out") in (1, 2)
            assert message in capsys.readouterr().err

    def test_without_matplotlib_a_warning_replaces_the_figure(self, run, tmp_path, monkeypatch, caplog):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        assert score("--run", run, "--output_dir", tmp_path / "out") == 0
        assert "pip install 'gpt1_hf[plots]'" in caplog.text
        assert (tmp_path / "out" / "results.json").is_file() and not (tmp_path / "out" / "figures").exists()


def fake(task: str, architecture: str, updates: int, value: float) -> list[Result]:
    details = {"architecture": architecture, "updates": updates}
    model = f"runs/{architecture}/trajectory/update-{updates:07d}"
    common = {"n_examples": 10, "paper": None, "model": model, "seed": None, "details": details}
    return [
        Result(task=task, split=split, metric=metric, value=value, **common)
        for split in ("validation", "validation_middle")
        for metric in ("accuracy", "relative_performance")
    ]


def test_curves_follow_training_and_use_the_whole_split():
    results = fake("race", "lstm", 10, 0.2) + fake("race", "lstm", 2, 0.1)
    results[1].value = 0.25  # the whole, not the subset
    assert curves(results, relative=True) == {("race", "lstm"): [(2, 0.1), (10, 0.25)]}


def test_the_figure_has_a_line_for_each_task_and_architecture():
    results = [
        result
        for task in ("race", "cola")
        for architecture in ("transformer", "lstm")
        for updates in (0, 10, 1000)
        for result in fake(task, architecture, updates, updates / 1250)
    ]
    (figure,) = section([CollectedRun("curves", results)]).figures
    assert [(line.label, line.dashed) for line in figure.series] == [
        ("cola, runs/lstm", True),
        ("cola, runs/transformer", False),
        ("race, runs/lstm", True),
        ("race, runs/transformer", False),
    ]
    assert figure.series[0].color == figure.series[1].color != figure.series[2].color
    assert figure.log_x and figure.series[0].points == [(10, 0.008), (1000, 0.8)]  # 0 has no logarithm
