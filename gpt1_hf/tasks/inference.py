"""Infers the missing settings of a task on a user's own data from its training rows."""

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from ..console import note
from ..data.loading import reading_bars
from ..data.row_files import check_file
from ..errors import GPT1Error, MissingSplitError, UsageError
from .rows import (
    Layout,
    Place,
    as_number,
    check_label_type,
    check_no_gaps,
    column_of,
    distinct,
    find_layout,
    is_list,
    open_split,
    parse_lists,
    place_of,
)
from .spec import LABEL_METRICS, SPLITS, TaskSpec


VALIDATION_SHARE = 0.1
# More different labels than this, and than half of the rows, are not classes but texts, ids or scores. So are labels
# that differ in every one of more than a few rows.
MANY_LABELS = 100
FEW_ROWS = 20
MOST_SHOWN = 12

T = TypeVar("T", bound=TaskSpec)  # a task keeps its subclass

_resolved: dict[tuple, Any] = {}


def resolve(task: T, data_dir: str | None) -> T:
    """See [`Task.resolved`]. The result is kept until a data file changes."""
    stamps = [
        (str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in map(check_file, task.files.values())
    ]
    key = (json.dumps(asdict(task), sort_keys=True), data_dir, *stamps)
    if key not in _resolved:
        _resolved[key] = _resolve(task, data_dir)
    return _resolved[key]


@reading_bars()
def _resolve(task: T, data_dir: str | None) -> T:
    rows, place = open_split(task, "train", data_dir), place_of(task, "train")
    if not len(rows):
        raise GPT1Error(f"{place} has no rows")
    if len(rows) < 2:
        raise GPT1Error(f"{place} has one row, too few to train on")
    layout = find_layout(task, rows, place)
    if "question" in task.columns and "question" not in layout.columns:
        task = replace(task, columns=layout.columns, other_layouts=())
    task = _with_metric(_with_labels(task, rows.select_columns(layout.names), layout, place), place)
    if not task.splits:
        task = _with_splits(task, data_dir)
    if os.environ.get("RANK", "0") == "0":  # one of several processes says it
        note(f"task {task.id}: {_summary(task, layout.label)}")
    return task


def _summary(task: TaskSpec, column: str) -> str:
    """What was inferred, in one line."""
    if task.score_range:
        low, high = task.score_range
        limits = "" if low == -math.inf else f" from {low:g} to {high:g}"
        said = [f"scores{limits}, in column {column!r}"]
    else:
        names = [name if re.fullmatch(r"[^,;\n]{1,40}", name) else repr(name[:40]) for name in task.label_names]
        shown = ", ".join(names[:MOST_SHOWN]) + (", ..." if len(names) > MOST_SHOWN else "")
        kind = {"multiple": "labels, several a row", "tags": "tags, one a word"}.get(task.labels or "", "labels")
        said = [f"{len(task.label_names)} {kind}, in column {column!r}: {shown}"]
    said.append(f"metric {task.metric}")
    if task.validation_share:
        said.append(f"{task.validation_share:.0%} of the training rows are held out for validation")
    return "; ".join(said)


def _with_metric(task: T, place: Place) -> T:
    """Fill in the default metric; raise if a given one does not fit the kind of labels."""
    known = LABEL_METRICS[task.labels or "classes"]
    task = task if task.metric else replace(task, metric=known[0])
    for metric in (task.metric, *task.other_metrics):
        if metric not in known:
            raise UsageError(
                f"task {task.id}: the metric {metric} does not fit labels: {task.labels}; use {' or '.join(known)}"
            )
        if metric == "f1" and len(task.label_names) != 2:
            raise UsageError(
                f"task {task.id}: the metric f1 needs two classes, but {place} has {len(task.label_names)}: use "
                "accuracy"
            )
    return task


def _with_splits(task: T, data_dir: str | None) -> T:
    """Fill in the splits of the data; without a validation split, hold out a share of the training rows."""
    if task.files:
        splits = tuple(split for split in SPLITS if split == "validation" or split in task.files)
        lacks_validation = "validation" not in task.files
    else:
        splits, lacks_validation = SPLITS, False
        if not task.validation_share:
            try:
                open_split(task, "validation", data_dir)
            except MissingSplitError:
                lacks_validation = True
    share = task.validation_share or (VALIDATION_SHARE if lacks_validation else None)
    return replace(task, splits=splits, validation_share=share)


def _with_labels(task: T, rows: Dataset, layout: Layout, place: Place) -> T:
    """Kind, names and ids of the labels, or the range of the scores."""
    column = layout.label
    kind = task.labels
    if kind is None and is_list(rows, column):
        kind = "multiple"
    if kind in ("multiple", "tags"):
        rows = parse_lists(rows, column, place)
        first = _first_in_lists(rows, column, place)
        names = getattr(getattr(rows.features[column], "feature", None), "names", None)
    else:
        check_label_type(rows, column, place)
        check_no_gaps(rows, column, place, is_label=True)
        first = _first_rows(column_of(rows, column))
        for label, index in first.items():
            if _is_gap(label):
                raise GPT1Error(f"{place}: {place.row(index)}, column {column!r} is empty ({label!r})")
        names = getattr(rows.features[column], "names", None)
    if kind is None:
        kind = "classes"
        numbers = [as_number(label) for label in first]
        is_named = names is not None or task.label_names or task.label_ids
        if not is_named and None not in numbers and any(number % 1 for number in numbers if number is not None):
            kind = "scores"
    task = replace(task, labels=kind)
    if kind == "scores":
        return _with_range(task, first, place, column)
    if task.label_ids:
        return task
    if names is not None:  # the data's own classes, as ids
        if task.label_names and task.label_names != tuple(names):
            raise GPT1Error(f"{place}: the labels are named {names}, but the task's are {list(task.label_names)}")
        return replace(task, label_names=tuple(names), label_ids={str(index): index for index in range(len(names))})
    if task.input_format == "multiple_choice":
        return _with_choices(task, rows, layout, first, place)
    first = {str(label): index for label, index in first.items()}
    if task.label_names:
        return replace(task, label_ids=_ids_of_names(task.label_names, first, place, column))
    if "-1" in first and task.drop_unlabelled:
        del first["-1"]
    _check_label_set(first, len(rows), place, column)
    names = _in_order(first)
    return replace(task, label_names=names, label_ids={name: index for index, name in enumerate(names)})


def _first_rows(labels: pa.ChunkedArray) -> dict[Any, int]:
    """Label -> its first row, in the order of the rows."""
    found, positions = distinct(labels)
    if not found:
        return {}
    _, first = np.unique(positions, return_index=True)
    return dict(zip(found, first.tolist(), strict=True))


def _first_in_lists(rows: Dataset, column: str, place: Place) -> dict[Any, int]:
    """The same for lists of labels."""
    data = column_of(rows, column)
    if data.null_count == 0 and not pa.types.is_nested(data.type.value_type):
        flat = pc.list_flatten(data)
        found, positions = distinct(flat)
        if found and not any(map(_is_gap, found)):
            row_of = pc.list_parent_indices(data.combine_chunks()).to_numpy()
            _, where_first = np.unique(positions, return_index=True)
            return dict(zip(found, row_of[where_first].tolist(), strict=True))
    for index, labels in enumerate(rows[column]):
        if labels is None or any(_is_gap(label) for label in labels):
            raise GPT1Error(f"{place}: {place.row(index)}, column {column!r} holds an empty label: {labels!r}")
        if any(isinstance(label, list | dict) for label in labels):
            raise GPT1Error(f"{place}: {place.row(index)}, column {column!r} holds {labels!r}, which are not labels")
    return {}


def _is_gap(label: Any) -> bool:
    return label is None or (isinstance(label, float) and math.isnan(label)) or str(label).strip() == ""


def _in_order(labels: dict[str, int]) -> tuple[str, ...]:
    """Labels in alphabetical order; numbers by value."""
    if all(as_number(label) is not None for label in labels):
        return tuple(sorted(labels, key=lambda label: (as_number(label), label)))
    return tuple(sorted(labels))


def _check_label_set(first: dict[str, int], n_rows: int, place: Place, column: str):
    """Raise if labels, each with its first row, cannot be the classes of a task."""
    if not first:
        raise GPT1Error(f"{place}: no row has a label in column {column!r}")
    if len(first) < 2:
        raise GPT1Error(
            f"{place}: all rows have the same label in column {column!r}, {next(iter(first))!r}: a task needs at "
            "least two"
        )
    if "-1" in first:
        raise GPT1Error(
            f"{place}: {place.row(first['-1'])}, column {column!r} has the label -1, which may mean unlabelled: give "
            "drop_unlabelled: true, or label_names"
        )
    if gap := next((label for label in first if label.casefold() == "nan"), None):
        raise GPT1Error(
            f"{place}: {place.row(first[gap])}, column {column!r} has the label {gap!r}, which may mean a missing "
            "value: remove the row, or give label_names"
        )
    similar: dict[Any, str] = {}
    for label in first:
        number = as_number(label)
        key = " ".join(label.split()).casefold() if number is None else number
        if key in similar:
            other = similar[key]
            raise GPT1Error(
                f"{place}: the labels {other!r} ({place.row(first[other])}) and {label!r} "
                f"({place.row(first[label])}) in column {column!r} differ only in case, blanks or how the number is "
                "written: make them one, or name both in label_names"
            )
        similar[key] = label
    words = [label for label in first if as_number(label) is None]
    numbers = [label for label in first if as_number(label) is not None]
    if words and numbers:
        raise GPT1Error(
            f"{place}: column {column!r} mixes numbers and words: {numbers[0]!r} in {place.row(first[numbers[0]])}, "
            f"{words[0]!r} in {place.row(first[words[0]])}; if all are labels, give label_names"
        )
    if (len(first) > MANY_LABELS and len(first) > n_rows / 2) or len(first) == n_rows > FEW_ROWS:
        raise GPT1Error(
            f"{place}: column {column!r} has {len(first):,} different labels in {n_rows:,} rows: give another "
            "label_column, or labels: scores"
        )


def _ids_of_names(names: Sequence[str], first: dict[str, int], place: Place, column: str) -> dict[str, int]:
    """Class id of each label in the data, which is a name or the name's number."""
    by_name = {name: index for index, name in enumerate(names)}
    by_number = {str(index): index for index in range(len(names))}
    labels = {label: index for label, index in first.items() if label != "-1" or label in by_name}
    if set(labels) <= set(by_name):
        return by_name
    if set(labels) <= set(by_number):
        return by_number
    unknown = next(label for label in labels if label not in by_name)
    raise GPT1Error(
        f"{place}: {place.row(labels[unknown])}, column {column!r} has the label {unknown!r}, which is none of the "
        f"label_names {', '.join(names)}"
    )


def _with_range(task: T, first: dict[Any, int], place: Place, column: str) -> T:
    scores = []
    for label, index in first.items():
        score = as_number(label)
        if score is None:
            raise GPT1Error(f"{place}: {place.row(index)}, column {column!r}: {label!r} is not a score")
        scores.append(score)
    if len(set(scores)) < 2:
        raise GPT1Error(f"{place}: all rows have the same score in column {column!r}, {scores[0]:g}")
    return task if task.score_range else replace(task, score_range=(-math.inf, math.inf))


def _with_choices(task: T, rows: Dataset, layout: Layout, first: dict[Any, int], place: Place) -> T:
    """How the label names the right choice: by number from 0 or 1, by letter, or by the choice's column."""
    own, column = layout.columns["choices"], layout.label
    if isinstance(own, str):
        rows = parse_lists(rows, own, place)
        lengths = _first_rows(pc.fill_null(pc.list_value_length(column_of(rows, own)), 0))
        if len(lengths) > 1:
            (n, row), (other, other_row), *_ = lengths.items()
            raise GPT1Error(
                f"{place}: {place.row(row)} has {n} choices in column {own!r} and {place.row(other_row)} has {other}: "
                "every row needs equally many"
            )
        (n_choices,) = lengths
        columns: tuple[str, ...] = ()
    else:
        n_choices, columns = len(own), own
    if n_choices < 2:
        raise GPT1Error(f"{place}: each row has {n_choices} choices: a multiple choice needs at least two")
    if task.label_names and len(task.label_names) != n_choices:
        raise GPT1Error(
            f"{place}: each row has {n_choices} choices, but there are {len(task.label_names)} label_names"
        )
    labels = {str(label): index for label, index in first.items() if str(label) != "-1"}
    letters = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:n_choices])
    from_zero, from_one = (tuple(str(start + n) for n in range(n_choices)) for start in (0, 1))
    if task.label_names and set(labels) <= set(task.label_names):
        styles = [task.label_names]
    else:
        known = (from_zero, from_one, letters, tuple(letter.lower() for letter in letters), columns)
        styles = [style for style in dict.fromkeys(known) if style and set(labels) <= set(style)]
    if not styles:
        nearest_style = max(known, key=lambda style: len(set(labels) & set(style)))
        unknown = next(label for label in labels if label not in nearest_style)
        raise GPT1Error(
            f"{place}: {place.row(labels[unknown])}, column {column!r}: {unknown!r} names none of the {n_choices} "
            f"choices: give their numbers from 0 or 1, letters from A{', or columns' if columns else ''}"
        )
    if len(styles) > 1:
        raise GPT1Error(
            f"{place}: column {column!r} holds {', '.join(labels)}, which may count from 0 or from 1: give "
            f"label_names: {_quoted(from_zero)} or {_quoted(from_one)}"
        )
    names = task.label_names or styles[0]
    return replace(task, label_names=names, label_ids={label: index for index, label in enumerate(styles[0])})


def _quoted(names: Sequence[str]) -> str:
    return json.dumps(list(names))
