"""Zero-shot performance through pre-training (Figure 2, right): relative performance against updates, by task."""

import re
from collections.abc import Sequence

from ....evaluation.results import Result
from ....figures import Figure, Series
from ..runs import CollectedRun, short_names
from ..sections import Section, Table


# Folder of a checkpoint in that of its run: the Trainer's, and those of `--checkpoints_per_decade`.
CHECKPOINT = re.compile(r"/?(checkpoint|trajectory/update)-(\d+)/?$")


def section(runs: Sequence[CollectedRun]) -> Section:
    """Table of the last checkpoints, and figure of all."""
    curves: dict[tuple[str, str], dict[float, Result]] = {}
    scores: dict[tuple[str, str], str] = {}
    for run in runs:
        for result in run.results:
            # A task in subsets lists the whole first, and the whole counts.
            if result.metric == "relative_performance":
                curves.setdefault((result.task, run_of(result)), {}).setdefault(updates(result), result)
            elif result.details.get("method") == "zero-shot":
                scores.setdefault((result.task, str(result.model)), f"{result.metric} {result.value:.1f}")
    names = short_names(model for _, model in curves)
    colors = {task: number for number, task in enumerate(sorted({task for task, _ in curves}))}
    series, rows = [], []
    for (task, model), points in sorted(curves.items()):
        last = points[max(points)]
        is_lstm = "lstm" in model.lower() or last.details.get("architecture") == "lstm"
        line = [(step, points[step].value) for step in sorted(points) if step > 0]
        series.append(Series(f"{task}, {names[model]}", line, dashed=is_lstm, color=colors[task]))
        step = f"{max(points):,.0f}" if max(points) else "–"
        rows.append([task, names[model], step, f"{last.value:.3f}", scores.get((task, str(last.model)), "")])
    figure = Figure(
        "zero_shot",
        "Zero-shot performance through pre-training (Figure 2, right)",
        "pre-training updates",
        "relative performance",
        series,
        log_x=True,
        caption="Solid: transformer; dashed: LSTM. 0 is a random guess, 1 the best supervised result.",
    )
    headers = ["task", "model", "updates", "relative performance", "score"]
    table = Table("Zero-shot, last checkpoint", headers, rows or [["cola, sst2, race, dpr", "not run", "", "", ""]])
    return Section("Zero-shot performance", [table], [figure])


def run_of(result: Result) -> str:
    """Folder of the pre-training run of a checkpoint."""
    return CHECKPOINT.sub("", str(result.model)) or str(result.model)


def updates(result: Result) -> float:
    """Updates before a checkpoint; 0 if unknown."""
    if (known := result.details.get("updates")) is not None:
        return known
    found = CHECKPOINT.search(str(result.model))
    return int(found[2]) if found else 0
