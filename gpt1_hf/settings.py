"""What numbers settings take: looked at before the work, since what a wrong one does comes up late, or not at all."""

import difflib
import os
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import UsageError


MOST = 2**63 - 1
LEAST = 1e-12  # of what has to be above 0


def check_ranges(settings: Any, ranges: Mapping[str, tuple[float, float]]):
    """
    Raise if a number is not of the kind that its setting takes.

    Args:
        settings (`Any`):
            An object with the settings as attributes, or a mapping of them. Those that are `None` or that it does not
            have are passed over.
        ranges (`Mapping[str, tuple[float, float]]`):
            Setting -> its least and its greatest value.

    Raises:
        UsageError: it names the setting.
    """
    settings = settings if isinstance(settings, Mapping) else vars(settings)
    for name, (low, high) in ranges.items():
        value = settings.get(name)
        if value is not None and not low <= value <= high:  # nor is it, if it is NaN
            least = "above 0" if low == LEAST else f"from {low:g}"
            limits = least if high == MOST else f"{least} to {high:,.12g}"
            raise UsageError(f"{name} is a number {limits}, not {value}")


def nearest(name: str, names: Iterable[str]) -> str:
    """What may have been meant by an unknown name, to end a sentence with."""
    near = difflib.get_close_matches(str(name), names, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def default_data_dir() -> str | None:
    """Folder of local copies, from the environment variable `GPT1_DATA_DIR`."""
    return os.environ.get("GPT1_DATA_DIR") or None
