"""Pre-training in two processes has the loss curve of one, even if it is killed, interrupted or sharded."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from gpt1_hf.resources import recipes_dir
from gpt1_hf.training.manifest import find_damage, last_complete_checkpoint


pytestmark = pytest.mark.slow

TWO = ["-m", "torch.distributed.run", "--nproc_per_node", "2"]
# Runs the command. SIGNAL=UPDATE:PROCESS:NUMBER sends signal NUMBER to a process after that update.
SCRIPT = """
import os, sys
from gpt1_hf import GPT1Trainer
from gpt1_hf.cli import main

if "SIGNAL" in os.environ:
    update, process, number = map(int, os.environ["SIGNAL"].split(":"))
    training_step = GPT1Trainer.training_step

    def trapped(self, *args, **kwargs):
        if self.state.global_step == update and self.args.process_index == process:
            os.kill(os.getpid(), number)
        return training_step(self, *args, **kwargs)

    GPT1Trainer.training_step = trapped
sys.exit(main(["pretrain", *sys.argv[1:]]))
"""


@pytest.fixture
def run(texts, base_model, tmp_path):
    """Runs a tiny pre-training, directly or with a launcher, and returns its exit status."""
    corpus, script = tmp_path / "corpus.txt", tmp_path / "pretrain.py"
    corpus.write_text("\n\n".join(texts), encoding="utf-8")
    script.write_text(SCRIPT)
    settings = {
        "corpus": corpus,
        "tokenizer": base_model,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "max_steps": 9,
        "warmup_steps": 3,
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 40,
        # Three full updates per epoch: several processes would fill up an incomplete one, but one process does not.
        "dataloader_drop_last": "true",
        "per_device_eval_batch_size": 2,
        "eval_strategy": "steps",
        "eval_steps": 4,
        "save_steps": 2,
        "logging_steps": 1,
        "disable_tqdm": "true",
        "use_cpu": "true",
    }

    def run(name: str, launcher=(), signal_at: str | None = None, wait: float = 300, **changes) -> int:
        words = [str(word) for pair in {**settings, **changes}.items() for word in (f"--{pair[0]}", pair[1])]
        command = [sys.executable, *launcher, str(script), *words, "--output_dir", str(tmp_path / name)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **({"SIGNAL": signal_at} if signal_at else {})}
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        try:
            _, run.stderr = process.communicate(timeout=wait)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            _, run.stderr = process.communicate()
        return process.returncode

    return run


def curve(folder: Path, names=("loss", "grad_norm", "eval_loss")) -> list[dict]:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    entries = [{key: entry[key] for key in ("step", *names) if key in entry} for entry in history]
    return [entry for entry in entries if len(entry) > 1]


def assert_same_run(folder: Path, expected: Path, exactly: bool):
    for entry, wanted in zip(curve(folder), curve(expected), strict=True):
        assert entry == (wanted if exactly else pytest.approx(wanted, rel=1e-3))
    for name, weight in load_file(expected / "model.safetensors").items():
        found = load_file(folder / "model.safetensors")[name]
        # A key's bias has only rounding as its gradient, from which Adam makes full-size steps.
        if exactly or not name.endswith("k_proj.bias"):
            assert torch.equal(found, weight) if exactly else (found - weight).abs().mean() < 1e-3, name


def perplexity(folder: Path) -> float:
    return json.loads((folder / "results.json").read_text())[0]["value"]


def test_two_processes_match_one_and_resume_exactly(run, tmp_path):
    assert run("one", dropout=0) == 0
    assert run("two", TWO, dropout=0, per_device_train_batch_size=20) == 0
    assert_same_run(tmp_path / "two", tmp_path / "one", exactly=False)
    assert perplexity(tmp_path / "two") == pytest.approx(perplexity(tmp_path / "one"), rel=1e-3)

    assert run("whole", TWO, per_device_train_batch_size=20) == 0
    # In the second epoch: its order of rows must be restored.
    assert run("killed", TWO, "7:1:9", per_device_train_batch_size=20) != 0
    assert last_complete_checkpoint(tmp_path / "killed").name == "checkpoint-6"
    assert run("killed", TWO, per_device_train_batch_size=20) == 0
    assert_same_run(tmp_path / "killed", tmp_path / "whole", exactly=True)

    assert run("ended", TWO, "4:1:15", per_device_train_batch_size=20, save_steps=100) != 0
    assert b"SIGTERM ended training after update 5; the same command resumes" in run.stderr
    assert find_damage(tmp_path / "ended" / "checkpoint-5") is None
    assert run("ended", TWO, per_device_train_batch_size=20, save_steps=100) == 0
    assert_same_run(tmp_path / "ended", tmp_path / "whole", exactly=True)


def test_sharded_training_matches_one_process_and_saves_plain_weights(run, tmp_path):
    recipe = (recipes_dir() / "accelerate" / "fsdp2.yaml").read_text()
    config = tmp_path / "fsdp2.yaml"
    config.write_text(recipe.replace("use_cpu: false", "use_cpu: true"))
    sharded = ["-m", "accelerate.commands.launch", "--config_file", str(config), "--num_processes", "2"]
    assert run("one", dropout=0) == 0
    assert run("sharded", sharded, "7:0:15", dropout=0, per_device_train_batch_size=20) != 0, run.stderr[-3000:]
    assert b"SIGTERM ended training after update 8" in run.stderr, run.stderr[-3000:]
    assert run("sharded", sharded, dropout=0, per_device_train_batch_size=20) == 0, run.stderr[-3000:]
    assert_same_run(tmp_path / "sharded", tmp_path / "one", exactly=False)
    assert perplexity(tmp_path / "sharded") == pytest.approx(perplexity(tmp_path / "one"), rel=1e-3)
    AutoModelForCausalLM.from_pretrained(tmp_path / "sharded")


def test_kills_at_random_times(run, tmp_path):
    settings = {"max_steps": 60, "save_steps": 3, "save_total_limit": 2}
    begin = time.monotonic()
    assert run("whole", **settings) == 0
    duration = time.monotonic() - begin
    times = random.Random(0)
    statuses = [run("killed", wait=times.uniform(0.3, 1) * duration, **settings) for _ in range(5)]
    assert -signal.SIGKILL in statuses
    assert run("killed", **settings) == 0
    assert_same_run(tmp_path / "killed", tmp_path / "whole", exactly=True)
