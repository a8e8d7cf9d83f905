"""`tuned.yaml`: the settings that the tuning of a plan chose, and what the choice holds for."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ...errors import GPT1Error, UsageError
from ...files import write_text
from ...resources import read_yaml
from .checks import mapping
from .fingerprints import changed
from .tuning import Trial, Tuning


# The file's name, in the plan's `output_dir`.
TUNED = "tuned.yaml"
# Model -> its chosen settings of the pre-training.
ModelSettings = Mapping[str, dict[str, Any]]
ADVICE = "or give --untuned to use the settings in the plan"


class Tuned(dict[str, dict[str, dict[str, Any]]]):
    """
    The chosen settings: arm -> task id -> settings. With `per: arm`, the task id is an empty text. `models` has those
    of each model's pre-training.
    """

    def __init__(self, models: ModelSettings | None = None):
        super().__init__()
        self.models = models or {}

    def settings(self, arm: str, task: str) -> dict[str, Any]:
        """The chosen settings of an arm on a task; none if the plan tunes the pre-training only."""
        if not self:
            return {}
        by_task = self[arm]
        if "" not in by_task and task not in by_task:
            raise GPT1Error(
                f"{TUNED} has no settings for the task {task}: add it to the tasks of the plan's key 'tune' and run "
                "`gpt1 analyze tune` again, or give --untuned"
            )
        return by_task[task if task in by_task else ""]


def identify(tuning: Tuning, trials: Sequence[Trial], pretraining: Sequence[Trial] = ()) -> dict[str, Any]:
    """
    What a choice holds for: the key `tune`, the names of the arms and models, a digest of the settings of all tuning
    runs, and the models that they start from.

    Args:
        tuning ([`Tuning`]):
            The plan's key `tune`.
        trials, pretraining (list of [`Trial`]):
            The tuning runs of the fine-tuning, with the chosen models, and of the pre-training.
    """
    identity: dict[str, Any] = {}
    if tuning.pretrain is not None:
        identity |= {
            "pretraining_grid": tuning.pretrain.grid,
            "pretraining_settings": tuning.pretrain.settings,
            "pretraining_held_out_share": tuning.pretrain.held_out_share,
            "models": sorted({trial.arm for trial in pretraining}),
            "settings_of_the_pretraining_runs": settings_digest(pretraining),
        }
    starts: dict[str, dict[str, str]] = {}
    for trial in pretraining:
        starts.setdefault(f"pretrain/{trial.arm}", {}).update(trial.run.starts_from)
    for trial in trials:
        starts.setdefault(trial.run.model, {}).update(trial.run.starts_from)
    return identity | {
        "grid": tuning.grid,
        "tasks": sorted(tuning.tasks),
        "held_out_share": tuning.held_out_share,
        "seeds": tuning.seeds,
        "per": tuning.per,
        "arms": sorted({trial.arm for trial in trials}),
        "settings_of_the_runs": settings_digest(trials),
        "starts_from": {model: starts[model] for model in sorted(starts)},
    }


def settings_digest(trials: Sequence[Trial]) -> str:
    """Digest of the names and settings of tuning runs."""
    hashes = sorted(f"{trial.run.name} {trial.run.hash}" for trial in trials)
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:16]


def differing(found: dict[str, Any], identity: dict[str, Any]) -> list[str]:
    """How a plan differs from what a choice holds for, in words. Earlier versions did not record `starts_from`."""
    names = [key.replace("_", " ") for key in identity if key != "starts_from" and found.get(key) != identity[key]]
    earlier = found.get("starts_from")
    for model, now in identity["starts_from"].items() if isinstance(earlier, dict) else ():
        own = earlier.get(model)
        names += [f"the {name} of {model}" for name in changed(own if isinstance(own, dict) else {}, now)]
    return names


def write_tuned(path: Path, tuned: Tuned, identity: dict[str, Any], about: Sequence[str]):
    """
    Write `tuned.yaml`. It has the key `models` only if the plan tunes the pre-training.

    Args:
        path (`Path`):
            The file.
        tuned ([`Tuned`]):
            The chosen settings.
        identity (`dict`):
            Output of [`identify`].
        about (`list[str]`):
            Lines of the comment at the top, such as the table of scores.
    """
    content: dict[str, Any] = {}
    if tuned.models:
        content["models"] = {model: dict(settings) for model, settings in tuned.models.items()}
    content["chosen"] = {
        arm: {task: dict(settings) for task, settings in by_task.items()} if "" not in by_task else dict(by_task[""])
        for arm, by_task in tuned.items()
    }
    comment = "\n".join(f"# {line}".rstrip() for line in about)
    text = yaml.safe_dump({**content, "holds_for": identity}, sort_keys=False, default_flow_style=None)
    write_text(path, f"{comment}\n\n{text}")


def read_tuned(
    path: Path,
    tuning: Tuning,
    pretraining: Sequence[Trial],
    identity_of: Callable[[ModelSettings], dict[str, Any]],
    command: str,
) -> Tuned:
    """
    Read `tuned.yaml`, and check that it was chosen for a plan.

    Args:
        path (`Path`):
            The file.
        tuning ([`Tuning`]):
            The plan's key `tune`.
        pretraining (list of [`Trial`]):
            The tuning runs of the pre-training.
        identity_of (`Callable`):
            Gives what the choice must hold for, the output of [`identify`], with the models' chosen settings.
        command (`str`):
            The command that writes the file, for errors.

    Raises:
        GPT1Error: if the file does not exist, or was chosen for another plan.
        UsageError: if it has another form.
    """
    if not path.is_file():
        raise GPT1Error(f"the plan tunes {tuning.names}, and {path} does not exist: run `{command}` first, {ADVICE}")
    file, content = read_yaml(str(path))
    found, chosen = mapping(file, content, "holds_for"), mapping(file, content, "chosen")
    of_models = mapping(file, content, "models") if tuning.pretrain is not None else {}
    models = {name: mapping(file, of_models, name) for name in of_models}
    identity = identity_of(models)
    if other := differing(found, identity):
        raise GPT1Error(
            f"{path} was chosen for another plan (different: {other[0]}): run `{command}` again, with the same "
            f"--finetune and --pretrain settings, {ADVICE}"
        )
    for name in {trial.arm for trial in pretraining}:
        if models.get(name) not in [trial.values for trial in pretraining if trial.arm == name]:
            raise UsageError(f"{file}: the settings of the model {name} are not in the grid: run `{command}` again")
    tuned = Tuned(models)
    for arm in identity["arms"]:
        own = mapping(file, chosen, arm)
        by_task = {task: mapping(file, own, task) for task in own} if tuning.per == "task" else {"": own}
        if not by_task or any(settings not in tuning.combinations for settings in by_task.values()):
            raise UsageError(f"{file}: the settings of the arm {arm} are not in the grid: run `{command}` again")
        tuned[arm] = by_task
    return tuned
