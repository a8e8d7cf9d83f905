"""Layer transfer (Figure 2, left): accuracy by the number of pre-trained blocks that fine-tuning starts from.

The embeddings and the first k blocks keep their pre-trained weights; the other blocks start from random ones. In the
paper each of the twelve blocks adds something, up to 9 % on MultiNLI for all of them.
"""

from collections.abc import Sequence

from ....evaluation.seeds import mean, mean_and_deviation
from ....figures import Figure, Series
from ..runs import CollectedRun, has_main_metric, is_held_out
from ..sections import Section, Table


def section(runs: Sequence[CollectedRun]) -> Section:
    """Table and figure of accuracy by the number of transferred blocks."""
    values: dict[tuple[str, str], dict[int, list[float]]] = {}
    for run in runs:
        for result in run.results:
            n_layers = None if is_held_out(result) else result.details.get("transfer_layers")
            if n_layers is not None and run.variant != "embeddings_only" and has_main_metric(run, result):
                values.setdefault((result.task, result.split), {}).setdefault(n_layers, []).append(result.value)
    counts = sorted({n_layers for by_count in values.values() for n_layers in by_count})
    rows, series = [], []
    colors = {task: number for number, task in enumerate(dict.fromkeys(task for task, _ in values))}
    for (task, split), by_count in sorted(values.items()):
        rows.append([task, split, *(mean_and_deviation(by_count.get(count, [])) for count in counts)])
        points = [(count, mean(by_count[count])) for count in counts if count in by_count]
        series.append(Series(f"{task} {split}", points, dashed=split == "train", color=colors[task]))
    figure = Figure(
        "layer_transfer",
        "Layer transfer (Figure 2, left)",
        "pre-trained blocks",
        "accuracy",
        series,
        few_x=True,
        caption="Solid: evaluation sets; dashed: training rows. At 0 only the embeddings are pre-trained.",
    )
    table = Table(
        "Accuracy by the number of pre-trained blocks",
        ["task", "split", *map(str, counts)],
        rows or [["mnli, race", "not run"]],
        "The task's own metric; mean ± standard deviation over seeds (number of seeds).",
    )
    return Section("Layer transfer", [table], [figure])
