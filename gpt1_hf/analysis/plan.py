"""A plan: one YAML that expands into pre-training and fine-tuning runs, which are each done once.

A run is the command that it prints: its settings are flags of `gpt1 pretrain` or `gpt1 finetune`. Beside its
`results.json` it leaves `plan_run.json`, with its settings and a hash of them, by which a plan that is started again
knows what is done. Plans can be interrupted, and shared out over processes and machines.
"""

import difflib
import functools
import hashlib
import itertools
import json
import logging
import re
import shlex
import shutil
import time
from argparse import ArgumentError
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser

from ..checkpoints import open_config
from ..configuration_gpt1 import GPT1Config
from ..configuration_gpt1_lstm import GPT1LSTMConfig
from ..errors import GPT1Error
from ..evaluation.results import RESULTS, write_json
from ..resources import read_yaml
from ..tasks import load_task
from ..training.arguments import FinetuneArguments, PretrainArguments
from ..training.finetune import finetune
from ..training.pretrain import pretrain
from .processes import Processes


logger = logging.getLogger(__name__)

# What a run is and how it ended, beside its results.
RECORD = "plan_run.json"
KINDS: dict[str, tuple[type, Callable]] = {
    "pretrain": (PretrainArguments, pretrain),
    "finetune": (FinetuneArguments, finetune),
}
# Settings that say where things lie or what is shown, and leave the numbers as they are.
PLACES = ("output_dir", "data_dir", "tokens_dir", "disable_tqdm", "logging_steps", "resume_from_checkpoint")
FIRST_SEED = 42
# What a part of a run's name may be: its folder stays below the plan's.
NAME = re.compile(r"\w[\w.,+=%-]*")
# What ends one run and leaves the others to go on: bad input, full disks, losses that are not finite, and (as
# RuntimeError) a device's memory. Anything else is a bug.
RUN_ERRORS = (ValueError, OSError, FloatingPointError, RuntimeError)


@dataclass(frozen=True)
class Run:
    """
    One run of a plan.

    Args:
        kind (`str`):
            `pretrain` or `finetune`: the command.
        name (`str`):
            Its name in the plan, such as `finetune/cola/full/seed-42`.
        settings (`dict`):
            Flags of the command, but for `output_dir`.
        folder (`Path`):
            Its `output_dir`.
        variant (`str`):
            What of the compared ones it is.
        needs ([`Run`], *optional*):
            Run that makes its model.
    """

    kind: str
    name: str
    settings: dict[str, Any]
    folder: Path
    variant: str
    needs: "Run | None" = None

    @property
    def flags(self) -> list[str]:
        """Its command line, behind the command."""
        flags = []
        for key, value in {**self.settings, "output_dir": str(self.folder)}.items():
            if value is not None:
                values = value if isinstance(value, list) else [value]
                flags += [f"--{key}", *(str(one).lower() if isinstance(one, bool) else str(one) for one in values)]
        return flags

    @property
    def command(self) -> str:
        """Its command, to be copied."""
        return shlex.join(["gpt1", self.kind, *self.flags])

    @property
    def hash(self) -> str:
        """What tells whether a run that was done is this one: its settings, and those of the run it needs."""
        content = {key: str(value) for key, value in self.settings.items() if key not in PLACES}
        if self.kind == "finetune":
            content["task_version"] = str(load_task(self.settings["task"]).version)
        if self.needs is not None:
            content["model"] = self.needs.hash
        return hashlib.sha256(json.dumps([self.kind, content], sort_keys=True).encode()).hexdigest()[:16]

    @property
    def state(self) -> str:
        """`finished`, `failed`, `stopped` (begun, and not ended), or `to do`."""
        record = read_record(self.folder)
        if record.get("hash") != self.hash:
            return "to do"
        if record["state"] == "finished" and not (self.folder / RESULTS).is_file():
            return "to do"
        return record["state"]

    def check(self):
        """
        Parse the flags as the command line would.

        Raises:
            GPT1Error: if a flag is unknown, or its value of another type.
        """
        for part in self.name.split("/"):
            if not NAME.fullmatch(part):
                raise GPT1Error(
                    f"{self.name!r} cannot be the name of a run, which is a folder's: {part!r} may have letters, "
                    "digits and any of `_.,+=%-`, and begin with none of them but `_`"
                )
        if secrets := [key for key in self.settings if key.endswith("_token")]:
            raise GPT1Error(f"{self.name}: {secrets[0]} is not for plans, which note their settings: set HF_TOKEN")
        try:
            _, rest = parser(self.kind).parse_known_args(self.flags)
        except ArgumentError as error:
            raise GPT1Error(f"{self.name}: {error}") from error
        if rest:
            names = [field.name for field in fields(KINDS[self.kind][0])]
            near = difflib.get_close_matches(rest[0].lstrip("-"), names, n=1)
            raise GPT1Error(
                f"{self.name}: `gpt1 {self.kind}` has no setting {rest[0].lstrip('-')!r}"
                f"{f'; did you mean {near[0]}?' if near else ''}"
            )

    def arguments(self) -> PretrainArguments | FinetuneArguments:
        """Its settings, as the command line would read them."""
        (arguments,) = parser(self.kind).parse_args_into_dataclasses(self.flags, look_for_args_file=False)
        return arguments

    def do(self):
        """
        Do it, and keep a record of it. What an earlier run with other settings left in the folder is not gone on with.

        Raises:
            any of `RUN_ERRORS`: if it fails.
        """
        record = {
            "name": self.name,
            "variant": self.variant,
            "command": self.command,
            "settings": self.settings,
            "hash": self.hash,
            "versions": {name: version(name) for name in ("gpt1_hf", "torch", "transformers")},
        }
        if read_record(self.folder).get("hash") != self.hash:
            for checkpoint in self.folder.glob("checkpoint-*"):
                shutil.rmtree(checkpoint)
        (self.folder / RESULTS).unlink(missing_ok=True)
        write_json(self.folder / RECORD, {**record, "state": "stopped"})
        _, function = KINDS[self.kind]
        begin = time.perf_counter()
        try:
            function(self.arguments())
        except RUN_ERRORS as error:
            write_json(self.folder / RECORD, {**record, "state": "failed", "error": " ".join(str(error).split())})
            raise
        seconds = round(time.perf_counter() - begin, 1)
        write_json(self.folder / RECORD, {**record, "state": "finished", "seconds": seconds})


def read_record(folder: Path) -> dict[str, Any]:
    """What a run has left on itself in a folder; empty, if there was none."""
    path = folder / RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


@functools.cache
def parser(kind: str) -> HfArgumentParser:
    """Parser of a kind of run's flags."""
    return HfArgumentParser(KINDS[kind][0], exit_on_error=False, allow_abbrev=False, add_help=False)


@dataclass
class Plan:
    """
    An analysis, as its YAML says it.

    The keys below `pretrain`, `models`, `finetune`, `tasks` and `variants` are those of `gpt1 pretrain` and
    `gpt1 finetune`. A model is its recipe, changed by `pretrain`, changed by its own keys; a fine-tuning run is
    `finetune`, changed by its task's keys, changed by its variant's.

    Args:
        output_dir (`str`):
            Where the fine-tuning runs, tables and plots go.
        models_dir (`str`):
            Where the pre-training runs go; plans with the same models share them.
        tasks (`dict[str, dict]`):
            Task id -> settings of its runs; `seeds` is the number of runs, with seeds `seed`, `seed` + 1, ...
        variants (`dict[str, dict]`):
            What is compared: name -> settings. `model` may name one of `models`. A list of values makes a variant of
            each; `transfer_layers: all` means 0, 1, ... to the model's number of blocks.
        finetune (`dict`):
            Settings of all fine-tuning runs.
        pretrain (`dict`):
            Settings of all pre-training runs.
        models (`dict[str, dict]`):
            Pre-training runs: name -> `config` (a recipe) and other settings.
        overrides (`dict[str, dict]`):
            `pretrain` and `finetune` -> settings that go before everything else: the command line's.
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
                Ids of the tasks to run in place of the recipe's.
            output_dir, models_dir (`str`, *optional*):
                In place of the recipe's.
            overrides (`dict[str, dict]`, *optional*):
                See above.

        Raises:
            GPT1Error: if there is no such file, a key is unknown or missing, or a value has another form.
        """
        file, content = read_yaml(recipe)
        known = [field.name for field in fields(cls) if field.name != "overrides"]
        for key in content:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                raise GPT1Error(f"{file}: unknown key {key!r}{f'; did you mean {near[0]}?' if near else ''}")
        content["output_dir"] = output_dir or content.get("output_dir")
        content["models_dir"] = models_dir or content.get("models_dir", cls.models_dir)
        if tasks:
            content["tasks"] = {task: _mapping(file, content, "tasks").get(task) for task in tasks}
        for key in ("output_dir", "tasks", "variants"):
            if not content.get(key):
                raise GPT1Error(f"{file}: the key {key!r} is missing, which a plan needs")
        for key in ("tasks", "variants", "models"):
            content[key] = {name: settings or {} for name, settings in _mapping(file, content, key).items()}
            for name in content[key]:
                _mapping(file, content[key], name)
        for key in ("finetune", "pretrain"):
            content[key] = _mapping(file, content, key)
        return cls(**content, overrides=overrides or {})

    def runs(self) -> list["Run"]:
        """
        All runs, in the order in which they are done: models first, then task by task, seed by seed, variant by
        variant.

        Raises:
            GPT1Error: if a task, a recipe or a setting is unknown.
        """
        of_all, of_models = self.overrides.get("finetune", {}), self.overrides.get("pretrain", {})
        used = {{**settings, **of_all}.get("model") for settings in self.variants.values()}
        models = {}
        for name, own in self.models.items():
            if name in used:
                recipe = read_yaml(own["config"])[1] if "config" in own else {}
                # A run that was stopped goes on from its last checkpoint.
                settings = {"resume_from_checkpoint": True, **recipe, **self.pretrain, **own, **of_models}
                settings = {key: settings[key] for key in settings if key not in ("config", "output_dir")}
                folder = Path(self.models_dir) / name
                models[name] = Run("pretrain", f"pretrain/{name}", settings, folder, variant=name)
        runs = list(models.values())
        for task_id, of_task in self.tasks.items():
            load_task(task_id)
            common = {"task": task_id, **self.finetune, **of_task, **of_all}
            seeds, first = int(common.pop("seeds", 1)), int(common.pop("seed", FIRST_SEED))
            for seed in range(first, first + seeds):
                for variant, of_variant in self.variants.items():
                    changed = {**common, **of_variant, **of_all, "seed": seed}
                    changed.pop("seeds", None)
                    model = models.get(changed.get("model"))
                    if model is not None:
                        changed["model"] = str(model.folder)
                    for labels, settings in each_value(changed, of_variant, model):
                        name = "/".join(["finetune", task_id, variant, *labels, f"seed-{seed}"])
                        runs.append(Run("finetune", name, settings, Path(self.output_dir) / name, variant, model))
        for run in runs:
            run.check()
        return runs


def _mapping(where: str | Path, content: dict[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key) or {}
    if not isinstance(value, dict):
        raise GPT1Error(f"{where}: {key!r} must be a mapping of `key: value` lines, not {value!r}")
    return value


def each_value(
    settings: dict[str, Any], variant: dict[str, Any], model: Run | None
) -> Iterable[tuple[list[str], dict[str, Any]]]:
    """
    Take a variant's lists apart.

    Args:
        settings (`dict`):
            Settings of its runs.
        variant (`dict`):
            What of them are the variant's own, some with a list of values.
        model ([`Run`], *optional*):
            Pre-training run of its model.

    Returns:
        For each choice of values, their labels (such as `max_train_examples-1000`) and the settings.
    """
    settings = dict(settings)
    if settings.get("transfer_layers") == "all":
        if model is None:
            n_layers = open_config(settings.get("model", "gpt1-tiny")).num_hidden_layers
        else:
            config = GPT1LSTMConfig if model.settings.get("architecture") == "lstm" else GPT1Config
            n_layers = model.settings.get("num_hidden_layers", config().num_hidden_layers)
        settings["transfer_layers"] = list(range(n_layers + 1))
    swept = [key for key in variant if isinstance(settings[key], list)]
    for values in itertools.product(*(settings[key] for key in swept)):
        chosen = dict(zip(swept, values, strict=True))
        yield [f"{key}-{value}" for key, value in chosen.items()], {**settings, **chosen}


def numbered(runs: Sequence[Run]) -> list[tuple[Run, int]]:
    """Each run's number, by which it is shared out. Either kind has its own, so that everyone has a share of both."""
    counts = {kind: itertools.count() for kind in KINDS}
    return [(run, next(counts[run.kind])) for run in runs]


def share(runs: Sequence[Run], processes: Processes) -> list[Run]:
    """The runs of a plan that are this process's."""
    return [run for run, number in numbered(runs) if processes.does(number)]


def carry_out(runs: Sequence[Run], processes: Processes | None = None) -> dict[str, str]:
    """
    Do what of a plan is not done yet. A run that fails is named, and the rest goes on.

    Args:
        runs (list of [`Run`]):
            All runs of the plan.
        processes ([`Processes`], *optional*):
            Who shares it out; defaults to this process alone.

    Returns:
        Run -> why it is not finished, of this process's runs.
    """
    processes = processes or Processes()
    numbers = {run.name: number for run, number in numbered(runs)}
    mine = share(runs, processes)
    missing = {}
    for position, run in enumerate(mine, start=1):
        where = f"[{position}/{len(mine)}] {run.name}"
        if run.needs is not None:
            processes.wait_for(run.needs.name, numbers[run.needs.name])
        if run.state == "finished":
            print(f"{where}: finished before", flush=True)
        elif run.needs is not None and run.needs.state != "finished":
            missing[run.name] = f"its model, {run.needs.name}, is not there"
        else:
            print(where, flush=True)
            try:
                run.do()
            except RUN_ERRORS as error:
                logger.error(f"{run.name} failed", exc_info=error)
                missing[run.name] = " ".join(str(error).split())
        processes.tell(run.name)
    if missing:
        print(f"{len(missing)} of {len(mine)} runs are not finished; the same command goes on with them:")
        for name, reason in missing.items():
            print(f"  {name}: {reason}", flush=True)
    return missing
