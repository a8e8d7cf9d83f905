"""A run's output folder: the run that it belongs to, the run's progress, and a lock.

The folder holds, in the order in which a run writes them:

- `run.lock`, locked while a run uses the folder;
- `plan_run.json`, if a plan started the run;
- `checkpoint-<update>/manifest.json`, see `manifest.py`;
- `trained.json`, from when the model is saved until it is scored, described by a card and pushed;
- `settings.json` (fine-tuning) or `run.json` (pre-training), and then `results.json`. A run is finished when the
  folder has both and the settings are those of the run.
"""

import functools
import hashlib
import inspect
import json
import logging
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout
from torch import nn
from transformers import TrainingArguments

from ..console import note
from ..data.loading import BUILDERS, local_copy
from ..data.token_stream import TokenStream
from ..errors import GPT1Error
from ..evaluation.precision import product_precision
from ..evaluation.results import RESULTS, Result, write_results
from ..files import check_writable, write_json, writing
from ..resources import model_path
from ..tasks import Task
from .batch_sizes import rows_per_update


logger = logging.getLogger(__name__)

LOCK = "run.lock"
TRAINED = "trained.json"
FINETUNING_SETTINGS, PRETRAINING_SETTINGS = "settings.json", "run.json"
PLAN_RECORD = "plan_run.json"
# Seconds to wait for a lock. The data loaders of a killed run inherit its lock, and end within five.
LOCK_TIMEOUT = 10

# Settings that do not change results, such as where a run writes and what it shows. This is the only list of them. It
# has three groups, because three comparisons ignore different settings.
#
# 1. The hash that a plan records ignores these. Do not add any: that would change the hashes of existing runs.
LEFT_OUT_OF_PLAN_HASH = (
    "output_dir",
    "data_dir",
    "tokens_dir",
    "disable_tqdm",
    "logging_steps",
    "resume_from_checkpoint",
)
# 2. A finished run is not repeated if only these differ. What `train_file` holds is in [`finetuning_facts`].
#    `global_batch_size` is the product of compared settings.
NEUTRAL = (
    "train_file|validation_file|input_format|text_column|label_column|choices_column|"
    "disable_tqdm|local_rank|log_.*|logging_.*|output_dir|tokens_dir|project|push_to_hub|hub_.*|report_to|"
    "global_batch_size|"
    "resume_from_checkpoint|run_name|save_only_model|save_total_limit|seeds|trackio_.*|dataloader_(?!drop_last).*"
)
# 3. Training resumes from a checkpoint if only these differ. They change how work is distributed, evaluated and saved,
#    so they may change results, but not what is learned. Data are compared by content, not by location.
NEUTRAL_IN_TRAINING = (
    f"{NEUTRAL}|corpus.*|validation_corpus|data_dir|tokenizer|save_.*|checkpoints_per_decade|max_trajectory_tokens|eval_.*|"
    "do_(train|eval|predict)|per_device_.*|gradient_accumulation_steps|batch_eval_metrics|(bf|fp)16_full_eval|"
    "prediction_loss_only|include_.*|skip_memory_metrics|load_best_model_at_end|metric_for_best_model|"
    "greater_is_better|debug|restore_callback_states.*|enable_jit_checkpoint|use_c.*|tf32|torch_.*|(use_)?liger_.*|"
    "(gradient|activation)_checkpointing.*|deepspeed|fsdp.*|ddp_.*|parallelism_config|accelerator_config|"
    "auto_find_batch_size|score_train|max_eval_examples"
)


# Fields of a task on a user's own data that its results depend on.
DESCRIPTION = (
    "dataset",
    "config",
    "revision",
    "input_format",
    "columns",
    "label_column",
    "labels",
    "label_names",
    "label_ids",
    "score_range",
    "regression_bins",
    "drop_unlabelled",
    "validation_share",
    "metric",
    "other_metrics",
    "scored_splits",
)


class Identity:
    """
    What makes two runs the same: their settings, except neutral ones, and facts about their data.

    Args:
        args (`TrainingArguments`):
            Settings of the run.
        neutral (`str`):
            Regular expression of the names of neutral settings.
        facts (`dict`):
            Facts by name, such as digests of the data.
    """

    def __init__(self, args: TrainingArguments, neutral: str, facts: dict[str, Any]):
        self.args, self.neutral = args, re.compile(neutral)
        self.content = as_json({**self._settings_of(args), **facts})

    def _settings_of(self, args: TrainingArguments) -> dict[str, Any]:
        return {name: value for name, value in args.to_dict().items() if not self.neutral.fullmatch(name)}

    @functools.cached_property
    def _defaults(self) -> dict[str, Any]:
        # Every run has a batch size; the default may not fit the number of processes.
        common = {"use_cpu": self.args.use_cpu, "per_device_train_batch_size": 1}
        args = type(self.args)(output_dir=self.args.output_dir, **common)
        return as_json(self._settings_of(args))

    def is_same(self, name: str, earlier: dict[str, Any]) -> bool:
        """Whether a setting or fact is the same in another run's content."""
        is_fact = name not in {field.name for field in fields(self.args)}
        if name in self.content and name in earlier:
            is_unknown = is_fact and self.content[name] is None  # the files are gone
            return is_unknown or self.content[name] == earlier[name]
        # Only one run has it: the other was run with another version of transformers or of this package.
        if is_fact or self.neutral.fullmatch(name):
            return True
        return {**earlier, **self.content}[name] == self._defaults[name]

    def differences(self, earlier: dict[str, Any]) -> str:
        """How this run differs from another run's content, for a message; empty if it does not."""
        names = [name for name in {**self.content, **earlier} if not self.is_same(name, earlier)]
        return ", ".join(f"{name} was {earlier.get(name)} and is {self.content.get(name)} now" for name in names[:4])

    def check(self, earlier: dict[str, Any], where: str | Path):
        """
        Refuse to continue another run.

        Raises:
            GPT1Error: if a setting or fact differs.
        """
        if differences := self.differences(earlier):
            raise GPT1Error(
                f"{where} belongs to a run with different settings ({differences}): use the same settings, or another "
                "--output_dir"
            )


def as_json(content: dict[str, Any]) -> dict[str, Any]:
    """Content as JSON would return it."""
    return json.loads(json.dumps(content, default=str))


def training_identity(args: TrainingArguments) -> Identity:
    """Identity of what a run learns, regardless of how it is scored. Every checkpoint's manifest records it."""
    return Identity(args, NEUTRAL_IN_TRAINING, {"rows per update": rows_per_update(args)})


def model_settings(args: TrainingArguments, model: nn.Module | None = None) -> dict[str, Any]:
    """
    Settings that a trained model depends on, for the details of its results: those that this package defines, and any
    other that differs from its default. `training_precision` stands for `bf16` and `fp16`. Left out are those that a
    result has elsewhere: task, model, seed, epochs and rows of an update. The model that is trained, if given, tells
    whether an LSTM's precision counts.
    """
    identity = training_identity(args)
    classes = type(args).__mro__
    own = {name for one in classes[: classes.index(TrainingArguments)] for name in inspect.get_annotations(one)}
    # Read from the fields: new arguments would reset the state of the Trainer's processes.
    defaults = as_json({field.name: field.default for field in fields(args)})
    left_out = {"task", "model", "seed", "rows per update", "num_train_epochs", "bf16", "fp16", "length_column_name"}
    settings = {
        name: value
        for name, value in identity.content.items()
        if name not in left_out
        and (name in own or value != defaults.get(name))
        and (getattr(args, "peft", None) or not name.startswith("lora_"))
    }
    if args.load_best_model_at_end:  # then it depends on when and how checkpoints are compared
        names = ("eval_strategy", "eval_steps", "eval_delay", "metric_for_best_model", "greater_is_better")
        settings |= as_json({name: getattr(args, name) for name in names})
    return {**settings, "training_precision": training_precision(args, model)}


def training_precision(args: TrainingArguments, model: nn.Module | None = None) -> str:
    """
    Number format that a run trains in: `fp32`, or `bf16 autocast` or `fp16 autocast` with weights in fp32. Where torch
    computes products of fp32 numbers in TF32 (`tf32`, or `torch_compile` without half precision), it is `tf32`, or
    `bf16 autocast, tf32`.
    """
    chosen = next((name for name in ("bf16", "fp16") if getattr(args, name)), None)
    chosen = chosen or getattr(args, "mixed_precision", None)
    has_lstm = model is not None and any(isinstance(module, nn.LSTM) for module in model.modules())
    products = product_precision(args.device.type, has_lstm)
    if chosen in (None, "no"):
        return products
    return f"{chosen} autocast" if products == "fp32" else f"{chosen} autocast, {products}"


@dataclass
class RunFolder:
    """One run and its output folder."""

    args: TrainingArguments
    settings_file: str
    results: Identity  # what the results depend on
    training: Identity  # what the weights depend on

    @classmethod
    def of_pretraining(cls, args: TrainingArguments) -> "RunFolder":
        """A pre-training run. Its results depend on the same facts as its training."""
        identity = training_identity(args)
        return cls(args, PRETRAINING_SETTINGS, identity, identity)

    @classmethod
    def of_finetuning(cls, args: TrainingArguments, facts: dict[str, Any]) -> "RunFolder":
        """A fine-tuning run; `facts` are [`finetuning_facts`]."""
        training = training_identity(args)
        if "task" in facts:
            training.content["task"] = facts["task"]
        return cls(args, FINETUNING_SETTINGS, Identity(args, NEUTRAL, facts), training)

    @property
    def path(self) -> Path:
        return Path(self.args.output_dir)

    @property
    def how_to_resume(self) -> str:
        """The command that resumes from the last checkpoint."""
        return "the same command" if resumes(self.args) else "the same command with --resume_from_checkpoint true"

    @property
    def how_to_score(self) -> str:
        """Advice for a run that ends after its training."""
        return f"the model is saved in {self.path}, and the same command scores it"

    def locked(self):
        """Context manager that keeps other runs out of the folder. The main process locks it for all."""
        return nullcontext() if self.args.process_index else lock(self.path)

    def finished_results(self) -> list[Result] | None:
        """
        Results of the run, if it is finished. A finished fine-tuning run with different settings does not
        count: it is replaced, with a warning.

        Raises:
            GPT1Error: if the folder has a finished pre-training run with different settings.
        """
        if not (self.path / self.settings_file).is_file():
            return None
        earlier = json.loads((self.path / self.settings_file).read_text(encoding="utf-8"))
        if self.settings_file == PRETRAINING_SETTINGS:
            self.results.check(earlier["settings"], self.path)
        if not (self.path / RESULTS).is_file():
            return None
        if self.settings_file == FINETUNING_SETTINGS and (differences := self.results.differences(earlier)):
            logger.warning(
                f"{self.path} belongs to a run with different settings ({differences}), which this run replaces"
            )
            return None
        return [Result(**row) for row in json.loads((self.path / RESULTS).read_text(encoding="utf-8"))]

    def record_trained(self, details: dict[str, Any]):
        """Record that the model is saved, with the details of its training."""
        write_json(self.path / TRAINED, {"settings": self.results.content, "found": details})

    def training_details(self) -> dict[str, Any] | None:
        """
        Details of training, if the model is saved but the run is not complete. Otherwise `None`, and an earlier run's
        results and records are removed. Every process must call this; only the main one reads the folder.
        """
        details, file = None, self.path / TRAINED
        if self.args.process_index == 0:
            if file.is_file() and str(self.args.resume_from_checkpoint).lower() in ("none", "true"):
                trained = json.loads(file.read_text(encoding="utf-8"))
                if not self.results.differences(trained["settings"]):
                    details = trained["found"]
                    note(f"the model in {self.path} is already trained: only scoring is left")
            if details is None:
                clear(self.path)
        return broadcast_object_list([details])[0] if self.args.world_size > 1 else details

    def finish(self, results: list[Result]):
        """Write the settings and then the results, which mark the run as finished."""
        is_pretraining = self.settings_file == PRETRAINING_SETTINGS
        with writing(self.path, self.how_to_score):
            content = {"settings": self.results.content} if is_pretraining else self.results.content
            write_json(self.path / self.settings_file, content)
            write_results(self.path, results)

    def close(self):
        """Record that scoring, card and push are complete."""
        if self.args.process_index == 0:
            (self.path / TRAINED).unlink(missing_ok=True)


def resumes(args: TrainingArguments) -> bool:
    """Whether a run should resume from the last checkpoint in its folder."""
    return str(args.resume_from_checkpoint).lower() == "true"


def clear(folder: Path):
    """Remove an earlier run's results and records from a folder. Its model and checkpoints stay."""
    for name in (RESULTS, FINETUNING_SETTINGS, PRETRAINING_SETTINGS, TRAINED):
        (folder / name).unlink(missing_ok=True)


def finetuning_facts(args: TrainingArguments, task: Task) -> dict[str, Any]:
    """
    Facts about a fine-tuning run that its results depend on. All seeds share them.

    `weights` is a digest of a local model, and `data` is one of a local copy of the task's files. Both are `None` for
    the Hub. A task on a user's own data also has its name, its description, and a digest of each of its files.
    """
    weights = sorted(Path(model_path(args.model)).glob("*.safetensors"))
    data, folder = [], None
    if task.dataset and not args.sample:
        folder = local_copy(task.dataset, args.data_dir)
    if folder is not None:
        if task.config and (folder / task.config).is_dir():
            folder = folder / task.config
        data = sorted(path for path in folder.rglob("*") if path.suffix in BUILDERS)
    return {
        "weights": files_digest(weights) if weights else None,
        "world_size": args.world_size,
        "task_version": task.version,
        "data": files_digest(data, folder) if folder is not None else None,
        **({} if task.built_in else own_task_facts(task)),
    }


def has_any_score(task: Task) -> bool:
    """Whether a task's scores have no limits, which JSON cannot hold."""
    return task.score_range is not None and not all(map(math.isfinite, task.score_range))


def own_task_facts(task: Task) -> dict[str, Any]:
    """Facts about a task on a user's own data. A fact is never `None`, which would stand for an unknown one."""
    described = {**asdict(task), "score_range": None if has_any_score(task) else task.score_range}
    facts = {f"the task's {name}": described[name] or "none" for name in DESCRIPTION}
    for split, file in task.files.items():
        facts[f"the {split} file"] = f"{Path(file).name} ({files_digest([Path(file)])})"
    return {"task": task.id, **facts}


def files_digest(files: list[Path], folder: Path | None = None) -> str:
    """Digest of the content of files and, with `folder`, of their paths in it."""
    digest = hashlib.sha256()
    for path in files:
        if folder is not None:
            digest.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def stream_digest(stream: TokenStream) -> str:
    """Digest of a token stream: its tokens and the ends of its documents."""
    digest = hashlib.sha256(stream.tokens)
    digest.update(json.dumps(stream.document_ends).encode())
    return digest.hexdigest()[:16]


@contextmanager
def lock(folder: str | Path, name: str = LOCK) -> Iterator[None]:
    """
    Keep other processes out of a folder, which is created if necessary. The operating system releases the lock when
    the process ends, even if it is killed.

    Raises:
        GPT1Error: if another process holds the lock, or the folder cannot be written.
    """
    check_writable(folder)
    os.makedirs(folder, exist_ok=True)
    file_lock = FileLock(Path(folder) / name, timeout=LOCK_TIMEOUT)
    try:
        file_lock.acquire()
    except Timeout as error:
        raise GPT1Error(
            f"another process is working in {folder}: wait until it ends, or use another --output_dir"
        ) from error
    try:
        yield
    finally:
        file_lock.release()


def read_plan_record(folder: Path) -> dict[str, Any]:
    """A plan's record of the run in a folder; empty if it is missing or unreadable."""
    try:
        record = json.loads((folder / PLAN_RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        record = None
    if isinstance(record, dict) and {"hash", "state", "variant"} <= record.keys():
        return record
    logger.warning(f"{folder / PLAN_RECORD} is ignored: it is not the record of a run")
    return {}
