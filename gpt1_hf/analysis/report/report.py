"""One page on all runs below a folder: the paper's tables and figures with ours beside them, losses, settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from ...errors import GPT1Error
from ...evaluation.results import Result
from ...resources import ASSETS
from .. import context_length
from . import ablations, auxiliary, benchmarks, layer_transfer
from . import zero_shot as zero_shot_section
from .figures import Figure, Series, draw
from .runs import Record, collect
from .sections import Section, Table, escape, write_figures


ANALYSES = (benchmarks, ablations, layer_transfer, zero_shot_section, auxiliary, context_length)
# What of a result's details is a measurement, and no setting.
MEASURED = ("train_loss", "train_seconds", "device", "tokens_per_second", "share_of_peak", "rows_of_split", "overlap")
# And what names data and tokenizer, for comparison.
DIGESTS = ("tokenizer", "rows_digest", "train_rows_digest")


@dataclass
class Report:
    """
    What a report says.

    Args:
        title (`str`):
            Its heading.
        summary (`str`):
            What was run.
        sections (list of [`Section`]):
            Tables and figures.
        commands (list of `(str, str)`):
            Run and command, of the runs of plans.
    """

    title: str
    summary: str
    sections: list[Section]
    commands: list[tuple[str, str]]

    def markdown(self) -> str:
        """As one Markdown file; its figures are files in `figures/`."""
        parts = [f"# {escape(self.title)}", escape(self.summary), *(section.markdown() for section in self.sections)]
        if self.commands:
            lines = "\n".join(f"# {name}\n{command}" for name, command in self.commands)
            # Longer than any fence in the text, which so stays inside.
            fence = "`" * max(3, 1 + max(len(run) for run in ("", *_fences(lines))))
            parts += ["## Commands", f"{fence}bash\n{lines}\n{fence}"]
        return "\n\n".join(part for part in parts if part) + "\n"

    def html(self) -> str:
        """As one HTML page that needs no other file."""
        environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        template = environment.from_string((ASSETS / "report.html").read_text(encoding="utf-8"))
        return template.render(report=self, draw=draw)


def _fences(text: str) -> list[str]:
    return [word for word in text.replace("\n", " ").split(" ") if word and set(word) == {"`"}]


def report(runs_dir: str | Path, output_dir: str | Path | None = None) -> Path:
    """
    Write `report.html`, `report.md` and its `figures/` on all runs below a folder.

    Args:
        runs_dir (`str` or `Path`):
            Folder with `results.json` files at any depth.
        output_dir (`str` or `Path`, *optional*):
            Where to write; defaults to the folder itself.

    Returns:
        Path of the HTML page.

    Raises:
        GPT1Error: if there is no such folder, or no run in it.
    """
    if not Path(runs_dir).is_dir():
        raise GPT1Error(f"there is no folder {str(runs_dir)!r}; give one that holds runs")
    records = collect(runs_dir)
    if not records:
        raise GPT1Error(f"{str(runs_dir)!r} holds no results.json; run `gpt1 finetune` or `gpt1 analyze` first")
    content = build(records, f"GPT-1 runs in {Path(runs_dir).name or runs_dir}")
    folder = Path(output_dir or runs_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_figures(content.sections, folder / "figures")
    (folder / "report.md").write_text(content.markdown(), encoding="utf-8")
    (folder / "report.html").write_text(content.html(), encoding="utf-8")
    return folder / "report.html"


def build(records: Sequence[Record], title: str) -> Report:
    """Make a report of runs."""
    states = [record.run.get("state", "finished") for record in records]
    devices = sorted({str(device) for record in records for device in of_details(record, "device")})
    versions = sorted({f"{k} {v}" for record in records for k, v in record.run.get("versions", {}).items()})
    counts = [f"{states.count(state)} {state}" for state in ("finished", "failed", "stopped") if state in states]
    summary = [f"{len(records)} runs: {', '.join(counts)}."]
    summary += [f"Hardware: {'; '.join(devices)}."] if devices else []
    summary += [f"Software of the plans' runs: {', '.join(versions)}."] if versions else []
    partial = parts(records)
    summary += [f"Not scored on the whole split: {', '.join(partial)}."] if partial else []
    sections = [analysis.section(records) for analysis in ANALYSES]
    sections += [pretraining(records), finetuning_losses(records), other(records), all_runs(records)]
    commands = [(record.name, record.run["command"]) for record in records if "command" in record.run]
    return Report(title, " ".join(summary), sections, commands)


def parts(records: Sequence[Record]) -> list[str]:
    """Splits that were not scored whole, each with its rows."""
    marked = (result for record in records for result in record.results if result.details.get("rows_of_split"))
    return sorted({f"{result.task} {result.split} ({result.rows} rows)" for result in marked})


def of_details(record: Record, key: str) -> list[Any]:
    """A detail of those of a run's results that have it."""
    return [result.details[key] for result in record.results if key in result.details]


def is_pretraining(record: Record) -> bool:
    """Whether a run trained a language model."""
    return any("tokens_seen" in result.details for result in record.results)


def losses(record: Record) -> list[tuple[float, float]]:
    """Training loss at each update that was logged."""
    return [(entry["step"], entry["loss"]) for entry in record.log if "loss" in entry and "step" in entry]


def pretraining(records: Sequence[Record]) -> Section:
    """The pre-training runs: size, tokens, held-out perplexity, and their losses."""
    rows, series = [], []
    for record in filter(is_pretraining, records):
        details = record.results[0].details
        values = {result.metric: result.value for result in record.results}
        n_parameters, n_inner = details.get("n_parameters", 0), details.get("n_non_embedding_parameters")
        rows.append(
            [
                record.name,
                f"{n_parameters / 1e6:.2f} M",
                "–" if n_inner is None else f"{n_inner / 1e6:.2f} M",
                f"{details['tokens_seen'] / 1e6:.2f} M",
                f"{details.get('updates', 0):,}",
                f"{values['perplexity']:.2f}" if "perplexity" in values else "–",
                f"{values['bits_per_character']:.3f}" if "bits_per_character" in values else "–",
                f"{details.get('train_seconds', 0) / 60:.1f}",
                f"{details.get('tokens_per_second', 0):,}",
                str(details.get("device", "")),
            ]
        )
        series.append(Series(record.name, losses(record), dashed="lstm" in record.name))
    headers = [
        "run",
        "parameters",
        "without embeddings",
        "tokens",
        "updates",
        "held-out perplexity",
        "bits per character",
    ]
    headers += ["minutes", "tokens/s", "hardware"]
    table = Table(
        "Pre-training",
        headers,
        rows or [["not run"]],
        "The paper: perplexity 18.4 on BooksCorpus, of 116.5 M parameters and another vocabulary.",
    )
    labels = ("pre-training updates", "training loss, nats per token")
    return Section(
        "Pre-training", [table], [Figure("pretraining_loss", "Training loss of the models", *labels, series)]
    )


def finetuning_losses(records: Sequence[Record]) -> Section:
    """Loss curves of fine-tuning, a figure a task, one seed a setting."""
    by_task: dict[str, dict[str, Series]] = {}
    for record in records:
        if record.results and "from_scratch" in record.results[0].details and losses(record):
            task, parent = record.results[0].task, record.name.rsplit("/seed-", 1)[0]
            label = parent.removeprefix("finetune/").removeprefix(f"{task}/")
            by_task.setdefault(task, {}).setdefault(label, Series(label, losses(record)))
    figures = [
        Figure(f"loss_{task}", f"Training loss on {task}", "updates", "training loss", list(series.values()))
        for task, series in sorted(by_task.items())
    ]
    note = (
        "Of several seeds the first is drawn. The loss includes the auxiliary one, where that is on."
        if figures
        else ""
    )
    return Section("Losses of fine-tuning", [], figures, note or "not run")


def other(records: Sequence[Record]) -> Section:
    """Results of no training and no analysis: evaluations."""
    rows = []
    for record in records:
        for result in record.results:
            known = {"from_scratch", "tokens_seen", "context_length"} & set(result.details)
            if not known and result.details.get("method") != "zero-shot":
                rows.append([record.name, *result_cells(result), settings_text(result.details)])
    table = Table("Evaluations", ["run", *RESULT_HEADERS, "settings"], rows)
    return Section("Other results", [table] if rows else [], note="" if rows else "not run")


RESULT_HEADERS = ["model", "task", "split", "metric", "value", "paper", "rows", "seed"]


def result_cells(result: Result) -> list[str]:
    """A result under `RESULT_HEADERS`."""
    paper = "–" if result.paper is None else f"{result.paper:g}"
    value = f"{result.value:g}" if isinstance(result.value, int | float) else str(result.value)
    seed = "" if result.seed is None else str(result.seed)
    return [
        str(result.model),
        result.task,
        str(result.split),
        result.metric,
        value,
        paper,
        result.rows,
        seed,
    ]


def settings_text(settings: dict[str, Any]) -> str:
    """Settings in a cell, without measurements and digests."""
    shown = {key: value for key, value in settings.items() if key not in (*MEASURED, *DIGESTS) and value is not None}
    return ", ".join(f"{key} {value}" for key, value in shown.items())


def all_runs(records: Sequence[Record]) -> Section:
    """Every run with its settings, time and hardware."""
    rows = []
    for record in records:
        details = record.results[0].details if record.results else {}
        seconds = record.run.get("seconds") or details.get("train_seconds")
        values = ", ".join(f"{r.task} {r.split} {r.metric} {r.value:g}" for r in record.results[:6])
        rows.append(
            [
                record.name,
                record.run.get("state", "finished") + (f": {record.run['error']}" if "error" in record.run else ""),
                values + (", …" if len(record.results) > 6 else ""),
                settings_text(record.run.get("settings", details)),
                f"{seconds / 60:.1f}" if seconds else "–",
                str(details.get("device", "")),
            ]
        )
    return Section("All runs", [Table("Runs", ["run", "state", "results", "settings", "minutes", "hardware"], rows)])
