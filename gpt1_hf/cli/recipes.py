"""List, show or copy the shipped recipes."""

import shutil
from collections import defaultdict
from itertools import chain
from pathlib import Path

from ..analysis.report.paper import TABLES
from ..errors import GPT1Error
from ..files import writing
from ..resources import find_recipe, read_yaml, recipes_dir
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
        file, _ = read_yaml(args.name)  # an invalid file is an error
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
    """One line for each recipe: its name and, for a task of the paper, the metric and the paper's numbers."""
    cells = defaultdict(list)
    for cell in chain.from_iterable(TABLES.values()):
        cells[cell.task].append(cell)
    lines = []
    for path in sorted(recipes_dir().rglob("*.yaml")):
        name = path.relative_to(recipes_dir()).with_suffix("").as_posix()
        task = path.stem
        if path.parent.name != "finetune" or task not in cells:
            lines.append(name)
            continue
        whole = "".join(str(cell.paper) for cell in cells[task] if not cell.subset)
        subsets = ", ".join(f"{cell.subset} {cell.paper}" for cell in cells[task] if cell.subset)
        numbers = f"{whole} ({subsets})" if whole and subsets else whole or subsets
        lines.append(f"{name:<24} {task:<12} {cells[task][0].metric:<21} paper {numbers}")
    return lines
