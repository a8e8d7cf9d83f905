"""The one error type for bad input above the model family, and what a file that cannot be written is told as."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


class GPT1Error(ValueError):
    """Bad input. The message is one sentence that names the thing and the fix; the command line prints just that."""


class UsageError(GPT1Error):
    """A command that is called wrongly: an unknown flag or key, a value that a setting does not take."""


class MissingSplitError(GPT1Error):
    """A local copy of a data set lacks one of its splits, which need not stop what can be done with the others."""


class Terminated(Exception):
    """
    A run that a signal ended in good order.

    Args:
        message (`str`):
            What has ended, where it is saved, and how it goes on.
        number (`int`, *optional*, defaults to `SIGTERM`):
            The signal; Ctrl-C is `SIGINT`. The command line's exit status is 128 and this.
    """

    def __init__(self, message: str, number: int = signal.SIGTERM):
        super().__init__(message)
        self.signal = number


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


@contextmanager
def writing(path: str | Path, consequence: str = "make room, or choose another folder") -> Iterator[None]:
    """
    Turn what is raised where a file cannot be written (full disk, read-only folder) into one sentence.

    Args:
        path (`str` or `Path`):
            What is being written.
        consequence (`str`, *optional*):
            What is left, and what to do.

    Raises:
        GPT1Error: if it could not be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise GPT1Error(f"cannot write {path} ({os.strerror(error.errno)}): {consequence}") from error
    except SafetensorError as error:
        raise GPT1Error(f"cannot write {path} ({str(error).split(': ')[-1]}): {consequence}") from error
    except RuntimeError as error:
        # torch.save does not say why; this is its C++ writer's file, in the message of a write that was cut short.
        if "inline_container" not in str(error) and "PytorchStreamWriter" not in str(error):
            raise
        raise GPT1Error(f"cannot write {path} (a write was cut short; is the disk full?): {consequence}") from error
    except Exception as error:
        # The library tokenizers has no type of its own for a file that it cannot write.
        if type(error) is not Exception or "(os error " not in str(error):
            raise
        raise GPT1Error(f"cannot write {path} ({str(error).split(' (os error')[0]}): {consequence}") from error
