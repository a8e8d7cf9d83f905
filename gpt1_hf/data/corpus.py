"""Reading running text: the documents of a corpus, from files or the Hub, in pieces of bounded size."""

import json
import logging
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from ..errors import GPT1Error
from .loading import BUILDERS, LOAD_ERRORS, local_copy, open_dataset, split_files, unreadable


TEXT = ".txt"
ROWS = ("documents", "lines")  # what a row of a corpus can be
PIECE_SIZE = 1 << 16  # characters, so that memory does not grow with the corpus or its documents
logger = logging.getLogger(__name__)


def read_pieces(
    corpus: str,
    split: str = "train",
    data_dir: str | None = None,
    revision: str | None = None,
    rows: str = "documents",
    part: tuple[int, int] = (0, 1),
) -> Iterator[tuple[int, str]]:
    """
    Stream the documents of a corpus in pieces of bounded size, cut at line breaks.

    Args:
        corpus (`str`):
            A `.txt` file or a folder of them (one document each), a parquet or JSON-lines file or a folder of them
            with a `text` column (`train*` and `validation*` files are those splits), or a Hub id.
        split (`str`, *optional*, defaults to `"train"`):
            Split to read.
        data_dir (`str`, *optional*):
            Folder with local copies laid out as on the Hub, searched first.
        revision (`str`, *optional*):
            Revision of the Hub repository.
        rows (`str`, *optional*, defaults to `"documents"`):
            What a row of the corpus is: a document, or one of the `"lines"` of a single running text. The
            sentence-level `bookcorpus`, for example, does not mark where a book ends.
        part (`tuple[int, int]`, *optional*, defaults to `(0, 1)`):
            `(i, n)` reads only part i of n, counted from 0. Parts consist of whole files, in the corpus's order.

    Yields:
        `tuple[int, str]`: number of the document, and a piece of it. Join a document's pieces with line breaks.
        Documents without text are skipped.

    Raises:
        GPT1Error: if the corpus or the split does not exist, or has no `text` column.
    """
    if rows not in ROWS:
        raise GPT1Error(f"unknown kind of rows {rows!r}; choose one of {', '.join(ROWS)}")
    index, n_parts = part
    one_text = False
    files = text_files(corpus, data_dir)
    if index == 0:
        warn_of_unread_files(corpus, data_dir, files)
    if files:
        documents = map(file_lines, files[len(files) * index // n_parts : len(files) * (index + 1) // n_parts])
    else:
        check_readable(corpus, split, data_dir)
        stream = open_dataset(corpus, split, data_dir=data_dir, revision=revision, streaming=True)
        n_filled = min(n_parts, stream.num_shards)  # with more parts than files, the last parts are empty
        if index >= n_filled:
            return
        texts = row_texts(corpus, stream.shard(n_filled, index) if n_filled > 1 else stream, may_be_empty=n_filled > 1)
        one_text = rows == "lines"
        documents = [texts] if one_text else (text.split("\n") for text in texts)
    for number, lines in enumerate(documents):
        # A part of a single text keeps its blank lines, even if it has nothing else.
        yield from ((number, piece) for piece in join_lines(lines, keep_blank=one_text and n_parts > 1))


def read_documents(corpus: str, split: str = "train", data_dir: str | None = None) -> Iterator[str]:
    """Stream whole documents that are not empty; see [`read_pieces`]."""
    for _, pieces in groupby(read_pieces(corpus, split, data_dir), key=itemgetter(0)):
        yield "\n".join(piece for _, piece in pieces)


def text_files(corpus: str, data_dir: str | None = None) -> list[Path]:
    """Files of a corpus of `.txt` files; empty if the corpus consists of rows."""
    path = local_copy(corpus, data_dir) or Path(corpus)
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    holds_rows = path.is_dir() and any(file.suffix.lower() in BUILDERS for file in path.iterdir())
    return [] if holds_rows else [file for file in files if file.suffix.lower() == TEXT and file.is_file()]


def has_split(corpus: str, split: str, data_dir: str | None = None) -> bool:
    """Whether a folder of rows has files named after a split."""
    path = local_copy(corpus, data_dir) or Path(corpus)
    return path.is_dir() and bool(split_files(path, split))


def fingerprint(
    corpus: str, split: str, data_dir: str | None = None, revision: str | None = None, rows: str = "documents"
) -> str:
    """Identify what [`read_pieces`] reads: its arguments, and names, sizes and modification times of local files."""
    path = local_copy(corpus, data_dir) or Path(corpus)
    files = sorted(path.rglob("*")) if path.is_dir() else [path] if path.is_file() else []
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return json.dumps([corpus, split, revision, rows, stats])


def warn_of_unread_files(corpus: str, data_dir: str | None, files: list[Path]):
    """Warn about files in a corpus's folder that are not read: all but `.txt` files, or `.txt` files beside rows."""
    path = local_copy(corpus, data_dir) or Path(corpus)
    unread = [
        str(file.relative_to(path))
        for file in sorted(path.rglob("*"))
        if file.is_file() and file not in files and (files or file.suffix.lower() == TEXT)
    ]
    if names := [name for name in unread if not any(part.startswith(".") for part in Path(name).parts)]:
        what = f"{TEXT} files" if files else "files of rows"
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        logger.warning(f"{path}: only {what} are read; skipped: {', '.join(names[:3])}{more}")


def check_readable(corpus: str, split: str, data_dir: str | None = None):
    """Raise if a corpus is a local file or folder with neither texts nor rows."""
    path = local_copy(corpus, data_dir) or Path(corpus)
    files = [path] if path.is_file() else sorted(path.iterdir()) if path.is_dir() else None
    if files is not None and not any(file.suffix.lower() in BUILDERS for file in files):
        names = ", ".join([file.name for file in files[:3]] + ["..."] * (len(files) > 3))
        held = f" (it holds {names})" if names else ""
        fault = "has an unknown format" if path.is_file() else f"has no file of the split {split!r}{held}"
        raise GPT1Error(
            f"{path} {fault}: give a {TEXT} file, a folder of them, or rows with a column 'text' "
            f"({', '.join(BUILDERS)})"
        )


def file_lines(file: Path) -> Iterator[str]:
    """Lines of a text file, split at line breaks only. Invalid UTF-8 becomes U+FFFD."""
    line, warned = "\n", False
    with file.open(encoding="utf-8", errors="replace") as text:
        for line in text:
            if not warned and "\ufffd" in line:
                logger.warning(f"{file} is not valid UTF-8, and undecodable bytes become U+FFFD: convert it first")
                warned = True
            yield line.removesuffix("\n")
    if line.endswith("\n"):
        yield ""


def row_texts(corpus: str, rows: Iterable[dict], may_be_empty: bool = False) -> Iterator[str]:
    """The `text` column of a corpus's rows. A missing text is an empty one; a corpus without rows is an error."""
    rows, empty = iter(rows), not may_be_empty
    while True:
        try:
            row = next(rows, None)
        except LOAD_ERRORS as error:
            raise unreadable(f"the corpus {corpus!r} to its end", error, "it is damaged") from error
        if row is None:
            if empty:  # some versions of `datasets` raise for this themselves
                raise GPT1Error(f"the corpus {corpus!r} is empty: it has no rows")
            return
        empty = False
        if "text" not in row:
            raise GPT1Error(f"corpus {corpus!r} has no column 'text'; its columns are {sorted(row)}")
        text = row["text"] or ""
        if not isinstance(text, str):
            raise GPT1Error(f"the column 'text' of corpus {corpus!r} holds {text!r}, which is not text")
        yield text


def join_lines(lines: Iterable[str], keep_blank: bool = False) -> Iterator[str]:
    """
    Join lines into pieces of about `PIECE_SIZE` characters. Blank lines alone make no piece, unless `keep_blank`.
    """
    piece, size, text_seen = [], 0, keep_blank
    for line in lines:
        piece.append(line)
        size += len(line) + 1
        text_seen = text_seen or not (not line or line.isspace())
        if size >= PIECE_SIZE and text_seen:
            yield "\n".join(piece)
            piece, size = [], 0
    if piece and text_seen:
        yield "\n".join(piece)
