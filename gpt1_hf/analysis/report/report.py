"""One page on all runs below a folder: the paper's tables and figures beside ours, losses, settings."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import jinja2

from ...errors import GPT1Error
from ...evaluation.results import Result, part_of_text
from ...evaluation.verdicts import RULE
from ...figures import Figure, Series, draw
from ...files import write_text
from ...resources import ASSETS
from ...training.arguments import FinetuneArguments, PretrainArguments
from . import analyses, from_scratch, own_tables, paper_tables
from .groups import MEASURED, UNKNOWN, constant_of
from .own_tables import OWN_SETTINGS
from .runs import CollectedRun, collect, is_held_out
from .sections import Section, Table, escape, figures_named, remove_figures, write_figures


# Details that identify data and tokenizer.
DIGESTS = ("tokenizer", "rows_digest", "train_rows_digest", "base_weights", "architecture_digest")


@dataclass
class Report:
    """The content of a report; `commands` are the runs of plans, each with its command."""

    title: str
    summary: str
    sections: list[Section]
    commands: list[tuple[str, str]]

    def markdown(self) -> str:
        """As one Markdown file that refers to the figures' files in `figures/`."""
        parts = [f"# {escape(self.title)}", escape(self.summary), *(section.markdown() for section in self.sections)]
        if self.commands:
            lines = "\n".join(f"# {name}\n{command}" for name, command in self.commands)
            # The fence must be longer than any in the text.
            inner = [len(word) for word in lines.split() if set(word) == {"`"}]
            fence = "`" * max(3, 1 + max(inner, default=0))
            parts += ["## Commands", f"{fence}bash\n{lines}\n{fence}"]
        return "\n\n".join(part for part in parts if part) + "\n"

    def html(self) -> str:
        """As one HTML page that needs no other file."""
        environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        template = environment.from_string((ASSETS / "report.html").read_text(encoding="utf-8"))
        return template.render(report=self, draw=draw)


def report(runs_dir: str | Path, output_dir: str | Path | None = None) -> Path:
    """
    Write `report.html`, `report.md` and `figures/` on all runs below a folder. Figures that only an earlier report in
    the output folder shows are removed.

    Args:
        runs_dir (`str` or `Path`):
            Folder with `results.json` files at any depth.
        output_dir (`str` or `Path`, *optional*):
            Where to write; defaults to `runs_dir`.

    Returns:
        `Path`: the HTML page.

    Raises:
        GPT1Error: if the folder does not exist or holds no run.
    """
    if not Path(runs_dir).is_dir():
        raise GPT1Error(f"there is no folder {str(runs_dir)!r}: give a folder that holds runs")
    runs = collect(runs_dir)
    if not runs:
        raise GPT1Error(f"{str(runs_dir)!r} holds no results.json: run `gpt1 finetune` or `gpt1 analyze` first")
    content = build(runs, f"GPT-1 runs in {Path(runs_dir).name or runs_dir}")
    folder = Path(output_dir or runs_dir)
    earlier = figures_named(folder)
    write_figures(content.sections, folder / "figures")
    write_text(folder / "report.md", content.markdown())
    remove_figures(earlier - figures_named(folder), folder / "figures")
    write_text(folder / "report.html", content.html())
    return folder / "report.html"


def build(runs: Sequence[CollectedRun], title: str) -> Report:
    """Make the report of some runs."""
    states = [run.plan.get("state", "finished") for run in runs]
    counts = [f"{states.count(state)} {state}" for state in ("finished", "failed", "stopped") if state in states]
    results = [result for run in runs for result in run.results]
    devices = sorted({str(result.details["device"]) for result in results if "device" in result.details})
    versions = sorted({f"{name} {number}" for run in runs for name, number in run.plan.get("versions", {}).items()})
    partial = {f"{r.task} {r.split} ({r.rows} rows)" for r in results if r.details.get("rows_of_split")}
    partial |= {
        f"{r.task} {r.split} ({part_of_text(r.details)})"
        for r in results
        if r.details.get("partial") and not r.details.get("rows_of_split")
    }
    summary = [f"{len(runs)} run{'s' if len(runs) > 1 else ''}: {', '.join(counts)}."]
    summary += [f"Hardware: {'; '.join(devices)}."] if devices else []
    summary += [f"Software of the plans' runs: {', '.join(versions)}."] if versions else []
    summary += [f"Scored on a part of the split: {', '.join(sorted(partial))}."] if partial else []
    found = [import_module(f"{analyses.__name__}.{module.name}") for module in iter_modules(analyses.__path__)]
    optional = [section for section in (from_scratch.section(runs), own_tables.section(runs)) if section.tables]
    # Its two sections come first.
    found = [part for part in found if part.__name__ != f"{analyses.__name__}.pretraining"]
    measured = [paper_tables.section(runs), *optional, *(part.section(runs) for part in found)]
    models = pretraining(runs)
    record = [models, finetuning_losses(runs), other_results(runs), all_runs(runs)]
    not_run = [section.title for section in [*measured, models] if section.is_empty]
    summary += [f"Not run: {'; '.join(not_run)}."] if not_run else []
    sections = [section for section in measured if not section.is_empty]
    if any(section.has_verdicts for section in sections):
        sections.append(Section("Verdicts", note=RULE))
    sections += [section for section in record if not section.is_empty]
    commands = [(run.name, run.plan["command"]) for run in runs if "command" in run.plan]
    return Report(title, " ".join(summary), sections, commands)


def pretraining(runs: Sequence[CollectedRun]) -> Section:
    """The pre-training runs: size, tokens, held-out perplexity, and their losses."""
    rows, series, found = [], [], []
    for run in runs:
        results = [result for result in run.results if not is_held_out(result)]  # not those of a tuning
        if not any("tokens_seen" in result.details for result in results):
            continue
        details = run.results[0].details
        values = {result.metric: result.value for result in run.results}
        n_parameters, n_inner = details.get("n_parameters", 0), details.get("n_non_embedding_parameters")
        cells = {
            "run": run.name,
            "parameters": f"{n_parameters / 1e6:.2f} M",
            "without embeddings": "–" if n_inner is None else f"{n_inner / 1e6:.2f} M",
            "tokens": f"{details['tokens_seen'] / 1e6:.2f} M",
            "updates": f"{details.get('updates', 0):,}",
            "held-out perplexity": f"{values['perplexity']:.2f}" if "perplexity" in values else "–",
            "on": scored_text(run),
            "bits per character": f"{values['bits_per_character']:.3f}" if "bits_per_character" in values else "–",
            "minutes": f"{details.get('train_seconds', 0) / 60:.1f}",
            "tokens/s": f"{details.get('tokens_per_second', 0):,}",
            "hardware": str(details.get("device", "")),
        }
        rows.append(cells)
        found.append(run)
        series.append(Series(run.name, run.losses, dashed="lstm" in run.name))
    for name, values in pretraining_settings(found).items():
        for cells, value in zip(rows, values, strict=True):
            cells[name] = value
    table = Table(
        "Pre-training",
        list(rows[0]) if rows else [],
        [list(cells.values()) for cells in rows],
        "The paper reports perplexity 18.4 on BooksCorpus, for 116.5 M parameters and another vocabulary.",
    )
    axes = ("pre-training updates", "training loss, nats per token")
    figure = Figure("pretraining_loss", "Training loss of the models", *axes, series, log_x=True)
    return Section("Pre-training", [table] if rows else [], [figure])


def pretraining_settings(runs: Sequence[CollectedRun]) -> dict[str, list[str]]:
    """
    Settings that differ among pre-training runs: name -> the value of each run. A setting that a run does not name has
    its default value there, and is unknown if an earlier version did the run, which recorded no settings.
    """
    own = {field.name for field in fields(PretrainArguments)} - {"max_validation_tokens", "max_steps"}
    all_details = [{**run.results[0].details, "seed": run.results[0].seed} for run in runs]
    names = dict.fromkeys(name for details in all_details for name in details)
    columns = {}
    for name in names:
        if name not in own and name not in ("training_precision", "batch_size"):
            continue
        values = [
            str(details[name]) if name in details else "default" if "training_precision" in details else UNKNOWN
            for details in all_details
        ]
        if len({*values} - {UNKNOWN}) > 1:
            columns[name.replace("_", " ")] = values
    return columns


def scored_text(run: CollectedRun) -> str:
    """How much of the held-out text a run's perplexity is of. Earlier versions left it to the settings."""
    limit = run.plan.get("settings", {}).get("max_validation_tokens")
    at_most = f"the first {limit:,} tokens" if isinstance(limit, int) else "–"
    return part_of_text(run.results[0].details) or at_most


def finetuning_losses(runs: Sequence[CollectedRun]) -> Section:
    """Loss curves of fine-tuning: a figure for each task, with one seed of each setting."""
    tasks: dict[str, dict[str, Series]] = {}
    for run in runs:
        is_finetuning = bool(run.results) and "from_scratch" in run.results[0].details
        # One loss is no curve.
        if is_finetuning and len(run.losses) > 1 and not is_held_out(run.results[0]):
            task, parent = run.results[0].task, run.name.rsplit("/seed-", 1)[0]
            label = re.sub(rf"(^|/)finetune/{re.escape(task)}/", r"\1", parent)
            tasks.setdefault(task, {}).setdefault(label, Series(label, run.losses))
    figures = [
        Figure(f"loss_{task}", f"Training loss on {task}", "updates", "training loss", list(series.values()))
        for task, series in sorted(tasks.items())
    ]
    note = "Each line is the first seed. The loss includes the auxiliary one, where that is on." if figures else ""
    return Section("Losses of fine-tuning", [], figures, note)


RESULT_HEADERS = ["model", "task", "split", "metric", "value", "constant answer", "paper", "rows", "seed"]


def other_results(runs: Sequence[CollectedRun]) -> Section:
    """Results that belong to neither training nor an analysis, such as those of `gpt1 evaluate`."""
    rows = []
    for run in runs:
        for result in run.results:
            shown_above = {"from_scratch", "tokens_seen", "context_length"} & set(result.details)
            if not shown_above and result.details.get("method") != "zero-shot":
                rows.append([run.name, *result_cells(result), settings_text(result.details)])
    table = Table("Evaluations", ["run", *RESULT_HEADERS, "settings"], rows)
    return Section("Other results", [table] if rows else [])


def result_cells(result: Result) -> list[str]:
    """A result under `RESULT_HEADERS`."""
    paper = "–" if result.paper is None else f"{result.paper:g}"
    value = f"{result.value:g}" if isinstance(result.value, int | float) else str(result.value)
    constant = constant_of([result])
    constant = "–" if constant is None else f"{constant:g}"
    seed = "" if result.seed is None else str(result.seed)
    numbers = [value, constant, paper, result.rows, seed]
    return [str(result.model), result.task, str(result.split), result.metric, *numbers]


def settings_text(settings: dict[str, Any]) -> str:
    """Settings in one cell, without measurements and digests."""
    hidden = {*MEASURED, *DIGESTS} - {"not_run", "n_words", "n_words_cut", "n_trained_parameters", "rows_not_finite"}
    shown = {key: value for key, value in settings.items() if key not in hidden and value is not None}
    return ", ".join(f"{key} {value}" for key, value in shown.items())


def value_text(result: Result) -> str:
    """A result in a few words."""
    part = f" on {part_of_text(result.details)}" if result.details.get("partial") else ""
    known = result.details.get("constant_answer")
    constant = "" if known is None else f" (constant answer {known:g})"
    return f"{result.task} {result.split} {result.metric} {result.value:g}{constant}{part}"


def all_runs(runs: Sequence[CollectedRun]) -> Section:
    """
    Every run with its settings, time and hardware. Of a fine-tuned model's many settings, those that a table names and
    those that differ among the runs are shown.
    """
    fine_tuned = [run.results[0].details for run in runs if run.results and "from_scratch" in run.results[0].details]
    names = {name for details in fine_tuned for name in details}
    alike = {name for name in names if len({str(details.get(name)) for details in fine_tuned}) == 1}
    left_out = alike & {field.name for field in fields(FinetuneArguments)} - {*OWN_SETTINGS, "from_scratch", "sample"}
    rows = []
    for run in runs:
        details = run.results[0].details if run.results else {}
        seconds = run.plan.get("seconds") or details.get("train_seconds")
        values = ", ".join(value_text(result) for result in run.results[:6])
        rows.append(
            [
                run.name,
                run.plan.get("state", "finished") + (f": {run.plan['error']}" if "error" in run.plan else ""),
                values + (", …" if len(run.results) > 6 else ""),
                settings_text(run.plan.get("settings", {k: v for k, v in details.items() if k not in left_out})),
                f"{seconds / 60:.1f}" if seconds else "–",
                str(details.get("device", "")),
            ]
        )
    return Section("All runs", [Table("Runs", ["run", "state", "results", "settings", "minutes", "hardware"], rows)])
