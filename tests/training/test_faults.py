"""Fine-tuning (single, all tasks, plans) that is killed, damaged, out of disk or started twice: nothing is lost."""

import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import subprocess

import pytest
import torch
from helpers.runs import assert_same_run, before, flip_a_bit, halfway, mounted, run_in_child

import gpt1_hf.checkpoints.conversion
import gpt1_hf.training.exact_resume
import gpt1_hf.training.finetune
import gpt1_hf.training.pretrain
from gpt1_hf import GPT1ForCausalLM, GPT1Trainer, tasks
from gpt1_hf.analysis.plan.plan import Plan, carry_out
from gpt1_hf.cli import main
from gpt1_hf.resources import SAMPLES
from gpt1_hf.tasks import all_tasks
from gpt1_hf.training import manifest, run_folder
from gpt1_hf.training.manifest import last_complete_checkpoint
from gpt1_hf.training.run_folder import PLAN_RECORD, lock


pytestmark = pytest.mark.usefixtures("one_thread")


UPDATES = 12
SETTINGS = {
    "task": "cola",
    "max_train_examples": 24,
    "global_batch_size": 4,
    "num_train_epochs": 2,
    "learning_rate": 1e-3,
    "max_length": 32,
    "save_strategy": "steps",
    "save_steps": 2,
    "save_total_limit": 2,
    "resume_from_checkpoint": "true",
    "logging_steps": 1,
    "disable_tqdm": "true",
    "use_cpu": "true",
}
KILL = signal.SIGKILL


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The samples of some tasks, as local copies of their data sets."""
    folder = tmp_path_factory.mktemp("data")
    for task_id in ("cola", "rte"):
        shutil.copytree(SAMPLES / task_id, folder / "nyu-mll" / "glue" / task_id)
    return folder


@pytest.fixture(scope="module")
def argv(base_model, data):
    """Makes the command line of a run: the settings above, with changes."""

    def argv(output_dir, **changes) -> list[str]:
        settings = {"model": base_model, "data_dir": data, **SETTINGS, **changes, "output_dir": output_dir}
        return ["finetune", *(word for name, value in settings.items() for word in (f"--{name}", str(value)))]

    return argv


@pytest.fixture(scope="module")
def uninterrupted(argv, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert run_in_child(argv(folder)) == 0
    return folder


def after(seconds: float):
    """Trap that ends the process after this many seconds of CPU time, as SIGKILL would."""

    def trap():
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, seconds)

    return trap


def within(owner, name: str):
    """Trap that sends SIGKILL when a function returns, before its caller continues."""

    def trap():
        function = getattr(owner, name)

        def trapped(*args, **kwargs):
            function(*args, **kwargs)
            os.kill(os.getpid(), KILL)

        setattr(owner, name, trapped)

    return trap


def last_line(capfd) -> str:
    return capfd.readouterr().err.strip().splitlines()[-1]


@pytest.mark.slow
def test_a_run_killed_at_twenty_random_points_equals_the_uninterrupted_one(argv, uninterrupted, tmp_path):
    begin = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    assert run_in_child(argv(tmp_path / "timed")) == 0
    whole = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - begin
    rng, killed, number = random.Random(0), 0, 0
    while killed < 20:
        number += 1
        folder = tmp_path / f"run{number}"
        for _ in range(5):
            status = run_in_child(argv(folder), after(rng.uniform(0.05, 1) * whole))
            assert status in (0, -signal.SIGPROF)
            if status == 0:
                break
            killed += 1
            if (folder / "results.json").exists():  # killed while it wrote its cards: its results are complete
                assert_same_run(folder, uninterrupted)
        else:
            assert run_in_child(argv(folder)) == 0
        assert_same_run(folder, uninterrupted)
        shutil.rmtree(folder)


@pytest.mark.slow
def test_a_run_killed_while_saving_equals_the_uninterrupted_one(argv, uninterrupted, tmp_path):
    saving, finetuning = gpt1_hf.training.exact_resume, gpt1_hf.training.finetune
    steps = [
        # trap, and the checkpoints after it
        (halfway("optimizer.pt", 2), [2]),
        (before(GPT1Trainer, "training_step", 5, KILL), [2, 4]),
        (before(saving, "write_manifest", 6, KILL), [2, 4, 6]),
        (before(saving, "rotate", 8, KILL), [4, 6, 8]),
        (within(finetuning, "save_full_model"), [10, 12]),
        (within(finetuning, "write_predictions"), [10, 12]),
    ]
    for number, (trap, left) in enumerate(steps):
        assert run_in_child(argv(tmp_path), trap) == -KILL, number
        assert sorted(map(manifest.update_of, manifest.checkpoints(tmp_path))) == left, number
        assert not (tmp_path / "results.json").exists()
    assert run_in_child(argv(tmp_path)) == 0
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.slow
def test_adapters_resume(argv, tmp_path):
    pytest.importorskip("peft")
    assert run_in_child(argv(tmp_path / "whole", peft="lora")) == 0
    trap = before(GPT1Trainer, "training_step", 7, KILL)
    assert run_in_child(argv(tmp_path / "killed", peft="lora"), trap) == -KILL
    assert run_in_child(argv(tmp_path / "killed", peft="lora")) == 0
    weights = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: os.truncate(folder / "optimizer.pt", 1000), "optimizer.pt has 1000 of "),
        (lambda folder: flip_a_bit(folder / "model.safetensors"), "model.safetensors is damaged"),
    ],
    ids=["truncated", "flipped"],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(argv, uninterrupted, tmp_path, caplog, spoil, said):
    for update in (10, 12):
        shutil.copytree(uninterrupted / f"checkpoint-{update}", tmp_path / f"checkpoint-{update}")
    spoil(tmp_path / "checkpoint-12")
    assert main(argv(tmp_path)) == 0
    assert f"checkpoint-12 is skipped: {said}" in caplog.text
    assert_same_run(tmp_path, uninterrupted)


def change_a_word(data):
    file = data / "nyu-mll" / "glue" / "cola" / "train.jsonl"
    file.write_text(file.read_text().replace('." ', '!" ').replace(" the ", " some "))


def test_changed_data_is_named(argv, data, uninterrupted, tmp_path, capfd):
    other = tmp_path / "data"
    shutil.copytree(data, other)
    run = tmp_path / "run"
    shutil.copytree(uninterrupted / "checkpoint-10", run / "checkpoint-10")
    change_a_word(other)
    assert run_in_child(argv(run, data_dir=other)) == 1
    assert re.search(
        r"checkpoint-10 belongs to a run with different settings \(training rows was \w+ and is \w+ now\)",
        last_line(capfd),
    )
    assert (run / "checkpoint-10" / "optimizer.pt").exists()


def test_two_runs_in_one_folder(argv, tmp_path, monkeypatch, capsys):
    context = multiprocessing.get_context("fork")
    ready, never = context.Event(), context.Event()

    def at_work():
        with lock(tmp_path):
            ready.set()
            never.wait()

    other = context.Process(target=at_work)
    other.start()
    assert ready.wait(30)
    monkeypatch.setattr(run_folder, "LOCK_TIMEOUT", 0.1)
    for command in (argv(tmp_path), ["pretrain", "--corpus", "x", "--tokenizer", "x", "--output_dir", str(tmp_path)]):
        assert main(command) == 1
        message = capsys.readouterr().err.strip()
        assert message.endswith(
            f"another process is working in {tmp_path}: wait until it ends, or use another --output_dir"
        )
    other.kill()
    other.join()
    with lock(tmp_path):  # the file still exists, but does not lock anybody out
        assert (tmp_path / run_folder.LOCK).exists()


def test_a_run_that_filled_a_small_disk_resumes_with_more_room(argv, uninterrupted, tmp_path, capfd):
    size = sum(file.stat().st_size for file in (uninterrupted / "checkpoint-12").rglob("*")) // 1024
    with mounted(tmp_path / "disk", size * 3 // 2) as disk:
        assert run_in_child(argv(disk)) == 1
        assert re.fullmatch(
            r"gpt1: error: cannot write \S*checkpoint-4 \(.*\): \S*checkpoint-2 is unchanged; make room .*",
            last_line(capfd),
        )
        assert last_complete_checkpoint(disk).name == "checkpoint-2"
        subprocess.run(["mount", "-o", f"remount,size={size * 6}k", str(disk)], check=True)
        assert run_in_child(argv(disk)) == 0
        assert_same_run(disk, uninterrupted)


def test_all_tasks_resume_where_they_were_killed(argv, tmp_path, monkeypatch, capfd):
    few = {task_id: all_tasks()[task_id] for task_id in ("cola", "rte")}
    monkeypatch.setattr(tasks, "all_tasks", lambda zero_shot=False: few)
    command = argv(tmp_path, task="all", num_train_epochs=1)
    rte = {"trap": before(GPT1Trainer, "training_step", 5, KILL)}

    def trap():  # in the second task only
        finetune_once = gpt1_hf.training.finetune.finetune_once

        def noted(run, task, rows):
            if task.id == "rte":
                rte["trap"]()
            return finetune_once(run, task, rows)

        gpt1_hf.training.finetune.finetune_once = noted

    assert run_in_child(command, trap) == -KILL
    assert {row["task"] for row in json.loads((tmp_path / "results.json").read_text())} == {"cola"}
    assert last_complete_checkpoint(tmp_path / "rte").name == "checkpoint-4"
    written = (tmp_path / "cola" / "model.safetensors").stat().st_mtime_ns
    capfd.readouterr()
    assert run_in_child(command) == 0
    assert "cola, seed 42: already finished" in capfd.readouterr().err
    assert {row["task"] for row in json.loads((tmp_path / "results.json").read_text())} == {"cola", "rte"}
    assert (tmp_path / "cola" / "model.safetensors").stat().st_mtime_ns == written


def test_a_finished_task_with_changed_data_is_trained_again(argv, data, tmp_path, caplog, capsys):
    other = tmp_path / "data"
    shutil.copytree(data, other)
    command = argv(tmp_path / "run", data_dir=other, seeds=2, max_steps=1, save_strategy="no")
    assert main(command) == 0
    assert main(command) == 0
    assert capsys.readouterr().err.count("already finished") == 2
    change_a_word(other)
    assert main(command) == 0
    assert "different settings (data was " in caplog.text
    assert "already finished" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_plan_resumes_where_it_was_killed(write_plan, tmp_path, monkeypatch):
    monkeypatch.setattr(gpt1_hf.training.pretrain, "matmul_peak", lambda *_: 1e12)
    few = {"models": {"transformer": {}}, "tasks": {"cola": None}, "variants": {"full": {"model": "transformer"}}}
    runs = Plan.read(write_plan(**few)).runs()

    def carried_out(trap=None) -> int:
        def work():
            torch.set_num_threads(1)
            if trap is not None:
                trap()
            raise SystemExit(len(carry_out(runs)))

        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        process.join(120)
        return process.exitcode

    assert carried_out(before(GPT1Trainer, "training_step", 1, KILL)) == -KILL
    assert [run.state for run in runs] == ["stopped", "to do"]
    # The model is finished, but the plan has not recorded it.
    assert carried_out(within(gpt1_hf.training.pretrain, "push_run")) == -KILL
    assert [run.state for run in runs] == ["stopped", "to do"]
    written = (runs[0].folder / "model.safetensors").stat().st_mtime_ns
    assert carried_out(before(GPT1Trainer, "training_step", 0, KILL)) == -KILL
    assert [run.state for run in runs] == ["finished", "stopped"]
    assert (runs[0].folder / "model.safetensors").stat().st_mtime_ns == written
    assert carried_out() == 0
    assert [run.state for run in runs] == ["finished", "finished"]
    # The plan is changed: another model is trained in the same folder.
    changed = Plan.read(write_plan(**few), overrides={"pretrain": {"learning_rate": 1e-2}}).runs()
    assert carry_out(changed) == {}
    assert (runs[0].folder / "model.safetensors").stat().st_mtime_ns != written


def test_a_run_that_another_process_works_on_is_left_alone(write_plan, monkeypatch):
    monkeypatch.setattr(run_folder, "LOCK_TIMEOUT", 0.1)
    run = Plan.read(write_plan()).runs()[0]
    with lock(run.folder, PLAN_RECORD + ".lock"):
        (missing,) = carry_out([run]).values()
    assert "another process is working" in missing
    assert run.state == "to do" and not (run.folder / PLAN_RECORD).exists()


def test_a_conversion_that_is_killed_leaves_no_model(base_model, tmp_path):
    command = ["convert", base_model, "--to", "openai-gpt", "--output_dir", str(tmp_path / "out")]
    assert run_in_child(command, within(gpt1_hf.checkpoints.conversion, "_to_openai")) == -KILL
    assert not (tmp_path / "out").exists()
    assert run_in_child(command) == 0
    back = ["convert", str(tmp_path / "out"), "--output_dir", str(tmp_path / "back")]
    assert run_in_child(back) == 0
    GPT1ForCausalLM.from_pretrained(tmp_path / "back")
