"""The package's exceptions."""

import signal


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
