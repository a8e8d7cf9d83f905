"""A plan: one YAML that expands into pre-training and fine-tuning runs.

Each run is done once. A plan can be interrupted, and shared among processes and machines.
"""

import itertools
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ...checkpoints.loading import open_config
from ...configuration_gpt1 import GPT1Config
from ...configuration_gpt1_lstm import GPT1LSTMConfig
from ...console import note
from ...errors import UsageError
from ...resources import read_yaml
from ...settings import nearest
from ...tasks import load_task
from .run import KINDS, RUN_ERRORS, Run
from .workers import Worker


logger = logging.getLogger(__name__)

FIRST_SEED = 42


@dataclass
class Plan:
    """
    The content of a plan's YAML.

    The keys below `pretrain`, `models`, `finetune`, `tasks` and `variants` are settings of `gpt1 pretrain` and
    `gpt1 finetune`. A later source overrides an earlier one. For a model: its recipe, `pretrain`, its own keys. For a
    fine-tuning run: `finetune`, its task's keys, its variant's keys.

    Args:
        output_dir (`str`):
            Where the fine-tuning runs, tables and plots go.
        models_dir (`str`):
            Where the pre-training runs go; plans with the same models share them.
        tasks (`dict[str, dict]`):
            Task id -> settings of its runs. `seeds` is the number of runs, with seeds `seed`, `seed` + 1, ...
        variants (`dict[str, dict]`):
            What is compared: name -> settings. `model` may name one of `models`. A list of values makes one variant of
            each; `transfer_layers: all` means 0, 1, ... to the model's number of blocks.
        finetune (`dict`):
            Settings of all fine-tuning runs.
        pretrain (`dict`):
            Settings of all pre-training runs.
        models (`dict[str, dict]`):
            Pre-training runs: name -> `config` (a recipe) and other settings.
        overrides (`dict[str, dict]`):
            `pretrain` and `finetune` -> settings from the command line, which override all others.
    """

    output_dir: str
    tasks: dict[str, dict[str, Any]]
    variants: dict[str, dict[str, Any]]
    models_dir: str = "runs/models"
    finetune: dict[str, Any] | None = None
    pretrain: dict[str, Any] | None = None
    models: dict[str, dict[str, Any]] | None = None
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        recipe: str,
        tasks: Sequence[str] | None = None,
        output_dir: str | None = None,
        models_dir: str | None = None,
        overrides: dict[str, dict[str, Any]] | None = None,
    ) -> "Plan":
        """
        Read a plan from a YAML file, or from a shipped recipe by its name.

        Args:
            recipe (`str`):
                File or name, such as `analysis/ablations`.
            tasks (`list[str]`, *optional*):
                Task ids, instead of the recipe's.
            output_dir, models_dir (`str`, *optional*):
                Folders, instead of the recipe's.
            overrides (`dict[str, dict]`, *optional*):
                Settings from the command line, see above.

        Raises:
            UsageError: if there is no such file, a key is unknown or missing, or a value has the wrong form.
        """
        file, content = read_yaml(recipe)
        known = [field.name for field in fields(cls) if field.name != "overrides"]
        for key in content:
            if key not in known:
                raise UsageError(f"{file}: unknown key {key!r}{nearest(key, known)}")
        content["output_dir"] = output_dir or content.get("output_dir")
        content["models_dir"] = models_dir or content.get("models_dir", cls.models_dir)
        if tasks:
            content["tasks"] = {task: _mapping(file, content, "tasks").get(task) for task in tasks}
        for key in ("output_dir", "tasks", "variants"):
            if not content.get(key):
                raise UsageError(f"{file}: the key {key!r} is missing, which a plan needs")
        for key in ("tasks", "variants", "models"):
            content[key] = {name: settings or {} for name, settings in _mapping(file, content, key).items()}
            for name in content[key]:
                _mapping(file, content[key], name)
        for key in ("finetune", "pretrain"):
            content[key] = _mapping(file, content, key)
        for key in ("output_dir", "models_dir"):
            _check_text(file, key, content[key])
        for settings in content["models"].values():
            if "config" in settings:
                _check_text(file, "config", settings["config"])
        return cls(**content, overrides=overrides or {})

    def runs(self) -> list[Run]:
        """
        All runs, in the order in which they are done: models first, then task by task, seed by seed, variant by
        variant.

        Raises:
            UsageError: if a task, a recipe or a setting is unknown.
        """
        finetune_overrides = self.overrides.get("finetune", {})
        models = self._models(finetune_overrides)
        runs = list(models.values())
        for task_id, task_settings in self.tasks.items():
            load_task(task_id)
            common = {"task": task_id, **self.finetune, **task_settings, **finetune_overrides}
            n_seeds = _whole_number("seeds", common.pop("seeds", 1))
            first = _whole_number("seed", common.pop("seed", FIRST_SEED))
            for seed in range(first, first + n_seeds):
                for variant, variant_settings in self.variants.items():
                    settings = {**common, **variant_settings, **finetune_overrides, "seed": seed}
                    settings.pop("seeds", None)
                    model = models.get(settings.get("model"))
                    if model is not None:
                        settings["model"] = str(model.folder)
                    for labels, chosen in expand_lists(settings, variant_settings, model):
                        name = "/".join(["finetune", task_id, variant, *labels, f"seed-{seed}"])
                        runs.append(Run("finetune", name, chosen, Path(self.output_dir) / name, variant, model))
        for run in runs:
            run.check()
        return runs

    def _models(self, finetune_overrides: dict[str, Any]) -> dict[str, Run]:
        """The pre-training runs of the models that a variant uses."""
        used = [{**settings, **finetune_overrides}.get("model") for settings in self.variants.values()]
        if wrong := [model for model in used if not isinstance(model, str | None)]:
            raise UsageError(f"the 'model' of a variant is one name, not a {type(wrong[0]).__name__}")
        models = {}
        for name, own in self.models.items():
            if name in used:
                recipe = read_yaml(own["config"])[1] if "config" in own else {}
                # A run that was stopped resumes from its last checkpoint.
                settings = {"resume_from_checkpoint": True, **recipe, **self.pretrain, **own}
                settings |= self.overrides.get("pretrain", {})
                settings = {key: settings[key] for key in settings if key not in ("config", "output_dir")}
                folder = Path(self.models_dir) / name
                models[name] = Run("pretrain", f"pretrain/{name}", settings, folder, variant=name)
        return models


def _check_text(where: str | Path, key: str, value: Any):
    if not isinstance(value, str):
        raise UsageError(f"{where}: {key!r} must be a name, not a {type(value).__name__}")


def _whole_number(name: str, value: Any) -> int:
    if not str(value).isdecimal():
        raise UsageError(f"{name!r} must be a whole number, not {value!r}")
    return int(value)


def _mapping(where: str | Path, content: dict[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key) or {}
    if not isinstance(value, dict):
        raise UsageError(f"{where}: {key!r} must be a mapping of `key: value` lines, not a {type(value).__name__}")
    for name in value:
        if not isinstance(name, str):
            raise UsageError(f"{where}: {name!r} below {key!r} is not a word: write it in quotes")
    return value


def expand_lists(
    settings: dict[str, Any], variant_settings: dict[str, Any], model: Run | None
) -> Iterable[tuple[list[str], dict[str, Any]]]:
    """
    Expand a variant's lists of values into single settings.

    Args:
        settings (`dict`):
            All settings of the variant's runs.
        variant_settings (`dict`):
            The variant's own settings; some are lists.
        model ([`Run`], *optional*):
            Pre-training run of its model.

    Returns:
        For each combination of values, their labels (such as `max_train_examples-1000`) and the settings.
    """
    settings = dict(settings)
    if settings.get("transfer_layers") == "all":
        if model is None:
            n_layers = open_config(settings.get("model", "gpt1-tiny")).num_hidden_layers
        else:
            config = GPT1LSTMConfig if model.settings.get("architecture") == "lstm" else GPT1Config
            n_layers = _whole_number(
                "num_hidden_layers", model.settings.get("num_hidden_layers", config().num_hidden_layers)
            )
        settings["transfer_layers"] = list(range(n_layers + 1))
    listed = [key for key in variant_settings if isinstance(settings.get(key), list)]
    for values in itertools.product(*(settings[key] for key in listed)):
        chosen = dict(zip(listed, values, strict=True))
        yield [f"{key}-{value}" for key, value in chosen.items()], {**settings, **chosen}


def numbered(runs: Sequence[Run]) -> list[tuple[Run, int]]:
    """
    Number the runs, to divide them among processes. Each kind is numbered separately, so that all get both kinds.
    """
    counts = {kind: itertools.count() for kind in KINDS}
    return [(run, next(counts[run.kind])) for run in runs]


def share(runs: Sequence[Run], worker: Worker) -> list[Run]:
    """The runs of a plan that belong to a process."""
    return [run for run, number in numbered(runs) if worker.owns(number)]


def carry_out(runs: Sequence[Run], worker: Worker | None = None) -> dict[str, str]:
    """
    Do the runs of a plan that are not finished yet. A run that fails does not stop the others.

    Args:
        runs (list of [`Run`]):
            All runs of the plan.
        worker ([`Worker`], *optional*):
            This process among those that share the plan; by default it does all.

    Returns:
        Name of each of this process's runs that is not finished -> the reason.
    """
    worker = worker or Worker()
    numbers = {run.name: number for run, number in numbered(runs)}
    mine = share(runs, worker)
    unfinished = {}
    for position, run in enumerate(mine, start=1):
        where = f"[{position}/{len(mine)}] {run.name}"
        if run.needs is not None:
            worker.wait_for(run.needs.name, numbers[run.needs.name])
        if run.state == "finished":
            note(f"{where}: finished earlier")
        elif run.needs is not None and run.needs.state != "finished":
            unfinished[run.name] = f"its model, {run.needs.name}, is not finished"
        else:
            note(where)
            try:
                run.do()
            except RUN_ERRORS as error:
                logger.error(f"{run.name} failed", exc_info=error)
                unfinished[run.name] = run.explain(error)
        worker.announce(run.name)
    if unfinished:
        note(f"{len(unfinished)} of {len(mine)} runs are not finished; the same command resumes them:")
        for name, reason in unfinished.items():
            note(f"  {name}: {reason}")
    return unfinished
