"""MultiNLI has two versions of each evaluation split: genres that are in train (matched), and others (mismatched)."""

from datasets import Dataset

from .rows import open_split, open_subsets
from .spec import TaskSpec


def read(task: TaskSpec, split: str, data_dir: str | None, sample: bool) -> dict[str, Dataset]:
    """`train` is a single split; every other split has a part for each subset."""
    if split == "train":
        return {split: open_split(task, split, data_dir, sample)}
    whole, _, _ = split.partition("_")
    return open_subsets(task, split, lambda subset: open_split(task, f"{whole}_{subset}", data_dir, sample))
