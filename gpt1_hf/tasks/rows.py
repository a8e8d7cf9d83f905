"""Reads a task's rows, checks them, and converts them to canonical columns."""

import ast
import json
import logging
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Value, concatenate_datasets
from sklearn.model_selection import train_test_split

from ..data.loading import local_copy, open_dataset, reading_bars
from ..data.row_files import JSON_TYPES, json_rows, line_of_row, open_file
from ..errors import GPT1Error, MissingSplitError, UsageError
from ..resources import SAMPLES
from .spec import FORMAT_COLUMNS, Columns, TaskSpec


logger = logging.getLogger(__name__)

# Types of columns that can hold neither classes nor scores.
NO_LABELS = ("binary", "large_binary", "date", "time", "duration", "decimal")
# Every run with a task holds out the same rows, whatever its own seed is.
HELD_OUT_SEED = 42


@dataclass(frozen=True)
class Place:
    """Where rows come from, as errors name it."""

    name: str
    file: str | None = None
    built_in: bool = True

    def __str__(self) -> str:
        return self.name

    def row(self, index: Any) -> str:
        """A row as users find it: the line of a text file, the `idx` of a benchmark, or its number counted from 1."""
        if self.built_in:
            return f"row {index}"
        line = line_of_row(self.file, index) if self.file else None
        return f"line {line}" if line else f"row {index + 1} (counted from 1)"


class Layout(NamedTuple):
    """Where a data set has what a task reads."""

    columns: Columns
    label: str

    @property
    def names(self) -> list[str]:
        """The data set's columns, each once."""
        texts = [name for own in self.columns.values() for name in _names(own)]
        return list(dict.fromkeys([*texts, self.label]))


@reading_bars()
def load(task: TaskSpec, split: str, data_dir: str | None, sample: bool) -> Dataset:
    """See [`Task.load`]. The task is resolved."""
    if sample and not task.built_in:
        raise UsageError(f"task {task.id} has no sample: only built-in tasks have a sample in the package")
    whole, _, subset = split.partition("_")
    if whole not in task.splits or (subset and (subset not in task.subsets or whole == "train")):
        known = [*task.splits, *(f"{s}_{part}" for s in task.splits if s != "train" for part in task.subsets)]
        raise UsageError(f"task {task.id} has no split {split!r}; choose one of {', '.join(known)}")
    if task.validation_share and whole != "test":
        rows = canonical(task, open_split(task, "train", data_dir), place_of(task, "train"))
        train, held_out = hold_out(task, rows, task.validation_share)
        return rows.select(train if whole == "train" else held_out)
    parts = read(task, split, data_dir, sample)
    rows = concatenate_datasets([canonical(task, part, place_of(task, name)) for name, part in parts.items()])
    if not subset:
        return rows
    chosen = [index for index, name in enumerate(rows["subset"][:]) if name == subset]
    if not chosen:
        raise MissingSplitError(f"the local copy of task {task.id} lacks the split {split!r}")
    return rows.select(chosen)


def read(task: TaskSpec, split: str, data_dir: str | None, sample: bool) -> dict[str, Dataset]:
    """
    Read the unchanged rows of a split: name of the split, or of each of its parts -> rows. For a subset of a split,
    the rows may contain those of the other subsets.
    """
    if task.code:
        return import_module(f".{task.code}", __package__).read(task, split, data_dir, sample)
    whole, _, _ = split.partition("_")
    return {whole: open_split(task, whole, data_dir, sample)}


def open_split(
    task: TaskSpec, split: str, data_dir: str | None, sample: bool = False, config: str | None = None
) -> Dataset:
    """Open one of the data set's own splits, unchanged."""
    if sample:
        return open_dataset(str(SAMPLES / task.id), split)
    if task.dataset is None:
        if split not in task.files:
            raise MissingSplitError(f"task {task.id} names no {split}_file")
        return open_file(task.files[split])
    folder = local_copy(task.dataset, data_dir)
    if config is None and folder:
        present = [name for name in (task.config, *task.other_configs) if name and (folder / name).is_dir()]
        config = next(iter(present), None)
    return open_dataset(task.dataset, split, config or task.config, data_dir, task.revision)


def open_subsets(task: TaskSpec, split: str, open_subset: Callable[[str], Dataset]) -> dict[str, Dataset]:
    """
    Open each subset of a split, or the only one if the split's name ends with it, as `validation_middle` does. A local
    copy may lack some of those asked for, with a warning, but not all.
    """
    whole, _, wanted = split.partition("_")
    parts, missing = {}, {}
    for subset in [wanted] if wanted else task.subsets:
        name = f"{whole}_{subset}"
        try:
            rows = open_subset(subset)
        except MissingSplitError as error:
            missing[name] = str(error)
        else:
            parts[name] = with_subsets(rows, [subset] * len(rows))
    if not parts:
        first, reason = next(iter(missing.items()))
        raise MissingSplitError(
            f"the local copy of task {task.id} lacks the split {first!r} ({reason})" if wanted else reason
        )
    for name, reason in missing.items():
        logger.warning(f"task {task.id}: {name} is not run, because the local copy lacks it ({reason})")
    return parts


def with_subsets(rows: Dataset, subsets: list[str]) -> Dataset:
    """Add a column `subset`, which replaces any column of that name."""
    return rows.remove_columns([name for name in rows.column_names if name == "subset"]).add_column("subset", subsets)


def place_of(task: TaskSpec, split: str) -> Place:
    """Name of a split in error messages: the task and the split, or the user's file."""
    if split in task.files:
        return Place(Path(task.files[split]).name, task.files[split], built_in=False)
    return Place(f"{task.id if task.built_in else task.dataset} ({split})", built_in=task.built_in)


def hold_out(task: TaskSpec, rows: Dataset, share: float) -> tuple[np.ndarray, np.ndarray]:
    """
    Indices of the training rows that stay, and of those held out as the validation split, both in the file's order.

    Classes keep their shares. A class of one row stays in the training rows.
    """
    labels = column_of(rows, "label").to_numpy() if task.labels == "classes" else np.zeros(len(rows), dtype=int)
    present, counts = np.unique(labels, return_counts=True)
    candidates = np.flatnonzero(np.isin(labels, present[counts > 1]))
    n_classes = int((counts > 1).sum())
    n_held_out = max(round(len(rows) * share), 1, n_classes)  # one of each
    if len(candidates) - n_held_out < n_classes or not n_classes:
        raise GPT1Error(
            f"{place_of(task, 'train')} has {len(rows)} rows, too few to hold some out for validation: give a "
            "validation_file, or more rows"
        )
    _, held_out = train_test_split(
        candidates, test_size=n_held_out, random_state=HELD_OUT_SEED, stratify=labels[candidates]
    )
    is_held_out = np.isin(np.arange(len(rows)), held_out)
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def canonical(task: TaskSpec, rows: Dataset, place: Place) -> Dataset:
    """See [`Task.canonical`]."""
    layout = find_layout(task, rows, place)
    if not len(rows):
        raise GPT1Error(f"{place}: the file has no rows")
    more = ("idx", "subset") if task.subsets else ("idx",)
    rows = rows.select_columns([*layout.names, *(name for name in more if name in rows.column_names)])
    if "idx" in rows.column_names and not task.built_in:  # a user's may hold anything
        rows = rows.remove_columns("idx")
    if "idx" not in rows.column_names:
        rows = rows.add_column("idx", np.arange(len(rows)))
    lists = list_columns(task, layout)
    for own in lists:
        rows = parse_lists(rows, own, place)
    label, number = rows.features[layout.label], rows.features["idx"]
    if layout.label not in lists:
        check_label_type(rows, layout.label, place)
    if not isinstance(number, Value) or not re.match("u?int|(large_)?string", number.dtype):
        raise GPT1Error(f"{place}: column 'idx' holds {short_type(number)}, which cannot number rows")
    for own in rows.column_names:
        try:
            rows.data.column(own).validate(full=True)
        except pa.ArrowInvalid as error:  # bytes that are not UTF-8, which the JSON reader accepts
            raise GPT1Error(f"{place}: column {own!r} is damaged ({str(error).split(chr(10))[0]})") from error
    for own in layout.names:
        check_no_gaps(rows, own, place, is_label=own == layout.label)
        if own in (layout.label, layout.columns.get("choices"), *lists):
            continue
        rows = _checked_text(task, rows, own, place, may_be_empty=own in _names(layout.columns.get("question", ())))
    rows = _with_canonical_names(task, rows, layout)

    if "choices" in layout.columns:
        _check_choices(task, rows, place)
    if "words" in layout.columns:
        _check_words(rows, place, str(layout.columns["words"]), layout.label)
    if layout.label in lists:
        rows = _number_label_lists(task, rows, place, layout.label)
    else:
        rows = _number_labels(task, rows, place, layout.label, getattr(label, "names", None))
    if task.drop_unlabelled:
        labelled = np.flatnonzero(column_of(rows, "label").to_numpy() != -1)
        if len(labelled) < len(rows):
            logger.info(f"{place}: {len(rows) - len(labelled)} rows without a gold label are dropped")
            rows = rows.select(labelled)
    names = FORMAT_COLUMNS[task.input_format] if task.input_format else tuple(task.columns)
    return rows.select_columns([*names, "label", "idx", *(["subset"] if "subset" in rows.column_names else [])])


def _names(own: str | Iterable[str]) -> tuple[str, ...]:
    return (own,) if isinstance(own, str) else tuple(own)


def column_of(rows: Dataset, column: str) -> pa.ChunkedArray:
    """A column as Arrow has it, without a Python object for each row."""
    return rows.select_columns(column).with_format("arrow")[:][column]


def _replace_column(rows: Dataset, column: str, values: Any) -> Dataset:
    return rows.remove_columns(column).add_column(column, values)


def find_layout(task: TaskSpec, rows: Dataset, place: Place) -> Layout:
    """Find the task's layout that the file has. If there is none, the error names the first missing column."""
    missing_of = []
    for columns in ({**task.columns, "label": task.label_column}, *task.other_layouts):
        own = dict(columns)
        label = own.pop("label")
        assert isinstance(label, str)
        layout = Layout(own, label)
        missing = [name for name in layout.names if name not in rows.column_names]
        if not missing:
            return layout
        missing_of.append(missing)
    first = min(missing_of, key=len)[0]
    near = [name for name in rows.column_names if name.strip().casefold() == first.strip().casefold()]
    ending = f"; did you mean {near[0]!r}?" if near else ""
    if task.files and not near:
        flag = {task.label_column: "label_column", task.columns.get("choices"): "choices_column"}
        ending = f": name yours with --{flag.get(first, 'text_column')}, or in the task's YAML file"
    raise GPT1Error(f"{place}: column {first!r} is missing; the file has {', '.join(rows.column_names)}{ending}")


def list_columns(task: TaskSpec, layout: Layout) -> list[str]:
    """Columns of the data set that hold a list in each row and are not checked elsewhere."""
    if task.built_in:
        return []  # their choices are lists
    found = [layout.columns.get(name) for name in ("choices", "words")]
    names = [name for name in found if isinstance(name, str)]
    return [*names, layout.label] if task.labels in ("multiple", "tags") else names


def is_list(rows: Dataset, column: str) -> bool:
    """Whether a column holds a list in each row."""
    kind = rows.features.arrow_schema.field(column).type
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def parse_lists(rows: Dataset, column: str, place: Place) -> Dataset:
    """A column of lists; in CSV a list is written `["a", "b"]`, as JSON or as Python."""
    if is_list(rows, column):
        return rows
    if rows.features[column] not in (Value("string"), Value("large_string")):
        check_one_type(rows, column, place)
        raise GPT1Error(f"{place}: column {column!r} holds {short_type(rows.features[column])}, which is not a list")
    check_no_gaps(rows, column, place, is_label=False)
    lists = []
    for index, cell in enumerate(rows[column][:]):
        found = parse_list(cell)
        if found is None:
            raise GPT1Error(
                f'{place}: {place.row(index)}, column {column!r}: {cell[:60]!r} is not a list, such as ["a", "b"]'
            )
        lists.append(found)
    return _replace_column(rows, column, lists)


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


def check_label_type(rows: Dataset, column: str, place: Place):
    """Raise if a column cannot hold classes or scores."""
    feature = rows.features[column]
    if not isinstance(feature, Value | ClassLabel) or feature.dtype.startswith(NO_LABELS):
        check_one_type(rows, column, place)
        raise GPT1Error(f"{place}: column {column!r} holds {short_type(feature)}, which cannot be a label")


def check_one_type(rows: Dataset, column: str, place: Place):
    """Raise if a column of JSON mixes types, which its reader accepts."""
    if short_type(rows.features[column]) != "json":
        return
    values = rows[column][:]
    if place.file and not place.file.lower().endswith(".parquet"):  # where the reader has turned "1" into 1
        values = [row.get(column) for row in json_rows(Path(place.file))]
    first = next((JSON_TYPES[type(value)] for value in values if value is not None), None)
    for index, value in enumerate(values):
        if value is None or value != value:
            raise GPT1Error(f"{place}: {place.row(index)} has no {column!r}")
        if JSON_TYPES[type(value)] != first:
            raise GPT1Error(
                f"{place}: {place.row(index)}, column {column!r}: {value!r} is {JSON_TYPES[type(value)]}, but the "
                f"rows before hold {first}: give the column one type"
            )


def short_type(feature: Any) -> str:
    """A column's type in a few words."""
    return str(getattr(feature, "dtype", None) or type(feature).__name__.lower())


def check_no_gaps(rows: Dataset, column: str, place: Place, is_label: bool):
    """Raise if a row has no value in a column, such as the last line of a CSV file that was cut off."""
    data = column_of(rows, column)
    is_gap = pc.is_null(data)
    if is_label and _is_text(data):  # the processor warns of empty texts
        is_gap = pc.or_kleene(is_gap, pc.equal(data, ""))
    first = pc.index(is_gap, True).as_py()
    if first >= 0:
        raise GPT1Error(
            f"{place}: {place.row(_number_of(rows, first))} has no {column!r}: fill it or remove the row "
            "(was the file cut off there?)"
        )


def _is_text(data: pa.ChunkedArray) -> bool:
    return pa.types.is_string(data.type) or pa.types.is_large_string(data.type)


def _number_of(rows: Dataset, position: int) -> Any:
    """`idx` of a row."""
    return rows[position]["idx"] if "idx" in rows.column_names else position


def _checked_text(task: TaskSpec, rows: Dataset, column: str, place: Place, may_be_empty: bool) -> Dataset:
    """Raise if a column is not text or, in a user's file, if a cell of it is empty or blank."""
    if rows.features[column] not in (Value("string"), Value("large_string")):
        check_one_type(rows, column, place)
        raise GPT1Error(f"{place}: column {column!r} holds {short_type(rows.features[column])}, which is not text")
    if not task.built_in and not may_be_empty:
        empty = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(column_of(rows, column))), 0)
        count = pc.sum(empty).as_py()
        if count:
            more = f" ({count} rows are)" if count > 1 else ""
            raise GPT1Error(
                f"{place}: {place.row(_number_of(rows, pc.index(empty, True).as_py()))}, column {column!r} is "
                f"empty{more}: remove the row or fill the cell"
            )
    # Even a cast to the same type would write the whole table anew.
    return rows if rows.features[column] == Value("string") else rows.cast_column(column, Value("string"))


def _with_canonical_names(task: TaskSpec, rows: Dataset, layout: Layout) -> Dataset:
    """Columns under their canonical names; several of the data set's own become one."""
    own_name = {}
    for name, own in {**layout.columns, "label": layout.label}.items():
        if not isinstance(own, str):
            parts = [column_of(rows, part).combine_chunks() for part in own]
            joined = _side_by_side(parts) if name == "choices" else pc.binary_join_element_wise(*parts, " ")
            rows = rows.remove_columns(list(own)).add_column(f"joined {name}", joined)
            own = f"joined {name}"
        own_name[name] = own
    rows = rows.rename_columns({own: name for name, own in own_name.items() if own != name})
    if task.input_format == "multiple_choice" and "question" not in layout.columns:
        rows = rows.add_column("question", [""] * len(rows))
    return rows


def _side_by_side(parts: list[pa.Array]) -> pa.Array:
    """Columns of equal length as one column of lists."""
    n, width = len(parts[0]), len(parts)
    order = np.arange(n * width).reshape(width, n).T.ravel()
    offsets = pa.array(np.arange(0, n * width + 1, width), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.concat_arrays(parts).take(pa.array(order)))


def _flat(rows: Dataset, column: str) -> tuple[pa.Array, np.ndarray]:
    """All values of a column of lists, and the number of them in each row."""
    data = column_of(rows, column).combine_chunks()
    return data.flatten(), pc.fill_null(pc.list_value_length(data), 0).to_numpy(zero_copy_only=False)


def _are_texts(flat: pa.Array) -> bool:
    """Whether all values are texts that are not blank."""
    if not (pa.types.is_string(flat.type) or pa.types.is_large_string(flat.type)) or flat.null_count:
        return False
    return not pc.any(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(flat)), 0)).as_py()


def _check_choices(task: TaskSpec, rows: Dataset, place: Place):
    expected = len(task.label_names)
    if is_list(rows, "choices"):
        flat, lengths = _flat(rows, "choices")
        if _are_texts(flat) and (lengths == expected).all():
            return
    for index, choices in zip(rows["idx"], rows["choices"], strict=True):
        if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
            raise GPT1Error(
                f"{place}: the choices of {place.row(index)} are {choices!r}, which is not a list of texts"
            )
        if len(choices) != expected:
            raise GPT1Error(
                f"{place}: {place.row(index)} has {len(choices)} choices, but every row of task {task.id} has "
                f"{expected}"
            )
        if not all(choice.strip() for choice in choices):
            empty = next(n for n, choice in enumerate(choices) if not choice.strip())
            raise GPT1Error(f"{place}: choice {task.label_names[empty]} of {place.row(index)} is empty")


def _check_words(rows: Dataset, place: Place, words_column: str, label_column: str):
    flat, lengths = _flat(rows, "words")
    if _are_texts(flat) and (lengths == _flat(rows, "label")[1]).all() and lengths.all():
        return
    for index, words, tags in zip(rows["idx"], rows["words"], rows["label"], strict=True):
        if not words or not all(isinstance(word, str) and word.strip() for word in words):
            raise GPT1Error(f"{place}: {place.row(index)}, column {words_column!r}: {words!r} is not a list of words")
        if len(words) != len(tags):
            raise GPT1Error(
                f"{place}: {place.row(index)} has {len(words)} words in column {words_column!r} and {len(tags)} tags "
                f"in column {label_column!r}"
            )


def distinct(values: pa.Array | pa.ChunkedArray) -> tuple[list[Any], np.ndarray]:
    """The different values in the order of their first appearance, and for each value its position in that list."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    encoded = values.dictionary_encode("encode")  # nulls are values
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False)


def _number_label_lists(task: TaskSpec, rows: Dataset, place: Place, column: str) -> Dataset:
    """Convert lists of labels to a 0 or 1 for each label name, and tags to class ids."""
    ids, (flat, lengths) = task.label_ids or {}, _flat(rows, "label")
    if pa.types.is_nested(flat.type):
        label, first = flat[0].as_py(), 0
    else:
        labels, positions = distinct(flat)
        unknown = [position for position, label in enumerate(labels) if str(label) not in ids]
        if not unknown:
            numbers = np.array([ids[str(label)] for label in labels], dtype=np.int64)[positions]
            return _replace_column(rows, "label", _as_label_lists(task, numbers, lengths))
        label, first = labels[unknown[0]], int(np.flatnonzero(positions == unknown[0])[0])
    row = int(np.searchsorted(np.cumsum(lengths), first, side="right"))
    raise _unknown_label(task, label, place, _number_of(rows, row), column)


def _as_label_lists(task: TaskSpec, numbers: np.ndarray, lengths: np.ndarray) -> pa.Array:
    n_rows = len(lengths)
    if task.labels == "multiple":
        n_labels = len(task.label_names)
        ones = np.zeros((n_rows, n_labels))
        ones[np.repeat(np.arange(n_rows), lengths), numbers] = 1.0
        offsets, values = np.arange(n_rows + 1) * n_labels, ones.ravel()
    else:
        offsets, values = np.concatenate([[0], np.cumsum(lengths)]), numbers
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))


def _unknown_label(task: TaskSpec, label: Any, place: Place, index: Any, column: str) -> GPT1Error:
    known = ", ".join(task.label_ids) if task.label_ids else f"0 to {len(task.label_names) - 1}"
    names = "" if task.label_ids else f" ({', '.join(task.label_names)})"
    return GPT1Error(
        f"{place}: label {label!r} is outside the set {known}{names} ({place.row(index)}, column {column!r})"
    )


def _number_labels(task: TaskSpec, rows: Dataset, place: Place, column: str, names: list[str] | None) -> Dataset:
    """Labels as class ids, or scores as floats."""
    if names is not None and tuple(names) != task.label_names:
        raise GPT1Error(f"{place}: the labels are named {names}, but the task's are {list(task.label_names)}")
    labels, positions = distinct(column_of(rows, "label"))

    def number_of_first(position: int) -> Any:
        return _number_of(rows, int(np.flatnonzero(positions == position)[0]))

    numbers: list[Any] = []
    if task.score_range:
        low, high = task.score_range
        for position, label in enumerate(labels):
            score = as_number(label) if not (task.built_in and isinstance(label, str)) else None
            if score is None or not (low <= score <= high or (score == -1 and task.built_in)):
                raise GPT1Error(
                    f"{place}: label {label!r} is outside the scores {low:g} to {high:g} "
                    f"({place.row(number_of_first(position))}, column {column!r})"
                )
            numbers.append(round(score, 6))  # GLUE stores fp32: 3.8 is 3.79999995
    elif task.label_ids is not None:
        ids = {"-1": -1, **task.label_ids}
        for position, label in enumerate(labels):
            if str(label) not in ids:
                raise _unknown_label(task, label, place, number_of_first(position), column)
        numbers = [ids[str(label)] for label in labels]
    else:
        for position, label in enumerate(labels):
            if not isinstance(label, int) or not -1 <= label < len(task.label_names):
                raise _unknown_label(task, label, place, number_of_first(position), column)
        return rows if rows.features["label"] == Value("int64") else rows.cast_column("label", Value("int64"))
    kind = np.float64 if task.score_range else np.int64
    return _replace_column(rows, "label", np.array(numbers, dtype=kind)[positions])


def as_number(label: Any) -> float | None:
    """A label as a finite number, even if it is a string; `None` for anything else."""
    if isinstance(label, bool):
        return None
    try:
        number = float(label)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
