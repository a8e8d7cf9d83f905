"""A task's rows: read as the data set has them, checked, and put into canonical columns."""

import ast
import json
import logging
import math
import re
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Value, concatenate_datasets
from sklearn.model_selection import train_test_split

from ..data.loading import local_copy, open_dataset, open_file, reading_bars
from ..errors import GPT1Error, MissingSplitError, UsageError
from ..resources import SAMPLES
from .task import FORMAT_COLUMNS, Columns, Task


logger = logging.getLogger(__name__)

# Types of columns that can hold neither classes nor scores.
NO_LABELS = ("binary", "large_binary", "date", "time", "duration", "decimal")
JSON_TYPES = {
    str: "text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}
# Every run with a task holds out the same rows, whatever its own seed is.
HELD_OUT_SEED = 42


@reading_bars()
def load(task: Task, split: str, data_dir: str | None, sample: bool) -> Dataset:
    """See [`Task.load`]."""
    if sample and not task.built_in:
        raise UsageError(f"task {task.id} has no sample: the samples in the package are of the built-in tasks")
    task = task.resolved(data_dir)
    whole, _, subset = split.partition("_")
    if whole not in task.splits or (subset and (subset not in task.subsets or whole == "train")):
        known = [*task.splits, *(f"{s}_{part}" for s in task.splits if s != "train" for part in task.subsets)]
        raise UsageError(f"task {task.id} has no split {split!r}; choose one of {', '.join(known)}")
    if task.validation_share and whole != "test":
        rows = canonical(task, open_split(task, "train", data_dir), where(task, "train"))
        train, held_out = hold_out(task, rows)
        return rows.select(train if whole == "train" else held_out)
    parts = read(task, whole, data_dir, sample)
    rows = concatenate_datasets([canonical(task, part, where(task, name)) for name, part in parts.items()])
    if not subset:
        return rows
    chosen = [index for index, name in enumerate(rows["subset"][:]) if name == subset]
    if not chosen:
        raise MissingSplitError(f"the local copy of task {task.id} lacks the split {split!r}")
    return rows.select(chosen)


def read(task: Task, split: str, data_dir: str | None, sample: bool) -> dict[str, Dataset]:
    """The rows of a split as the data set has them: name of the split, or of each of its parts -> rows."""
    if task.code:
        return import_module(f".{task.code}", __package__).read(task, split, data_dir, sample)
    return {split: open_split(task, split, data_dir, sample)}


def open_split(
    task: Task, split: str, data_dir: str | None, sample: bool = False, config: str | None = None
) -> Dataset:
    """Open one of the data set's own splits, unchanged."""
    if sample:
        return open_dataset(str(SAMPLES / task.id), split)
    if task.files:
        if split not in task.files:
            raise MissingSplitError(f"task {task.id} names no {split}_file")
        return open_file(task.files[split])
    folder = local_copy(task.dataset, data_dir)
    if config is None and folder:
        present = [name for name in (task.config, *task.other_configs) if name and (folder / name).is_dir()]
        config = next(iter(present), None)
    return open_dataset(task.dataset, split, config or task.config, data_dir, task.revision)


def open_subsets(task: Task, split: str, open_subset: Callable[[str], Dataset]) -> dict[str, Dataset]:
    """Open each subset of a split. A local copy may lack some of them, with a warning, but not all."""
    parts, missing = {}, {}
    for subset in task.subsets:
        name = f"{split}_{subset}"
        try:
            rows = open_subset(subset)
        except MissingSplitError as error:
            missing[name] = error
        else:
            parts[name] = with_subsets(rows, [subset] * len(rows))
    if not parts:
        raise MissingSplitError(str(next(iter(missing.values()))))
    for name, error in missing.items():
        logger.warning(f"task {task.id}: {name} is not run, because the local copy lacks it ({error})")
    return parts


def with_subsets(rows: Dataset, subsets: list[str]) -> Dataset:
    """Rows with the subset of each; a column `subset` of their own is replaced."""
    return rows.remove_columns([name for name in rows.column_names if name == "subset"]).add_column("subset", subsets)


def where(task: Task, split: str) -> str:
    """How errors name a split: as a task's, or as a user's file."""
    if split in task.files:
        return Path(task.files[split]).name
    return f"{task.id if task.built_in else task.dataset} ({split})"


def hold_out(task: Task, rows: Dataset) -> tuple[list[int], list[int]]:
    """
    Indices of the training rows that stay, and of those held out as the validation split, both in the file's order.

    Classes keep their shares. A class of one row stays in the training rows.
    """
    labels = np.array(rows["label"][:]) if task.labels == "classes" else np.zeros(len(rows), dtype=int)
    present, counts = np.unique(labels, return_counts=True)
    n_held_out = max(round(len(rows) * task.validation_share), 1)
    candidates = np.flatnonzero(np.isin(labels, present[counts > 1]))
    classes = labels[candidates]
    n_classes = int((counts > 1).sum())
    n_held_out = max(n_held_out, n_classes)  # one of each
    if len(candidates) - n_held_out < n_classes or not n_classes:
        raise GPT1Error(
            f"{where(task, 'train')} has {len(rows)} rows, too few to hold some out for validation: give a "
            "validation_file, or more rows"
        )
    _, held_out = train_test_split(candidates, test_size=n_held_out, random_state=HELD_OUT_SEED, stratify=classes)
    is_held_out = np.isin(np.arange(len(rows)), held_out)
    return np.flatnonzero(~is_held_out).tolist(), np.flatnonzero(is_held_out).tolist()


def canonical(task: Task, rows: Dataset, where: str) -> Dataset:
    """See [`Task.canonical`]."""
    layout = find_layout(task, rows, where)
    label_column, choices_column = layout["label"], layout.get("choices")
    own_names = list(dict.fromkeys(name for own in layout.values() for name in _names(own)))
    if not len(rows):
        raise GPT1Error(f"{where}: the file has no rows")
    more = ("idx", "subset") if task.subsets else ("idx",)
    rows = rows.select_columns([*own_names, *(name for name in more if name in rows.column_names)])
    if "idx" in rows.column_names and not task.built_in:  # a user's may hold anything
        rows = rows.remove_columns("idx")
    if "idx" not in rows.column_names:
        rows = rows.add_column("idx", np.arange(len(rows)))
    lists = [name for name in list_columns(task, layout) if isinstance(name, str)]
    for own in lists:
        rows = parse_lists(rows, own, where)
    label, number = rows.features[label_column], rows.features["idx"]
    if label_column not in lists:
        check_label_type(rows, label_column, where)
    if not isinstance(number, Value) or not re.match("u?int|(large_)?string", number.dtype):
        raise GPT1Error(f"{where}: column 'idx' holds {short_type(number)}, which cannot number rows")
    for own in rows.column_names:
        try:
            rows.data.column(own).validate(full=True)
        except pa.ArrowInvalid as error:  # bytes that are not UTF-8, which the JSON reader accepts
            raise GPT1Error(f"{where}: column {own!r} is damaged ({str(error).split(chr(10))[0]})") from error
    for own in own_names:
        check_no_gaps(rows, own, where, is_label=own == label_column)
        if own in (label_column, choices_column, *lists):
            continue
        if rows.features[own] not in (Value("string"), Value("large_string")):
            check_one_type(rows, own, where)
            raise GPT1Error(f"{where}: column {own!r} holds {short_type(rows.features[own])}, which is not text")
        if not task.built_in and own not in _names(layout.get("question", ())):
            check_no_empty_text(rows, own, where)
        rows = rows.cast_column(own, Value("string"))

    for name, own in layout.items():
        if not isinstance(own, str):
            values = zip(*(rows[part][:] for part in own), strict=True)
            joined = [list(texts) if name == "choices" else " ".join(texts) for texts in values]
            rows = rows.remove_columns(list(own)).add_column(f"joined {name}", joined)
    own_name = {name: own if isinstance(own, str) else f"joined {name}" for name, own in layout.items()}
    rows = rows.rename_columns({own: name for name, own in own_name.items() if own != name})
    if task.input_format == "multiple_choice" and "question" not in layout:
        rows = rows.add_column("question", [""] * len(rows))

    if "choices" in layout:
        _check_choices(task, rows, where)
    if "words" in layout:
        _check_words(rows, where, layout["words"], label_column)
    if label_column in lists:
        rows = _number_label_lists(task, rows, where, label_column)
    else:
        rows = _number_labels(task, rows, where, label_column, getattr(label, "names", None))
    if task.drop_unlabelled:
        labelled = np.flatnonzero(np.array(rows["label"][:]) != -1)
        if len(labelled) < len(rows):
            logger.info(f"{where}: {len(rows) - len(labelled)} rows without a gold label are dropped")
            rows = rows.select(labelled)
    names = FORMAT_COLUMNS.get(task.input_format, tuple(task.columns))
    return rows.select_columns([*names, "label", "idx", *(["subset"] if "subset" in rows.column_names else [])])


def _names(own: str | Iterable[str]) -> tuple[str, ...]:
    return (own,) if isinstance(own, str) else tuple(own)


def find_layout(task: Task, rows: Dataset, where: str) -> Columns:
    """Which of the task's layouts the file has; if none, the error names the first missing column."""
    missing_of = []
    for layout in ({**task.columns, "label": task.label_column}, *task.other_layouts):
        names = [name for own in layout.values() for name in _names(own)]
        missing = [name for name in names if name not in rows.column_names]
        if not missing:
            return layout
        missing_of.append(missing)
    missing = min(missing_of, key=len)
    raise GPT1Error(f"{where}: column {missing[0]!r} is missing; the file has {', '.join(rows.column_names)}")


def list_columns(task: Task, layout: Columns) -> list[str]:
    """The data set's own columns that hold a list in each row, and that are not checked elsewhere."""
    if task.built_in:
        return []  # their choices are lists
    names = [layout[name] for name in ("choices", "words") if isinstance(layout.get(name), str)]
    return [*names, layout["label"]] if task.labels in ("multiple", "tags") else names


def is_list(rows: Dataset, column: str) -> bool:
    """Whether a column holds a list in each row."""
    kind = rows.features.arrow_schema.field(column).type
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def parse_lists(rows: Dataset, column: str, where: str) -> Dataset:
    """A column of lists; in CSV a list is written `["a", "b"]`, as JSON or as Python."""
    if is_list(rows, column):
        return rows
    if rows.features[column] not in (Value("string"), Value("large_string")):
        check_one_type(rows, column, where)
        raise GPT1Error(f"{where}: column {column!r} holds {short_type(rows.features[column])}, which is not a list")
    check_no_gaps(rows, column, where, is_label=False)
    lists = []
    for index, cell in enumerate(rows[column][:]):
        found = parse_list(cell)
        if found is None:
            raise GPT1Error(
                f'{where}: row {index}, column {column!r}: {cell[:60]!r} is not a list, such as ["a", "b"]'
            )
        lists.append(found)
    return rows.remove_columns(column).add_column(column, lists)


def parse_list(cell: str) -> list[str] | None:
    """A list from the text of a cell, written as JSON or as Python; `None` if it is no list."""
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list):
            return [value if isinstance(value, str) else str(value) for value in found]
    return None


def check_label_type(rows: Dataset, column: str, where: str):
    """Raise if a column cannot hold classes or scores."""
    feature = rows.features[column]
    if not isinstance(feature, Value | ClassLabel) or feature.dtype.startswith(NO_LABELS):
        check_one_type(rows, column, where)
        raise GPT1Error(f"{where}: column {column!r} holds {short_type(feature)}, which cannot be a label")


def check_one_type(rows: Dataset, column: str, where: str):
    """Raise if a column of JSON mixes types; its reader keeps such a column as it is."""
    if short_type(rows.features[column]) != "json":
        return
    values = rows[column][:]
    first = next((JSON_TYPES[type(value)] for value in values if value is not None), None)
    for index, value in enumerate(values):
        if value is not None and JSON_TYPES[type(value)] != first:
            raise GPT1Error(
                f"{where}: row {index}, column {column!r}: {value!r} is {JSON_TYPES[type(value)]}, but the rows "
                f"before hold {first}: give the column one type"
            )


def short_type(feature: Any) -> str:
    """A column's type in a few words."""
    return str(getattr(feature, "dtype", None) or type(feature).__name__.lower())


def check_no_gaps(rows: Dataset, column: str, where: str, is_label: bool):
    """Raise if a row has no value in a column, as the last line of a CSV file that was cut off."""
    nothing = (None, "") if is_label else (None,)  # the processor warns of empty texts
    data = rows.data.column(column)
    is_text = pa.types.is_string(data.type) or pa.types.is_large_string(data.type)
    if data.null_count or (is_label and is_text and "" in rows.unique(column)):
        numbers = rows["idx"][:] if "idx" in rows.column_names else range(len(rows))
        for index, value in zip(numbers, rows[column][:], strict=True):
            if value in nothing:
                raise GPT1Error(f"{where}: row {index} has no {column!r}; was the file cut off there?")


def check_no_empty_text(rows: Dataset, column: str, where: str):
    """Raise if a text of a user's file is empty or blank."""
    texts = rows.select_columns(column).with_format("arrow")[:][column]
    empty = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0)
    count = pc.sum(empty).as_py()
    if count:
        first = pc.index(empty, True).as_py()
        more = f" ({count} rows are)" if count > 1 else ""
        raise GPT1Error(f"{where}: row {first}, column {column!r} is empty{more}: remove the row or fill the cell")


def _check_choices(task: Task, rows: Dataset, where: str):
    expected = len(task.label_names)
    for index, choices in zip(rows["idx"][:], rows["choices"][:], strict=True):
        if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
            raise GPT1Error(f"{where}: the choices of row {index} are {choices!r}, which is not a list of texts")
        if len(choices) != expected:
            raise GPT1Error(
                f"{where}: row {index} has {len(choices)} choices, but every row of task {task.id} has {expected}"
            )
        if not all(choice.strip() for choice in choices):
            empty = next(n for n, choice in enumerate(choices) if not choice.strip())
            raise GPT1Error(f"{where}: choice {task.label_names[empty]} of row {index} is empty")


def _check_words(rows: Dataset, where: str, words_column: str, label_column: str):
    for index, words, tags in zip(rows["idx"][:], rows["words"][:], rows["label"][:], strict=True):
        if not words or not all(isinstance(word, str) and word.strip() for word in words):
            raise GPT1Error(f"{where}: row {index}, column {words_column!r}: {words!r} is not a list of words")
        if len(words) != len(tags):
            raise GPT1Error(
                f"{where}: row {index} has {len(words)} words in column {words_column!r} and {len(tags)} tags in "
                f"column {label_column!r}"
            )


def _number_label_lists(task: Task, rows: Dataset, where: str, column: str) -> Dataset:
    """Lists of labels as one 0 or 1 for each label name, or, of tags, as class ids."""
    numbered = []
    for index, labels in zip(rows["idx"][:], rows["label"][:], strict=True):
        ids = []
        for label in labels:
            if str(label) not in task.label_ids:
                raise _unknown_label(task, label, where, index, column)
            ids.append(task.label_ids[str(label)])
        if task.labels == "multiple":
            ids = [float(number in ids) for number in range(len(task.label_names))]
        numbered.append(ids)
    return rows.remove_columns("label").add_column("label", numbered)


def _unknown_label(task: Task, label: Any, where: str, index: Any, column: str) -> GPT1Error:
    known = ", ".join(task.label_ids) if task.label_ids else f"0 to {len(task.label_names) - 1}"
    names = "" if task.label_ids else f" ({', '.join(task.label_names)})"
    return GPT1Error(f"{where}: label {label!r} is outside the set {known}{names} (row {index}, column {column!r})")


def _first(rows: Dataset, label: Any) -> Any:
    """`idx` of the first row with a label, which may be NaN."""
    for index, value in zip(rows["idx"][:], rows["label"][:], strict=True):
        if value == label or (value != value and label != label):
            return index


def _number_labels(task: Task, rows: Dataset, where: str, column: str, names: list[str] | None) -> Dataset:
    """Labels as class ids, or scores as floats."""
    if names is not None and tuple(names) != task.label_names:
        raise GPT1Error(f"{where}: the labels are named {names}, but the task's are {list(task.label_names)}")
    unique = rows.unique("label")
    if task.score_range:
        low, high = task.score_range
        for label in unique:
            score = as_number(label) if not task.built_in else math.nan if isinstance(label, str) else label
            is_hidden = score == -1 and task.built_in
            if not (is_hidden or (score is not None and low <= score <= high)):
                raise GPT1Error(
                    f"{where}: label {label!r} is outside the scores {low:g} to {high:g} (row {_first(rows, label)}, "
                    f"column {column!r})"
                )
        scores = [round(float(label), 6) for label in rows["label"][:]]  # GLUE stores fp32: 3.8 is 3.79999995
        return rows.remove_columns("label").add_column("label", scores)
    if task.label_ids is not None:
        ids = {"-1": -1, **task.label_ids}
        for label in unique:
            if str(label) not in ids:
                raise _unknown_label(task, label, where, _first(rows, label), column)
        numbered = [ids[str(label)] for label in rows["label"][:]]
        return rows.remove_columns("label").add_column("label", numbered)
    for label in unique:
        if not isinstance(label, int) or not -1 <= label < len(task.label_names):
            raise _unknown_label(task, label, where, _first(rows, label), column)
    return rows if rows.features["label"] == Value("int64") else rows.cast_column("label", Value("int64"))


def as_number(label: Any) -> float | None:
    """A label as a finite number, also where it is written as a string; `None` of anything else."""
    if isinstance(label, bool):
        return None
    try:
        number = float(label)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
