"""Tables 2 to 4 (§4.2): the benchmarks, with the best number before the paper, the paper's and ours."""

from collections.abc import Sequence
from dataclasses import replace

from ...evaluation.results import Result
from ...evaluation.seeds import mean_and_deviation
from .paper import GLUE, NOTES, TABLES, Cell
from .runs import Record, labels, scores
from .sections import Section, Table


# Of results with different settings one group is shown, never their mean.
SETTINGS = ("n_train_examples", "learning_rate", "epochs", "batch_size", "lm_coef", "checkpoint")
NOTE = (
    "Ours: mean ± standard deviation over seeds (their number), on so many training rows. Of a model that was "
    "fine-tuned with several settings, those with the most training rows are shown, and of these those with the most "
    "seeds."
)


def section(records: Sequence[Record]) -> Section:
    """
    The paper's tables with a column for each model that was fine-tuned whole with the auxiliary objective, and one for
    the same from scratch.

    Args:
        records (list of [`Record`]):
            Runs; those of ablations are passed over.
    """
    ours = [
        result
        for record, result in scores(records)
        if record.variant in ("full", "no_pretraining")
        and result.details.get("transfer_layers") is None
        and not result.details.get("peft")
    ]
    short = labels(str(result.model) for result in ours)
    ours = [replace(result, model=short[str(result.model)]) for result in ours]
    models = sorted({model_name(result) for result in ours})
    tables = []
    for title, cells in TABLES.items():
        rows = []
        for cell in cells:
            own = [best_settings(ours, cell, model) for model in models] or ["not run"]
            rows.append([cell.title, metric_name(cell.metric), f"{cell.prior:.1f}", f"{cell.paper:.1f}", *own])
        if title.startswith("Table 4"):
            not_comparable = ["not run"] * max(1, len(models))
            rows.append(["GLUE", "leaderboard", f"{GLUE['prior']:.1f}", f"{GLUE['paper']:.1f}", *not_comparable])
        headers = ["data", "metric", "prior", "paper", *(f"ours: {model}" for model in models or ["–"])]
        tables.append(Table(title, headers, rows))
    return Section("Benchmarks", tables, note=f"{NOTES} {NOTE}")


def model_name(result: Result) -> str:
    """The model that was fine-tuned; results from scratch or on the package's samples do not mix with others."""
    scratch = " from scratch" if result.details.get("from_scratch") else ""
    return f"{result.model}{scratch}{' (sample)' if result.details.get('sample') else ''}"


def metric_name(metric: str) -> str:
    """What the paper calls a metric."""
    return {"matthews_correlation": "Matthews", "f1": "F1", "pearson": "Pearson"}.get(metric, metric)


def best_settings(results: Sequence[Result], cell: Cell, model: str) -> str:
    """What a model reaches, with the settings that have the most training rows, then seeds."""
    groups: dict[tuple, list[Result]] = {}
    for result in results:
        split, _, subset = str(result.split).partition("_")
        if (result.task, result.metric, subset, model_name(result)) == (cell.task, cell.metric, cell.subset, model):
            settings = tuple(result.details.get(key) for key in SETTINGS)
            groups.setdefault((*settings, split == "test"), []).append(result)
    if not groups:
        return "not run"
    settings = max(groups, key=lambda group: (group[0] or 0, len(groups[group]), group[-1]))
    values = mean_and_deviation([result.value for result in groups[settings]])
    marks = sorted({result.rows for result in groups[settings] if "rows_of_split" in result.details})
    scored = f", scored on {' and '.join(marks)}" if marks else ""
    return f"{values} on {settings[0]:,} rows{scored}" if settings[0] else values + scored
