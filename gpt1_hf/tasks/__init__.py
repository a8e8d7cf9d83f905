"""Tasks: the paper's benchmarks, and a user's own data in the same form.

Each `.yaml` file of this folder is a built-in task: the folder is the list. Modules beside them hold what YAML cannot
express, such as Story Cloze's split.
"""

from functools import cache

from ..errors import UsageError
from ..settings import nearest
from .definition import FOLDER, describe, describe_inferred, fill_template, read_task, task_from_files
from .task import Task


_read_built_in = cache(lambda path: read_task(path, built_in=True))


def all_tasks(zero_shot: bool = False) -> dict[str, Task]:
    """
    The built-in tasks.

    Args:
        zero_shot (`bool`, *optional*, defaults to `False`):
            Whether to include tasks that are only scored zero-shot.

    Returns:
        `dict`: task id -> [`Task`].
    """
    tasks = [_read_built_in(path) for path in sorted(FOLDER.glob("*.yaml"))]
    return {task.id: task for task in tasks if zero_shot or task.input_format}


def load_task(task_id: str) -> Task:
    """
    Look up a built-in task by its id, or read a task of your own from its YAML file.

    Args:
        task_id (`str`):
            Id, or the path of a file that ends in `.yaml` or `.yml`.

    Raises:
        UsageError: if the task or file does not exist, or the file does not describe a task.
    """
    if str(task_id).endswith((".yaml", ".yml")):
        return read_task(task_id)
    tasks = all_tasks(zero_shot=True)
    if task_id not in tasks:
        raise UsageError(
            f"there is no task {task_id!r}{nearest(task_id, tasks)} (tasks: {', '.join(sorted(tasks))}; a task of "
            "your own is a YAML file)"
        )
    return tasks[task_id]


__all__ = ["Task", "all_tasks", "describe", "describe_inferred", "fill_template", "load_task", "task_from_files"]
