"""Table 5 (§5, "Ablation studies"): the value of pre-training, auxiliary objective, transformer and positions.

The plan pre-trains every variant from scratch on the same tokens, and fine-tunes each on the GLUE tasks. Without
layers the head sees only the embedding and the position of the extract token, so it cannot beat the most frequent
class. With only the embeddings transferred, the leftmost point of Figure 2, the layers start from random weights.
"""

from collections.abc import Sequence
from dataclasses import replace

from ....evaluation.seeds import mean
from ....evaluation.verdicts import Comparison, compare, compare_over_tasks, mean_and_error
from ....tasks import all_tasks
from ..groups import (
    UNKNOWN,
    Group,
    constant_text,
    differing,
    grouped,
    left_out_text,
    missing_seeds,
    sentences,
    shown,
)
from ..paper import ABLATIONS, TABLE_5
from ..runs import CollectedRun, has_main_metric, scores
from ..sections import OWN_SETTINGS, VERDICT, Section, Table, signed


NOTE = (
    "Ours: validation sets, mean ± standard deviation over seeds (number of seeds). Avg of 8 is the mean of the "
    "paper's eight tasks, not the leaderboard's overall score. The next column is the mean over the tasks that "
    "all our variants were run on, also for the paper's rows; “to full” is its difference to the first variant. "
    "An average is over the seeds that every task has, with its standard error. Claimed: a secondary source gives "
    "this difference; the paper does not. Constant answer: one answer for every row. The verdict says whether the "
    "full model is better; a task that is not named is open. Each pre-trained model is one pre-training run: the "
    "seeds vary only the fine-tuning, so a verdict leaves out the spread between pre-training runs."
)
Arm = dict[str, Group]  # task -> the runs of a row


def section(runs: Sequence[CollectedRun]) -> Section:
    """Table 5, one for each plan: for each variant, the paper's row and ours."""
    own = [run for run in runs if is_ablation(run)]
    plans = sorted({run.plan_folder for run in own if run.results})
    tables, not_run = [], []
    for plan in plans:
        name = plan if len(plans) > 1 else ""
        content, missing = table([run for run in own if run.plan_folder == plan], name)
        tables.append(content)
        not_run += [f"{text} ({name})" if name else text for text in missing]
    note = __doc__.split("\n\n")[1] if plans else ""
    return Section("Ablations", tables, note=note, has_verdicts=bool(plans), not_run=not_run)


def table(runs: Sequence[CollectedRun], plan: str) -> tuple[Table, list[str]]:
    """Table 5 of one plan's runs, and the names of the paper's tasks and variants that they lack."""
    run_tasks = {result.task for _, result in scores(runs)}
    columns = [*(task for task in TABLE_5 if task in run_tasks), *sorted(run_tasks - {*all_tasks()})]
    found = [(run, r) for run, r in scores(runs) if r.task in columns and has_main_metric(run, r)]
    groups = grouped(found, join_parts=True)
    arms = {variant: arms_of(variant, groups) for variant in ABLATIONS}
    not_run = [row.title for variant, row in ABLATIONS.items() if not any(arm for _, arm in arms[variant])]
    not_run += [task for task in TABLE_5 if task not in columns]
    # Averages are comparable only over the same tasks: those that every variant with a result has.
    present = [arm for of_variant in arms.values() for _, arm in of_variant if arm]
    common = [task for task in columns if present and all(task in arm for arm in present)]
    if set(common) & set(TABLE_5):
        common = [task for task in common if task in TABLE_5]  # the paper's rows have no others
    _, full = arms["full"][0]
    comparisons: dict[str, Comparison] = {}
    rows = [constant_row([group for arm in present for group in arm.values()], columns, common)]
    for variant, row in ABLATIONS.items():
        if row.title in not_run:
            continue
        paper = row.by_task
        if paper or row.claimed is not None:
            is_compared = paper and common and paper.keys() >= set(common)
            on_common = mean([paper[task] for task in common]) if is_compared else None
            difference = row.claimed
            if on_common is not None and variant != "full":
                difference = mean([paper[task] - ABLATIONS["full"].by_task[task] for task in common])
            cells = [decimal(paper.get(task), "–") for task in columns]
            averages = decimal(row.average, "–"), decimal(on_common, "–")
            source = "paper" if paper else "claimed"
            rows.append([row.title, source, *averages, signed(difference), "", "", *cells, "", ""])
        for number, (text, arm) in enumerate(arms[variant]):
            title = f"{row.title} ({text})" if text else row.title
            values = {task: group.values for task, group in arm.items()}
            averages = mean_and_error(values, TABLE_5), mean_and_error(values, common)
            cells = [arm[task].text if task in arm else "not run" for task in columns]
            compared, differs = ("", "", ""), ""
            if arm and full and (variant != "full" or number):
                reference = full if variant == "full" else dict(arms["full"]).get(text, full)
                comparisons[title], differs = against(arm, reference, common)
                overall = comparisons[title]
                compared = signed(overall.difference), overall.verdict, verdicts_by_task(arm, reference, columns)
            rows.append([title, "ours", *averages, *compared, *cells, tuned_text(arm), differs])
    common_name = f"avg of {len(common)}" if common else "avg of those run"
    headers = [
        "variant",
        "",
        "avg of 8",
        common_name,
        "to full",
        f"{VERDICT}: full is better",
        f"{VERDICT} by task",
        *columns,
        OWN_SETTINGS,
        "differs from full in",
    ]
    note = sentences(
        NOTE, left_out_text(comparisons), missing_seeds(groups, runs, lambda run: run.variant in ABLATIONS)
    )
    return Table.of(f"Table 5: ablations ({plan})" if plan else "Table 5: ablations", headers, rows, note), not_run


def arms_of(variant: str, groups: Sequence[Group]) -> list[tuple[str, Arm]]:
    """
    The rows of a variant, each with the settings that tell it from the others: one row, unless a task was run with
    several settings. The row with the most seeds comes first.
    """
    own = [group for group in groups if group.settings["variant"] == variant]
    by_task: dict[str, list[Group]] = {}
    for group in own:
        by_task.setdefault(group.task, []).append(group)
    names = list(dict.fromkeys(name for alike in by_task.values() for name in differing(alike)))
    rows: dict[str, Arm] = {}
    for group in own:
        text = ", ".join(shown(name, group.settings.get(name, UNKNOWN)) for name in names)
        rows.setdefault(text, {})[group.task] = group
    ordered = sorted(rows.items(), key=lambda row: -sum(len(group.values) for group in row[1].values()))
    return ordered or [("", {})]


def against(arm: Arm, full: Arm, tasks: Sequence[str]) -> tuple[Comparison, str]:
    """
    Comparison with the full model over tasks, and the settings that differ. The difference is to the full model, and
    the verdict says whether that is better.
    """
    values, reference = ({task: group.values for task, group in one.items()} for one in (arm, full))
    comparison = compare_over_tasks(reference, values, tasks)
    if comparison.difference is not None:
        comparison = replace(comparison, difference=-comparison.difference)
    both = [task for task in arm if task in full]
    names = dict.fromkeys(name for task in both for name in differing([arm[task], full[task]], ("variant",)))
    texts = []
    for name in names:
        found = {str(arm[task].settings.get(name, UNKNOWN)) for task in both}
        texts.append(shown(name, found.pop()) if len(found) == 1 else name.replace("_", " "))
    return comparison, ", ".join(texts)


def verdicts_by_task(arm: Arm, full: Arm, tasks: Sequence[str]) -> str:
    """Tasks on which the full model is better or worse, such as `yes: mnli; no: rte, stsb`; the others are open."""
    found: dict[str, list[str]] = {"yes": [], "no": []}
    for task in tasks:
        if task in arm and task in full:
            found.setdefault(compare(full[task].values, arm[task].values).verdict, []).append(task)
    return "; ".join(f"{verdict}: {', '.join(found[verdict])}" for verdict in ("yes", "no") if found[verdict])


def tuned_text(arm: Arm) -> str:
    """The settings that an arm tuned, such as `learning rate 0.001`. Where tasks differ, they are named."""
    texts = []
    for name in dict.fromkeys(name for group in arm.values() for name in group.run.tuned):
        tasks: dict[str, list[str]] = {}
        for task, group in arm.items():
            if name in group.settings:
                tasks.setdefault(str(group.settings[name]), []).append(task)
        values = [f"{value} ({', '.join(own)})" if len(tasks) > 1 else value for value, own in tasks.items()]
        texts += [shown(name, ", ".join(values))] if values else []
    return "; ".join(texts)


def constant_row(groups: Sequence[Group], columns: Sequence[str], common: Sequence[str]) -> list[str]:
    """The row of the constant answer."""
    known = {group.task: group for group in reversed(groups)}
    cells = [constant_text(known[task]) if task in known else "–" for task in columns]

    def average(tasks: Sequence[str]) -> str:
        values = [known[task].constant for task in tasks if task in known and known[task].constant is not None]
        return f"{mean(values):.1f}" if values and len(values) == len(tasks) else "–"

    return ["constant answer", "", average(TABLE_5), average(common), "", "", "", *cells, "", ""]


def is_ablation(run: CollectedRun) -> bool:
    """Whether a run belongs to the table. The runs of a plan that sweeps a setting have longer names."""
    return bool(run.plan) and run.variant in ABLATIONS and len(run.plan.get("name", "").split("/")) == 4


def decimal(value: float | None, missing: str) -> str:
    """A number with one decimal place."""
    return missing if value is None else f"{value:.1f}"
