"""A task on a user's own files goes wherever a built-in one does: zero-shot, plans and their cost."""

import json
import shutil

import pytest
import yaml
from helpers.data import write_jsonl

from gpt1_hf import load_task
from gpt1_hf.analysis.plan.cost import estimate
from gpt1_hf.analysis.plan.plan import Plan
from gpt1_hf.analysis.zero_shot import heuristic_of
from gpt1_hf.cli import main
from gpt1_hf.errors import UsageError
from gpt1_hf.evaluation.results import RESULTS
from gpt1_hf.resources import SAMPLES


def copy_sample(folder, task_id: str, change=lambda row: row, **keys) -> str:
    """Write the sample of a built-in task as a user's own files and YAML; return the YAML."""
    task = load_task(task_id)
    for split in ("train", "validation"):
        rows = [json.loads(line) for line in (SAMPLES / task_id / f"{split}.jsonl").read_text().splitlines()]
        write_jsonl(folder / f"{split}.jsonl", [change(row) for row in rows])
    content = {
        "train_file": "train.jsonl",
        "validation_file": "validation.jsonl",
        "input_format": task.input_format,
        "columns": {name: own if isinstance(own, str) else list(own) for name, own in task.columns.items()},
        "label_column": task.label_column,
        "label_names": list(task.label_names),
        "metric": task.metric,
    }
    path = folder / f"own_{task_id}.yaml"
    path.write_text(yaml.safe_dump({**content, **keys}), encoding="utf-8")
    return str(path)


def zero_shot(task: str, base_model: str, out, *argv: str) -> tuple[list[dict], list[dict]]:
    assert main(["zero-shot", "--task", task, "--model", base_model, "--output_dir", str(out), *argv]) == 0
    predictions = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    return json.loads((out / RESULTS).read_text()), predictions


@pytest.mark.parametrize("task_id", ["cola", "race", "sst2"])
def test_a_copy_of_a_task_is_answered_like_the_task(task_id, base_model, tmp_path):
    own, predictions = zero_shot(copy_sample(tmp_path, task_id), base_model, tmp_path / "own")
    expected, known = zero_shot(task_id, base_model, tmp_path / "built_in", "--sample")
    answers = ("label", "prediction", "scores", "truncated")
    assert [[row[key] for key in answers] for row in predictions] == [[row[key] for key in answers] for row in known]
    # Not on Figure 2's scale, and beside no number of the paper.
    (result,) = own
    assert (result["task"], result["metric"]) == (f"own_{task_id}", expected[0]["metric"])
    assert (result["value"], result["paper"], result["prior"]) == (expected[0]["value"], None, None)
    assert str(tmp_path) not in (tmp_path / "own" / RESULTS).read_text().replace(base_model, "")


@pytest.mark.parametrize(("task_id", "other"), [("sst2", ["Pos", "Neg"]), ("cola", ["acceptable", "unacceptable"])])
def test_the_order_of_the_classes_does_not_matter(task_id, other, base_model, tmp_path):
    def swapped(row):
        return {**row, "label": other[1 - row["label"]]}

    own, predictions = zero_shot(
        copy_sample(tmp_path, task_id, swapped, label_names=other), base_model, tmp_path / "a"
    )
    expected, known = zero_shot(task_id, base_model, tmp_path / "b", "--sample")
    assert own[0]["value"] == expected[0]["value"]
    assert [row["prediction"] for row in predictions] == [1 - row["prediction"] for row in known]
    if task_id == "sst2":
        assert [row["scores"] for row in predictions] == [row["scores"][::-1] for row in known]


def test_tasks_without_a_heuristic_are_refused_in_one_sentence(base_model, tmp_path, capsys):
    for task_id in ("mnli", "stsb"):
        with pytest.raises(UsageError, match=f"no zero-shot heuristic for task {task_id}"):
            heuristic_of(load_task(task_id))
    path = copy_sample(tmp_path, "sst2", lambda row: {**row, "label": "bA"[row["label"]]}, label_names=["A", "b"])
    assert main(["zero-shot", "--task", path, "--model", base_model, "--output_dir", str(tmp_path / "out")]) == 2
    assert "no zero-shot heuristic for task own_sst2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_story_cloze_is_answered_as_race_is_and_beside_no_number_of_fine_tuned_models(base_model, tmp_path):
    assert heuristic_of(load_task("story_cloze")).random_guess == 50
    (result,), _ = zero_shot("story_cloze", base_model, tmp_path, "--sample")
    assert (result["metric"], result["paper"], result["prior"]) == ("accuracy", None, None)


def test_a_plan_takes_yaml_files_and_names_runs_by_their_ids(write_plan, tmp_path):
    path = copy_sample(tmp_path, "sst2")
    finetune = {"max_train_examples": 8, "max_steps": 1, "use_cpu": True}
    variants = {"full": {"model": "transformer"}}

    def read():
        return Plan.read(write_plan(tasks={path: {"seeds": 2}, "cola": None}, finetune=finetune, variants=variants))

    runs = read().runs()[1:]
    assert [run.name.split("/")[1] for run in runs] == ["own_sst2", "own_sst2", "cola"]
    assert runs[0].arguments().task == path
    hashes = [run.hash for run in runs]

    cost = estimate(runs[0], tokens_per_second=1000.0)
    assert cost.minutes > 0 and not cost.reason

    # Another place is the same run; other data or other keys are not.
    content = (tmp_path / "own_sst2.yaml").read_text()
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("train.jsonl", "validation.jsonl", "own_sst2.yaml"):
        (moved / name).write_bytes((tmp_path / name).read_bytes())
    again = Plan.read(write_plan(tasks={str(moved / "own_sst2.yaml"): {}}, finetune=finetune, variants=variants))
    assert again.runs()[1].hash == hashes[0]
    (tmp_path / "own_sst2.yaml").write_text(content + "other_metrics: [f1]\n")
    assert read().runs()[1].hash != hashes[0] and read().runs()[3].hash == hashes[2]
    (tmp_path / "own_sst2.yaml").write_text(content)
    assert read().runs()[1].hash == hashes[0]
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write((tmp_path / "train.jsonl").read_text().splitlines()[0] + "\n")
    assert read().runs()[1].hash != hashes[0]

    both = {path: None, str(moved / "own_sst2.yaml"): None}
    with pytest.raises(UsageError, match="have the same id: give one file another name"):
        Plan.read(write_plan(tasks=both, finetune=finetune, variants=variants)).runs()
    with pytest.raises(UsageError, match="there is no task file nowhere.yaml"):
        Plan.read(write_plan(tasks={"nowhere.yaml": None})).runs()


def test_a_plan_on_own_files_is_run_reported_and_not_run_twice(write_plan, base_model, tmp_path, capsys):
    path = copy_sample(tmp_path, "sst2", other_metrics=["f1"])
    finetune = {"max_train_examples": 8, "max_steps": 1, "use_cpu": True, "disable_tqdm": True, "model": base_model}
    variants = {"with_auxiliary": {}, "without_auxiliary": {"lm_coef": 0.0}}
    plan = write_plan(tasks={path: {"seeds": 2}}, finetune=finetune, variants=variants, models={})
    command = ["analyze", "auxiliary", "--config", plan]
    assert main([*command, "--dry_run", "--tokens_per_second", "1000"]) == 0
    assert "own_sst2/with_auxiliary/seed-42" in capsys.readouterr().out
    assert main(command) == 0
    assert "| own\\_sst2 | 8 " in (tmp_path / "runs" / "analysis.md").read_text()
    assert main(command) == 0
    assert capsys.readouterr().err.count("finished earlier") == 4
    assert main(["report", str(tmp_path / "runs")]) == 0
    text = (tmp_path / "runs" / "report.md").read_text()
    start = text.index("## Other data sets")
    own = text[start : text.index("\n## ", start)]
    lines = [line for line in own.splitlines() if line.startswith("| own")]
    constant = [line for line in lines if "constant answer" in line]
    assert len(lines) == 6 and len(constant) == 2  # two metrics, two settings
    assert all(" ± " in line and "(2)" in line for line in lines if line not in constant)
    assert "Not run:" in text and str(tmp_path) not in own


def test_context_lengths_of_a_model_of_ones_own(base_model, tmp_path):
    path = copy_sample(tmp_path, "race")
    run = ["finetune", "--task", path, "--model", base_model, "--output_dir", str(tmp_path / "run")]
    assert main([*run, "--max_steps", "1", "--use_cpu", "--report_to", "none", "--disable_tqdm", "true"]) == 0
    measure = ["analyze", "context-length", "--finetuned", str(tmp_path / "run"), "--task", path]
    assert main([*measure, "--lengths", "16", "32", "--output_dir", str(tmp_path / "lengths")]) == 0
    assert sorted(file.name for file in (tmp_path / "lengths").glob("own_race-*")) == ["own_race-16", "own_race-32"]


def test_checkpoints_are_scored_on_own_tasks(base_model, tmp_path, capsys):
    own = copy_sample(tmp_path, "race")
    checkpoint = tmp_path / "run" / "checkpoint-5"
    shutil.copytree(base_model, checkpoint)
    measure = ["analyze", "zero-shot", "--run", str(tmp_path / "run"), "--tasks", own, "--max_examples", "4"]
    assert main([*measure, "--output_dir", str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out" / RESULTS).read_text())
    assert [(result["task"], result["metric"]) for result in results] == [("own_race", "accuracy")]
    assert f"accuracy {results[0]['value']:.1f}" in (tmp_path / "out" / "analysis.md").read_text()
