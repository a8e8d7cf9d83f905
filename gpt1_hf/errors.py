"""The package's exceptions."""

import signal


class GPT1Error(ValueError):
    """Bad input. The message is one sentence with the problem and the fix; the command line prints only that."""


class UsageError(GPT1Error):
    """A wrong call of a command: an unknown flag or key, or an invalid value."""


class MissingSplitError(GPT1Error):
    """A local copy of a data set lacks a split. The other splits may still be usable."""


class Terminated(Exception):
    """
    A run that a signal ended cleanly.

    Args:
        message (`str`):
            What ended, where it is saved, and how to resume.
        number (`int`, *optional*, defaults to `SIGTERM`):
            Number of the signal (Ctrl-C is `SIGINT`). The command's exit status is 128 plus this number.
    """

    def __init__(self, message: str, number: int = signal.SIGTERM):
        super().__init__(message)
        self.signal = number
