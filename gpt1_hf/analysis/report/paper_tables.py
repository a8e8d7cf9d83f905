"""Tables 2 to 4 (§4.2): for each task, the best number before the paper, the paper's, and ours."""

from collections.abc import Sequence
from dataclasses import replace

from ...evaluation.results import Result
from ...evaluation.seeds import mean_and_deviation
from ...tasks import load_task
from .paper import GLUE_PAPER, GLUE_PRIOR, TABLES, Column
from .runs import CollectedRun, scores, short_names
from .sections import Section, Table


# Results with different settings are never averaged: one group of equal settings is shown.
SETTINGS = ("n_train_examples", "learning_rate", "epochs", "batch_size", "lm_coef", "checkpoint")
NOTE = (
    "The paper's numbers are on test sets, ours on validation sets (Story Cloze: its test set where there is a copy, "
    "else held-out stories). The paper's QNLI is version 1, today's data are version 2. Prior is the best number "
    "before the paper in the same table. Ours: mean ± standard deviation over seeds (number of seeds), with the "
    "number of training rows. Where a model was fine-tuned with several settings, those with the most training rows "
    "are shown, and among these those with the most seeds."
)


def section(runs: Sequence[CollectedRun]) -> Section:
    """
    The paper's tables, with a column for each model that was wholly fine-tuned with the auxiliary objective, and one
    for the same model from scratch.
    """
    ours = [
        result
        for run, result in scores(runs)
        if run.variant in ("full", "no_pretraining")
        and result.details.get("transfer_layers") is None
        and not result.details.get("peft")
    ]
    names = short_names(str(result.model) for result in ours)
    ours = [replace(result, model=names[str(result.model)]) for result in ours]
    models = sorted({model_name(result) for result in ours})
    tables = []
    for title, columns in TABLES.items():
        rows = []
        for column in columns:
            task = load_task(column.task)
            paper, prior = task.numbers(column.subset)
            values = [best_settings(ours, column, model) for model in models] or ["not run"]
            rows.append([column.title, metric_name(task.metric), f"{prior:.1f}", f"{paper:.1f}", *values])
        if title.startswith("Table 4"):
            # The leaderboard's score needs the hidden test labels of nine tasks.
            not_run = ["not run"] * max(1, len(models))
            rows.append(["GLUE", "leaderboard", f"{GLUE_PRIOR:.1f}", f"{GLUE_PAPER:.1f}", *not_run])
        headers = ["data", "metric", "prior", "paper", *(f"ours: {model}" for model in models or ["–"])]
        tables.append(Table(title, headers, rows))
    return Section("The paper's tasks", tables, note=NOTE)


def model_name(result: Result) -> str:
    """Name of a column: training from scratch and the package's samples have columns of their own."""
    scratch = " from scratch" if result.details.get("from_scratch") else ""
    return f"{result.model}{scratch}{' (sample)' if result.details.get('sample') else ''}"


def metric_name(metric: str) -> str:
    """The paper's name of a metric."""
    return {"matthews_correlation": "Matthews", "f1": "F1", "pearson": "Pearson"}.get(metric, metric)


def best_settings(results: Sequence[Result], column: Column, model: str) -> str:
    """A model's result, with the settings that have the most training rows, then the most seeds."""
    wanted = (column.task, load_task(column.task).metric, column.subset or "", model)
    groups: dict[tuple, list[Result]] = {}
    for result in results:
        split, _, subset = str(result.split).partition("_")
        if (result.task, result.metric, subset, model_name(result)) == wanted:
            settings = tuple(result.details.get(key) for key in SETTINGS)
            groups.setdefault((*settings, split == "test"), []).append(result)
    if not groups:
        return "not run"
    settings = max(groups, key=lambda group: (group[0] or 0, len(groups[group]), group[-1]))
    values = mean_and_deviation([result.value for result in groups[settings]])
    marks = sorted({result.rows for result in groups[settings] if "rows_of_split" in result.details})
    scored = f", scored on {' and '.join(marks)}" if marks else ""
    return f"{values} on {settings[0]:,} rows{scored}" if settings[0] else values + scored
