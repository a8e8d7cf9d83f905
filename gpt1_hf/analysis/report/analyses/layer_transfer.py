"""Layer transfer (Figure 2, left): accuracy against the number of pre-trained blocks that fine-tuning starts from.

The embeddings and the first k blocks are kept, the others are drawn anew. The paper's twelve blocks each add
something, up to 9 % on MultiNLI for all of them.
"""

from collections.abc import Sequence

from ...evaluation.seeds import mean, mean_and_deviation
from ...tasks import all_tasks
from .figures import Figure, Series
from .runs import Record
from .sections import Section, Table


def section(records: Sequence[Record]) -> Section:
    """
    Table and figure of accuracy by the number of transferred blocks.

    Args:
        records (list of [`Record`]):
            Runs; those of other analyses are passed over.
    """
    tasks = all_tasks()
    values: dict[tuple[str, str], dict[int, list[float]]] = {}
    for record in records:
        for result in record.results:
            n_layers = result.details.get("transfer_layers")
            task = tasks.get(result.task)
            if n_layers is not None and record.variant != "embeddings_only" and task and result.metric == task.metric:
                values.setdefault((result.task, result.split), {}).setdefault(n_layers, []).append(result.value)
    counts = sorted({n_layers for of_split in values.values() for n_layers in of_split})
    rows, series = [], []
    colors = {task: number for number, task in enumerate(dict.fromkeys(task for task, _ in values))}
    for (task, split), of_split in sorted(values.items()):
        rows.append([task, split, *(mean_and_deviation(of_split.get(count, [])) for count in counts)])
        points = [(count, mean(of_split[count])) for count in counts if count in of_split]
        series.append(Series(f"{task} {split}", points, dashed=split == "train", color=colors[task]))
    figure = Figure(
        "layer_transfer",
        "Layer transfer (Figure 2, left)",
        "pre-trained blocks that are kept",
        "accuracy",
        series,
        few_x=True,
        caption="Solid: evaluation sets; dashed: training rows. 0 is the embeddings alone.",
    )
    table = Table(
        "Accuracy by the number of pre-trained blocks that are kept",
        ["task", "split", *map(str, counts)],
        rows or [["mnli, race", "not run"]],
        "The task's own metric; mean ± standard deviation over seeds (their number).",
    )
    return Section("Layer transfer", [table], [figure])
