"""List, show or copy the shipped recipes."""

import argparse
import shutil
from pathlib import Path

from ..errors import GPT1Error, writing
from ..resources import find_recipe, read_yaml, recipes_dir


def main(argv: list[str]):
    parser = argparse.ArgumentParser(prog="gpt1 recipes", description=__doc__)
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
    from ..tasks import all_tasks

    tasks = all_tasks()
    lines = []
    for path in sorted(recipes_dir().rglob("*.yaml")):
        name = path.relative_to(recipes_dir()).with_suffix("").as_posix()
        task = tasks.get(path.stem) if path.parent.name == "finetune" else None
        if task is None:
            lines.append(name)
            continue
        number = str(task.paper) if task.pooled else ""
        subsets = ", ".join(f"{subset} {paper}" for subset, paper in task.subsets.items())
        numbers = f"{number} ({subsets})" if number and subsets else number or subsets
        lines.append(f"{name:<24} {task.id:<12} {task.metric:<21} paper {numbers}")
    return lines
