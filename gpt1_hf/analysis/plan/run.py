"""A run of a plan: a command, which is done once and leaves a record.

It is the command that it prints: its settings are flags of `gpt1 pretrain` or `gpt1 finetune`. Beside its
`results.json` it leaves `plan_run.json`, with its settings and a hash of them, by which a plan that is started again
knows what is done.
"""

import difflib
import functools
import hashlib
import json
import logging
import re
import shlex
import time
from argparse import ArgumentError
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser

from ...console import interruptible
from ...errors import UsageError
from ...evaluation.results import RESULTS
from ...files import write_json
from ...tasks import load_task
from ...training.arguments import FinetuneArguments, PretrainArguments
from ...training.finetune import finetune
from ...training.pretrain import pretrain
from ...training.resume import RUN, TRAINED, hold, remove_checkpoints


logger = logging.getLogger(__name__)

# What a run is and how it ended, beside its results.
RECORD = "plan_run.json"
KINDS: dict[str, tuple[type, Callable]] = {
    "pretrain": (PretrainArguments, pretrain),
    "finetune": (FinetuneArguments, finetune),
}
# Settings that say where things lie or what is shown, and leave the numbers as they are.
PLACES = ("output_dir", "data_dir", "tokens_dir", "disable_tqdm", "logging_steps", "resume_from_checkpoint")
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
        # If the plan says nothing else, a run that was stopped goes on.
        settings = {"resume_from_checkpoint": True, **self.settings, "output_dir": str(self.folder)}
        for key, value in settings.items():
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
                raise UsageError(
                    f"{self.name!r} cannot be the name of a run, which is a folder's: {part!r} may have letters, "
                    "digits and any of `_.,+=%-`, and begin with none of them but `_`"
                )
        if secrets := [key for key in self.settings if key.endswith("_token")]:
            raise UsageError(f"{self.name}: {secrets[0]} is not for plans, which note their settings: set HF_TOKEN")
        try:
            _, rest = parser(self.kind).parse_known_args(self.flags)
        except ArgumentError as error:
            raise UsageError(f"{self.name}: {error}") from error
        if rest:
            names = [field.name for field in fields(KINDS[self.kind][0])]
            near = difflib.get_close_matches(rest[0].lstrip("-"), names, n=1)
            raise UsageError(
                f"{self.name}: `gpt1 {self.kind}` has no setting {rest[0].lstrip('-')!r}"
                f"{f'; did you mean {near[0]}?' if near else ''}"
            )

    def arguments(self) -> PretrainArguments | FinetuneArguments:
        """Its settings, as the command line would read them."""
        (arguments,) = parser(self.kind).parse_args_into_dataclasses(self.flags, look_for_args_file=False)
        return arguments

    def told(self, error: Exception) -> str:
        """What an error of it says, with the options that it advises as a plan takes them: `--finetune.data_dir`."""
        own = {field.name for field in fields(KINDS[self.kind][0])} - {"output_dir"}

        def of_plan(option: re.Match) -> str:
            return f"--{self.kind}.{option[1]}" if option[1] in own else option[0]

        parts = " ".join(str(error).split()).split("`")  # between backticks stand other commands
        return "`".join(re.sub(r"--(\w+)", of_plan, part) if n % 2 == 0 else part for n, part in enumerate(parts))

    def do(self):
        """
        Do it, and keep a record of it. What an earlier run with other settings left in the folder is not gone on with.

        Raises:
            any of `RUN_ERRORS`: if it fails, or another process does it.
            Terminated: if SIGTERM or Ctrl-C ended it.
        """
        with hold(self.folder, RECORD + ".lock"):
            if self.state != "finished":  # as another process may have left it meanwhile
                self._do()

    def _do(self):
        record = {
            "name": self.name,
            "variant": self.variant,
            "command": self.command,
            "settings": self.settings,
            "hash": self.hash,
            "versions": {name: version(name) for name in ("gpt1_hf", "torch", "transformers")},
        }
        if read_record(self.folder).get("hash") != self.hash:
            remove_checkpoints(self.folder)
            for name in (RUN, RESULTS, TRAINED):
                (self.folder / name).unlink(missing_ok=True)
        write_json(self.folder / RECORD, {**record, "state": "stopped"})
        _, function = KINDS[self.kind]
        begin = time.perf_counter()
        try:
            with interruptible(self.name, "the same command goes on with it"):
                function(self.arguments())
        except RUN_ERRORS as error:
            write_json(self.folder / RECORD, {**record, "state": "failed", "error": " ".join(str(error).split())})
            raise
        seconds = round(time.perf_counter() - begin, 1)
        write_json(self.folder / RECORD, {**record, "state": "finished", "seconds": seconds})


def read_record(folder: Path) -> dict[str, Any]:
    """What a run has left on itself in a folder; empty, if there was none, or it is damaged."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        record = None
    if isinstance(record, dict) and {"hash", "state", "variant"} <= record.keys():
        return record
    logger.warning(f"{folder / RECORD} is left out: it is not the record of a run")
    return {}


@functools.cache
def parser(kind: str) -> HfArgumentParser:
    """Parser of a kind of run's flags."""
    return HfArgumentParser(KINDS[kind][0], exit_on_error=False, allow_abbrev=False, add_help=False)
