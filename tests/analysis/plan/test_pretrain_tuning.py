"""The key `pretrain` below a plan's `tune`: each model's pre-training, chosen on training text that is held out."""

import json
import math
from pathlib import Path

import pytest
import yaml

from gpt1_hf.analysis.plan import cost
from gpt1_hf.analysis.plan import run as run_module
from gpt1_hf.analysis.plan.plan import Plan
from gpt1_hf.analysis.plan.tuning import choose_pretraining
from gpt1_hf.analysis.report.report import build
from gpt1_hf.analysis.report.runs import collect
from gpt1_hf.cli import main
from gpt1_hf.errors import GPT1Error
from gpt1_hf.resources import recipes_dir


MODELS = {
    "transformer": {},
    "lstm": {"architecture": "lstm", "lstm_size": 24, "num_hidden_layers": 1},
    "no_positions": {"position_embedding_type": "none"},
    "sinusoidal": {"position_embedding_type": "sinusoidal"},
}
PRETRAIN = {
    "learning_rate": [1e-3, 1e-2],
    "position_initializer_range": [0.02, 0.1],
    "held_out_share": 0.2,
    "settings": {"max_steps": 2, "warmup_steps": 1},  # the first update of a warm-up has a rate of 0
}
TUNE = {"pretrain": PRETRAIN, "learning_rate": [1e-3, 1e-2], "tasks": {"cola": {"held_out_share": 0.25}}}


@pytest.fixture
def plan(write_plan):
    """Write a plan with four models that tunes their pre-training; return its path."""

    def write(names=tuple(MODELS), **changes) -> str:
        content = {
            "models": {name: MODELS[name] for name in names},
            "variants": {name: {"model": name} for name in names},
            "tasks": {"cola": None},
            "tune": TUNE,
        }
        return write_plan(**{**content, **changes})

    return write


@pytest.fixture
def fake(monkeypatch):
    """Replaces training. The perplexity is lowest at the rate of `best` and with small positions."""
    started, best = [], {"transformer": 1e-2}

    def function(args):
        folder = Path(args.output_dir)
        started.append(str(folder))
        if args.learning_rate > 1:  # it diverges
            raise FloatingPointError("the training loss is nan")
        row = {"n_examples": 1, "paper": None, "model": "m", "seed": 42, "details": {}, "split": "held-out train"}
        if hasattr(args, "corpus"):
            name = folder.name if folder.parent.name == "models" else folder.parts[folder.parts.index("tune") + 1]
            distance = abs(math.log(args.learning_rate / best.get(name, 1e-3)))
            row |= {"task": "language_modeling", "metric": "perplexity"}
            row["value"] = 100 + distance + (args.position_initializer_range or 0)
        else:
            row |= {"task": args.task, "metric": "accuracy", "value": args.learning_rate}
        (folder / "results.json").write_text(json.dumps([row]))

    kinds = {kind: (arguments, function) for kind, (arguments, _) in run_module.KINDS.items()}
    monkeypatch.setattr(run_module, "KINDS", kinds)
    return started, best


def analyze(action, path, *flags) -> int:
    return main(["analyze", action, "--config", path, *flags])


def chosen_in(tmp_path: Path) -> dict:
    return yaml.safe_load((tmp_path / "runs" / "tuned.yaml").read_text())


def test_a_setting_without_effect_is_not_multiplied(plan, tmp_path):
    trials = Plan.read(plan()).pretraining_trials()
    names = [trial.run.name.removeprefix("tune/pretrain/") for trial in trials]
    assert names[:4] == [
        f"transformer/learning_rate-{rate}/position_initializer_range-{scale}"
        for rate in (0.001, 0.01)
        for scale in (0.02, 0.1)
    ]
    assert names[4:8] == [f"{m}/learning_rate-{r}" for m in ("lstm", "no_positions") for r in (0.001, 0.01)]
    assert len(names) == 12 and all(name.startswith("sinusoidal/") for name in names[8:])
    args = trials[0].run.arguments()
    values = (args.held_out_share, args.warmup_steps, args.learning_rate, args.position_initializer_range)
    assert values == (0.2, 1, 1e-3, 0.02)
    assert trials[0].run.folder.parent.parent == tmp_path / "models" / "tune" / "transformer"
    # Only models that a variant uses, and no setting that has an effect on none of them.
    only = {**TUNE, "pretrain": {"position_initializer_range": [0.02, 0.1]}}
    one = Plan.read(plan(tune=only, variants={"full": {"model": "transformer"}, "lstm": {"model": "lstm"}}))
    assert {trial.arm for trial in one.pretraining_trials()} == {"transformer"}


def test_each_model_is_tuned_then_trained_then_fine_tuned(plan, tmp_path, capsys):
    """With real training: the choice is the lowest held-out perplexity, and every run after it uses the choice."""
    path = plan(("transformer", "lstm"), tune={**TUNE, "learning_rate": [1e-3]})
    assert analyze("ablations", path) == 1
    assert "the plan tunes pretrain.learning_rate, pretrain.position_initializer_range, learning_rate, and" in (
        capsys.readouterr().err
    )
    assert analyze("tune", path) == 0
    captured = capsys.readouterr()
    content = chosen_in(tmp_path)
    for name, n_runs in (("transformer", 4), ("lstm", 2)):
        scores = {}
        for file in (tmp_path / "models" / "tune" / name).rglob("results.json"):
            perplexity = json.loads(file.read_text())[0]
            settings = json.loads(file.with_name("plan_run.json").read_text())["settings"]
            assert perplexity["split"] == "held-out train" and perplexity["details"]["updates"] == 2
            scores[settings["learning_rate"], settings.get("position_initializer_range")] = perplexity["value"]
        assert len(scores) == len({*scores.values()}) == n_runs
        rate, scale = min(scores, key=scores.get)
        expected = {"learning_rate": rate} | ({} if scale is None else {"position_initializer_range": scale})
        assert content["models"][name] == expected
        model = json.loads((tmp_path / "models" / name / "run.json").read_text())["settings"]
        assert (model["learning_rate"], model["position_initializer_range"]) == (rate, scale)
        assert model["warmup_steps"] != 1 and model["held_out_share"] == 0
        # The pairs are printed and written.
        for (rate, scale), value in scores.items():
            cells = [name, f"{rate:g}", "–" if scale is None else f"{scale:g}", f"{value:.1f}"]
            assert any(line.replace(",", "").split()[:4] == cells for line in captured.out.splitlines())
    assert set(content["chosen"]) == {"transformer", "lstm"}
    order = [line.split("] ")[1].split("/")[:2] for line in captured.err.splitlines() if line.startswith("[")]
    assert order == [["tune", "pretrain"]] * 6 + [["pretrain", "transformer"], ["pretrain", "lstm"]] + (
        [["tune", "cola"]] * 2
    )
    text = (tmp_path / "runs" / "tune" / "analysis.md").read_text()
    assert "Perplexities on held-out text" in text and "Scores on held-out rows" in text
    assert "# model  " in (tmp_path / "runs" / "tuned.yaml").read_text()

    # Nothing is repeated, and the plan finds its models.
    before = (tmp_path / "runs" / "tuned.yaml").read_text()
    assert analyze("tune", path) == 0
    assert capsys.readouterr().err.count("finished earlier") == 10
    assert (tmp_path / "runs" / "tuned.yaml").read_text() == before
    assert analyze("ablations", path) == 0
    assert capsys.readouterr().err.count("finished earlier") == 2
    # So does another plan with the same models.
    other = Plan.read(plan(("transformer",), output_dir=str(tmp_path / "other"), tune={"pretrain": PRETRAIN}))
    assert [trial.run.state for trial in other.pretraining_trials()] == ["finished"] * 4
    models, trials = other.tuning_runs(content["models"])
    assert [run.state for run in models] == ["finished"] and trials == []
    # The report has the pairs, and no tuning run among the models.
    report = build(collect(tmp_path), "runs")
    sections = {section.title: section for section in report.sections}
    assert {row[0] for row in sections["Pre-training"].tables[0].rows} == {"models/transformer", "models/lstm"}
    titles = [table.title for table in sections["Tuning"].tables]
    assert titles == ["Tuning of the pre-training of runs", "Tuning of runs"]


def test_the_choice_reaches_the_plan_and_untuned_ignores_it(plan, fake, tmp_path, capsys):
    path = plan()
    assert analyze("tune", path) == 0
    models = chosen_in(tmp_path)["models"]
    assert models["transformer"] == {"learning_rate": 1e-2, "position_initializer_range": 0.02}
    assert models["lstm"] == models["no_positions"] == {"learning_rate": 1e-3}
    err = capsys.readouterr().err
    assert "lstm; no_positions; sinusoidal: the best learning_rate, 0.001, is the smallest of the grid" in err
    assert "to the plan's key 'tune', below 'pretrain'" in err
    read = Plan.read(path)
    runs = {run.name: run for run in read.runs(read.tuned(""))}
    assert runs["pretrain/transformer"].settings["position_initializer_range"] == 0.02
    assert runs["finetune/cola/transformer/seed-42"].state == "to do"
    assert all(runs[f"pretrain/{name}"].state == "finished" for name in MODELS)
    assert "learning_rate" not in read.runs()[0].settings
    assert analyze("ablations", path, "--untuned", "--dry_run", "--tokens_per_second", "9") == 0
    assert ["pretrain/lstm", "to", "do"] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_only_the_pre_training_may_be_tuned(plan, fake, tmp_path, base_model, capsys):
    path = plan(tune={"pretrain": PRETRAIN})
    assert analyze("ablations", path) == 1
    assert analyze("tune", path) == 0
    content = chosen_in(tmp_path)
    assert content["chosen"] == {} and set(content["models"]) == set(MODELS)
    assert analyze("ablations", path) == 0
    assert "pretrain/lstm: finished earlier" in capsys.readouterr().err
    # Without one of its models, there is nothing to tune.
    assert not Plan.read(path, overrides={"finetune": {"model": base_model}}).is_tuned


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"learning_rate": [1e-3, 1e-1]}, "pretraining grid"),
        ({"held_out_share": 0.1}, "pretraining held out share"),
        ({"settings": {"max_steps": 3}}, "pretraining settings"),
        (None, "settings of the runs"),
    ],
)
def test_a_choice_for_another_tuning_is_refused(plan, fake, change, differs):
    assert analyze("tune", plan()) == 0
    tune = {key: value for key, value in TUNE.items() if key != "pretrain"}
    if change is not None:
        tune["pretrain"] = {**PRETRAIN, **change}
    with pytest.raises(GPT1Error, match=rf"chosen for another plan \(different: {differs}\)"):
        Plan.read(plan(tune=tune)).tuned("")


def test_a_choice_for_other_models_is_refused(plan, fake, tmp_path):
    path = plan(("transformer", "lstm"))
    assert analyze("tune", path) == 0
    with pytest.raises(GPT1Error, match=r"\(different: models\)"):
        Plan.read(plan()).tuned("")
    models = {"transformer": {"hidden_size": 32}, "lstm": MODELS["lstm"]}
    with pytest.raises(GPT1Error, match=r"\(different: settings of the pretraining runs\)"):
        Plan.read(plan(("transformer", "lstm"), models=models)).tuned("")
    # More updates of the models: only the fine-tuning must be tuned again.
    more = Plan.read(plan(("transformer", "lstm")), overrides={"pretrain": {"max_steps": 9}})
    assert {trial.run.state for trial in more.pretraining_trials()} == {"finished"}
    with pytest.raises(GPT1Error, match=r"\(different: settings of the runs\)"):
        more.tuned("")
    file = tmp_path / "runs" / "tuned.yaml"
    file.write_text(file.read_text().replace("lstm: {learning_rate: 0.001}", "lstm: {learning_rate: 0.5}"))
    with pytest.raises(GPT1Error, match="chosen for another plan|settings of the model lstm are not in the grid"):
        Plan.read(path).tuned("")


def test_a_pre_training_that_diverges_is_not_chosen(plan, fake, capsys):
    started, best = fake
    best["transformer"] = 9.0
    tune = {**TUNE, "pretrain": {**PRETRAIN, "learning_rate": [1e-3, 9.0]}}
    path = plan(("transformer",), tune=tune)
    assert analyze("tune", path) == 0
    out = capsys.readouterr().out
    assert out.count("diverged") == 2
    assert Plan.read(path).tuned("").models["transformer"]["learning_rate"] == 1e-3
    n_started = len(started)
    assert analyze("tune", path) == 0
    assert len(started) == n_started and "its loss diverged earlier" in capsys.readouterr().err
    hopeless = plan(("transformer",), tune={**TUNE, "pretrain": {"learning_rate": [9.0]}})
    assert analyze("tune", hopeless) == 1
    assert "no combination of the grid has a perplexity for the model transformer" in capsys.readouterr().err
    assert choose_pretraining({"a": [3.0, None, 2.0, 2.0, math.inf]}) == {"a": 2}


def test_shards_wait_for_the_choice(plan, fake, tmp_path, capsys):
    started, _ = fake
    path, file = plan(), tmp_path / "runs" / "tuned.yaml"
    assert analyze("tune", path, "--shard", "1/2") == 0
    assert len(started) == 6 and all("/models/tune/" in name for name in started)
    assert "the models are pre-trained once their 12 tuning runs are finished; 6 are not" in capsys.readouterr().err
    assert analyze("tune", path, "--shard", "2/2") == 1  # it trains its models; some trials need those of 1/2
    assert "its model, pretrain/" in capsys.readouterr().err and not file.exists()
    assert analyze("tune", path, "--shard", "1/2") in (0, 1)
    assert analyze("tune", path) == 0 and file.exists()
    assert len(started) == len(set(started)) == 12 + 4 + 8


def test_the_cost_of_all_stages_is_estimated(plan, fake, tmp_path, capsys):
    path = plan()
    assert analyze("tune", path, "--dry_run", "--tokens_per_second", "10") == 0
    out = capsys.readouterr().out
    assert "pre-training: 16 of 16 runs to do" in out and "fine-tuning: 8 of 8 runs to do" in out
    assert not (tmp_path / "models").exists()
    assert analyze("tune", path, "--dry_run", "--tokens_per_second", "10", "--shard", "1/2") == 0
    assert "pre-training: 8 of 8 runs to do" in capsys.readouterr().out
    from gpt1_hf.training.pretrain import token_streams

    trial, *_ = Plan.read(path).pretraining_trials()
    args = trial.run.arguments()
    train, held_out = token_streams(args, cost._tokenizer(args.tokenizer))
    expected = 2 * 2 * args.max_position_embeddings + len(held_out) / 3
    assert cost.estimate(trial.run, 10).tokens == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(
    ("pretrain", "message"),
    [
        ({}, "'pretrain' needs a setting and its values"),
        ({"held_out_share": 0.1}, "'pretrain' needs a setting and its values"),
        ({"learning_rat": [1]}, "no setting of `gpt1 pretrain`; did you mean learning_rate?"),
        ({"hidden_size": [8, 16]}, "'hidden_size' cannot be tuned, because it says what is compared"),
        ({"lm_coef": [0.5]}, "'lm_coef' cannot be tuned, because it is no setting of `gpt1 pretrain`"),
        ({**PRETRAIN, "held_out_share": 0}, "must be above 0 and below 1, not 0"),
        ({**PRETRAIN, "settings": {"learning_rate": 1}}, "learning_rate belongs beside 'settings', not below it"),
        ({**PRETRAIN, "settings": 3}, "'settings' must be a mapping"),
        ({**PRETRAIN, "settings": {"max_step": 3}}, "has no setting 'max_step'; did you mean max_steps?"),
        (["learning_rate"], "'pretrain' must be a mapping"),
    ],
)
def test_invalid_keys_are_refused(plan, pretrain, message, capsys):
    assert analyze("tune", plan(tune={**TUNE, "pretrain": pretrain}), "--dry_run") == 2
    assert message in capsys.readouterr().err


def test_wrong_usage_ends_in_one_sentence(plan, base_model, capsys):
    assert analyze("tune", plan(), "--pretrain.learning_rate", "1") == 2
    assert "--pretrain.learning_rate is a setting that the plan tunes" in capsys.readouterr().err
    assert analyze("tune", plan(models={}, variants={"full": {"model": base_model}})) == 2
    assert "the plan tunes the pre-training, and has no key 'models'" in capsys.readouterr().err


def test_shipped_plans_that_share_models_tune_them_alike():
    """Otherwise each would train the models of `models_dir` anew."""
    found = {}
    for path in sorted((recipes_dir() / "analysis").glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        for name in content.get("models", {}):
            found.setdefault((content["models_dir"], name), {})[path.name] = {
                trial.run.hash for trial in Plan.read(str(path)).pretraining_trials() if trial.arm == name
            }
    assert len(found["runs/analysis/models", "transformer"]) == 4
    for hashes in found.values():
        assert all(own and own == next(iter(hashes.values())) for own in hashes.values())
    small = Plan.read("analysis/ablations_small").pretraining_trials()
    assert len(small) == 20 and {trial.run.settings["max_steps"] for trial in small} == {150}
