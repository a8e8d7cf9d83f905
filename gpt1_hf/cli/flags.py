"""Arguments without waiting for them: what can be told of a command line before anything heavy is imported.

The settings of most commands are dataclasses, which can only be imported with torch and transformers: seconds. Their
fields are read from the source files instead, transformers' `TrainingArguments` among them, as
transformers' `HfArgumentParser` would read them from the classes. That parser has the last word (`parser.py`).
"""

import argparse
import ast
import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..resources import read_yaml
from ..settings import nearest


# A name that a package offers -> where it is defined.
HOMES = {"transformers.TrainingArguments": "transformers.training_args.TrainingArguments"}
UNKNOWN = object()  # a default that is not written out
FLAG = re.compile(r"--[A-Za-z][\w.-]*")
BOOLEANS = ("yes", "true", "t", "y", "1", "no", "false", "f", "n", "0")


def underscored(argv: list[str]) -> list[str]:
    """The same with the names of flags spelt with `_`: `--output-dir=a-b` is `--output_dir=a-b`."""
    end = argv.index("--") if "--" in argv else len(argv)
    words = []
    for word in argv[:end]:
        flag, equals, value = word.partition("=")
        words.append(f"--{flag[2:].replace('-', '_')}{equals}{value}" if FLAG.fullmatch(flag) else word)
    return words + argv[end:]


class Parser(argparse.ArgumentParser):
    """argparse's parser, which tells what is wrong in one line."""

    def __init__(self, command: str | None = None, description: str | None = None, **kwargs: Any):
        kwargs.setdefault("prog", f"gpt1 {command}")
        super().__init__(description=description, allow_abbrev=False, **kwargs)
        if command is not None:  # taken out by `cli.main`, which every command needs it for
            self.add_argument(
                "--quiet",
                action="store_true",
                default=argparse.SUPPRESS,
                help="Print the result only, and what is wrong.",
            )

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message}; --help lists the arguments\n")

    def parse_args(self, args: list[str], namespace: argparse.Namespace | None = None) -> argparse.Namespace:
        # Before argparse does, as that names the arguments that are missing first.
        end = args.index("--") if "--" in args else len(args)
        for word in args[:end]:
            flag = word.split("=")[0]  # its value may be a secret
            if FLAG.fullmatch(flag) and flag not in (known := set(self.flags())):
                raise UsageError(f"unknown argument {flag}{nearest(flag, known)}")
        return super().parse_args(args, namespace)

    def flags(self) -> Iterator[str]:
        """Its flags, and those of its actions (`gpt1 recipes show`)."""
        for action in self._actions:
            yield from action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    yield from parser.flags()


def check(
    reference: str, argv: list[str], command: str, description: str, required: Iterable[tuple[str, ...]] = ()
) -> argparse.Namespace:
    """
    End with a word on the first thing that is wrong with a command line or its YAML, or with the help.

    Args:
        reference (`str`):
            Module and name of the dataclass that [`parse`] will read, such as
            `gpt1_hf.training.arguments.FinetuneArguments`.
        argv (`list[str]`):
            Command line without the command's name.
        command (`str`):
            Name of the command.
        description (`str`):
            What the command does.
        required (`Iterable[tuple[str, ...]]`, *optional*):
            Settings that have to be given, by flag or YAML; of each tuple, one is enough.

    Returns:
        What the command line gives; types may be left to be checked.

    Raises:
        UsageError: if a flag or a key of the YAML is unknown, or a required setting is missing.
        SystemExit: from argparse: status 0 after the help, 2 if a flag's value is missing or wrong.
    """
    parser = Parser(command, description, argument_default=argparse.SUPPRESS)
    parser.add_argument("--config", help="YAML file, or name of a shipped recipe; command-line flags override it.")
    fields = read_fields(reference)
    for field in fields.values():
        field.add_to(parser)
    args = parser.parse_args(argv)
    given = {name for name, value in vars(args).items() if value != ""}
    if "config" in args:
        file, recipe = read_yaml(args.config)
        for key in recipe:
            if key not in fields:
                raise UsageError(f"{file}: unknown key {key!r}{nearest(key, fields)}")
        given |= {key for key, value in recipe.items() if value is not None}
    for names in required:
        if not given.intersection(names):
            what = (fields[names[0]].help or "").split(".")[0]
            raise UsageError(f"{command} needs {' or '.join(f'--{name}' for name in names)} ({what})")
    return args


@dataclass(frozen=True)
class Field:
    """A field of a dataclass as a flag."""

    name: str
    kind: str  # of its type, what `HfArgumentParser` goes by
    default: Any
    help: str | None
    choices: tuple[str, ...] | None
    nargs: str | None

    @property
    def is_switch(self) -> bool:
        """Whether it is a boolean that needs no value."""
        switched = self.default is not None or self.nargs == "?"
        return self.kind == "bool" or (self.kind == "bool | None" and switched)

    def add_to(self, parser: argparse.ArgumentParser):
        text = self.help or ""
        if self.default is not UNKNOWN and self.default is not None:
            text += f" (default: {str(self.default).replace('%', '%%')})"
        nargs = "?" if self.is_switch else "+" if self.kind.startswith("list") else self.nargs
        kind = {"int": int, "float": float, "bool": truth, "bool | None": truth}.get(self.kind)
        keywords = {"nargs": nargs, "type": kind, "choices": self.choices, "help": text}
        if self.is_switch:
            keywords |= {"const": True, "metavar": "true|false"}
        if self.choices:
            keywords["metavar"] = self.name.upper() if len(self.choices) > 8 else None
        parser.add_argument(f"--{self.name}", **keywords)
        if self.kind.startswith("bool") and self.default is True:
            parser.add_argument(f"--no_{self.name}", dest=self.name, action="store_false", help=argparse.SUPPRESS)


def truth(word: str) -> str:
    """A boolean's word, unchanged."""
    if word.lower() not in BOOLEANS:
        raise argparse.ArgumentTypeError(f"true or false, not {word!r}")
    return word


def read_fields(reference: str) -> dict[str, Field]:
    """Fields of a dataclass, those of its bases first, read from its source file."""
    module, tree, definition = find_class(reference)
    fields = {}
    for base in definition.bases:
        fields |= read_fields(home(ast.unparse(base), module, tree))
    for statement in definition.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
            fields[name] = read_field(name, statement, module, tree)
    return fields


def read_field(name: str, statement: ast.AnnAssign, module: str, tree: ast.Module) -> Field:
    """One field; see `HfArgumentParser._parse_dataclass_field`."""
    kinds = [ast.unparse(member) for member in members(statement.annotation)]
    if len(kinds) > 1:
        if "None" not in kinds:
            kind = kinds[0] if kinds[1] == "str" else kinds[1]
        elif "bool" in kinds:
            kind = "bool | None"
        else:
            kind = kinds[0] if kinds[1] == "None" else kinds[1]
    else:
        kind = kinds[0]
    value, default, metadata, keywords = statement.value, None, {}, {}
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
        keywords = {keyword.arg: keyword.value for keyword in value.keywords}
        if "metadata" in keywords:
            metadata = {literal(key): literal(item) for key, item in zip(*_items(keywords["metadata"]), strict=True)}
        default = UNKNOWN
        if "default" in keywords:
            default = literal(keywords["default"])
        elif isinstance(factory := keywords.get("default_factory"), ast.Lambda):
            default = literal(factory.body)
    elif value is not None:
        default = literal(value)
    if kind.startswith("list") and "default_factory" not in keywords:
        default = None  # as `HfArgumentParser` leaves it
    choices = metadata.get("choices")
    if kind.startswith("Literal["):
        choices = literal(ast.parse(kind.removeprefix("Literal")).body[0].value)
    elif kind.isidentifier() and kind[0].isupper():
        choices = enum_values(home(kind, module, tree)) or choices
    choices = tuple(choices) if isinstance(choices, list | tuple) else None
    text = metadata.get("help")
    return Field(name, kind, default, text if isinstance(text, str) else None, choices, metadata.get("nargs"))


def _items(mapping: ast.expr) -> tuple[list, list]:
    return (mapping.keys, mapping.values) if isinstance(mapping, ast.Dict) else ([], [])


def members(annotation: ast.expr) -> list[ast.expr]:
    """Types of a union, in either spelling; of any other type, itself."""
    if isinstance(annotation, ast.BinOp):
        return members(annotation.left) + members(annotation.right)
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) in ("Optional", "Union"):
        inner = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        none = [ast.Constant(None)] if ast.unparse(annotation.value) == "Optional" else []
        return [kind for each in inner for kind in members(each)] + none
    return [annotation]


def literal(node: ast.expr) -> Any:
    """What an expression is, if it is written out."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return UNKNOWN


def enum_values(reference: str) -> list[Any] | None:
    """Values of an enumeration; of another class, none."""
    try:
        _, _, definition = find_class(reference)
    except LookupError:
        return None
    if not any(ast.unparse(base).endswith("Enum") for base in definition.bases):
        return None
    return [literal(statement.value) for statement in definition.body if isinstance(statement, ast.Assign)]


def home(name: str, module: str, tree: ast.Module) -> str:
    """Module and name of a class that a module defines or imports by `from ... import`."""
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and name in [alias.name for alias in statement.names]:
            package = module if source_file(module).name == "__init__.py" else module.rpartition(".")[0]
            origin = resolve_name("." * statement.level + (statement.module or ""), package)
            return HOMES.get(f"{origin}.{name}", f"{origin}.{name}")
    return f"{module}.{name}"


def find_class(reference: str) -> tuple[str, ast.Module, ast.ClassDef]:
    """A class's module, the module's source, and the class's."""
    module, _, name = reference.rpartition(".")
    tree = source(module)
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef) and statement.name == name:
            return module, tree, statement
    raise LookupError(f"there is no class {name} in {module}")


def read_constant(reference: str) -> Any:
    """
    A module's constant that is written out; of a dictionary, its keys.

    Args:
        reference (`str`):
            Module and name, such as `gpt1_hf.checkpoints.export.FORMATS`.
    """
    module, _, name = reference.rpartition(".")
    for statement in source(module).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name:
            value = statement.value
            return [literal(key) for key in value.keys] if isinstance(value, ast.Dict) else literal(value)
    raise LookupError(f"there is no constant {name} in {module}")


@functools.cache
def source(module: str) -> ast.Module:
    return ast.parse(source_file(module).read_text(encoding="utf-8"))


@functools.cache
def source_file(module: str) -> Path:
    """File of a module; looking for it by `find_spec` would import the packages that it is in."""
    package, *names = module.split(".")
    path = Path(find_spec(package).submodule_search_locations[0], *names)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
