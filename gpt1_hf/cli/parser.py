"""Read settings. A flag overrides a YAML file, which overrides the dataclass default; an unknown key is an error."""

import argparse
import dataclasses
import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from transformers import HfArgumentParser

from ..errors import UsageError
from ..resources import read_yaml
from ..settings import nearest


T = TypeVar("T")


class DataclassParser(HfArgumentParser):
    """transformers' parser, with errors of one line instead of a list of all flags."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message}; --help lists the arguments\n")


def parse(arguments: type[T], argv: list[str], command: str, description: str, recipe: str | None = None) -> T:
    """
    Read one dataclass from `--config FILE.yaml` and command-line flags.

    Args:
        arguments (`type`):
            Dataclass; its fields are the flags and the YAML keys.
        argv (`list[str]`):
            Command line without the command's name.
        command (`str`):
            Name of the command.
        description (`str`):
            What the command does.
        recipe (`str`, *optional*):
            Recipe that overrides the defaults of the dataclass, and is overridden by `--config`.

    Returns:
        An instance of `arguments`.

    Raises:
        UsageError: if a flag or key is unknown, a setting does not accept its value, or the YAML file is missing or
            not a flat mapping.
    """
    parser = DataclassParser(
        arguments, prog=f"gpt1 {command}", description=description, allow_abbrev=False, add_help=False
    )
    parser.add_argument("-h", "--help", action="help", help="Show this message and exit.")
    parser.add_argument("--config", help="YAML file or name of a shipped recipe. Flags override its values.")
    config_parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    config_parser.add_argument("--config")
    config = config_parser.parse_known_args(argv)[0].config
    with as_usage_error():
        if recipe:
            parser.set_defaults(**_typed(parser, read_recipe(recipe, arguments)))
        if config:
            parser.set_defaults(**_typed(parser, read_recipe(config, arguments)))
        instance, _, rest = parser.parse_args_into_dataclasses(argv, return_remaining_strings=True)
    if rest:
        flag = rest[0].split("=")[0]  # without the value, which may be a secret
        raise UsageError(f"unknown argument {flag}{nearest(flag, parser._option_string_actions)}")
    return instance


@contextmanager
def as_usage_error() -> Iterator[None]:
    """Turn any error while settings are read, also from a library's dataclass, into a [`UsageError`]."""
    try:
        yield
    except UsageError:
        raise
    except (ValueError, OSError) as error:
        raise UsageError(" ".join(str(error).split())) from error


def read_recipe(path: str, arguments: type) -> dict[str, Any]:
    """
    Read a recipe and check its keys and values against a dataclass.

    Raises:
        UsageError: as in [`parse`].
    """
    file, recipe = read_yaml(path)
    names = {field.name for field in dataclasses.fields(arguments) if field.init}
    hints = get_type_hints(arguments)
    for key, value in recipe.items():
        if key not in names:
            raise UsageError(f"{file}: unknown key {key!r}{nearest(key, names)}")
        _check_kind(f"{file}: {key}", value, hints[key])
    return recipe


def _check_kind(where: str, value: Any, hint: Any):
    """Raise if a setting does not accept its mapping, list or empty value. The parser checks other types."""
    each = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kinds = {get_origin(kind) or kind for kind in each}
    if value is None:
        if type(None) not in kinds:
            raise UsageError(f"{where} has no value: add one, or remove the line to use the default")
    elif isinstance(value, dict):
        if dict not in kinds:
            raise UsageError(f"{where} takes one value, not a mapping")
    elif isinstance(value, list):
        if list not in kinds or not all(isinstance(one, str | int | float) for one in value):
            raise UsageError(f"{where} takes {'a list of plain values' if list in kinds else 'one value, not a list'}")
    elif not isinstance(value, str | int | float | datetime.date):
        raise UsageError(f"{where} takes a number, a word, true or false, not a {type(value).__name__}")


def _typed(parser: argparse.ArgumentParser, recipe: dict[str, Any]) -> dict[str, Any]:
    """Convert YAML scalars to strings where argparse should convert them: `1e-4` is a string in YAML 1.1."""
    actions = {action.dest: action for action in parser._actions}
    typed = {}
    for key, value in recipe.items():
        action = actions[key]
        if isinstance(value, bool) and action.type is not None and action.type not in (bool, str):
            is_boolean = getattr(action.type, "__name__", "") == "string_to_bool"
            # YAML 1.1 reads the word `no` in `eval_strategy: no` as false.
            typed[key] = value if is_boolean else {True: "yes", False: "no"}[value]
        elif isinstance(value, dict | list | bool) or value is None:
            typed[key] = value
        else:
            typed[key] = str(value)
        # argparse does not check defaults against the choices.
        if isinstance(typed[key], str) and action.choices and typed[key] not in map(str, action.choices):
            raise UsageError(f"{key} must be one of {', '.join(map(str, action.choices))}, not {value!r}")
    return typed
