"""Checks of settings before the work starts: a wrong number would fail late, or silently change the result."""

import difflib
import os
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import UsageError


NO_LIMIT = 2**63 - 1  # as an upper bound: there is no bound
POSITIVE = 1e-12  # as a lower bound: above 0


def check_ranges(settings: Any, ranges: Mapping[str, tuple[float, float]]):
    """
    Raise if a number is outside the range of its setting.

    Args:
        settings (`Any`):
            An object with the settings as attributes, or a mapping of them. Missing settings and `None` are skipped.
        ranges (`Mapping[str, tuple[float, float]]`):
            Setting -> smallest and largest value; see `POSITIVE` and `NO_LIMIT`.

    Raises:
        UsageError: names the setting, its range and the value.
    """
    settings = settings if isinstance(settings, Mapping) else vars(settings)
    for name, (low, high) in ranges.items():
        value = settings.get(name)
        if value is not None and not low <= value <= high:  # also true of NaN
            least = "above 0" if low == POSITIVE else f"at least {low:g}"
            limits = least if high == NO_LIMIT else f"{least} and at most {high:,.12g}"
            raise UsageError(f"{name} must be {limits}, not {value}")


def nearest(name: str, names: Iterable[str]) -> str:
    """End of an error message about an unknown name: `; did you mean X?`, or nothing if no name is close."""
    near = difflib.get_close_matches(str(name), names, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def default_data_dir() -> str | None:
    """Folder of local copies of data sets, from the environment variable `GPT1_DATA_DIR`."""
    return os.environ.get("GPT1_DATA_DIR") or None
