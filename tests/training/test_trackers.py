"""TensorBoard, trackio and Weights & Biases (offline): their files are read back. By default, none of them runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.data import TINY


pytestmark = pytest.mark.slow

TRACKERS = ("tensorboard", "trackio", "wandb")
# Runs a command, and records which trackers were imported.
SCRIPT = f"""
import json, sys
from pathlib import Path
from gpt1_hf.cli import main

status = main(sys.argv[1:])
Path("imported.json").write_text(json.dumps([name for name in {TRACKERS} if name in sys.modules]))
sys.exit(status)
"""
# trackio finds its folder when it is imported.
READ_TRACKIO = """
import json
from trackio.sqlite_storage import SQLiteStorage as storage

print(json.dumps({run["name"]: storage.get_logs("tests", run["name"]) for run in storage.get_run_records("tests")}))
"""


@pytest.fixture
def run(tmp_path, base_model, texts):
    """Runs a tiny `gpt1 pretrain` or `finetune` in its own process, and returns the trackers that it imported."""
    corpus, script = tmp_path / "corpus.txt", tmp_path / "run.py"
    corpus.write_text("\n\n".join(texts), encoding="utf-8")
    script.write_text(SCRIPT)
    own = {
        "pretrain": {**TINY, "corpus": str(corpus), "tokenizer": base_model, "max_steps": 4, "warmup_steps": 2},
        "finetune": {"task": "cola", "model": base_model, "sample": True, "max_steps": 4, "warmup_steps": 2},
    }
    common = {"use_cpu": True, "disable_tqdm": True, "logging_steps": 1, "save_strategy": "no"}

    def run(command: str, **settings) -> list[str]:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(yaml.safe_dump({**own[command], **common, "output_dir": str(tmp_path / "out"), **settings}))
        (tmp_path / "wandb_dir").mkdir(exist_ok=True)
        home = {f"{name.upper()}_DIR": str(tmp_path / f"{name}_dir") for name in ("trackio", "wandb")}
        environment = {**os.environ, **home, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
        words = [sys.executable, str(script), command, "--config", str(recipe)]
        done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads((tmp_path / "imported.json").read_text())

    return run


def history(folder: Path, names=("loss", "learning_rate")) -> dict[int, dict[str, float]]:
    """Update -> the Trainer's own log of it."""
    entries = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return {entry["step"]: {name: entry[name] for name in names} for entry in entries if "loss" in entry}


def test_no_tracker_by_default(run, tmp_path):
    assert run("pretrain") == []
    assert not list(tmp_path.rglob("*tfevents*")) and not (tmp_path / "trackio_dir").exists()
    assert not (tmp_path / "out" / "runs").exists() and not list((tmp_path / "wandb_dir").iterdir())


@pytest.mark.parametrize(
    ("command", "settings", "names"),
    [
        ("pretrain", {}, {"out": "{tmp_path}/out"}),
        ("finetune", {"seeds": 2, "run_name": "mine"}, {f"out/seed-{n}": f"mine-seed-{n}" for n in (42, 43)}),
    ],
    ids=["pretrain", "finetune"],
)
def test_tensorboard_and_trackio_have_every_update(run, tmp_path, command, settings, names):
    for name in ("tensorboard", "trackio"):
        pytest.importorskip(name, reason="needs the extra `tracking`")
    trackers = ["tensorboard", "trackio"]
    assert run(command, report_to=trackers, project="tests", **settings) == trackers
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio_dir")}
    words = [sys.executable, "-c", READ_TRACKIO]
    read = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    runs = json.loads(read.stdout.splitlines()[-1])
    names = {folder: name.format(tmp_path=tmp_path) for folder, name in names.items()}
    assert set(runs) == set(names.values())  # training, and what is scored after it

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for folder, name in names.items():
        expected = history(tmp_path / folder)
        assert list(expected) == [1, 2, 3, 4]
        assert expected[1]["learning_rate"] == 0 and expected[3]["learning_rate"] > expected[4]["learning_rate"] > 0

        (events,) = (tmp_path / folder / "runs").iterdir()
        accumulator = EventAccumulator(str(events))
        accumulator.Reload()
        for key in ("loss", "learning_rate"):
            found = {event.step: event.value for event in accumulator.Scalars(f"train/{key}")}
            assert found == pytest.approx({step: entry[key] for step, entry in expected.items()}, rel=1e-6)
        assert "max_steps" in accumulator.Tensors("args/text_summary")[0].tensor_proto.string_val[0].decode()

        logged = [entry for entry in runs[name] if "train/loss" in entry]
        found = {
            entry["train/global_step"]: {key: entry[f"train/{key}"] for key in ("loss", "learning_rate")}
            for entry in logged
        }
        assert found == {step: pytest.approx(entry) for step, entry in expected.items()}


def test_wandb_offline(run, tmp_path):
    pytest.importorskip("wandb")
    assert run("pretrain", report_to="wandb", run_name="first") == ["wandb"]
    (file,) = (tmp_path / "wandb_dir").rglob("run-*.wandb")
    # A log of blocks of 32 KiB, each with a header of 7 bytes; values are JSON.
    data = file.read_bytes()
    content = b"".join(data[at + 7 : at + (1 << 15)] for at in range(0, len(data), 1 << 15))
    assert b"train/loss" in content
    for step, entry in history(tmp_path / "out").items():
        assert repr(entry["loss"]).encode() in content, step
