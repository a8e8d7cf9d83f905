"""The auxiliary language-model objective against the number of training rows (§5, after Table 5).

The paper finds that it helps on the larger data sets (MultiNLI, QQP, QNLI) and not on the smaller ones. Here the same
tasks are cut to different sizes, so that nothing else differs.
"""

from collections.abc import Sequence

from ....evaluation.verdicts import compare
from ....figures import Figure, Series
from ..groups import (
    Group,
    arms_side_by_side,
    constant_text,
    differences,
    grouped,
    left_out_text,
    missing_seeds,
    own_settings_text,
    sentences,
)
from ..runs import CollectedRun, has_main_metric, scores
from ..sections import DIFFERENCES, OWN_SETTINGS, VERDICT, Section, Table, signed


VARIANTS = {"with_auxiliary": "with", "without_auxiliary": "without"}  # -> header
NOTE = (
    "The task's own metric on validation sets; mean ± standard deviation over seeds (number of seeds). The verdict "
    "says whether the objective helps."
)


def section(runs: Sequence[CollectedRun]) -> Section:
    """Score of each task with and without the objective, by the number of training rows."""
    found = [(run, result) for run, result in scores(runs) if run.variant in VARIANTS and has_main_metric(run, result)]
    groups = grouped(found, join_parts=True)
    pairs = arms_side_by_side(groups, lambda group: group.settings["variant"], ("variant", "lm_coef"))
    ordered = sorted(pairs, key=lambda pair: place(any_of(pair)))
    texts = differences([any_of(pair) for pair in ordered], place, ("variant", "lm_coef"))
    rows, lines, comparisons = [], {}, {}
    for pair, text in zip(ordered, texts, strict=True):
        task, n_rows = place(any_of(pair))
        with_it, without = (pair.get(variant) for variant in VARIANTS)
        difference, answer = None, ""
        if with_it and without:
            found = compare(with_it.values, without.values)
            difference, answer = found.difference, found.verdict
            comparisons[", ".join(filter(None, [task, f"{n_rows:,} rows", text]))] = found
            if difference is not None:
                lines.setdefault(", ".join(filter(None, [task, text])), []).append((n_rows, difference))
        cells = [group.text if group else "not run" for group in (with_it, without)]
        cells += [signed(difference), answer, constant_text(any_of(pair))]
        own = own_settings_text({VARIANTS[variant]: group for variant, group in pair.items()})
        rows.append([task, f"{n_rows:,}", *cells, own, text])
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
    headers = ["task", "training rows", *VARIANTS.values(), "difference", VERDICT, "constant answer", OWN_SETTINGS]
    table = Table.of(
        "With and without the auxiliary objective",
        [*headers, DIFFERENCES],
        rows,
        sentences(NOTE, left_out_text(comparisons), missing_seeds(groups, runs, lambda run: run.variant in VARIANTS)),
    )
    tables = [table] if rows else []
    return Section("The auxiliary objective and the size of the data", tables, [figure], has_verdicts=bool(rows))


def place(group: Group) -> tuple[str, int]:
    """Task and number of training rows."""
    return group.task, group.settings["n_train_examples"]


def any_of(pair: dict[str, Group]) -> Group:
    """Either of a pair."""
    return next(iter(pair.values()))
