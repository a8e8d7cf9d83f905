"""Table 5 (§5, "Ablation studies"): what pre-training, auxiliary objective, transformer and positions are each worth.

The plan pre-trains every variant anew under one budget, and fine-tunes each on the GLUE tasks. Of a model without
layers the head sees the extract token's embedding and its position only, so that it cannot do better than the most
frequent class. Where only the embeddings are transferred, the leftmost point of Figure 2, the layers are new.
"""

import math
from collections.abc import Sequence

from ...evaluation.seeds import mean, mean_and_deviation
from .paper import ABLATIONS, TABLE_5
from .runs import Record, scores
from .sections import Section, Table


def section(records: Sequence[Record]) -> Section:
    """
    Table 5, a row of the paper's and a row of ours for each variant.

    Args:
        records (list of [`Record`]):
            Runs; those of other analyses are passed over.
    """
    values = {variant: task_values(records, variant) for variant in ABLATIONS}
    # Averages can be compared over the same tasks only: those that every variant with a result has.
    run = [own for own in values.values() if any(own.values())]
    common = [task for task in TABLE_5 if run and all(own[task] for own in run)]
    full = average(values["full"], common)
    rows = []
    for variant, row in ABLATIONS.items():
        paper = dict(zip(TABLE_5, row.values, strict=False))
        difference = row.difference
        if paper and common and variant != "full":
            difference = mean([paper[task] - ABLATIONS["full"].values[list(TABLE_5).index(task)] for task in common])
        if paper or row.difference is not None:
            cells = [number(paper.get(task)) for task in TABLE_5]
            on_common = mean([paper[task] for task in common]) if paper and common else None
            source = "paper" if paper else "claimed"
            rows.append([row.title, source, number(row.average), number(on_common), signed(difference), *cells])
        own, ours = values[variant], average(values[variant], common)
        eight = average(own, list(TABLE_5)) if all(own.values()) else None
        change = ours - full if variant != "full" and ours is not None and full is not None else None
        cells = [mean_and_deviation(own[task]) for task in TABLE_5]
        rows.append([row.title, "ours", *map(not_run, (eight, ours)), signed(change), *cells])
    common_name = f"avg of {len(common)}" if common else "avg of those run"
    return Section(
        "Ablations",
        [Table("Table 5: ablations", ["variant", "", "avg of 8", common_name, "to full", *TABLE_5], rows, NOTE)],
        note=__doc__.split("\n\n")[1] if run else "not run",
    )


NOTE = (
    "Ours: validation sets, mean ± standard deviation over seeds (their number). Avg of 8 is the mean of the eight "
    "columns, not the leaderboard's overall score; the next one is that of the tasks which all variants were run on, "
    "the paper's rows on the same tasks, followed by its difference to the first variant's. Claimed: a "
    "difference that a secondary source gives, and the paper does not."
)


def task_values(records: Sequence[Record], variant: str) -> dict[str, list[float]]:
    """Task -> one value a seed, of a variant; MultiNLI's two sets count as one."""
    found: dict[tuple[str, str], list[float]] = {}
    for record, result in scores(records):
        planned = record.run and record.variant == variant
        if planned and TABLE_5.get(result.task) == result.metric and is_ablation(record):
            found.setdefault((result.task, record.name), []).append(result.value)
    return {task: [mean(values) for (own, _), values in found.items() if own == task] for task in TABLE_5}


def is_ablation(record: Record) -> bool:
    """Whether a run is of the table: no list of values was gone through."""
    return len(record.run["name"].split("/")) == 4


def average(values: dict[str, list[float]], tasks: Sequence[str]) -> float | None:
    """Mean over tasks of the means over seeds; `None` if one of them has none."""
    means = [mean(values[task]) for task in tasks]
    return mean(means) if means and not any(map(math.isnan, means)) else None


def number(value: float | None) -> str:
    """A cell of the paper's."""
    return "–" if value is None else f"{value:.1f}"


def not_run(value: float | None) -> str:
    """A cell of ours."""
    return "not run" if value is None else f"{value:.1f}"


def signed(value: float | None) -> str:
    """A difference."""
    return "" if value is None else f"{value:+.1f}".replace("-", "−")
