"""`gpt1 analyze`: the cost of a plan, and small plans carried out from end to end."""

import json
import math
import re
import subprocess
import sys

import pytest
import torch

from gpt1_hf import GPT1Config, hardware
from gpt1_hf.analysis import run_plan
from gpt1_hf.analysis.plan import cost
from gpt1_hf.analysis.plan.plan import Plan, carry_out
from gpt1_hf.cli import main
from gpt1_hf.cli.analyze import analyses, read_overrides
from gpt1_hf.data.token_stream import TokenStream
from gpt1_hf.errors import GPT1Error
from gpt1_hf.processing_gpt1 import GPT1Processor
from gpt1_hf.resources import recipes_dir
from gpt1_hf.tasks import load_task
from gpt1_hf.training import arguments


def test_cost_is_tokens_by_rate(write_plan, tokenizer):
    path = write_plan(finetune={"sample": True, "num_train_epochs": 3, "train_sampling_strategy": "random"})
    model, *_, run = Plan.read(path, overrides={"pretrain": {"max_position_embeddings": 256}}).runs()
    assert cost.estimate(model, tokens_per_second=10) == cost.Cost(2 * 2 * 256, 2 * 2 * 256 / 10 / 60)
    # By hand: each row is padded to the longest of its batch; scoring is a third of training.
    task = load_task("sst2")
    rows = task.load("train", sample=True)
    processor = GPT1Processor(tokenizer, task.input_format)
    lengths = [len(ids) for ids in processor(rows[:], max_length=256)["input_ids"]]
    n_scored = len(task.load("validation", sample=True))
    exact = (3 * len(rows) + n_scored / 3) * sum(lengths) / len(lengths)
    by_length = {**run.settings, "train_sampling_strategy": "group_by_length"}
    grouped = cost.estimate(type(run)(run.kind, run.name, by_length, run.folder, run.variant, run.needs), 10)
    assert grouped.tokens == pytest.approx(exact, rel=0.1)
    assert cost.estimate(run, 10).tokens > 1.1 * grouped.tokens


@pytest.mark.parametrize("task_id", ["mrpc", "race"])
def test_every_sequence_of_a_row_counts(task_id, write_plan):
    path = write_plan(tasks={task_id: None}, variants={"full": {"model": "transformer"}})
    _, run = Plan.read(path).runs()
    lengths, n_train, n_scored = cost._lengths(task_id, None, True, run.needs.settings["tokenizer"], 32)
    assert lengths.shape == (n_train, 2 if task_id == "mrpc" else 4)
    assert cost.estimate(run, 10).tokens > n_train * lengths.shape[1] * 5


def test_rates_are_measured_on_the_architecture(write_plan):
    transformer, lstm, *_, run = Plan.read(write_plan()).runs()
    for one in (transformer, lstm, run):
        estimate = cost.estimate(one)
        assert 0 < estimate.minutes < 10 and not estimate.reason
    kinds = {key.split()[0] for key in cost.RATES}
    assert kinds == {"pretrain", "finetune"}


def test_measuring_has_a_time_limit(write_plan, monkeypatch):
    """On a slow machine an update has few tokens; after a time, rates are computed from the measured ones."""
    transformer, lstm, *_, run = Plan.read(write_plan()).runs()
    cpu = torch.device("cpu")
    config = cost._architecture(transformer)
    tokens = []

    def slow(work, device):
        work()
        return 0.001 * tokens[-1] + 0.1

    def counted(*args, **kwargs):
        tokens.append(kwargs["size"][0] * kwargs["size"][1] if "size" in kwargs else args[1][0] * args[1][1])
        return torch.zeros(args[1], dtype=torch.long)

    monkeypatch.setattr(cost, "RATES", {})
    monkeypatch.setattr(cost, "seconds", slow)
    monkeypatch.setattr(cost.torch, "randint", counted)
    measured = cost.training_rate(cost.Update(config, "pretrain", 64, 32, cpu, torch.float32))
    assert tokens[:2] == [32, 32] and max(tokens) <= 0.5 / 0.132 * 32 and len(tokens) <= 6
    assert measured == pytest.approx(tokens[-1] / (0.001 * tokens[-1] + 0.1))
    # No more time: another shape and another head are computed; an architecture without a rate is measured.
    monkeypatch.setattr(cost, "MAX_SECONDS", 0.0)
    n_updates = len(tokens)
    longer = cost.training_rate(cost.Update(config, "pretrain", 64, 64, cpu, torch.float32))
    deeper = GPT1Config(**{**config.to_dict(), "num_hidden_layers": 20})
    assert cost.training_rate(cost.Update(deeper, "pretrain", 64, 32, cpu, torch.float32)) < 0.5 * measured
    shallow = GPT1Config(**{**config.to_dict(), "num_hidden_layers": 0})
    assert measured < cost.training_rate(cost.Update(shallow, "finetune", 64, 32, cpu, torch.float32)) < 100 * measured
    assert 0.5 * measured < longer < measured and len(tokens) == n_updates and len(cost.RATES) == 1
    cost.training_rate(cost.Update(cost._architecture(lstm), "pretrain", 64, 32, cpu, torch.float32))
    assert len(tokens) > n_updates and len(cost.RATES) == 2


@pytest.mark.parametrize("has_bf16", [False, True])
def test_rates_are_measured_in_the_precision_of_the_run(write_plan, monkeypatch, has_bf16):
    """`--bf16 true` trains in fp32 on a CPU without bf16 instructions, so fp32 is measured."""
    for module in (hardware, arguments):
        monkeypatch.setattr(module, "has_half_precision", lambda dtype, device: has_bf16)
    asked = []
    monkeypatch.setattr(cost, "training_rate", lambda update: asked.append(update[-2:]) or 1.0)
    changes = {"pretrain": {"bf16": True}, "finetune": {"bf16": True}}
    model, *_, run = Plan.read(write_plan(), overrides=changes).runs()
    assert not cost.estimate(model).reason and not cost.estimate(run).reason
    assert asked == [(torch.device("cpu"), torch.bfloat16 if has_bf16 else torch.float32)] * 2
    plain, *_ = Plan.read(write_plan()).runs()
    cost.estimate(plain)
    assert asked[-1][1] == torch.float32


def test_missing_data_are_looked_up_once(write_plan, monkeypatch, tmp_path):
    path = write_plan(tasks={"cola": {"seeds": 3}}, finetune={"data_dir": str(tmp_path), "model": "gpt1-tiny"})
    asked = []

    def missing(*args):
        asked.append(args)
        raise GPT1Error("not there")

    monkeypatch.setattr(cost, "MISSING", {})
    monkeypatch.setattr(cost, "_lengths", missing)
    runs = [run for run in Plan.read(path).runs() if run.kind == "finetune"]
    assert [cost.estimate(run, 10).reason for run in runs] == ["not there"] * len(runs) and len(asked) == 1


def test_an_unknown_cost_has_a_reason(write_plan, tmp_path):
    path = write_plan(tasks={"cola": None}, finetune={"data_dir": str(tmp_path), "model": "gpt1-tiny"})
    *_, run = Plan.read(path).runs()
    estimate = cost.estimate(run, 10)
    assert math.isnan(estimate.tokens) and "nyu-mll/glue" in estimate.reason
    text = cost.format_plan([run], [estimate])
    assert "1 runs of unknown cost" in text and "nan" not in text


def test_epochs_have_a_cost_once_the_corpus_is_tokenized(write_plan, tmp_path):
    epochs = {"pretrain": {"max_steps": -1, "num_train_epochs": 2}}
    model = Plan.read(write_plan(), overrides=epochs).runs()[0]
    assert "give max_steps" in cost.estimate(model, 10).reason
    from gpt1_hf.training.pretrain import token_streams

    train, validation = token_streams(model.arguments(), cost._tokenizer(model.settings["tokenizer"]))
    estimate = cost.estimate(model, 10)
    assert estimate.tokens == 2 * len(TokenStream.load(tmp_path / "tokens" / "train"))
    assert len(train) + len(validation) == len(TokenStream.load(tmp_path / "tokens" / "train"))


def test_dry_run_prints_the_plan_and_does_nothing(write_plan, tmp_path, capsys):
    argv = ["analyze", "ablations", "--config", write_plan(), "--dry_run", "--tokens_per_second", "100"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"^(pretrain|finetune)/\S+ +to do +\d", out, re.MULTILINE)) == 8
    # The plan is printed before anything is estimated.
    plan, estimate = out.split("8 of 8 runs to do; estimating their cost takes up to a minute")
    assert len(re.findall(r"^(pretrain|finetune)/\S+ +to do *$", plan, re.MULTILINE)) == 8
    assert "M tokens" not in plan and "M tokens" in estimate
    assert "all: 8 of 8 runs to do" in out
    assert not (tmp_path / "runs").exists() and not (tmp_path / "models").exists()
    assert main([*argv, "--shard", "2/2", "--tasks", "sst2"]) == 0
    assert "all: 2 of 2 runs to do" in capsys.readouterr().out


def test_dry_run_prints_the_plan_before_it_measures(write_plan, monkeypatch, capsys):
    printed = []

    def estimate(run, rate):
        printed.append(capsys.readouterr().out)
        return cost.Cost(1, 1)

    monkeypatch.setattr(run_plan, "estimate", estimate)
    assert main(["analyze", "ablations", "--config", write_plan(), "--dry_run"]) == 0
    assert "finetune/cola/full/seed-42" in printed[0] and not any(printed[1:])


def test_settings_of_the_runs_on_the_command_line():
    rest = ["--finetune.lm_coef", "0.0", "--pretrain.bf16=true", "--finetune.model", "gpt1-tiny"]
    assert read_overrides(rest) == {"finetune": {"lm_coef": 0.0, "model": "gpt1-tiny"}, "pretrain": {"bf16": True}}
    for bad in (["--lm_coef", "0"], ["--finetune.lm_coef"], ["word"], ["--finetune.", "1"]):
        with pytest.raises(GPT1Error):
            read_overrides(bad)


def test_bad_input_ends_in_one_sentence(write_plan, capsys):
    path = write_plan()
    cases = {
        "no recipe 'nowhere'": ["--config", "nowhere"],
        "did you mean cola": ["--config", path, "--tasks", "colla"],
        "--shard is i/n": ["--config", path, "--shard", "3/2"],
        "did you mean --finetune.lm_coef?": [
            "--config",
            path,
            "--finetune.lm_coeff",
            "0",
        ],
        "unknown argument --lm_coef; ": ["--config", path, "--lm_coef", "0"],
    }
    for message, argv in cases.items():
        assert main(["analyze", "ablations", *argv]) == 2
        assert message in capsys.readouterr().err
    for action in analyses():
        with pytest.raises(SystemExit) as stop:
            main(["analyze", action, "--help"])
        assert stop.value.code == 0
        assert f"gpt1 analyze {action}" in capsys.readouterr().out


def test_a_model_is_pre_trained_by_the_plan_and_reused(write_plan, capsys):
    run = Plan.read(write_plan()).runs()[0]
    assert run.kind == "pretrain" and carry_out([run]) == {} and run.state == "finished"
    assert carry_out([run]) == {}
    assert "finished earlier" in capsys.readouterr().err


@pytest.mark.slow
def test_a_small_plan_from_end_to_end(write_plan, tmp_path, capsys):
    variants = {
        "full": {"model": "transformer"},
        "no_layers": {"model": "no_layers"},
        "embeddings_only": {"model": "transformer", "transfer_layers": 0},
    }
    models = {"transformer": {}, "no_layers": {"num_hidden_layers": 0}}
    tasks = {"cola": {"seeds": 2}, "mnli": None}
    path = write_plan(models=models, variants=variants, tasks=tasks)
    assert main(["analyze", "ablations", "--config", path]) == 0
    text = (tmp_path / "runs" / "analysis.md").read_text()
    assert "avg of 2" in text and "(2)" in text
    capsys.readouterr()
    assert main(["analyze", "ablations", "--config", path]) == 0
    assert capsys.readouterr().err.count("finished earlier") == 2 + 3 * 3

    transfer = ["analyze", "layer-transfer", "--tasks", "race"]
    tiny = ["--models_dir", str(tmp_path / "models"), "--output_dir", str(tmp_path / "runs" / "transfer")]
    settings = ["--finetune.sample", "true", "--finetune.max_train_examples", "8", "--finetune.use_cpu", "true"]
    settings += ["--finetune.model", str(tmp_path / "models" / "transformer"), "--finetune.bf16", "false"]
    assert main([*transfer, *tiny, *settings]) == 0
    svg = (tmp_path / "runs" / "transfer" / "figures" / "layer_transfer.svg").read_text()
    assert "race validation" in svg and "race train" in svg

    assert main(["report", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "Layer transfer" in page and page.count("<svg") >= 2


@pytest.mark.slow
def test_launched_processes_share_the_runs_and_wait_for_models(write_plan, tmp_path):
    # Five variants: the second process also fine-tunes models that the first one trains.
    variants = {f"v{n}": {"model": "transformer", "lm_coef": n / 10} for n in range(4)} | {"lstm": {"model": "lstm"}}
    path = write_plan(variants=variants, tasks={"cola": None})
    flags = "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no".split()
    command = [sys.executable, "-m", "accelerate.commands.launch", *flags, str(recipes_dir() / "analyze.py")]
    run = subprocess.run([*command, "ablations", "--config", path], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    for folder in (tmp_path / "models").glob("[tl]*"):
        assert json.loads((folder / "plan_run.json").read_text())["state"] == "finished"
    run_files = sorted((tmp_path / "runs").rglob("plan_run.json"))
    assert len(run_files) == 5
    for record in run_files:
        (result,) = json.loads((record.parent / "results.json").read_text())
        # Each run belongs to one process: its batches are not divided.
        assert result["details"]["batch_size"] == 32
    assert run.stderr.count("[1/") == 2 and run.stderr.count("analysis.md") == 1
