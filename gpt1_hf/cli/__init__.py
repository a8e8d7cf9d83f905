"""The command line, `gpt1 COMMAND ...`. A command is a small module that parses its arguments and calls one function.

This folder is the list of commands. A module's docstring is its line in `gpt1 --help`, and its `main(argv)` runs it.
It imports slow libraries (torch, transformers, ...) only after it has parsed its arguments.
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

from ..console import AS_COMMAND, be_quiet, no_bars
from ..errors import GPT1Error, Terminated, UsageError
from ..settings import nearest
from .flags import split_at_end_of_flags, with_underscores


# A `raise ValueError(...)` in these modules reports wrong input. They are the model family, which cannot import
# `errors.py`, and the parts of libraries that check settings.
MODULES_THAT_CHECK_INPUT = (
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
# Problems of the machine that the user can solve, such as a full disk or a missing permission.
MACHINE_ERRORS = {
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
    """Command -> its line of help, read from the modules of this folder without importing them."""
    lines = {}
    for file in sorted(Path(__file__).parent.glob("[!_]*.py")):
        module = ast.parse(file.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in module.body):
            lines[file.stem.replace("_", "-")] = (ast.get_docstring(module) or "").split("\n")[0]
    return lines


def usage() -> str:
    """Text of `gpt1 --help`."""
    lines = [f"  {name:<11} {line}" for name, line in commands().items()]
    return (
        "usage: gpt1 COMMAND [--help] [--quiet] ...\n       gpt1 --version\n\n"
        "GPT-1 for the Hugging Face ecosystem.\n\ncommands:\n" + "\n".join(lines) + "\n\n"
        "`gpt1 COMMAND --help` lists the arguments of a command. Results go to standard output, everything else to\n"
        "standard error; --quiet hides progress. The exit status is 0 for success, 1 for failure, 2 for wrong usage."
    )


def main(argv: list[str] | None = None) -> int:
    """
    Run a command.

    Args:
        argv (`list[str]`, *optional*):
            Name of the command and its arguments. Defaults to the arguments of the process.

    Returns:
        `int`: the exit status: 0 for success, 1 for failure, 2 for wrong usage, such as an unknown flag, an unknown
        key in a YAML file, or a value that a setting does not accept. A failure or wrong usage prints one sentence to
        standard error.
    """
    flags, texts = split_at_end_of_flags(with_underscores(sys.argv[1:] if argv is None else argv))
    quiet = "--quiet" in flags
    argv = [word for word in flags if word != "--quiet"] + texts
    if not argv or argv[0] in ("-h", "--help", "--help_all"):
        print(usage())
        return 0
    if argv[0] == "--version":
        print(f"gpt1_hf {version('gpt1_hf')}")
        return 0
    command = argv[0]
    if command not in commands():
        print(
            f"gpt1: error: there is no command {command!r}{nearest(command, commands())}; `gpt1 --help` lists all "
            "commands",
            file=sys.stderr,
        )
        return 2
    return run_command(lambda: import_module(f".{command.replace('-', '_')}", __name__).main(argv[1:]), quiet)


def run_command(run: Callable[[], None], quiet: bool = False) -> int:
    """
    Run a command and return its exit status. An error with a known cause is printed as one sentence. Any other
    exception is a bug and keeps its traceback.
    """
    be_quiet(quiet)
    if AS_COMMAND and no_bars():
        # The libraries read these when they are imported, later.
        for name in ("TQDM_DISABLE", "HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS"):
            os.environ.setdefault(name, "1")
    if (registration := sys.modules.get("gpt1_hf.registration")) is not None:
        registration.hide_weight_bars()  # if imported later, it hides them itself
    try:
        run()
    except Terminated as end:
        print(f"gpt1: {end}", file=sys.stderr)
        return 128 + end.signal  # as shells report it
    except KeyboardInterrupt:
        print("gpt1: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if (message := error_message(error)) is None:
            raise
        print(f"gpt1: error: {message}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


def error_message(error: Exception) -> str | None:
    """One sentence for the user about an exception, or `None` if the exception may be a bug."""
    if not isinstance(error, GPT1Error | FloatingPointError):
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, StrictDataclassError

        if isinstance(error, JSONDecodeError | UnicodeDecodeError):  # only files of the user are read as JSON or text
            return f"a file is damaged: {error}"
        is_known = isinstance(error, StrictDataclassError | HfHubHTTPError | OfflineModeIsEnabled)
        is_machine_error = isinstance(error, OSError) and error.errno in MACHINE_ERRORS
        if not (is_known or is_machine_error or reports_wrong_input(error)):
            return None
        if isinstance(error, StrictDataclassError) and error.__cause__:
            error = error.__cause__  # the configuration's own error, without the name of the check around it
    return " ".join(str(error).split())


def reports_wrong_input(error: Exception) -> bool:
    """Whether a `raise` statement in one of `MODULES_THAT_CHECK_INPUT` raised an exception on purpose."""
    if not isinstance(error, ValueError | OSError | ImportError):
        return False
    traceback = error.__traceback__
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    frame = traceback.tb_frame
    line = linecache.getline(frame.f_code.co_filename, traceback.tb_lineno)
    return line.lstrip().startswith("raise ") and frame.f_globals["__name__"].startswith(MODULES_THAT_CHECK_INPUT)
