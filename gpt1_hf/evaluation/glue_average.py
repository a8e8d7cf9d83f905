"""The averages over GLUE: the leaderboard's (Wang et al., 2018), and the one of the paper's Table 5."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from ..errors import GPT1Error
from .results import Result


# Columns of Table 5 -> the numbers that are averaged first, as (subset, metric). Its MNLI is the mean of both.
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
# The leaderboard averages the two metrics of a task, and counts WNLI, which the paper does not report.
LEADERBOARD = {
    **TABLE_5,
    "mrpc": [("", "f1"), ("", "accuracy")],
    "stsb": [("", "pearson"), ("", "spearman")],
    "qqp": [("", "f1"), ("", "accuracy")],
    "wnli": [("", "accuracy")],
}
# Name -> its columns, the paper's number, the best before it.
AVERAGES = {
    "table_5_mean": (TABLE_5, 74.7, None),
    "leaderboard_mean": (LEADERBOARD, 72.8, 68.9),
}


def glue_averages(results: Sequence[Result], split: str = "validation") -> list[Result]:
    """
    Average the results of one model over GLUE.

    Args:
        results (list of [`Result`]):
            Results of its tasks; of several seeds, the mean counts.
        split (`str`, *optional*, defaults to `"validation"`):
            Split to average over. The paper's leaderboard number is on the hidden test sets.

    Returns:
        list of [`Result`]: `table_5_mean`, the macro mean of the eight columns of the paper's Table 5, and
        `leaderboard_mean`, of the leaderboard's nine tasks. One that lacks a task is left out.

    Raises:
        GPT1Error: if the results are of more than one model.
    """
    models = sorted({result.model for result in results})
    if len(models) > 1:
        raise GPT1Error(f"an average over GLUE is of one model, and the results are of {', '.join(models)}")
    values, examples, wholes = defaultdict(list), {}, {}
    for result in results:
        whole, _, subset = result.split.partition("_")
        if whole == split:
            values[result.task, subset, result.metric].append(result.value)
            examples[result.task, subset] = result.n_examples
            wholes[result.task, subset] = result.details.get("rows_of_split", result.n_examples)
    averages = []
    for name, (columns, paper, prior) in AVERAGES.items():
        wanted = {(task, *part) for task, parts in columns.items() for part in parts}
        if not wanted <= values.keys():
            continue
        tasks = {task: fmean(fmean(values[task, *part]) for part in parts) for task, parts in columns.items()}
        parts = {(task, subset) for task, subset, _ in wanted}
        n_examples, n_whole = (sum(of[part] for part in parts) for of in (examples, wholes))
        details = {"tasks": {task: round(value, 2) for task, value in tasks.items()}}
        if n_whole != n_examples:
            details["rows_of_split"] = n_whole
        averages.append(
            Result(
                task="glue",
                split=split,
                metric=name,
                value=round(fmean(tasks.values()), 2),
                n_examples=n_examples,
                paper=paper,
                model=models[0],
                seed=None,
                details=details,
                prior=prior,
            )
        )
    return averages
