"""List, show or copy the shipped recipes."""

import ast
import shutil
from pathlib import Path
from typing import Any

import yaml

from ..errors import GPT1Error
from ..files import writing
from ..resources import PACKAGE, find_recipe, read_yaml, recipes_dir
from .flags import Parser


def main(argv: list[str]):
    parser = Parser("recipes", __doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("ls", help="List the recipes.")
    for action, line in (("show", "Print a recipe."), ("copy", "Copy a recipe, for editing.")):
        sub = actions.add_parser(action, help=line)
        sub.add_argument("name", help="Name in the output of `gpt1 recipes ls`, such as finetune/cola.")
    sub.add_argument(
        "destination", nargs="?", default=".", help="File or folder to copy to. Default: the current folder."
    )
    args = parser.parse_args(argv)

    if args.action == "ls":
        for line in listing():
            print(line)
    elif args.action == "show":
        file, _ = read_yaml(args.name)  # checks the YAML
        print(file.read_text(encoding="utf-8"), end="")
    else:
        source, destination = find_recipe(args.name), Path(args.destination)
        destination = destination / source.name if destination.is_dir() else destination
        if destination.exists():
            raise GPT1Error(f"{destination} exists: give another destination, or remove it first")
        with writing(destination, "give another destination"):
            shutil.copyfile(source, destination)
        print(destination)


def listing() -> list[str]:
    """One line for each recipe: its name and, for a task, the metric and the paper's numbers."""
    lines = []
    for path in sorted(recipes_dir().rglob("*.yaml")):
        name = path.relative_to(recipes_dir()).with_suffix("").as_posix()
        task = read_task(path.stem) if path.parent.name == "finetune" else None
        if task is None:
            lines.append(name)
            continue
        parts = task.get("subsets", {})
        subsets = ", ".join(f"{part} {numbers['paper']}" for part, numbers in parts.items())
        whole = str(task["paper"]) if task.get("pooled", True) or not parts else ""
        numbers = f"{whole} ({subsets})" if whole and subsets else whole or subsets
        lines.append(f"{name:<24} {path.stem:<12} {task['metric']:<21} paper {numbers}")
    return lines


def read_task(task_id: str) -> dict[str, Any] | None:
    """A task's declaration, read without slow imports; `None` if there is no such task."""
    file = PACKAGE / "tasks" / f"{task_id}.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else read_from_source(task_id)


def read_from_source(task_id: str) -> dict[str, Any] | None:
    """As [`read_task`], for a task that is declared in Python."""
    for file in sorted((PACKAGE / "tasks").glob("*.py")):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call):
                given = {word.arg: word.value for word in call.keywords}
                if isinstance(given.get("id"), ast.Constant) and given["id"].value == task_id:
                    wanted = ("metric", "paper", "subsets", "pooled")
                    task = {name: ast.literal_eval(given[name]) for name in wanted if name in given}
                    parts = task.get("subsets", {}).items()
                    return task | {"subsets": {part: {"paper": paper} for part, (paper, _) in parts}}
    return None
