"""A plan: one YAML that expands into pre-training and fine-tuning runs.

Each run is done once. A plan can be interrupted, and shared among processes and machines.
"""

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
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
from ...training.pretrain import has_positions
from .checks import check_text, mapping, whole_number
from .run import KINDS, RUN_ERRORS, Run, parser
from .tuned import TUNED, ModelSettings, Tuned, identify, read_tuned
from .tuning import TUNING_FOLDER, Trial, Tuning, check_share
from .workers import Worker


logger = logging.getLogger(__name__)

FIRST_SEED = 42


@dataclass
class Plan:
    """
    The content of a plan's YAML.

    The keys below `pretrain`, `models`, `finetune`, `tasks` and `variants` are settings of `gpt1 pretrain` and
    `gpt1 finetune`. A later source overrides an earlier one. For a model: its recipe, `pretrain`, its own keys, its
    tuned settings. For a fine-tuning run: `finetune`, its task's keys, its variant's keys, its arm's tuned settings.

    Args:
        output_dir (`str`):
            Where the fine-tuning runs, tables and plots go.
        models_dir (`str`):
            Where the pre-training runs go; plans with the same models share them.
        tasks (`dict[str, dict]`):
            Task id or YAML file -> settings of its runs. `seeds` is the number of runs, with seeds `seed`, `seed` + 1,
            ...
        variants (`dict[str, dict]`):
            What is compared: name -> settings. A list of values makes one variant of each; `transfer_layers: all`
            means 0, 1, ... to the model's number of blocks.
        finetune (`dict`):
            Settings of all fine-tuning runs. `model`, here and below a task or a variant, may name one of `models`.
        pretrain (`dict`):
            Settings of all pre-training runs.
        models (`dict[str, dict]`):
            Pre-training runs: name -> `config` (a recipe) and other settings.
        tune ([`Tuning`], *optional*):
            Settings that each arm and, before it, each model chooses for itself. An arm is a variant with one value of
            each of its lists.
        overrides (`dict[str, dict]`):
            `pretrain` and `finetune` -> settings from the command line, which override all others.
        other_tasks (`list[dict]`):
            Settings of the plan's tasks that are not to be run now. Their models belong to the plan all the same.
    """

    output_dir: str
    tasks: dict[str, dict[str, Any]]
    variants: dict[str, dict[str, Any]]
    models_dir: str = "runs/models"
    finetune: dict[str, Any] | None = None
    pretrain: dict[str, Any] | None = None
    models: dict[str, dict[str, Any]] | None = None
    tune: Tuning | None = None
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)
    other_tasks: Sequence[dict[str, Any]] = ()

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
                Task ids or YAML files, instead of the recipe's.
            output_dir, models_dir (`str`, *optional*):
                Folders, instead of the recipe's.
            overrides (`dict[str, dict]`, *optional*):
                Settings from the command line, see above.

        Raises:
            UsageError: if there is no such file, a key is unknown or missing, or a value has the wrong form.
        """
        file, content = read_yaml(recipe)
        known = [field.name for field in fields(cls) if field.name not in ("overrides", "other_tasks")]
        for key in content:
            if key not in known:
                raise UsageError(f"{file}: unknown key {key!r}{nearest(key, known)}")
        content["output_dir"] = output_dir or content.get("output_dir")
        content["models_dir"] = models_dir or content.get("models_dir", cls.models_dir)
        own_tasks = mapping(file, content, "tasks")
        if "tune" in content:
            content["tune"] = Tuning.read(file, mapping(file, content, "tune"), own_tasks)
        if tasks:
            content["tasks"] = {task: own_tasks.get(task) for task in tasks}
        other_tasks = [mapping(file, own_tasks, task) for task in own_tasks if tasks and task not in tasks]
        for key in ("output_dir", "tasks", "variants"):
            if not content.get(key):
                raise UsageError(f"{file}: the key {key!r} is missing, which a plan needs")
        for key in ("tasks", "variants", "models"):
            content[key] = {name: settings or {} for name, settings in mapping(file, content, key).items()}
            for name in content[key]:
                mapping(file, content[key], name)
        for key in ("finetune", "pretrain"):
            content[key] = mapping(file, content, key)
        for key in ("output_dir", "models_dir"):
            check_text(file, key, content[key])
        for settings in content["models"].values():
            if "config" in settings:
                check_text(file, "config", settings["config"])
        return cls(**content, overrides=overrides or {}, other_tasks=other_tasks)

    def runs(self, tuned: Tuned | None = None) -> list[Run]:
        """
        All runs, in the order in which they are done: models first, then task by task, seed by seed, variant by
        variant.

        Args:
            tuned ([`Tuned`], *optional*):
                Settings of each arm and model. Default: those of the plan.

        Raises:
            UsageError: if a task, a recipe or a setting is unknown.
            GPT1Error: if `tuned` has no settings for a task.
        """
        overrides = self.overrides.get("finetune", {})
        models = self._models(overrides, tuned.models if tuned is not None else {})
        runs = list(models.values())
        for task, seed, variant, labels, settings, model in self._expand(self.tasks, models, overrides):
            if tuned is not None:
                settings |= tuned.settings("/".join([variant, *labels]), task)
            name = "/".join(["finetune", task, variant, *labels, f"seed-{seed}"])
            runs.append(Run("finetune", name, settings, Path(self.output_dir) / name, variant, model))
        for run in runs:
            run.check()
        return runs

    def pretraining_trials(self) -> list[Trial]:
        """
        The runs that choose the settings of each model's pre-training, in `<models_dir>/tune`: a [`Trial`] for each
        model and combination of the grid. Plans with the same models and the same grid share them. None if the plan
        does not tune the pre-training, or no variant uses its models.

        Raises:
            UsageError: if the plan has no models, a setting is unknown, or a tuned setting has another value on the
                command line.
        """
        tuning = self.tune.pretrain if self.tune is not None else None
        if tuning is None:
            return []
        if given := [key for key in tuning.grid if key in self.overrides.get("pretrain", {})]:
            raise UsageError(
                f"--pretrain.{given[0]} is a setting that the plan tunes: leave it out, or run the plan with --untuned"
            )
        if not self.models:
            raise UsageError(
                "the plan tunes the pre-training, and has no key 'models': name the models that it pre-trains, or "
                "remove 'pretrain' below 'tune'"
            )
        trials = []
        for name, model in self._models(self.overrides.get("finetune", {})).items():
            model.check()
            own, _ = parser("pretrain").parse_known_args(model.flags)
            # A model that is trained further has its positions already.
            without_effect = () if has_positions(own) and not own.model else ("position_initializer_range",)
            settings = {key: value for key, value in model.settings.items() if key != "validation_corpus"}
            settings |= {"checkpoints_per_decade": 0, **tuning.settings, "held_out_share": tuning.held_out_share}
            for number, combination in enumerate(tuning.combinations(without_effect)):
                values = [f"{key}-{value}" for key, value in combination.items()]
                folder = Path(self.models_dir, TUNING_FOLDER, name, *values)
                run_name = "/".join([TUNING_FOLDER, "pretrain", name, *values])
                run = Run("pretrain", run_name, settings | combination, folder, variant=name)
                run.check()
                trials.append(Trial(run, name, "language_modeling", number, combination))
        return trials

    def tuning_runs(self, chosen: ModelSettings | None = None) -> tuple[list[Run], list[Trial]]:
        """
        The runs that choose the settings of the fine-tuning: those of the models, and then a [`Trial`] for each task,
        seed, arm and combination of the grid, in `<output_dir>/tune`.

        Args:
            chosen (`dict`, *optional*):
                Model -> chosen settings of its pre-training. Default: those of the plan.

        Raises:
            UsageError: if the plan has no key `tune`, a task, a recipe or a setting is unknown, or a tuned setting has
                another value on the command line or in a variant's list.
        """
        if self.tune is None:
            raise UsageError(
                "the plan has no key 'tune': add one, such as `tune: {learning_rate: [1.0e-4, 5.0e-4], tasks: [sst2]}`"
            )
        # The tuning has its own number of seeds.
        overrides = {
            key: own for key, own in self.overrides.get("finetune", {}).items() if key not in ("seed", "seeds")
        }
        if given := [key for key in self.tune.grid if key in overrides]:
            raise UsageError(
                f"--finetune.{given[0]} is a setting that the plan tunes: leave it out, or run the plan with --untuned"
            )
        for variant, own in self.variants.items():
            if given := [key for key in self.tune.grid if isinstance(own.get(key), list)]:
                raise UsageError(f"the variant {variant} compares values of {given[0]}: it cannot be tuned as well")
        models = self._models(overrides, chosen or {})
        trials = []
        tasks = {task: {**settings, "seeds": self.tune.seeds} for task, settings in self.tune.tasks.items()}
        for task, seed, variant, labels, settings, model in self._expand(tasks, models, overrides):
            settings.pop("score_train", None)
            for number, combination in enumerate(self.tune.combinations):
                values = [f"{key}-{value}" for key, value in combination.items()]
                name = "/".join([TUNING_FOLDER, task, variant, *labels, *values, f"seed-{seed}"])
                own_settings, folder = settings | combination, Path(self.output_dir) / name
                check_share(own_settings["held_out_share"])
                run = Run("finetune", name, own_settings, folder, variant, model)
                trials.append(Trial(run, "/".join([variant, *labels]), task, number, combination))
        for run in (*models.values(), *(trial.run for trial in trials)):
            run.check()
        return list(models.values()), trials

    @property
    def is_tuned(self) -> bool:
        """Whether it has settings to tune."""
        return self.tune is not None and bool(self.tune.grid or self.pretraining_trials())

    def identity(self, chosen: ModelSettings | None = None) -> dict[str, Any]:
        """What its `tuned.yaml` holds for, see [`identify`]; `chosen` as in [`Plan.tuning_runs`]."""
        _, trials = self.tuning_runs(chosen)
        return identify(self.tune, trials, self.pretraining_trials())

    def tuned(self, command: str) -> Tuned:
        """
        Read its `tuned.yaml`.

        Args:
            command (`str`):
                The command that writes the file, for errors.

        Raises:
            GPT1Error: if the file does not exist, or was chosen for another plan.
            UsageError: see [`Plan.tuning_runs`].
        """
        path, pretraining = Path(self.output_dir) / TUNED, self.pretraining_trials()
        return read_tuned(path, self.tune, pretraining, self.identity, command)

    def _expand(
        self, tasks: dict[str, dict[str, Any]], models: dict[str, Run], overrides: dict[str, Any]
    ) -> Iterator[tuple[str, int, str, list[str], dict[str, Any], Run | None]]:
        """Of each fine-tuning run: task id, seed, variant, labels of its lists, settings, and the run of its model."""
        names = {task: load_task(task).id for task in tasks}
        for task, task_settings in tasks.items():
            if same := [other for other in names if other != task and names[other] == names[task]]:
                raise UsageError(f"the tasks {task} and {same[0]} have the same id: give one file another name")
            common = {"task": task, **self.finetune, **task_settings, **overrides}
            n_seeds = whole_number("seeds", common.pop("seeds", 1))
            first = whole_number("seed", common.pop("seed", FIRST_SEED))
            for seed in range(first, first + n_seeds):
                for variant, variant_settings in self.variants.items():
                    settings = {**common, **variant_settings, **overrides, "seed": seed}
                    settings.pop("seeds", None)
                    model = models.get(settings.get("model"))
                    if model is not None:
                        settings["model"] = str(model.folder)
                    for labels, chosen in expand_lists(settings, variant_settings, model):
                        yield names[task], seed, variant, labels, chosen, model

    def _models(self, finetune_overrides: dict[str, Any], chosen: ModelSettings | None = None) -> dict[str, Run]:
        """The pre-training runs of the models that fine-tuning runs use, with the chosen settings of each model."""
        tasks = [*self.tasks.values(), *self.other_tasks, *(self.tune.tasks.values() if self.tune else ())]
        used = [
            {**self.finetune, **task, **variant, **finetune_overrides}.get("model")
            for task, variant in itertools.product(tasks, self.variants.values())
        ]
        if wrong := [model for model in used if not isinstance(model, str | None)]:
            raise UsageError(f"'model' is one name, not a {type(wrong[0]).__name__}")
        models = {}
        for name, own in self.models.items():
            if name in used:
                recipe = read_yaml(own["config"])[1] if "config" in own else {}
                # A run that was stopped resumes from its last checkpoint.
                settings = {"resume_from_checkpoint": True, **recipe, **self.pretrain, **own}
                settings |= self.overrides.get("pretrain", {}) | (chosen or {}).get(name, {})
                settings = {key: settings[key] for key in settings if key not in ("config", "output_dir")}
                folder = Path(self.models_dir) / name
                models[name] = Run("pretrain", f"pretrain/{name}", settings, folder, variant=name)
        return models


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
            n_layers = whole_number(
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


def carry_out(runs: Sequence[Run], worker: Worker | None = None, may_diverge: bool = False) -> dict[str, str]:
    """
    Do the runs of a plan that are not finished yet. A run that fails does not stop the others.

    Args:
        runs (list of [`Run`]):
            All runs of the plan.
        worker ([`Worker`], *optional*):
            This process among those that share the plan; by default it does all.
        may_diverge (`bool`, *optional*, defaults to `False`):
            Whether a run whose loss diverged counts as done.

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
        elif may_diverge and run.diverged:
            note(f"{where}: its loss diverged earlier")
        elif run.needs is not None and run.needs.state != "finished":
            unfinished[run.name] = f"its model, {run.needs.name}, is not finished"
        else:
            note(where)
            try:
                run.do()
            except RUN_ERRORS as error:
                if may_diverge and run.diverged:
                    note(f"{where}: {error}")
                else:
                    logger.error(f"{run.name} failed", exc_info=error)
                    unfinished[run.name] = run.explain(error)
        worker.announce(run.name)
    if unfinished:
        note(f"{len(unfinished)} of {len(mine)} runs are not finished; the same command resumes them:")
        for name, reason in unfinished.items():
            note(f"  {name}: {reason}")
    return unfinished
