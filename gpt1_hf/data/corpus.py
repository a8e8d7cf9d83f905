"""Running text: documents from files or the Hub, written once as a memory-mapped stream of token ids.

Pre-training samples contiguous spans of the stream at random (paper §4.1); evaluation reads it document by document.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from ..errors import GPT1Error
from .loading import BUILDERS, local_copy, open_dataset, split_files


TOKENS, INDEX = "tokens.bin", "index.json"
LINE_BREAK = "\n</w>"  # the token of white space that holds a line break
CHUNK = 1 << 16  # characters of a piece, so that memory does not grow with the corpus or its documents
ROWS = ("documents", "lines")  # what a row of a corpus can be


def read_pieces(
    corpus: str,
    split: str = "train",
    data_dir: str | None = None,
    revision: str | None = None,
    rows: str = "documents",
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

    Yields:
        `tuple[int, str]`: number of the document, and a piece of it. The pieces of a document are to be joined with a
        line break. A document without text is left out.

    Raises:
        GPT1Error: if the corpus or the split does not exist, or has no `text` column.
    """
    if rows not in ROWS:
        raise GPT1Error(f"unknown kind of rows {rows!r}; choose one of {', '.join(ROWS)}")
    path = local_copy(corpus, data_dir) or Path(corpus)
    files = [path] if path.suffix == ".txt" else sorted(path.rglob("*.txt"))
    holds_rows = path.is_dir() and any(file.suffix in BUILDERS for file in path.iterdir())
    if files and path.exists() and not holds_rows:
        documents = map(file_lines, files)
    else:
        texts = row_texts(corpus, open_dataset(corpus, split, data_dir=data_dir, revision=revision, streaming=True))
        documents = [texts] if rows == "lines" else (text.split("\n") for text in texts)
    for number, lines in enumerate(documents):
        yield from ((number, piece) for piece in blocks(lines))


def file_lines(file: Path) -> Iterator[str]:
    """Lines of a text file, as splitting its text at line breaks would give them."""
    line = "\n"
    with file.open(encoding="utf-8", errors="replace") as text:
        for line in text:
            yield line.removesuffix("\n")
    if line.endswith("\n"):
        yield ""


def row_texts(corpus: str, rows: Iterable[dict]) -> Iterator[str]:
    """The `text` column of a corpus's rows; a missing text is an empty one."""
    for row in rows:
        if "text" not in row:
            raise GPT1Error(f"corpus {corpus!r} has no column 'text'; its columns are {sorted(row)}")
        text = row["text"] or ""
        if not isinstance(text, str):
            raise GPT1Error(f"corpus {corpus!r} holds {text!r} in its column 'text', which is not text")
        yield text


def blocks(lines: Iterable[str]) -> Iterator[str]:
    """Join lines into pieces of about `CHUNK` characters; none, if there is no text in them."""
    block, size, text_seen = [], 0, False
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

    @classmethod
    def load(cls, folder: str | Path) -> "TokenStream":
        """Map a stream that [`build_token_stream`] wrote."""
        index = read_index(Path(folder))
        tokens = np.memmap(Path(folder) / TOKENS, dtype=index["dtype"], mode="r")
        return cls(tokens, index["document_ends"], index["document_chars"])


def encode_document(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Encode a text of any length; with a tokenizer that has a line-break token, its lines in parallel."""
    line_break = tokenizer.backend_tokenizer.token_to_id(LINE_BREAK)
    if line_break is None:
        return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    ids: list[int] = []
    for encoding in tokenizer.backend_tokenizer.encode_batch_fast(text.split("\n"), add_special_tokens=False):
        line = encoding.ids
        if ids and line:
            ids.append(line_break)
        ids += line
    return ids


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
    folder = Path(folder)
    digest = hashlib.sha256((source + tokenizer.backend_tokenizer.to_str()).encode()).hexdigest()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(folder.name + ".lock")):
        if not (folder / INDEX).is_file() or read_index(folder)["fingerprint"] != digest:
            unfinished = folder.with_name(folder.name + ".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            try:
                write_token_stream(pieces, tokenizer, unfinished, digest)
                shutil.rmtree(folder, ignore_errors=True)
                os.replace(unfinished, folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return TokenStream.load(folder)


def write_token_stream(
    pieces: Iterable[tuple[int, str]], tokenizer: PreTrainedTokenizerBase, folder: Path, digest: str
):
    """Write tokens and index of documents into a new folder."""
    folder.mkdir(parents=True)
    dtype = "uint16" if len(tokenizer) <= 1 << 16 else "uint32"
    line_break = tokenizer.backend_tokenizer.token_to_id(LINE_BREAK)
    ends, sizes, n_tokens = [], [], 0
    with open(folder / TOKENS, "wb") as file, tqdm(unit="char", unit_scale=True, desc="tokenizing") as progress:
        for _, document in groupby(pieces, key=itemgetter(0)):
            start, n_chars = n_tokens, -1
            for _, piece in document:
                ids = encode_document(tokenizer, piece)
                if ids and n_tokens > start and line_break is not None:
                    ids = [line_break, *ids]
                file.write(np.asarray(ids, dtype=dtype).tobytes())
                n_tokens += len(ids)
                n_chars += len(piece) + 1
                progress.update(len(piece) + 1)
            ends.append(n_tokens)
            sizes.append(n_chars)
    if not n_tokens:
        raise GPT1Error("the corpus is empty: it has no text to train or test on")
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


class RandomSpans(torch.utils.data.Dataset):
    """
    Every contiguous span of a stream, indexed by its first token; [`GPT1Trainer`] draws from them at random.

    Args:
        tokens (`np.ndarray` of shape `(n_tokens,)`):
            Token ids.
        length (`int`):
            Tokens per span.

    Raises:
        GPT1Error: if the stream is shorter than one span.
    """

    def __init__(self, tokens: np.ndarray, length: int):
        if len(tokens) < length:
            raise GPT1Error(f"the corpus has {len(tokens)} tokens, fewer than one span of {length}; give it more text")
        self.tokens = tokens
        self.length = length

    @property
    def spans_per_epoch(self) -> int:
        """Number of spans that hold as many tokens as the stream does: what one epoch draws."""
        return len(self.tokens) // self.length

    def __len__(self) -> int:
        return len(self.tokens) - self.length + 1

    def __getitem__(self, start: int) -> dict[str, torch.Tensor]:
        if not 0 <= start < len(self):
            raise IndexError(start)
        span = torch.from_numpy(self.tokens[start : start + self.length].astype(np.int64))
        return {"input_ids": span, "labels": span}


class Windows(torch.utils.data.Dataset):
    """A stream cut into neighbouring spans, for evaluation during training; a shorter rest is left out."""

    def __init__(self, tokens: np.ndarray, length: int):
        self.spans = RandomSpans(tokens, length)

    def __len__(self) -> int:
        return self.spans.spans_per_epoch

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.spans[index * self.spans.length]
