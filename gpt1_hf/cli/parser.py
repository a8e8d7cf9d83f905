"""Settings from YAML and the command line: dataclass default < YAML < command line; an unknown key is an error."""

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


class Parser(HfArgumentParser):
    """transformers' parser, which tells what is wrong without listing all of its hundred flags before."""

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
            Name of the command, for the help.
        description (`str`):
            What the command does, for the help.
        recipe (`str`, *optional*):
            Recipe whose values take the place of the dataclass's defaults, below `--config`.

    Returns:
        An instance of `arguments`.

    Raises:
        UsageError: if a key is unknown, a value is not one that its setting takes, the YAML is not a mapping of flat
            keys, or there is no such file.
    """
    parser = Parser(arguments, prog=f"gpt1 {command}", description=description, allow_abbrev=False, add_help=False)
    parser.add_argument("-h", "--help", action="help", help="Show this message and exit.")
    parser.add_argument("--config", help="YAML file, or name of a shipped recipe; command-line flags override it.")
    known, _ = _config_parser().parse_known_args(argv)
    with wrong_usage():
        if recipe:
            parser.set_defaults(**_typed(parser, read_recipe(recipe, arguments)))
        if known.config:
            parser.set_defaults(**_typed(parser, read_recipe(known.config, arguments)))
        instance, namespace, rest = parser.parse_args_into_dataclasses(argv, return_remaining_strings=True)
    if rest:
        flag = rest[0].split("=")[0]  # its value may be a secret
        raise UsageError(f"unknown argument {flag}{nearest(flag, parser._option_string_actions)}")
    return instance


@contextmanager
def wrong_usage() -> Iterator[None]:
    """Tell what goes wrong in reading settings as their fault, also where a library's dataclass checks them."""
    try:
        yield
    except UsageError:
        raise
    except (ValueError, OSError) as error:
        raise UsageError(" ".join(str(error).split())) from error


def read_recipe(path: str, arguments: type) -> dict[str, Any]:
    """
    Read a recipe and check its keys against a dataclass.

    Raises:
        UsageError: as [`parse`].
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
    """Raise if a setting is a mapping, a list or nothing, and may not be; of scalars the parser checks the type."""
    each = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kinds = {get_origin(kind) or kind for kind in each}
    if value is None:
        if type(None) not in kinds:
            raise UsageError(f"{where} has no value: give it one, or leave the line out for its default")
    elif isinstance(value, dict):
        if dict not in kinds:
            raise UsageError(f"{where} is one value, not a mapping of several")
    elif isinstance(value, list):
        if list not in kinds or not all(isinstance(one, str | int | float) for one in value):
            raise UsageError(f"{where} is {'a list of plain values' if list in kinds else 'one value, not a list'}")
    elif not isinstance(value, str | int | float | datetime.date):
        raise UsageError(f"{where} is a {type(value).__name__}: give it a number, a word, or true or false")


def _config_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    return parser


def _typed(parser: argparse.ArgumentParser, recipe: dict[str, Any]) -> dict[str, Any]:
    """YAML scalars as the parser's types: argparse casts defaults that are strings (`1e-4` is one in YAML 1.1)."""
    types = {action.dest: action for action in parser._actions}
    typed = {}
    for key, value in recipe.items():
        action = types[key]
        if isinstance(value, bool) and action.type is not None and action.type not in (bool, str):
            is_flag = getattr(action.type, "__name__", "") == "string_to_bool"
            # `eval_strategy: no` is the word, though YAML 1.1 reads it as false.
            typed[key] = value if is_flag else {True: "yes", False: "no"}[value]
        elif isinstance(value, dict | list | bool) or value is None:
            typed[key] = value
        else:
            typed[key] = str(value)
        # argparse compares what it reads with the choices, but not defaults.
        if isinstance(typed[key], str) and action.choices and typed[key] not in map(str, action.choices):
            raise UsageError(f"{key} is one of {', '.join(map(str, action.choices))}, not {value!r}")
    return typed
