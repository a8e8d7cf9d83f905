"""`results.json`, written by every command that measures: a list with one object for each number."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ..files import write_json


RESULTS = "results.json"
# Header of the column of `Result.prior`, in every table.
BEST_BEFORE = "best before the paper"


@dataclass
class Result:
    """
    One measured number.

    Args:
        task (`str`):
            Task id, or `language_modeling`.
        split (`str`):
            Split that was scored.
        metric (`str`):
            Name of the metric.
        value (`float`):
            Value of the metric. Accuracy, F1 and correlations are in percent, as in the paper.
        n_examples (`int`):
            Number of rows or documents that were scored.
        paper (`float`, *optional*):
            The paper's number, if it reports one.
        model (`str`):
            Model that was scored.
        seed (`int`, *optional*):
            Seed of the run that produced the model.
        details (`dict`):
            Further facts about the run. `not_run` lists the splits that the data lacked. `rows_of_split` is the size
            of the complete split if only a part of it was scored. `partial` is `True` if only a part of a text was
            scored. `constant_answer` is the score of one answer for every row, such as the most frequent class.
            `rows_not_finite` is the number of rows whose predictions are NaN or infinite; the score then counts for
            nothing, see [`is_failed`].
        prior (`float`, *optional*):
            Best number before the paper, if the paper names one.
    """

    task: str
    split: str
    metric: str
    value: float
    n_examples: int
    paper: float | None
    model: str
    seed: int | None
    details: dict[str, Any]
    prior: float | None = None

    @property
    def rows(self) -> str:
        """The number of rows as text, with a mark if they are a sample, or a part of the split or of the text."""
        n = f"{self.n_examples:,}" if isinstance(self.n_examples, int) else str(self.n_examples)
        if self.details.get("sample"):
            return f"{n} (sample)"
        whole = self.details.get("rows_of_split")
        n = n if whole is None else f"{n} of {whole:,}" if isinstance(whole, int) else f"{n} of {whole}"
        return f"{n} ({part_of_text(self.details)})" if self.details.get("partial") else n


def part_of_text(details: dict[str, Any]) -> str:
    """
    How much of a text was scored, such as `100,000 of 1,234,567 tokens`, or `all 1,234,567 tokens`. Empty if `details`
    do not say it.
    """
    for unit, whole in (("tokens", "validation_tokens"), ("characters", "text_characters")):
        n_scored, n_whole = details.get(f"scored_{unit}"), details.get(whole)
        if isinstance(n_scored, int) and isinstance(n_whole, int):
            return f"{n_scored:,} of {n_whole:,} {unit}" if n_scored < n_whole else f"all {n_whole:,} {unit}"
    n_scored = details.get("scored_characters")
    return f"only {n_scored:,} characters" if details.get("partial") and isinstance(n_scored, int) else ""


def interval_text(result: Result, decimals: int = 2) -> str | None:
    """The interval of a result, such as `48.20 to 53.10`; `None` if it has none."""
    ends = result.details.get("interval")
    return None if ends is None else " to ".join(f"{end:.{decimals}f}" for end in ends)


def write_results(output_dir: str | Path, results: Sequence[Result]) -> Path:
    """Write `results.json` to a folder and return its path."""
    path = Path(output_dir) / RESULTS
    write_json(path, [asdict(result) for result in results])
    return path


def format_results(results: Sequence[Result]) -> str:
    """Results as a table, followed by the splits that were not run."""
    columns = {
        "task": [result.task for result in results],
        "split": [result.split for result in results],
        "metric": [result.metric for result in results],
        BEST_BEFORE: [result.prior for result in results],
        "paper": [result.paper for result in results],
        "constant": [result.details.get("constant_answer") for result in results],
        "value": [result.value for result in results],
        "95 % interval": [interval_text(result) for result in results],
        "examples": [result.rows for result in results],
        "seed": [result.seed for result in results],
    }
    known = {name: values for name, values in columns.items() if any(value is not None for value in values)}
    lines = [tabulate(known, headers="keys", floatfmt=".2f", missingval="–")]
    not_run = dict.fromkeys((r.task, split) for r in results for split in r.details.get("not_run", ()))
    lines += [f"not run: {task} {split}, because the data lacks it" for task, split in not_run]
    bad = dict.fromkeys((r.task, r.split, n) for r in results if (n := r.details.get("rows_not_finite")))
    lines += [f"failed: {n} predictions of {task} {split} are NaN or infinite" for task, split, n in bad]
    return "\n".join(lines)
