"""Which rows, in which order: for training, rows of like length share an update, so that little of it is padding."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from ..errors import GPT1Error
from ..processing_gpt1 import as_lists


# Rows are sorted among so many updates' worth of random ones: enough for nearly all of the saving, and few enough that
# the updates of an epoch still differ from those of the next. See tests/benchmarks/batching.py.
WINDOW = 16


class LengthGroupedSampler(Sampler[int]):
    """
    A random order in which each update's rows are of like length.

    Unlike transformers' sampler of that name, updates follow in random order, not by descending length; rows that are
    lists of sequences count by the longest; and the order depends on seed and epoch alone, so that it is the same on
    all processes and after a resumption.

    Args:
        lengths (`Sequence[int]`):
            Length of each row.
        update_size (`int`):
            Rows per update, over all processes and accumulated batches.
        seed (`int`, *optional*, defaults to 0):
            Seed of the order.
    """

    def __init__(self, lengths: Sequence[int], update_size: int, seed: int = 0):
        self.lengths = torch.as_tensor(lengths)
        self.update_size = update_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int):
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + 1_000_003 * self.epoch)
        order = torch.randperm(len(self), generator=generator)
        windows = [rows[self.lengths[rows].argsort(stable=True)] for rows in order.split(WINDOW * self.update_size)]
        # Only the last window has an incomplete update; it stays the last.
        updates = [update for window in windows for update in window.split(self.update_size)]
        n_whole = len(self) // self.update_size
        for index in [*torch.randperm(n_whole, generator=generator).tolist(), *range(n_whole, len(updates))]:
            yield from updates[index].tolist()


def row_lengths(input_ids: Sequence[Sequence]) -> list[int]:
    """Length of each row of token ids, or of the longest sequence of each row that has several."""
    rows = map(as_lists, input_ids)
    return [max(map(len, row)) if row and isinstance(row[0], list) else len(row) for row in rows]


def spaced(n_rows: int, n: int | None) -> list[int]:
    """Indices of at most so many rows, evenly spaced: neighbours in a file are often about the same thing."""
    if n is not None and n < 1:
        raise GPT1Error(f"max_examples is {n}: give at least 1")
    n = n_rows if n is None else min(n, n_rows)
    return [index * n_rows // n for index in range(n)]
