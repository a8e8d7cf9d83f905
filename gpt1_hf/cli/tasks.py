"""List or show tasks, or write the YAML file of a task on your own data."""

import shlex
from dataclasses import replace
from pathlib import Path

from ..console import note
from ..errors import GPT1Error, UsageError
from ..files import writing
from ..settings import default_data_dir
from ..tasks import all_tasks, describe, describe_inferred, fill_template, load_task
from ..tasks.spec import FORMAT_COLUMNS, LABEL_METRICS
from .flags import Parser


def main(argv: list[str]):
    parser = Parser("tasks", __doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("ls", help="List the tasks: id, input format, metric and data set.")
    show = actions.add_parser("show", help="Print a task's YAML, and what its training rows add to it.")
    show.add_argument("task", help="Task id, or a YAML file.")
    show.add_argument("--data_dir", help="Folder with local copies, laid out as on the Hub. Default: GPT1_DATA_DIR.")
    new = actions.add_parser("new", help="Write a task's YAML, guessed from its training file.")
    new.add_argument("file", help="YAML file to write, such as reviews.yaml. Its name is the task's id.")
    new.add_argument("--train_file", required=True, help="Training rows: .csv, .tsv, .jsonl, .json or .parquet.")
    new.add_argument("--validation_file", help="Validation rows. Default: a tenth of the training rows is held out.")
    new.add_argument("--test_file", help="Test rows.")
    new.add_argument("--input_format", choices=FORMAT_COLUMNS, help="Default: guessed from the columns.")
    new.add_argument("--text_column", nargs="+", help="Columns of the texts, in the format's order. Default: guessed.")
    new.add_argument("--choices_column", nargs="+", help="Column of lists, or a column for each choice.")
    new.add_argument("--label_column", help="Column of the label. Default: guessed.")
    new.add_argument("--labels", choices=LABEL_METRICS, help="Kind of labels. Default: inferred from the rows.")
    new.add_argument("--metric", help="Main metric. Default: the usual one for the kind of labels.")
    args = parser.parse_args(argv)

    if args.action == "ls":
        for line in listing():
            print(line)
    elif args.action == "show":
        show_task(args.task, args.data_dir)
    else:
        write_task(**{name: value for name, value in vars(args).items() if name != "action"})


def listing() -> list[str]:
    """One line for each task."""
    lines = []
    for task in all_tasks(zero_shot=True).values():
        config = f" ({task.config})" if task.config else ""
        lines.append(
            f"{task.id:<12} {task.input_format or 'zero-shot only':<16} {task.metric:<21} {task.source}{config}"
        )
    return lines


def show_task(name: str, data_dir: str | None):
    """Print a task's YAML and, of a task on own data, the keys that are inferred from its training rows."""
    task = load_task(name)
    print((describe(task) if task.built_in else Path(name).read_text(encoding="utf-8")).rstrip())
    if not task.is_complete:
        resolved = task.resolved(data_dir or default_data_dir())
        if inferred := describe_inferred(task, resolved):
            print(f"\n# Inferred from the training rows:\n{inferred}", end="")


def write_task(
    file: str,
    train_file: str,
    validation_file: str | None,
    test_file: str | None,
    input_format: str | None,
    text_column: list[str] | None,
    choices_column: list[str] | None,
    label_column: str | None,
    labels: str | None,
    metric: str | None,
):
    """Write a task's YAML file, and print the command that trains on it."""
    path = Path(file)
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{file} must end in .yaml or .yml")
    if path.stem in all_tasks(zero_shot=True):
        raise UsageError(f"{path.stem} is the id of a built-in task: give the file another name")
    if path.exists():
        raise GPT1Error(f"{file} exists; give another name or remove it first")

    from ..tasks.guess import guess_task

    settings = {"labels": labels, "metric": metric}
    task, guesses = guess_task(
        train_file,
        input_format,
        text_column,
        label_column,
        choices_column,
        validation_file=validation_file,
        test_file=test_file,
        **{key: value for key, value in settings.items() if value},
    )
    if guesses:
        note(f"guessed: {'; '.join(guesses)}")
    resolved = replace(task, id=path.stem).resolved()
    with writing(path, "give another name"):
        path.write_text(fill_template(resolved, path.parent), encoding="utf-8")
    print(path)
    note(f"train with: {shlex.join(['gpt1', 'finetune', '--task', file])}")
