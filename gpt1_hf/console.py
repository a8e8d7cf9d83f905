"""What a command prints besides its result, such as progress. It goes to standard error."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import Terminated


_settings = {"quiet": False}


def _is_the_command() -> bool:
    started = sys.argv[0] if sys.argv else ""
    if started == "-m":  # Python is still looking for the module to run
        return f"-m {__package__} " in " ".join([*sys.orig_argv, ""])
    return Path(started).name in ("gpt1", "gpt1.exe")


# Whether this process is `gpt1 ...` or `python -m gpt1_hf ...`.
AS_COMMAND = _is_the_command()


def be_quiet(quiet: bool):
    """Turn notes and progress bars off or on (`--quiet`)."""
    _settings["quiet"] = quiet


def no_bars() -> bool:
    """Whether progress bars are off: with `--quiet`, or if standard error is not a terminal."""
    return _settings["quiet"] or not sys.stderr.isatty()


def note(text: str):
    """Print a message, unless `--quiet` is set."""
    if not _settings["quiet"]:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def interruptible(what: str, how: str) -> Iterator[None]:
    """
    Turn Ctrl-C into a message that says how to resume.

    Args:
        what (`str`):
            What Ctrl-C interrupts.
        how (`str`):
            How to resume.

    Raises:
        Terminated: on Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Terminated(f"Ctrl-C ended {what}; {how}", signal.SIGINT) from None
