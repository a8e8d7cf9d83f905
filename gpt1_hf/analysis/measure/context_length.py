"""Measure what context is worth: perplexity on text, and a fine-tuned model's accuracy, at several lengths."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..checkpoints.loading import open_config
from ..console import note
from ..errors import GPT1Error, UsageError
from ..evaluation.evaluate import EvaluateArguments, evaluate
from ..evaluation.results import Result, write_results
from ..settings import default_data_dir
from .report.figures import Figure, Series
from .report.runs import Record, labels
from .report.sections import Section, Table, write_section


logger = logging.getLogger(__name__)


@dataclass
class Arguments:
    """A language model and text, or a fine-tuned model and its task, or both."""

    model: str = field(
        default="gpt1-tiny", metadata={"help": "Language model for the text: folder, Hub id, or gpt1-tiny."}
    )
    text_file: str | None = field(default=None, metadata={"help": "Text, as of `gpt1 evaluate`: perplexity."})
    finetuned: str | None = field(default=None, metadata={"help": "Model fine-tuned for the task: its metric."})
    task: str = field(default="race", metadata={"help": "Task id of the fine-tuned model."})
    split: str | None = field(default=None, metadata={"help": "Split of text and task. Default: validation."})
    sample: bool = field(default=False, metadata={"help": "Score the task's small labelled sample in the package."})
    lengths: list[int] = field(
        default_factory=lambda: [64, 128, 256, 512], metadata={"help": "Context lengths in tokens."}
    )
    data_dir: str | None = field(
        default_factory=default_data_dir,
        metadata={"help": "Folder with local copies of data sets, laid out as on the Hub. Default: GPT1_DATA_DIR."},
    )
    batch_size: int = field(default=16, metadata={"help": "Rows or windows per forward pass."})
    output_dir: str = field(
        default="runs/analysis/context_length",
        metadata={"help": "Where results.json, analysis.md and its figures are written."},
    )


def analyze(args: Arguments) -> list[Result]:
    """
    Evaluate models with less and less context.

    Text is read in windows of each length; each token but a document's first is scored once, with half a window before
    it on average. Rows of a task are cut to each length as they are in fine-tuning. Nothing is trained anew: a model
    that was fine-tuned at one length is asked what it makes of shorter ones.

    Returns:
        list of [`Result`], with `context_length` in their details; also in `<output_dir>/results.json`.

    Raises:
        GPT1Error: if there is neither text nor a fine-tuned model.
    """
    sources = []
    if args.text_file:
        sources.append({"model": args.model, "text_file": args.text_file})
    if args.finetuned:
        sources.append({"model": args.finetuned, "task": args.task, "sample": args.sample})
    if not sources:
        raise UsageError("analyze context-length needs --text_file, or --finetuned (a model) and --task, or both")
    results = []
    for source in sources:
        for length in usable_lengths(source["model"], args.lengths):
            own_dir = Path(args.output_dir) / f"{source.get('task', 'text')}-{length}"
            settings = {**source, "split": args.split, "data_dir": args.data_dir, "batch_size": args.batch_size}
            found = evaluate(EvaluateArguments(max_length=length, output_dir=str(own_dir), **settings))
            results += [replace(result, details={**result.details, "context_length": length}) for result in found]
    write_results(args.output_dir, results)
    note(f"written to {write_section(section([Record('context-length', results, {}, [])]), Path(args.output_dir))}")
    return results


def usable_lengths(model: str, lengths: list[int]) -> list[int]:
    """The lengths that a model has positions for, in order; the others are warned of."""
    if min(lengths) < 2:
        raise UsageError(f"lengths are numbers of tokens from 2, not {min(lengths)}")
    context = open_config(model).max_position_embeddings
    longer = [length for length in lengths if length > context]
    if longer:
        logger.warning(f"model {model!r} has a context of {context}: not run at {', '.join(map(str, longer))}")
    usable = sorted(set(lengths) - set(longer))
    if not usable:
        raise GPT1Error(f"model {model!r} has a context of {context}, and all of the lengths are longer")
    return usable


def section(records: Sequence[Record]) -> Section:
    """
    Table and figures of each metric by the length of the context.

    Args:
        records (list of [`Record`]):
            Runs; those of other analyses are passed over.
    """
    curves: dict[str, dict[str, dict[int, float]]] = {}
    measured = [
        result for record in records for result in record.results if result.details.get("context_length") is not None
    ]
    short = labels(str(result.model) for result in measured)
    for result in measured:
        length = result.details["context_length"]
        if result.metric != "bits_per_character":  # the same curve as the perplexity's
            line = f"{result.task} {result.split}, {short[str(result.model)]}"
            curves.setdefault(result.metric, {}).setdefault(line, {})[length] = result.value
    lengths = sorted({length for lines in curves.values() for line in lines.values() for length in line})
    rows = [
        [name, metric, *(f"{line[length]:.2f}" if length in line else "not run" for length in lengths)]
        for metric, lines in curves.items()
        for name, line in lines.items()
    ]
    figures = [
        Figure(
            f"context_length_{metric}",
            f"{metric.replace('_', ' ').capitalize()} by context length",
            "context length (tokens)",
            metric.replace("_", " "),
            [Series(name, sorted(line.items())) for name, line in lines.items()],
            log_x=True,
            few_x=True,
        )
        for metric, lines in curves.items()
    ]
    table = Table("By context length, in tokens", ["data", "metric", *map(str, lengths)], rows)
    return Section("Context length", [table] if rows else [], figures, note="" if rows else "not run")
