"""Spans of a stream of tokens, as rows to train or test on."""

from collections.abc import Iterable

import numpy as np
import torch

from ..errors import GPT1Error
from .token_stream import TokenStream


class Spans(torch.utils.data.Dataset):
    """
    Contiguous spans of a stream.

    An item has `input_ids`, `labels` (the same ids) and `start` (where in the stream it begins), by which
    [`GPT1Trainer`] can name the documents of a batch.

    Args:
        stream ([`TokenStream`]):
            Tokens.
        length (`int`):
            Tokens per span.

    Raises:
        GPT1Error: if the stream is shorter than one span.
    """

    def __init__(self, stream: TokenStream, length: int):
        if len(stream) < length:
            raise GPT1Error(f"the corpus has {len(stream)} tokens, fewer than one span of {length}; give it more text")
        self.stream = stream
        self.length = length

    @property
    def spans_per_epoch(self) -> int:
        """Number of spans that hold as many tokens as the stream does."""
        return len(self.stream) // self.length

    def span(self, start: int) -> dict[str, torch.Tensor | int]:
        """The span that begins with a token."""
        ids = torch.from_numpy(self.stream.tokens[start : start + self.length].astype(np.int64))
        return {"input_ids": ids, "labels": ids, "start": start}

    def documents_of(self, starts: Iterable[int]) -> list[int]:
        """Numbers of the documents, from 0, that the spans with these first tokens have a part of."""
        ends = np.asarray(self.stream.document_ends)
        documents = set()
        for start in starts:
            first, last = np.searchsorted(ends, [start, start + self.length - 1], side="right").tolist()
            documents |= set(range(first, last + 1))
        return sorted(documents)


class RandomSpans(Spans):
    """Every span, indexed by its first token; [`GPT1Trainer`] draws from them at random, with replacement."""

    def __len__(self) -> int:
        return len(self.stream) - self.length + 1

    def __getitem__(self, start: int) -> dict[str, torch.Tensor | int]:
        if not 0 <= start < len(self):
            raise IndexError(start)
        return self.span(start)


class Windows(Spans):
    """Neighbouring spans, in order; a shorter rest is left out."""

    def __len__(self) -> int:
        return self.spans_per_epoch

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.span(index * self.length)
