"""A first guess at a task from its training file, for the settings that `gpt1 tasks new` was not given."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from datasets import Dataset

from ..data.loading import reading_bars
from ..data.row_files import open_file
from ..errors import GPT1Error
from .definition import task_from_files
from .inference import MANY_LABELS
from .rows import as_number, column_of, is_list
from .spec import FORMAT_COLUMNS
from .task import Task


# Usual names of a label column.
LABELS = "label labels gold_label class category target tags ner_tags score rating stars sentiment answer".split()
# Usual names of the columns of formats with more than one.
PAIRS = (("premise", "hypothesis"), ("text_a", "text_b"), ("sentence1", "sentence2"), ("question1", "question2"))
CHOICES = ("choices", "options", "endings", "answers")
DOCUMENTS = ("document", "article", "context", "passage", "question")
WORDS = ("words", "tokens")
LOOKED_AT = 10_000  # rows


@reading_bars()
def guess_task(
    train_file: str | Path,
    input_format: str | None = None,
    text_columns: Sequence[str] | None = None,
    label_column: str | None = None,
    choices_columns: Sequence[str] | None = None,
    **settings: Any,
) -> tuple[Task, list[str]]:
    """
    Make a task from a training file.

    Args:
        train_file (`str` or `Path`):
            Training rows, as in [`task_from_files`].
        input_format, text_columns, label_column, choices_columns (*optional*):
            As in [`task_from_files`]; what is `None` is guessed from the names and the values of the columns.
        settings:
            Other arguments of [`task_from_files`].

    Returns:
        `tuple`: the task, not resolved, and what was guessed, such as `label column 'stars' (5 different values)`.

    Raises:
        GPT1Error: if the file cannot be read, lacks a column that is given, or suits no guess.
    """
    rows = open_file(train_file)
    rows = rows.select(range(min(len(rows), LOOKED_AT)))
    name, guesses = Path(train_file).name, []
    given = [*(text_columns or ()), *([label_column] if label_column else ()), *(choices_columns or ())]
    for column in given:
        if column not in rows.column_names:
            raise GPT1Error(f"{name}: column {column!r} is missing; the file has {', '.join(rows.column_names)}")
    free = [column for column in rows.column_names if column not in given and column != "idx"]
    lists = [column for column in rows.column_names if _holds_lists(rows, column)]

    if label_column is None:
        label_column, why = _guess_label(rows, free, lists, name)
        guesses.append(f"label column {label_column!r} ({why})")
    free = [column for column in free if column != label_column]
    texts = sorted((column for column in free if column not in lists), key=lambda one: -_mean_length(rows, one))
    if input_format is None:
        input_format = _guess_format(rows, text_columns, choices_columns, label_column, free, lists)
        guesses.append(f"input format {input_format}")
    if input_format == "multiple_choice" and not choices_columns:
        choices_columns = [column for column in free if column in lists][:1]
        if not choices_columns:
            raise GPT1Error(f"{name}: no column holds a list of choices: name the columns with --choices_column")
        guesses.append(f"choices column {choices_columns[0]!r} (a list)")
    if text_columns is None:
        text_columns, why = _guess_texts(rows, input_format, free, lists, texts)
        if not text_columns:
            raise GPT1Error(f"{name}: no column is left for the text: name it with --text_column")
        plural = "s" if len(text_columns) > 1 else ""
        guesses.append(f"text column{plural} {' and '.join(map(repr, text_columns))} ({why})")
    task = task_from_files(
        train_file,
        input_format=input_format,
        text_columns=text_columns,
        label_column=label_column,
        choices_columns=choices_columns,
        **settings,
    )
    return task, guesses


def _holds_lists(rows: Dataset, column: str) -> bool:
    """Whether a column holds lists, in CSV as text."""
    if is_list(rows, column):
        return True
    cells = rows[column][:20]
    return all(isinstance(cell, str) and cell.startswith("[") and cell.endswith("]") for cell in cells)


def _mean_length(rows: Dataset, column: str) -> float:
    """Mean number of characters of a text column; 0 of any other."""
    return pc.mean(pc.utf8_length(column_of(rows, column))).as_py() or 0 if _is_text(rows, column) else 0


def _is_text(rows: Dataset, column: str) -> bool:
    return getattr(rows.features[column], "dtype", None) in ("string", "large_string")


def _guess_label(rows: Dataset, free: list[str], lists: list[str], name: str) -> tuple[str, str]:
    for usual in LABELS:
        if usual in free:
            return usual, "by its name"
    counts = {column: pc.count_distinct(column_of(rows, column)).as_py() for column in free if column not in lists}
    few = {column: n for column, n in counts.items() if 2 <= n <= min(MANY_LABELS, len(rows) / 2)}
    if not few:
        raise GPT1Error(f"{name}: no column has few different values: name the label's column with --label_column")
    column = min(few, key=lambda one: few[one])
    return column, f"{few[column]} different values"


def _guess_format(
    rows: Dataset,
    text_columns: Sequence[str] | None,
    choices_columns: Sequence[str] | None,
    label: str,
    free: list[str],
    lists: list[str],
) -> str:
    if choices_columns or any(column in lists for column in CHOICES if column in free):
        return "multiple_choice"
    if label in lists and any(column in lists for column in (text_columns or free)):
        return "token_classification"
    is_pair = len(text_columns) == 2 if text_columns else any({*pair} <= {*free} for pair in PAIRS)
    if not is_pair:
        return "classification"
    labels = [as_number(value) for value in rows.unique(label)]
    are_scores = None not in labels and any(value % 1 for value in labels if value is not None)
    return "similarity" if are_scores else "entailment"


def _guess_texts(
    rows: Dataset, input_format: str, free: list[str], lists: list[str], texts: list[str]
) -> tuple[list[str], str]:
    if input_format == "token_classification":
        words = sorted((column for column in free if column in lists), key=lambda one: one not in WORDS)
        return words[:1], "a list"
    if input_format == "multiple_choice":
        named = next((column for column in DOCUMENTS if column in texts), None)
        if named is None:
            return texts[:1], "the longest strings"
        return [named, *(column for column in ("question",) if column in texts and column != named)], "by name"
    if input_format == "classification":
        return texts[:1], "the longest strings"
    for pair in (FORMAT_COLUMNS[input_format], *PAIRS):
        if {*pair} <= {*free}:
            return [*pair], "by name"
    longest = texts[:2]
    return [column for column in rows.column_names if column in longest], "the longest strings"
