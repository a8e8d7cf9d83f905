"""`results.json`: what every command that measures leaves behind, a list of one object per number."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ..files import write_json


RESULTS = "results.json"


@dataclass
class Result:
    """
    One measured number.

    Args:
        task (`str`):
            Task id, or `language_modeling`.
        split (`str`):
            Split it was measured on.
        metric (`str`):
            Name of the metric.
        value (`float`):
            Its value; accuracies, F1 and correlations in percent as in the paper, perplexity and bits as they are.
        n_examples (`int`):
            Number of rows, or of documents.
        paper (`float`, *optional*):
            The paper's number, where it has one.
        model (`str`):
            Model that was measured.
        seed (`int`, *optional*):
            Seed of the run that made it.
        details (`dict`):
            What else is worth knowing of the run; `not_run` lists the splits that the data lacked, `rows_of_split` is
            the number of rows that the split has, where others were measured.
        prior (`float`, *optional*):
            Best number before the paper, where there is one.
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
        """The number of rows for people, who should see where it is not the whole split."""
        n = f"{self.n_examples:,}" if isinstance(self.n_examples, int) else str(self.n_examples)
        if self.details.get("sample"):
            return f"{n} (sample)"
        whole = self.details.get("rows_of_split")
        return n if whole is None else f"{n} of {whole:,}" if isinstance(whole, int) else f"{n} of {whole}"


def write_results(output_dir: str | Path, results: Sequence[Result]) -> Path:
    """Write `results.json` into a folder, and return its path."""
    path = Path(output_dir) / RESULTS
    write_json(path, [asdict(result) for result in results])
    return path


def format_results(results: Sequence[Result]) -> str:
    """A table of results for people, and what was not run."""
    rows = [
        (r.task, r.split, r.metric, r.prior, r.paper, r.value, r.rows, "" if r.seed is None else r.seed)
        for r in results
    ]
    headers = ("task", "split", "metric", "before", "paper", "value", "examples", "seed")
    lines = [tabulate(rows, headers=headers, floatfmt=".2f", missingval="–")]
    not_run = dict.fromkeys((r.task, split) for r in results for split in r.details.get("not_run", ()))
    lines += [f"not run: {task} {split}, which the data lacks" for task, split in not_run]
    return "\n".join(lines)
