"""The one error type for bad input above the model family."""


class GPT1Error(ValueError):
    """Bad input. The message is one sentence that names the thing and the fix; the command line prints just that."""


class MissingSplitError(GPT1Error):
    """A local copy of a data set lacks one of its splits, which need not stop what can be done with the others."""
