"""The value of context: perplexity on text, and a fine-tuned model's accuracy, at several context lengths."""

import math
from collections.abc import Hashable, Sequence

from ....evaluation.results import part_of_text
from ....figures import Figure, Series
from ..groups import Group, constant_text, differences, grouped
from ..runs import CollectedRun, short_names
from ..sections import Section, Table


# Settings that follow from the length.
OF_LENGTH = ("context_length", "window", "stride", "max_length")


def section(runs: Sequence[CollectedRun]) -> Section:
    """Table and figures of each metric by context length."""
    groups = grouped(
        (run, result)
        for run in runs
        for result in run.results
        if result.details.get("context_length") is not None
        and result.metric != "bits_per_character"  # the same curve as the perplexity's
    )
    names = short_names(group.settings["model"] for group in groups)
    found: dict[Hashable, list[Group]] = {}
    for group in groups:
        found.setdefault(group.key(*OF_LENGTH), []).append(group)
    firsts = [own[0] for own in found.values()]
    texts = differences(firsts, lambda g: (g.task, g.split, g.metric, g.settings["model"]), OF_LENGTH)
    curves: dict[str, dict[str, dict[int, float]]] = {}  # metric -> line -> length -> value
    constants: dict[tuple[str, str], str] = {}
    for own, text in zip(found.values(), texts, strict=True):
        task, split, metric, model = own[0].task, own[0].split, own[0].metric, names[own[0].settings["model"]]
        details = next(iter(own[0].results.values())).details
        part = f"(on {part_of_text(details)})" if details.get("partial") else ""
        line = ", ".join(filter(None, [" ".join(filter(None, [task, split, part])), model, text]))
        curves.setdefault(metric, {})[line] = {group.settings["context_length"]: group.mean for group in own}
        constants[metric, line] = "–" if metric == "perplexity" else constant_text(own[0])
    lengths = sorted({length for lines in curves.values() for line in lines.values() for length in line})
    rows = [
        [
            *(name, metric),
            *(score_text(line[length]) if length in line else "not run" for length in lengths),
            constants[metric, name],
        ]
        for metric, lines in curves.items()
        for name, line in lines.items()
    ]
    figures = [
        Figure(
            f"context_length_{metric}",
            f"{metric.replace('_', ' ').capitalize()} by context length",
            "context length (tokens)",
            metric.replace("_", " "),
            [
                Series(name, [(length, value) for length, value in sorted(line.items()) if math.isfinite(value)])
                for name, line in lines.items()
            ],
            log_x=True,
            few_x=True,
        )
        for metric, lines in curves.items()
    ]
    table = Table("By context length, in tokens", ["data", "metric", *map(str, lengths), "constant answer"], rows)
    return Section("Context length", [table] if rows else [], figures)


def score_text(value: float) -> str:
    """A score as a cell."""
    return f"{value:.2f}" if math.isfinite(value) else "not finite"
