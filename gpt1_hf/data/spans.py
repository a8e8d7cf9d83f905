"""Spans of a token stream, as rows to train or test on."""

from collections.abc import Iterable

import numpy as np
import torch

from ..errors import GPT1Error
from .token_stream import TokenStream


class Spans(torch.utils.data.Dataset):
    """
    Contiguous spans of a stream.

    An item has `input_ids`, `labels` (the same ids) and `start`, its position in the stream, from which
    [`GPT1Trainer`] finds the documents of a batch.

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
            raise GPT1Error(f"the corpus has {len(stream)} tokens, fewer than one span of {length}: use more text")
        self.stream = stream
        self.length = length

    @property
    def spans_per_epoch(self) -> int:
        """Number of whole spans in the stream."""
        return len(self.stream) // self.length

    def span(self, start: int) -> dict[str, torch.Tensor | int]:
        """The span whose first token is at `start`."""
        ids = torch.from_numpy(self.stream.tokens[start : start + self.length].astype(np.int64))
        return {"input_ids": ids, "labels": ids, "start": start}

    def documents_of(self, starts: Iterable[int]) -> list[int]:
        """Numbers, from 0, of the documents that the spans at these starts overlap."""
        ends = np.asarray(self.stream.document_ends)
        documents = set()
        for start in starts:
            first, last = np.searchsorted(ends, [start, start + self.length - 1], side="right").tolist()
            documents |= set(range(first, last + 1))
        return sorted(documents)


class RandomSpans(Spans):
    """Every span, indexed by its start; [`GPT1Trainer`] samples from them with replacement."""

    def __len__(self) -> int:
        return len(self.stream) - self.length + 1

    def __getitem__(self, start: int) -> dict[str, torch.Tensor | int]:
        if not 0 <= start < len(self):
            raise IndexError(start)
        return self.span(start)


class ConsecutiveSpans(Spans):
    """Spans one after another; a shorter rest at the end is dropped."""

    def __len__(self) -> int:
        return self.spans_per_epoch

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.span(index * self.length)
