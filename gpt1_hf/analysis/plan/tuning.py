"""The key `tune` of a plan: settings that each arm of a comparison, and each model before it, chooses for itself.

A comparison is fair if every arm is tuned on the same grid, with the same budget. The runs of the tuning are scored on
training data that they do not train on, never on the validation split, which the comparison itself is scored on. What
they choose is written to `tuned.yaml`, from which the plan takes the settings (see `tuned.py`).
"""

import itertools
import math
from argparse import ArgumentError
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ...errors import GPT1Error, UsageError
from ...evaluation.seeds import mean
from ...settings import NO_LIMIT, check_ranges, nearest
from ...training.arguments import RANGES
from ...training.pretrain import ARCHITECTURE_SETTINGS
from .checks import mapping, whole_number
from .run import KINDS, Run, parser


# Folder of the tuning runs: in the plan's `output_dir`, and in `models_dir` those of the pre-training.
TUNING_FOLDER = "tune"
# Settings that say what is compared, or where a run writes. They cannot be tuned.
NOT_TUNED = {
    "finetune": ("task", "model", "seed", "seeds", "sample", "data_dir", "output_dir", "resume_from_checkpoint"),
    "pretrain": (
        *("model", "tokenizer", "seed", "data_dir", "output_dir", "tokens_dir", "resume_from_checkpoint"),
        *("corpus", "corpus_split", "corpus_config", "corpus_revision", "corpus_rows", "corpus_column"),
        *("validation_corpus", "held_out_share", "max_validation_tokens", "max_steps", "num_train_epochs"),
        *(name for name in ARCHITECTURE_SETTINGS if not name.endswith("initializer_range")),
    ),
}
PER = ("arm", "task")


@dataclass(frozen=True)
class PretrainTuning:
    """
    The content of the key `pretrain` below `tune`: settings that each of the plan's models chooses for itself.

    Args:
        grid (`dict[str, list]`):
            Setting of `gpt1 pretrain` -> its values. Every model tries each combination.
        settings (`dict[str, Any]`, *optional*):
            Settings of the tuning runs alone, such as a smaller `max_steps`. They override all others.
        held_out_share (`float`, *optional*, defaults to 0.02):
            Share of the training tokens to hold out and score.
    """

    grid: dict[str, list[Any]]
    settings: dict[str, Any]
    held_out_share: float = 0.02

    @classmethod
    def read(cls, where: str, content: dict[str, Any]) -> "PretrainTuning":
        """
        Read the key; `where` names its place, for errors.

        Raises:
            UsageError: if a setting is unknown or cannot be tuned, or a value has the wrong form.
        """
        content = dict(content)
        share, settings = content.pop("held_out_share", cls.held_out_share), mapping(where, content, "settings")
        check_share(share)
        content.pop("settings", None)
        if not content:
            raise UsageError(f"{where} needs a setting and its values, such as `learning_rate: [5.0e-4, 1.0e-3]`")
        grid = {setting: _values(where, "pretrain", setting, values) for setting, values in content.items()}
        if same := [key for key in settings if key in (*grid, "held_out_share")]:
            raise UsageError(f"{where}: {same[0]} belongs beside 'settings', not below it")
        return cls(grid, settings, float(share))

    def combinations(self, without_effect: Collection[str] = ()) -> list[dict[str, Any]]:
        """The combinations of a model that differ. Settings without an effect on it are left out."""
        found: list[dict[str, Any]] = []
        for combination in combinations_of(self.grid):
            own = {name: value for name, value in combination.items() if name not in without_effect}
            if own and own not in found:
                found.append(own)
        return found


@dataclass(frozen=True)
class Tuning:
    """
    The content of the key `tune`.

    Args:
        grid (`dict[str, list]`):
            Setting of `gpt1 finetune` -> its values. Every arm tries each combination. Without any, only the
            pre-training is tuned.
        tasks (`dict[str, dict]`):
            Task id or YAML file -> settings of its runs.
        held_out_share (`float`, *optional*, defaults to 0.1):
            Share of the training rows to hold out and score. A task's own settings may have another.
        seeds (`int`, *optional*, defaults to 1):
            Number of runs of each combination, with different seeds.
        per (`str`, *optional*, defaults to `"arm"`):
            `arm`: one combination for each arm, with the best mean over the tasks. `task`: one for each arm and task.
        pretrain ([`PretrainTuning`], *optional*):
            Settings of the pre-training that each model chooses first.
    """

    grid: dict[str, list[Any]]
    tasks: dict[str, dict[str, Any]]
    held_out_share: float = 0.1
    seeds: int = 1
    per: str = "arm"
    pretrain: PretrainTuning | None = None

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
        pretrain = None
        if "pretrain" in content:
            pretrain = PretrainTuning.read(f"{where}: 'pretrain'", mapping(where, content, "pretrain"))
            del content["pretrain"]
        elif not content:
            raise UsageError(f"{where} needs a setting and its values, such as `learning_rate: [1.0e-4, 5.0e-4]`")
        grid = {setting: _values(where, "finetune", setting, values) for setting, values in content.items()}
        for task, settings in own.items():
            if same := [key for key in settings if key in (*grid, "seed", "seeds")]:
                raise UsageError(f"{where}: {same[0]} is the same for all tasks: remove it from the task {task}")
        return cls(grid, tasks, float(share), seeds, per, pretrain)

    @property
    def combinations(self) -> list[dict[str, Any]]:
        """The grid: each combination of the values."""
        return combinations_of(self.grid) if self.grid else []

    @property
    def names(self) -> str:
        """Names of the settings that are tuned, for messages."""
        return ", ".join([*(f"pretrain.{name}" for name in (self.pretrain.grid if self.pretrain else ())), *self.grid])


def combinations_of(grid: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Each combination of the values of a grid."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def check_share(share: Any):
    """Raise unless a share of the training data is held out: a run would be scored on the validation split."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise UsageError(f"the held_out_share of a tuning run must be above 0 and below 1, not {share!r}")


def _values(where: str, kind: str, setting: str, values: Any) -> list[Any]:
    """The values of a setting, with the type that the command `gpt1 <kind>` would read."""
    not_tuned = NOT_TUNED[kind]
    known = [field.name for field in fields(KINDS[kind][0]) if field.init and field.name not in not_tuned]
    if setting not in known:
        reason = "says what is compared" if setting in not_tuned else f"is no setting of `gpt1 {kind}`"
        others = ("settings",) if kind == "pretrain" else ("pretrain", "tasks", "seeds", "per")
        hint = "" if setting in not_tuned else nearest(setting, [*known, "held_out_share", *others])
        raise UsageError(f"{where}: {setting!r} cannot be tuned, because it {reason}{hint}")
    if not isinstance(values, list) or not values or not all(isinstance(one, str | int | float) for one in values):
        raise UsageError(f"{where}: {setting!r} needs a list of values, such as [1.0e-4, 5.0e-4]")
    typed = []
    for value in values:
        word = str(value).lower() if isinstance(value, bool) else str(value)
        try:
            read, _ = parser(kind).parse_known_args([f"--{setting}", word])
        except ArgumentError as error:
            raise UsageError(f"{where}: {error}") from error
        typed.append(getattr(getattr(read, setting), "value", getattr(read, setting)))
        check_ranges({setting: typed[-1]}, RANGES)
    if twice := [value for value in typed if typed.count(value) > 1]:
        raise UsageError(f"{where}: {setting!r} has the value {twice[0]} twice")
    return typed


@dataclass(frozen=True)
class Trial:
    """
    A tuning run: an arm with one combination of the grid, on one task with one seed; or the pre-training of a model
    with one combination.
    """

    run: Run
    arm: str  # variant, and the values of its lists, such as `transfer/transfer_layers-2`; or name of a model
    task: str  # id; `language_modeling` in pre-training
    number: int  # of its combination
    values: dict[str, Any]  # its combination


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


def choose_pretraining(perplexities: Mapping[str, list[float | None]]) -> dict[str, int]:
    """
    Choose the combination with the lowest perplexity for each model. A combination whose run diverged is not eligible.
    Of equal perplexities the first counts.

    Args:
        perplexities (`dict`):
            Model -> for each of its combinations: the perplexity, or `None` if the loss diverged.

    Returns:
        Model -> number of the combination.

    Raises:
        GPT1Error: if a model has no combination with a perplexity.
    """
    chosen = {}
    for model, values in perplexities.items():
        known = {number: value for number, value in enumerate(values) if value is not None and math.isfinite(value)}
        if not known:
            raise GPT1Error(
                f"no combination of the grid has a perplexity for the model {model}, because its loss diverged with "
                "each: add smaller learning rates to the plan's key 'tune', below 'pretrain'"
            )
        chosen[model] = min(known, key=lambda number: known[number])
    return chosen


def at_the_edge(
    choice: Mapping[str, Mapping[str, dict[str, Any]]], grid: Mapping[str, list[Any]], key: str = "'tune'"
) -> list[str]:
    """
    Warnings about chosen numbers that are the smallest or largest of their grid: a better one may lie outside.

    Args:
        choice (`dict`):
            Arm or model -> task, or an empty text for all tasks -> the chosen combination.
        grid (`dict[str, list]`):
            Setting -> its values.
        key (`str`, *optional*):
            The plan's key that has the grid.
    """
    warnings = []
    for setting, values in grid.items():
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        if len(numbers) < len(values) or len(values) == 1:
            continue
        for edge, word in ((min(numbers), "smallest"), (max(numbers), "largest")):
            places = []
            for arm, by_task in choice.items():
                tasks = [task for task, combination in by_task.items() if combination.get(setting) == edge]
                if tasks:
                    places.append(f"{arm} on {', '.join(tasks)}" if all(tasks) else arm)
            if places:
                side = "smaller" if word == "smallest" else "larger"
                warnings.append(
                    f"{'; '.join(places)}: the best {setting}, {edge}, is the {word} of the grid; add {side} values "
                    f"to the plan's key {key}"
                )
    return warnings
