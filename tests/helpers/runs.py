"""Runs in child processes, ways to interrupt them, and comparisons of runs."""

import contextlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gpt1_hf import GPT1Trainer
from gpt1_hf.cli import main
from gpt1_hf.training.arguments import FinetuneArguments


def finetune_arguments(base_model, tmp_path, **settings) -> FinetuneArguments:
    """Arguments of an epoch on a task's sample."""
    folders = {"model": base_model, "output_dir": str(tmp_path / "run")}
    common = {"sample": True, "num_train_epochs": 1, "disable_tqdm": True, "use_cpu": True}
    return FinetuneArguments(**{**folders, **common, **settings})


def run_in_child(argv: list[str], trap=None) -> int:
    """Exit status of a command in a child process, or minus the signal that killed it. `trap` is called first."""

    def work():
        torch.set_num_threads(1)
        if trap is not None:
            trap()
        sys.exit(main(argv))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


def before(owner, name: str, update: int, number: int):
    """Trap that sends a signal to the process when a function is called after a number of updates."""

    def trap():
        function = getattr(owner, name)

        def trapped(*args, **kwargs):
            done = args[0].state.global_step if isinstance(args[0], GPT1Trainer) else None
            if done == update or f"checkpoint-{update}" in map(lambda arg: getattr(arg, "name", None), args):
                os.kill(os.getpid(), number)
            return function(*args, **kwargs)

        setattr(owner, name, trapped)

    return trap


def halfway(file: str, update: int):
    """Trap that kills the process halfway through writing a file of a checkpoint."""

    def trap():
        function = torch.save

        def trapped(content, path, *args, **kwargs):
            function(content, path, *args, **kwargs)
            if Path(path).name == file and Path(path).parent.name == f"checkpoint-{update}":
                os.truncate(path, Path(path).stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        torch.save = trapped

    return trap


def log_of(folder: Path) -> list[dict]:
    """The log of a run without timings."""
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [
        {key: value for key, value in entry.items() if not re.search("runtime|per_second", key)} for entry in history
    ]


def assert_same_run(folder: Path, expected: Path):
    assert log_of(folder) == log_of(expected)
    weights, expected_weights = load_file(folder / "model.safetensors"), load_file(expected / "model.safetensors")
    assert weights.keys() == expected_weights.keys()
    for name, weight in weights.items():
        assert torch.equal(weight, expected_weights[name]), name
    values = [
        [result["value"] for result in json.loads((run / "results.json").read_text())] for run in (folder, expected)
    ]
    assert values[0] == values[1]


def flip_a_bit(file: Path):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@contextlib.contextmanager
def mounted(folder: Path, kilobytes: int):
    """A mounted file system of a few kilobytes."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not permitted")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
