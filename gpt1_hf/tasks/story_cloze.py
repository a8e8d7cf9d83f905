"""Story Cloze: two CSV files from its authors. `train` and `validation` are parts of the official validation file."""

import logging

from datasets import Dataset
from sklearn.model_selection import train_test_split

from ..data.loading import local_copy, open_dataset, split_files
from ..errors import GPT1Error, MissingSplitError
from .rows import open_split
from .spec import TaskSpec


logger = logging.getLogger(__name__)

# The released code trains on the official validation stories, and holds some of them out (datasets.py, `rocstories`).
OFFICIAL_ROWS, HELD_OUT, SEED = 1871, 374, 3535999445
FILES = {
    "validation": "cloze_test_val__spring2016*.csv",
    "test": "cloze_test_test__spring2016*.csv",
}


def read(task: TaskSpec, split: str, data_dir: str | None, sample: bool) -> dict[str, Dataset]:
    """`test` is the official test file; `train` and `validation` are parts of the official validation file."""
    if sample:
        return {split: open_split(task, split, data_dir, sample)}
    folder = local_copy(task.source, data_dir)
    if folder is None or not folder.is_dir():
        raise GPT1Error(f"cannot load {task.dataset!r}: {task.download}")
    official = "test" if split == "test" else "validation"
    files = sorted(folder.glob(FILES[official])) or split_files(folder, official)
    if not files:
        raise MissingSplitError(f"{folder} has no file of the {official} stories, such as {FILES[official]}")
    rows = open_dataset(str(files[0]), official)
    if "idx" in rows.column_names:
        rows = rows.remove_columns("idx")
    rows = rows.add_column("idx", list(range(len(rows))))
    if split == "test":
        return {split: rows}
    held_out = HELD_OUT
    if len(rows) != OFFICIAL_ROWS:
        held_out = round(len(rows) * HELD_OUT / OFFICIAL_ROWS)
        logger.warning(
            f"{files[0]} has {len(rows)} stories, not the {OFFICIAL_ROWS} of the official file: {held_out} instead of "
            f"{HELD_OUT} are held out"
        )
        if not 0 < held_out < len(rows):
            raise GPT1Error(f"{files[0]} has {len(rows)} stories, too few to hold some out for validation")
    train, validation = train_test_split(range(len(rows)), test_size=held_out, random_state=SEED)
    return {split: rows.select(train if split == "train" else validation)}
