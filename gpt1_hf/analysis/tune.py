"""Tune each arm of a plan on the same grid and budget, scored on training rows that are held out."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ..console import note
from ..errors import GPT1Error, UsageError
from ..evaluation.results import RESULTS, Result, write_results
from ..evaluation.seeds import mean
from ..evaluation.task_scores import HELD_OUT_SPLIT
from .plan.plan import Plan, carry_out
from .plan.tuning import TUNED, TUNING_FOLDER, Trial, Tuning, at_the_edge, choose, write_tuned
from .plan.workers import Worker
from .report.analyses.tune import section
from .report.runs import as_result, collect, read_rows
from .report.sections import write_section
from .run_plan import print_cost, tune_command


# Details of a run's results that hold for all seeds.
SHARED_DETAILS = (
    *("task_version", "sample", "from_scratch", "n_train_examples", "epochs", "batch_size", "lm_coef"),
    "constant_answer",
)


def tune(
    config: str,
    tasks: Sequence[str] | None = None,
    output_dir: str | None = None,
    models_dir: str | None = None,
    overrides: dict[str, dict[str, Any]] | None = None,
    dry_run: bool = False,
    tokens_per_second: float | None = None,
    shard: str | None = None,
):
    """
    Run the unfinished tuning runs of a plan. Once all are finished, write what each arm chooses to
    `<output_dir>/tuned.yaml` and the scores to `<output_dir>/tune/`, and print them.

    Args:
        tasks (`list[str]`, *optional*):
            Do only the runs of these tuning tasks.
        config, output_dir, models_dir, overrides, dry_run, tokens_per_second, shard (*optional*):
            See [`run_plan`].

    Raises:
        GPT1Error: if the plan is wrong, or some of the runs are not finished.
    """
    plan = Plan.read(config, None, output_dir, models_dir, overrides)
    models, trials = plan.tuning_runs()
    for key in ("seed", "seeds"):
        if key in plan.overrides.get("finetune", {}):
            raise UsageError(f"--finetune.{key} does not change the tuning: set 'seeds' below the plan's key 'tune'")
    known = dict.fromkeys(trial.task for trial in trials)
    if other := [task for task in tasks or () if task not in known]:
        raise UsageError(f"the plan does not tune on the task {other[0]}, only on {', '.join(known)}")
    runs = [*models, *(trial.run for trial in trials if not tasks or trial.task in tasks)]
    worker = Worker.join(shard)
    if dry_run:
        print_cost(runs, worker, tokens_per_second)
        return
    unfinished = carry_out(runs, worker, may_diverge=True)
    worker.wait_for_all()
    if worker.is_first:
        open_runs = [trial.run for trial in trials if trial.run.state != "finished" and not trial.run.diverged]
        if open_runs:
            note(f"{TUNED} is written once all tuning runs are finished; {len(open_runs)} of {len(trials)} are not")
        else:
            write_choice(plan, trials, tune_command(config, output_dir))
    if unfinished:
        raise GPT1Error(f"{len(unfinished)} runs are not finished: {', '.join(unfinished)}")


def write_choice(plan: Plan, trials: Sequence[Trial], command: str):
    """Choose the settings of each arm from finished runs; write and print the choice and all scores."""
    folder = Path(plan.output_dir)
    tuning: Tuning = plan.tune
    found = results_of(trials)
    scores: dict[str, list[dict[str, float | None]]] = {}
    for (arm, number, task), results in found.items():
        combinations = scores.setdefault(arm, [{} for _ in tuning.combinations])
        combinations[number][task] = mean([result.value for result in results]) if results else None
    chosen = choose(scores, tuning.per)
    (folder / TUNING_FOLDER).mkdir(parents=True, exist_ok=True)
    write_results(folder / TUNING_FOLDER, summarized(found, chosen, tuning))
    # Read back as the report does, so that both show the same tables.
    content = section([run for run in collect(folder) if run.name == TUNING_FOLDER])
    write_section(content, folder / TUNING_FOLDER)
    (table,) = content.tables
    text = tabulate(table.rows, headers=table.headers, disable_numparse=True)
    warnings = at_the_edge(chosen, tuning)
    about = textwrap.wrap(f"Written by `{command}`. {table.note}", 100)
    about += ["", *text.splitlines(), *([""] if warnings else []), *warnings]
    write_tuned(folder / TUNED, chosen, tuning, plan.identity(), about)
    print(text)
    for warning in warnings:
        note(f"warning: {warning}")
    note(f"written to {folder / TUNED}")


def results_of(trials: Sequence[Trial]) -> dict[tuple[str, int, str], list[Result]]:
    """
    Arm, number of the combination, and task -> results of the task's main metric, one for each seed; none if the loss
    of a run diverged. A task that is only scored in subsets has a result for each.
    """
    found: dict[tuple[str, int, str], list[Result]] = {}
    diverged = set()
    for trial in trials:
        key = (trial.arm, trial.number, trial.task)
        if trial.run.diverged:
            diverged.add(key)
            found[key] = []
        elif key not in diverged:
            results = [as_result(row) for row in read_rows(trial.run.folder / RESULTS)]
            main = [result for result in results if result.metric == results[0].metric]
            found.setdefault(key, []).extend([r for r in main if r.split == HELD_OUT_SPLIT] or main)
    return found


def summarized(
    found: dict[tuple[str, int, str], list[Result]], chosen: dict[str, dict[str, int]], tuning: Tuning
) -> list[Result]:
    """The results of [`results_of`] as one result for each arm, combination and task."""
    diverged: dict[str, list[dict[str, Any]]] = {}
    for (arm, number, task), results in found.items():
        if not results:
            diverged.setdefault(arm, []).append({"task": task, "values": tuning.combinations[number]})
    rows = []
    for (arm, number, task), results in found.items():
        if not results:
            continue
        first, values = results[0], [result.value for result in results]
        details = {key: first.details[key] for key in SHARED_DETAILS if key in first.details}
        details["tuning"] = {
            "arm": arm,
            "values": tuning.combinations[number],
            "chosen": chosen[arm][task] == number,
            "per": tuning.per,
            "scores": values,
            **({"diverged": diverged[arm]} if arm in diverged else {}),
        }
        value = round(mean(values), 2)
        rows.append(
            Result(task, HELD_OUT_SPLIT, first.metric, value, first.n_examples, None, first.model, None, details)
        )
    return rows
