"""Table 5 (§5, "Ablation studies"): the value of pre-training, auxiliary objective, transformer and positions.

The plan pre-trains every variant from scratch on the same tokens, and fine-tunes each on the GLUE tasks. Without
layers the head sees only the embedding and the position of the extract token, so it cannot beat the most frequent
class. With only the embeddings transferred, the leftmost point of Figure 2, the layers start from random weights.
"""

import math
from collections.abc import Sequence

from ....evaluation.seeds import mean, mean_and_deviation
from ....tasks import all_tasks
from ..paper import ABLATIONS, TABLE_5
from ..runs import CollectedRun, has_main_metric, scores
from ..sections import Section, Table, signed


NOTE = (
    "Ours: validation sets, mean ± standard deviation over seeds (number of seeds). Avg of 8 is the mean of the eight "
    "columns, not the leaderboard's overall score. The next column is the mean over the tasks that all our variants "
    "were run on, also for the paper's rows; “to full” is its difference to the first variant. Claimed: a secondary "
    "source gives this difference; the paper does not."
)


def section(runs: Sequence[CollectedRun]) -> Section:
    """Table 5: for each variant, the paper's row and ours."""
    own_tasks = sorted({r.task for run, r in scores(runs) if run.plan and is_ablation(run)} - {*all_tasks()})
    columns = [*TABLE_5, *own_tasks]
    values = {variant: task_values(runs, variant, columns) for variant in ABLATIONS}
    # Averages are comparable only over the same tasks: those that every variant with a result has.
    present = [ours for ours in values.values() if any(ours.values())]
    common = [task for task in columns if present and all(ours[task] for ours in present)]
    if set(common) & set(TABLE_5):
        common = [task for task in common if task in TABLE_5]  # the paper's rows have no others
    full = average(values["full"], common)
    rows = []
    for variant, row in ABLATIONS.items():
        paper = row.by_task
        if paper or row.claimed is not None:
            is_compared = paper and common and paper.keys() >= set(common)
            on_common = mean([paper[task] for task in common]) if is_compared else None
            difference = row.claimed
            if on_common is not None and variant != "full":
                difference = mean([paper[task] - ABLATIONS["full"].by_task[task] for task in common])
            cells = [decimal(paper.get(task), "–") for task in columns]
            averages = decimal(row.average, "–"), decimal(on_common, "–")
            rows.append([row.title, "paper" if paper else "claimed", *averages, signed(difference), *cells])
        ours = average(values[variant], common)
        difference = ours - full if variant != "full" and ours is not None and full is not None else None
        averages = decimal(average(values[variant], TABLE_5), "not run"), decimal(ours, "not run")
        cells = [mean_and_deviation(values[variant][task]) for task in columns]
        rows.append([row.title, "ours", *averages, signed(difference), *cells])
    common_name = f"avg of {len(common)}" if common else "avg of those run"
    return Section(
        "Ablations",
        [Table("Table 5: ablations", ["variant", "", "avg of 8", common_name, "to full", *columns], rows, NOTE)],
        note=__doc__.split("\n\n")[1] if present else "not run",
    )


def task_values(runs: Sequence[CollectedRun], variant: str, tasks: Sequence[str]) -> dict[str, list[float]]:
    """Task -> a variant's values, one for each seed. MultiNLI's two sets count as one: their mean."""
    found: dict[tuple[str, str], list[float]] = {}
    for run, result in scores(runs):
        if run.plan and run.variant == variant and is_ablation(run) and result.task in tasks:
            if has_main_metric(run, result):
                found.setdefault((result.task, run.name), []).append(result.value)
    return {task: [mean(values) for (own, _), values in found.items() if own == task] for task in tasks}


def is_ablation(run: CollectedRun) -> bool:
    """Whether a plan's run belongs to the table: the runs of a plan that sweeps a setting have longer names."""
    return len(run.plan["name"].split("/")) == 4


def average(values: dict[str, list[float]], tasks: Sequence[str]) -> float | None:
    """Mean over tasks of the means over seeds; `None` if a task has no value."""
    means = [mean(values[task]) for task in tasks]
    return mean(means) if means and not any(map(math.isnan, means)) else None


def decimal(value: float | None, missing: str) -> str:
    """A number with one decimal place."""
    return missing if value is None else f"{value:.1f}"
