"""RACE has questions for middle and high schools: one configuration each on the Hub, and both in `all`."""

from datasets import Dataset

from ..errors import GPT1Error, MissingSplitError
from .rows import open_split, open_subsets, with_subsets
from .spec import TaskSpec


def read(task: TaskSpec, split: str, data_dir: str | None, sample: bool) -> dict[str, Dataset]:
    """Read a split of either layout. In `all`, `example_id` begins with the school."""
    whole, _, _ = split.partition("_")
    try:
        rows = open_split(task, whole, data_dir, sample, "all")
    except MissingSplitError:
        return open_subsets(task, split, lambda subset: open_split(task, whole, data_dir, sample, subset))
    where = f"{task.id} ({whole})"
    if "example_id" not in rows.column_names:
        raise GPT1Error(
            f"{where}: column 'example_id' is missing; the file has {', '.join(map(str, rows.column_names))}"
        )
    schools = []
    for name in rows["example_id"][:]:
        school = next((subset for subset in task.subsets if str(name).startswith(subset)), None)
        if school is None:
            raise GPT1Error(f"{where}: example_id {name!r} begins with neither 'middle' nor 'high'")
        schools.append(school)
    return {whole: with_subsets(rows, schools)}
