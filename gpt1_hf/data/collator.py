"""From a processor's rows to a padded batch."""

from dataclasses import dataclass
from typing import Any

import torch

from ..processing_gpt1 import GPT1Processor


@dataclass
class GPT1DataCollator:
    """
    Pads rows of token ids to the longest of the batch.

    Args:
        processor ([`GPT1Processor`]):
            Processor that made the rows; its tokenizer gives padding token and side.
        pad_to_multiple_of (`int`, *optional*):
            Round the batch's length up to a multiple, which tensor cores like.

    Returns:
        `dict` with `input_ids` and `attention_mask` of shape `(batch, seq)` and, if the rows have a `label`, `labels`
        of shape `(batch,)`.
    """

    processor: GPT1Processor
    pad_to_multiple_of: int | None = None

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self.processor.tokenizer.pad(
            [{"input_ids": row["input_ids"]} for row in rows],
            padding=True,
            pad_to_multiple_of=self.pad_to_multiple_of,
            return_tensors="pt",
        )
        if "label" in rows[0]:
            batch["labels"] = torch.tensor([row["label"] for row in rows])
        return dict(batch)
