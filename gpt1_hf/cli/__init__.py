"""The command line: `gpt1 COMMAND ...`, one small file per command, each parses its arguments and calls one function.

This folder is the list of commands: a module's docstring is its line in `gpt1 --help`, its `main(argv)` runs it. It
imports what takes time (torch, transformers, ...) when it has parsed its arguments, not before.
"""

import ast
import errno
import linecache
import os
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from json import JSONDecodeError
from pathlib import Path

from .. import AS_COMMAND
from ..console import be_quiet, no_bars
from ..errors import GPT1Error, Terminated, UsageError
from ..settings import nearest
from .flags import underscored


HELPERS = {"__init__", "flags", "parser"}
# Modules whose `raise ValueError(...)` is a word to the user: the model family, which travels without `errors.py`, and
# what in the libraries checks settings that are handed on to them.
SPEAKERS = (
    "gpt1_hf.configuration_",
    "gpt1_hf.modeling_",
    "gpt1_hf.pipelines",
    "gpt1_hf.processing_",
    "gpt1_hf.tokenization_gpt1",
    "torch.optim.",
    "transformers.generation.",
    "transformers.optimization",
    "transformers.trainer",
    "transformers.training_args",
)
# What a machine or its user can put right: no room, no permission, too many open files, no network.
SURROUNDINGS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENAMETOOLONG,
}


def commands() -> dict[str, str]:
    """Command -> one line of help, read from the files without importing them."""
    found = {}
    for file in sorted(Path(__file__).parent.glob("*.py")):
        if file.stem not in HELPERS:
            docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
            found[file.stem.replace("_", "-")] = docstring.split("\n")[0]
    return found


def usage() -> str:
    """What `gpt1 --help` prints."""
    lines = [f"  {name:<11} {line}" for name, line in commands().items()]
    return (
        "usage: gpt1 COMMAND [--help] [--quiet] ...\n       gpt1 --version\n\n"
        "GPT-1 for the Hugging Face ecosystem.\n\ncommands:\n" + "\n".join(lines) + "\n\n"
        "Results go to standard output, all else to standard error; --quiet leaves progress out. Exit status: 0 done, "
        "1 failed, 2 called wrongly."
    )


def main(argv: list[str] | None = None) -> int:
    """
    Run a command.

    Args:
        argv (`list[str]`, *optional*):
            Its name and its arguments. Default: the process's own.

    Returns:
        `int`: the exit status. 0: done; 1: failed; 2: called wrongly, by a flag, a key of a YAML, or a value that a
        setting does not take. Of failure and wrong use, one sentence on standard error says what to do.
    """
    argv = underscored(sys.argv[1:] if argv is None else argv)
    end = argv.index("--") if "--" in argv else len(argv)
    quiet = "--quiet" in argv[:end]
    argv = [word for word in argv[:end] if word != "--quiet"] + argv[end:]
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    if argv[0] == "--version":
        print(f"gpt1_hf {version('gpt1_hf')}")
        return 0
    command = argv[0]
    if command not in commands():
        print(
            f"gpt1: error: there is no command {command!r}{nearest(command, commands())}; `gpt1 --help` lists them",
            file=sys.stderr,
        )
        return 2
    return told(lambda: import_module(f".{command.replace('-', '_')}", __name__).main(argv[1:]), quiet)


def told(run: Callable[[], None], quiet: bool = False) -> int:
    """
    Run a command and return its exit status. What is wrong with its input is told in one sentence; an exception that
    is none of the known causes is a bug, and keeps its traceback.
    """
    be_quiet(quiet)
    if AS_COMMAND and no_bars():
        # The libraries, which are not imported yet, read these when they are.
        for name in ("TQDM_DISABLE", "HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS"):
            os.environ.setdefault(name, "1")
    if (registration := sys.modules.get("gpt1_hf.registration")) is not None:  # else it does so by itself
        registration.hide_weight_bars()
    try:
        run()
    except Terminated as end:
        print(f"gpt1: {end}", file=sys.stderr)
        return 128 + end.signal  # as a shell tells of it
    except KeyboardInterrupt:
        print("gpt1: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if (reason := one_sentence(error)) is None:
            raise
        print(f"gpt1: error: {reason}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


def one_sentence(error: Exception) -> str | None:
    """What to tell a user of an exception; `None` if it may be a bug."""
    if not isinstance(error, GPT1Error | FloatingPointError):
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, StrictDataclassError

        if isinstance(error, JSONDecodeError | UnicodeDecodeError):  # no file of text or JSON is read but a user's
            return f"a file is damaged: {error}"
        known = isinstance(error, StrictDataclassError | HfHubHTTPError | OfflineModeIsEnabled)
        known = known or (isinstance(error, OSError) and error.errno in SURROUNDINGS)
        if not known and not spoken(error):
            return None
        if isinstance(error, StrictDataclassError) and error.__cause__:
            error = error.__cause__  # a configuration's own; it is wrapped in the name of the check
    return " ".join(str(error).split())


def spoken(error: Exception) -> bool:
    """Whether a `raise` of one of `SPEAKERS` made an exception, and not something that went wrong in it."""
    if not isinstance(error, ValueError | OSError | ImportError):
        return False
    place = error.__traceback__
    while place.tb_next is not None:
        place = place.tb_next
    line = linecache.getline(place.tb_frame.f_code.co_filename, place.tb_lineno)
    return line.lstrip().startswith("raise ") and place.tb_frame.f_globals["__name__"].startswith(SPEAKERS)
