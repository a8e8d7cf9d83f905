"""Runs that are killed, interrupted, damaged or out of disk resume to the losses and weights of an uninterrupted
run."""

import errno
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from helpers.runs import assert_same_run, before, flip_a_bit, halfway, log_of, mounted, run_in_child

import gpt1_hf.training.exact_resume
import gpt1_hf.training.pretrain
from gpt1_hf import GPT1Trainer
from gpt1_hf.cli import main
from gpt1_hf.errors import GPT1Error
from gpt1_hf.training.manifest import MANIFEST, find_damage, last_complete_checkpoint, rotate, write_manifest
from gpt1_hf.training.run_folder import PRETRAINING_SETTINGS


pytestmark = pytest.mark.usefixtures("one_thread")


UPDATES = 9  # four an epoch, so that two epochs end before
SETTINGS = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "max_steps": UPDATES,
    "warmup_steps": 3,
    "learning_rate": 1e-2,
    "per_device_train_batch_size": 40,
    "gradient_accumulation_steps": 1,
    "save_steps": 2,
    "save_total_limit": 2,
    "logging_steps": 1,
    "disable_tqdm": "true",
    "use_cpu": "true",
}


@pytest.fixture(scope="module", autouse=True)
def no_measuring():
    """Measuring the machine's peak, which no test here needs, takes longer than a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpt1_hf.training.pretrain, "matmul_peak", lambda *_: 1e12)
        yield


@pytest.fixture(scope="module")
def corpus(texts, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for part in range(4):
        (folder / f"book{part}.txt").write_text("\n\n".join(texts[part::4]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def argv(corpus, base_model, tmp_path_factory):
    """Makes the command line of a run: the settings above, with changes."""
    tokens = str(tmp_path_factory.mktemp("tokens"))

    def argv(output_dir, **changes) -> list[str]:
        settings = {"corpus": corpus, "tokenizer": base_model, "tokens_dir": tokens, **SETTINGS, **changes}
        settings["output_dir"] = output_dir
        return ["pretrain", *(word for name, value in settings.items() for word in (f"--{name}", str(value)))]

    return argv


@pytest.fixture(scope="module")
def uninterrupted(argv, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert main(argv(folder)) == 0
    return folder


def scoring():
    def trapped(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)

    gpt1_hf.training.pretrain.score_documents = trapped


def test_a_run_killed_repeatedly_equals_the_uninterrupted_one(argv, uninterrupted, tmp_path):
    saving = gpt1_hf.training.exact_resume
    kill = signal.SIGKILL
    steps = [
        # trap, and the checkpoints after it
        (before(GPT1Trainer, "training_step", 1, kill), []),
        (before(GPT1Trainer, "training_step", 3, kill), [2]),
        (halfway("optimizer.pt", 4), [2, 4]),
        (before(saving, "write_manifest", 4, kill), [2, 4]),  # all files, at the end of an epoch
        (before(saving, "rotate", 6, kill), [2, 4, 6]),
        (before(GPT1Trainer, "training_step", 7, kill), [2, 4, 6]),
        (halfway("rng_state.pth", 8), [2, 4, 6, 8]),
        (before(saving, "rotate", 8, kill), [2, 4, 6, 8]),
        (scoring, [8, 9]),
    ]
    for number, (trap, left) in enumerate(steps):
        assert run_in_child(argv(tmp_path), trap) == -kill, number
        found = sorted(int(path.name.removeprefix("checkpoint-")) for path in tmp_path.glob("checkpoint-*"))
        assert found == left, number
        assert not (tmp_path / PRETRAINING_SETTINGS).exists()
    assert run_in_child(argv(tmp_path)) == 0
    assert_same_run(tmp_path, uninterrupted)
    assert [entry["epoch"] for entry in log_of(tmp_path)][3:8:4] == [1, 2]


def test_log_lines_around_an_interruption_are_the_same(argv, tmp_path):
    settings = {"logging_steps": 4, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 20}
    settings |= {"eval_strategy": "steps", "eval_steps": 3}
    assert main(argv(tmp_path / "whole", **settings)) == 0
    trap = before(GPT1Trainer, "training_step", 7, signal.SIGKILL)
    assert run_in_child(argv(tmp_path / "killed", **settings), trap) == -signal.SIGKILL
    assert run_in_child(argv(tmp_path / "killed", **settings)) == 0
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
    assert [entry["step"] for entry in log_of(tmp_path / "whole") if "loss" in entry] == [4, 8]
    assert [entry["step"] for entry in log_of(tmp_path / "whole") if "eval_loss" in entry] == [3, 6, 9]


@pytest.mark.parametrize("update", [3, 4, 9])
def test_sigterm_saves_after_the_update_and_the_same_command_resumes(argv, uninterrupted, tmp_path, capfd, update):
    trap = before(GPT1Trainer, "training_step", update - 1, signal.SIGTERM)
    assert run_in_child(argv(tmp_path, save_steps=100), trap) == 128 + signal.SIGTERM
    assert find_damage(tmp_path / f"checkpoint-{update}") is None
    last_line = capfd.readouterr().err.strip().splitlines()[-1]
    assert last_line.startswith(f"gpt1: SIGTERM ended training after update {update}; the same command resumes from ")
    assert not (tmp_path / PRETRAINING_SETTINGS).exists()
    assert run_in_child(argv(tmp_path, save_steps=100)) == 0
    assert_same_run(tmp_path, uninterrupted)


def test_a_finished_run_is_not_trained_again(argv, uninterrupted, monkeypatch, capsys):
    monkeypatch.setattr(GPT1Trainer, "train", None)
    written = (uninterrupted / "model.safetensors").stat().st_mtime_ns
    assert main(argv(uninterrupted)) == 0
    shown = capsys.readouterr()
    assert "is already finished: nothing is trained" in shown.err and "perplexity" in shown.out
    assert (uninterrupted / "model.safetensors").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"learning_rate": 2e-2}, "learning_rate was 0.01 and is 0.02 now"),
        ({"seed": 1}, "seed was 42 and is 1"),
        ({"hidden_size": 16}, "hidden_size was 32 and is 16"),
        ({"max_steps": 12}, "max_steps was 9 and is 12"),
        ({"per_device_train_batch_size": 16}, "rows per update was 40 and is 16"),
        ({"gradient_accumulation_steps": 2}, "rows per update was 40 and is 80"),
        ({"spans": "neighbouring"}, "spans was random"),
        ({"tokenizer": "gpt1-tiny"}, "tokenizer digest was "),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_checkpoints_of_another_run_are_refused(argv, uninterrupted, tmp_path, capsys, changes, name, finished):
    shutil.copytree(uninterrupted / "checkpoint-8", tmp_path / "checkpoint-8")
    if finished:
        shutil.copy(uninterrupted / PRETRAINING_SETTINGS, tmp_path)
    changes = {"tokens_dir": tmp_path / "tokens", **changes}
    assert main(argv(tmp_path, **changes)) == 1
    message = capsys.readouterr().err.strip()
    assert "\n" not in message and name in message and "another --output_dir" in message
    assert (tmp_path / "checkpoint-8" / "optimizer.pt").exists()


def test_the_corpus_is_compared_by_its_content(argv, corpus, uninterrupted, tmp_path, capsys):
    run, moved = tmp_path / "run", tmp_path / "moved"
    shutil.copytree(uninterrupted / "checkpoint-8", run / "checkpoint-8")
    shutil.copytree(corpus, moved)
    assert run_in_child(argv(run, corpus=moved, tokens_dir=tmp_path / "tokens")) == 0
    assert_same_run(run, uninterrupted)
    (run / PRETRAINING_SETTINGS).unlink()
    (moved / "book3.txt").write_text("another book")
    capsys.readouterr()
    assert main(argv(run, corpus=moved, tokens_dir=tmp_path / "tokens")) == 1
    assert "corpus was " in capsys.readouterr().err


def test_starting_from_the_beginning_needs_a_folder_without_checkpoints(argv, uninterrupted, capsys):
    assert main(argv(uninterrupted, resume_from_checkpoint="false")) == 1
    assert "resume_from_checkpoint is false, but " in capsys.readouterr().err


DAMAGES = {
    "truncated": (lambda folder: os.truncate(folder / "optimizer.pt", 1000), "optimizer.pt has 1000 of "),
    "missing": (lambda folder: (folder / "trainer_state.json").unlink(), "trainer_state.json is missing"),
    "flipped": (lambda folder: flip_a_bit(folder / "model.safetensors"), "model.safetensors is damaged"),
    "no manifest": (lambda folder: (folder / MANIFEST).unlink(), "it was not saved completely"),
    "half a manifest": (lambda folder: os.truncate(folder / MANIFEST, 100), "it was not saved completely"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(uninterrupted, tmp_path, kind, caplog):
    for update in (8, 9):
        shutil.copytree(uninterrupted / f"checkpoint-{update}", tmp_path / f"checkpoint-{update}")
    assert last_complete_checkpoint(tmp_path).name == "checkpoint-9"
    assert not caplog.records
    spoil, message = DAMAGES[kind]
    spoil(tmp_path / "checkpoint-9")
    assert last_complete_checkpoint(tmp_path).name == "checkpoint-8"
    assert len(caplog.records) == 1 and f"checkpoint-9 is skipped: {message}" in caplog.text


def test_the_run_resumes_from_the_one_before(argv, uninterrupted, tmp_path):
    for update in (8, 9):
        shutil.copytree(uninterrupted / f"checkpoint-{update}", tmp_path / f"checkpoint-{update}")
    flip_a_bit(tmp_path / "checkpoint-9" / "optimizer.pt")
    named = argv(tmp_path, resume_from_checkpoint=tmp_path / "checkpoint-9")
    assert run_in_child(named) == 1
    assert run_in_child(argv(tmp_path)) == 0
    assert_same_run(tmp_path, uninterrupted)


def test_rotation_keeps_the_checkpoint_just_saved_and_counts_whole_ones(tmp_path):
    def fill(*updates):
        shutil.rmtree(tmp_path)
        for update in updates:
            folder = tmp_path / f"checkpoint-{abs(update)}"
            folder.mkdir(parents=True)
            if update > 0:
                write_manifest(folder, {}, has_state=True)

    def left():
        return sorted(int(path.name.removeprefix("checkpoint-")) for path in tmp_path.iterdir())

    current = tmp_path / "checkpoint-6"
    for updates, limit, best, expected in [
        ([2, 4, 6], 2, None, [4, 6]),
        ([2, 4, 6], None, None, [2, 4, 6]),
        ([2, -4, 6], 2, None, [2, 6]),  # 4 is incomplete
        ([4, 6, 7], 1, None, [6]),  # 7 was skipped
        ([2, 4, 6], 2, 2, [2, 6]),
        ([2, 4, 6], 1, 2, [2, 6]),
    ]:
        fill(*updates)
        rotate(current, limit, best and f"where/it/was/before/checkpoint-{best}")
        assert left() == expected


def test_a_full_disk_ends_the_run_with_one_sentence(argv, uninterrupted, tmp_path, monkeypatch, capsys):
    save = torch.save

    def full(content, path, *args, **kwargs):
        if "checkpoint-4" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, path, *args, **kwargs)

    monkeypatch.setattr(torch, "save", full)
    assert main(argv(tmp_path)) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(r"cannot write \S*checkpoint-4 \(No space left .*checkpoint-2 is unchanged; make room", message)
    assert find_damage(tmp_path / "checkpoint-2") is None
    assert not (tmp_path / "checkpoint-4").exists()
    monkeypatch.undo()
    assert main(argv(tmp_path)) == 0
    assert_same_run(tmp_path, uninterrupted)


@pytest.fixture
def small_disk(tmp_path):
    """Room for one checkpoint."""
    with mounted(tmp_path / "disk", 500) as folder:
        yield folder


def test_a_small_disk_gets_full_and_read_only(argv, uninterrupted, small_disk, capfd):
    size = sum(file.stat().st_size for file in (uninterrupted / "checkpoint-8").rglob("*"))
    assert size < 500_000 < 2 * size
    assert run_in_child(argv(small_disk)) == 1
    message = capfd.readouterr().err.strip().splitlines()[-1]
    assert re.fullmatch(r"gpt1: error: cannot write \S*checkpoint-4 \(.*\): \S*checkpoint-2 is unchanged.*", message)
    assert last_complete_checkpoint(small_disk).name == "checkpoint-2"

    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert run_in_child(argv(small_disk)) == 1
    message = capfd.readouterr().err.strip().splitlines()[-1]
    assert re.fullmatch(
        r"gpt1: error: cannot write \S* \(Read-only file system\): choose another --output_dir", message
    )

    subprocess.run(["mount", "-o", "remount,rw,size=20m", str(small_disk)], check=True)
    assert run_in_child(argv(small_disk)) == 0
    assert_same_run(small_disk, uninterrupted)


def test_an_output_folder_that_cannot_be_created_is_reported_at_once(argv, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(argv(tmp_path / "file" / "run")) == 1
    message = capsys.readouterr().err.strip()
    assert re.fullmatch(
        r"gpt1: error: cannot write \S*file/run \(Not a directory\): choose another --output_dir", message
    )


def test_other_errors_are_not_reported_as_a_full_disk(argv, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(RuntimeError, match="out of memory") as error:
        main(argv(tmp_path))
    assert not isinstance(error.value, GPT1Error)
