"""From a processor's rows to a batch: padded, packed, or with the common prefix of a question's choices held once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..processing_gpt1 import GPT1Processor


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """Number of tokens that all sequences begin with, but for the last of the shortest: each keeps one of its own."""
    longest = min(map(len, sequences)) - 1
    first, *others = sequences
    # As a rule whole documents agree; comparing slices finds that out fastest.
    low, high = 0, longest
    while low < high:
        middle = (low + high + 1) // 2
        if all(other[low:middle] == first[low:middle] for other in others):
            low = middle
        else:
            high = middle - 1
    return low


@dataclass
class GPT1DataCollator:
    """
    Makes a batch of rows of token ids, for [`GPT1Trainer`] or any training loop.

    Args:
        processor ([`GPT1Processor`]):
            Processor that made the rows; its tokenizer gives padding token and side.
        pad_to_multiple_of (`int`, *optional*):
            Round the batch's length up to a multiple, which tensor cores like.
        packing (`bool`, *optional*, defaults to `False`):
            Lay the sequences one after another in a single row without padding; their `position_ids` tell them apart.
            For the formats that make one sequence of a row, and an attention that skips what is masked, such as flash
            or flex: others do work that grows with the square of the whole row.
        shared_prefix (`bool`, *optional*, defaults to `True`):
            In multiple choice, hold what all choices of a question begin with once, so that the model computes it
            once: logits, loss and gradients stay the same.

    Returns:
        `dict` with `input_ids` and, but for packed rows, `attention_mask`. Their shape is `(batch, seq)`, or `(batch,
        sequences, seq)` where a row makes several sequences; with a shared prefix `(batch, seq)`, beside
        `branch_starts` of shape `(batch, choices)`; packed `(1, tokens)`, beside `position_ids`. Padding on the left
        comes with `position_ids`, too. If the rows have a `label`, `labels` of shape `(batch,)`.

    Raises:
        ValueError: if rows of several sequences are to be packed, or have unequal numbers of them.
    """

    processor: GPT1Processor
    pad_to_multiple_of: int | None = None
    packing: bool = False
    shared_prefix: bool = True

    def __post_init__(self):
        if self.packing and self.processor.has_several_sequences:
            raise ValueError(
                f"the {self.processor.input_format} format makes several sequences of a row, which cannot be packed: "
                "leave packing off"
            )

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        sequences = [row["input_ids"] for row in rows]
        if self.packing:
            batch = {
                "input_ids": torch.tensor([[token for sequence in sequences for token in sequence]]),
                "position_ids": torch.cat([torch.arange(len(sequence)) for sequence in sequences])[None],
            }
        elif not self.processor.has_several_sequences:
            batch = self._pad(sequences)
        else:
            for index, row in enumerate(sequences):
                if len(row) != len(sequences[0]):
                    raise ValueError(
                        f"row {index} of the batch has {len(row)} choices, but row 0 has {len(sequences[0])}: rows of "
                        "a batch need equally many"
                    )
            if self.shared_prefix and self.processor.input_format == "multiple_choice":
                batch = self._share_prefixes(sequences)
            else:
                batch = self._pad([sequence for row in sequences for sequence in row])
                batch = {name: tensor.unflatten(0, (len(rows), -1)) for name, tensor in batch.items()}
        if "label" in rows[0]:
            batch["labels"] = torch.tensor([row["label"] for row in rows])
        return batch

    def _share_prefixes(self, questions: Sequence[Sequence[list[int]]]) -> dict[str, torch.Tensor]:
        joined, starts = [], []
        for choices in questions:
            n_common = common_prefix(choices)
            row, row_starts = list(choices[0][:n_common]), []
            for choice in choices:
                row_starts.append(len(row))
                row += choice[n_common:]
            joined.append(row)
            starts.append(row_starts)
        batch = self._pad(joined)
        batch.pop("position_ids", None)  # of branches, the model finds them
        batch["branch_starts"] = torch.tensor(starts)
        if self.processor.tokenizer.padding_side == "left":
            batch["branch_starts"] += (batch["attention_mask"] == 0).sum(-1, keepdim=True)
        return batch

    def _pad(self, sequences: Sequence[list[int]]) -> dict[str, torch.Tensor]:
        tokenizer = self.processor.tokenizer
        batch = tokenizer.pad(
            {"input_ids": sequences},
            padding=True,
            pad_to_multiple_of=self.pad_to_multiple_of,
            return_tensors="pt",
            verbose=False,
        )
        if tokenizer.padding_side == "left":
            batch["position_ids"] = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        return dict(batch)
