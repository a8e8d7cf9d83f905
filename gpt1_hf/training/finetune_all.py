"""Fine-tuning on every task, one after the other, and a table of the results."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from tabulate import tabulate

from ..checkpoints.loading import open_config
from ..console import interruptible, note
from ..errors import GPT1Error, UsageError
from ..evaluation.glue_average import glue_averages
from ..evaluation.results import BEST_BEFORE, Result, write_results
from ..evaluation.seeds import is_failed
from ..files import write_text
from .arguments import FinetuneArguments
from .finetune import finetune
from .run_folder import lock


TABLE_FILE = "results.md"


def finetune_all(runs: Sequence[FinetuneArguments], output_dir: str) -> list[Result]:
    """
    Fine-tune on several tasks. Tasks that have finished with the same settings are skipped. A task that cannot be run,
    because its data is missing or its training fails, does not stop the others.

    Args:
        runs (sequence of [`FinetuneArguments`]):
            Settings, one for each task.
        output_dir (`str`):
            Where `results.json` and the table `results.md` are written after every task.

    Returns:
        list of [`Result`] of all tasks.

    Raises:
        GPT1Error: if a model is missing, no task could be run, or `push_to_hub` is set.
    """
    if runs[0].push_to_hub:
        raise UsageError("push_to_hub works with one task only: leave it out, and push models with `gpt1 push`")
    for model in {run.model for run in runs}:
        open_config(model)
    is_main = runs[0].process_index == 0
    with lock(output_dir) if is_main else nullcontext():
        return each_task(runs, output_dir, is_main)


def each_task(runs: Sequence[FinetuneArguments], output_dir: str, is_main: bool) -> list[Result]:
    """See [`finetune_all`]."""
    results, not_run = [], {}
    for run in runs:
        if is_main:
            note(f"== {run.task} ==")
        try:
            with interruptible(run.task, "the same command resumes it"):
                results += finetune(run, resume=True)
        except (GPT1Error, FloatingPointError) as error:
            if run.world_size > 1 and isinstance(error, FloatingPointError):
                raise  # other processes may not have seen it, and wait
            not_run[run.task] = " ".join(str(error).split())
            if is_main:
                note(f"{run.task}: not run: {not_run[run.task]}")
        if is_main and results:
            write_text(Path(output_dir) / TABLE_FILE, comparison(results, not_run, "github") + "\n")
            write_results(output_dir, results)
    if not results:
        raise GPT1Error(f"no task could be run; the error of the first, {runs[0].task}: {not_run.get(runs[0].task)}")
    if len({result.model for result in results}) == 1:
        results += glue_averages(results)
    if is_main:
        write_text(Path(output_dir) / TABLE_FILE, comparison(results, not_run, "github") + "\n")
        write_results(output_dir, results)
        print(f"\n{comparison(results, not_run)}")
        note(f"written to {Path(output_dir) / TABLE_FILE}")
    return results


def comparison(results: Sequence[Result], not_run: dict[str, str], style: str = "simple") -> str:
    """
    Table of the best number before the paper, the paper's and ours: one line for each task, split and metric.

    Args:
        results (sequence of [`Result`]):
            Results. For several seeds, the table has their median, lowest and highest.
        not_run (`dict[str, str]`):
            Task id -> why it was not run.
        style (`str`, *optional*, defaults to `"simple"`):
            Format of `tabulate`; `"github"` for Markdown.

    Returns:
        `str`.
    """
    lines = {}
    has_constants = any("constant_answer" in result.details for result in results)
    for result in results:
        found = result.details.get("over_seeds")
        ours = found["median"] if found else result.value
        spread = f"{found['min']:.1f} to {found['max']:.1f}" if found else ""
        n_seeds = len(found["seeds"]) if found else 1
        lines[result.task, result.split, result.metric] = (
            *(result.task, result.split, result.metric, result.prior, result.paper),
            *([result.details.get("constant_answer")] if has_constants else []),
            *(ours, spread, n_seeds),
            result.rows,
        )
    constant = ["constant"] if has_constants else []
    headers = ("task", "split", "metric", BEST_BEFORE, "paper", *constant, "ours", "range", "seeds", "examples")
    table = tabulate(list(lines.values()), headers=headers, floatfmt=".1f", missingval="–", tablefmt=style)
    absent = {
        **{f"{r.task} ({split})": "the data lacks it" for r in results for split in r.details.get("not_run", ())},
        **not_run,
    }
    notes = ["The paper's numbers, and the best before it, are on hidden test sets; ours are on the split shown."]
    if has_constants:
        notes.append("Constant: the score of one answer for every row; for multiple choice, of a random guess.")
    if any("over_seeds" in result.details for result in results):
        notes.append("For several seeds: the median, and the lowest to the highest.")
    notes += [
        f"failed: {task}, seed {seed}: its predictions are NaN or infinite"
        for task, seed in dict.fromkeys((result.task, result.seed) for result in results if is_failed(result))
    ]
    notes += [f"not run: {name}: {reason}" for name, reason in absent.items()]
    return table + "\n\n" + "\n".join(f"- {note}" for note in notes)


__all__ = ["comparison", "finetune_all"]
