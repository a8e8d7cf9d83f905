"""Running text: documents from files or the Hub, written once as a memory-mapped stream of token ids.

Pre-training samples contiguous spans of the stream at random (paper §4.1); evaluation reads it document by document.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
from filelock import FileLock
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from ..console import no_bars
from ..errors import GPT1Error
from .loading import BUILDERS, LOAD_ERRORS, local_copy, open_dataset, split_files, unreadable


TOKENS, INDEX = "tokens.bin", "index.json"
LINE_BREAK = "\n</w>"  # the token of white space that holds a line break
CHUNK = 1 << 16  # characters of a piece, so that memory does not grow with the corpus or its documents
BATCH = 1 << 20  # characters that are encoded at once
BETWEEN_WORDS = re.compile(r"\w\w (?=\w\w)")  # a line cut here has the same tokens: no rule looks past two words
logger = logging.getLogger(__name__)

TEXT = ".txt"
ROWS = ("documents", "lines")  # what a row of a corpus can be
NO_TEXT = "the corpus is empty: it has no text to train or test on"


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
            Folder with local copies laid out as on the Hub, searched before it.
        revision (`str`, *optional*):
            Revision of the Hub repository.
        rows (`str`, *optional*, defaults to `"documents"`):
            What a row of the corpus is: `"documents"`, or `"lines"` of one running text, as of the sentence-level
            `bookcorpus`, which does not tell where a book ends.
        part (`tuple[int, int]`, *optional*, defaults to `(0, 1)`):
            `(i, n)`: only the i-th, from 0, of n parts of neighbouring files; part after part they are the corpus.

    Yields:
        `tuple[int, str]`: number of the document, and a piece of it. The pieces of a document are to be joined with a
        line break. A document without text is left out.

    Raises:
        GPT1Error: if the corpus or the split does not exist, or has no `text` column.
    """
    if rows not in ROWS:
        raise GPT1Error(f"unknown kind of rows {rows!r}; choose one of {', '.join(ROWS)}")
    index, n_parts = part
    one_text = False
    files = text_files(corpus, data_dir)
    if index == 0:
        warn_of_others(corpus, data_dir, files)
    if files:
        documents = map(file_lines, files[len(files) * index // n_parts : len(files) * (index + 1) // n_parts])
    else:
        check_readable(corpus, split, data_dir)
        stream = open_dataset(corpus, split, data_dir=data_dir, revision=revision, streaming=True)
        n_filled = min(n_parts, stream.num_shards)  # with more parts than files the last ones are empty
        if index >= n_filled:
            return
        texts = row_texts(corpus, stream.shard(n_filled, index) if n_filled > 1 else stream, may_be_empty=n_filled > 1)
        one_text = rows == "lines"
        documents = [texts] if one_text else (text.split("\n") for text in texts)
    for number, lines in enumerate(documents):
        # Of one text that lies in several parts, blank lines alone belong to it, too.
        yield from ((number, piece) for piece in blocks(lines, keep_blank=one_text and n_parts > 1))


def text_files(corpus: str, data_dir: str | None = None) -> list[Path]:
    """Files of a corpus of `.txt` files; none, if it is one of rows."""
    path = local_copy(corpus, data_dir) or Path(corpus)
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    holds_rows = path.is_dir() and any(file.suffix.lower() in BUILDERS for file in path.iterdir())
    return [] if holds_rows else [file for file in files if file.suffix.lower() == TEXT and file.is_file()]


def warn_of_others(corpus: str, data_dir: str | None, files: list[Path]):
    """Name what lies in a corpus's folder and is not read: beside `.txt` files anything, beside rows `.txt` files."""
    path = local_copy(corpus, data_dir) or Path(corpus)
    others = [
        str(file.relative_to(path))
        for file in sorted(path.rglob("*"))
        if file.is_file() and file not in files and (files or file.suffix.lower() == TEXT)
    ]
    if names := [name for name in others if not any(part.startswith(".") for part in Path(name).parts)]:
        what = f"{TEXT} files" if files else "files of rows"
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        logger.warning(f"{path}: only {what} are read; left out: {', '.join(names[:3])}{more}")


def check_readable(corpus: str, split: str, data_dir: str | None = None):
    """Raise if a corpus is a file or folder here that has neither texts nor rows."""
    path = local_copy(corpus, data_dir) or Path(corpus)
    files = [path] if path.is_file() else sorted(path.iterdir()) if path.is_dir() else None
    if files is not None and not any(file.suffix.lower() in BUILDERS for file in files):
        names = ", ".join([file.name for file in files[:3]] + ["..."] * (len(files) > 3))
        held = f" (it holds {names})" if names else ""
        fault = "is of no known format" if path.is_file() else f"has no file of the split {split!r}{held}"
        raise GPT1Error(
            f"{path} {fault}: give a {TEXT} file, a folder of them, or rows with a column 'text' "
            f"({', '.join(BUILDERS)})"
        )


def file_lines(file: Path) -> Iterator[str]:
    """Lines of a text file, as splitting its text at line breaks would give them; what is no UTF-8 is U+FFFD."""
    line, warned = "\n", False
    with file.open(encoding="utf-8", errors="replace") as text:
        for line in text:
            if not warned and "\ufffd" in line:
                logger.warning(f"{file} is not all UTF-8: what cannot be read stands as U+FFFD; convert it first")
                warned = True
            yield line.removesuffix("\n")
    if line.endswith("\n"):
        yield ""


def row_texts(corpus: str, rows: Iterable[dict], may_be_empty: bool = False) -> Iterator[str]:
    """The `text` column of a corpus's rows; a missing text is an empty one, no row at all an error."""
    rows, empty = iter(rows), not may_be_empty
    while True:
        try:
            row = next(rows, None)
        except LOAD_ERRORS as error:
            raise unreadable(f"the corpus {corpus!r} to its end", error, "it is damaged") from error
        if row is None:
            if empty:  # some versions of `datasets` say so themselves
                raise GPT1Error(f"the corpus {corpus!r} is empty: it has no rows")
            return
        empty = False
        if "text" not in row:
            raise GPT1Error(f"corpus {corpus!r} has no column 'text'; its columns are {sorted(row)}")
        text = row["text"] or ""
        if not isinstance(text, str):
            raise GPT1Error(f"corpus {corpus!r} holds {text!r} in its column 'text', which is not text")
        yield text


def blocks(lines: Iterable[str], keep_blank: bool = False) -> Iterator[str]:
    """Join lines into pieces of about `CHUNK` characters; none, unless `keep_blank`, if there is no text in them."""
    block, size, text_seen = [], 0, keep_blank
    for line in lines:
        block.append(line)
        size += len(line) + 1
        text_seen = text_seen or not (not line or line.isspace())
        if size >= CHUNK and text_seen:
            yield "\n".join(block)
            block, size = [], 0
    if block and text_seen:
        yield "\n".join(block)


def read_documents(corpus: str, split: str = "train", data_dir: str | None = None) -> Iterator[str]:
    """Stream whole documents, each a text that is not empty; see [`read_pieces`]."""
    for _, pieces in groupby(read_pieces(corpus, split, data_dir), key=itemgetter(0)):
        yield "\n".join(piece for _, piece in pieces)


def has_split(corpus: str, split: str, data_dir: str | None = None) -> bool:
    """Whether a corpus of files has a split of its own, by its files' names."""
    path = local_copy(corpus, data_dir) or Path(corpus)
    return path.is_dir() and bool(split_files(path, split))


@dataclass
class TokenStream:
    """
    Token ids of a corpus, one document after the other, memory-mapped.

    Args:
        tokens (`np.ndarray` of shape `(n_tokens,)`):
            Token ids, `uint16` or `uint32`.
        document_ends (`list[int]`):
            Index one past the last token of each document.
        document_chars (`list[int]`):
            Number of characters of each document's raw text.
    """

    tokens: np.ndarray
    document_ends: list[int]
    document_chars: list[int]

    def __len__(self) -> int:
        return len(self.tokens)

    def documents(self) -> Iterator[tuple[np.ndarray, int]]:
        """Yield each document's token ids and its number of characters."""
        start = 0
        for end, n_chars in zip(self.document_ends, self.document_chars, strict=True):
            yield self.tokens[start:end], n_chars
            start = end

    def part(self, first: int, last: int) -> "TokenStream":
        """The tokens from `first` to before `last`; a document that is cut shares out its characters by tokens."""
        ends, sizes, start = [], [], 0
        for end, n_chars in zip(self.document_ends, self.document_chars, strict=True):
            n_tokens = min(end, last) - max(start, first)
            if n_tokens > 0:
                ends.append(min(end, last) - first)
                sizes.append(round(n_chars * n_tokens / (end - start)))
            start = end
        return TokenStream(self.tokens[first:last], ends, sizes)

    @classmethod
    def load(cls, folder: str | Path) -> "TokenStream":
        """Map a stream that [`build_token_stream`] wrote."""
        index = read_index(Path(folder))
        tokens = np.memmap(Path(folder) / TOKENS, dtype=index["dtype"], mode="r")
        return cls(tokens, index["document_ends"], index["document_chars"])


def encode_document(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Encode a text of any length, see [`encode_blocks`]."""
    return [token for block in encode_blocks(tokenizer, text) for token in block]


def encode_blocks(tokenizer: PreTrainedTokenizerBase, text: str) -> Iterator[list[int]]:
    """
    Encode a text block by block, each of bounded size, with a tokenizer that has a line-break token; its lines, and
    parts of very long ones, in parallel. With any other tokenizer it is one block.
    """
    line_break = tokenizer.backend_tokenizer.token_to_id(LINE_BREAK)
    if line_break is None:
        yield tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
        return
    tokenizer.backend_tokenizer.encode_special_tokens = True  # as text, where the text spells one
    prepare = getattr(tokenizer, "prepare", str)
    is_first, is_due = True, False  # whether there are no ids yet, and whether a line has begun since the last ones
    for batch in batches(text):
        ids: list[int] = []
        encodings = tokenizer.backend_tokenizer.encode_batch_fast(
            [prepare(part) for part, _ in batch], add_special_tokens=False
        )
        for (_, is_new), encoding in zip(batch, encodings, strict=True):
            is_due = is_due or is_new
            part = encoding.ids
            if part:
                if is_due and not is_first:
                    ids.append(line_break)
                is_first = is_due = False
            ids += part
        yield ids


def batches(text: str) -> Iterator[list[tuple[str, bool]]]:
    """The lines of a text, very long ones in parts, and of each part whether a line begins there; not many at once."""
    batch, size = [], 0
    for line in text.split("\n"):
        for number, part in enumerate(line_parts(line)):
            batch.append((part, number == 0))
            size += len(part) + 1
            if size >= BATCH:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def line_parts(line: str) -> Iterator[str]:
    """A line, cut between two words where it is very long."""
    start = 0
    while len(line) - start > 2 * CHUNK and (cut := BETWEEN_WORDS.search(line, start + CHUNK)):
        yield line[start : cut.end()]
        start = cut.end()
    yield line[start:]


def build_token_stream(
    pieces: Iterable[tuple[int, str]], tokenizer: PreTrainedTokenizerBase, folder: str | Path, source: str
) -> TokenStream:
    """
    Tokenize documents into a stream on disk, or reuse the one that is there.

    It is written beside and moved there when whole, so that a build that was killed leaves nothing to be read, and
    starts anew. Of several processes that want the same stream, one builds it and the others wait.

    Args:
        pieces (`Iterable[tuple[int, str]]`):
            Numbers of documents and pieces of them, as from [`read_pieces`]; read once, piece by piece.
        tokenizer (`PreTrainedTokenizerBase`):
            Tokenizer; its whole definition is part of the stream's fingerprint.
        folder (`str` or `Path`):
            Where the stream lives.
        source (`str`):
            What identifies the documents, see [`fingerprint`]; a stream of the same source and tokenizer is reused.

    Returns:
        [`TokenStream`].

    Raises:
        GPT1Error: if the documents hold no token.
    """
    digest = stream_fingerprint(source, tokenizer)

    def write(unfinished: Path):
        if not write_token_stream(pieces, tokenizer, unfinished, digest):
            raise GPT1Error(NO_TEXT)

    write_once(write, Path(folder), digest)
    return TokenStream.load(folder)


def stream_fingerprint(source: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Identify a stream by its documents, see [`fingerprint`], and its tokenizer."""
    fix_text = "fix_text" if getattr(tokenizer, "fix_text", False) else ""
    return hashlib.sha256((source + tokenizer.backend_tokenizer.to_str() + fix_text).encode()).hexdigest()


def write_once(write: Callable[[Path], None], folder: Path, digest: str):
    """Have a folder written beside and moved into place when whole, unless it is there with the same fingerprint."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(folder.name + ".lock")):
        if not (folder / INDEX).is_file() or read_index(folder)["fingerprint"] != digest:
            unfinished = folder.with_name(folder.name + ".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            try:
                write(unfinished)
                shutil.rmtree(folder, ignore_errors=True)
                os.replace(unfinished, folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)


def write_token_stream(
    pieces: Iterable[tuple[int, str]], tokenizer: PreTrainedTokenizerBase, folder: Path, digest: str
) -> int:
    """Write tokens and index of documents into a new folder; returns the number of tokens."""
    folder.mkdir(parents=True)
    dtype = "uint16" if len(tokenizer) <= 1 << 16 else "uint32"
    line_break = tokenizer.backend_tokenizer.token_to_id(LINE_BREAK)
    ends, sizes, n_tokens = [], [], 0
    bar = tqdm(unit="char", unit_scale=True, desc="tokenizing", disable=no_bars())
    with open(folder / TOKENS, "wb") as file, bar as progress:
        for _, document in groupby(pieces, key=itemgetter(0)):
            start, n_chars = n_tokens, -1
            for _, piece in document:
                is_due = n_tokens > start and line_break is not None
                for ids in encode_blocks(tokenizer, piece):
                    if ids and is_due:
                        ids, is_due = [line_break, *ids], False
                    file.write(np.asarray(ids, dtype=dtype).tobytes())
                    n_tokens += len(ids)
                n_chars += len(piece) + 1
                progress.update(len(piece) + 1)
            ends.append(n_tokens)
            sizes.append(n_chars)
    write_index(folder, digest, dtype, ends, sizes)
    return n_tokens


def write_index(folder: Path, digest: str, dtype: str, ends: list[int], sizes: list[int]):
    """Write the index of documents of a token stream."""
    index = {"fingerprint": digest, "dtype": dtype, "document_ends": ends, "document_chars": sizes}
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")


def read_index(folder: Path) -> dict:
    """Index of a token stream."""
    return json.loads((folder / INDEX).read_text(encoding="utf-8"))


def fingerprint(
    corpus: str, split: str, data_dir: str | None = None, revision: str | None = None, rows: str = "documents"
) -> str:
    """Identify what [`read_pieces`] reads: its arguments, and of local files names, sizes and times of change."""
    path = local_copy(corpus, data_dir) or Path(corpus)
    files = sorted(path.rglob("*")) if path.is_dir() else [path] if path.is_file() else []
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return json.dumps([corpus, split, revision, rows, stats])
