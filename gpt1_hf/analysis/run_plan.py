"""One analysis from its plan to its tables and plots."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasets import disable_progress_bars

from ...console import note
from ...errors import GPT1Error
from ..report.runs import Record, collect
from ..report.sections import Section, write_section
from .cost import estimate, format_plan, format_runs
from .plan import Plan, carry_out, share
from .workers import Processes


def analyze(
    section: Callable[[Sequence[Record]], Section],
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
    Carry out a plan, and write what the analysis makes of its runs.

    Args:
        section (`Callable`):
            Makes tables and figures of runs.
        config (`str`):
            The plan's YAML.
        tasks, output_dir, models_dir, overrides (*optional*):
            See [`Plan.read`].
        dry_run (`bool`, *optional*, defaults to `False`):
            Whether only to print the plan and its cost.
        tokens_per_second (`float`, *optional*):
            Rate to reckon the cost with.
        shard (`str`, *optional*):
            `i/n`, to do a part of it.

    Raises:
        GPT1Error: if the plan is wrong, or some of its runs are not finished.
    """
    plan = Plan.read(config, tasks, output_dir, models_dir, overrides)
    runs = plan.runs()
    processes = Processes.join(shard)
    if dry_run:
        if processes.is_first:
            disable_progress_bars()  # of reading the data, between the lines
            mine = share(runs, processes)
            print(format_runs(mine), flush=True)  # at once; what it costs takes its time
            print(format_plan(mine, [estimate(run, tokens_per_second) for run in mine]))
        processes.wait_for_all()
        return
    missing = carry_out(runs, processes)
    processes.wait_for_all()
    if processes.is_first:
        note(f"written to {write_section(section(collect(plan.output_dir)), Path(plan.output_dir))}")
    if missing:
        raise GPT1Error(f"{len(missing)} runs are not finished: {', '.join(missing)}")
