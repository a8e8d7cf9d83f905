"""Pre-trained against from scratch, for runs that have both arms. Each arm may have settings of its own, if tuned."""

from collections.abc import Hashable, Sequence

from ...evaluation.verdicts import Comparison, compare, compare_over_tasks, mean_and_error
from .groups import (
    UNKNOWN,
    Group,
    constant_text,
    differences,
    grouped,
    left_out_text,
    missing_seeds,
    sentences,
    shown,
)
from .runs import CollectedRun, has_main_metric, scores, short_names
from .sections import DIFFERENCES, VERDICT, Section, Table, signed


# What may differ between the arms.
ARM = ("from_scratch", "learning_rate", "base_weights", "plan", "variant")
NOTE = (
    "The arms differ only in their weights before fine-tuning and in what each may tune: the learning rate, and other "
    "tuned settings, which stand beside it. Of an arm's rates those with the most seeds are shown. Mean ± standard "
    "deviation over seeds (number of seeds); an average is over the seeds that every task has, with its standard "
    "error. Constant answer: one answer for every row. The verdict says whether pre-training helps."
)
HEADERS = [
    *("task", "split", "model", "pre-trained", "its rate", "from scratch", "its rate", "difference", VERDICT),
    *("constant answer", DIFFERENCES),
]

Pair = tuple[Group, Group]  # pre-trained, from scratch


def section(runs: Sequence[CollectedRun]) -> Section:
    """Table of the pairs and, for each model, of their averages over tasks; no table if there are none."""
    found = [
        (run, result)
        for run, result in scores(runs)
        if result.details.get("transfer_layers") is None and has_main_metric(run, result)
    ]
    groups = grouped(found, join_parts=True)
    pairs = pairs_of(groups)
    names = short_names(str(group.settings["model"]) for pair in pairs for group in pair)
    pairs.sort(key=lambda pair: (names[pair[0].settings["model"]], pair[0].task, pair[0].split))
    own = [pretrained for pretrained, _ in pairs]
    texts = differences(
        own,
        lambda group: (group.task, group.split, group.settings["model"]),
        ("learning_rate", "variant", *(name for group in own for name in group.own_settings)),
    )
    rows, comparisons = [], {}
    by_model: dict[tuple[str, str], dict[str, list[Pair]]] = {}
    for (pretrained, scratch), text in zip(pairs, texts, strict=True):
        model = names[pretrained.settings["model"]]
        by_model.setdefault((model, text), {}).setdefault(pretrained.task, []).append((pretrained, scratch))
        arms = [cell for arm in (pretrained, scratch) for cell in (arm.text, rate(arm))]
        found = compare(pretrained.values, scratch.values)
        comparisons[", ".join(filter(None, [pretrained.task, pretrained.split, model, text]))] = found
        constant = constant_text(pretrained)
        rows.append(
            [pretrained.task, pretrained.split, model, *arms, signed(found.difference), found.verdict, constant, text]
        )
    for (model, text), tasks in by_model.items():
        if len(tasks) > 1 and all(len(own) == 1 for own in tasks.values()):
            row, found = average_row(model, text, {task: own[0] for task, own in tasks.items()})
            comparisons[", ".join(filter(None, ["average", model, text]))] = found
            rows.append(row)
    both_arms = [group for pair in pairs for group in pair]
    note = sentences(
        NOTE,
        left_out_text(comparisons),
        missing_seeds(both_arms, runs, lambda run: run.folder in {g.run.folder for g in both_arms}),
    )
    tables = [Table.of("The value of pre-training", HEADERS, rows, note)] if rows else []
    return Section("Pre-trained against from scratch", tables, has_verdicts=bool(rows))


def pairs_of(groups: Sequence[Group]) -> list[Pair]:
    """Pre-trained runs and those from scratch with the same settings. Arms of the same plan go together."""
    arms: dict[Hashable, dict[bool, list[Group]]] = {}
    for group in groups:
        is_scratch = bool(group.settings["from_scratch"])
        arms.setdefault(group.key(*ARM, *group.own_settings), {}).setdefault(is_scratch, []).append(group)
    pairs = []
    for both in arms.values():
        if len(both) == 2:
            plans = [{group.plan for group in both[is_scratch]} for is_scratch in (False, True)]
            shared = plans[0] & plans[1]
            for plan in sorted(shared) or [None]:
                own = [[g for g in both[arm] if plan in (None, g.plan)] for arm in (False, True)]
                pairs += [(ours, scratch) for ours in most_seeds(own[0]) for scratch in most_seeds(own[1])]
    return pairs


def most_seeds(groups: Sequence[Group]) -> list[Group]:
    """The groups with the most seeds."""
    most = max(len(group.values) for group in groups)
    return [group for group in groups if len(group.values) == most]


def average_row(model: str, text: str, tasks: dict[str, Pair]) -> tuple[list[str], Comparison]:
    """The row of a model's averages over tasks, and their comparison."""
    pretrained, scratch = ({task: pair[arm].values for task, pair in tasks.items()} for arm in (0, 1))
    names = list(tasks)
    found = compare_over_tasks(pretrained, scratch, names)
    rates = [", ".join(dict.fromkeys(rate(pair[arm]) for pair in tasks.values())) for arm in (0, 1)]
    constants = [pair[0].constant for pair in tasks.values()]
    constant = f"{sum(constants) / len(constants):.1f}" if None not in constants else "–"
    row = [
        *(f"average of {len(names)}", "", model, mean_and_error(pretrained, names), rates[0]),
        *(mean_and_error(scratch, names), rates[1], signed(found.difference)),
        *(found.verdict, constant, text),
    ]
    return row, found


def rate(group: Group) -> str:
    """The learning rate as a cell, with the other settings that the arm tuned."""
    others = [name for name in group.run.tuned if name in group.settings and name != "learning_rate"]
    rates = f"{group.settings.get('learning_rate', UNKNOWN)}"
    return ", ".join([rates, *(shown(name, group.settings[name]) for name in others)])
