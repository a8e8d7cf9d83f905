"""`accelerate launch` on the recipes, and the demo, as a user runs them."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gpt1_hf.cli import main
from gpt1_hf.resources import recipes_dir
from gpt1_hf.tasks import all_tasks


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
    assert result["details"]["batch_size"] == 32  # the recipe's
    assert result["n_examples"] == 32
    assert len((tmp_path / "two" / "predictions.jsonl").read_text().splitlines()) == 32


def accelerate(config: str, script: Path, argv: list[str], *flags: str) -> subprocess.Popen:
    """Start `accelerate launch` with a shipped configuration, for two processes in total."""
    config_file = str(recipes_dir() / "accelerate" / f"{config}.yaml")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config_file]
    return subprocess.Popen(
        [*command, "--num_processes", "2", *flags, str(script), *argv],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(*processes: subprocess.Popen):
    """Wait for launches, and show their output if one failed."""
    try:
        outputs = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-4000:]


def test_every_finetuning_recipe_in_two_processes(base_model, tmp_path):
    # All in one launch: each task is read from its recipe.
    settings = f"--task all --sample --model {base_model} --max_steps 2 --global_batch_size 4"
    settings += f" --use_cpu true --disable_tqdm true --output_dir {tmp_path / 'out'}"
    finish(accelerate("ddp", recipes_dir() / "finetune.py", settings.split()))
    rows = json.loads((tmp_path / "out" / "results.json").read_text())
    rows = [row for row in rows if row["task"] in all_tasks()]
    assert {row["task"] for row in rows} == {path.stem for path in (recipes_dir() / "finetune").glob("*.yaml")}
    assert {row["details"]["batch_size"] for row in rows} == {4}


# Runs the recipes one after another in the same two processes, each as the launcher runs its script.
EVERY_PRETRAINING_RECIPE = """
import runpy, sys

script, recipes, folder, *settings = sys.argv[1:]
for recipe in recipes.split(","):
    own = ["--lstm_size", "16"] if recipe.endswith("lstm") else []
    sys.argv = [script, "--config", f"pretrain/{recipe}", "--output_dir", f"{folder}/{recipe}", *settings, *own]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        assert not end.code, recipe
"""


def test_every_pretraining_recipe_on_two_machines(base_model, texts, tmp_path):
    corpus, script = tmp_path / "corpus.txt", tmp_path / "every.py"
    corpus.write_text("\n\n".join(texts), encoding="utf-8")
    script.write_text(EVERY_PRETRAINING_RECIPE)
    # Not `continue`, whose model decides the sizes: it is in the next test.
    recipes = sorted({path.stem for path in (recipes_dir() / "pretrain").glob("*.yaml")} - {"continue"})
    settings = f"--corpus {corpus} --tokenizer {base_model} --hidden_size 16 --num_hidden_layers 1 --max_steps 2"
    settings += " --num_attention_heads 2 --max_position_embeddings 32 --global_batch_size 4"
    settings += " --warmup_steps 1 --save_strategy no --use_cpu true --disable_tqdm true"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    argv = [str(recipes_dir() / "pretrain.py"), ",".join(recipes), str(tmp_path / "out"), *settings.split()]
    address = ["--main_process_ip", "127.0.0.1", "--main_process_port", port]
    finish(*(accelerate("multi_node", script, argv, "--machine_rank", rank, *address) for rank in "01"))
    for recipe in recipes:
        folder = tmp_path / "out" / recipe
        (row, *_) = json.loads((folder / "results.json").read_text())
        assert (row["metric"], row["details"]["processes"]) == ("perplexity", 2), recipe
        assert row["details"]["tokens_seen"] == 2 * 4 * 32  # updates, rows, tokens


# Runs several commands one after another in the same processes: JSON, by the names of their folders.
SEVERAL_COMMANDS = """
import json, sys
import gpt1_hf.training.pretrain
from gpt1_hf.cli import main

gpt1_hf.training.pretrain.matmul_peak = lambda *_: 1e12  # measuring it takes longer than a run
for name, argv in json.loads(sys.argv[1]).items():
    assert main(argv) == 0, name
"""


def test_two_processes_make_the_updates_of_one(base_model, texts, tmp_path):
    """For every architecture and kind of training, with whole batches and with accumulated ones."""
    corpus, script = tmp_path / "corpus.txt", tmp_path / "several.py"
    corpus.write_text("\n\n".join(texts), encoding="utf-8")
    script.write_text(SEVERAL_COMMANDS)
    # Whole updates only: several processes fill up an incomplete one, at the end of an epoch, with repeated rows.
    pretrain = (
        f"--corpus {corpus} --tokenizer {base_model} --hidden_size 16 --max_position_embeddings 32 --max_steps 5"
    )
    finetune = f"--model {base_model} --sample --classifier_dropout 0 --learning_rate 1e-3"
    common = "--dropout 0 --bf16 false --logging_steps 1 --use_cpu true"
    commands = {
        "transformer": ("pretrain", f"--config pretrain/smoke {pretrain}", 8, 5),
        "lstm": (
            "pretrain",
            f"--config pretrain/small_lstm {pretrain} --lstm_size 16 --checkpoints_per_decade 0",
            4,
            5,
        ),
        "continued": (
            "pretrain",
            f"--config pretrain/continue --corpus {corpus} --model {base_model} --max_steps 5",
            8,
            5,
        ),
        "classification": ("finetune", f"--config finetune/cola {finetune} --max_train_examples 64", 32, 6),
        "similarity": ("finetune", f"--config finetune/stsb {finetune} --max_train_examples 32", 32, 3),
        "choice": ("finetune", f"--config finetune/race {finetune} --max_train_examples 32", 32, 3),
        "incomplete": ("finetune", f"--config finetune/sst2 {finetune} --max_train_examples 37", 32, 6),
    }

    def argv_of(folder: str, own: str) -> str:
        return json.dumps(
            {
                name: [
                    kind,
                    *flags.split(),
                    *common.split(),
                    *own.split(),
                    "--output_dir",
                    f"{tmp_path / folder / name}",
                ]
                for name, (kind, flags, *_) in commands.items()
            }
        )

    settings = {"one": ("cpu", ""), "two": ("cpu_2", ""), "accumulated": ("cpu_2", "--per_device_train_batch_size 1")}
    for folder, (config, own) in settings.items():
        n_processes = "1" if config == "cpu" else "2"
        finish(accelerate(config, script, [argv_of(folder, own)], "--num_processes", n_processes))
    for name, (kind, _, rows, updates) in commands.items():
        histories = {}
        for folder in settings:
            state = json.loads((tmp_path / folder / name / "trainer_state.json").read_text())
            details = json.loads((tmp_path / folder / name / "results.json").read_text())[0]["details"]
            found = details["batch_size"] if kind == "finetune" else details["tokens_seen"] / updates
            window = details.get("window", 1)
            assert (state["global_step"], found) == (updates, rows * window), (folder, name)
            histories[folder] = [
                {key: entry[key] for key in ("step", "learning_rate", "loss", "grad_norm")}
                for entry in state["log_history"]
                if "loss" in entry
            ]
        assert len(histories["one"]) == updates
        if name == "incomplete":
            continue
        for folder in ("two", "accumulated"):
            for entry, expected in zip(histories[folder], histories["one"], strict=True):
                assert entry == pytest.approx(expected, rel=2e-3, abs=2e-4), (folder, name)


def test_sizes_that_two_processes_cannot_share_write_nothing(base_model, tmp_path):
    argv = f"--config finetune/cola --sample --model {base_model} --use_cpu true --global_batch_size 33".split()
    process = accelerate("cpu_2", recipes_dir() / "finetune.py", [*argv, "--output_dir", str(tmp_path / "out")])
    output = process.communicate(timeout=300)[0]
    assert process.returncode != 0
    assert "gpt1: error: global_batch_size 33 is not a multiple of 2 devices: use global_batch_size 32 or 34" in output
    assert not (tmp_path / "out").exists()


def test_launched_processes_join_without_an_accelerator(base_model, tmp_path):
    """Also without `--use_cpu true`, where accelerate would leave each of them alone."""
    if torch.accelerator.is_available():
        pytest.skip("the processes would use the accelerator")
    argv = f"--config finetune/cola --sample --model {base_model} --max_train_examples 32 --max_steps 1".split()
    finish(accelerate("cpu_2", recipes_dir() / "finetune.py", [*argv, "--output_dir", str(tmp_path / "out")]))
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert (settings["per_device_train_batch_size"], settings["world_size"]) == (16, 2)


def test_demo_shows_that_pretraining_helps(tmp_path, capsys):
    assert main(["demo", "--output_dir", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    pretrained, scratch = json.loads((tmp_path / "results.json").read_text())
    assert pretrained["value"] > scratch["value"]
    assert "always" in shown
    assert "it was a dark" in shown
