"""Zero-shot behaviour over pre-training (Figure 2, right): relative performance against updates, by task and model."""

import re
from collections.abc import Sequence

from ...evaluation.results import Result
from .figures import Figure, Series
from .runs import Record, labels
from .sections import Section, Table


def section(records: Sequence[Record]) -> Section:
    """
    Table of the last checkpoints, and figure of all.

    Args:
        records (list of [`Record`]):
            Runs; those of other analyses are passed over.
    """
    curves: dict[tuple[str, str], dict[float, Result]] = {}
    metrics: dict[tuple[str, str], str] = {}
    for record in records:
        for result in record.results:
            # Of a task in subsets the whole counts, which comes first.
            if result.metric == "relative_performance":
                curves.setdefault((result.task, series_name(result)), {}).setdefault(updates(result), result)
            elif result.details.get("method") == "zero-shot":
                metrics.setdefault((result.task, str(result.model)), f"{result.metric} {result.value:.1f}")
    short = labels(model for _, model in curves)
    colors = {task: number for number, task in enumerate(sorted({task for task, _ in curves}))}
    series, rows = [], []
    for (task, model), points in sorted(curves.items()):
        is_lstm = "lstm" in model.lower() or points[max(points)].details.get("architecture") == "lstm"
        line = [(step, points[step].value) for step in sorted(points) if step > 0]
        series.append(Series(f"{task}, {short[model]}", line, dashed=is_lstm, color=colors[task]))
        last = points[max(points)]
        of_last = metrics.get((task, str(last.model)), "")
        rows.append([task, short[model], f"{max(points):,.0f}" if max(points) else "–", f"{last.value:.3f}", of_last])
    figure = Figure(
        "zero_shot",
        "Zero-shot behaviour over pre-training (Figure 2, right)",
        "pre-training updates",
        "relative performance",
        series,
        log_x=True,
        caption="Solid: transformer, dashed: LSTM. 0 is a random guess, 1 the best supervised result.",
    )
    headers = ["task", "model", "updates", "relative performance", "score"]
    table = Table("Zero-shot, last checkpoint", headers, rows or [["cola, sst2, race, dpr", "not run", "", "", ""]])
    return Section("Zero-shot behaviour", [table], [figure])


# Folder of a checkpoint in that of its run: the Trainer's, and those of `--checkpoints_per_decade`.
CHECKPOINT = re.compile(r"/?(checkpoint|trajectory/update)-(\d+)/?$")


def series_name(result: Result) -> str:
    """The pre-training run that a checkpoint is of."""
    return CHECKPOINT.sub("", str(result.model)) or str(result.model)


def updates(result: Result) -> float:
    """Number of updates of a checkpoint; 0, if it does not say."""
    if (known := result.details.get("updates")) is not None:
        return known
    found = CHECKPOINT.search(str(result.model))
    return int(found[2]) if found else 0
