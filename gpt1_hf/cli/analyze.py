"""Run one of the paper's analyses: a results file and a picture."""

import argparse
import ast
from importlib import import_module

from ..resources import PACKAGE
from .parser import parse


# Action -> module of `gpt1_hf.analysis`: its docstring's first line is the action's in `gpt1 analyze --help`, its
# function `analyze` takes its dataclass `Arguments`.
ACTIONS = {
    "context-length": "context_length",
    "zero-shot": "zero_shot_curves",
}


def main(argv: list[str]):
    parser = argparse.ArgumentParser(prog="gpt1 analyze", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for action, name in ACTIONS.items():
        actions.add_parser(action, help=first_line(name), add_help=False)
    action = parser.parse_args(argv[:1]).action
    module = import_module(f"gpt1_hf.analysis.{ACTIONS[action]}")
    module.analyze(parse(module.Arguments, argv[1:], f"analyze {action}", first_line(ACTIONS[action])))


def first_line(name: str) -> str:
    """First line of a module's docstring, read without importing it."""
    source = (PACKAGE / "analysis" / f"{name}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)).split("\n")[0]
