"""`gpt1 finetune --task all`: every task by its recipe; finished tasks are kept, and failures are named."""

import json
import shutil

import pytest

from gpt1_hf import tasks
from gpt1_hf.cli import main
from gpt1_hf.evaluation.results import Result
from gpt1_hf.resources import SAMPLES
from gpt1_hf.tasks import all_tasks
from gpt1_hf.training import finetune as finetuning
from gpt1_hf.training.finetune_all import comparison


FEW = ["cola", "mrpc", "story_cloze"]


def command(base_model, tmp_path, *more) -> list[str]:
    flags = "--task all --max_train_examples 8 --num_train_epochs 1 --per_device_train_batch_size 4 --max_length 32"
    place = ["--model", base_model, "--output_dir", str(tmp_path / "all")]
    return ["finetune", *flags.split(), "--disable_tqdm", "True", "--use_cpu", "True", *place, *more]


def copy_sample(task_id: str, data):
    """The sample of a GLUE task as a local copy of its data set."""
    shutil.copytree(SAMPLES / task_id, data / "nyu-mll" / "glue" / task_id)


def test_all_tasks_resume_where_they_stopped(base_model, tmp_path, monkeypatch, capsys):
    few = {task_id: all_tasks()[task_id] for task_id in FEW}
    monkeypatch.setattr(tasks, "all_tasks", lambda zero_shot=False: few)
    data, out = tmp_path / "data", tmp_path / "all"
    copy_sample("cola", data)
    argv = command(base_model, tmp_path, "--data_dir", str(data))
    assert main(argv) == 0
    printed = capsys.readouterr().err
    assert "mrpc: not run: " in printed
    rows = json.loads((out / "results.json").read_text())
    assert [(row["task"], row["metric"]) for row in rows] == [("cola", "matthews_correlation")]
    assert (out / "cola" / "model.safetensors").is_file()
    table = (out / "results.md").read_text()
    assert "| cola" in table
    assert "- not run: story_cloze: " in table
    settings = json.loads((out / "cola" / "settings.json").read_text())
    assert (settings["num_train_epochs"], settings["learning_rate"]) == (1.0, 6.25e-5)

    # The data of one more task is available now: only that task is trained.
    copy_sample("mrpc", data)
    train, trained = finetuning.finetune_once, []

    def noted(run, task, rows):
        trained.append(task.id)
        return train(run, task, rows)

    monkeypatch.setattr(finetuning, "finetune_once", noted)
    assert main(argv) == 0
    assert trained == ["mrpc"]
    assert "cola, seed 42: already finished" in capsys.readouterr().err
    rows = json.loads((out / "results.json").read_text())
    assert {row["task"] for row in rows} == {"cola", "mrpc"}

    # Nothing is left to do, so missing data do not matter.
    shutil.rmtree(data)
    assert main(argv) == 0
    assert trained == ["mrpc"]


def test_bad_settings_end_at_once(base_model, tmp_path, capsys):
    assert main(command("no/such/model", tmp_path)) == 1
    assert "no/such/model" in capsys.readouterr().err
    assert main(command(base_model, tmp_path, "--data_dir", str(tmp_path))) == 1
    assert "no task could be run; the error of the first, cola: cannot load" in capsys.readouterr().err
    assert not (tmp_path / "all" / "results.json").exists()


def test_the_table_compares_before_paper_and_ours():
    spread = {"median": 5.0, "mean": 6.0, "std": 3.6, "min": 3.0, "max": 10.0, "seeds": [1, 2, 3]}
    rte = {"task": "rte", "split": "validation", "metric": "accuracy", "n_examples": 277, "paper": 56.0, "model": "m"}
    results = [
        Result(**rte, value=value, seed=seed, details={"over_seeds": spread}, prior=61.7)
        for seed, value in enumerate((3.0, 5.0, 10.0), start=1)
    ]
    lines = comparison(results, {"race": "no data"}, "github").splitlines()
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells == ["rte", "validation", "accuracy", "61.7", "56.0", "5.0", "3.0 to 10.0", "3", "277"]
    assert lines[-1] == "- not run: race: no data"


@pytest.mark.slow
def test_all_twelve_on_the_samples(base_model, tmp_path):
    assert main(command(base_model, tmp_path, "--sample", "True")) == 0
    rows = json.loads((tmp_path / "all" / "results.json").read_text())
    assert {row["task"] for row in rows} == {*all_tasks(), "glue"}


def test_pushing_all_tasks_to_one_repository_is_refused(base_model, tmp_path, capsys):
    assert main(command(base_model, tmp_path, "--sample", "True", "--push_to_hub", "True")) != 0
    assert "push_to_hub works with one task only" in capsys.readouterr().err
    assert not list((tmp_path / "all").glob("*"))
