"""Evaluate models at several context lengths: perplexity on text, and a fine-tuned model's accuracy."""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...checkpoints.loading import open_config
from ...console import note
from ...errors import GPT1Error, UsageError
from ...evaluation.evaluate import EvaluateArguments, evaluate
from ...evaluation.results import Result, write_results
from ...settings import default_data_dir
from ..report.analyses.context_length import section
from ..report.runs import CollectedRun
from ..report.sections import write_section


logger = logging.getLogger(__name__)

REQUIRED = [("text_file", "finetuned")]


@dataclass
class Arguments:
    """A language model and text, or a fine-tuned model and its task, or both."""

    model: str = field(
        default="gpt1-tiny", metadata={"help": "Language model for the text: folder, Hub id, or gpt1-tiny."}
    )
    text_file: str | None = field(
        default=None, metadata={"help": "Text to measure perplexity on, as in gpt1 evaluate."}
    )
    finetuned: str | None = field(
        default=None, metadata={"help": "Model fine-tuned for the task, to measure its metric."}
    )
    task: str = field(default="race", metadata={"help": "Task id of the fine-tuned model, or a YAML file."})
    split: str | None = field(default=None, metadata={"help": "Split of text and task. Default: validation."})
    sample: bool = field(default=False, metadata={"help": "Score the task's small labelled sample in the package."})
    lengths: list[int] = field(
        default_factory=lambda: [64, 128, 256, 512], metadata={"help": "Context lengths in tokens."}
    )
    data_dir: str | None = field(
        default_factory=default_data_dir,
        metadata={"help": "Folder with local copies of data sets, laid out as on the Hub. Default: GPT1_DATA_DIR."},
    )
    batch_size: int | None = field(
        default=None, metadata={"help": "Rows or windows per forward pass. Default: that of `gpt1 evaluate`."}
    )
    output_dir: str = field(
        default="runs/analysis/context_length",
        metadata={"help": "Where results.json, analysis.md and its figures are written."},
    )


def measure(args: Arguments) -> list[Result]:
    """
    Evaluate models at each context length.

    Text is read in windows of that length: each token but a document's first is scored once, with half a window before
    it on average. Rows of a task are cut to that length as in fine-tuning. Nothing is trained: a model that was
    fine-tuned at one length is evaluated at all of them.

    Returns:
        list of [`Result`], with `context_length` in their details; also in `<output_dir>/results.json`.

    Raises:
        UsageError: if neither text nor a fine-tuned model is given.
    """
    sources = []
    if args.text_file:
        sources.append({"model": args.model, "text_file": args.text_file})
    if args.finetuned:
        sources.append({"model": args.finetuned, "task": args.task, "sample": args.sample})
    if not sources:
        raise UsageError("analyze context-length needs --text_file, or --finetuned and --task, or both")
    results = []
    for source in sources:
        for length in usable_lengths(source["model"], args.lengths):
            own_dir = Path(args.output_dir) / f"{Path(source.get('task', 'text')).stem}-{length}"
            settings = {**source, "split": args.split, "data_dir": args.data_dir, "batch_size": args.batch_size}
            found = evaluate(EvaluateArguments(max_length=length, output_dir=str(own_dir), **settings))
            results += [replace(result, details={**result.details, "context_length": length}) for result in found]
    write_results(args.output_dir, results)
    path = write_section(section([CollectedRun("context-length", results)]), args.output_dir)
    note(f"written to {path}")
    return results


def usable_lengths(model: str, lengths: list[int]) -> list[int]:
    """The lengths that fit into a model's context, sorted. A warning names the others."""
    if min(lengths) < 2:
        raise UsageError(f"lengths must be at least 2 tokens, not {min(lengths)}")
    context = open_config(model).max_position_embeddings
    longer = [length for length in lengths if length > context]
    if longer:
        logger.warning(f"model {model!r} has a context of {context}: not run at {', '.join(map(str, longer))}")
    usable = sorted(set(lengths) - set(longer))
    if not usable:
        raise GPT1Error(f"model {model!r} has a context of {context}, and all of the lengths are longer: shorten them")
    return usable
