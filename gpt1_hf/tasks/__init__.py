"""The benchmarks: one file per family of data sets, which holds a task's whole truth.

This folder is the list of tasks: every [`Task`] that a module's `TASKS` names can be loaded by its id.
"""

from importlib import import_module
from pkgutil import iter_modules

from ..errors import UsageError
from ..settings import nearest
from .task import Task


def all_tasks(zero_shot: bool = False) -> dict[str, Task]:
    """
    The tasks of every family.

    Args:
        zero_shot (`bool`, *optional*, defaults to `False`):
            Whether to include those that nothing is fine-tuned for.

    Returns:
        `dict`: task id -> [`Task`].
    """
    families = [module.name for module in iter_modules(__path__) if module.name != "task"]
    tasks = [task for family in families for task in import_module(f".{family}", __name__).TASKS]
    return {task.id: task for task in tasks if zero_shot or task.input_format}


def load_task(task_id: str) -> Task:
    """
    Look up a task by its id.

    Raises:
        UsageError: if there is no such task.
    """
    tasks = all_tasks(zero_shot=True)
    if task_id not in tasks:
        raise UsageError(f"there is no task {task_id!r}{nearest(task_id, tasks)} (tasks: {', '.join(sorted(tasks))})")
    return tasks[task_id]


__all__ = ["Task", "all_tasks", "load_task"]
