"""Groups of runs that differ in nothing but the seed. Only the runs of one group are averaged."""

import json
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import GPT1Error
from ...evaluation.results import Result
from ...evaluation.seeds import is_failed, mean, mean_and_deviation
from ...evaluation.verdicts import Comparison
from .runs import CollectedRun


# Details of a result that are measurements. All others are settings, or identify the data.
MEASURED = (
    "train_loss",
    "train_seconds",
    "device",
    "tokens_per_second",
    "share_of_peak",
    "rows_of_split",
    "overlap",
    "not_run",
    "n_words",
    "n_words_cut",
    "n_trained_parameters",
    "constant_answer",
    "interval",
    "chance",
    "change",
    "over_seeds",
    "failed_seeds",
    "rows_not_finite",
)
# Value of a setting that an earlier version did not record.
UNKNOWN = "unknown"


def settings_of(result: Result) -> dict[str, Any]:
    """The settings of the run that a result belongs to, with a digest of the rows that it was trained on."""
    return {name: value for name, value in result.details.items() if name not in (*MEASURED, "rows_digest")}


def shown(name: str, value: Any) -> str:
    """A setting as text."""
    return f"{name.replace('_', ' ')} {value}"


@dataclass
class Group:
    """
    Results of one task, metric and split, or the mean of a split's parts, over the seeds of equal settings.

    Args:
        settings (`dict`):
            All settings but the seed, with the model, the rows that were scored and, for a plan's runs, the plan's
            folder and the variant.
        values (`dict`):
            Seed -> score. A seed that failed has none, see [`is_failed`]; it has a result and a run.
        results (`dict`):
            Seed -> the result, or the first of several parts.
        runs (`dict`):
            Seed -> the run.
        constant (`float`, *optional*):
            Score of one answer for every row.
    """

    task: str
    split: str
    metric: str
    settings: dict[str, Any]
    values: dict[int | None, float] = field(default_factory=dict)
    results: dict[int | None, Result] = field(default_factory=dict)
    runs: dict[int | None, CollectedRun] = field(default_factory=dict)
    constant: float | None = None

    @property
    def text(self) -> str:
        """Mean and standard deviation over seeds; `failed` if all seeds have failed."""
        return mean_and_deviation(list(self.values.values())) if self.values else "failed"

    @property
    def failed(self) -> list[int | None]:
        """Seeds whose score is not finite, or whose predictions are not."""
        return [seed for seed in self.results if seed not in self.values]

    @property
    def own_settings(self) -> tuple[str, ...]:
        """Settings that the arms of its plan may have for themselves, see [`CollectedRun`]."""
        return self.run.own_settings

    @property
    def mean(self) -> float:
        """Mean over seeds; NaN if all have failed."""
        return mean(list(self.values.values()))

    @property
    def plan(self) -> str:
        """Folder of the plan; empty if there is none."""
        return self.settings["plan"]

    @property
    def result(self) -> Result:
        """Any of the results."""
        return next(iter(self.results.values()))

    @property
    def run(self) -> CollectedRun:
        """Any of the runs."""
        return next(iter(self.runs.values()))

    def key(self, *left_out: str) -> Hashable:
        """What must be equal for runs to belong to the group, without some settings."""
        settings = {name: value for name, value in self.settings.items() if name not in left_out}
        return self.task, self.split, self.metric, json.dumps(settings, sort_keys=True, default=str)

    def add(self, run: CollectedRun, seed: int | None, results: list[Result]):
        """
        Add a run. A run with the same seed and score is the same run.

        Raises:
            GPT1Error: if the group has another run with this seed.
        """
        value = mean([result.value for result in results])
        if seed in self.values and self.values[seed] != value and math.isfinite(value):
            raise GPT1Error(
                f"the runs {self.runs[seed].name} and {run.name} have the same settings and the same seed {seed} on "
                f"{self.task}, but different scores ({self.values[seed]:g} and {value:g}): remove one of them, or "
                "move it out of the folder"
            )
        if seed not in self.values:
            if not any(map(is_failed, results)):
                self.values[seed] = value
            self.results[seed], self.runs[seed] = results[0], run
            self.constant = self.constant if self.constant is not None else constant_of(results)


def constant_of(results: Sequence[Result]) -> float | None:
    """Mean score of a constant answer over a split's parts; `None` if an earlier version did not record it."""
    known = [result.details.get("constant_answer") for result in results]
    if any(value is None for value in known):
        return 0.0 if results[0].metric in ("matthews_correlation", "pearson", "spearman") else None
    return mean(known)


def grouped(found: Iterable[tuple[CollectedRun, Result]], join_parts: bool = False) -> list[Group]:
    """
    Group results by their settings.

    Args:
        found (iterable of ([`CollectedRun`], [`Result`])):
            Results, each with its run.
        join_parts (`bool`, *optional*, defaults to `False`):
            Whether a run has one score for each task: that of the test set if there is one; the mean of the split's
            subsets, such as MultiNLI's two, if the whole split was not scored.

    Returns:
        list of [`Group`].

    Raises:
        GPT1Error: if two runs have the same settings and seed, but different scores.
    """
    units: dict[Hashable, tuple[CollectedRun, dict[str, Any], list[Result]]] = {}
    for run, result in found:
        settings = {"plan": run.plan_folder, "variant": run.plan.get("variant", ""), "model": str(result.model)}
        settings |= settings_of(result)
        place = (run.name, result.task, result.metric, result.seed, "" if join_parts else result.split)
        key = (*place, json.dumps(settings, sort_keys=True, default=str))
        units.setdefault(key, (run, settings, []))[2].append(result)
    groups: dict[Hashable, Group] = {}
    for run, settings, results in units.values():
        chosen = one_split(results) if join_parts else results
        first = chosen[0]
        split = str(first.split).partition("_")[0] if join_parts else str(first.split)
        scored = ", ".join(sorted(map(rows_text, chosen)))
        group = Group(first.task, split, first.metric, {**settings, "scored": scored})
        groups.setdefault(group.key(), group).add(run, first.seed, chosen)
    return list(groups.values())


def rows_text(result: Result) -> str:
    """Names the rows that a result is of: the split, their number and, if known, the digest of their content."""
    digest = result.details.get("rows_digest")
    return f"{result.split}, {result.rows} rows" + (f" ({digest})" if digest else "")


def one_split(results: Sequence[Result]) -> list[Result]:
    """The results of a run that count: those on a test set, if any, and of these the whole split's, if scored."""
    tests = [result for result in results if str(result.split).startswith("test")]
    chosen = tests or list(results)
    return [result for result in chosen if "_" not in str(result.split)][:1] or chosen


def differing(groups: Iterable[Group], left_out: Iterable[str] = ()) -> list[str]:
    """
    Names of the settings that differ among groups. If the model differs, its weights and architecture are not named.
    """
    groups = list(groups)
    names = dict.fromkeys(name for group in groups for name in group.settings)
    values = {name: {str(group.settings.get(name, UNKNOWN)) for group in groups} for name in names}
    found = [name for name in names if len(values[name]) > 1 and name not in left_out]
    if {"model", "from_scratch"} & {name for name in names if len(values[name]) > 1}:
        found = [name for name in found if name not in ("base_weights", "architecture_digest")]
    return found


def differences(groups: Sequence[Group], same: Callable[[Group], Hashable], left_out: Sequence[str] = ()) -> list[str]:
    """For each group, the settings by which it differs from the others that `same` gives the same key, as text."""
    alike: dict[Hashable, list[Group]] = {}
    for group in groups:
        alike.setdefault(same(group), []).append(group)
    names = {key: differing(own, left_out) for key, own in alike.items()}
    return [
        ", ".join(shown(name, group.settings.get(name, UNKNOWN)) for name in names[same(group)]) for group in groups
    ]


def arms_side_by_side(
    groups: Iterable[Group], arm: Callable[[Group], Hashable], left_out: Sequence[str]
) -> list[dict[Hashable, Group]]:
    """
    The rows of a comparison of arms. The groups of a row differ only in what is compared, and in the settings that the
    arms of a plan may have for themselves (see [`CollectedRun`]). If the seeds of an arm differ in such settings,
    those with the most seeds are compared, and the others have a row of their own.

    Args:
        groups (iterable of [`Group`]):
            All groups.
        arm (`Callable`):
            Names the arm of a group.
        left_out (sequence of `str`):
            Settings that tell the arms apart.

    Returns:
        list of `dict`: arm -> group.
    """
    alike: dict[Hashable, dict[Hashable, list[Group]]] = {}
    for group in groups:
        alike.setdefault(group.key(*left_out, *group.own_settings), {}).setdefault(arm(group), []).append(group)
    rows = []
    for arms in alike.values():
        rows.append({name: max(own, key=lambda group: len(group.values)) for name, own in arms.items()})
        others: dict[Hashable, dict[Hashable, Group]] = {}
        for name, own in arms.items():
            for group in own:
                if group is not rows[-1][name]:
                    others.setdefault(group.key(*left_out), {})[name] = group
        rows += others.values()
    return rows


def own_settings_text(arms: Mapping[Hashable, Group]) -> str:
    """
    The settings that the arms of a comparison have for themselves, such as `with: learning rate 0.001; without:
    learning rate 0.0002`; empty if they were not tuned and do not differ.
    """
    tuned = {name for group in arms.values() for name in group.run.tuned}
    different = differing(arms.values()) if len(arms) > 1 else []
    names = dict.fromkeys(name for group in arms.values() for name in group.own_settings)
    names = [name for name in names if name in different or (name in tuned and not missing_everywhere(name, arms))]
    texts = {
        arm: ", ".join(shown(name, group.settings.get(name, UNKNOWN)) for name in names) for arm, group in arms.items()
    }
    return "; ".join(f"{arm}: {text}" for arm, text in texts.items() if text)


def missing_everywhere(name: str, arms: Mapping[Hashable, Group]) -> bool:
    """Whether no arm has recorded a setting."""
    return all(name not in group.settings for group in arms.values())


def left_out_text(comparisons: Mapping[str, Comparison]) -> str:
    """A sentence on the seeds that only one of two arms has, by the name of the comparison; empty without any."""
    parts = [
        f"{name} (seed{'s' if len(found.left_out) > 1 else ''} {', '.join(map(str, found.left_out))})"
        for name, found in comparisons.items()
        if found.left_out
    ]
    return (
        f"Left out of a difference and its verdict, because one of the arms lacks them: {'; '.join(parts)}."
        if parts
        else ""
    )


def missing_seeds(
    groups: Sequence[Group], runs: Sequence[CollectedRun], is_part: Callable[[CollectedRun], bool] = lambda run: True
) -> str:
    """
    A sentence on the seeds without a score: those that failed or stopped, and those that other groups of the same
    plan and task have. Empty if there are none.

    Args:
        groups (list of [`Group`]):
            The groups of a table.
        runs (list of [`CollectedRun`]):
            All runs.
        is_part (`Callable`, *optional*):
            Whether a plan's run that has not finished belongs to the table.
    """
    found: dict[str, dict[int, str]] = {}
    for run in runs:
        seed, state = run.plan.get("settings", {}).get("seed"), run.plan.get("state")
        if state in ("failed", "stopped") and seed is not None and is_part(run):
            found.setdefault(run.folder, {})[seed] = state
    expected: dict[tuple[str, str], set[int]] = {}
    for group in groups:
        expected.setdefault((group.plan, group.task), set()).update(set(group.values) - {None})
        for result in group.results.values():
            for seed in result.details.get("failed_seeds", ()):
                found.setdefault(group.run.folder, {})[seed] = "failed"
        for seed in group.failed:
            found.setdefault(group.runs[seed].folder, {})[seed] = "failed: not finite"
    for group in groups:
        wanted = expected[group.plan, group.task] if group.plan or group.settings["variant"] else ()
        for seed in sorted(set(wanted) - set(group.values)):
            found.setdefault(group.run.folder, {}).setdefault(seed, "missing")
    parts = [
        f"{folder} ({', '.join(f'seed {seed} {state}' for seed, state in sorted(seeds.items()))})"
        for folder, seeds in sorted(found.items())
    ]
    return f"Seeds without a score: {'; '.join(parts)}." if parts else ""


def constant_text(group: Group) -> str:
    """The constant answer's score as a cell."""
    return UNKNOWN if group.constant is None else f"{group.constant:.1f}"


def sentences(*texts: str) -> str:
    """Texts that are not empty, one after the other."""
    return " ".join(text for text in texts if text)
