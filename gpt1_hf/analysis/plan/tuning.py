"""The key `tune` of a plan: settings that each arm of a comparison chooses for itself.

A comparison is fair if every arm is tuned on the same grid, with the same budget. The runs of the tuning are scored on
training rows that they do not train on, never on the validation split, which the comparison itself is scored on. What
they choose is written to `tuned.yaml`, from which the plan takes the settings.
"""

import itertools
from argparse import ArgumentError
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from ...errors import GPT1Error, UsageError
from ...evaluation.seeds import mean
from ...files import write_text
from ...resources import read_yaml
from ...settings import NO_LIMIT, check_ranges, nearest
from ...training.arguments import RANGES
from .checks import mapping, whole_number
from .run import KINDS, Run, parser


# The file with the chosen settings, and the folder of the tuning runs, in the plan's `output_dir`.
TUNED, TUNING_FOLDER = "tuned.yaml", "tune"
# Settings that say what is compared, or where a run writes. They cannot be tuned.
NOT_TUNED = ("task", "model", "seed", "seeds", "sample", "data_dir", "output_dir", "resume_from_checkpoint")
PER = ("arm", "task")


@dataclass(frozen=True)
class Tuning:
    """
    The content of the key `tune`.

    Args:
        grid (`dict[str, list]`):
            Setting of `gpt1 finetune` -> its values. Every arm tries each combination.
        tasks (`dict[str, dict]`):
            Task id or YAML file -> settings of its runs.
        held_out_share (`float`, *optional*, defaults to 0.1):
            Share of the training rows to hold out and score. A task's own settings may have another.
        seeds (`int`, *optional*, defaults to 1):
            Number of runs of each combination, with different seeds.
        per (`str`, *optional*, defaults to `"arm"`):
            `arm`: one combination for each arm, with the best mean over the tasks. `task`: one for each arm and task.
    """

    grid: dict[str, list[Any]]
    tasks: dict[str, dict[str, Any]]
    held_out_share: float = 0.1
    seeds: int = 1
    per: str = "arm"

    @classmethod
    def read(cls, file: str | Path, content: dict[str, Any], plan_tasks: dict[str, dict[str, Any]]) -> "Tuning":
        """
        Read the key.

        Args:
            file (`str` or `Path`):
                The plan's file, for errors.
            content (`dict`):
                What is below `tune`.
            plan_tasks (`dict[str, dict]`):
                The plan's tasks and their settings.

        Raises:
            UsageError: if a setting is unknown or cannot be tuned, or a value has the wrong form.
        """
        where = f"{file}: 'tune'"
        content = dict(content)
        per = content.pop("per", cls.per)
        if per not in PER:
            raise UsageError(f"{where}: 'per' must be arm or task, not {per!r}")
        share, seeds = content.pop("held_out_share", cls.held_out_share), content.pop("seeds", cls.seeds)
        check_share(share)
        seeds = whole_number("seeds", seeds)
        check_ranges({"seeds": seeds}, {"seeds": (1, NO_LIMIT)})
        listed = content.pop("tasks", None) or list(plan_tasks)
        if not isinstance(listed, dict | list) or not all(isinstance(task, str) for task in listed):
            raise UsageError(f"{where}: 'tasks' must be a list of task ids, or a mapping of them to settings")
        own = {task: mapping(where, listed, task) if isinstance(listed, dict) else {} for task in listed}
        tasks = {task: {**(plan_tasks.get(task) or {}), "held_out_share": share, **own[task]} for task in listed}
        if not content:
            raise UsageError(f"{where} needs a setting and its values, such as `learning_rate: [1.0e-4, 5.0e-4]`")
        grid = {setting: _values(where, setting, values) for setting, values in content.items()}
        for task, settings in own.items():
            if same := [key for key in settings if key in (*grid, "seed", "seeds")]:
                raise UsageError(f"{where}: {same[0]} is the same for all tasks: remove it from the task {task}")
        return cls(grid, tasks, float(share), seeds, per)

    @property
    def combinations(self) -> list[dict[str, Any]]:
        """The grid: each combination of the values."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]


def check_share(share: Any):
    """Raise unless a share of the training rows is held out: a run would be scored on the validation split."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise UsageError(f"the held_out_share of a tuning run must be above 0 and below 1, not {share!r}")


def _values(where: str, setting: str, values: Any) -> list[Any]:
    """The values of a setting, with the type that `gpt1 finetune` would read."""
    known = [field.name for field in fields(KINDS["finetune"][0]) if field.init and field.name not in NOT_TUNED]
    if setting not in known:
        reason = "says what is compared" if setting in NOT_TUNED else "is no setting of `gpt1 finetune`"
        hint = "" if setting in NOT_TUNED else nearest(setting, [*known, "tasks", "held_out_share", "seeds", "per"])
        raise UsageError(f"{where}: {setting!r} cannot be tuned, because it {reason}{hint}")
    if not isinstance(values, list) or not values or not all(isinstance(one, str | int | float) for one in values):
        raise UsageError(f"{where}: {setting!r} needs a list of values, such as [1.0e-4, 5.0e-4]")
    typed = []
    for value in values:
        word = str(value).lower() if isinstance(value, bool) else str(value)
        try:
            read, _ = parser("finetune").parse_known_args([f"--{setting}", word])
        except ArgumentError as error:
            raise UsageError(f"{where}: {error}") from error
        typed.append(getattr(getattr(read, setting), "value", getattr(read, setting)))
        check_ranges({setting: typed[-1]}, RANGES)
    if twice := [value for value in typed if typed.count(value) > 1]:
        raise UsageError(f"{where}: {setting!r} has the value {twice[0]} twice")
    return typed


@dataclass(frozen=True)
class Trial:
    """A tuning run: an arm with one combination of the grid, on one task with one seed."""

    run: Run
    arm: str  # variant, and the values of its lists, such as `transfer/transfer_layers-2`
    task: str  # id
    number: int  # of its combination in the grid


# Arm -> for each combination of the grid: task -> mean score over the seeds, or `None` if the loss of a run diverged.
Scores = Mapping[str, list[dict[str, float | None]]]


def choose(scores: Scores, per: str) -> dict[str, dict[str, int]]:
    """
    Choose the best combination for each arm. A combination with a run that diverged is not eligible. Of equal scores
    the first counts.

    Args:
        scores (`dict`):
            See `Scores`.
        per (`str`):
            `arm` or `task`, see [`Tuning`].

    Returns:
        Arm -> task -> number of the combination.

    Raises:
        GPT1Error: if an arm has no combination whose runs all have a score.
    """
    chosen: dict[str, dict[str, int]] = {}
    for arm, combinations in scores.items():
        tasks = list(combinations[0])
        for group in [tasks] if per == "arm" else [[task] for task in tasks]:
            means = {}
            for number, by_task in enumerate(combinations):
                values = [value for task in group if (value := by_task[task]) is not None]
                if len(values) == len(group):
                    means[number] = mean(values)
            if not means:
                raise GPT1Error(
                    f"no combination of the grid has a score for the arm {arm} on {', '.join(group)}, because a loss "
                    "diverged with each: add smaller learning rates to the plan's key 'tune'"
                )
            best = max(means, key=lambda number: means[number])
            chosen.setdefault(arm, {}).update(dict.fromkeys(group, best))
    return chosen


def at_the_edge(chosen: dict[str, dict[str, int]], tuning: Tuning) -> list[str]:
    """Warnings about chosen numbers that are the smallest or largest of their grid: a better one may lie outside."""
    warnings = []
    for setting, values in tuning.grid.items():
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        if len(numbers) < len(values) or len(values) == 1:
            continue
        for edge, word in ((min(numbers), "smallest"), (max(numbers), "largest")):
            places = []
            for arm, by_task in chosen.items():
                tasks = [task for task, number in by_task.items() if tuning.combinations[number][setting] == edge]
                if tasks:
                    places.append(arm if tuning.per == "arm" else f"{arm} on {', '.join(tasks)}")
            if places:
                side = "smaller" if word == "smallest" else "larger"
                warnings.append(
                    f"{'; '.join(places)}: the best {setting}, {edge}, is the {word} of the grid; add {side} values "
                    "to the plan's key 'tune'"
                )
    return warnings


class Tuned(dict[str, dict[str, dict[str, Any]]]):
    """The chosen settings: arm -> task id -> settings. With `per: arm`, the task id is an empty text."""

    def settings(self, arm: str, task: str) -> dict[str, Any]:
        """The chosen settings of an arm on a task."""
        by_task = self[arm]
        if "" not in by_task and task not in by_task:
            raise GPT1Error(
                f"{TUNED} has no settings for the task {task}: add it to the tasks of the plan's key 'tune' and run "
                "`gpt1 analyze tune` again, or give --untuned"
            )
        return by_task[task if task in by_task else ""]


def identify(tuning: Tuning, arms: Iterable[str], digest: str) -> dict[str, Any]:
    """
    What a choice holds for: the key `tune`, the names of the arms, and a digest of the settings of all tuning runs.
    """
    return {
        "grid": tuning.grid,
        "tasks": sorted(tuning.tasks),
        "held_out_share": tuning.held_out_share,
        "seeds": tuning.seeds,
        "per": tuning.per,
        "arms": sorted({*arms}),
        "settings_of_the_runs": digest,
    }


def write_tuned(
    path: Path, chosen: dict[str, dict[str, int]], tuning: Tuning, identity: dict[str, Any], about: list[str]
):
    """
    Write `tuned.yaml`.

    Args:
        path (`Path`):
            The file.
        chosen (`dict`):
            Arm -> task -> number of its combination in the grid.
        tuning ([`Tuning`]):
            The plan's key `tune`.
        identity (`dict`):
            Output of [`identify`].
        about (`list[str]`):
            Lines of the comment at the top, such as the table of scores.
    """
    settings = {
        arm: {task: tuning.combinations[number] for task, number in by_task.items()}
        if tuning.per == "task"
        else tuning.combinations[next(iter(by_task.values()))]
        for arm, by_task in chosen.items()
    }
    comment = "\n".join(f"# {line}".rstrip() for line in about)
    content = yaml.safe_dump({"chosen": settings, "holds_for": identity}, sort_keys=False, default_flow_style=None)
    write_text(path, f"{comment}\n\n{content}")


def read_tuned(path: Path, tuning: Tuning, identity: dict[str, Any], command: str) -> Tuned:
    """
    Read `tuned.yaml`, and check that it was chosen for a plan.

    Args:
        path (`Path`):
            The file.
        tuning ([`Tuning`]):
            The plan's key `tune`.
        identity (`dict`):
            What the choice must hold for: output of [`identify`].
        command (`str`):
            The command that writes the file, for errors.

    Raises:
        GPT1Error: if the file does not exist, or was chosen for another plan.
        UsageError: if it has another form.
    """
    if not path.is_file():
        raise GPT1Error(
            f"the plan tunes {', '.join(tuning.grid)}, and {path} does not exist: run `{command}` first, or give "
            "--untuned to use the settings in the plan"
        )
    file, content = read_yaml(str(path))
    found, chosen = mapping(file, content, "holds_for"), mapping(file, content, "chosen")
    if other := [key for key in identity if found.get(key) != identity[key]]:
        raise GPT1Error(
            f"{path} was chosen for another plan (different: {other[0].replace('_', ' ')}): run `{command}` again, "
            "with the same --finetune and --pretrain settings, or give --untuned to use the settings in the plan"
        )
    tuned = Tuned()
    for arm in identity["arms"]:
        own = mapping(file, chosen, arm)
        by_task = {task: mapping(file, own, task) for task in own} if tuning.per == "task" else {"": own}
        if not by_task or any(settings not in tuning.combinations for settings in by_task.values()):
            raise UsageError(f"{file}: the settings of the arm {arm} are not in the grid: run `{command}` again")
        tuned[arm] = by_task
    return tuned
