"""Averages over GLUE: the leaderboard's (Wang et al., 2018), and that of the paper's Table 5."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from ..errors import GPT1Error
from .results import Result
from .seeds import is_failed
from .verdicts import average_over_tasks, standard_error


# Column of Table 5 -> the (subset, metric) pairs whose mean it shows.
TABLE_5 = {
    "cola": [("", "matthews_correlation")],
    "sst2": [("", "accuracy")],
    "mrpc": [("", "f1")],
    "stsb": [("", "pearson")],
    "qqp": [("", "f1")],
    "mnli": [("matched", "accuracy"), ("mismatched", "accuracy")],
    "qnli": [("", "accuracy")],
    "rte": [("", "accuracy")],
}
# The leaderboard averages two metrics of some tasks, and includes WNLI, which the paper leaves out.
LEADERBOARD = {
    **TABLE_5,
    "mrpc": [("", "f1"), ("", "accuracy")],
    "stsb": [("", "pearson"), ("", "spearman")],
    "qqp": [("", "f1"), ("", "accuracy")],
    "wnli": [("", "accuracy")],
}
# Metric -> its columns, the paper's number, and the best number before the paper (Tables 4 and 5).
AVERAGES = {
    "table_5_mean": (TABLE_5, 74.7, None),
    "leaderboard_mean": (LEADERBOARD, 72.8, 68.9),
}


def glue_averages(results: Sequence[Result], split: str = "validation") -> list[Result]:
    """
    Average the results of one model over GLUE.

    Args:
        results (list of [`Result`]):
            Results of the tasks. Several seeds of a task count by their mean.
        split (`str`, *optional*, defaults to `"validation"`):
            Split to average over. The paper's leaderboard number is on the hidden test sets.

    Returns:
        list of [`Result`]: `table_5_mean`, the mean of the eight columns of the paper's Table 5, and
        `leaderboard_mean`, the mean of the leaderboard's nine tasks. A score that is not finite, or whose predictions
        are not, does not count. An average that lacks a task is left out. If all
        tasks have several seeds, its details have the `standard_error` over the averages of the `seeds` in common.

    Raises:
        GPT1Error: if the results belong to several models.
    """
    models = sorted({result.model for result in results})
    if len(models) > 1:
        raise GPT1Error(f"a GLUE average needs results of one model, not of several: {', '.join(models)}")
    values: dict[tuple[str, str, str], dict[int | None, float]] = defaultdict(dict)
    constants: dict[tuple[str, str, str], float | None] = {}
    n_rows = {}
    for result in results:
        whole, _, subset = result.split.partition("_")
        if whole == split and not is_failed(result):
            part = result.task, subset, result.metric
            values[part][result.seed] = result.value
            constants[part] = result.details.get("constant_answer")
            n_rows[result.task, subset] = result.n_examples, result.details.get("rows_of_split", result.n_examples)
    averages = []
    for name, (columns, paper, prior) in AVERAGES.items():
        needed = {(task, *part) for task, parts in columns.items() for part in parts}
        if not needed <= values.keys():
            continue
        means = {task: fmean(fmean(values[task, *part].values()) for part in parts) for task, parts in columns.items()}
        scored_parts = {(task, subset) for task, subset, _ in needed}
        n_examples, n_whole = (sum(counts) for counts in zip(*(n_rows[part] for part in scored_parts), strict=True))
        details = {"tasks": {task: round(mean, 2) for task, mean in means.items()}}
        if n_whole != n_examples:
            details["rows_of_split"] = n_whole
        by_task = {
            task: average_over_tasks({str(part): values[task, *part] for part in parts})
            for task, parts in columns.items()
        }
        by_seed = average_over_tasks(by_task)
        if (error := standard_error(list(by_seed.values()))) is not None:
            details |= {"standard_error": round(error, 2), "seeds": list(by_seed)}
        known = [[constants[task, *part] for part in parts] for task, parts in columns.items()]
        if all(constant is not None for parts in known for constant in parts):
            details["constant_answer"] = round(fmean(map(fmean, known)), 2)
        averages.append(
            Result(
                task="glue",
                split=split,
                metric=name,
                value=round(fmean(means.values()), 2),
                n_examples=n_examples,
                paper=paper,
                model=models[0],
                seed=None,
                details=details,
                prior=prior,
            )
        )
    return averages
