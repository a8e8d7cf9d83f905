"""List, show or copy the shipped recipes."""

import shutil
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
    for action, line in (("show", "Print a recipe."), ("copy", "Copy a recipe to edit it.")):
        sub = actions.add_parser(action, help=line)
        sub.add_argument("name", help="Name as `gpt1 recipes ls` prints it, such as finetune/cola.")
    sub.add_argument("destination", nargs="?", default=".", help="File or folder. Default: the current folder.")
    args = parser.parse_args(argv)

    if args.action == "ls":
        for line in listing():
            print(line)
    elif args.action == "show":
        file, _ = read_yaml(args.name)  # which tells what is wrong with it
        print(file.read_text(encoding="utf-8"), end="")
    else:
        source, destination = find_recipe(args.name), Path(args.destination)
        destination = destination / source.name if destination.is_dir() else destination
        if destination.exists():
            raise GPT1Error(f"{destination} exists; give another destination or remove it first")
        with writing(destination, "give another destination"):
            shutil.copyfile(source, destination)
        print(destination)


def listing() -> list[str]:
    """One line a recipe: its name and, of a task, metric and the paper's numbers."""
    cells = {}
    for table in TABLES.values():
        for cell in table:
            cells.setdefault(cell.task, []).append(cell)
    lines = []
    for path in sorted(recipes_dir().rglob("*.yaml")):
        name = path.relative_to(recipes_dir()).with_suffix("").as_posix()
        task = cells.get(path.stem) if path.parent.name == "finetune" else None
        if task is None:
            lines.append(name)
            continue
        whole = [str(cell.paper) for cell in task if not cell.subset]
        subsets = ", ".join(f"{cell.subset} {cell.paper}" for cell in task if cell.subset)
        numbers = f"{whole[0]} ({subsets})" if whole and subsets else whole[0] if whole else subsets
        lines.append(f"{name:<24} {path.stem:<12} {task[0].metric:<21} paper {numbers}")
    return lines
