"""Output of a run: results on standard output, everything else on standard error; one bar, only on a terminal."""

import sys

import pytest
from transformers import TrainerState

from gpt1_hf import GPT1Trainer
from gpt1_hf.cli import main
from gpt1_hf.console import be_quiet
from gpt1_hf.training.progress import LogLines, TrainingBar


def command(base_model, tmp_path, *more: str) -> list[str]:
    run = ["finetune", "--task", "cola", "--sample", "--model", base_model, "--max_steps", "2", "--logging_steps", "1"]
    return [*run, "--use_cpu", "true", "--max_train_examples", "8", "--output_dir", str(tmp_path / "run"), *more]


@pytest.mark.parametrize("more", [(), ("--disable_tqdm", "true")])
def test_standard_output_holds_the_results_only(more, base_model, tmp_path, capfd):
    assert main(command(base_model, tmp_path, "--eval_strategy", "steps", *more)) == 0
    out, err = capfd.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["task", "------", "cola"]
    assert err.count("'loss': '") == 2 and "'eval_loss': '" in err and "'train_runtime'" in err
    assert f"written to {tmp_path / 'run'}" in err
    assert "it/s" not in err and "examples/s" not in err  # no bars, since this is no terminal


def test_one_bar_on_a_terminal(base_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda self: True)
    used = []
    add = GPT1Trainer.add_callback
    monkeypatch.setattr(GPT1Trainer, "add_callback", lambda self, one: (used.append(one), add(self, one))[1])
    assert main(command(base_model, tmp_path, "--eval_strategy", "steps", "--eval_steps", "1")) == 0
    assert [type(one) for one in used if isinstance(one, TrainingBar | LogLines)] == [TrainingBar]
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["task", "------", "cola"]
    bars = [line for line in err.replace("\r", "\n").splitlines() if "it/s" in line or "s/it" in line]
    assert bars and all("/2 [" in line for line in bars)  # of the updates, and no other
    assert err.count("'loss': '") == 2


def test_quiet_is_also_quiet_on_a_terminal(base_model, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda self: True)
    try:
        assert main(["--quiet", *command(base_model, tmp_path)]) == 0
    finally:
        be_quiet(False)
    out, err = capfd.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["task", "------", "cola"]
    assert "loss" not in err and "train_runtime" not in err and "it/s" not in err


def test_quiet_hides_the_logs(capsys):
    try:
        be_quiet(True)
        LogLines().on_log(None, TrainerState(is_world_process_zero=True), None, logs={"loss": 1.0})
    finally:
        be_quiet(False)
    LogLines().on_log(None, TrainerState(is_world_process_zero=True), None, logs={"loss": 2.0})
    assert capsys.readouterr().err == "{'loss': '2'}\n"
