"""Checks of the values in a plan's YAML."""

from pathlib import Path
from typing import Any

from ...errors import UsageError


def check_text(where: str | Path, key: str, value: Any):
    """Raise if the value of a key is not a text."""
    if not isinstance(value, str):
        raise UsageError(f"{where}: {key!r} must be a name, not a {type(value).__name__}")


def whole_number(name: str, value: Any) -> int:
    """The value of a key as a whole number of at least 0; another value is an error."""
    if not str(value).isdecimal():
        raise UsageError(f"{name!r} must be a whole number, not {value!r}")
    return int(value)


def mapping(where: str | Path, content: dict[str, Any], key: str) -> dict[str, Any]:
    """The mapping under a key; an empty one if the key is missing. Another value is an error."""
    value = content.get(key) or {}
    if not isinstance(value, dict):
        raise UsageError(f"{where}: {key!r} must be a mapping of `key: value` lines, not a {type(value).__name__}")
    for name in value:
        if not isinstance(name, str):
            raise UsageError(f"{where}: {name!r} below {key!r} is not a word: write it in quotes")
    return value
