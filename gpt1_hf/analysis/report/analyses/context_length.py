"""The value of context: perplexity on text, and a fine-tuned model's accuracy, at several context lengths."""

from collections.abc import Sequence

from ....evaluation.results import part_of_text
from ....figures import Figure, Series
from ..runs import CollectedRun, short_names
from ..sections import Section, Table


def section(runs: Sequence[CollectedRun]) -> Section:
    """Table and figures of each metric by context length."""
    results = [result for run in runs for result in run.results if result.details.get("context_length") is not None]
    names = short_names(str(result.model) for result in results)
    curves: dict[str, dict[str, dict[int, float]]] = {}  # metric -> line -> length -> value
    for result in results:
        if result.metric != "bits_per_character":  # the same curve as the perplexity's
            part = f" (on {part_of_text(result.details)})" if result.details.get("partial") else ""
            line = f"{result.task} {result.split}{part}, {names[str(result.model)]}"
            points = curves.setdefault(result.metric, {}).setdefault(line, {})
            points[result.details["context_length"]] = result.value
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
