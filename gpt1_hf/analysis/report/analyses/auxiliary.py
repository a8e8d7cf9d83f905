"""The auxiliary language-model objective against the number of training rows (§5, after Table 5).

The paper finds that it helps on the larger data sets (MultiNLI, QQP, QNLI) and not on the smaller ones. Here the same
tasks are cut to different sizes, so that nothing else differs.
"""

from collections.abc import Sequence

from ...evaluation.seeds import mean, mean_and_deviation
from ...tasks import all_tasks
from .figures import Figure, Series
from .runs import Record, scores
from .sections import Section, Table


VARIANTS = {"with_auxiliary": "with", "without_auxiliary": "without"}


def section(records: Sequence[Record]) -> Section:
    """
    Score of each task with and without the objective, by the number of training rows.

    Args:
        records (list of [`Record`]):
            Runs; those of other analyses are passed over.
    """
    tasks = all_tasks()
    values: dict[tuple[str, int], dict[str, list[float]]] = {}
    for record, result in scores(records):
        if record.variant in VARIANTS and result.task in tasks and result.metric == tasks[result.task].metric:
            size = values.setdefault((result.task, result.details["n_train_examples"]), {})
            # Of MultiNLI's two sets the mean is taken, seed by seed.
            size.setdefault(record.variant, {}).setdefault(record.name, []).append(result.value)
    rows, lines = [], {}
    for (task, n_rows), of_size in sorted(values.items()):
        seeds = {variant: [mean(one) for one in of_size.get(variant, {}).values()] for variant in VARIANTS}
        with_it, without = seeds.values()
        gain = ""
        if with_it and without:
            difference = mean(with_it) - mean(without)
            gain = f"{difference:+.1f}".replace("-", "−")
            lines.setdefault(task, []).append((n_rows, difference))
        rows.append([task, f"{n_rows:,}", mean_and_deviation(with_it), mean_and_deviation(without), gain])
    figure = Figure(
        "auxiliary",
        "What the auxiliary objective adds, by the number of training rows",
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
        "Validation sets, the task's own metric; mean ± standard deviation over seeds (their number).",
    )
    return Section("The auxiliary objective and the size of the data", [table], [figure] if rows else [])
