"""Tokenized text: a corpus as one memory-mapped stream of token ids, written once and reused.

Pre-training samples contiguous spans of the stream at random (paper §4.1); evaluation reads it document by document.
"""

import hashlib
import json
import re
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
from ..files import replacing


TOKENS, INDEX = "tokens.bin", "index.json"
LINE_BREAK = "\n</w>"  # the white-space token that stands for a line break
BATCH_SIZE = 1 << 20  # characters that are encoded at once
LINE_PART_SIZE = 1 << 16  # characters; longer lines are cut
BETWEEN_WORDS = re.compile(r"\w\w (?=\w\w)")  # a cut here does not change the tokens: no rule looks past two words
NO_TEXT = "the corpus is empty: it has no text to train or test on"


@dataclass
class TokenStream:
    """
    Memory-mapped token ids of a corpus, one document after the other.

    Args:
        tokens (`np.ndarray` of shape `(n_tokens,)`):
            Token ids, `uint16` or `uint32`.
        document_ends (`list[int]`):
            Index after the last token of each document.
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
        """Tokens `first` to `last - 1`. A document that is cut keeps a share of its characters, in proportion."""
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
        """Open a stream that [`build_token_stream`] wrote."""
        index = read_index(Path(folder))
        tokens = np.memmap(Path(folder) / TOKENS, dtype=index["dtype"], mode="r")
        return cls(tokens, index["document_ends"], index["document_chars"])


def encode_blocks(tokenizer: PreTrainedTokenizerBase, text: str) -> Iterator[list[int]]:
    """
    Encode a text of any length, yielding token ids in blocks of bounded size.

    A tokenizer with a line-break token encodes lines, and parts of very long ones, in parallel. Any other tokenizer
    encodes the whole text at once.
    """
    line_break = tokenizer.backend_tokenizer.token_to_id(LINE_BREAK)
    if line_break is None:
        yield tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
        return
    tokenizer.backend_tokenizer.encode_special_tokens = True  # a special token's name in the text is plain text
    prepare = getattr(tokenizer, "prepare", str)
    # Blank lines have no tokens: one line break stands between two lines that have some, and none comes first.
    is_first, line_break_due = True, False
    for batch in line_batches(text):
        ids: list[int] = []
        encodings = tokenizer.backend_tokenizer.encode_batch_fast(
            [prepare(part) for part, _ in batch], add_special_tokens=False
        )
        for (_, starts_line), encoding in zip(batch, encodings, strict=True):
            line_break_due = line_break_due or starts_line
            part = encoding.ids
            if part:
                if line_break_due and not is_first:
                    ids.append(line_break)
                is_first = line_break_due = False
            ids += part
        yield ids


def line_batches(text: str) -> Iterator[list[tuple[str, bool]]]:
    """Batches of lines, with very long lines in parts; each part comes with whether it starts a line."""
    batch, size = [], 0
    for line in text.split("\n"):
        for number, part in enumerate(line_parts(line)):
            batch.append((part, number == 0))
            size += len(part) + 1
            if size >= BATCH_SIZE:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def line_parts(line: str) -> Iterator[str]:
    """Cut a very long line between words."""
    start = 0
    while len(line) - start > 2 * LINE_PART_SIZE and (cut := BETWEEN_WORDS.search(line, start + LINE_PART_SIZE)):
        yield line[start : cut.end()]
        start = cut.end()
    yield line[start:]


def build_token_stream(
    pieces: Iterable[tuple[int, str]], tokenizer: PreTrainedTokenizerBase, folder: str | Path, source: str
) -> TokenStream:
    """
    Tokenize documents into a stream on disk, or reuse the existing one.

    The folder appears when the stream is complete, so that an interrupted build leaves nothing to read. If several
    processes want the same stream, one builds it and the others wait.

    Args:
        pieces (`Iterable[tuple[int, str]]`):
            Numbers of documents and pieces of them, as from [`~data.corpus.read_pieces`]; read once.
        tokenizer (`PreTrainedTokenizerBase`):
            Tokenizer; its whole definition is part of the stream's fingerprint.
        folder (`str` or `Path`):
            Folder of the stream.
        source (`str`):
            Identifies the documents, see [`~data.corpus.fingerprint`]. A stream with the same source and tokenizer is
            reused.

    Returns:
        [`TokenStream`].

    Raises:
        GPT1Error: if the documents have no tokens.
    """
    fingerprint = stream_fingerprint(source, tokenizer)

    def write(unfinished: Path):
        if not write_token_stream(pieces, tokenizer, unfinished, fingerprint):
            raise GPT1Error(NO_TEXT)

    write_once(write, Path(folder), fingerprint)
    return TokenStream.load(folder)


def stream_fingerprint(source: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Identify a stream by its documents, see [`~data.corpus.fingerprint`], and its tokenizer."""
    fix_text = "fix_text" if getattr(tokenizer, "fix_text", False) else ""
    return hashlib.sha256((source + tokenizer.backend_tokenizer.to_str() + fix_text).encode()).hexdigest()


def write_once(write: Callable[[Path], None], folder: Path, fingerprint: str):
    """Write a stream's folder, unless it exists with the same fingerprint. Only one process at a time does so."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(folder.name + ".lock")):
        if not (folder / INDEX).is_file() or read_index(folder)["fingerprint"] != fingerprint:
            with replacing(folder) as unfinished:
                write(unfinished)


def write_token_stream(
    pieces: Iterable[tuple[int, str]], tokenizer: PreTrainedTokenizerBase, folder: Path, fingerprint: str
) -> int:
    """Write tokens and index into a new folder; returns the number of tokens."""
    folder.mkdir(parents=True)
    dtype = "uint16" if len(tokenizer) <= 1 << 16 else "uint32"
    line_break = tokenizer.backend_tokenizer.token_to_id(LINE_BREAK)
    ends, sizes, n_tokens = [], [], 0
    bar = tqdm(unit="char", unit_scale=True, desc="tokenizing", disable=no_bars())
    with open(folder / TOKENS, "wb") as file, bar as progress:
        for _, document in groupby(pieces, key=itemgetter(0)):
            start, n_chars = n_tokens, -1
            for _, piece in document:
                line_break_due = n_tokens > start and line_break is not None
                for ids in encode_blocks(tokenizer, piece):
                    if ids and line_break_due:
                        ids, line_break_due = [line_break, *ids], False
                    file.write(np.asarray(ids, dtype=dtype).tobytes())
                    n_tokens += len(ids)
                n_chars += len(piece) + 1
                progress.update(len(piece) + 1)
            ends.append(n_tokens)
            sizes.append(n_chars)
    write_index(folder, fingerprint, dtype, ends, sizes)
    return n_tokens


def write_index(folder: Path, fingerprint: str, dtype: str, ends: list[int], sizes: list[int]):
    """Write the index of a stream: where its documents end, and their sizes."""
    index = {"fingerprint": fingerprint, "dtype": dtype, "document_ends": ends, "document_chars": sizes}
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")


def read_index(folder: Path) -> dict:
    """Read the index of a stream."""
    return json.loads((folder / INDEX).read_text(encoding="utf-8"))
