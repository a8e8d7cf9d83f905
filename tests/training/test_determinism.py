"""The same seed gives the same result: fine-tuning by the command line, in fp32 on a CPU. (Pre-training: see
`test_resume.py`.)"""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from gpt1_hf.cli import main


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def argv(base_model):
    def argv(task: str, output_dir, **changes) -> list[str]:
        settings = {"model": base_model, "task": task, "sample": True, "max_train_examples": 32, "max_steps": 4}
        settings |= {"per_device_train_batch_size": 8, "learning_rate": 1e-3, "use_cpu": True, "disable_tqdm": True}
        settings |= {"output_dir": output_dir, **changes}
        return ["finetune", *(f"--{name}={value}" for name, value in settings.items())]

    return argv


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same(one, other):
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
    assert (one / "predictions.jsonl").read_bytes() == (other / "predictions.jsonl").read_bytes()


@pytest.mark.parametrize("task", ["sst2", "mrpc", "story_cloze"])
def test_the_same_seed_gives_the_same_weights_bit_for_bit(argv, tmp_path, task):
    for name in ("one", "other"):
        torch.rand(7)  # earlier random numbers do not matter
        assert main(argv(task, tmp_path / name)) == 0
    assert_same(tmp_path / "one", tmp_path / "other")
    assert main(argv(task, tmp_path / "seed", seed=43)) == 0
    first, second = weights(tmp_path / "one"), weights(tmp_path / "seed")
    changed = [not torch.equal(first[name], second[name]) for name in first]
    assert sum(changed) > len(changed) / 2


@pytest.mark.slow
def test_another_process_gives_the_same_weights(argv, tmp_path):
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "gpt1_hf", *argv("sst2", tmp_path / seed)]
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    assert_same(tmp_path / "1", tmp_path / "2")


@pytest.mark.parametrize("task", ["sst2", "mrpc", "story_cloze"])
def test_accumulation_gives_the_same_weights_to_rounding(argv, tmp_path, task):
    """
    Dropout is off, because its masks are drawn batch by batch. The optimizer is plain gradient descent, because Adam
    makes full-size steps even from a gradient that is only rounding.
    """
    rate, n_updates = 0.1, 4
    off = {"dropout": 0.0, "classifier_dropout": 0.0, "optim": "sgd", "learning_rate": rate}
    assert main(argv(task, tmp_path / "1", **off)) == 0
    steps = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    assert main(argv(task, tmp_path / "4", **off, **steps)) == 0
    one, four = weights(tmp_path / "1"), weights(tmp_path / "4")
    # A gradient is a sum over the tokens of 8 rows, in which each addition rounds, and is clipped to a norm of 1.
    tolerance = rate * n_updates * torch.finfo(torch.float32).eps * 8 * 64
    for name in one:
        assert (one[name] - four[name]).abs().max() < tolerance, name
    for row, other in zip(
        *((tmp_path / name / "predictions.jsonl").read_text().splitlines() for name in "14"), strict=True
    ):
        assert json.loads(row)["scores"] == pytest.approx(json.loads(other)["scores"], abs=1e-3)
