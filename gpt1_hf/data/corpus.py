"""Running text: documents from files or the Hub, written once as a memory-mapped stream of token ids.

Pre-training samples contiguous spans of the stream at random (paper §4.1); evaluation reads it document by document.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from ..errors import GPT1Error
from .loading import BUILDERS, local_copy, open_dataset, split_files


TOKENS, INDEX = "tokens.bin", "index.json"
CHUNK = 1 << 16  # characters per text handed to the tokenizer trainer


def read_documents(corpus: str, split: str = "train", data_dir: str | None = None) -> Iterator[str]:
    """
    Stream the documents of a corpus.

    Args:
        corpus (`str`):
            A `.txt` file or a folder of them (one document each), a parquet or JSON-lines file or a folder of them
            with a `text` column (one document a row; `train*` and `validation*` files are those splits), or a Hub id.
        split (`str`, *optional*, defaults to `"train"`):
            Split to read.
        data_dir (`str`, *optional*):
            Folder with local copies laid out as on the Hub, searched before it.

    Yields:
        `str`: a document that is not empty.

    Raises:
        GPT1Error: if the corpus or the split does not exist, or has no `text` column.
    """
    path = local_copy(corpus, data_dir) or Path(corpus)
    texts = [path] if path.suffix == ".txt" else sorted(path.rglob("*.txt"))
    holds_rows = path.is_dir() and any(file.suffix in BUILDERS for file in path.iterdir())
    if texts and path.exists() and not holds_rows:
        rows = ({"text": text.read_text(encoding="utf-8", errors="replace")} for text in texts)
    else:
        rows = open_dataset(corpus, split=split, data_dir=data_dir, streaming=True)
    for row in rows:
        if "text" not in row:
            raise GPT1Error(f"corpus {corpus!r} has no column 'text'; its columns are {sorted(row)}")
        text = row["text"] or ""
        if not isinstance(text, str):
            raise GPT1Error(f"corpus {corpus!r} holds {text!r} in its column 'text', which is not text")
        if text and not text.isspace():
            yield text


def has_split(corpus: str, split: str, data_dir: str | None = None) -> bool:
    """Whether a corpus of files has a split of its own, by its files' names."""
    path = local_copy(corpus, data_dir) or Path(corpus)
    return path.is_dir() and bool(split_files(path, split))


def chunks(documents: Iterable[str]) -> Iterator[str]:
    """Cut documents at line breaks into texts of about `CHUNK` characters, so that memory stays flat."""
    for document in documents:
        lines, size = [], 0
        for line in document.split("\n"):
            lines.append(line)
            size += len(line)
            if size >= CHUNK:
                yield "\n".join(lines)
                lines, size = [], 0
        yield "\n".join(lines)


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
        index = json.loads((Path(folder) / INDEX).read_text(encoding="utf-8"))
        tokens = np.memmap(Path(folder) / TOKENS, dtype=index["dtype"], mode="r")
        return cls(tokens, index["document_ends"], index["document_chars"])


def encode_document(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Encode a text of any length; with a tokenizer that has a line-break token, its lines in parallel."""
    line_break = tokenizer.backend_tokenizer.token_to_id("\n</w>")
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
    documents: Iterable[str], tokenizer: PreTrainedTokenizerBase, folder: str | Path, source: str
) -> TokenStream:
    """
    Tokenize documents into a stream on disk, or reuse the one that is there.

    Args:
        documents (`Iterable[str]`):
            Documents, read once.
        tokenizer (`PreTrainedTokenizerBase`):
            Tokenizer; its whole definition is part of the stream's fingerprint.
        folder (`str` or `Path`):
            Where the stream lives. It is written beside and moved there when whole.
        source (`str`):
            What identifies the documents, see [`fingerprint`]; a stream of the same source and tokenizer is reused.

    Returns:
        [`TokenStream`].

    Raises:
        GPT1Error: if the documents hold no token.
    """
    folder = Path(folder)
    digest = hashlib.sha256((source + tokenizer.backend_tokenizer.to_str()).encode()).hexdigest()
    if (folder / INDEX).is_file():
        if json.loads((folder / INDEX).read_text(encoding="utf-8"))["fingerprint"] == digest:
            return TokenStream.load(folder)

    dtype = "uint16" if len(tokenizer) <= 1 << 16 else "uint32"
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    ends, sizes, n_tokens = [], [], 0
    try:
        with (
            open(unfinished / TOKENS, "wb") as file,
            tqdm(unit="char", unit_scale=True, desc="tokenizing") as progress,
        ):
            for text in documents:
                ids = np.asarray(encode_document(tokenizer, text), dtype=dtype)
                file.write(ids.tobytes())
                n_tokens += len(ids)
                ends.append(n_tokens)
                sizes.append(len(text))
                progress.update(len(text))
        if not n_tokens:
            raise GPT1Error("the corpus is empty: it has no text to train or test on")
        index = {"fingerprint": digest, "dtype": dtype, "document_ends": ends, "document_chars": sizes}
        (unfinished / INDEX).write_text(json.dumps(index), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return TokenStream.load(folder)


def fingerprint(corpus: str, split: str, data_dir: str | None = None) -> str:
    """Identify a corpus: name and split, and of local files their names, sizes and times of change."""
    path = local_copy(corpus, data_dir) or Path(corpus)
    files = sorted(path.rglob("*")) if path.is_dir() else [path] if path.is_file() else []
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return json.dumps([corpus, split, stats])


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
