"""The command line: `gpt1 COMMAND ...`, one small file per command, each parses its arguments and calls one function.

This folder is the list of commands: a module's docstring is its line in `gpt1 --help`, its `main(argv)` runs it.
"""

import ast
import difflib
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from transformers.utils import logging

from ..errors import Terminated


HELPERS = {"__init__", "parser"}


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
    return "usage: gpt1 COMMAND [--help] ...\n\nGPT-1 for the Hugging Face ecosystem.\n\ncommands:\n" + "\n".join(
        lines
    )


def main(argv: list[str] | None = None) -> int:
    """Run a command; bad input ends with one sentence on standard error and exit status 1."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    command = argv[0]
    if command not in commands():
        near = difflib.get_close_matches(command, commands(), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        print(f"gpt1: error: there is no command {command!r}; {hint}`gpt1 --help` lists them", file=sys.stderr)
        return 2
    return told(lambda: import_module(f".{command.replace('-', '_')}", __name__).main(argv[1:]))


def told(run: Callable[[], None]) -> int:
    """Run a command and return its exit status; what is wrong with its input is told in one sentence."""
    logging.disable_progress_bar()  # of loading and saving weights; training and tokenizing show their own
    try:
        run()
    except (ValueError, OSError, FloatingPointError, StrictDataclassError) as error:
        # Bad input: the message says what and how to mend it. Any other exception is a bug and keeps its traceback.
        # A configuration's is wrapped in the name of the check.
        reason = error.__cause__ if isinstance(error, StrictDataclassError) and error.__cause__ else error
        print(f"gpt1: error: {' '.join(str(reason).split())}", file=sys.stderr)
        return 1
    except Terminated as end:
        print(f"gpt1: {end}", file=sys.stderr)
        return 128 + end.signal  # as a shell tells of it
    except KeyboardInterrupt:
        print("gpt1: interrupted", file=sys.stderr)
        return 130
    return 0
