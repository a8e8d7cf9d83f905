"""Settings from YAML and the command line: dataclass default < YAML < command line; an unknown key is an error."""

import argparse
import dataclasses
import difflib
from typing import Any, TypeVar

from transformers import HfArgumentParser

from ..errors import GPT1Error
from ..resources import read_yaml


T = TypeVar("T")


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
        GPT1Error: if a key is unknown, the YAML is not a mapping of flat keys, or there is no such file.
    """
    parser = HfArgumentParser(
        arguments, prog=f"gpt1 {command}", description=description, allow_abbrev=False, add_help=False
    )
    parser.add_argument("-h", "--help", action="help", help="Show this message and exit.")
    parser.add_argument("--config", help="YAML file, or name of a shipped recipe; command-line flags override it.")
    known, _ = _config_parser().parse_known_args(argv)
    if recipe:
        parser.set_defaults(**_typed(parser, read_recipe(recipe, arguments)))
    if known.config:
        parser.set_defaults(**_typed(parser, read_recipe(known.config, arguments)))
    instance, namespace, rest = parser.parse_args_into_dataclasses(argv, return_remaining_strings=True)
    if rest:
        flag = rest[0].split("=")[0]  # its value may be a secret
        raise GPT1Error(f"unknown argument {flag}{_nearest(flag.lstrip('-'), arguments, '--')}")
    return instance


def read_recipe(path: str, arguments: type) -> dict[str, Any]:
    """
    Read a recipe and check its keys against a dataclass.

    Raises:
        GPT1Error: as [`parse`].
    """
    file, recipe = read_yaml(path)
    names = {field.name for field in dataclasses.fields(arguments) if field.init}
    for key in recipe:
        if key not in names:
            raise GPT1Error(f"{file}: unknown key {key!r}{_nearest(str(key), arguments)}")
    return recipe


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
    return typed


def _nearest(name: str, arguments: type, prefix: str = "") -> str:
    near = difflib.get_close_matches(name, [field.name for field in dataclasses.fields(arguments)], n=1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""
