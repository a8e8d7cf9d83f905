"""Scores on a user's own data sets, with each group of equal settings in a row of its own."""

from collections.abc import Sequence
from dataclasses import replace

from ...tasks import all_tasks
from .groups import constant_text, differing, grouped, missing_seeds, sentences, shown
from .paper_tables import model_name
from .runs import CollectedRun, scores, short_names
from .sections import Section, Table


# Settings that each row names. Others are named where they differ.
OWN_SETTINGS = (
    "n_train_examples",
    "learning_rate",
    "epochs",
    "batch_size",
    "lm_coef",
    "checkpoint",
    "transfer_layers",
    "peft",
)
NOTE = (
    "Mean ± standard deviation over seeds (number of seeds), in percent. Each row has runs with equal settings, and "
    "names the most important ones and those that differ. Constant answer: one answer for every row."
)


def section(runs: Sequence[CollectedRun]) -> Section:
    """Table of the data sets that the package has no task for; no table if there are none."""
    groups = grouped((run, result) for run, result in scores(runs) if result.task not in all_tasks())
    names = short_names(str(group.result.model) for group in groups)
    named_elsewhere = ("model", "from_scratch", "sample", "scored")
    rows = []
    for group in groups:
        model = model_name(replace(group.result, model=names[str(group.result.model)]))
        alike = [other for other in groups if (other.task, other.split) == (group.task, group.split)]
        settings = dict.fromkeys([*OWN_SETTINGS, *differing(alike, named_elsewhere)])
        text = ", ".join(
            shown(name, group.settings[name]) for name in settings if group.settings.get(name) not in (None, "")
        )
        cells = [group.task, group.split, group.metric.replace("_", " "), model, group.text, group.result.rows]
        rows.append([*cells, text])
        constant = [*cells[:3], "constant answer", constant_text(group), group.result.rows, ""]
        if group.constant is not None and constant not in rows:
            rows.append(constant)
    rows.sort(key=lambda row: row[0])  # a task's splits and metrics stay in their order
    headers = ["data set", "split", "metric", "model", "ours", "rows scored", "settings"]
    note = sentences(NOTE, missing_seeds(groups, runs, lambda run: run.folder in {g.run.folder for g in groups}))
    return Section("Other data sets", [Table("Own data", headers, rows, note)] if rows else [])
