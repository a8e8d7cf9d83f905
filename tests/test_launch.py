"""`accelerate launch` on the recipes, and the demo, as a user runs them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from gpt1_hf.cli import main
from gpt1_hf.resources import recipes_dir


pytestmark = pytest.mark.slow

SETTINGS = ["--sample", "--max_train_examples", "32", "--num_train_epochs", "2", "--disable_tqdm", "true"]


def launch(output_dir: Path, *flags: str, settings: list[str] | None = None) -> dict:
    command = [sys.executable, "-m", "accelerate.commands.launch", *flags, str(recipes_dir() / "finetune.py")]
    command += ["--config", str(recipes_dir() / "finetune" / "cola.yaml"), "--output_dir", str(output_dir)]
    subprocess.run([*command, *SETTINGS, *(settings or [])], check=True, capture_output=True, timeout=300)
    return json.loads((output_dir / "results.json").read_text())[0]


def test_launched_recipe_is_the_same_run_as_the_command(base_model, tmp_path):
    flags = ["--config_file", str(recipes_dir() / "accelerate" / "cpu.yaml")]
    launched = launch(tmp_path / "launched", *flags, settings=["--model", base_model, "--use_cpu", "true"])
    recipe = str(recipes_dir() / "finetune" / "cola.yaml")
    argv = ["--config", recipe, "--output_dir", str(tmp_path / "command"), "--model", base_model, "--use_cpu", "true"]
    assert main(["finetune", *argv, *SETTINGS]) == 0
    assert json.loads((tmp_path / "command" / "results.json").read_text())[0]["value"] == launched["value"]
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("launched", "command"))
    for name, tensor in one.items():
        assert (tensor - other[name]).abs().max() < 1e-5, name


def test_two_processes_train_one_model(base_model, tmp_path):
    # accelerate starts several processes through its multi-GPU launcher only; `use_cpu` makes them CPU processes.
    flags = "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no".split()
    settings = ["--model", base_model, "--use_cpu", "true", "--per_device_train_batch_size", "8"]
    result = launch(tmp_path / "two", *flags, settings=settings)
    assert result["details"]["batch_size"] == 16
    assert result["n_examples"] == 32
    assert len((tmp_path / "two" / "predictions.jsonl").read_text().splitlines()) == 32


def test_demo_shows_that_pretraining_helps(tmp_path, capsys):
    assert main(["demo", "--output_dir", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    pretrained, scratch = json.loads((tmp_path / "results.json").read_text())
    assert pretrained["value"] > scratch["value"]
    assert "always" in shown
    assert "it was a dark" in shown
