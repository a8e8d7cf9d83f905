"""The auxiliary language-model objective against the number of training rows (§5, after Table 5).

The paper finds that it helps on the larger data sets (MultiNLI, QQP, QNLI) and not on the smaller ones. Here the same
tasks are cut to different sizes, so that nothing else differs.
"""

from collections.abc import Sequence

from ....evaluation.seeds import mean, mean_and_deviation
from ....figures import Figure, Series
from ....tasks import all_tasks
from ..runs import CollectedRun, scores
from ..sections import Section, Table, signed


VARIANTS = ("with_auxiliary", "without_auxiliary")


def section(runs: Sequence[CollectedRun]) -> Section:
    """Score of each task with and without the objective, by the number of training rows."""
    tasks = all_tasks()
    # (task, training rows) -> variant -> run -> values: one, or MultiNLI's two
    values: dict[tuple[str, int], dict[str, dict[str, list[float]]]] = {}
    for run, result in scores(runs):
        if run.variant in VARIANTS and result.task in tasks and result.metric == tasks[result.task].metric:
            variants = values.setdefault((result.task, result.details["n_train_examples"]), {})
            variants.setdefault(run.variant, {}).setdefault(run.name, []).append(result.value)
    rows, lines = [], {}
    for (task, n_rows), variants in sorted(values.items()):
        with_it, without = ([mean(one) for one in variants.get(variant, {}).values()] for variant in VARIANTS)
        difference = mean(with_it) - mean(without) if with_it and without else None
        if difference is not None:
            lines.setdefault(task, []).append((n_rows, difference))
        rows.append(
            [task, f"{n_rows:,}", mean_and_deviation(with_it), mean_and_deviation(without), signed(difference)]
        )
    figure = Figure(
        "auxiliary",
        "Gain from the auxiliary objective, by the number of training rows",
        "training rows",
        "score with − score without",
        [Series(task, points) for task, points in lines.items()],
        log_x=True,
        few_x=True,
        caption="Above 0 the auxiliary objective helps.",
    )
    table = Table(
        "With and without the auxiliary objective",
        ["task", "training rows", "with", "without", "difference"],
        rows or [["mnli, qqp, qnli", "1,000 / 3,000 / 9,000", "not run", "not run", ""]],
        "The task's own metric on validation sets; mean ± standard deviation over seeds (number of seeds).",
    )
    return Section("The auxiliary objective and the size of the data", [table], [figure] if rows else [])
