"""Scores on a user's own data sets, with each group of equal settings in a row of its own."""

from collections.abc import Sequence
from dataclasses import replace

from ...evaluation.results import Result
from ...evaluation.seeds import mean_and_deviation
from ...tasks import all_tasks
from .paper_tables import SETTINGS, model_name
from .runs import CollectedRun, scores, short_names
from .sections import Section, Table


# Settings of the paper's tables, and what keeps a run out of them.
OWN_SETTINGS = (*SETTINGS, "transfer_layers", "peft")
NOTE = (
    "Mean ± standard deviation over seeds (number of seeds), in percent. Each row has runs with equal settings: "
    f"{', '.join(name.replace('_', ' ') for name in OWN_SETTINGS)}."
)


def section(runs: Sequence[CollectedRun]) -> Section:
    """Table of the data sets that the package has no task for; no table if there are none."""
    ours = [result for _, result in scores(runs) if result.task not in all_tasks()]
    names = short_names(str(result.model) for result in ours)
    groups: dict[tuple, list[Result]] = {}
    for result in ours:
        model = model_name(replace(result, model=names[str(result.model)]))
        settings = tuple(result.details.get(name) for name in OWN_SETTINGS)
        groups.setdefault((result.task, result.split, result.metric, model, result.rows, settings), []).append(result)
    rows = []
    for (task, split, metric, model, n_scored, settings), found in groups.items():
        values = mean_and_deviation([result.value for result in found])
        shown = dict(zip(OWN_SETTINGS, settings, strict=True))
        text = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in shown.items() if value is not None)
        rows.append([task, split, metric.replace("_", " "), model, values, n_scored, text])
    rows.sort(key=lambda row: row[0])  # a task's splits and metrics stay in their order
    headers = ["data set", "split", "metric", "model", "ours", "rows scored", "settings"]
    return Section("Other data sets", [Table("Own data", headers, rows, NOTE)] if rows else [])
