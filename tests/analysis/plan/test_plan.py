"""Plans: how they expand into runs, finished runs, failed runs, and shares."""

import json
import shutil
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from gpt1_hf.analysis.plan import run as run_module
from gpt1_hf.analysis.plan.plan import Plan, carry_out, share
from gpt1_hf.analysis.plan.workers import Worker
from gpt1_hf.cli.analyze import is_plan
from gpt1_hf.cli.parser import parse
from gpt1_hf.errors import GPT1Error
from gpt1_hf.resources import recipes_dir
from gpt1_hf.training.run_folder import PLAN_RECORD


@pytest.fixture
def done(monkeypatch):
    """Replaces training: records which runs were started, and writes results. Runs in `fail` fail."""
    started, fail = [], set()

    def function(args):
        name = str(args.output_dir)
        started.append(name)
        if any(part in name for part in fail):
            raise GPT1Error("no luck")
        (Path(name) / "results.json").write_text("[]")

    kinds = {kind: (arguments, function) for kind, (arguments, _) in run_module.KINDS.items()}
    monkeypatch.setattr(run_module, "KINDS", kinds)
    return started, fail


def names(runs):
    return [run.name for run in runs]


def test_a_plan_expands_models_first_then_tasks_seeds_and_variants(write_plan, tmp_path):
    runs = Plan.read(write_plan()).runs()
    assert names(runs) == [
        "pretrain/transformer",
        "pretrain/lstm",
        "finetune/cola/full/seed-42",
        "finetune/cola/lstm/seed-42",
        "finetune/cola/full/seed-43",
        "finetune/cola/lstm/seed-43",
        "finetune/sst2/full/seed-42",
        "finetune/sst2/lstm/seed-42",
    ]
    assert runs[1].settings["architecture"] == "lstm"
    last = runs[-1]
    assert last.needs is runs[1]
    assert last.settings["model"] == str(tmp_path / "models" / "lstm")
    args = last.arguments()
    assert (args.task, args.lm_coef, args.seed, args.max_train_examples, args.sample) == ("sst2", 0.0, 42, 8, True)
    assert args.output_dir == str(tmp_path / "runs" / "finetune" / "sst2" / "lstm" / "seed-42")


@pytest.mark.parametrize("place", ["finetune", "tasks", "command line"])
def test_a_model_of_the_plan_can_be_named_in_any_place(write_plan, tmp_path, place):
    model, variants = {"model": "transformer"}, {"full": {}, "plain": {"lm_coef": 0.0}}
    changes = {"finetune": {"finetune": model}, "tasks": {"tasks": {"cola": model}}}.get(place, {})
    path = write_plan(**{"tasks": {"cola": None}, "variants": variants, **changes})
    overrides = {"finetune": model} if place == "command line" else {}
    first, *runs = Plan.read(path, overrides=overrides).runs()
    assert first.name == "pretrain/transformer" and len(runs) == 2
    assert all(run.needs is first for run in runs)
    assert all(run.settings["model"] == str(tmp_path / "models" / "transformer") for run in runs)


def test_models_of_a_plan_do_not_depend_on_the_chosen_tasks(write_plan):
    models = {"one": {}, "two": {}, "three": {}}
    tune = {"learning_rate": [1e-3], "tasks": {"rte": {"model": "three"}}}
    path = write_plan(
        models=models, tasks={"cola": {"model": "one"}, "sst2": {"model": "two"}}, variants={"full": {}}, tune=tune
    )
    pretrained = ["pretrain/one", "pretrain/two", "pretrain/three"]
    for tasks in (None, ["cola"], ["sst2"]):
        plan = Plan.read(path, tasks)
        *found, last = names(plan.runs()) if tasks else names(plan.runs())[:-1]
        assert found == pretrained and last == f"finetune/{(tasks or ['cola'])[0]}/full/seed-42"
        (trial,) = plan.tuning_runs()[1]
        assert trial.run.needs.name == "pretrain/three"


def test_settings_override_in_the_order_common_task_variant_command_line(write_plan):
    path = write_plan(
        finetune={"learning_rate": 1e-4, "lm_coef": 0.1, "sample": True, "weight_decay": 0.5},
        tasks={"cola": {"lm_coef": 0.2, "weight_decay": 0.25}},
        variants={"full": {"model": "transformer", "lm_coef": 0.3}},
    )
    *_, run = Plan.read(path).runs()
    assert (run.settings["learning_rate"], run.settings["weight_decay"], run.settings["lm_coef"]) == (1e-4, 0.25, 0.3)
    overrides = {"finetune": {"lm_coef": 0.4}, "pretrain": {"max_steps": 9}}
    model, run = Plan.read(path, overrides=overrides).runs()
    assert (run.settings["lm_coef"], model.settings["max_steps"]) == (0.4, 9)


def test_lists_and_all_layers_become_variants(write_plan):
    variants = {"some": {"model": "transformer", "max_train_examples": [4, 8], "transfer_layers": "all"}}
    runs = Plan.read(write_plan(tasks={"cola": None}, variants=variants)).runs()
    assert len(runs) == 1 + 2 * 3
    assert runs[1].name == "finetune/cola/some/max_train_examples-4/transfer_layers-0/seed-42"
    assert [run.settings["transfer_layers"] for run in runs[1:]] == [0, 1, 2, 0, 1, 2]


def test_an_existing_model_needs_no_run_and_has_its_own_layers(write_plan, base_model):
    variants = {"some": {"model": base_model, "transfer_layers": "all"}}
    runs = Plan.read(write_plan(variants=variants), tasks=["cola"]).runs()
    assert {run.kind for run in runs} == {"finetune"}
    assert [run.settings["transfer_layers"] for run in runs] == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": {}}, "unknown key 'task'; did you mean tasks?"),
        ({"tasks": {}}, "'tasks' is missing"),
        ({"variants": ["full"]}, "'variants' must be a mapping"),
        ({"variants": {"full": 3}}, "'full' must be a mapping"),
        ({"tasks": {"colla": None}}, "did you mean cola?"),
        ({"finetune": {"learning_rat": 1}}, "no setting 'learning_rat'; did you mean learning_rate?"),
        ({"finetune": {"learning_rate": "high"}}, "invalid float value: 'high'"),
        ({"models": {"transformer": {"config": "pretrain/nothing"}}}, "there is no recipe 'pretrain/nothing'"),
    ],
)
def test_invalid_plans_are_refused(write_plan, changes, message):
    with pytest.raises(GPT1Error) as error:
        Plan.read(write_plan(**changes)).runs()
    assert message in str(error.value)


@pytest.mark.parametrize("path", sorted((recipes_dir() / "analysis").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_read_and_say_how_to_run_them(path):
    action = path.stem.removesuffix("_small").removesuffix("_lstm").replace("_", "-")
    if is_plan(action):
        runs = Plan.read(str(path)).runs()
        assert "finetune" in {run.kind for run in runs}
        assert len({run.name for run in runs}) == len(runs)
    else:
        settings = import_module(f"gpt1_hf.analysis.measure.{path.stem}").Arguments
        args = parse(settings, ["--config", str(path)], action, "")
        assert all(getattr(args, key) == value for key, value in yaml.safe_load(path.read_text()).items())
    text = path.read_text(encoding="utf-8")
    assert f"gpt1 analyze {action}" in text.split("\n\n")[0]
    assert f"`analysis/{path.name}`" in (recipes_dir() / "README.md").read_text(encoding="utf-8")


def test_the_small_models_are_matched(tokenizer):
    from transformers import AutoModelForCausalLM

    from gpt1_hf.training.pretrain import new_config

    models = {run.variant: run for run in Plan.read("analysis/ablations").runs() if run.kind == "pretrain"}
    sizes, budgets = {}, set()
    for name, run in models.items():
        args = run.arguments()
        sizes[name] = AutoModelForCausalLM.from_config(new_config(args, tokenizer)).num_parameters(
            exclude_embeddings=True
        )
        budgets.add((args.max_steps, args.per_device_train_batch_size, args.max_position_embeddings, args.corpus))
    assert len(budgets) == 1
    assert sizes.pop("no_layers") == 0
    assert max(sizes.values()) / min(sizes.values()) < 1.001


def test_finished_runs_are_skipped_and_changed_ones_are_repeated(write_plan, done, capsys):
    started, _ = done
    path = write_plan()
    assert carry_out(Plan.read(path).runs()) == {}
    assert len(started) == 8
    assert carry_out(Plan.read(path).runs()) == {}
    assert len(started) == 8
    assert capsys.readouterr().err.count("finished earlier") == 8
    # A task's own setting changes its runs only; the models' settings change everything.
    carry_out(Plan.read(write_plan(tasks={"cola": {"seeds": 2}, "sst2": {"lm_coef": 0.25}})).runs())
    assert len(started) == 8 + 1  # the LSTM variant has a value of its own
    carry_out(Plan.read(path, overrides={"pretrain": {"learning_rate": 1e-3}}).runs())
    assert len(started) == 9 + 8


def test_settings_that_do_not_change_results_are_ignored(write_plan, done):
    started, _ = done
    carry_out(Plan.read(write_plan()).runs())
    overrides = {kind: {"logging_steps": 7, "data_dir": "elsewhere"} for kind in ("pretrain", "finetune")}
    carry_out(Plan.read(write_plan(), overrides=overrides).runs())
    assert len(started) == 8


def test_a_run_without_results_is_repeated(write_plan, done, tmp_path):
    started, _ = done
    runs = Plan.read(write_plan()).runs()
    carry_out(runs)
    shutil.rmtree(runs[-1].folder)
    assert [run.state for run in runs[-2:]] == ["finished", "to do"]
    carry_out(runs)
    assert started[8:] == [str(runs[-1].folder)]


def test_checkpoints_of_other_settings_are_not_resumed(write_plan, done):
    model = Plan.read(write_plan()).runs()[0]
    carry_out([model])
    checkpoint = model.folder / "checkpoint-2"
    checkpoint.mkdir()
    (model.folder / "results.json").unlink()
    carry_out([model])
    assert checkpoint.is_dir()
    changed = Plan.read(write_plan(), overrides={"pretrain": {"max_steps": 3}}).runs()[0]
    carry_out([changed])
    assert not checkpoint.exists()


def test_failed_runs_are_named_and_the_others_continue(write_plan, done, capsys):
    started, fail = done
    fail.update({"models/lstm", "cola/full/seed-43"})
    runs = Plan.read(write_plan()).runs()
    missing = carry_out(runs)
    assert missing == {
        "pretrain/lstm": "no luck",
        "finetune/cola/lstm/seed-42": "its model, pretrain/lstm, is not finished",
        "finetune/cola/full/seed-43": "no luck",
        "finetune/cola/lstm/seed-43": "its model, pretrain/lstm, is not finished",
        "finetune/sst2/lstm/seed-42": "its model, pretrain/lstm, is not finished",
    }
    record = json.loads((runs[1].folder / PLAN_RECORD).read_text())
    assert (record["state"], record["error"]) == ("failed", "no luck")
    out = capsys.readouterr().err
    assert "5 of 8 runs are not finished" in out
    assert "finetune/cola/full/seed-43: no luck" in out
    fail.clear()
    assert carry_out(runs) == {}
    assert len(started) == 5 + 5  # five were tried before


def test_a_bug_does_not_count_as_a_failed_run(write_plan, monkeypatch):
    def broken(args):
        raise TypeError("a bug")

    monkeypatch.setattr(run_module, "KINDS", {k: (a, broken) for k, (a, _) in run_module.KINDS.items()})
    runs = Plan.read(write_plan()).runs()
    with pytest.raises(TypeError):
        carry_out(runs)
    assert runs[0].state == "stopped"


def test_shares_add_up_to_the_plan(write_plan):
    runs = Plan.read(write_plan()).runs()
    shares = [share(runs, Worker.join(f"{number}/3")) for number in (1, 2, 3)]
    assert sorted(names(sum(shares, []))) == sorted(names(runs))
    assert all(len(part) in (2, 3) for part in shares)
    for bad in ("0/2", "3/2", "1", "a/b", "-1/2"):
        with pytest.raises(GPT1Error, match="--shard"):
            Worker.join(bad)


def test_a_shard_skips_runs_whose_model_belongs_to_another_shard(write_plan, done):
    runs = Plan.read(write_plan()).runs()
    second = Worker.join("2/2")
    missing = carry_out(runs, second)
    assert missing == {}  # the second half of either kind is the LSTM's
    variants = {"full": {"model": "transformer"}, "other": {"model": "transformer", "lm_coef": 0.0}}
    runs = Plan.read(write_plan(variants=variants, models_dir=str(runs[0].folder.parent / "new"))).runs()
    assert set(carry_out(runs, second).values()) == {"its model, pretrain/transformer, is not finished"}
    assert carry_out(runs, Worker.join("1/2")) == {}
    assert carry_out(runs, second) == {}


def test_a_run_executes_the_command_that_it_prints(write_plan):
    import shlex

    from gpt1_hf.cli.parser import parse
    from gpt1_hf.training.arguments import FinetuneArguments

    run = Plan.read(write_plan()).runs()[-1]
    word, kind, *flags = shlex.split(run.command)
    assert (word, kind) == ("gpt1", "finetune")
    assert parse(FinetuneArguments, flags, kind, "").to_dict() == run.arguments().to_dict()


def test_advice_in_errors_uses_a_plans_option_names(write_plan):
    model, *_, run = Plan.read(write_plan()).runs()
    error = GPT1Error("give --data_dir,\nor --output_dir, or `gpt1 tokenizer train --corpus_rows lines` or --nix")
    expected = "give --{}.data_dir, or --output_dir, or `gpt1 tokenizer train --corpus_rows lines` or --nix"
    assert (model.explain(error), run.explain(error)) == (expected.format("pretrain"), expected.format("finetune"))


def test_the_data_folder_is_that_of_the_environment_now(write_plan, monkeypatch):
    run = Plan.read(write_plan()).runs()[-1]
    for folder in ("first", "second"):
        monkeypatch.setenv("GPT1_DATA_DIR", folder)
        assert run.arguments().data_dir == folder
