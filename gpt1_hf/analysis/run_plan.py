"""Run a plan, and write the tables and figures of its analysis."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasets import disable_progress_bars

from ..console import note
from ..errors import GPT1Error
from .plan.cost import estimate, format_plan, format_runs
from .plan.plan import Plan, carry_out, share
from .plan.run import Run
from .plan.tuned import TUNED
from .plan.workers import Worker
from .report.runs import CollectedRun, collect
from .report.sections import Section, write_section


def run_plan(
    section: Callable[[Sequence[CollectedRun]], Section],
    config: str,
    tasks: Sequence[str] | None = None,
    output_dir: str | None = None,
    models_dir: str | None = None,
    overrides: dict[str, dict[str, Any]] | None = None,
    dry_run: bool = False,
    tokens_per_second: float | None = None,
    shard: str | None = None,
    untuned: bool = False,
):
    """
    Run the unfinished runs of a plan, and write its `analysis.md` and `figures/`.

    Args:
        section (`Callable`):
            Makes the analysis's tables and figures from its runs.
        config (`str`):
            The plan's YAML: a file, or the name of a shipped recipe.
        tasks, output_dir, models_dir, overrides (*optional*):
            See [`Plan.read`].
        dry_run (`bool`, *optional*, defaults to `False`):
            Whether to print the plan and its cost instead.
        tokens_per_second (`float`, *optional*):
            Training rate for the cost. Default: measured.
        shard (`str`, *optional*):
            `i/n`, to do one of n parts.
        untuned (`bool`, *optional*, defaults to `False`):
            Whether to use the plan's own settings, instead of those that its key `tune` chose.

    Raises:
        GPT1Error: if the plan is wrong, its settings are not tuned yet, or some of its runs are not finished.
    """
    plan = Plan.read(config, tasks, output_dir, models_dir, overrides)
    worker = Worker.join(shard)
    tuned = None
    if not untuned and plan.is_tuned:
        file, names = Path(plan.output_dir) / TUNED, plan.tune.names
        if dry_run and not file.exists():
            note(f"{names}: not tuned yet ({tune_command(config, output_dir)}); the plan's own settings are shown")
        else:
            tuned = plan.tuned(tune_command(config, output_dir))
            if worker.is_first:
                note(f"{names} of each arm: from {file}")
    runs = plan.runs(tuned)
    if dry_run:
        print_cost(share(runs, worker), worker, tokens_per_second)
        return
    unfinished = carry_out(runs, worker)
    worker.wait_for_all()
    if worker.is_first:
        note(f"written to {write_section(section(collect(plan.output_dir)), plan.output_dir)}")
    if unfinished:
        raise GPT1Error(f"{len(unfinished)} runs are not finished: {', '.join(unfinished)}")


def print_cost(runs: Sequence[Run], worker: Worker, tokens_per_second: float | None):
    """Print the runs of a process and their estimated cost, in its shard's first process."""
    if worker.is_first:
        disable_progress_bars()  # reading the data would print them between the lines
        print(format_runs(runs), flush=True)  # at once: the estimate takes its time
        print(format_plan(runs, [estimate(run, tokens_per_second) for run in runs]))
    worker.wait_for_all()


def tune_command(config: str, output_dir: str | None = None) -> str:
    """The command that tunes a plan."""
    return shlex.join(
        ["gpt1", "analyze", "tune", "--config", config, *(("--output_dir", output_dir) if output_dir else ())]
    )
