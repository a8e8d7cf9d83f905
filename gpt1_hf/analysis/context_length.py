"""Measure what context is worth: perplexity on text, and a fine-tuned model's accuracy, at several lengths."""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..checkpoints import open_config
from ..data.loading import default_data_dir
from ..errors import GPT1Error
from ..evaluation.benchmark import EvaluateArguments, evaluate
from ..evaluation.results import Result, write_results
from .plots import COLOURS, check_matplotlib, new_figure, save_figure


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
    split: str = field(default="validation", metadata={"help": "Split of text and task."})
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
        metadata={"help": "Where results.json and context_length.png are written."},
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
        GPT1Error: if there is neither text nor a fine-tuned model, or matplotlib is missing.
    """
    check_matplotlib()
    sources = []
    if args.text_file:
        sources.append({"model": args.model, "text_file": args.text_file})
    if args.finetuned:
        sources.append({"model": args.finetuned, "task": args.task, "sample": args.sample})
    if not sources:
        raise GPT1Error("analyze context-length needs --text_file, or --finetuned (a model) and --task, or both")
    results = []
    for source in sources:
        for length in usable_lengths(source["model"], args.lengths):
            own_dir = Path(args.output_dir) / f"{source.get('task', 'text')}-{length}"
            settings = {**source, "split": args.split, "data_dir": args.data_dir, "batch_size": args.batch_size}
            found = evaluate(EvaluateArguments(max_length=length, output_dir=str(own_dir), **settings))
            results += [replace(result, details={**result.details, "context_length": length}) for result in found]
    print(f"written to {write_results(args.output_dir, results)} and {draw(results, args.output_dir)}")
    return results


def usable_lengths(model: str, lengths: list[int]) -> list[int]:
    """The lengths that a model has positions for, in order; the others are warned of."""
    context = open_config(model).max_position_embeddings
    longer = [length for length in lengths if length > context]
    if longer:
        logger.warning(f"model {model!r} has a context of {context}: not run at {', '.join(map(str, longer))}")
    usable = sorted(set(lengths) - set(longer))
    if not usable:
        raise GPT1Error(f"model {model!r} has a context of {context}, and all of the lengths are longer")
    return usable


def draw(results: list[Result], output_dir: str | Path) -> Path:
    """Draw each metric against the length of the context, a panel each; return the picture's path."""
    curves: dict[tuple[str, str], dict[str, list[tuple[int, float]]]] = {}
    for result in results:
        if result.metric != "bits_per_character":  # the same curve as the perplexity's
            by_split = curves.setdefault((result.task, result.metric), {})
            by_split.setdefault(result.split, []).append((result.details["context_length"], result.value))
    figure, panels = new_figure(columns=len(curves), width=4.8, height=3.8)
    for panel, ((task, metric), by_split) in zip(panels, curves.items(), strict=True):
        for colour, (split, curve) in zip(COLOURS, by_split.items(), strict=False):
            lengths, values = zip(*curve, strict=True)
            panel.plot(lengths, values, color=colour, marker="o", markersize=4, label=split)
        ticks = sorted({length for curve in by_split.values() for length, _ in curve})
        panel.set_xscale("log", base=2)
        panel.set_xticks(ticks, labels=[str(tick) for tick in ticks], minor=False)
        panel.minorticks_off()
        panel.set_xlabel("context length (tokens)")
        panel.set_ylabel(metric.replace("_", " ") + ("" if task == "language_modeling" else " (%)"))
        panel.set_title("held-out text" if task == "language_modeling" else task, fontsize=11)
        if len(by_split) > 1:
            panel.legend(frameon=False, fontsize=9)
    return save_figure(figure, Path(output_dir) / "context_length.png")
