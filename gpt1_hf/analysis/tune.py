"""Tune each model and each arm of a plan on the same grid and budget, scored on training data that is held out."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ..console import note
from ..errors import GPT1Error, UsageError
from ..evaluation.results import RESULTS, Result, write_results
from ..evaluation.seeds import is_failed, mean
from ..evaluation.task_scores import HELD_OUT_SPLIT
from .plan.plan import Plan, carry_out, share
from .plan.tuned import TUNED, ModelSettings, Tuned, write_tuned
from .plan.tuning import TUNING_FOLDER, Trial, Tuning, at_the_edge, choose, choose_pretraining
from .plan.workers import Worker
from .report.analyses.tune import section
from .report.runs import as_result, collect, read_rows
from .report.sections import write_section
from .run_plan import print_cost, tune_command


# Details of a run's results that hold for all seeds.
SHARED_DETAILS = (
    *("task_version", "sample", "from_scratch", "n_train_examples", "epochs", "batch_size", "lm_coef"),
    *("updates", "scored_tokens", "constant_answer"),
)
# What a combination was tried on: arm or model, number of the combination, task -> results; none if a loss diverged.
Found = dict[tuple[str, int, str], list[Result]]


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
    Run the unfinished tuning runs of a plan: first those of the pre-training, then the models themselves with what
    each chose, then those of the fine-tuning. Once all are finished, write what each model and arm chose to
    `<output_dir>/tuned.yaml` and the scores to `<output_dir>/tune/`, and print them.

    Args:
        tasks (`list[str]`, *optional*):
            Do only the runs of these tuning tasks, and those of the pre-training.
        config, output_dir, models_dir, overrides, dry_run, tokens_per_second, shard (*optional*):
            See [`run_plan`].

    Raises:
        GPT1Error: if the plan is wrong, or some of the runs are not finished.
    """
    plan = Plan.read(config, None, output_dir, models_dir, overrides)
    _, trials = plan.tuning_runs()
    pretraining = plan.pretraining_trials()
    for key in ("seed", "seeds"):
        if key in plan.overrides.get("finetune", {}):
            raise UsageError(f"--finetune.{key} does not change the tuning: set 'seeds' below the plan's key 'tune'")
    known = dict.fromkeys(trial.task for trial in trials)
    if other := [task for task in tasks or () if task not in known]:
        raise UsageError(f"the plan does not tune on the task {other[0]}, only on {', '.join(known)}")
    worker = Worker.join(shard)

    first_runs = [trial.run for trial in pretraining]
    if not dry_run:
        unfinished = carry_out(first_runs, worker, may_diverge=True)
        worker.wait_for_all("the models")
        if n_open := count_open(pretraining):
            if worker.is_first:
                note(
                    f"the models are pre-trained once their {len(pretraining)} tuning runs are finished; {n_open} are "
                    "not: run the command again once the other shards are through"
                )
            raise_if(unfinished)
            return
    is_chosen = not count_open(pretraining)
    models = choose_models(pretraining) if is_chosen else {}
    model_runs, trials = plan.tuning_runs(models)
    runs = [*model_runs, *(trial.run for trial in trials if not tasks or trial.task in tasks)]
    if dry_run:
        print_cost([*share(first_runs, worker), *share(runs, worker)], worker, tokens_per_second)
        return
    unfinished |= carry_out(runs, worker, may_diverge=True)
    worker.wait_for_all()
    if worker.is_first:
        if n_open := count_open(trials):
            note(f"{TUNED} is written once all tuning runs are finished; {n_open} of {len(trials)} are not")
        else:
            write_choice(plan, trials, tune_command(config, output_dir), pretraining, models)
    raise_if(unfinished)


def count_open(trials: Sequence[Trial]) -> int:
    """Number of tuning runs that neither finished nor diverged."""
    return sum(trial.run.state != "finished" and not trial.run.diverged for trial in trials)


def raise_if(unfinished: dict[str, str]):
    """Raise if some runs are not finished."""
    if unfinished:
        raise GPT1Error(f"{len(unfinished)} runs are not finished: {', '.join(unfinished)}")


def choose_models(pretraining: Sequence[Trial]) -> ModelSettings:
    """The settings that each model chooses from finished runs."""
    perplexities: dict[str, list[float | None]] = {}
    for (model, _, _), results in results_of(pretraining).items():
        perplexities.setdefault(model, []).append(results[0].value if results else None)
    chosen = choose_pretraining(perplexities)
    return {trial.arm: trial.values for trial in pretraining if trial.number == chosen[trial.arm]}


def write_choice(
    plan: Plan, trials: Sequence[Trial], command: str, pretraining: Sequence[Trial], models: ModelSettings
):
    """Choose each arm's settings from finished runs; write and print that choice, that of `models`, and all scores."""
    folder = Path(plan.output_dir)
    tuning: Tuning = plan.tune
    found = results_of(trials)
    scores: dict[str, list[dict[str, float | None]]] = {}
    for (arm, number, task), results in found.items():
        combinations = scores.setdefault(arm, [{} for _ in tuning.combinations])
        combinations[number][task] = mean([result.value for result in results]) if results else None
    tuned = Tuned(models)
    for arm, by_task in choose(scores, tuning.per).items():
        numbers = by_task if tuning.per == "task" else {"": next(iter(by_task.values()))}
        tuned[arm] = {task: tuning.combinations[number] for task, number in numbers.items()}
    of_models = {model: {"": settings} for model, settings in models.items()}
    rows = summarized(results_of(pretraining), pretraining, of_models, "model")
    rows += summarized(found, trials, tuned, tuning.per)
    (folder / TUNING_FOLDER).mkdir(parents=True, exist_ok=True)
    write_results(folder / TUNING_FOLDER, rows)
    # Read back as the report does, so that both show the same tables.
    content = section([run for run in collect(folder) if run.name == TUNING_FOLDER])
    write_section(content, folder / TUNING_FOLDER)
    texts = [tabulate(table.rows, headers=table.headers, disable_numparse=True) for table in content.tables]
    warnings = at_the_edge(tuned, tuning.grid)
    if tuning.pretrain is not None:
        warnings = at_the_edge(of_models, tuning.pretrain.grid, "'tune', below 'pretrain'") + warnings
    about, opening = [], f"Written by `{command}`. "
    for table, text in zip(content.tables, texts, strict=True):
        about += [*([""] if about else []), *textwrap.wrap(opening + table.note, 100), "", *text.splitlines()]
        opening = ""
    about += ["", *warnings] if warnings else []
    write_tuned(folder / TUNED, tuned, plan.identity(models), about)
    print("\n\n".join(texts))
    for warning in warnings:
        note(f"warning: {warning}")
    note(f"written to {folder / TUNED}")


def results_of(trials: Sequence[Trial]) -> Found:
    """
    Results of the task's main metric, one for each seed; see `Found`. A task that is only scored in subsets has a
    result for each. A score that is not finite counts as a loss that diverged.
    """
    found: Found = {}
    diverged = set()
    for trial in trials:
        key = (trial.arm, trial.number, trial.task)
        if trial.run.diverged:
            diverged.add(key)
            found[key] = []
        elif key not in diverged:
            results = [as_result(row) for row in read_rows(trial.run.folder / RESULTS)]
            main = [result for result in results if result.metric == results[0].metric]
            main = [result for result in main if result.split == HELD_OUT_SPLIT] or main
            if any(map(is_failed, main)):
                diverged.add(key)
                found[key] = []
            else:
                found.setdefault(key, []).extend(main)
    return found


def summarized(
    found: Found, trials: Sequence[Trial], chosen: dict[str, dict[str, dict[str, Any]]], per: str
) -> list[Result]:
    """
    The results of [`results_of`] as one result for each arm, combination and task.

    Args:
        found (`dict`):
            Output of [`results_of`].
        trials (list of [`Trial`]):
            Their runs.
        chosen (`dict`):
            Arm -> task, or an empty text for all -> the chosen combination.
        per (`str`):
            What has a choice of its own: `arm`, `task` or, in pre-training, `model`.
    """
    combinations = {(trial.arm, trial.number): trial.values for trial in trials}
    diverged: dict[str, list[dict[str, Any]]] = {}
    for (arm, number, task), results in found.items():
        if not results:
            diverged.setdefault(arm, []).append({"task": task, "values": combinations[arm, number]})
    rows = []
    for (arm, number, task), results in found.items():
        if not results:
            continue
        first, values = results[0], [result.value for result in results]
        details = {key: first.details[key] for key in SHARED_DETAILS if key in first.details}
        details["tuning"] = {
            "arm": arm,
            "values": combinations[arm, number],
            "chosen": chosen[arm][task if per == "task" else ""] == combinations[arm, number],
            "per": per,
            "scores": values,
            **({"diverged": diverged[arm]} if arm in diverged else {}),
        }
        value = round(mean(values), 2)
        rows.append(
            Result(task, HELD_OUT_SPLIT, first.metric, value, first.n_examples, None, first.model, None, details)
        )
    return rows
