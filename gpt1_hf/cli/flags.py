"""Fast checks of a command line, before torch and transformers are imported.

The settings of most commands are dataclasses, and importing these takes seconds. Here their fields, and those of
transformers' `TrainingArguments`, are read from the source files as transformers' `HfArgumentParser` would read them
from the classes. That parser then makes the final checks (`parser.py`).
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
from ..resources import PACKAGE, read_yaml
from ..settings import nearest
from .groups import GROUPS


# Name that a package re-exports -> module and name of its definition.
RE_EXPORTS = {"transformers.TrainingArguments": "transformers.training_args.TrainingArguments"}
COMPUTED = object()  # stands for a value that is not a literal in the source file
FLAG = re.compile(r"--[A-Za-z][\w.-]*")
BOOLEANS = ("yes", "true", "t", "y", "1", "no", "false", "f", "n", "0")


def split_at_end_of_flags(argv: list[str]) -> tuple[list[str], list[str]]:
    """Split a command line before `--`, after which no word is a flag."""
    end = argv.index("--") if "--" in argv else len(argv)
    return argv[:end], argv[end:]


def with_underscores(argv: list[str]) -> list[str]:
    """Replace `-` by `_` in the names of flags: `--output-dir=a-b` becomes `--output_dir=a-b`."""
    flags, texts = split_at_end_of_flags(argv)
    words = []
    for word in flags:
        flag, equals, value = word.partition("=")
        words.append(f"--{flag[2:].replace('-', '_')}{equals}{value}" if FLAG.fullmatch(flag) else word)
    return words + texts


class Parser(argparse.ArgumentParser):
    """argparse's parser, with errors of one line."""

    def __init__(self, command: str | None = None, description: str | None = None, **kwargs: Any):
        kwargs.setdefault("prog", f"gpt1 {command}")
        super().__init__(description=description, allow_abbrev=False, **kwargs)
        # As `with_underscores` writes it. Where no option is hidden, it is `--help`.
        self.add_argument("--help_all", action="help", help=argparse.SUPPRESS)
        if command is not None:  # for the help only: `cli.main` removes the flag before it runs a command
            self.add_argument(
                "--quiet", action="store_true", default=argparse.SUPPRESS, help="Print only the result and errors."
            )

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message}; --help lists the arguments\n")

    def parse_args(self, args: list[str], namespace: argparse.Namespace | None = None) -> argparse.Namespace:
        # argparse would report missing arguments before unknown ones.
        known = set(self.flags())
        for word in split_at_end_of_flags(args)[0]:
            flag = word.split("=")[0]  # without the value, which may be a secret
            if FLAG.fullmatch(flag) and flag not in known:
                raise UsageError(f"unknown argument {flag}{nearest(flag, known)}")
        return super().parse_args(args, namespace)

    def flags(self) -> Iterator[str]:
        """The flags of the command and of its actions, such as `gpt1 recipes show`."""
        for action in self._actions:
            yield from action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    yield from parser.flags()


def check(
    reference: str, argv: list[str], command: str, description: str, required: Iterable[tuple[str, ...]] = ()
) -> argparse.Namespace:
    """
    Check a command line and its YAML file against a dataclass without importing it, or print the help and exit.

    Args:
        reference (`str`):
            Module and name of the dataclass, such as `gpt1_hf.training.arguments.FinetuneArguments`.
        argv (`list[str]`):
            Command line without the command's name.
        command (`str`):
            Name of the command.
        description (`str`):
            What the command does.
        required (`Iterable[tuple[str, ...]]`, *optional*):
            Required settings, given by flag or YAML. One setting of each tuple is enough.

    Returns:
        `argparse.Namespace`: the given flags. Some types are only checked by [`parse`](parser.py).

    Raises:
        UsageError: if a flag or a key of the YAML file is unknown, or a required setting is missing.
        SystemExit: from argparse, with status 0 after the help, and 2 if the value of a flag is missing or wrong.
    """
    fields = read_fields(reference)
    parser = settings_parser(fields, command, description, "--help_all" in split_at_end_of_flags(argv)[0])
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
            purpose = (fields[names[0]].help or "").split(".")[0]
            raise UsageError(f"{command} needs {' or '.join(f'--{name}' for name in names)} ({purpose})")
    return args


def settings_parser(fields: dict[str, "Field"], command: str, description: str, show_all: bool = False) -> Parser:
    """
    Parser of a command whose flags are the fields of a dataclass.

    The help shows the fields of this package and those in [`GROUPS`](groups.py). It shows the other fields, which are
    inherited from transformers' `TrainingArguments`, only with `show_all`. The parser always accepts them.
    """
    listed = [name for names in GROUPS.values() for name in names]
    inherited = [name for name, field in fields.items() if not field.is_own and name not in listed]
    parser = Parser(
        command,
        description,
        usage="%(prog)s [--config FILE] [--OPTION VALUE ...]",
        argument_default=argparse.SUPPRESS,
        epilog=f"--help-all also lists {len(inherited)} options of transformers' TrainingArguments."
        if inherited and not show_all
        else None,
    )
    parser.add_argument("--config", help="YAML file or name of a shipped recipe. Flags override its values.")
    if inherited:
        parser.add_argument("--help-all", action="help", help="Also show the inherited options and exit.")
    if not inherited:
        for field in fields.values():
            field.add_to(parser)
        return parser
    for title, names in GROUPS.items():
        if shown := [name for name in names if name in fields]:
            group = parser.add_argument_group(title)
            for name in shown:
                fields[name].add_to(group)
    for name, field in fields.items():
        if field.is_own and name not in listed:
            field.add_to(parser)
    group = parser.add_argument_group("inherited from transformers' TrainingArguments") if show_all else parser
    for name in inherited:
        fields[name].add_to(group, shown=show_all)
    return parser


@dataclass(frozen=True)
class Field:
    """A field of a dataclass, as a flag."""

    name: str
    kind: str  # the type that `HfArgumentParser` would choose
    default: Any
    help: str | None
    choices: tuple[str, ...] | None
    nargs: str | None
    is_own: bool  # whether a class of this package defines it, and not one of transformers

    @property
    def is_switch(self) -> bool:
        """Whether the flag is a boolean that needs no value."""
        has_switch = self.default is not None or self.nargs == "?"
        return self.kind == "bool" or (self.kind == "bool | None" and has_switch)

    def add_to(self, parser: argparse._ActionsContainer, shown: bool = True):
        """
        Add the flag to a parser or a group of one, and `--no_<name>` for a boolean that is true by default. The help
        leaves it out unless `shown`.
        """
        text = self.help or ""
        if self.default is not COMPUTED and self.default is not None:
            text += f" (default: {str(self.default).replace('%', '%%')})"
        nargs = "?" if self.is_switch else "+" if self.kind.startswith("list") else self.nargs
        convert = {"int": int, "float": float, "bool": check_boolean, "bool | None": check_boolean}.get(self.kind)
        keywords = {"nargs": nargs, "type": convert, "choices": self.choices}
        keywords["help"] = text if shown else argparse.SUPPRESS
        if self.is_switch:
            keywords |= {"const": True, "metavar": "true|false"}
        if self.choices:
            keywords["metavar"] = self.name.upper() if len(self.choices) > 8 else None
        parser.add_argument(f"--{self.name}", **keywords)
        if self.kind.startswith("bool") and self.default is True:
            parser.add_argument(f"--no_{self.name}", dest=self.name, action="store_false", help=argparse.SUPPRESS)


def check_boolean(word: str) -> str:
    """Return a word for a boolean unchanged; any other word is an error."""
    if word.lower() not in BOOLEANS:
        raise argparse.ArgumentTypeError(f"expected true or false, not {word!r}")
    return word


def read_fields(reference: str) -> dict[str, Field]:
    """Fields of a dataclass, starting with those of its bases, read from its source file."""
    module, tree, definition = find_class(reference)
    fields = {}
    for base in definition.bases:
        fields |= read_fields(resolve_class(ast.unparse(base), module, tree))
    for statement in definition.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
            fields[name] = read_field(name, statement, module, tree)
    return fields


def read_field(name: str, statement: ast.AnnAssign, module: str, tree: ast.Module) -> Field:
    """Read one field as `HfArgumentParser._parse_dataclass_field` does."""
    kind = kind_of(statement.annotation)
    default, metadata, keywords = None, {}, {}
    if isinstance(statement.value, ast.Call) and ast.unparse(statement.value.func) == "field":
        keywords = {keyword.arg: keyword.value for keyword in statement.value.keywords}
        if isinstance(mapping := keywords.get("metadata"), ast.Dict):
            metadata = dict(zip(map(literal, mapping.keys), map(literal, mapping.values), strict=True))
        default = COMPUTED
        if "default" in keywords:
            default = literal(keywords["default"])
        elif isinstance(factory := keywords.get("default_factory"), ast.Lambda):
            default = literal(factory.body)
    elif statement.value is not None:
        default = literal(statement.value)
    if kind.startswith("list") and "default_factory" not in keywords:
        default = None  # as in `HfArgumentParser`
    choices = metadata.get("choices")
    if kind.startswith("Literal["):
        choices = literal(ast.parse(kind.removeprefix("Literal")).body[0].value)
    elif kind.isidentifier() and kind[0].isupper():
        choices = enum_values(resolve_class(kind, module, tree)) or choices
    choices = tuple(choices) if isinstance(choices, list | tuple) else None
    text = metadata.get("help")
    text = text if isinstance(text, str) else None
    is_own = module.split(".")[0] == PACKAGE.name
    return Field(name, kind, default, text, choices, metadata.get("nargs"), is_own)


def kind_of(annotation: ast.expr) -> str:
    """The type of an annotation that `HfArgumentParser` chooses. It knows unions of two types."""
    kinds = [ast.unparse(member) for member in union_members(annotation)]
    if len(kinds) == 1:
        return kinds[0]
    if "None" in kinds and "bool" in kinds:
        return "bool | None"
    ignored = "None" if "None" in kinds else "str"
    return kinds[0] if kinds[1] == ignored else kinds[1]


def union_members(annotation: ast.expr) -> list[ast.expr]:
    """Types in a union of either notation; any other type alone."""
    if isinstance(annotation, ast.BinOp):
        return union_members(annotation.left) + union_members(annotation.right)
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) in ("Optional", "Union"):
        inner = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        none = [ast.Constant(None)] if ast.unparse(annotation.value) == "Optional" else []
        return [kind for each in inner for kind in union_members(each)] + none
    return [annotation]


def literal(node: ast.expr) -> Any:
    """Value of an expression that consists of literals, otherwise `COMPUTED`."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return COMPUTED


def enum_values(reference: str) -> list[Any] | None:
    """Values of an enumeration, or `None` for any other class."""
    try:
        _, _, definition = find_class(reference)
    except LookupError:
        return None
    if not any(ast.unparse(base).endswith("Enum") for base in definition.bases):
        return None
    return [literal(statement.value) for statement in definition.body if isinstance(statement, ast.Assign)]


def resolve_class(name: str, module: str, tree: ast.Module) -> str:
    """Full name of a class that a module defines or imports with `from ... import`."""
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and name in [alias.name for alias in statement.names]:
            package = module if source_file(module).name == "__init__.py" else module.rpartition(".")[0]
            origin = resolve_name("." * statement.level + (statement.module or ""), package)
            return RE_EXPORTS.get(f"{origin}.{name}", f"{origin}.{name}")
    return f"{module}.{name}"


def find_class(reference: str) -> tuple[str, ast.Module, ast.ClassDef]:
    """Module of a class, with the syntax trees of the module and of the class."""
    module, _, name = reference.rpartition(".")
    tree = parse_module(module)
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef) and statement.name == name:
            return module, tree, statement
    raise LookupError(f"there is no class {name} in {module}")


def read_constant(reference: str) -> Any:
    """
    Value of a module's constant that consists of literals; for a dictionary, the list of its keys.

    Args:
        reference (`str`):
            Module and name, such as `gpt1_hf.checkpoints.export.FORMATS`.
    """
    module, _, name = reference.rpartition(".")
    for statement in parse_module(module).body:
        target = getattr(statement, "target", None) or next(iter(getattr(statement, "targets", [])), None)
        if isinstance(statement, ast.Assign | ast.AnnAssign) and ast.unparse(target) == name:
            value = statement.value
            return [literal(key) for key in value.keys] if isinstance(value, ast.Dict) else literal(value)
    raise LookupError(f"there is no constant {name} in {module}")


@functools.cache
def parse_module(module: str) -> ast.Module:
    """Syntax tree of a module."""
    return ast.parse(source_file(module).read_text(encoding="utf-8"))


@functools.cache
def source_file(module: str) -> Path:
    """Source file of a module. `find_spec(module)` would import the packages around it."""
    package, *names = module.split(".")
    path = Path(find_spec(package).submodule_search_locations[0], *names)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
