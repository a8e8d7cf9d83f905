"""The report: the paper's numbers, our numbers in the right cells, named gaps, and escaped text."""

import html.parser
import json
import math
import re
import shutil
from dataclasses import replace
from importlib import import_module

import pytest

from gpt1_hf.analysis.report import own_tables, paper, paper_tables
from gpt1_hf.analysis.report.analyses import ablations, auxiliary, layer_transfer
from gpt1_hf.analysis.report.analyses import zero_shot as zero_shot_section
from gpt1_hf.analysis.report.report import build, report
from gpt1_hf.analysis.report.runs import CollectedRun, collect, short_names
from gpt1_hf.analysis.report.sections import Table, escape
from gpt1_hf.cli import main
from gpt1_hf.cli.analyze import analyses
from gpt1_hf.errors import GPT1Error
from gpt1_hf.evaluation.task_scores import task_results
from gpt1_hf.figures import Figure, Series, draw, standalone, write_png
from gpt1_hf.tasks import all_tasks, load_task
from gpt1_hf.training.finetune_all import comparison


EVIL = "<script>alert('x')</script> | `code` $a_b$ & \"q\""


def write_run(folder, rows, run=None, log=()):
    """Write the files of a run."""
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(rows))
    if run is not None:
        (folder / "plan_run.json").write_text(json.dumps(run))
    if log:
        history = [{"step": step, "loss": loss} for step, loss in log]
        (folder / "trainer_state.json").write_text(json.dumps({"log_history": history}))


def row(task="cola", value=40.0, split="validation", metric=None, model="small", seed=42, **details):
    metric = metric or load_task(task).metric
    details = {"from_scratch": False, "lm_coef": 0.5, "n_train_examples": 100, "device": "CPU", **details}
    known = {"task": task, "split": split, "metric": metric, "value": value, "n_examples": 50, "paper": None}
    return {**known, "model": model, "seed": seed, "details": details}


def planned(runs, task, variant, value, seed=42, sweep=(), split="validation", metric=None, **details):
    name = "/".join(["finetune", task, variant, *sweep, f"seed-{seed}"])
    run = {"name": name, "variant": variant, "command": f"gpt1 finetune --task {task}", "settings": {"task": task}}
    run |= {"hash": "0", "state": "finished", "seconds": 60, "versions": {"torch": "2"}}
    write_run(runs / name, [row(task, value, split, metric, seed=seed, **details)], run, [(1, 2.0), (2, 1.0)])


def cells(table, *start):
    """Cells, by header, of the row with this beginning."""
    (found,) = (cells for cells in table.rows if cells[: len(start)] == list(start))
    return dict(zip(table.headers, found, strict=True))


def test_the_papers_numbers_are_those_of_the_tasks(tmp_path):
    columns = [column for table in paper.TABLES.values() for column in table]
    tasks = {task.id: task for task in all_tasks().values() if task.paper is not None}
    assert {column.task for column in columns} == set(tasks)
    for task in tasks.values():  # every number of a task has its column
        parts = {None, *task.subsets} if task.pooled else {*task.subsets}
        assert {column.subset for column in columns if column.task == task.id} == parts
    splits = {column: "_".join(filter(None, ["validation", column.subset])) for column in columns}
    write_run(tmp_path / "run", [row(c.task, 1.0, splits[c], metric=tasks[c.task].metric) for c in columns])
    section = paper_tables.section(collect(tmp_path))
    assert section.gaps == "Not run: the GLUE leaderboard (paper 72.8, best before the paper 68.9)."
    shown = [row for table in section.tables for row in table.rows]
    for column, (title, _, prior, number, *_) in zip(columns, shown, strict=True):
        assert title == column.title
        assert (float(number), float(prior)) == tasks[column.task].numbers(column.subset)


def test_table_5_adds_up():
    full = paper.ABLATIONS["full"].by_task
    assert full["mnli"] == 81.8  # as the paper prints the mean of 82.1 and 81.4
    for task in set(full) - {"mnli"}:
        assert full[task] == load_task(task).paper
    for ablation in paper.ABLATIONS.values():
        if ablation.values:
            # The paper's averages are of numbers with more digits than it prints.
            assert sum(ablation.values) / 8 == pytest.approx(ablation.average, abs=0.2), ablation


def test_every_analysis_has_its_section(tmp_path):
    planned(tmp_path, "cola", "full", 30.0)
    content = build(collect(tmp_path), "runs")
    titles = {section.title for section in content.sections}
    _, _, not_run = content.summary.partition("Not run: ")
    for name in analyses():
        module = import_module(f"gpt1_hf.analysis.report.analyses.{name.replace('-', '_')}")
        nothing = module.section([])
        assert nothing.is_empty and nothing.markdown() == f"## {nothing.title}\n\nNot run."
        assert (nothing.title in titles) != (nothing.title in not_run.rstrip(".").split("; "))
    assert titles == {"The paper's tasks", "Ablations", "Losses of fine-tuning", "Verdicts", "All runs"}


def test_only_what_can_be_run_is_named_as_not_run(tmp_path):
    write_run(tmp_path / "run", [row("cola", 30.0)])
    summary = build(collect(tmp_path), "runs").summary
    assert summary.startswith("1 run: 1 finished.")
    assert "Pre-training" in summary and "Losses" not in summary and "Other results" not in summary


def test_finetune_all_shows_the_same_numbers():
    """The table of `gpt1 finetune --task all` and that of `gpt1 report` agree on the paper's numbers."""
    results = []
    for task in all_tasks().values():
        rows = task.load("validation", sample=True)
        predictions = [{**row, "prediction": row["label"]} for row in rows]
        results += task_results(task, "validation", predictions, model="m", seed=42, details={"from_scratch": False})
    shown = set()
    for line in comparison(results, {}, "github").splitlines():
        if line.startswith("| ") and "task" not in line:
            task, split, metric, *numbers = (cell.strip() for cell in line.split("|")[1:6])
            if metric == load_task(task).metric:
                shown.add((task, split.partition("_")[2] or None, *numbers))
    tables = paper_tables.section([CollectedRun("all", results)]).tables
    columns = [column for table in paper.TABLES.values() for column in table]
    reported = [row for table in tables for row in table.rows]
    assert shown == {(c.task, c.subset, row[2], row[3]) for c, row in zip(columns, reported, strict=True)}
    assert not any("not run" in row for row in reported)


def test_the_tables_show_one_setting_of_each_model_and_name_gaps(tmp_path):
    write_run(tmp_path / "small", [row(value=10, n_train_examples=100)])
    for seed, value in ((42, 20.0), (43, 30.0)):
        write_run(tmp_path / f"big-{seed}", [row(value=value, seed=seed, n_train_examples=8000)])
    write_run(tmp_path / "scratch", [row(value=5, from_scratch=True, n_train_examples=9000)])
    write_run(tmp_path / "no-lm", [row(value=6, lm_coef=0, n_train_examples=9000)])
    write_run(tmp_path / "held", [row(value=7, split="held-out train", n_train_examples=9000)])
    write_run(tmp_path / "mnli", [row("mnli", 50, "validation_matched"), row("mnli", 51, "validation_mismatched")])
    write_run(tmp_path / "sample", [row("sst2", 60, sample=True)])
    section = paper_tables.section(collect(tmp_path))
    nli, other = section.tables
    assert {"SNLI", "RACE", "Story Cloze", "QQP", "Table 2 with small from scratch"} <= set(section.not_run)
    ours = ["ours: small", "ours: small (sample)", "ours: small from scratch"]
    assert other.headers == ["data", "metric", "best before the paper", "paper", *ours, "constant answer"]
    cola = cells(other, "CoLA")
    assert (cola["best before the paper"], cola["paper"], cola["ours: small"]) == (
        "35.0",
        "45.4",
        "25.0 ± 7.1 (2) on 8,000 rows",
    )
    assert cola["ours: small from scratch"] == "5.0 on 9,000 rows"
    assert cells(other, "SST-2")["ours: small"] == "not run"
    assert cells(other, "SST-2")["ours: small (sample)"] == "60.0 on 100 rows"
    assert cells(nli, "MultiNLI matched")["ours: small"].startswith("50.0")
    assert cells(nli, "MultiNLI mismatched")["ours: small"].startswith("51.0")


def test_the_test_set_is_preferred_to_the_validation_set(tmp_path):
    write_run(tmp_path / "a", [row("story_cloze", 60, "validation"), row("story_cloze", 62, "test")])
    write_run(tmp_path / "b", [row("story_cloze", 70, "validation", seed=43), row("story_cloze", 64, "test", seed=43)])
    (qa,) = paper_tables.section(collect(tmp_path)).tables
    assert cells(qa, "Story Cloze")["ours: small"] == "63.0 ± 1.4 (2) on 100 rows"


def test_models_have_short_names_that_tell_them_apart():
    assert short_names(["runs/a/full", "runs/b/lstm", "owner/full", "gpt1-tiny"]) == {
        "runs/a/full": "full",
        "runs/b/lstm": "lstm",
        "owner/full": "owner/full",
        "gpt1-tiny": "gpt1-tiny",
    }
    assert set(short_names(["runs/a/full", "runs/b/full"]).values()) == {"runs/a/full", "runs/b/full"}


def test_ablations_compare_the_same_tasks_and_seeds(tmp_path):
    for seed, value in ((42, 30.0), (43, 40.0)):
        planned(tmp_path, "cola", "full", value, seed)
    planned(tmp_path, "rte", "full", 60.0)
    planned(tmp_path, "sst2", "full", 99.0)  # the other variants have none: out of the average
    planned(tmp_path, "cola", "no_pretraining", 10.0, from_scratch=True)
    planned(tmp_path, "rte", "no_pretraining", 50.0, from_scratch=True)
    planned(tmp_path, "cola", "full", 1.0, 44, sweep=["learning_rate-1"])  # of another plan
    section = ablations.section(collect(tmp_path))
    assert {"qqp", "mnli", "LSTM, auxiliary LM", "no position embeddings"} <= set(section.not_run)
    (table,) = section.tables
    full = cells(table, "transformer, auxiliary LM (full)", "ours")
    assert (full["cola"], full["rte"], full["sst2"]) == ("35.0 ± 7.1 (2)", "60.0", "99.0")
    assert cells(table, "no pre-training", "ours")["sst2"] == "not run"
    assert not {"qqp", "mnli"} & set(table.headers) and len(table.rows) == 5
    assert (full["avg of 8"], full["avg of 2"], full["to full"]) == ("not run", "45.0", "")  # of seed 42
    scratch = cells(table, "no pre-training", "ours")
    assert (scratch["avg of 2"], scratch["to full"]) == ("30.0", "−15.0")  # over seed 42, which both have
    printed = cells(table, "no pre-training", "paper")
    # (18.9 + 53.8) / 2, and its distance to (45.4 + 56.0) / 2
    assert (printed["avg of 8"], printed["avg of 2"], printed["to full"]) == ("59.9", "36.3", "−14.4")
    planned(tmp_path, "cola", "no_positions", 20.0)
    (table,) = ablations.section(collect(tmp_path)).tables
    assert cells(table, "no position embeddings", "claimed")["to full"] == "−3.1"
    assert cells(table, "no position embeddings", "ours")["rte"] == "not run"


def test_own_data_sets_have_a_table_with_their_settings_and_spread(tmp_path):
    for seed, value in ((42, 70.0), (43, 80.0)):
        own = [
            row("reviews", value, metric="accuracy", seed=seed, epochs=3),
            row("reviews", 9, metric="f1", seed=seed),
        ]
        write_run(tmp_path / f"seed-{seed}", own)
    write_run(tmp_path / "lora", [row("reviews", 60.0, metric="accuracy", epochs=3, peft="lora")])
    write_run(tmp_path / "sst2", [row("sst2", 50.0)])
    (table,) = own_tables.section(collect(tmp_path)).tables
    settings = "n train examples 100, epochs 3, lm coef 0.5"
    assert table.rows == [
        ["reviews", "validation", "accuracy", "small", "60.0", "50", f"{settings}, peft lora"],
        ["reviews", "validation", "accuracy", "small", "75.0 ± 7.1 (2)", "50", settings],
        ["reviews", "validation", "f1", "small", "9.0 ± 0.0 (2)", "50", "n train examples 100, lm coef 0.5"],
    ]
    assert "75.0 ± 7.1 (2)" in report(tmp_path).with_suffix(".md").read_text()
    assert not own_tables.section([]).tables and "Other data sets" not in build([], "none").markdown()


def test_analyses_show_own_tasks_by_their_first_metric(tmp_path):
    for variant, value in (("full", 70.0), ("no_pretraining", 60.0)):
        planned(tmp_path, "reviews", variant, value, metric="accuracy", transfer_layers=1)
    (table,) = ablations.section(collect(tmp_path)).tables
    assert cells(table, "no pre-training", "ours")["reviews"] == "60.0"
    assert cells(table, "no pre-training", "ours")["to full"] == "−10.0"
    assert cells(table, "no pre-training", "paper")["reviews"] == "–"
    assert cells(table, "no pre-training", "paper")["to full"] == ""
    (table,) = layer_transfer.section(collect(tmp_path)).tables
    assert [row[2] for row in table.rows] == ["70.0", "60.0"]  # two variants, which are no seeds of one another


def test_both_sets_of_multinli_are_one_number(tmp_path):
    run = {"name": "finetune/mnli/full/seed-42", "variant": "full", "state": "finished", "settings": {}, "hash": ""}
    write_run(tmp_path / "a", [row("mnli", 50, "validation_matched"), row("mnli", 60, "validation_mismatched")], run)
    (table,) = ablations.section(collect(tmp_path)).tables
    assert cells(table, "transformer, auxiliary LM (full)", "ours")["mnli"] == "55.0"


def test_auxiliary_by_training_rows(tmp_path):
    for variant, size, value in (("with", 1000, 60), ("without", 1000, 62), ("with", 3000, 70)):
        sweep = [f"max_train_examples-{size}"]
        planned(tmp_path, "qnli", f"{variant}_auxiliary", value, sweep=sweep, n_train_examples=size)
    section = auxiliary.section(collect(tmp_path))
    assert section.tables[0].rows == [
        ["qnli", "1,000", "60.0", "62.0", "−2.0", "open", "unknown"],
        ["qnli", "3,000", "70.0", "not run", "", "", "unknown"],
    ]
    assert section.figures[0].series[0].points == [(1000, -2)]


@pytest.mark.parametrize("folder", ["checkpoint-{}", "trajectory/update-{:07d}"])
def test_zero_shot_curves_by_checkpoint(folder, tmp_path):
    for step, value in ((100, 0.1), (50, 0.05)):
        for name, scale in (("gpt", 1), ("lstm", 0.5)):
            model = f"runs/{name}/{folder.format(step)}"
            result = row("cola", value * scale, metric="relative_performance", model=model)
            del result["details"]["from_scratch"]
            write_run(tmp_path / f"{name}-{step}", [result])
    section = zero_shot_section.section(collect(tmp_path))
    assert [(line.label, line.points, line.dashed) for line in section.figures[0].series] == [
        ("cola, runs/gpt", [(50, 0.05), (100, 0.1)], False),
        ("cola, runs/lstm", [(50, 0.025), (100, 0.05)], True),
    ]


def test_captions_say_that_documents_were_drawn(tmp_path):
    details = {"method": "zero-shot", "interval": [20.0, 40.0], "chance": 25.0, "updates": 10}
    for name, known in (("race", {"resampled": "documents"}), ("sst2", {})):
        one = row(name, 30.0, **details, **known)
        del one["details"]["from_scratch"]
        write_run(tmp_path / name, [one])
    section = zero_shot_section.section(collect(tmp_path))
    captions = {figure.name: figure.caption for figure in section.figures}
    assert "whole documents are drawn" in captions["zero_shot_race"]
    assert "documents" not in captions["zero_shot_sst2"]
    assert "whole documents are drawn" in section.tables[0].note


def test_results_of_several_seeds_are_read_once(tmp_path):
    rows = [row(value=40, seed=42), row(value=50, seed=43)]
    for one in rows:
        write_run(tmp_path / "run" / f"seed-{one['seed']}", [one])
    over = [{**one, "details": {**one["details"], "over_seeds": {"mean": 45}}} for one in rows]
    (tmp_path / "run" / "results.json").write_text(json.dumps(over))
    assert [run.name for run in collect(tmp_path)] == ["run/seed-42", "run/seed-43"]


def test_files_without_results_are_skipped_with_a_warning(tmp_path, caplog):
    for name, content in (("broken", "{"), ("other", '{"a": 1}'), ("short", '[{"task": "cola"}]')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(content)
    assert collect(tmp_path) == []
    assert caplog.text.count("is skipped") == 3
    with pytest.raises(GPT1Error, match=r"holds no results.json"):
        report(tmp_path)
    with pytest.raises(GPT1Error, match="there is no folder"):
        report(tmp_path / "nowhere")


class Page(html.parser.HTMLParser):
    """Tags, what they refer to, and whether they are closed."""

    VOID = {"meta", "link", "br", "hr", "img", "input"}

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.links, self.ids = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()


def test_the_page_is_well_formed_and_all_text_is_escaped(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    planned(tmp_path, "cola", "full", 30.0)
    planned(tmp_path, "cola", "transfer", 30.0, transfer_layers=1, model=EVIL)
    write_run(tmp_path / "evil", [row(value=1, model=EVIL, note=EVIL)], log=[(1, 2.0)])
    failed = {"name": EVIL, "variant": EVIL, "state": "failed", "error": EVIL, "settings": {"a": EVIL}, "hash": ""}
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "plan_run.json").write_text(json.dumps({**failed, "command": f"gpt1 {EVIL}"}))
    pretrained = row("language_modeling", 50.0, metric="perplexity", tokens_seen=1000, updates=10)
    del pretrained["details"]["from_scratch"]
    write_run(tmp_path / "pretrain" / EVIL.replace("/", ""), [pretrained], log=[(1, 5.0), (10, 4.0)])
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip().endswith("report.html")

    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert not page.open
    assert "script" not in page.tags
    assert page.tags.count("svg") == 3  # layer transfer and the losses of pre-training and of cola
    assert all(link.startswith("#") for link in page.links), page.links
    assert "not run" in text
    assert "1 failed" in text
    assert not re.search(r"https?://(?!www\.w3\.org)", text)

    markdown = (tmp_path / "report.md").read_text()
    outside = re.sub(r"```+bash.*?```+", "", markdown, flags=re.DOTALL)
    assert "<script" not in outside
    tables = [line for line in outside.splitlines() if line.startswith("|")]
    widths = {}
    for before, line in zip(["", *tables], tables, strict=False):
        widths[line] = len(re.findall(r"(?<!\\)\|", line))
        if set(line) <= set("|-: "):
            assert widths[before] == widths[line]
    for figure in re.findall(r"\]\((.*?)\)", outside):
        assert (tmp_path / figure).is_file(), figure


def test_a_report_can_be_rewritten_and_written_elsewhere(tmp_path):
    planned(tmp_path / "runs", "cola", "full", 30.0)
    first = report(tmp_path / "runs").read_text()
    assert report(tmp_path / "runs").read_text() == first
    assert report(tmp_path / "runs", tmp_path / "out").read_text() == first


def test_figures_of_an_earlier_report_are_removed_but_no_other_files(tmp_path):
    pytest.importorskip("matplotlib")
    for task in ("cola", "rte", "sst2"):
        write_run(tmp_path / "runs" / task, [row(task)], log=[(1, 2.0), (2, 1.0)])
    out = tmp_path / "out"
    report(tmp_path / "runs", out)
    figures = out / "figures"
    assert {file.name for file in figures.iterdir()} == {"loss_cola.svg", "loss_rte.svg", "loss_sst2.svg"}
    (figures / "mine.svg").write_text((figures / "loss_cola.svg").read_text())  # of no report
    (figures / "loss_rte.svg").write_text("<svg/>")  # replaced by the user
    (figures / "loss_old.svg").write_text((figures / "loss_cola.svg").read_text())
    (out / "analysis.md").write_text("![x](figures/loss_old.svg)")
    for task in ("cola", "rte"):
        shutil.rmtree(tmp_path / "runs" / task)
    report(tmp_path / "runs", out)
    assert {file.name for file in figures.iterdir()} == {"mine.svg", "loss_rte.svg", "loss_old.svg", "loss_sst2.svg"}


def test_plots_take_their_colours_from_the_page():
    pytest.importorskip("matplotlib")
    series = [Series("a < b & $x_1$", [(1, 1), (2, 3)]), Series("none", [])]
    svg = draw(Figure("f", "title", "x", "y", series, log_x=True))
    assert svg.startswith("<svg ") and "a &lt; b &amp; $x_1$" in svg
    assert "var(--ink" in svg and "#010203" not in svg and "none</text>" not in svg
    assert " width=" not in svg.partition(">")[0] and "viewBox" in svg.partition(">")[0]
    alone = standalone(svg)
    assert alone.startswith("<?xml") and "prefers-color-scheme" in alone
    assert Figure("f", "t", "x", "y").is_empty


def test_bands_and_a_level_are_drawn_around_the_lines(tmp_path):
    pytest.importorskip("matplotlib")
    points, band = [(1, 1), (2, 3), (4, 2)], [(0, 2), None, (1, 3)]
    plain = Figure("f", "title", "x", "y", [Series("a", points)])
    svg = draw(replace(plain, series=[Series("a", points, band=[(0, 2), (2, 4), (1, 3)])], level=("chance", 1.5)))
    assert svg.count("opacity: 0.16") == 1 and draw(plain).count("opacity: 0.16") == 0
    assert ">chance</text>" in svg and "var(--ink" in svg.partition(">chance<")[0].rpartition("stroke-dasharray")[2]
    # A point without an interval leaves a gap, and a single point has a line instead of a band.
    assert "opacity: 0.16" in draw(replace(plain, series=[Series("a", points[::2], band=band[::2])]))
    assert draw(replace(plain, series=[Series("a", points, band=band)]))
    single = replace(plain, series=[Series("a", [(1, 1)], band=[(0, 2)])])
    assert "LineCollection" in draw(single)
    for name, figure in (("plain", plain), ("band", replace(plain, series=[Series("a", points, band=[(0, 4)] * 3)]))):
        write_png(figure, tmp_path / f"{name}.png")
    assert (tmp_path / "band.png").read_bytes() != (tmp_path / "plain.png").read_bytes()


def language_model(name: str, runs, plan=None, **details):
    found = row("language_modeling", 50.0, metric="perplexity", tokens_seen=1000, updates=10, **details)
    del found["details"]["from_scratch"]
    write_run(runs / name, [found], plan)


def test_a_partial_held_out_text_is_marked_in_every_table(tmp_path):
    part = {"scored_tokens": 100_000, "validation_tokens": 1_234_567, "partial": True}
    language_model("part", tmp_path, **part)
    language_model("whole", tmp_path, scored_tokens=1_234_567, validation_tokens=1_234_567)
    plan = {"hash": "0", "state": "finished", "variant": "full", "settings": {"max_validation_tokens": 100_000}}
    language_model("earlier", tmp_path, plan)
    evaluated = {"scored_characters": 900, "text_characters": 5000, "partial": True}
    for name, more in (("evaluated", {}), ("length", {"context_length": 64})):
        result = row("language_modeling", 50.0, metric="perplexity", **evaluated, **more)
        del result["details"]["from_scratch"]
        write_run(tmp_path / name, [result])
    content = build(collect(tmp_path), "runs")
    tables = {table.title: table for section in content.sections for table in section.tables}
    assert {name: cells(tables["Pre-training"], name)["on"] for name in ("part", "whole", "earlier")} == {
        "part": "100,000 of 1,234,567 tokens",
        "whole": "all 1,234,567 tokens",
        "earlier": "the first 100,000 tokens",
    }
    assert cells(tables["Evaluations"], "evaluated")["rows"] == "50 (900 of 5,000 characters)"
    assert "perplexity 50 on 100,000 of 1,234,567 tokens" in cells(tables["Runs"], "part")["results"]
    assert "on" not in cells(tables["Runs"], "whole")["results"].split()
    (line,) = (table.rows[0][0] for name, table in tables.items() if name.startswith("By context length"))
    assert "(on 900 of 5,000 characters)" in line
    assert "100,000 of 1,234,567 tokens" in content.summary


def test_settings_that_differ_are_columns_of_the_pre_training_table(tmp_path):
    known = {"training_precision": "fp32", "learning_rate": 0.001, "batch_size": 64, "dropout": 0.1}
    language_model("a", tmp_path, **known, position_initializer_range=0.006)
    language_model("b", tmp_path, **{**known, "learning_rate": 0.002}, position_initializer_range=None, adam_beta2=0.9)
    language_model("old", tmp_path)
    content = build(collect(tmp_path), "runs")
    (table,) = (table for part in content.sections for table in part.tables if table.title == "Pre-training")
    headers = ["learning rate", "position initializer range", "adam beta2"]
    assert table.headers[-3:] == headers and "dropout" not in table.headers and "batch size" not in table.headers
    found = {name: [cells(table, name)[header] for header in headers] for name in ("a", "b", "old")}
    unknown = ["unknown"] * 3
    assert found == {"a": ["0.001", "0.006", "default"], "b": ["0.002", "None", "0.9"], "old": unknown}


def test_evaluations_show_the_constant_answer(tmp_path):
    for name, known in (("new", {"constant_answer": 52.71}), ("old", {})):
        one = row("rte", 60.0, **known)
        del one["details"]["from_scratch"]
        write_run(tmp_path / name, [one])
    content = build(collect(tmp_path), "runs")
    (table,) = (table for part in content.sections for table in part.tables if table.title == "Evaluations")
    assert [cells(table, name)["constant answer"] for name in ("new", "old")] == ["52.71", "–"]


def test_without_matplotlib_the_tables_stay(tmp_path, monkeypatch, caplog):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    planned(tmp_path, "cola", "full", 30.0)
    text = report(tmp_path).read_text()
    assert "gpt1_hf[plots]" in text and "30.0" in text
    assert not (tmp_path / "figures").exists()


def test_markdown_shows_texts_as_they_are():
    assert escape("a|b_c*d\n<e>") == r"a\|b\_c\*d &lt;e&gt;"
    table = Table("T", ["a"], [["1|2"]]).markdown()
    assert table.splitlines()[-1].replace(" ", "") == r"|1\|2|"


def test_spread_of_seeds():
    from gpt1_hf.evaluation.seeds import mean, mean_and_deviation

    assert tuple(map(mean_and_deviation, ([], [1.25], [1.0, 3.0]))) == ("not run", "1.2", "2.0 ± 1.4 (2)")
    assert math.isnan(mean([]))
