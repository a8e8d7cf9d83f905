"""What runs have left behind: their results, their settings and the log of their losses."""

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ...evaluation.results import RESULTS, Result
from ...training.exact_resume import checkpoints
from ...training.run_folder import PLAN_RECORD, read_plan_record


logger = logging.getLogger(__name__)

STATE = "trainer_state.json"  # transformers' own name


@dataclass
class Record:
    """
    A run's folder.

    Args:
        name (`str`):
            Its path below the folder that was searched.
        results (list of [`Result`]):
            Its numbers; none, if it failed.
        run (`dict`):
            What a plan has noted on it: `variant`, `settings`, `command`, `state`, ...; empty, if it is of none.
        log (list of `dict`):
            Its Trainer's log.
    """

    name: str
    results: list[Result]
    run: dict[str, Any]
    log: list[dict[str, Any]]

    @property
    def variant(self) -> str:
        """What of the compared ones it is, by its plan or by its settings."""
        if self.run:
            return self.run["variant"]
        details = self.results[0].details if self.results else {}
        if details.get("from_scratch"):
            return "no_pretraining"
        return "no_auxiliary" if details.get("lm_coef") == 0 else "full"


def collect(folder: str | Path) -> list[Record]:
    """
    Read all runs below a folder, in the order of their names. A result that a run of several seeds or parts repeats in
    its own list is read once.
    """
    folder = Path(folder)
    places = {path.parent for name in (RESULTS, PLAN_RECORD) for path in folder.rglob(name)}
    records, seen = [], set()
    for place in sorted(places, key=lambda place: (-len(place.parts), place)):
        results = []
        for row in read_rows(place / RESULTS):
            details = {name: value for name, value in (row.get("details") or {}).items() if name != "over_seeds"}
            key = json.dumps({**row, "details": details}, sort_keys=True)
            if key not in seen:
                results.append(as_result(row))
            seen.add(key)
        run = read_plan_record(place)
        if results or run:
            records.append(Record(place.relative_to(folder).as_posix(), results, run, read_log(place)))
    return sorted(records, key=lambda record: record.name)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a `results.json`; none, with a warning, if it is not one."""
    if not path.is_file():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        logger.warning(f"{path} is left out: it is not valid JSON ({error})")
        return []
    if not isinstance(rows, list) or not all(map(is_row, rows)):
        logger.warning(f"{path} is left out: it is not a list of results")
        return []
    return rows


def is_row(row: Any) -> bool:
    """Whether something has what a report needs; `results_schema.json` says all that our commands write."""
    return (
        isinstance(row, dict)
        and all(isinstance(row.get(name), str) for name in ("task", "metric"))
        and all(isinstance(row.get(name), str | None) for name in ("split", "model"))
        and isinstance(row.get("value"), int | float)
        and all(isinstance(row.get(name), int | float | None) for name in ("n_examples", "paper", "seed", "prior"))
        and isinstance(row.get("details"), dict | None)
    )


def as_result(row: dict[str, Any]) -> Result:
    """A result from its JSON object; what it lacks is `None`, what it has too much is left out."""
    known = {field.name: row.get(field.name) for field in fields(Result)}
    return Result(**{**known, "details": row.get("details") or {}})


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The Trainer's log of a run, from its folder or from its last checkpoint."""
    for place in (folder, *checkpoints(folder)):
        if (place / STATE).is_file():
            try:
                return json.loads((place / STATE).read_text(encoding="utf-8"))["log_history"]
            except (ValueError, LookupError, TypeError):  # of a run that was killed while it wrote it
                logger.warning(f"{place / STATE} is left out: it is not a Trainer's state")
    return []


def scores(records: Iterable[Record]) -> Iterator[tuple[Record, Result]]:
    """The fine-tuned models' results on their evaluation splits."""
    for record in records:
        for result in record.results:
            if "from_scratch" in result.details and str(result.split).startswith(("validation", "test")):
                yield record, result


def labels(models: Iterable[str]) -> dict[str, str]:
    """Short names of models for tables and figures: the last part of a path that is no Hub id, if it tells apart."""
    models = sorted(set(models))
    short = {model: model.rstrip("/").rpartition("/")[2] if model.count("/") > 1 else model for model in models}
    names = list(short.values())
    return {model: name if names.count(name) == 1 else model for model, name in short.items()}
