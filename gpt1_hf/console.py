"""What a command tells beside its result: progress, and where it writes. It goes to standard error."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import Terminated


_settings = {"quiet": False}


def be_quiet(quiet: bool):
    """Leave notes out from now on, or tell them again (`--quiet`)."""
    _settings["quiet"] = quiet


def no_bars() -> bool:
    """Whether progress bars are left out: they are for terminals."""
    return _settings["quiet"] or not sys.stderr.isatty()


def note(text: str):
    """Tell something, unless the command is to be quiet."""
    if not _settings["quiet"]:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def interruptible(what: str, how: str) -> Iterator[None]:
    """
    Turn Ctrl-C into a word on how it goes on.

    Args:
        what (`str`):
            What Ctrl-C ends here.
        how (`str`):
            How it goes on.

    Raises:
        Terminated: if it came.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Terminated(f"Ctrl-C ended {what}; {how}", signal.SIGINT) from None
