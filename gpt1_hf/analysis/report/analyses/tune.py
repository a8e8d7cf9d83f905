"""Tune each model and arm of a plan (`--config PLAN.yaml`) on the same grid, scored on training data held out."""

import math
from collections.abc import Sequence
from typing import Any

from ....evaluation.results import Result
from ....evaluation.seeds import mean, mean_and_deviation
from ..groups import constant_of
from ..runs import CollectedRun
from ..sections import Section, Table


PRETRAINING_NOTE = (
    "Perplexity of short pre-training runs on training text that is held out, never on the validation text. Every "
    "model has the same grid and number of updates; a setting without an effect on a model is left out (–). Each "
    "model uses the values with the lowest perplexity."
)
NOTE = (
    "The main metric on training rows that are held out, never on the validation split; mean ± standard deviation "
    "over seeds (number of seeds). Every arm has the same grid and number of seeds. Constant answer: one answer for "
    "every row. "
)
CHOICE = {
    "arm": "Each arm uses the values with the best mean over the tasks.",
    "task": "Each arm uses the best values on each task.",
}


def section(runs: Sequence[CollectedRun]) -> Section:
    """For each plan that was tuned, the score of each model and arm with each value."""
    tables = []
    for run in runs:
        results = [result for result in run.results if "tuning" in result.details]
        folder = run.name.rpartition("/")[0]  # without `tune`
        of_models = [result for result in results if result.details["tuning"]["per"] == "model"]
        of_arms = [result for result in results if result not in of_models]
        if of_models:
            title = f"Tuning of the pre-training of {folder}" if folder else "Perplexities on held-out text"
            tables.append(table(title, of_models))
        if of_arms:
            tables.append(table(f"Tuning of {folder}" if folder else "Scores on held-out rows", of_arms))
    return Section("Tuning", tables)


def table(title: str, results: Sequence[Result]) -> Table:
    """Table of the scores of one plan's tuning, of its models or of its arms."""
    per = results[0].details["tuning"]["per"]
    # A model has only the settings that have an effect on it.
    settings = list(dict.fromkeys(name for result in results for name in result.details["tuning"]["values"]))
    tasks = list(dict.fromkeys(result.task for result in results))
    # (arm, values) -> task -> result, or `None` if the loss diverged
    found: dict[tuple, dict[str, Result | None]] = {}

    def place(arm: str, values: dict[str, Any]) -> dict[str, Result | None]:
        return found.setdefault((arm, *(values.get(name) for name in settings)), {})

    for result in results:
        facts = result.details["tuning"]
        place(facts["arm"], facts["values"])[result.task] = result
        for lost in facts.get("diverged", ()):
            place(facts["arm"], lost["values"])[lost["task"]] = None
            tasks += [lost["task"]] if lost["task"] not in tasks else []
    arms = list(dict.fromkeys(arm for arm, *_ in found))
    rows = []
    for (arm, *values), by_task in sorted(found.items(), key=lambda item: (arms.index(item[0][0]), *item[0][1:])):
        shown = {task: result for task in tasks if (result := by_task.get(task)) is not None}
        cells = [cell(shown[task], per) if task in shown else "diverged" for task in tasks]
        if per == "arm":
            is_chosen = any(result.details["tuning"]["chosen"] for result in shown.values())
            means = mean([mean(result.details["tuning"]["scores"]) for result in shown.values()])
            is_known = len(shown) == len(tasks) and math.isfinite(means)
            cells.append(f"{means:.1f}{', chosen' if is_chosen else ''}" if is_known else "–")
        rows.append([arm, *map(value_text, values), *cells])
    names = [name.replace("_", " ") for name in settings]
    if per == "model":
        return Table(title, ["model", *names, "perplexity"], rows, PRETRAINING_NOTE)
    rows += constant_row(results, tasks, len(settings), per)
    return Table(title, ["arm", *names, *tasks, *(["mean"] if per == "arm" else [])], rows, NOTE + CHOICE[per])


def value_text(value: Any) -> str:
    """A value of a setting as a cell; `None` is one that the model lacks."""
    if value is None:
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


def constant_row(results: Sequence[Result], tasks: Sequence[str], n_settings: int, per: str) -> list[list[str]]:
    """The row of the constant answer; none if no task's is known, as in results of earlier versions."""
    first = {result.task: result for result in reversed(results)}
    known = {task: constant_of([first[task]]) for task in tasks if task in first}
    values = [known.get(task) for task in tasks]
    if not any("constant_answer" in result.details for result in results):
        return []
    average = f"{mean([value for value in values if value is not None]):.1f}" if None not in values else "–"
    cells = ["–" if value is None else f"{value:.1f}" for value in values]
    return [["constant answer", *[""] * n_settings, *cells, *([average] if per == "arm" else [])]]


def cell(result: Result, per: str) -> str:
    """The score of an arm or model on a task."""
    facts = result.details["tuning"]
    if not all(map(math.isfinite, facts["scores"])):
        return "not finite"
    return mean_and_deviation(facts["scores"]) + (", chosen" if per != "arm" and facts["chosen"] else "")
