"""The auxiliary language-model objective against the number of training rows (§5, after Table 5).

The paper finds that it helps on the larger data sets (MultiNLI, QQP, QNLI) and not on the smaller ones. Here the same
tasks are cut to different sizes, so that nothing else differs.
"""

from collections.abc import Hashable, Sequence

from ....evaluation.verdicts import verdict
from ....figures import Figure, Series
from ..groups import Group, constant_text, differences, grouped, missing_seeds, sentences
from ..runs import CollectedRun, has_main_metric, scores
from ..sections import DIFFERENCES, VERDICT, Section, Table, signed


VARIANTS = ("with_auxiliary", "without_auxiliary")
NOTE = (
    "The task's own metric on validation sets; mean ± standard deviation over seeds (number of seeds). The verdict "
    "says whether the objective helps."
)


def section(runs: Sequence[CollectedRun]) -> Section:
    """Score of each task with and without the objective, by the number of training rows."""
    found = [(run, result) for run, result in scores(runs) if run.variant in VARIANTS and has_main_metric(run, result)]
    groups = grouped(found, join_parts=True)
    pairs: dict[Hashable, dict[str, Group]] = {}
    for group in groups:
        pairs.setdefault(group.key("variant", "lm_coef"), {})[group.settings["variant"]] = group
    ordered = sorted(pairs.values(), key=lambda pair: place(any_of(pair)))
    texts = differences([any_of(pair) for pair in ordered], place, ("variant", "lm_coef"))
    rows, lines = [], {}
    for pair, text in zip(ordered, texts, strict=True):
        task, n_rows = place(any_of(pair))
        with_it, without = (pair.get(variant) for variant in VARIANTS)
        difference, answer = None, ""
        if with_it and without:
            difference, answer = with_it.mean - without.mean, verdict(with_it.values, without.values)
            lines.setdefault(", ".join(filter(None, [task, text])), []).append((n_rows, difference))
        cells = [group.text if group else "not run" for group in (with_it, without)]
        rows.append([task, f"{n_rows:,}", *cells, signed(difference), answer, constant_text(any_of(pair)), text])
    figure = Figure(
        "auxiliary",
        "Gain from the auxiliary objective, by the number of training rows",
        "training rows",
        "score with − score without",
        [Series(label, points) for label, points in lines.items()],
        log_x=True,
        few_x=True,
        caption="Above 0 the auxiliary objective helps.",
    )
    headers = ["task", "training rows", "with", "without", "difference", VERDICT, "constant answer"]
    table = Table.of(
        "With and without the auxiliary objective",
        [*headers, DIFFERENCES],
        rows,
        sentences(NOTE, missing_seeds(groups, runs, lambda run: run.variant in VARIANTS)),
    )
    tables = [table] if rows else []
    return Section("The auxiliary objective and the size of the data", tables, [figure], has_verdicts=bool(rows))


def place(group: Group) -> tuple[str, int]:
    """Task and number of training rows."""
    return group.task, group.settings["n_train_examples"]


def any_of(pair: dict[str, Group]) -> Group:
    """Either of a pair."""
    return next(iter(pair.values()))
