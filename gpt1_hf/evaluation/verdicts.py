"""The rule by which one way of training counts as better than another, and averages over tasks.

It pairs the runs of two arms by their seeds.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from scipy.stats import ttest_rel

from .seeds import mean


# Level of the two-sided test, and the number of seeds that both arms must have.
LEVEL = 0.05
MIN_SEEDS = 3
RULE = (
    f"Verdicts: a paired t-test over the seeds that both arms have, two-sided, at {100 * LEVEL:g} %. Yes: "
    f"significantly better. No: significantly worse. Open: neither, or fewer than {MIN_SEEDS} seeds. For several "
    "tasks, a seed counts by its average over the tasks compared."
)

BySeed = Mapping[int | None, float]  # seed -> value


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
    differences = [ours - other for ours, other in pairs]
    if len(pairs) < MIN_SEEDS or not any(differences):
        return "open"
    # Differences that are all the same have no spread to estimate: they are certain, whatever their rounding error.
    spread, center = stdev(differences), fmean(differences)
    is_certain = spread <= 1e-9 * abs(center)
    if not is_certain and ttest_rel(*zip(*pairs, strict=True)).pvalue >= LEVEL:
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
        `dict`: seed -> average. A seed that one of the tasks lacks is left out.
    """
    by_task = [values.get(task, {}) for task in (values if tasks is None else tasks)]
    seeds = set.intersection(*(set(own) for own in by_task)) - {None} if by_task else set()
    return {seed: fmean(own[seed] for own in by_task) for seed in sorted(seeds)}


def verdict_over_tasks(values: Mapping[str, BySeed], reference: Mapping[str, BySeed], tasks: Sequence[str]) -> str:
    """[`verdict`] on the averages over tasks, see [`average_over_tasks`]."""
    return verdict(average_over_tasks(values, tasks), average_over_tasks(reference, tasks))


def standard_error(values: Sequence[float]) -> float | None:
    """Standard error of a mean over seeds; `None` for fewer than two."""
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else None


def mean_over_tasks(values: Mapping[str, BySeed], tasks: Sequence[str]) -> float | None:
    """Mean over tasks of the means over all seeds; `None` if a task has no value or there is no task."""
    means = [mean(list(values[task].values())) for task in tasks if values.get(task)]
    return fmean(means) if means and len(means) == len(tasks) else None


def mean_and_error(values: Mapping[str, BySeed], tasks: Sequence[str], missing: str = "not run") -> str:
    """
    [`mean_over_tasks`] as text. The standard error follows, over the averages of the seeds that every task has, with
    their number: `45.2 ± 0.4 (3)`. It is left out if there are fewer than two such seeds.
    """
    center = mean_over_tasks(values, tasks)
    if center is None:
        return missing
    averages = list(average_over_tasks(values, tasks).values())
    error = standard_error(averages)
    return f"{center:.1f}" if error is None else f"{center:.1f} ± {error:.1f} ({len(averages)})"
