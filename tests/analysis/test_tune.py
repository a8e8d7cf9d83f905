"""`gpt1 analyze tune`: each arm's settings, chosen on training rows that are held out."""

import json
import math
from pathlib import Path

import pytest
import yaml

from gpt1_hf.analysis.plan import cost
from gpt1_hf.analysis.plan.plan import Plan
from gpt1_hf.analysis.plan.tuned import Tuned, write_tuned
from gpt1_hf.analysis.plan.tuning import at_the_edge, choose
from gpt1_hf.analysis.report.report import build
from gpt1_hf.analysis.report.runs import collect
from gpt1_hf.cli import main
from gpt1_hf.errors import GPT1Error
from gpt1_hf.tasks import load_task


TUNE = {"learning_rate": [1e-3, 1e-1], "held_out_share": 0.25}


@pytest.fixture
def write_tuned_plan(write_plan, base_model):
    """Write a plan that compares pre-training and none, with the key `tune`; return its path."""

    def write(**changes) -> str:
        plan = {
            "models": {},
            "finetune": {
                "model": base_model,
                "sample": True,
                "max_train_examples": 8,
                "max_steps": 2,
                "logging_steps": 1,
                "disable_tqdm": True,
                "use_cpu": True,
            },
            "variants": {"full": {}, "no_pretraining": {"from_scratch": True}},
            "tasks": {"cola": {"seeds": 2}, "sst2": None},
            "tune": TUNE,
        }
        return write_plan(**{**plan, **changes})

    return write


def analyze(action, path, *flags) -> int:
    return main(["analyze", action, "--config", path, *flags])


def values_of(folder: Path) -> list[dict]:
    return json.loads((folder / "results.json").read_text())


def table_of(out: str) -> str:
    """The table at the end of the output; the runs print their results before it."""
    return out[out.rindex("arm  ") :]


def test_each_arm_is_tuned_on_held_out_rows_and_the_plan_uses_its_choice(write_tuned_plan, tmp_path, capsys):
    path, runs = write_tuned_plan(), tmp_path / "runs"
    assert analyze("ablations", path) == 1
    err = capsys.readouterr().err
    assert f"run `gpt1 analyze tune --config {path}` first, or give --untuned" in err and not runs.exists()

    assert analyze("tune", path) == 0
    out = table_of(capsys.readouterr().out)
    content = yaml.safe_load((runs / "tuned.yaml").read_text())
    # By hand: the mean of the two tasks for each arm and value.
    for arm in ("full", "no_pretraining"):
        means = {}
        for rate in TUNE["learning_rate"]:
            (cola,), (sst2,) = (
                values_of(runs / "tune" / task / arm / f"learning_rate-{rate}" / "seed-42")
                for task in ("cola", "sst2")
            )
            assert {cola["split"], sst2["split"]} == {"held-out train"}
            n_rows = len(load_task("cola").load("train", sample=True))
            assert cola["n_examples"] == math.ceil(n_rows / 4) and cola["details"]["n_train_examples"] == 8
            means[rate] = (cola["value"] + sst2["value"]) / 2
            line = next(line for line in out.splitlines() if line.split()[:2] == [arm, f"{rate:g}"])
            assert line.split()[2:4] == [f"{cola['value']:.1f}", f"{sst2['value']:.1f}"]
            assert line.split()[4].rstrip(",") == f"{means[rate]:.1f}"
        assert content["chosen"][arm] == {"learning_rate": max(means, key=means.get)}
    assert out.count("chosen") == 2 and "# " + out.splitlines()[0] in (runs / "tuned.yaml").read_text()

    # Nothing is repeated.
    assert analyze("tune", path) == 0
    captured = capsys.readouterr()
    assert captured.err.count("finished earlier") == 8 and table_of(captured.out) == out

    # A hand may choose another value of the grid.
    content["chosen"] = {"full": {"learning_rate": 1e-3}, "no_pretraining": {"learning_rate": 1e-1}}
    (runs / "tuned.yaml").write_text(yaml.safe_dump(content))
    assert analyze("ablations", path, "--tasks", "sst2") == 0
    assert f"learning_rate of each arm: from {runs}/tuned.yaml" in capsys.readouterr().err
    rates = {}
    for arm in ("full", "no_pretraining"):
        (row,) = values_of(runs / "finetune" / "sst2" / arm / "seed-42")
        assert row["split"] == "validation"
        rates[arm] = row["details"]["learning_rate"]
    assert rates == {"full": 1e-3, "no_pretraining": 1e-1}

    # The report shows the pairs. Tuning runs are in no table or figure of results.
    report = build(collect(tmp_path), "runs")
    tuning = next(section for section in report.sections if section.title == "Tuning")
    (table,) = tuning.tables
    assert table.title == "Tuning of runs" and table.headers == ["arm", "learning rate", "cola", "sst2", "mean"]
    *scores, constant = table.rows
    assert [row[:2] for row in scores] == [[arm, rate] for arm in rates for rate in ("0.001", "0.1")]
    assert constant == ["constant answer", "", "0.0", f"{sst2['details']['constant_answer']:.1f}", constant[-1]]
    assert float(constant[-1]) == pytest.approx(sst2["details"]["constant_answer"] / 2, abs=0.05)
    shown = [figure for section in report.sections for figure in section.figures if figure.name.startswith("loss_")]
    assert [(figure.name, len(figure.series)) for figure in shown] == [("loss_sst2", 2)]
    text = "\n".join(section.markdown() for section in report.sections if section.title not in ("Tuning", "All runs"))
    assert "held-out train" not in text
    assert main(["report", str(tmp_path)]) == 0 and "Tuning of runs" in (tmp_path / "report.md").read_text()


def test_untuned_uses_the_plans_own_settings(write_tuned_plan, capsys):
    assert analyze("ablations", write_tuned_plan(), "--untuned", "--dry_run", "--tokens_per_second", "10") == 0
    out = capsys.readouterr().out
    assert "all: 6 of 6 runs to do" in out and "\ntune/" not in out


def test_a_plan_that_is_not_tuned_yet_can_be_estimated(write_tuned_plan, capsys):
    plan = write_tuned_plan()
    assert analyze("ablations", plan, "--dry_run", "--tokens_per_second", "10") == 0
    captured = capsys.readouterr()
    assert "all: 6 of 6 runs to do" in captured.out
    assert f"learning_rate: not tuned yet (gpt1 analyze tune --config {plan})" in captured.out + captured.err
    assert analyze("ablations", plan) == 1


@pytest.fixture
def chosen(write_tuned_plan, tmp_path):
    """Write a plan and a choice for it, without runs; return its path."""

    def write(**changes) -> str:
        path = write_tuned_plan(**changes)
        plan, tuned = Plan.read(path), Tuned()
        for trial in plan.tuning_runs()[1]:
            tuned[trial.arm] = {trial.task if plan.tune.per == "task" else "": plan.tune.combinations[1]}
        write_tuned(tmp_path / "runs" / "tuned.yaml", tuned, plan.identity(), ["By hand."])
        return path

    return write


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"tune": {**TUNE, "learning_rate": [1e-3, 1e-2]}}, "grid"),
        ({"tune": {**TUNE, "held_out_share": 0.5}}, "held out share"),
        ({"tune": {**TUNE, "seeds": 2}}, "seeds"),
        ({"tune": {**TUNE, "per": "task"}}, "per"),
        ({"tune": {**TUNE, "tasks": ["sst2"]}}, "tasks"),
        ({"variants": {"full": {}, "other": {"from_scratch": True}}}, "arms"),
        ({"variants": {"full": {}, "no_pretraining": {"from_scratch": True, "lm_coef": 0.0}}}, "settings of the runs"),
        ({"tasks": {"cola": {"max_train_examples": 4}, "sst2": None}}, "settings of the runs"),
    ],
)
def test_a_choice_for_another_plan_is_refused(chosen, write_tuned_plan, changes, differs):
    path = chosen()
    tuned = Plan.read(path).tuned("gpt1 analyze tune")
    assert tuned.settings("full", "cola") == {"learning_rate": 1e-1}
    with pytest.raises(GPT1Error, match=rf"was chosen for another plan \(different: {differs}\): run `again` again"):
        Plan.read(write_tuned_plan(**changes)).tuned("again")


def test_a_choice_holds_for_other_seeds_tasks_and_folders_of_data(chosen):
    path = chosen()
    plan = Plan.read(path, ["sst2"], overrides={"finetune": {"seeds": 3, "seed": 7, "data_dir": "elsewhere"}})
    runs = plan.runs(plan.tuned(""))
    assert len(runs) == 6 and {run.settings["learning_rate"] for run in runs} == {1e-1}


@pytest.mark.parametrize("content", ["[1, 2]", "chosen: 3", "holds_for: 3", "a: b: c", ""])
def test_a_damaged_choice_is_refused(chosen, tmp_path, capsys, content):
    path = chosen()
    (tmp_path / "runs" / "tuned.yaml").write_text(content)
    assert analyze("ablations", path) in (1, 2)
    err = capsys.readouterr().err
    assert "tuned.yaml" in err and err.count("\n") == 1
    with_nothing = yaml.safe_dump({"holds_for": Plan.read(path).identity(), "chosen": {"full": None}})
    (tmp_path / "runs" / "tuned.yaml").write_text(with_nothing)
    assert analyze("ablations", path) == 2
    assert "the settings of the arm full are not in the grid" in capsys.readouterr().err


def test_a_choice_outside_the_grid_is_refused(chosen, tmp_path, capsys):
    path, file = chosen(), tmp_path / "runs" / "tuned.yaml"
    file.write_text(file.read_text().replace("full: {learning_rate: 0.1}", "full: {learning_rate: 0.2}"))
    assert analyze("ablations", path) == 2
    assert "the settings of the arm full are not in the grid" in capsys.readouterr().err


def test_one_choice_for_each_task(write_tuned_plan, chosen, tmp_path):
    path = chosen(tune={**TUNE, "per": "task", "tasks": ["cola"]})
    plan = Plan.read(path)
    with pytest.raises(GPT1Error, match="no settings for the task sst2"):
        plan.runs(plan.tuned(""))
    assert {run.settings["learning_rate"] for run in Plan.read(path, ["cola"]).runs(plan.tuned(""))} == {1e-1}


def test_every_value_of_a_variants_list_is_an_arm(write_tuned_plan, base_model):
    variants = {"transfer": {"transfer_layers": "all"}}
    plan = Plan.read(write_tuned_plan(variants=variants, tune={**TUNE, "tasks": ["cola"]}))
    models, trials = plan.tuning_runs()
    assert models == [] and len(trials) == 3 * 2
    assert {trial.arm for trial in trials} == {f"transfer/transfer_layers-{n}" for n in range(3)}
    assert trials[-1].run.name == "tune/cola/transfer/transfer_layers-2/learning_rate-0.1/seed-42"


def test_settings_of_the_tuning(write_tuned_plan):
    finetune = {"score_train": True, "weight_decay": 0.1, "model": "gpt1-tiny"}
    tune = {
        "learning_rate": ["1e-4", 5e-4],
        "lm_coef": [0, 0.5],
        "seeds": 2,
        "tasks": {"cola": {"max_train_examples": 4}, "mrpc": {"held_out_share": 0.01}},
    }
    plan = Plan.read(write_tuned_plan(finetune=finetune, tune=tune, tasks={"cola": {"num_train_epochs": 6}}))
    _, trials = plan.tuning_runs()
    assert len(trials) == 2 * 2 * 2 * 4  # tasks, seeds, arms, combinations
    first = trials[0].run.settings
    assert (first["learning_rate"], first["lm_coef"], first["weight_decay"], first["seed"]) == (1e-4, 0.0, 0.1, 42)
    assert (first["max_train_examples"], first["num_train_epochs"], first["held_out_share"]) == (4, 6, 0.1)
    assert "score_train" not in first and trials[-1].run.settings["held_out_share"] == 0.01
    assert [run.settings["score_train"] for run in plan.runs()][0]


def test_values_are_read_as_finetune_reads_them(write_tuned_plan, chosen):
    tune = {
        "lr_scheduler_type": ["cosine", "linear"],
        "question_delimiter": [True, False],
        "num_train_epochs": [3, 1],
        "train_sampling_strategy": ["random", "sequential"],
    }
    plan = Plan.read(chosen(tune=tune))
    assert len(plan.tune.combinations) == 16
    _, trials = plan.tuning_runs()
    args = trials[1].run.arguments()
    assert (args.lr_scheduler_type, args.question_delimiter, args.num_train_epochs) == ("cosine", True, 3)
    assert args.train_sampling_strategy == "sequential"
    assert plan.tuned("").settings("full", "cola") == plan.tune.combinations[1]


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ({}, "needs a setting and its values"),
        ({"held_out_share": 0.1}, "needs a setting and its values"),
        ({"learning_rat": [1]}, "no setting of `gpt1 finetune`; did you mean learning_rate?"),
        ({"seed": [1, 2]}, "'seed' cannot be tuned, because it says what is compared"),
        ({"learning_rate": 1e-4}, "needs a list of values"),
        ({"learning_rate": []}, "needs a list of values"),
        ({"learning_rate": [[1e-4]]}, "needs a list of values"),
        ({"learning_rate": ["high"]}, "invalid float value: 'high'"),
        (
            {"learning_rate": [1e-4], "tasks": {"cola": {"learning_rate": 1}}},
            "learning_rate is the same for all tasks",
        ),
        ({"learning_rate": [1e-4], "tasks": {"cola": {"held_out_share": 0}}}, "must be above 0 and below 1, not 0"),
        ({"_n_gpu": [1]}, "'_n_gpu' cannot be tuned"),
        (["learning_rate"], "'tune' must be a mapping"),
        ({"learning_rate": [-1e-4]}, "learning_rate must be at least 0, not -0.0001"),
        ({"learning_rate": ["1e-4", 0.0001]}, "has the value 0.0001 twice"),
        ({**TUNE, "held_out_share": 1}, "must be above 0 and below 1, not 1"),
        ({**TUNE, "held_out_share": "much"}, "must be above 0 and below 1, not 'much'"),
        ({**TUNE, "seeds": 0}, "seeds must be at least 1"),
        ({**TUNE, "per": "seed"}, "'per' must be arm or task, not 'seed'"),
        ({**TUNE, "tasks": "cola"}, "'tasks' must be a list of task ids"),
        ({**TUNE, "tasks": {"cola": 3}}, "'cola' must be a mapping"),
        ({**TUNE, "tasks": ["colla"]}, "did you mean cola?"),
    ],
)
def test_invalid_keys_are_refused(write_tuned_plan, tune, message, capsys):
    assert analyze("tune", write_tuned_plan(tune=tune), "--dry_run") == 2
    assert message in capsys.readouterr().err


def test_a_value_that_only_transformers_refuses_has_no_traceback(write_tuned_plan, capsys):
    """The cost of such a run is unknown, and it fails alone."""
    path = write_tuned_plan(tune={"lr_scheduler_type": ["linear", "lineer"], "tasks": ["sst2"]})
    assert analyze("tune", path, "--dry_run", "--tokens_per_second", "9") == 0
    assert "2 runs of unknown cost" in capsys.readouterr().out
    assert analyze("tune", path) == 1
    err = capsys.readouterr().err
    assert "lineer is not a valid SchedulerType" in err and "2 of 4 are not" in err


def test_wrong_usage_ends_in_one_sentence(write_tuned_plan, write_plan, capsys):
    path = write_tuned_plan()
    cases = {
        "--finetune.learning_rate is a setting that the plan tunes": [path, "--finetune.learning_rate", "1"],
        "--finetune.seeds does not change the tuning": [path, "--finetune.seeds", "3"],
        "held_out_share of a tuning run must be above 0": [path, "--finetune.held_out_share", "0"],
        "does not tune on the task rte, only on cola, sst2": [path, "--tasks", "rte"],
        "unknown argument --untuned": [path, "--untuned"],
        "has no key 'tune'": [write_plan_without_tune(path)],
    }
    for message, argv in cases.items():
        assert analyze("tune", *argv) == 2, message
        assert message in capsys.readouterr().err
    compares = write_tuned_plan(variants={"rates": {"learning_rate": [1e-3, 1e-2]}})
    assert analyze("tune", compares) == 2
    assert "the variant rates compares values of learning_rate" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["analyze", "tune"])
    assert "--config" in capsys.readouterr().err


def write_plan_without_tune(path: str) -> str:
    """Write a plan's copy without the key `tune`; return its path."""
    content = yaml.safe_load(Path(path).read_text())
    del content["tune"]
    copy = Path(path).with_name("without.yaml")
    copy.write_text(yaml.safe_dump(content))
    return str(copy)


def test_shards_and_parts_of_the_tasks_add_up(write_tuned_plan, tmp_path, capsys):
    path, file = write_tuned_plan(), tmp_path / "runs" / "tuned.yaml"
    assert analyze("tune", path, "--tasks", "cola", "--shard", "1/2") == 0
    assert "tuned.yaml is written once all tuning runs are finished; 6 of 8 are not" in capsys.readouterr().err
    assert analyze("tune", path, "--tasks", "cola", "--shard", "2/2") == 0
    assert not file.exists()
    assert analyze("tune", path) == 0
    assert capsys.readouterr().err.count("finished earlier") == 4 and file.exists()


def test_a_loss_that_diverges_counts_as_the_worst(write_tuned_plan, tmp_path, capsys):
    tune = {"learning_rate": [1e-3, 1e18], "held_out_share": 0.25, "tasks": ["sst2"]}
    settings = ["--finetune.max_steps", "4"]
    assert analyze("tune", write_tuned_plan(tune=tune), *settings) == 0
    captured = capsys.readouterr()
    assert "the training loss is nan" in captured.err
    assert "diverged" in captured.out and captured.out.count("chosen") == 2
    content = yaml.safe_load((tmp_path / "runs" / "tuned.yaml").read_text())
    assert content["chosen"]["full"] == {"learning_rate": 1e-3}
    assert analyze("tune", write_tuned_plan(tune=tune), *settings) == 0
    captured = capsys.readouterr()
    assert captured.err.count("its loss diverged earlier") == 2
    # The settings on the command line belong to the budget.
    assert analyze("ablations", write_tuned_plan(tune=tune), *settings, "--dry_run", "--tokens_per_second", "9") == 0
    assert analyze("ablations", write_tuned_plan(tune=tune)) == 1
    assert "(different: settings of the runs)" in capsys.readouterr().err
    hopeless = write_tuned_plan(tune={**tune, "learning_rate": [1e18]})
    assert analyze("tune", hopeless, *settings) == 1
    assert "no combination of the grid has a score for the arm full on sst2" in capsys.readouterr().err


def test_dry_run_prints_the_cost_of_the_rows_that_are_trained_and_scored(write_tuned_plan, tmp_path, capsys):
    finetune = {"model": "gpt1-tiny", "sample": True, "num_train_epochs": 2}
    path = write_tuned_plan(finetune=finetune, tune={**TUNE, "tasks": ["sst2"]})
    assert analyze("tune", path, "--dry_run", "--tokens_per_second", "100") == 0
    assert "all: 4 of 4 runs to do" in capsys.readouterr().out and not (tmp_path / "runs").exists()
    _, trials = Plan.read(path).tuning_runs()
    run = trials[0].run
    lengths, n_rows, _ = cost._lengths("sst2", None, True, "gpt1-tiny", 512)
    n_scored = math.ceil(n_rows / 4)
    expected = (2 * (n_rows - n_scored) + n_scored / 3) * lengths.mean()
    assert cost.estimate(run, 100).tokens == pytest.approx(expected, rel=1e-6)


SCORES = {
    "a": [{"x": 10.0, "y": 90.0}, {"x": 60.0, "y": 50.0}, {"x": None, "y": 99.0}],
    "b": [{"x": 50.0, "y": 50.0}, {"x": 40.0, "y": 60.0}, {"x": 10.0, "y": 20.0}],
}


def test_the_best_mean_or_the_best_of_each_task_is_chosen():
    # In b the first two are equal: the first counts. In a the third diverged on x.
    assert choose(SCORES, "arm") == {"a": {"x": 1, "y": 1}, "b": {"x": 0, "y": 0}}
    assert choose(SCORES, "task") == {"a": {"x": 1, "y": 2}, "b": {"x": 0, "y": 1}}
    with pytest.raises(GPT1Error, match="for the arm a on x"):
        choose({"a": [{"x": None, "y": 1.0}]}, "task")


def test_a_choice_at_the_edge_of_the_grid_is_reported():
    def warnings(per, **grid):
        (setting, values), choice = *grid.items(), choose(SCORES, per)
        if per == "arm":
            choice = {arm: {"": by_task["x"]} for arm, by_task in choice.items()}
        found = {arm: {task: {setting: values[n]} for task, n in own.items()} for arm, own in choice.items()}
        return at_the_edge(found, grid)

    assert warnings("arm", learning_rate=[1e-4, 2e-4, 5e-4]) == [
        "b: the best learning_rate, 0.0001, is the smallest of the grid; add smaller values to the plan's key 'tune'"
    ]
    (smallest, largest) = warnings("task", learning_rate=[1e-4, 2e-4, 5e-4])
    assert smallest.startswith("b on x: ") and largest.startswith("a on y: the best learning_rate, 0.0005, is the lar")
    assert warnings("arm", peft=["none", "lora", "other"]) == []
