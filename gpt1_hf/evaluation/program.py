"""A program of `gpt1 export`, scored in place of its model."""

from pathlib import Path
from typing import Any

import torch
from torch import nn


class ScoredProgram(nn.Module):
    """
    A program that is called as its model is, and runs on the CPU.

    Args:
        folder (`str` or `Path`):
            Folder written by [`export`](gpt1_hf.checkpoints.export.export), which must be trusted: a `.pt2` file is
            unpickled.
        weights (`str`):
            Type of its weights, `fp32` or `int8`.
    """

    device = torch.device("cpu")

    def __init__(self, folder: str | Path, weights: str):
        # Not at the top: importing the exporters takes seconds, and few evaluations need them.
        from transformers.exporters import ExportedModel

        super().__init__()
        self.program = ExportedModel.from_pretrained(folder, device="cpu", trust_remote_code=True)
        (component,) = self.program.components.values()
        self.has_cache = "cache" in component.metadata.kwargs
        # In the words of `precision_of`.
        self.precision = "fp32" if weights == "fp32" else "fp32, quantized weights"

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **unused: Any):
        """
        The program's output, with `logits` as of the model. It finds the positions by the mask, and a text has no
        earlier tokens.

        Args:
            input_ids, attention_mask (`torch.LongTensor` of the program's shape):
                Tokens, and 1 where they are no padding.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.has_cache:
            from ..checkpoints.export import empty_cache

            inputs["position_ids"] = (attention_mask.cumsum(-1) - 1).clamp(min=0)
            inputs["cache"] = empty_cache(self.program.config, len(input_ids))
        return self.program(**inputs)
