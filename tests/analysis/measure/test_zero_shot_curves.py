"""Zero-shot performance through pre-training: which checkpoints are found, which scores are kept, and the figure."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
import torch
from helpers.runs import before, run_in_child
from sklearn.metrics import matthews_corrcoef

from gpt1_hf import GPT1ForCausalLM, GPT1LSTMConfig, GPT1LSTMForCausalLM, GPT1Trainer
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


class TestTrajectory:
    """A run in two sittings, the second of which goes on exactly, gives one curve."""

    @pytest.fixture
    def sittings(self, texts, base_model, tmp_path, monkeypatch):
        monkeypatch.setattr("gpt1_hf.training.pretrain.matmul_peak", lambda *_: 1e12)
        (tmp_path / "corpus.txt").write_text("\n\n".join(texts), encoding="utf-8")
        argv = f"pretrain --corpus {tmp_path / 'corpus.txt'} --tokenizer {base_model} --hidden_size 16 "
        argv += "--num_hidden_layers 1 --num_attention_heads 2 --max_position_embeddings 32 --max_steps 12 "
        argv += "--per_device_train_batch_size 4 --learning_rate 0.01 --warmup_steps 1 --checkpoints_per_decade 2 "
        argv += "--save_steps 5 --disable_tqdm true --use_cpu true --output_dir"
        assert main([*argv.split(), str(tmp_path / "whole")]) == 0
        assert run_in_child([*argv.split(), str(tmp_path / "first")], before(GPT1Trainer, "training_step", 7, 9)) == -9
        shutil.move(tmp_path / "first", tmp_path / "second")  # elsewhere between the sittings
        assert [updates for updates, _ in checkpoints(tmp_path / "second")] == [0, 1, 3]
        assert main([*argv.split(), str(tmp_path / "second")]) == 0
        return tmp_path / "whole", tmp_path / "second"

    def test_two_sittings_give_one_trajectory(self, sittings, tmp_path):
        curves = []
        for run in sittings:
            assert [updates for updates, _ in checkpoints(run)] == [0, 1, 3, 10, 12]
            assert score("--run", run, "--output_dir", tmp_path / "out" / run.name) == 0
            rows = json.loads((tmp_path / "out" / run.name / "results.json").read_text())
            kept = ("interval", "chance", "change", "updates")
            curves.append([(r["task"], r["value"], *map(r["details"].get, kept)) for r in rows])
        assert curves[0] == curves[1] and len(curves[0]) == 5 * 2 * 2


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

    def test_scores_of_an_earlier_version_get_their_intervals(self, run, tmp_path, monkeypatch):
        assert score("--run", run, "--output_dir", tmp_path / "out") == 0
        first = (tmp_path / "out" / "results.json").read_text()
        for file in (tmp_path / "out" / "checkpoints").rglob("results.json"):
            rows = json.loads(file.read_text())
            for row in rows:
                for name in ("interval", "resamples", "chance"):
                    del row["details"][name]
            file.write_text(json.dumps(rows))
        monkeypatch.setattr(module, "open_scorer", None)  # nothing is scored again
        assert score("--run", run, "--output_dir", tmp_path / "out") == 0
        assert (tmp_path / "out" / "results.json").read_text() == first

    def test_every_point_has_its_interval_and_its_change(self, run, config, tmp_path):
        torch.manual_seed(1)
        GPT1ForCausalLM(config).save_pretrained(run / "checkpoint-10")  # other weights than the rest
        out = tmp_path / "out"
        argv = ["analyze", "zero-shot", "--run", run, "--sample", "--output_dir", out]
        assert main([*map(str, argv), "--tasks", "cola", "dpr", "race", "race:middle"]) == 0
        rows = [Result(**row) for row in json.loads((out / "results.json").read_text())]
        assert {row.split for row in rows if row.task == "race"} == {
            "validation",
            "validation_middle",
            "validation_high",
        }
        for row in rows:
            low, high = row.details["interval"]
            assert low <= row.value <= high and low < high, row
            assert ("change" in row.details) == (row.details["updates"] > 1)
            if row.metric == "accuracy":
                assert row.details["chance"] == {"race": 25, "dpr": 50}[row.task]
            if row.details["updates"] == 40:  # the same weights as the first
                assert row.details["change"] == {"since": 1, "value": 0, "interval": [0, 0]}
        folders = sorted(folder.name for folder in (out / "checkpoints" / "transformer-1").iterdir())
        assert folders == ["cola", "dpr", "race", "race-middle"]
        # The changed checkpoint against a bootstrap over its recorded predictions, row by row.
        first, last = (
            [json.loads(line) for line in (folder / "cola" / "predictions.jsonl").read_text().splitlines()]
            for folder in (out / "checkpoints" / f"transformer-{n}" for n in (1, 10))
        )
        (found,) = (
            row.details["change"]
            for row in rows
            if (row.task, row.metric, row.details["updates"]) == ("cola", "matthews_correlation", 10)
        )
        labels, before, after = (
            np.array([row[name] for row in source])
            for source, name in ((first, "label"), (first, "prediction"), (last, "prediction"))
        )
        assert found["value"] == pytest.approx(
            100 * (matthews_corrcoef(labels, after) - matthews_corrcoef(labels, before)), abs=0.01
        )
        random, differences = np.random.default_rng(7), []
        for _ in range(1000):
            drawn = random.integers(0, len(labels), len(labels))
            scores = [matthews_corrcoef(labels[drawn], model[drawn]) for model in (before, after)]
            differences.append(100 * (scores[1] - scores[0]))
        assert found["interval"] == pytest.approx(np.percentile(differences, [2.5, 97.5]), abs=8)

    def test_a_subset_is_a_curve_of_its_own(self, run, tmp_path):
        out = tmp_path / "out"
        argv = ["analyze", "zero-shot", "--run", run, "--sample", "--output_dir", out]
        assert main([*map(str, argv), "--tasks", "race", "race:middle"]) == 0
        results = [Result(**row) for row in json.loads((out / "results.json").read_text())]
        assert set(curves(results)) == {("race", "transformer"), ("race:middle", "transformer")}
        part = section([CollectedRun("curves", results)])
        assert [row[0] for row in part.tables[0].rows] == ["race", "race:middle"]
        assert [figure.name for figure in part.figures] == ["zero_shot", "zero_shot_race", "zero_shot_race-middle"]
        for figure in part.figures:
            assert all(len(line.band) == len(line.points) and all(line.band) for line in figure.series)
        assert part.figures[1].level == ("chance", 25)

    def test_bad_input_is_one_sentence(self, run, tmp_path, capsys):
        (tmp_path / "empty").mkdir()
        cases = {
            "needs --run": [],
            "empty' has no checkpoints": ["--run", tmp_path / "empty"],
            "there is no folder 'nowhere'": ["--run", "nowhere"],
            "are both of architecture transformer": ["--run", run, "--lstm_run", run],
            "no zero-shot heuristic for task mnli": ["--run", run, "--tasks", "mnli"],
            "task race has no subset 'midle'; did you mean middle?": ["--run", run, "--tasks", "race:midle"],
            "task cola has no subset 'middle'; give cola": ["--run", run, "--tasks", "cola:middle"],
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


def test_two_models_of_one_kind_are_told_apart():
    models = ("one", "two", "lstm")
    results = [result for model in models for step in (1, 10) for result in fake("cola", model, step, 0.1)]
    (figure,) = section([CollectedRun("curves", results)]).figures
    looks = {line.label: (line.dashed, line.marked) for line in figure.series}
    assert looks["cola, runs/lstm"] == (True, None)
    assert {looks["cola, runs/one"], looks["cola, runs/two"]} == {(False, None), (False, False)}


@pytest.mark.parametrize(
    ("interval", "difference", "expected"),
    [
        ([50.1, 60], [0.1, 5], "rises"),
        ([50.0, 60], [0.1, 5], "open"),  # chance is not excluded
        ([50.1, 60], [0.0, 5], "open"),  # nor is no change
        ([50.1, 60], [-5, -1], "open"),
        ([40, 49], [0.1, 5], "open"),
        ([50.1, 60], None, "–"),
        (None, [0.1, 5], "–"),
    ],
)
def test_a_curve_rises_by_one_rule(interval, difference, expected):
    change = None if difference is None else {"since": 0, "value": 2.0, "interval": difference}
    known = {"method": "zero-shot", "interval": interval, "chance": 50.0, "change": change, "updates": 100}
    details = {name: value for name, value in known.items() if value is not None}
    result = Result("dpr", "train", "accuracy", 55.0, 1322, None, "run", None, details)
    table = section([CollectedRun("curves", [result])]).tables[0]
    (row,) = table.rows
    shown = dict(zip(table.headers, row, strict=True))
    # A column without an entry is left out.
    assert shown.get("verdict", "–") == expected
    assert shown.get("95 % interval", "–") == ("–" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}")
    if change:
        low, high = (f"{end:+.1f}".replace("-", "−") for end in difference)
        assert shown["last minus first"] == f"+2.0 ({low} to {high}), since update 0"


def test_few_curves_have_bands_in_the_papers_figure():
    def figure(n: int):
        results = [
            Result("cola", "validation", metric, 0.2, 9, None, f"runs/{run}", None, {"updates": 5, **known})
            for run in range(n)
            for metric, known in (("relative_performance", {"interval": [0.1, 0.3]}),)
        ]
        return section([CollectedRun("curves", results)]).figures[0]

    assert [line.band for line in figure(4).series] == [[[0.1, 0.3]]] * 4
    assert "Bands" in figure(4).caption
    assert [line.band for line in figure(5).series] == [[]] * 5
    assert "Bands" not in figure(5).caption
