"""Layer transfer (Figure 2, left): accuracy by the number of pre-trained blocks that fine-tuning starts from.

The embeddings and the first k blocks keep their pre-trained weights; the other blocks start from random ones. In the
paper each of the twelve blocks adds something, up to 9 % on MultiNLI for all of them.
"""

from collections.abc import Hashable, Sequence

from ....evaluation.verdicts import verdict
from ....figures import Figure, Series
from ..groups import Group, constant_text, differences, grouped, missing_seeds, sentences
from ..runs import CollectedRun, has_main_metric, is_held_out
from ..sections import DIFFERENCES, VERDICT, Section, Table


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
    curves: dict[Hashable, dict[int, Group]] = {}
    for group in groups:
        curves.setdefault(group.key("transfer_layers"), {})[group.settings["transfer_layers"]] = group
    ordered = sorted(curves.values(), key=lambda curve: (first(curve).task, first(curve).split))
    texts = differences(list(map(first, ordered)), lambda group: (group.task, group.split), ("transfer_layers",))
    counts = sorted({group.settings["transfer_layers"] for group in groups})
    rows, series, colors = [], [], {}
    for curve, text in zip(ordered, texts, strict=True):
        task, split = first(curve).task, first(curve).split
        verdicts = [
            f"{n}: {verdict(curve[n].values, curve[before].values)}"
            for before, n in zip(counts, counts[1:], strict=False)
            if n in curve and before in curve
        ]
        scores = [curve[n].text if n in curve else "not run" for n in counts]
        rows.append([task, split, *scores, constant_text(first(curve)), ", ".join(verdicts), text])
        points = [(n, curve[n].mean) for n in counts if n in curve]
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
        ["task", "split", *map(str, counts), "constant answer", VERDICT, DIFFERENCES],
        rows,
        sentences(NOTE, missing_seeds(groups, runs, lambda run: "transfer_layers" in run.plan.get("settings", {}))),
    )
    return Section("Layer transfer", [table] if rows else [], [figure], has_verdicts=bool(curves))


def first(curve: dict[int, Group]) -> Group:
    """The group with the fewest blocks."""
    return curve[min(curve)]
