"""Tables 2 to 4 (§4.2): for each task, the best number before the paper, the paper's, and ours."""

from collections.abc import Sequence
from dataclasses import replace

from ...evaluation.results import BEST_BEFORE, Result
from ...tasks import load_task
from .groups import Group, constant_text, differing, grouped, missing_seeds, sentences
from .paper import GLUE_PAPER, GLUE_PRIOR, TABLES, Column
from .runs import CollectedRun, scores, short_names
from .sections import Section, Table


NOTE = (
    "The paper's numbers are on test sets, ours on validation sets (Story Cloze: its test set where there is a copy, "
    "else held-out stories). The paper's QNLI is version 1, today's data are version 2. Best before the paper: as "
    "the paper's table gives it. Constant answer: one answer for every row that ours were scored on; for "
    "multiple choice, a random guess. Ours: mean ± standard deviation over seeds (number of seeds), with the number "
    "of training rows. Where a model was fine-tuned with several settings, those with the most training rows are "
    "shown, and among these those with the most seeds."
)

# Variants of a complete model, with and without pre-training: of `ablations.yaml` and of `pretraining.yaml`.
COMPLETE = ("full", "no_pretraining", "pretrained", "from_scratch")


def section(runs: Sequence[CollectedRun]) -> Section:
    """
    The paper's tables, with a column for each model that was wholly fine-tuned with the auxiliary objective, and one
    for the same model from scratch.
    """
    found = [
        (run, result)
        for run, result in scores(runs)
        if run.variant in COMPLETE and result.details.get("transfer_layers") is None and not result.details.get("peft")
    ]
    names = short_names(str(result.model) for _, result in found)
    by_cell: dict[tuple, list[Group]] = {}
    for group in grouped(found):
        subset = group.split.partition("_")[2]
        name = model_name(replace(group.result, model=names[str(group.result.model)]))
        by_cell.setdefault((group.task, group.metric, subset, name), []).append(group)
    models = sorted({model for *_, model in by_cell})
    tables, shown_groups, others, not_run = [], [], [], []
    for title, columns in TABLES.items():
        rows = []
        for column in columns:
            task = load_task(column.task)
            paper, prior = task.numbers(column.subset)
            cells = {model: groups_of(by_cell, column, model) for model in models}
            best = [groups[0] for groups in cells.values() if groups]
            shown_groups += best
            if not best:
                not_run.append(column.title)
                continue
            values = [score_text(groups[0]) if groups else "not run" for groups in cells.values()]
            others += [
                f"{column.title}, {model} ({len(groups)} settings: {', '.join(differing(groups))})".replace("_", " ")
                for model, groups in cells.items()
                if len(groups) > 1
            ]
            constants = list(dict.fromkeys(map(constant_text, best)))
            numbers = [f"{prior:.1f}", f"{paper:.1f}", *values, ", ".join(constants) or "–"]
            rows.append([column.title, metric_name(task.metric), *numbers])
        if not rows:
            continue
        headers = ["data", "metric", BEST_BEFORE, "paper", *(f"ours: {model}" for model in models), "constant answer"]
        absent = [number for number in range(len(headers)) if all(row[number] == "not run" for row in rows)]
        not_run += [f"{title.partition(':')[0]} with {headers[number].removeprefix('ours: ')}" for number in absent]
        kept = [number for number in range(len(headers)) if number not in absent]
        tables.append(Table(title, [headers[n] for n in kept], [[row[n] for n in kept] for row in rows]))
    # The leaderboard's score needs the hidden test labels of nine tasks.
    not_run.append(f"the GLUE leaderboard (paper {GLUE_PAPER:.1f}, {BEST_BEFORE} {GLUE_PRIOR:.1f})")
    more = f"Settings differ in: {'; '.join(others)}." if others else ""
    folders = {run.folder for group in shown_groups for run in group.runs.values()}
    missing = missing_seeds(shown_groups, runs, lambda run: run.folder in folders)
    note = sentences(NOTE, more, missing) if tables else ""
    return Section("The paper's tasks", tables, note=note, not_run=not_run if tables else [])


def model_name(result: Result) -> str:
    """Name of a column: training from scratch and the package's samples have columns of their own."""
    scratch = " from scratch" if result.details.get("from_scratch") else ""
    return f"{result.model}{scratch}{' (sample)' if result.details.get('sample') else ''}"


def metric_name(metric: str) -> str:
    """The paper's name of a metric."""
    return {"matthews_correlation": "Matthews", "f1": "F1", "pearson": "Pearson"}.get(metric, metric)


def groups_of(by_cell: dict[tuple, list[Group]], column: Column, model: str) -> list[Group]:
    """A model's groups for a column: those with the most training rows first, then with the most seeds."""
    groups = by_cell.get((column.task, load_task(column.task).metric, column.subset or "", model), [])

    def order(group: Group) -> tuple:
        return group.settings.get("n_train_examples") or 0, len(group.values), group.split.startswith("test")

    return sorted(groups, key=order, reverse=True)


def score_text(group: Group) -> str:
    """Mean and deviation over seeds, with the number of training rows and, of a part of the split, of rows scored."""
    marks = sorted({result.rows for result in group.results.values() if "rows_of_split" in result.details})
    scored = f", scored on {' and '.join(marks)}" if marks else ""
    n_rows = group.settings.get("n_train_examples")
    return f"{group.text} on {n_rows:,} rows{scored}" if n_rows else group.text + scored
