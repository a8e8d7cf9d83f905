"""Only runs that differ in nothing but the seed are averaged, and every difference, conflict and gap is named."""

import json
import shutil
from dataclasses import fields

import pytest

from gpt1_hf.analysis.report import from_scratch, own_tables, paper_tables
from gpt1_hf.analysis.report.analyses import ablations, auxiliary, context_length, layer_transfer, pretraining, tune
from gpt1_hf.analysis.report.groups import grouped, settings_of
from gpt1_hf.analysis.report.report import build, report
from gpt1_hf.analysis.report.runs import CollectedRun, collect, scores, tuned_settings
from gpt1_hf.cli import main
from gpt1_hf.errors import GPT1Error
from gpt1_hf.evaluation.results import Result
from gpt1_hf.evaluation.verdicts import RULE
from gpt1_hf.tasks import load_task
from gpt1_hf.training.arguments import FinetuneArguments
from gpt1_hf.training.finetune import finetune
from gpt1_hf.training.run_folder import model_settings


def row(task, value, seed=42, split="validation", model="small", metric=None, **details):
    metric = metric or load_task(task).metric
    details = {"from_scratch": False, "lm_coef": 0.5, "n_train_examples": 100, "learning_rate": 0.001, **details}
    known = {"task": task, "split": split, "metric": metric, "value": value, "n_examples": 50, "paper": None}
    return {**known, "model": model, "seed": seed, "details": details}


def write(folder, *rows, **plan):
    folder.mkdir(parents=True)
    if rows:
        (folder / "results.json").write_text(json.dumps(rows))
    if plan:
        (folder / "plan_run.json").write_text(json.dumps({"hash": "0", "state": "finished", **plan}))


def planned(folder, task, variant, value, seed=42, sweep=(), **details):
    """A run of a plan in a folder; without a value it has failed."""
    name = "/".join(["finetune", task, variant, *sweep, f"seed-{seed}"])
    plan = {"name": name, "variant": variant, "settings": {"task": task, "seed": seed}}
    if value is None:
        write(folder / name, **{**plan, "state": "failed", "error": "the loss is nan"})
    else:
        write(folder / name, row(task, value, seed, **details), **plan)


def cells(table, *start):
    (found,) = (cells for cells in table.rows if cells[: len(start)] == list(start))
    return dict(zip(table.headers, found, strict=True))


SETTINGS = {
    "dropout": (0.1, 0.2),
    "classifier_dropout": (0.1, 0.0),
    "question_delimiter": (True, False),
    "plain_regression": (False, True),
    "weight_decay": (0.01, 0.0),
    "layerwise_lr_decay": (1.0, 0.9),
    "max_length": (None, 64),
    "train_sampling_strategy": ("random", "group_by_length"),
    "training_precision": ("fp32", "tf32"),
    "lr_scheduler_type": ("linear", "cosine"),
    "warmup_steps": (0.002, 0.1),
    "lora_r": (8, 16),
    "max_train_examples": (None, 100),
    "adam_beta2": (0.9, 0.95),
    "base_weights": ("a" * 16, "b" * 16),
    "train_rows_digest": ("a" * 16, "b" * 16),
    "task_version": (1, 2),
    "rows_digest": ("a" * 16, "b" * 16),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_runs_with_different_settings_are_never_averaged(name, tmp_path):
    for seed, (value, setting) in enumerate(zip((10.0, 30.0), SETTINGS[name], strict=True)):
        write(tmp_path / f"run-{seed}", row("cola", value, seed, **{name: setting}))
        write(tmp_path / f"own-{seed}", row("reviews", value, seed, metric="accuracy", **{name: setting}))
        planned(tmp_path / "plan", "sst2", "full", value, seed, **{name: setting})
        planned(tmp_path / "plan", "qnli", "with_auxiliary", value, seed, **{name: setting})
    runs = collect(tmp_path)
    assert all(len(group.values) == 1 for group in grouped(scores(runs)))
    section = paper_tables.section(runs)
    assert cells(section.tables[-1], "CoLA")["ours: small"] in ("10.0 on 100 rows", "30.0 on 100 rows")
    said = "scored" if name == "rows_digest" else name.replace("_", " ")
    assert f"CoLA, small (2 settings: {said})" in section.note
    (own,) = own_tables.section(runs).tables
    assert [row[4] for row in own.rows] == ["10.0", "30.0"]
    if name != "rows_digest":  # rows that were scored are no setting of the run
        assert f"{said} {SETTINGS[name][1]}" in own.rows[1][-1]
    (table,) = ablations.section(runs).tables
    ours = [row for row in table.rows if row[1] == "ours" and row[0].startswith("transformer, auxiliary LM (full)")]
    assert sorted(row[table.headers.index("sst2")] for row in ours) == ["10.0", "30.0"]
    assert all(said in row[0] for row in ours)
    (table,) = auxiliary.section(runs).tables
    assert [row[2] for row in table.rows] == ["10.0", "30.0"]
    assert all(said in row[-1] for row in table.rows)


def test_measurements_do_not_split_a_group(tmp_path):
    for seed in (1, 2):
        measured = {"train_loss": seed, "train_seconds": seed, "device": f"CPU {seed}", "n_trained_parameters": seed}
        write(tmp_path / str(seed), row("cola", 10.0 * seed, seed, constant_answer=0.0, **measured))
    (group,) = grouped(scores(collect(tmp_path)))
    assert group.values == {1: 10.0, 2: 20.0}
    assert group.constant == 0.0


def test_earlier_results_group_among_themselves(tmp_path):
    for seed in (1, 2):
        write(tmp_path / f"old-{seed}", row("cola", 10.0 * seed, seed))
        write(tmp_path / f"new-{seed}", row("cola", 11.0 * seed, seed, dropout=0.1, constant_answer=0.0))
    assert [group.values for group in grouped(scores(collect(tmp_path)))] == [{1: 11.0, 2: 22.0}, {1: 10.0, 2: 20.0}]
    assert "(2 settings: dropout)" in paper_tables.section(collect(tmp_path)).note


def test_two_plans_in_a_folder_have_tables_of_their_own(tmp_path):
    for plan, value in (("first", 10.0), ("second", 30.0)):
        for seed in (1, 2, 3):
            planned(tmp_path / plan, "cola", "full", value + seed, seed)
            planned(tmp_path / plan, "cola", "no_auxiliary", value + seed - 5 + seed / 10, seed, lm_coef=0.0)
    tables = ablations.section(collect(tmp_path)).tables
    assert [table.title for table in tables] == ["Table 5: ablations (first)", "Table 5: ablations (second)"]
    full = [cells(table, "transformer, auxiliary LM (full)", "ours")["cola"] for table in tables]
    assert full == ["12.0 ± 1.0 (3)", "32.0 ± 1.0 (3)"]
    assert all(cells(table, "no auxiliary LM", "ours")["verdict: full is better"] == "yes" for table in tables)
    assert all(cells(table, "no auxiliary LM", "ours")["differs from full in"] == "lm coef 0.0" for table in tables)
    assert len(collect(tmp_path / "first")) == 6
    (table,) = ablations.section(collect(tmp_path / "first")).tables
    assert table.title == "Table 5: ablations"
    assert report(tmp_path).with_suffix(".md").read_text().count(RULE[:40]) == 1


def test_the_same_seed_twice_is_refused(tmp_path, capsys):
    write(tmp_path / "a" / "seed-42", row("cola", 10.0))
    write(tmp_path / "b" / "seed-42", row("cola", 20.0))
    with pytest.raises(GPT1Error, match=r"a/seed-42 and b/seed-42 have .* seed 42 on cola, .*\(10 and 20\): remove"):
        report(tmp_path)
    assert main(["report", str(tmp_path)]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize("variant", ["full", "embeddings_only", "with_auxiliary", "transfer"])
def test_the_same_seed_twice_is_refused_in_every_analysis(variant, tmp_path):
    details = {"transfer_layers": 0} if variant in ("embeddings_only", "transfer") else {}
    for folder, value in (("a", 1.0), ("b", 2.0)):
        plan = {"name": "elsewhere", "variant": variant}
        if variant in ("full", "embeddings_only"):
            plan["name"] = f"finetune/cola/{variant}/seed-42"
        write(tmp_path / folder, row("cola", value, **details), **plan)
    with pytest.raises(GPT1Error, match="a and b have the same settings"):
        report(tmp_path)


def test_a_copied_run_is_read_once(tmp_path):
    for seed in (1, 2):
        planned(tmp_path / "plan", "cola", "full", 10.0 * seed, seed)
        write(tmp_path / "other" / f"seed-{seed}", row("rte", 50.0 + seed, seed))
    before = report(tmp_path).with_suffix(".md").read_text()
    shutil.copytree(tmp_path / "plan/finetune/cola/full/seed-1", tmp_path / "a/deep/copy/of/finetune/cola/full/seed-1")
    shutil.copytree(tmp_path / "other", tmp_path / "zcopy")
    assert [run.name for run in collect(tmp_path)] == [
        "other/seed-1",
        "other/seed-2",
        "plan/finetune/cola/full/seed-1",
        "plan/finetune/cola/full/seed-2",
    ]
    assert report(tmp_path).with_suffix(".md").read_text() == before


def test_a_run_done_again_with_the_same_score_counts_once(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, row("cola", 10.0, train_seconds=len(name) if name == "a" else 99))
    (group,) = grouped(scores(collect(tmp_path)))
    assert group.values == {42: 10.0}


def test_failed_and_missing_seeds_are_named(tmp_path):
    for seed in (1, 2, 3):
        planned(tmp_path, "cola", "full", 10.0 + seed, seed)
        planned(tmp_path, "qnli", "with_auxiliary", 10.0 + seed, seed)
    planned(tmp_path, "cola", "no_auxiliary", 9.0, 1, lm_coef=0.0)
    planned(tmp_path, "cola", "no_auxiliary", None, 2)
    planned(tmp_path, "rte", "full", None, 1)
    planned(tmp_path, "qnli", "without_auxiliary", 9.0, 1, lm_coef=0.0)
    planned(tmp_path, "qnli", "without_auxiliary", None, 3)
    runs = collect(tmp_path)
    (table,) = ablations.section(runs).tables
    assert table.note.endswith(
        "Seeds without a score: finetune/cola/no_auxiliary (seed 2 failed, seed 3 missing); "
        "finetune/rte/full (seed 1 failed)."
    )
    (table,) = auxiliary.section(runs).tables
    assert "finetune/qnli/without_auxiliary (seed 2 missing, seed 3 failed)." in table.note


def test_failed_seeds_of_one_command_are_named(tmp_path):
    rows = [row("cola", 10.0, 1), row("cola", 20.0, 3)]
    for one in rows:
        write(tmp_path / "run" / f"seed-{one['seed']}", one)
    spread = {"over_seeds": {"mean": 15, "failed_seeds": [2]}}
    both = [{**one, "details": {**one["details"], **spread}} for one in rows]
    (tmp_path / "run" / "results.json").write_text(json.dumps(both))
    assert "Seeds without a score: run (seed 2 failed)." in paper_tables.section(collect(tmp_path)).note


def test_only_the_embeddings_transferred_are_a_row(tmp_path):
    for seed in (1, 2, 3):
        planned(tmp_path, "cola", "full", 20.0 + seed, seed, transfer_layers=None, constant_answer=0.0)
        planned(tmp_path, "cola", "embeddings_only", 12.0 + seed * 1.1, seed, transfer_layers=0)
        planned(tmp_path, "rte", "full", 60.0 + seed, seed, transfer_layers=None, constant_answer=52.7)
        planned(tmp_path, "rte", "embeddings_only", 55.0 + seed, seed, transfer_layers=0)
    (table,) = ablations.section(collect(tmp_path)).tables
    found = cells(table, "only the embeddings transferred", "ours")
    assert (found["cola"], found["avg of 2"], found["to full"]) == ("14.2 ± 1.1 (3)", "35.6 ± 0.6 (3)", "−6.4")
    assert (found["verdict: full is better"], found["differs from full in"]) == ("yes", "transfer layers 0")
    assert found["verdict by task"] == "yes: cola"  # RTE's difference is the same for every seed
    constant = cells(table, "constant answer")
    assert (constant["cola"], constant["rte"], constant["avg of 2"]) == ("0.0", "52.7", "26.4")


def test_pre_trained_against_from_scratch(tmp_path):
    for seed in (1, 2, 3):
        for task, gain in (("cola", 5.0), ("sst2", 8.0)):
            known = {"dropout": 0.1, "constant_answer": 50.0}
            write(tmp_path / f"{task}-pre-{seed}", row(task, 60.0 + gain + seed, seed, **known))
            scratch = {**known, "from_scratch": True, "learning_rate": 0.0002}
            write(tmp_path / f"{task}-new-{seed}", row(task, 60.0 + seed * 1.1, seed, **scratch))
    # Neither a rate with fewer seeds nor other settings are an arm.
    write(tmp_path / "rate", row("cola", 1.0, 1, from_scratch=True, dropout=0.1, learning_rate=0.9))
    write(tmp_path / "dropout", row("cola", 2.0, 1, from_scratch=True, dropout=0.5))
    (table,) = from_scratch.section(collect(tmp_path)).tables
    assert table.headers[3:8] == ["pre-trained", "its rate", "from scratch", "its rate", "difference"]
    assert table.rows == [
        [
            "cola",
            "validation",
            "small",
            *("67.0 ± 1.0 (3)", "0.001", "62.2 ± 1.1 (3)", "0.0002"),
            "+4.8",
            "yes",
            "50.0",
        ],
        [
            "sst2",
            "validation",
            "small",
            *("70.0 ± 1.0 (3)", "0.001", "62.2 ± 1.1 (3)", "0.0002"),
            "+7.8",
            "yes",
            "50.0",
        ],
        ["average of 2", "", "small", *("68.5 ± 0.6 (3)", "0.001", "62.2 ± 0.6 (3)", "0.0002"), "+6.3", "yes", "50.0"],
    ]
    assert from_scratch.section([]).tables == []


def test_context_lengths_by_settings(tmp_path):
    for name, max_examples, shift in (("all", None, 0.0), ("part", 10, 5.0)):
        for length in (64, 128):
            details = {"context_length": length, "max_examples": max_examples}
            one = row("race", 20.0 + shift, None, **details)
            del one["details"]["from_scratch"]
            write(tmp_path / f"{name}-{length}", one)
    (table,) = context_length.section(collect(tmp_path)).tables
    assert [row[:4] for row in table.rows] == [
        ["race validation, small, max examples None", "accuracy", "20.00", "20.00"],
        ["race validation, small, max examples 10", "accuracy", "25.00", "25.00"],
    ]


def test_fine_tuning_records_every_setting(base_model, tmp_path):
    settings = {"task": "cola", "sample": True, "model": base_model, "max_train_examples": 8, "max_steps": 1}
    args = FinetuneArguments(
        **settings, output_dir=str(tmp_path), use_cpu=True, dropout=0.3, peft="lora", lora_r=4, adam_beta2=0.9
    )
    (result, *_) = finetune(args)
    details = json.loads((tmp_path / "results.json").read_text())[0]["details"]
    assert details.items() >= model_settings(args).items()
    expected = {"dropout": 0.3, "classifier_dropout": 0.1, "question_delimiter": True, "plain_regression": False}
    expected |= {"weight_decay": 0.01, "layerwise_lr_decay": 1.0, "max_length": None, "warmup_steps": 0.002}
    expected |= {"train_sampling_strategy": "group_by_length", "lr_scheduler_type": "linear", "lora_r": 4}
    expected |= {"training_precision": "fp32", "max_train_examples": 8, "adam_beta2": 0.9, "max_steps": 1}
    expected |= {"lora_alpha": 32, "lora_dropout": 0.1, "transfer_layers": None, "max_grad_norm": 1.0}
    assert details.items() >= expected.items()
    assert len(details["base_weights"]) == 16
    assert settings_of(result).items() >= expected.items()


def test_settings_come_from_the_identity_of_a_run(tmp_path):
    """A setting that is added to the arguments is recorded, unless it cannot change a model."""
    args = FinetuneArguments(output_dir=str(tmp_path), use_cpu=True, task="cola")
    recorded = model_settings(args)
    own = {f.name for f in fields(args)} - {f.name for f in fields(FinetuneArguments.__mro__[2])}
    elsewhere = {"task", "model", "lora_r", "lora_alpha", "lora_dropout"}
    neutral = {"train_file", "validation_file", "input_format", "text_column", "label_column", "choices_column"}
    neutral |= {"seeds", "data_dir", "score_train", "max_eval_examples"}
    neutral |= {"global_batch_size"}  # the product of recorded settings
    assert own - recorded.keys() == elsewhere | neutral
    assert {"output_dir", "seed", "logging_steps", "per_device_eval_batch_size"}.isdisjoint(recorded)
    bf16 = model_settings(FinetuneArguments(output_dir=str(tmp_path), use_cpu=True, task="cola", bf16=True))
    assert bf16["training_precision"] in ("bf16 autocast", "fp32")  # fp32 on a CPU without bf16


def tuned(folder, *settings, values=(50.0,)):
    """The scores of `gpt1 analyze tune`, which name the settings of the grid."""
    facts = {"arm": "full", "values": dict.fromkeys(settings, 0.1), "chosen": True, "per": "arm", "scores": values}
    one = row("sst2", 50.0, None, "held-out train", constant_answer=51.0, tuning=facts)
    write(folder / "tune", one)


def test_settings_of_pre_training_are_not_those_of_an_arm():
    facts = {"arm": "full", "values": {"initializer_range": 0.02}, "chosen": True, "per": "model", "scores": [50.0]}
    results = [Result(**row("sst2", 50.0, tuning=facts)), Result(**row("sst2", 50.0, tuning={**facts, "per": "arm"}))]
    assert tuned_settings([CollectedRun("plan/tune", results[:1])]) == {}
    assert tuned_settings([CollectedRun("plan/tune", results)]) == {"plan": ("initializer_range",)}


RATES = {"learning_rate": (0.001, 0.0002), "weight_decay": (0.01, 0.1)}


@pytest.mark.parametrize("name", RATES)
def test_arms_that_were_tuned_are_compared(name, tmp_path):
    ours, theirs = ({name: value} for value in RATES[name])
    word = name.replace("_", " ")
    tuned(tmp_path / "plan", name)
    for seed in (1, 2, 3):
        size = ["max_train_examples-100"]
        planned(tmp_path / "plan", "qnli", "with_auxiliary", 60.0 + seed, seed, size, **ours)
        planned(tmp_path / "plan", "qnli", "without_auxiliary", 55.0 + 1.1 * seed, seed, size, lm_coef=0.0, **theirs)
        for k, settings in ((0, ours), (1, theirs)):
            values = {"transfer_layers": k, **settings}
            planned(tmp_path / "plan", "mnli", "transfer", 50 + 5 * k + seed * (1 + k / 9), seed, [f"k-{k}"], **values)
        planned(tmp_path / "plan", "cola", "full", 60.0 + seed, seed, **ours)
        planned(tmp_path / "plan", "cola", "no_pretraining", 50 + 1.1 * seed, seed, from_scratch=True, **theirs)
    runs = collect(tmp_path)
    (table,) = auxiliary.section(runs).tables
    assert [row[:6] for row in table.rows] == [["qnli", "100", "62.0 ± 1.0 (3)", "57.2 ± 1.1 (3)", "+4.8", "yes"]]
    assert f"with: {word} {RATES[name][0]}; without: {word} {RATES[name][1]}" in table.rows[0]
    (table,) = layer_transfer.section(runs).tables
    (found,) = table.rows
    assert dict(zip(table.headers, found, strict=True))["verdict"] == "1: yes"
    assert f"0: {word} {RATES[name][0]}; 1: {word} {RATES[name][1]}" in found
    (table,) = from_scratch.section(runs).tables
    found = cells(table, "cola")
    assert (found["difference"], found["verdict"]) == ("+9.8", "yes")
    assert str(RATES[name][0]) in table.rows[0][4] and str(RATES[name][1]) in table.rows[0][6]
    (table,) = ablations.section(runs).tables
    found = cells(table, "no pre-training", "ours")
    assert (found["to full"], found["verdict: full is better"]) == ("−9.8", "yes")
    assert found["tuned for each arm"] == f"{word} {RATES[name][1]}"
    assert cells(table, "transformer, auxiliary LM (full)", "ours")["tuned for each arm"] == f"{word} {RATES[name][0]}"


def test_seeds_of_an_arm_that_was_tuned_twice_are_not_averaged(tmp_path):
    tuned(tmp_path, "weight_decay")
    for seed in (1, 2, 3, 4):
        decay = 0.01 if seed < 4 else 0.5
        planned(tmp_path, "qnli", "with_auxiliary", 60.0 + seed, seed, weight_decay=decay)
        planned(tmp_path, "qnli", "without_auxiliary", 55.0 + 1.1 * seed, seed, lm_coef=0.0, weight_decay=0.1)
    (table,) = auxiliary.section(collect(tmp_path)).tables
    assert [row[2:6] for row in table.rows] == [
        ["62.0 ± 1.0 (3)", "57.8 ± 1.4 (4)", "+4.8", "yes"],
        ["64.0", "not run", "", ""],
    ]
    assert "because one of the arms lacks them: qnli, 100 rows, weight decay 0.01 (seed 4)." in table.note


def test_a_setting_that_a_plan_compares_is_not_tuned(tmp_path):
    for rate in (0.001, 0.1):
        for variant, value in (("with", 50 + rate), ("without", 40 + rate)):
            labels = [f"learning_rate-{rate}"]
            planned(tmp_path, "qnli", f"{variant}_auxiliary", value, sweep=labels, learning_rate=rate)
    (table,) = auxiliary.section(collect(tmp_path)).tables
    assert [(row[2], row[3]) for row in table.rows] == [("50.0", "40.0"), ("50.1", "40.1")]
    assert [row[-1] for row in table.rows] == ["learning rate 0.001", "learning rate 0.1"]


def test_a_difference_has_the_seeds_of_its_verdict(tmp_path):
    for seed, value in ((1, 60.0), (2, 61.0), (3, 62.0), (4, 30.0)):
        planned(tmp_path, "cola", "full", value, seed)
        planned(tmp_path, "qnli", "with_auxiliary", value, seed)
    for seed, value in ((1, 59.0), (2, 60.5), (3, 61.2)):
        planned(tmp_path, "cola", "no_pretraining", value, seed, from_scratch=True)
        planned(tmp_path, "qnli", "without_auxiliary", value, seed, lm_coef=0.0)
    runs = collect(tmp_path)
    (scratch,), (helps,), (table_5,) = (part.section(runs).tables for part in (from_scratch, auxiliary, ablations))
    for table, start in ((scratch, ["cola"]), (helps, ["qnli"])):
        assert (cells(table, *start)["difference"], cells(table, *start)["verdict"]) == ("+0.8", "yes")
    found = cells(table_5, "no pre-training", "ours")
    assert (found["to full"], found["verdict: full is better"]) == ("−0.8", "yes")
    for table, name in ((scratch, "cola, validation, small"), (helps, "qnli, 100 rows"), (table_5, "no pre-training")):
        assert f"because one of the arms lacks them: {name} (seed 4)." in table.note
    (point,) = auxiliary.section(runs).figures[0].series[0].points
    assert point == (100, pytest.approx(2.3 / 3))


@pytest.mark.parametrize("bad", [{"value": float("nan")}, {"value": float("inf")}, {"rows_not_finite": 3}])
def test_scores_that_are_not_finite_are_named_and_never_averaged(bad, tmp_path):
    value, details = bad.get("value", 0.0), {k: v for k, v in bad.items() if k != "value"}
    for seed in (1, 2, 3):
        planned(tmp_path, "cola", "full", 60.0 + seed, seed)
        planned(tmp_path, "qnli", "with_auxiliary", 60.0 + seed, seed)
        more = details if seed == 3 else {}
        other = value if seed == 3 else 50.0 + seed * 1.2
        planned(tmp_path, "cola", "no_pretraining", other, seed, from_scratch=True, **more)
        planned(tmp_path, "qnli", "without_auxiliary", other, seed, lm_coef=0.0, **more)
        write(tmp_path / f"own-{seed}", row("reviews", other, seed, metric="accuracy", **more))
        for k in (0, 1):
            score = other if k else 50.0 + seed
            planned(tmp_path, "mnli", "transfer", score, seed, [f"k-{k}"], transfer_layers=k, **(more if k else {}))
    planned(tmp_path, "rte", "no_auxiliary", value, 1, lm_coef=0.0, **details)  # its only seed
    one = row("race", value, None, context_length=64, **details)
    del one["details"]["from_scratch"]
    write(tmp_path / "length", one)
    tuned(tmp_path, "learning_rate", values=[value if "value" in bad else float("nan"), 50.0])
    runs = collect(tmp_path)
    text = report(tmp_path).with_suffix(".md").read_text()
    assert "finetune/cola/no\\_pretraining (seed 3 failed: not finite)" in text
    (table,) = ablations.section(runs).tables
    assert cells(table, "no pre-training", "ours")["cola"] == "51.8 ± 0.8 (2)"
    assert cells(table, "no auxiliary LM", "ours")["rte"] == "failed"
    (table,) = auxiliary.section(runs).tables
    assert table.rows[0][3:6] == ["51.8 ± 0.8 (2)", "+9.7", "open"]
    (table,) = layer_transfer.section(runs).tables
    assert cells(table, "mnli")["1"] == "51.8 ± 0.8 (2)"
    (table,) = own_tables.section(runs).tables
    assert table.rows[0][4] == "51.8 ± 0.8 (2)" and "own-3 (seed 3 failed: not finite)" in table.note
    (table,) = context_length.section(runs).tables
    assert table.rows[0][2] == "not finite"
    (table,) = tune.section(runs).tables
    assert table.rows == [["full", "0.1", "not finite", "–"], ["constant answer", "", "51.0", "51.0"]]


def test_pre_training_is_compared_by_its_own_analysis(tmp_path):
    for seed in (1, 2, 3):
        planned(tmp_path, "cola", "full", 60.0 + seed, seed)
        planned(tmp_path, "cola", "no_pretraining", 50 + 1.1 * seed, seed, from_scratch=True)
    section = pretraining.section(collect(tmp_path))
    (table,) = (table for table in section.tables if table.title == "The value of pre-training")
    assert (cells(table, "cola")["difference"], cells(table, "cola")["verdict"]) == ("+9.8", "yes")
    assert section.has_verdicts and section.title == "The paper's tasks"
    titles = [table.title for part in build(collect(tmp_path), "runs").sections for table in part.tables]
    assert titles.count("The value of pre-training") == 1


def test_ablations_say_what_their_seeds_leave_out(tmp_path):
    planned(tmp_path, "cola", "full", 60.0)
    (table,) = ablations.section(collect(tmp_path)).tables
    assert "one pre-training run" in table.note
