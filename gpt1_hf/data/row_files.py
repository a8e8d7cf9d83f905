"""Opening a user's file of rows: CSV, TSV, JSON or Parquet, with errors that name the line."""

import codecs
import csv
import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, IterableDataset, Value, load_dataset

from ..errors import GPT1Error
from .loading import BUILDERS, LOAD_ERRORS, unreadable


# Ending of a user's file of rows -> separator of its cells; JSON and Parquet have none.
ROW_FILES = {".csv": ",", ".tsv": "\t", ".json": None, ".jsonl": None, ".parquet": None}
# Type of a JSON value -> its name in errors.
JSON_TYPES = {
    str: "text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}


def open_file(path: str | Path) -> Dataset:
    """
    Open a user's file of rows.

    Args:
        path (`str` or `Path`):
            `.csv` (cells separated by commas, semicolons, tabs or vertical bars), `.tsv` (by tabs), `.jsonl`, `.json`
            or `.parquet`; text is UTF-8, with or without a byte order mark. All cells of CSV and TSV files are
            strings, as they stand in the file.

    Raises:
        GPT1Error: if it is missing, empty or not in its format; the message names the line.
    """
    path = check_file(path)
    status = path.stat()
    return _open_file(path, status.st_mtime_ns, status.st_size)


def check_file(path: str | Path) -> Path:
    """Raise if a user's file of rows is missing, empty or of an unknown format."""
    path = Path(path)
    if path.suffix.lower() not in ROW_FILES:
        raise GPT1Error(f"{path} has an unknown format: give a file that ends in {', '.join(ROW_FILES)}")
    if not path.is_file():
        raise GPT1Error(f"there is no file {path}")
    if not path.stat().st_size:
        raise GPT1Error(f"{path} is empty")
    return path


@lru_cache(maxsize=8)
def _open_file(path: Path, mtime_ns: int, size: int) -> Dataset:
    kind = path.suffix.lower()
    source: dict = {"path": BUILDERS.get(kind, "csv"), "data_files": [str(path)], "split": "train"}
    if kind == ".parquet":
        _check_parquet(path)
    else:
        _check_encoding(path)
    if separator := _separator(path):
        options, n_rows = _table_options(path, separator)
        source |= options
    try:
        with _without_logged_errors():
            rows = load_dataset(**source)
    except LOAD_ERRORS as error:
        if kind == ".jsonl":
            _check_json_lines(path)
        if kind in (".json", ".jsonl"):
            rows = _read_json(path, error)
        elif kind == ".parquet" and (texts := _view_columns(pq.read_schema(path))):
            table = pq.read_table(path)  # `datasets` 4 cannot read these
            for name in texts:
                position = table.schema.get_field_index(name)
                table = table.set_column(position, name, table[name].cast(pa.large_string()))
            rows = Dataset(table)
        else:
            raise unreadable(str(path), error) from error
    if separator and len(rows) != n_rows:  # pandas leaves it out, and the rows after it would change places
        raise GPT1Error(f"{path}: a line holds nothing but spaces: remove it, or put it into quotation marks")
    return _with_texts_as_strings(rows, path)


def _with_texts_as_strings(rows: Dataset, path: Path) -> Dataset:
    """Restore dates, which the JSON reader parses, as they stand in the file; and strings in the form of Polars."""
    types = {name: str(rows.features.arrow_schema.field(name).type) for name in rows.column_names}
    for name in _view_columns(rows.features.arrow_schema):
        column = rows.with_format("arrow")[:][name].cast(pa.large_string())
        rows = rows.remove_columns(name).add_column(name, column.combine_chunks())
    dates = [name for name, kind in types.items() if "timestamp" in kind or "date" in kind]
    if dates and path.suffix.lower() in (".json", ".jsonl"):
        raw = json_rows(path)
        for name in dates:
            rows = rows.remove_columns(name).add_column(name, [row.get(name) for row in raw])
    return rows.select_columns([*types])


def _view_columns(schema: pa.Schema) -> list[str]:
    """Columns of strings in the form of Polars."""
    return [field.name for field in schema if str(field.type) == "string_view"]


def _read_json(path: Path, error: Exception) -> Dataset:
    """Read what `datasets` 4 cannot: JSON after a byte order mark, and values of several types, which are an error."""
    try:
        rows = json_rows(path)
    except ValueError:
        raise unreadable(str(path), error) from error
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise unreadable(str(path), error) from error
    for column in dict.fromkeys(name for row in rows for name in row):
        first = None
        for index, value in enumerate(row.get(column) for row in rows):
            if value is None or value != value:  # NaN
                rows[index] = {**rows[index], column: None}
                continue
            first = first or JSON_TYPES[type(value)]
            if JSON_TYPES[type(value)] != first:
                line = line_of_row(path, index)
                row = f"row {index + 1} (counted from 1)" if line is None else f"line {line}"
                raise GPT1Error(
                    f"{path.name}: {row}, column {column!r}: {value!r} is {JSON_TYPES[type(value)]}, but the rows "
                    f"before hold {first}: give the column one type"
                ) from error
    return Dataset.from_list(rows)


def json_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON file, without any conversion. They are all in memory."""
    text = path.read_text(encoding="utf-8-sig")
    try:
        found = json.loads(text)
    except ValueError:
        found = [json.loads(line) for line in text.split("\n") if line.strip()]
    return found if isinstance(found, list) else [found]


@contextmanager
def _without_logged_errors() -> Iterator[None]:
    """Without the messages of `datasets`, which logs an error before it raises it."""
    logger = logging.getLogger("datasets")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _check_parquet(path: Path):
    """Raise if a Parquet file is damaged, has no rows, or has two columns of one name."""
    try:
        with pq.ParquetFile(path) as file:
            names, n_rows = file.schema_arrow.names, file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise unreadable(str(path), error) from error
    for name in names:
        if names.count(name) > 1:
            raise GPT1Error(f"{path}: the file has the column {name!r} {names.count(name)} times")
    if not n_rows:
        raise GPT1Error(f"{path} has no rows")


def _check_json_lines(path: Path):
    """Raise for the first line of a file of JSON lines that is wrong."""

    def check_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
        keys = [key for key, _ in pairs]
        if len({*keys}) < len(keys):
            raise ValueError(f"it has the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
        return dict(pairs)

    n_rows = 0
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            n_rows += 1
            try:
                row = json.loads(line, object_pairs_hook=check_keys)
                json.dumps(row, ensure_ascii=False).encode()  # half of a surrogate pair is no text
            except (ValueError, RecursionError) as error:
                raise GPT1Error(f"{path}: line {number} is not valid JSON ({error})") from error
            if not isinstance(row, dict):
                raise GPT1Error(f'{path}: line {number} is not an object, such as {{"text": "It rains.", "label": 1}}')
    if not n_rows:
        raise GPT1Error(f"{path} has no rows")


def stream_tables(paths: Sequence[Path]) -> IterableDataset:
    """
    Stream the rows of CSV or TSV files, read as in [`open_file`]. One file is one shard.

    Raises:
        GPT1Error: if a file is not what its name says, or has other columns than the first one.
    """
    options = {}
    for path in paths:
        _check_encoding(check_file(path))
        own, _ = _table_options(path, _separator(path))
        options = options or own
        if own != options:
            raise GPT1Error(f"{path} has other columns, separators or quotes than {paths[0]}: make them the same")
    return load_dataset("csv", data_files=[str(path) for path in paths], split="train", streaming=True, **options)


def _table_options(path: Path, separator: str) -> tuple[dict[str, Any], int]:
    """Options with which `datasets` reads a CSV or TSV file, and the number of its rows. Every cell is a string."""
    header, quoting, n_rows = _check_table(path, separator)
    options = {
        "sep": separator,
        "quoting": quoting,
        "encoding": "utf-8-sig",
        "keep_default_na": False,  # "NA", "None" and "null" are words
        "features": Features({name: Value("string") for name in header}),
    }
    return options, n_rows


def line_of_row(path: str | Path, index: int) -> int | None:
    """Line, counted from 1, on which a row of a text file begins; `None` in a file without one row a line."""
    path = Path(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix.lower() == ".jsonl":
            lines = (number for number, line in enumerate(file, 1) if line.strip())
            return next(islice(lines, index, None), None)
        if separator := _separator(path):
            reader = csv.reader(file, delimiter=separator, quoting=_quoting(path, separator))
            begin, n_rows = 1, -2  # the header is row -1
            for row in reader:
                n_rows += bool(row)
                if n_rows == index:
                    return begin
                begin = reader.line_num + 1
    return None


def _separator(path: Path) -> str | None:
    """
    What separates the cells of a CSV or TSV file; `None` for other kinds. Spreadsheets of many countries write `.csv`
    with semicolons, and some programs with tabs.
    """
    separator = ROW_FILES[path.suffix.lower()]
    if separator != ",":
        return separator
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = re.sub('"[^"]*"', "", next((line for line in file if line.strip()), ""))
    return next((mark for mark in (",", ";", "\t", "|") if mark in header), ",")


def _quoting(path: Path, separator: str) -> int:
    return csv.QUOTE_MINIMAL if separator != "\t" or _is_quoted(path, separator) else csv.QUOTE_NONE


def _check_encoding(path: Path):
    """Raise if a text file is not UTF-8."""
    decoder, line = codecs.getincrementaldecoder("utf-8-sig")(), 1
    with path.open("rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise GPT1Error(f"{path} is UTF-16: save it as UTF-8")
        file.seek(0)
        while block := file.read(1 << 20):
            try:
                text = decoder.decode(block)
            except UnicodeDecodeError as error:
                line += block.count(b"\n", 0, error.start)
                raise GPT1Error(f"{path}: line {line} is not UTF-8: save the file as UTF-8") from error
            if "\0" in text:
                line += text.count("\n", 0, text.index("\0"))
                raise GPT1Error(f"{path}: line {line} holds a null character: save the file as UTF-8 text")
            line += text.count("\n")
    if decoder.getstate()[0]:
        raise GPT1Error(f"{path}: line {line} is not UTF-8, or was cut off: save the file as UTF-8")


def _check_table(path: Path, separator: str) -> tuple[list[str], int, int]:
    """
    Read a CSV or TSV file once, without keeping it.

    Returns:
        Its column names, how its cells are quoted, and its number of rows.

    Raises:
        GPT1Error: if the header or a row is wrong; the message names the line.
    """
    quoting = _quoting(path, separator)
    limit = csv.field_size_limit(1 << 30)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=separator, quoting=quoting, strict=True)
            header = next((row for row in reader if row), [])
            _check_header(path, header, separator)
            n_rows = 0
            for row in reader:
                n_rows += bool(row)
                if row and len(row) != len(header):
                    advice = f"quote cells that hold {_SEPARATORS[separator]}"
                    if len(row) < len(header):
                        advice = "add the missing ones; was the file cut off there?"
                    raise GPT1Error(
                        f"{path}: line {reader.line_num} has {len(row)} cell{'s' if len(row) > 1 else ''}, but the "
                        f"header has {len(header)} ({', '.join(header)}): {advice}"
                    )
            if not n_rows:
                raise GPT1Error(f"{path} has no rows{', only a header' if header else ''}")
    except csv.Error as error:
        raise GPT1Error(f"{path}: line {reader.line_num} is damaged ({error})") from error
    finally:
        csv.field_size_limit(limit)
    names = [name or f"Unnamed: {index}" for index, name in enumerate(header)]  # as pandas names them
    return names, quoting, n_rows


def _check_header(path: Path, header: list[str], separator: str):
    for name in header:
        if name and header.count(name) > 1:
            raise GPT1Error(f"{path}: the header has the column {name!r} {header.count(name)} times")
    other = next((mark for mark in _SEPARATORS if mark != separator and mark in "".join(header)), None)
    if len(header) == 1 and other:
        raise GPT1Error(
            f"{path}: the cells are separated by {_SEPARATORS[other]}, not {_SEPARATORS[separator]} (the header is "
            f"{header[0]!r}): save it with commas as .csv, or with tabs as .tsv"
        )


def _is_quoted(path: Path, separator: str) -> bool:
    """
    Whether quotation marks around a cell are not part of it, as in spreadsheets. Most data sets in TSV have no
    quoting: some cell then begins with a quotation mark and does not end with one, though every line is a row.
    """
    return not _has_a_stray_quote(path, separator) or _is_whole_only_if_quoted(path, separator)


def _is_whole_only_if_quoted(path: Path, separator: str) -> bool:
    """Whether all rows have the header's number of cells if cells may span lines, and only then."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = (line.rstrip("\r\n") for line in file)
        n_cells = next(filter(None, lines), "").count(separator)
        if all(line.count(separator) == n_cells for line in lines if line):
            return False
        file.seek(0)
        try:
            rows = csv.reader(file, delimiter=separator, strict=True)
            return all(len(row) == n_cells + 1 for row in rows if row)
        except csv.Error:
            return False


def _has_a_stray_quote(path: Path, separator: str) -> bool:
    """Whether a cell begins with a quotation mark and does not end with one."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        n_cells = file.readline().count(separator)
        for line in file:
            if '"' not in line or line.count(separator) != n_cells:  # a quoted cell may hold tabs and new lines
                continue
            for cell in line.rstrip("\r\n").split(separator):
                inner = cell[1:-1].replace('""', "")
                if cell.startswith('"') and (len(cell) < 2 or cell[-1] != '"' or '"' in inner):
                    return True
    return False
