"""Read back what runs have written: their results, their settings and the log of their losses."""

import json
import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ...evaluation.results import RESULTS, Result
from ...evaluation.task_scores import HELD_OUT_SPLIT
from ...tasks import all_tasks
from ...training.manifest import checkpoints
from ...training.run_folder import PLAN_RECORD, read_plan_record


logger = logging.getLogger(__name__)

STATE = "trainer_state.json"  # transformers' own name


@dataclass
class CollectedRun:
    """A run, read from its folder."""

    name: str  # path below the folder that was searched
    results: list[Result]  # empty if the run failed
    plan: dict[str, Any] = field(default_factory=dict)  # its `plan_run.json`; empty if it belongs to no plan
    log: list[dict[str, Any]] = field(default_factory=list)
    tuned: tuple[str, ...] = ()  # settings that `gpt1 analyze tune` chose for each arm of its plan

    @property
    def own_settings(self) -> tuple[str, ...]:
        """
        Settings that the arms of its plan may have for themselves, so that they do not tell comparisons apart: those
        that were tuned, and the learning rate, for which earlier versions kept no record. A setting whose values the
        plan compares is none of them. Empty without a plan.
        """
        labels = self.plan.get("name", "").split("/")
        names = dict.fromkeys((*self.tuned, "learning_rate")) if self.plan else ()
        return tuple(name for name in names if not any(label.startswith(f"{name}-") for label in labels))

    @property
    def variant(self) -> str:
        """The ablation's variant, from the plan or else from the settings."""
        if self.plan:
            return self.plan["variant"]
        details = self.results[0].details if self.results else {}
        if details.get("from_scratch"):
            return "no_pretraining"
        return "no_auxiliary" if details.get("lm_coef") == 0 else "full"

    @property
    def folder(self) -> str:
        """Folder of the run and of the same run with other seeds, below the folder that was searched."""
        return re.sub(r"(^|/)seed-\d+$", "", self.name)

    @property
    def plan_folder(self) -> str:
        """Folder of the run's plan, below the folder that was searched; empty if that is it or there is no plan."""
        return plan_folder(self.name, self.plan)

    @property
    def losses(self) -> list[tuple[float, float]]:
        """Update and training loss, of each update that was logged."""
        return [(entry["step"], entry["loss"]) for entry in self.log if "loss" in entry and "step" in entry]


def plan_folder(place: str, plan: dict[str, Any]) -> str:
    """Folder of the plan of a run at a place below the folder that was searched, see [`CollectedRun.plan_folder`]."""
    name = str(plan.get("name", ""))
    return place.removesuffix(name).rstrip("/") if name and f"/{place}".endswith(f"/{name}") else ""


def collect(folder: str | Path) -> list[CollectedRun]:
    """
    Read all runs below a folder, sorted by name. Results that are found again are read once: the `results.json` of a
    run over several seeds or parts repeats those of the folders below it, and a run may have been copied.
    """
    folder = Path(folder)
    places = {path.parent for name in (RESULTS, PLAN_RECORD) for path in folder.rglob(name)}
    plans = {place: read_plan_record(place) for place in places}
    names = {place: place.relative_to(folder).as_posix() for place in places}
    sizes = Counter(plan_folder(names[place], plan) for place, plan in plans.items() if plan)

    def order(place: Path) -> tuple:
        """The lowest folders first; of copies, the one among the most runs of its plan."""
        depth = -len(place.parts) if any(place in other.parents for other in places) else -math.inf
        return depth, -sizes[plan_folder(names[place], plans[place])], place

    runs, seen = [], {}
    for place in sorted(places, key=order):
        rows, results = read_rows(place / RESULTS), []
        for row in rows:
            details = row.get("details") or {}
            own = {name: value for name, value in details.items() if name != "over_seeds"}
            key = json.dumps({**row, "details": own}, sort_keys=True)
            if key not in seen:
                seen[key] = as_result(row)
                results.append(seen[key])
            if failed := (details.get("over_seeds") or {}).get("failed_seeds"):
                seen[key].details["failed_seeds"] = failed
        if results or (plans[place] and not rows):
            runs.append(CollectedRun(names[place], results, plans[place], read_log(place)))
    tuned = tuned_settings(runs)
    for run in runs:
        if run.plan:
            run.tuned = tuned.get(run.plan_folder, ())
    return sorted(runs, key=lambda run: run.name)


def tuned_settings(runs: Iterable[CollectedRun]) -> dict[str, tuple[str, ...]]:
    """
    Folder of each tuned plan -> the fine-tuning settings of its grid, from the results of `gpt1 analyze tune`.
    Those of pre-training (`per: model`) belong to a model, not to an arm.
    """
    return {
        run.name.rpartition("/")[0]: tuple(result.details["tuning"]["values"])
        for run in runs
        for result in run.results
        if result.details.get("tuning", {}).get("per", "model") != "model"
    }


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a `results.json`. An invalid file gives no rows and a warning."""
    if not path.is_file():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        logger.warning(f"{path} is skipped: it is not valid JSON ({error})")
        return []
    if not isinstance(rows, list) or not all(map(is_row, rows)):
        logger.warning(f"{path} is skipped: it is not a list of results")
        return []
    return rows


def is_row(row: Any) -> bool:
    """
    Whether an object has the fields that a report needs. `results_schema.json` describes all fields that our commands
    write.
    """
    return (
        isinstance(row, dict)
        and all(isinstance(row.get(name), str) for name in ("task", "metric"))
        and all(isinstance(row.get(name), str | None) for name in ("split", "model"))
        and isinstance(row.get("value"), int | float)
        and all(isinstance(row.get(name), int | float | None) for name in ("n_examples", "paper", "seed", "prior"))
        and isinstance(row.get("details"), dict | None)
    )


def as_result(row: dict[str, Any]) -> Result:
    """A result from its JSON object. Missing keys become `None`; unknown keys are dropped."""
    known = {field.name: row.get(field.name) for field in fields(Result)}
    return Result(**{**known, "details": row.get("details") or {}})


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The Trainer's log, from a run's folder or else from its last checkpoint."""
    for place in (folder, *checkpoints(folder)):
        if (place / STATE).is_file():
            try:
                return json.loads((place / STATE).read_text(encoding="utf-8"))["log_history"]
            except (ValueError, LookupError, TypeError):  # the run was killed while it wrote the file
                logger.warning(f"{place / STATE} is skipped: it is not a Trainer's state")
    return []


def scores(runs: Iterable[CollectedRun]) -> Iterator[tuple[CollectedRun, Result]]:
    """Results of fine-tuned models on their evaluation splits, each with its run."""
    for run in runs:
        for result in run.results:
            if "from_scratch" in result.details and str(result.split).startswith(("validation", "test")):
                yield run, result


def has_main_metric(run: CollectedRun, result: Result) -> bool:
    """Whether a result of a run has its task's main metric. A user's own task lists it first."""
    task = all_tasks().get(result.task)
    first = next(other.metric for other in run.results if other.task == result.task)
    return result.metric == (task.metric if task else first)


def is_held_out(result: Result) -> bool:
    """Whether a result is on training rows that were held out to choose settings, as in `gpt1 analyze tune`."""
    return str(result.split).startswith(HELD_OUT_SPLIT)


def short_names(models: Iterable[str]) -> dict[str, str]:
    """
    Model -> its name in tables and figures. A path is shortened to its last part if no other model has the same one.
    """
    models = sorted(set(models))
    short = {model: model.rstrip("/").rpartition("/")[2] if model.count("/") > 1 else model for model in models}
    names = list(short.values())
    return {model: name if names.count(name) == 1 else model for model, name in short.items()}
