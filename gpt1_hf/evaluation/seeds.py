"""Mean and spread of results over seeds, as numbers and as text."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, median, stdev

from .results import Result


def mean(values: Sequence[float]) -> float:
    """Mean, or NaN for an empty list."""
    return fmean(values) if values else math.nan


def mean_and_deviation(values: Sequence[float]) -> str:
    """Mean ± standard deviation (number of seeds), such as `45.2 ± 1.3 (3)`, or `not run` for an empty list."""
    if not values:
        return "not run"
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{fmean(values):.1f} ± {stdev(values):.1f} ({len(values)})"


def is_failed(result: Result) -> bool:
    """
    Whether a seed has failed although it has a result: its score is NaN or infinite, or some of its predictions are
    (`rows_not_finite`). Such a score is never averaged.
    """
    return not math.isfinite(result.value) or bool(result.details.get("rows_not_finite"))


def with_spread(results: Sequence[Result], failed: dict[int, str]) -> list[Result]:
    """
    Add `details["over_seeds"]`, the mean, spread and failed seeds, to results of several seeds. A seed also counts as
    failed if one of its results is not finite, see [`is_failed`].
    """
    not_finite = dict.fromkeys(result.seed for result in results if is_failed(result))
    several = len({result.seed for result in results}) > 1 or bool(failed)
    lost = list(dict.fromkeys([*failed, *(seed for seed in not_finite if seed is not None)]))
    groups = defaultdict(list)
    for result in results:
        if result.seed not in not_finite:
            groups[result.split, result.metric].append(result)
    spread = {}
    for key, group in groups.items():
        values = [result.value for result in group]
        spread[key] = {
            "mean": round(fmean(values), 2),
            "std": round(stdev(values), 2) if len(values) > 1 else None,
            "median": round(median(values), 2),
            "min": min(values),
            "max": max(values),
            "seeds": [result.seed for result in group],
            **({"failed_seeds": lost} if lost else {}),
        }
    return [
        replace(result, details={**result.details, "over_seeds": spread[result.split, result.metric]})
        if several and (result.split, result.metric) in spread
        else result
        for result in results
    ]


def summary(results: Sequence[Result]) -> str:
    """Text with median, mean and spread over seeds, one line for each metric and split, and the failed seeds."""
    lines = {}
    for result in results:
        spread = result.details.get("over_seeds")
        if not spread:
            continue
        deviation = "" if spread["std"] is None else f" ± {spread['std']:.1f} (standard deviation)"
        lines[result.split, result.metric] = (
            f"{result.task} ({result.split}) {result.metric}: median {spread['median']:.1f}, "
            f"mean {spread['mean']:.1f}{deviation}, {spread['min']:.1f} to {spread['max']:.1f}, "
            f"{len(spread['seeds'])} seeds"
        )
    failed = next((r.details["over_seeds"].get("failed_seeds") for r in results if "over_seeds" in r.details), None)
    if failed:
        lines["failed"] = f"failed: seed {', '.join(map(str, failed))}"
    return "\n".join(lines.values())
