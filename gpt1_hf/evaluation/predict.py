"""`gpt1 predict`: a fine-tuned model's answers to new texts, which need no labels."""

import csv
import io
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from accelerate import PartialState
from datasets import Dataset, Value
from tqdm.auto import tqdm

from ..checkpoints.loading import open_config
from ..console import no_bars, note
from ..data.loading import reading_bars
from ..data.row_files import ROW_FILES, open_file
from ..errors import GPT1Error, UsageError
from ..files import check_writable, replacing, writing
from ..settings import NO_LIMIT, check_ranges, nearest
from ..tasks import Task, all_tasks
from ..tasks.rows import Place, parse_list
from ..tasks.spec import FORMAT_COLUMNS, OPTIONAL_COLUMNS, Columns
from ..training_record import row_length, scored_batch_size, trained_on
from .task_scores import label_kind, open_fine_tuned, part_size, predict


RANGES = {"batch_size": (1, NO_LIMIT), "max_length": (2, NO_LIMIT)}
STANDARD_STREAM = "-"
TEXT = ".txt"
OUTPUTS = (".jsonl", ".csv")
LINES_AT_ONCE = 1 << 16  # most bytes that are taken from standard input at a time
LISTS = ("choices", "words")  # canonical columns that hold a list in each row


@dataclass
class PredictArguments:
    """Settings of `gpt1 predict`."""

    model: str | None = field(default=None, metadata={"help": "Fine-tuned model: folder or Hub id."})
    input: str | None = field(
        default=None,
        metadata={
            "help": "Texts: a .csv, .tsv, .jsonl, .json or .parquet file with columns, a .txt file with one text a "
            "line, or - for standard input, one text a line. In lines, tabs separate the texts of a pair."
        },
    )
    output: str = field(default="-", metadata={"help": "File for the answers, .jsonl or .csv; - is standard output."})
    text_column: list[str] | None = field(
        default=None,
        metadata={
            "help": "Columns of the texts, in the order of the model's format. Default: those of the model's task, or "
            "text; premise and hypothesis; text_a and text_b; document, question and choices; words."
        },
    )
    choices_column: list[str] | None = field(
        default=None,
        metadata={"help": "For multiple choice: the column of lists, or one column for each choice."},
    )
    allow_empty: bool = field(
        default=False, metadata={"help": "Answer rows without a text with null, instead of stopping at the first."}
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Maximum length of a row in tokens. Default: that of the training."}
    )
    batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Number of rows in a forward pass. Default: that of `gpt1 evaluate`, which is that of the scoring "
            "after fine-tuning, or 16."
        },
    )

    def __post_init__(self):
        check_ranges(self, RANGES)
        for name in ("text_column", "choices_column"):
            if isinstance(getattr(self, name), str):
                setattr(self, name, [getattr(self, name)])


def predict_file(args: PredictArguments) -> int:
    """
    Answer the texts of a file or of standard input, and write the answers.

    A file is written in one step, after the last answer. Standard output gets the answers as they come. Memory does
    not grow with the number of rows.

    Example:

    ```python
    >>> predict_file(PredictArguments(model="runs/reviews", input="new.csv", output="answers.jsonl"))
    2
    ```

    Args:
        args ([`PredictArguments`]):
            Settings. Of several processes, the first one writes.

    Returns:
        `int`: number of rows. See [`answers`] for the content of each.

    Raises:
        UsageError: if a setting does not fit the others.
        GPT1Error: if the model is not fine-tuned, the texts cannot be read, or the answers cannot be written.
    """
    check_output(args)
    predictor = Predictor(args)
    is_csv = Path(args.output).suffix.lower() == ".csv"
    lines = CsvWriter(predictor).lines if is_csv else json_lines
    n_rows = 0
    with ExitStack() as stack:
        if args.output == STANDARD_STREAM:
            file: TextIO = sys.stdout
        else:
            unfinished = stack.enter_context(replacing(args.output))
            file = stack.enter_context(unfinished.open("w", encoding="utf-8", newline=""))
        for rows in predictor:
            if PartialState().is_main_process:
                with nullcontext() if file is sys.stdout else writing(args.output, "choose another --output"):
                    file.write(lines(rows))
                    file.flush()
            n_rows += len(rows)
    if args.output != STANDARD_STREAM:
        note(f"{n_rows} rows answered, written to {args.output}")
    return n_rows


def answers(args: PredictArguments) -> Iterator[dict[str, Any]]:
    """
    Answer the texts of a file or of standard input, one after another; `output` is ignored.

    Args:
        args ([`PredictArguments`]):
            Settings.

    Yields:
        `dict`: `id`, a column `id` or `idx` of the file, else the number of the row, from 0; `label`, the name of the
        most probable class; `scores`, the probability of each class by its name; and `truncated`, whether the text was
        cut. A multiple-choice model also gives `answer`, the text of its choice. A model that was trained on scores
        gives `prediction`, its score, instead of `label` and `scores`. With several labels a row, `label` is the list
        of those with a probability of at least 0.5. With a label for each word, `label` and `scores` are lists, with
        `None` for a word that was cut off. Everything but `id` is `None` where there is no text (`allow_empty`), and
        everything but `id` and `truncated` where the model's output is not finite.

    Raises:
        UsageError: if a setting does not fit the others.
        GPT1Error: if the model is not fine-tuned, or the texts cannot be read.
    """
    return chain.from_iterable(Predictor(args))


def check_input(args: PredictArguments):
    """Raise if there is no such input, or it has no such columns, before a model is looked for."""
    if not args.model or not args.input:
        raise UsageError("predict needs a model and an input")
    path, is_stream = Path(args.input), args.input == STANDARD_STREAM
    if is_stream and PartialState().num_processes > 1:
        raise UsageError("several processes cannot share standard input: give --input a file")
    if not is_stream and path.suffix.lower() not in (*ROW_FILES, TEXT):
        raise UsageError(
            f"{path} has an unknown format: give --input a file that ends in {', '.join((*ROW_FILES, TEXT))}, or "
            f"{STANDARD_STREAM} for standard input"
        )
    if not is_stream and not path.is_file():
        raise GPT1Error(f"there is no file {path}")
    if (is_stream or path.suffix.lower() == TEXT) and (args.text_column or args.choices_column):
        raise UsageError(f"{path} has lines and no columns: drop --text_column and --choices_column")


def check_output(args: PredictArguments):
    """Raise if the answers cannot be written."""
    if args.output == STANDARD_STREAM:
        return
    output = Path(args.output)
    if output.suffix.lower() not in OUTPUTS:
        raise UsageError(
            f"the answers cannot be written to {output}: give --output a name that ends in {' or '.join(OUTPUTS)}, or "
            f"{STANDARD_STREAM} for standard output"
        )
    if output.is_dir():
        raise UsageError(f"{output} is a folder: give --output the name of a file")
    if args.input and output.absolute() == Path(args.input).absolute():
        raise UsageError(f"{output} is both --input and --output: give the answers another name")
    check_writable(output.parent, advice="choose another --output")


class Predictor:
    """
    The answers to the texts of an input, in parts of bounded size. The mistakes of a file are raised at the start,
    before its first row is answered.

    Args:
        args ([`PredictArguments`]):
            Settings.
    """

    def __init__(self, args: PredictArguments):
        check_input(args)
        self.args = args
        self.task = task_of_model(str(args.model))
        # The batches are those of `gpt1 evaluate`, so that the scores are rounded alike.
        self.batch_size = args.batch_size or scored_batch_size(open_config(str(args.model)))
        self.reader = Reader(args, self.task, part_size(self.batch_size))
        self.n_rows = None if self.reader.is_stream else sum(len(part.ids) for part in self.reader)
        self.model, self.processor = open_fine_tuned(str(args.model), self.task)
        self.max_length = args.max_length or row_length(self.model.config, self.processor.tokenizer)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the scores. With another number of choices than in training, choices are numbered from 1."""
        n_choices = self.reader.n_choices
        if n_choices in (0, len(self.task.label_names)):
            return self.task.label_names
        return tuple(str(number) for number in range(1, n_choices + 1))

    @property
    def score_columns(self) -> tuple[str, ...]:
        """Columns of the scores in CSV; tags have scores for each word, and scores none at all."""
        return () if self.task.labels == "tags" else self.names

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        args, n_answered, n_truncated = self.args, 0, 0
        if self.reader.is_stream and sys.stdin.isatty():
            note("type one text a line; Ctrl-D ends the input")
        is_in_the_way = self.reader.is_stream or (args.output == STANDARD_STREAM and sys.stdout.isatty())
        with tqdm(total=self.n_rows, unit="row", desc="predicting", disable=is_in_the_way or no_bars()) as bar:
            for part in self.reader:
                filled = part.filled()
                found: Iterator[dict[str, Any]] = iter(())
                if filled.ids:
                    encoded = self.processor(
                        filled.columns,
                        max_length=self.max_length,
                        return_truncated=True,
                        return_word_ends=self.task.labels == "tags",
                    )
                    n_truncated += sum(encoded["truncated"])
                    unlabelled = {"idx": filled.ids, "label": [None] * len(filled.ids)}
                    found = iter(
                        predict(
                            self.model,
                            self.processor,
                            self.task,
                            Dataset.from_dict(unlabelled),
                            Dataset.from_dict(dict(encoded)),
                            self.batch_size,
                        )
                    )
                yield [
                    answer(self.task, self.names, row_id, None if is_empty else next(found), choices)
                    for row_id, is_empty, choices in zip(part.ids, part.is_empty, part.choices, strict=True)
                ]
                n_answered += len(part.ids)
                bar.update(len(part.ids))
        self.processor.warn(n_answered, n_truncated, 0)


def task_of_model(model: str) -> Task:
    """
    The task that a model was fine-tuned on, as far as answers need it: format and labels.

    Raises:
        GPT1Error: if `gpt1 finetune` did not train the model.
    """
    config = open_config(model)
    record = trained_on(config)
    if "task" not in record or "input_format" not in record:
        if any(name.endswith(("Classification", "MultipleChoice")) for name in config.architectures or ()):
            raise GPT1Error(
                f"model {model!r} has no record of its task (config.json, trained_on): give a model that "
                "`gpt1 finetune` trained, or use transformers' pipeline"
            )
        raise GPT1Error(f"model {model!r} is not fine-tuned for a task: train it with `gpt1 finetune` first")
    labels = label_kind(config, record["input_format"])
    names = record.get("labels") or [config.id2label[index] for index in range(config.num_labels)]
    columns = FORMAT_COLUMNS[record["input_format"]]
    built_in = all_tasks().get(record["task"])
    own = [record["columns"]] if record.get("columns") else []
    own += [built_in.columns, *built_in.other_layouts] if built_in else []
    return Task(
        id=record["task"],
        dataset=record.get("dataset"),
        input_format=record["input_format"],
        columns={name: name for name in columns},
        other_layouts=tuple({name: layout[name] for name in columns if name in layout} for layout in own),
        label_names=() if labels == "scores" else tuple(names),
        metric="",
        paper=None,
        labels=labels,
        score_range=(-math.inf, math.inf) if labels == "scores" else None,
        regression_bins=config.regression_bins,
        built_in=False,
    )


@dataclass
class Part:
    """Some rows of the input: their ids, canonical columns, and which of them have no text."""

    ids: list[int | str]
    columns: dict[str, list]
    is_empty: list[bool]

    def filled(self) -> "Part":
        """The rows that have a text."""

        def chosen(values: list) -> list:
            return [value for value, is_empty in zip(values, self.is_empty, strict=True) if not is_empty]

        columns = {name: chosen(values) for name, values in self.columns.items()}
        return Part(chosen(self.ids), columns, chosen(self.is_empty))

    @property
    def choices(self) -> list[list[str] | None]:
        """The choices of each row, if it has any."""
        return self.columns.get("choices", [None] * len(self.ids))


class Reader:
    """
    The rows of the input, in parts of bounded size, checked and in canonical columns. A file can be read several
    times.

    Args:
        args ([`PredictArguments`]):
            Settings.
        task ([`Task`]):
            The model's task.
        size (`int`):
            Rows of a part.
    """

    def __init__(self, args: PredictArguments, task: Task, size: int):
        self.args, self.task, self.size = args, task, size
        self.n_choices = 0  # of the rows so far
        self.path = Path(args.input or STANDARD_STREAM)
        self.is_stream = args.input == STANDARD_STREAM
        self.name = "standard input" if self.is_stream else self.path.name
        self.is_text = self.is_stream or self.path.suffix.lower() == TEXT
        if self.is_text:
            has_question = "question" in next(iter(task.other_layouts), task.columns)  # in training
            self.layout: Columns = {name: name for name in task.columns if name != "question" or has_question}
            return
        with reading_bars():
            self.rows = open_file(self.path)
        self.layout = find_layout(self.rows.column_names, layouts(args, task), self.name)
        own = list(dict.fromkeys(name for own in self.layout.values() for name in _names(own)))
        self.id_column = next((name for name in ("id", "idx") if name not in own and self._can_be_id(name)), None)
        self.rows = self.rows.select_columns([*own, *([self.id_column] if self.id_column else [])])

    def _can_be_id(self, name: str) -> bool:
        feature = self.rows.features.get(name)
        return isinstance(feature, Value) and re.match("u?int|(large_)?string", feature.dtype) is not None

    def __iter__(self) -> Iterator[Part]:
        if not self.is_text:
            return self._parts(self._table_rows())
        lines = lines_as_they_come(sys.stdin.buffer) if self.is_stream else lines_of_file(self.path, self.size)
        return self._parts(self._line_rows(lines))

    def _table_rows(self) -> Iterator[tuple[int, dict[str, list], list]]:
        """Number of the first row of each part, its columns, and the ids of its rows."""
        for start in range(0, len(self.rows), self.size):
            cells = self.rows[start : start + self.size]
            columns = {
                name: cells[own] if isinstance(own, str) else list(zip(*(cells[part] for part in own), strict=True))
                for name, own in self.layout.items()
            }
            n_rows = min(self.size, len(self.rows) - start)
            yield start, columns, cells.get(self.id_column) or list(range(start, start + n_rows))

    def _line_rows(self, parts: Iterable[list[bytes]]) -> Iterator[tuple[int, dict[str, list], list]]:
        """As [`_table_rows`], from lines, whose cells are separated by tabs."""
        start = 0
        for lines in parts:
            rows = [self._cells(line, start + index) for index, line in enumerate(lines)]
            yield (
                start,
                {name: [row[name] for row in rows] for name in self.layout},
                [*range(start, start + len(rows))],
            )
            start += len(rows)

    def _cells(self, line: bytes, index: int) -> dict[str, Any]:
        try:
            text = line.decode("utf-8-sig" if not index else "utf-8")
        except UnicodeDecodeError as error:
            raise GPT1Error(f"{self.name}: line {index + 1} is not UTF-8: save the text as UTF-8") from error
        text = text.rstrip("\r\n")
        names = [*self.layout]
        if len(names) == 1:
            return {names[0]: text.split() if names[0] in LISTS else text}
        cells: list[Any] = text.split("\t") if text.strip() else [""] * len(names)
        if names[-1] == "choices" and len(cells) >= len(names):
            cells[len(names) - 1 :] = [cells[len(names) - 1 :]]
        if len(cells) != len(names):
            raise GPT1Error(
                f"{self.name}: line {index + 1} has {len(cells)} of the texts {', '.join(names)}: separate them by "
                "tabs"
            )
        return dict(zip(names, cells, strict=True))

    def _parts(self, found: Iterable[tuple[int, dict[str, list], list]]) -> Iterator[Part]:
        for start, columns, ids in found:
            is_empty = [False] * len(ids)
            for name, cells in columns.items():
                columns[name] = [self._value(name, cell, start + index) for index, cell in enumerate(cells)]
                for index, value in enumerate(columns[name]):
                    if name in OPTIONAL_COLUMNS or not is_blank(value):
                        continue
                    if not self.args.allow_empty:
                        raise GPT1Error(
                            f"{self._where(name, start + index)} is empty: fill it, remove the row, or give "
                            "--allow_empty"
                        )
                    is_empty[index] = True
            if self.task.input_format == "multiple_choice":
                columns.setdefault("question", [""] * len(ids))
                for index, choices in enumerate(columns["choices"]):
                    if is_empty[index]:
                        continue
                    self.n_choices = self.n_choices or len(choices)
                    if len(choices) != self.n_choices or self.n_choices < 2:
                        raise GPT1Error(
                            f"{self._where('choices', start + index)} has {len(choices)} choices: every row needs the "
                            f"same number, at least 2 (the first has {self.n_choices})"
                        )
            yield Part(ids, columns, is_empty)

    def _where(self, name: str, index: int) -> str:
        """A cell, for errors."""
        if self.is_text:
            return f"{self.name}: line {index + 1}"
        row = Place(self.name, str(self.path), built_in=False).row(index)
        return f"{self.name}: {row}, column {' and '.join(map(repr, _names(self.layout[name])))}"

    def _value(self, name: str, cell: Any, index: int) -> str | list[str]:
        """A cell as text or, in a column of lists, as a list of texts."""
        if name in LISTS:
            values = [] if not cell else parse_list(cell) if isinstance(cell, str) else cell
            if not isinstance(values, list | tuple):
                raise GPT1Error(f'{self._where(name, index)}: {str(cell)[:60]!r} is not a list, such as ["a", "b"]')
            return [self._text(name, value, index) for value in values]
        parts = cell if isinstance(cell, tuple) else [cell]  # several columns are joined, as in training
        return " ".join(self._text(name, part, index) for part in parts)

    def _text(self, name: str, value: Any, index: int) -> str:
        if value is not None and not isinstance(value, str):
            raise GPT1Error(f"{self._where(name, index)}: {str(value)[:60]} is not text")
        return value or ""


def is_blank(value: str | list[str]) -> bool:
    """Whether a text is empty, or a list is empty or has an empty text."""
    if isinstance(value, str):
        return not value.strip()
    return not value or any(not text.strip() for text in value)


def lines_of_file(path: Path, size: int) -> Iterator[list[bytes]]:
    """The lines of a file, some at a time."""
    with path.open("rb") as file:
        while lines := list(islice(file, size)):
            yield lines


def lines_as_they_come(stream: Any) -> Iterator[list[bytes]]:
    """
    The lines of a stream, each time all that have arrived: it waits for one, not for a batch of them. So the batches,
    and with them the last digits of the scores, depend on when the lines come.
    """
    rest = b""
    while block := stream.read1(LINES_AT_ONCE):
        *lines, rest = (rest + block).split(b"\n")
        if lines:
            yield lines
    if rest:
        yield [rest]


def layouts(args: PredictArguments, task: Task) -> list[Columns]:
    """The columns that a file may have, canonical -> its own, in the order of preference."""
    names = [name for name in task.columns if name != "choices"]
    if args.choices_column and "choices" not in task.columns:
        raise UsageError(
            f"--choices_column is for multiple choice, and model {args.model!r} is for {task.input_format}"
        )
    if args.text_column or args.choices_column:
        texts = args.text_column or names
        layout: Columns = {}
        if len(names) == 1 and len(texts) > 1 and names[0] not in LISTS:
            layout[names[0]] = tuple(texts)
        elif len(names) - ("question" in names) <= len(texts) <= len(names):
            layout = dict(zip(names, texts, strict=False))
        else:
            raise UsageError(
                f"model {args.model!r} reads {' and '.join(names)}: give --text_column {len(names)} columns, not "
                f"{len(texts)} ({', '.join(texts)})"
            )
        if "choices" in task.columns:
            choices = args.choices_column or ["choices"]
            layout["choices"] = choices[0] if len(choices) == 1 else tuple(choices)
        return [layout]
    canonical: Columns = {name: name for name in task.columns}
    without_question: Columns = {name: name for name in task.columns if name not in OPTIONAL_COLUMNS}
    return [*task.other_layouts, canonical, without_question]


def find_layout(columns: Sequence[str], candidates: list[Columns], where: str) -> Columns:
    """The first layout whose columns a file has; if there is none, the error names what is missing."""
    first_missing = []
    for layout in candidates:
        missing = [name for own in layout.values() for name in _names(own) if name not in columns]
        if not missing:
            return layout
        first_missing.append(missing[0])
    near = next(filter(None, (nearest(name, columns) for name in first_missing)), "")
    raise GPT1Error(
        f"{where}: column {' or '.join(map(repr, dict.fromkeys(first_missing)))} is missing; the file has "
        f"{', '.join(columns)}: name the columns of the texts with --text_column{near}"
    )


def _names(own: str | Sequence[str]) -> tuple[str, ...]:
    return (own,) if isinstance(own, str) else tuple(own)


def answer(
    task: Task,
    names: Sequence[str],
    row_id: int | str,
    prediction: Mapping[str, Any] | None,
    choices: list[str] | None,
) -> dict[str, Any]:
    """A row of the output, from a row of [`gpt1_hf.evaluation.task_scores.predict`]; see [`answers`]."""
    keys = ["prediction"] if task.labels == "scores" else ["label", "scores"]
    keys += ["truncated"]
    if choices is not None:
        keys.insert(1, "answer")
    found: dict[str, Any] = {"id": row_id, **dict.fromkeys(keys)}
    if prediction is None:
        return found
    found["truncated"] = prediction["truncated"]
    scores = prediction["scores"]
    if task.labels == "scores":
        found["prediction"] = prediction["prediction"] if math.isfinite(prediction["prediction"]) else None
        return found
    if task.labels == "tags":
        # A word that was cut off has no scores.
        found["label"] = [None if index < 0 else names[index] for index in prediction["prediction"]]
        found["scores"] = [word and dict(zip(names, word, strict=True)) for word in scores]
        return found
    if not all(map(math.isfinite, scores)):
        return found
    found["scores"] = dict(zip(names, scores, strict=True))
    if task.labels == "multiple":
        found["label"] = [name for name, applies in zip(names, prediction["prediction"], strict=True) if applies]
        return found
    found["label"] = names[prediction["prediction"]]
    if choices is not None:
        found["answer"] = choices[prediction["prediction"]]
    return found


def json_lines(rows: list[dict[str, Any]]) -> str:
    """Answers as lines of JSON."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


class CsvWriter:
    """Answers as lines of CSV, with a column for each score; other lists are written as JSON."""

    def __init__(self, predictor: Predictor):
        self.predictor = predictor
        self.has_header = False

    def lines(self, rows: list[dict[str, Any]]) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        flat = [self._flat(row) for row in rows]
        if flat and not self.has_header:
            writer.writerow(flat[0])
            self.has_header = True
        writer.writerows(row.values() for row in flat)
        return text.getvalue()

    def _flat(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row with its scores as columns of their own, such as `scores.good`."""
        flat: dict[str, Any] = {}
        for key, value in row.items():
            if key == "scores" and (names := self.predictor.score_columns):
                flat |= {f"scores.{name}": None if value is None else value[name] for name in names}
            else:
                flat[key] = json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
        return flat
