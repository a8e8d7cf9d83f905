"""The rule by which one way of training counts as better than another, and averages over tasks.

It pairs the runs of two arms by their seeds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.stats import ttest_rel

from .seeds import mean


# Level of the two-sided test, and the number of seeds that both arms must have.
LEVEL = 0.05
MIN_SEEDS = 3
RULE = (
    f"Verdicts: a paired t-test over the seeds that both arms have, two-sided, at {100 * LEVEL:g} %. Yes: "
    f"significantly better. No: significantly worse. Open: neither, fewer than {MIN_SEEDS} seeds, or the same "
    "difference for every seed, which says nothing about its spread. The difference is over the same seeds as the "
    "verdict. For several tasks, a seed counts by its average over the tasks compared. Each verdict is drawn at "
    f"{100 * LEVEL:g} % of its own, without a correction for their number: of many, some are wrong by chance."
)

BySeed = Mapping[int | None, float]  # seed -> value


@dataclass(frozen=True)
class Comparison:
    """
    One arm against another.

    Args:
        difference (`float`, *optional*):
            Mean difference over the seeds that both arms have; `None` without such seeds.
        verdict (`str`):
            `yes`, `no` or `open`, see [`verdict`].
        left_out (`tuple[int, ...]`):
            Seeds that only one of the arms has.
    """

    difference: float | None
    verdict: str
    left_out: tuple[int, ...]


def compare(values: BySeed, reference: BySeed) -> Comparison:
    """Compare an arm with another. A score that is not finite counts as missing; see [`verdict`]."""
    ours, theirs = (
        {seed for seed in arm if seed is not None and math.isfinite(arm[seed])} for arm in (values, reference)
    )
    differences = [values[seed] - reference[seed] for seed in sorted(ours & theirs)]
    center = fmean(differences) if differences else None
    return Comparison(center, verdict(values, reference), tuple(sorted(ours ^ theirs)))


def compare_over_tasks(
    values: Mapping[str, BySeed], reference: Mapping[str, BySeed], tasks: Sequence[str]
) -> Comparison:
    """[`compare`] on the averages over tasks. Left out are the seeds that an arm lacks on one of the tasks."""
    averages = [average_over_tasks(arm, tasks) for arm in (values, reference)]
    found = compare(*averages)
    every = {seed for arm in (values, reference) for task in tasks for seed in arm.get(task, {})} - {None}
    return Comparison(found.difference, found.verdict, tuple(sorted(every - (set(averages[0]) & set(averages[1])))))


def verdict(values: BySeed, reference: BySeed) -> str:
    """
    Whether an arm is better than another, by `RULE`.

    Args:
        values, reference (mapping of seed to `float`):
            Scores of the two arms, of which higher ones are better. Only the seeds that both have count.

    Returns:
        `str`: `yes`, `no` (the other arm is better) or `open`.
    """
    pairs = [(values[seed], reference[seed]) for seed in values if seed is not None and seed in reference]
    pairs = [pair for pair in pairs if all(map(math.isfinite, pair))]
    differences = [ours - other for ours, other in pairs]
    if len(pairs) < MIN_SEEDS:
        return "open"
    # Differences that are all the same, but for rounding errors, have no spread to estimate: two constant answers.
    spread, center = stdev(differences), fmean(differences)
    if spread <= 1e-9 * max(map(abs, (value for pair in pairs for value in pair))):
        return "open"
    if ttest_rel(*zip(*pairs, strict=True)).pvalue >= LEVEL:
        return "open"
    return "yes" if center > 0 else "no"


def average_over_tasks(values: Mapping[str, BySeed], tasks: Sequence[str] | None = None) -> dict[int, float]:
    """
    Each seed's average over tasks.

    Args:
        values (mapping of task to mapping of seed to `float`):
            Scores.
        tasks (sequence of `str`, *optional*):
            Tasks to average over; defaults to all of `values`.

    Returns:
        `dict`: seed -> average. A seed that one of the tasks lacks, or whose score is not finite, is left out.
    """
    by_task = [
        {seed: value for seed, value in values.get(task, {}).items() if math.isfinite(value)}
        for task in (values if tasks is None else tasks)
    ]
    seeds = set.intersection(*(set(own) for own in by_task)) - {None} if by_task else set()
    return {seed: fmean(own[seed] for own in by_task) for seed in sorted(seeds)}


def standard_error(values: Sequence[float]) -> float | None:
    """Standard error of a mean over seeds; `None` for fewer than two."""
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else None


def mean_and_error(values: Mapping[str, BySeed], tasks: Sequence[str], missing: str = "not run") -> str:
    """
    Average over tasks as text: over the seeds that every task has, with its standard error and their number, such as
    `45.2 ± 0.4 (3)`. With one such seed there is no error. With none, it is the mean of each task's own mean.
    """
    if not tasks or not all(values.get(task) for task in tasks):
        return missing
    averages = list(average_over_tasks(values, tasks).values())
    if not averages:
        return f"{fmean(mean(list(values[task].values())) for task in tasks):.1f}"
    error = standard_error(averages)
    return f"{fmean(averages):.1f}" + ("" if error is None else f" ± {error:.1f} ({len(averages)})")
