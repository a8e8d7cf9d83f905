"""One run of a plan: a command that is carried out once and leaves a record.

A run is the command that it prints: its settings are flags of `gpt1 pretrain` or `gpt1 finetune`. Beside its
`results.json` it leaves `plan_run.json`, with its settings, their hash, and digests of the model that it started from.
When a plan is started again, the hash and the digests tell which of its runs are finished.
"""

import functools
import hashlib
import json
import re
import shlex
import time
from argparse import ArgumentError
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser

from ...console import interruptible
from ...errors import GPT1Error, UsageError
from ...evaluation.results import RESULTS
from ...files import write_json
from ...settings import default_data_dir, nearest
from ...tasks import Task, describe, load_task
from ...training.arguments import FinetuneArguments, PretrainArguments
from ...training.finetune import finetune
from ...training.manifest import remove_checkpoints
from ...training.pretrain import pretrain
from ...training.run_folder import LEFT_OUT_OF_PLAN_HASH, PLAN_RECORD, clear, files_digest, lock, read_plan_record
from .fingerprints import changed, model_fingerprint, tokenizer_fingerprint


KINDS: dict[str, tuple[type, Callable]] = {
    "pretrain": (PretrainArguments, pretrain),
    "finetune": (FinetuneArguments, finetune),
}
# Pattern of each part of a run's name, which names a folder below the plan's.
NAME = re.compile(r"\w[\w.,+=%-]*")
# Errors that end one run but not the others: bad input, full disks, losses that are not finite, and (as RuntimeError)
# a device that is out of memory. Anything else is a bug.
RUN_ERRORS = (ValueError, OSError, FloatingPointError, RuntimeError)


@dataclass(frozen=True)
class Run:
    """One run of a plan."""

    kind: str  # the command: `pretrain` or `finetune`
    name: str  # such as `finetune/cola/full/seed-42`
    settings: dict[str, Any]  # flags of the command, without `output_dir`
    folder: Path  # its `output_dir`
    variant: str  # which of the compared variants it belongs to
    needs: "Run | None" = None  # the run that makes its model

    @property
    def flags(self) -> list[str]:
        """Its command line, after the command."""
        flags = []
        # Unless the plan says otherwise, a run that was stopped resumes.
        settings = {"resume_from_checkpoint": True, **self.settings, "output_dir": str(self.folder)}
        for key, value in settings.items():
            if value is not None:
                values = value if isinstance(value, list) else [value]
                flags += [f"--{key}", *(str(one).lower() if isinstance(one, bool) else str(one) for one in values)]
        return flags

    @property
    def command(self) -> str:
        """Its command, ready to be copied into a shell."""
        return shlex.join(["gpt1", self.kind, *self.flags])

    @property
    def hash(self) -> str:
        """Identifies the run: its settings, and those of the run it needs."""
        content = {key: str(value) for key, value in self.settings.items() if key not in LEFT_OUT_OF_PLAN_HASH}
        if not content.keys() & {"per_device_train_batch_size", "gradient_accumulation_steps"}:
            # Runs of a plan train in one process, so both settings say the same. Recipes used to have the second.
            if total := content.pop("global_batch_size", None):
                content["per_device_train_batch_size"] = total
        if self.kind == "finetune":
            task = load_task(self.settings["task"])
            content["task_version"] = str(task.version)
            if not task.built_in:
                # Not where its files are: their content counts.
                names = {split: Path(file).name for split, file in task.files.items()}
                content |= {"task": task.id, "task_file": describe(replace(task, files=names)), "data": _digests(task)}
        if self.needs is not None:
            content["model"] = self.needs.hash
        return hashlib.sha256(json.dumps([self.kind, content], sort_keys=True).encode()).hexdigest()[:16]

    @property
    def model(self) -> str:
        """Name of the model that a fine-tuning run starts from: a run of the plan, a folder, or an id."""
        return self.needs.name if self.needs else str(self.settings.get("model", FinetuneArguments.model))

    @property
    def starts_from(self) -> dict[str, str]:
        """
        Fingerprint of the model that it starts from, as far as it is known. From scratch, weights do not count. The
        weights of another run's model are known once that run is finished.
        """
        if self.kind == "pretrain":
            model, tokenizer = self.settings.get("model"), self.settings.get("tokenizer")
            found = model_fingerprint(str(model)) if model else {}
            return found | (tokenizer_fingerprint(str(tokenizer)) if tokenizer else {})
        has_weights = str(self.settings.get("from_scratch", False)).lower() != "true"
        if self.needs is None:
            return model_fingerprint(self.model, has_weights)
        found = model_fingerprint(str(self.needs.folder), has_weights) if self.needs.state == "finished" else {}
        return found | {f"pre-training {name}": digest for name, digest in self.needs.starts_from.items()}

    def wrote(self, record: dict[str, Any]) -> bool:
        """Whether a folder's record is of this run: it has the settings and starts from the same model."""
        is_same = record.get("hash") == self.hash
        return is_same and not changed(record.get("starts_from", {}), self.starts_from)

    @property
    def state(self) -> str:
        """`finished`, `failed`, `stopped` (started but not finished), or `to do`."""
        record = read_plan_record(self.folder)
        if not self.wrote(record):
            return "to do"
        if record["state"] == "finished" and not (self.folder / RESULTS).is_file():
            return "to do"
        return record["state"]

    @property
    def diverged(self) -> bool:
        """Whether it failed because its loss became NaN or infinite."""
        return self.state == "failed" and read_plan_record(self.folder).get("diverged", False)

    def check(self):
        """
        Parse the flags as the command line would.

        Raises:
            GPT1Error: if a flag is unknown or its value has the wrong type, or the name cannot be a folder's.
        """
        for part in self.name.split("/"):
            if not NAME.fullmatch(part):
                raise UsageError(
                    f"{self.name!r} cannot be the name of a run, which names a folder: {part!r} may have letters, "
                    "digits and any of `_.,+=%-`, and must start with a letter, a digit or `_`"
                )
        if secrets := [key for key in self.settings if key.endswith("_token")]:
            raise UsageError(
                f"{self.name}: {secrets[0]} does not belong in a plan, which records its settings: set HF_TOKEN"
            )
        try:
            _, rest = parser(self.kind).parse_known_args(self.flags)
        except ArgumentError as error:
            raise UsageError(f"{self.name}: {error}") from error
        if rest:
            unknown, names = rest[0].lstrip("-"), [field.name for field in fields(KINDS[self.kind][0])]
            raise UsageError(f"{self.name}: `gpt1 {self.kind}` has no setting {unknown!r}{nearest(unknown, names)}")

    def arguments(self) -> PretrainArguments | FinetuneArguments:
        """
        Its settings, as the command line would read them.

        Raises:
            UsageError: if a setting does not accept its value.
        """
        try:
            (arguments,) = parser(self.kind).parse_args_into_dataclasses(self.flags, look_for_args_file=False)
        except GPT1Error:
            raise
        except ValueError as error:  # from transformers' own checks
            raise UsageError(f"{self.name}: {error}") from error
        return arguments

    def explain(self, error: Exception) -> str:
        """The message of an error, with its options in a plan's spelling: `--finetune.seed`."""
        own = {field.name for field in fields(KINDS[self.kind][0])} - {"output_dir"}

        def in_plan(option: re.Match) -> str:
            return f"--{self.kind}.{option[1]}" if option[1] in own else option[0]

        parts = " ".join(str(error).split()).split("`")  # text in backticks is another command
        return "`".join(re.sub(r"--(\w+)", in_plan, part) if n % 2 == 0 else part for n, part in enumerate(parts))

    def do(self):
        """
        Carry out the run and record it. Files of a run with different settings, or that started from another model,
        are removed from the folder.

        Raises:
            any of `RUN_ERRORS`: if it fails, or another process is working on it.
            Terminated: if SIGTERM or Ctrl-C ended it.
        """
        with lock(self.folder, PLAN_RECORD + ".lock"):
            if self.state != "finished":  # another process may have finished it meanwhile
                self._do()

    def _do(self):
        record = {
            "name": self.name,
            "variant": self.variant,
            "command": self.command,
            "settings": self.settings,
            "hash": self.hash,
            "starts_from": self.starts_from,
            "versions": {name: version(name) for name in ("gpt1_hf", "torch", "transformers")},
        }
        if not self.wrote(read_plan_record(self.folder)):
            remove_checkpoints(self.folder)
            clear(self.folder)
        write_json(self.folder / PLAN_RECORD, {**record, "state": "stopped"})
        _, function = KINDS[self.kind]
        begin = time.perf_counter()
        try:
            with interruptible(self.name, "the same command resumes it"):
                function(self.arguments())
        except RUN_ERRORS as error:
            record |= {"state": "failed", "error": " ".join(str(error).split())}
            record["diverged"] = isinstance(error, FloatingPointError)
            write_json(self.folder / PLAN_RECORD, record)
            raise
        seconds = round(time.perf_counter() - begin, 1)
        write_json(self.folder / PLAN_RECORD, {**record, "state": "finished", "seconds": seconds})


def parser(kind: str) -> HfArgumentParser:
    """Parser of the flags of a kind of run."""
    return _parser(KINDS[kind][0], default_data_dir())


def _digests(task: Task) -> str:
    """Digests of the data files of a user's task; a file is read again when it has changed."""
    known = {split: Path(file) for split, file in task.files.items() if Path(file).is_file()}
    stamps = {split: (file.stat().st_mtime_ns, file.stat().st_size) for split, file in known.items()}
    return str({split: _digest(file, *stamps[split]) for split, file in known.items()})


@functools.cache
def _digest(file: Path, modified: int, size: int) -> str:
    return files_digest([file])


@functools.cache
def _parser(arguments: type, data_dir: str | None) -> HfArgumentParser:
    """A parser reads the defaults of its settings once, so each `GPT1_DATA_DIR` has its own."""
    return HfArgumentParser(arguments, exit_on_error=False, allow_abbrev=False, add_help=False)
