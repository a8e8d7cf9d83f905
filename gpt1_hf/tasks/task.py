"""A task: its settings, and its rows.

This module imports nothing heavy, so that commands list tasks at once; `rows.py` reads the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .spec import TaskSpec


if TYPE_CHECKING:
    from datasets import Dataset


class Task(TaskSpec):
    """A benchmark of the paper (§4.2), or a task on a user's own data. [`TaskSpec`] lists its fields."""

    def load(self, split: str, data_dir: str | None = None, sample: bool = False) -> Dataset:
        """
        Load a split in canonical columns, plus `label` (see below), `idx` and, if its rows belong to subsets,
        `subset`.

        `label` is a class id, a score, one 0.0 or 1.0 for each label name (several labels per row), or a list of class
        ids (one per word). `idx` is the data's own, or else the row's number in the file, from 0; errors name it.

        Args:
            split (`str`):
                `train`, `validation` or `test`, or a subset of one, such as `validation_matched`.
            data_dir (`str`, *optional*):
                Folder with local copies laid out as on the Hub, searched first.
            sample (`bool`, *optional*, defaults to `False`):
                Whether to load the small labelled sample in the package instead.

        Returns:
            `Dataset`. Hidden labels (−1) stay as they are. If a local copy lacks some subsets of the split, the others
            are returned, with a warning.

        Raises:
            MissingSplitError: if a local copy lacks the split.
            GPT1Error: if the data is not available, a column or a value is missing, or a label is not one of the
            task's.
        """
        from .rows import load

        return load(self.resolved(data_dir), split, data_dir, sample)

    def canonical(self, rows: Dataset, where: str) -> Dataset:
        """Rename columns, check texts and labels, and keep only what the task reads; `where` begins the errors."""
        from .rows import Place, canonical

        return canonical(self, rows, Place(where))

    def resolved(self, data_dir: str | None = None) -> Task:
        """
        The task with its missing settings inferred from the training rows: kind and names of labels, range of scores,
        metric, and whether a validation split is held out. One log line says what was inferred.

        A complete task, such as every built-in one, is returned unchanged. The rows are read once.

        Args:
            data_dir (`str`, *optional*):
                Folder with local copies laid out as on the Hub, searched first.

        Raises:
            GPT1Error: if the rows cannot be read, or do not determine what is missing.
        """
        if self.is_complete:
            return self
        from .inference import resolve

        return resolve(self, data_dir)
