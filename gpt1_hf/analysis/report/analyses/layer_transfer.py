"""Layer transfer (Figure 2, left): accuracy by the number of pre-trained blocks that fine-tuning starts from.

The embeddings and the first k blocks keep their pre-trained weights; the other blocks start from random ones. In the
paper each of the twelve blocks adds something, up to 9 % on MultiNLI for all of them.
"""

from collections.abc import Sequence

from ....evaluation.verdicts import compare
from ....figures import Figure, Series
from ..groups import (
    Group,
    arms_side_by_side,
    constant_text,
    differences,
    grouped,
    left_out_text,
    missing_seeds,
    own_settings_text,
    sentences,
)
from ..runs import CollectedRun, has_main_metric, is_held_out
from ..sections import DIFFERENCES, OWN_SETTINGS, VERDICT, Section, Table


NOTE = (
    "The task's own metric; mean ± standard deviation over seeds (number of seeds). The verdict compares each number "
    "of blocks with the one before it."
)


def section(runs: Sequence[CollectedRun]) -> Section:
    """Table and figure of accuracy by the number of transferred blocks."""
    found = [
        (run, result)
        for run in runs
        for result in run.results
        if result.details.get("transfer_layers") is not None
        and not is_held_out(result)
        and run.variant != "embeddings_only"
        and has_main_metric(run, result)
    ]
    groups = grouped(found)
    curves = arms_side_by_side(groups, lambda group: group.settings["transfer_layers"], ("transfer_layers",))
    curves = [dict(sorted(curve.items())) for curve in curves]
    ordered = sorted(curves, key=lambda curve: (first(curve).task, first(curve).split))
    texts = differences(list(map(first, ordered)), lambda group: (group.task, group.split), ("transfer_layers",))
    counts = sorted({group.settings["transfer_layers"] for group in groups})
    rows, series, colors, comparisons = [], [], {}, {}
    for curve, text in zip(ordered, texts, strict=True):
        task, split = first(curve).task, first(curve).split
        verdicts = []
        for before, n in zip(counts, counts[1:], strict=False):
            if n in curve and before in curve:
                found = compare(curve[n].values, curve[before].values)
                verdicts.append(f"{n}: {found.verdict}")
                comparisons[", ".join(filter(None, [f"{task} {split}", text, f"{n} and {before} blocks"]))] = found
        scores = [curve[n].text if n in curve else "not run" for n in counts]
        own = own_settings_text(curve)
        rows.append([task, split, *scores, constant_text(first(curve)), ", ".join(verdicts), own, text])
        points = [(n, curve[n].mean) for n in counts if n in curve and curve[n].values]
        color = colors.setdefault((task, text), len(colors))
        series.append(Series(", ".join(filter(None, [f"{task} {split}", text])), points, split == "train", color))
    figure = Figure(
        "layer_transfer",
        "Layer transfer (Figure 2, left)",
        "pre-trained blocks",
        "accuracy",
        series,
        few_x=True,
        caption="Solid: evaluation sets; dashed: training rows. At 0 only the embeddings are pre-trained.",
    )
    table = Table.of(
        "Accuracy by the number of pre-trained blocks",
        ["task", "split", *map(str, counts), "constant answer", VERDICT, OWN_SETTINGS, DIFFERENCES],
        rows,
        sentences(
            NOTE,
            left_out_text(comparisons),
            missing_seeds(groups, runs, lambda run: "transfer_layers" in run.plan.get("settings", {})),
        ),
    )
    return Section("Layer transfer", [table] if rows else [], [figure], has_verdicts=bool(curves))


def first(curve: dict[int, Group]) -> Group:
    """The group with the fewest blocks."""
    return curve[min(curve)]
