"""Attention weights of a model for one sequence: how much each token reads from each earlier one, in every head."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from ..errors import GPT1Error


@torch.no_grad()
def attention_weights(model: PreTrainedModel, ids: Sequence[int]) -> np.ndarray:
    """
    Attention weights of a sequence, from one forward pass without dropout.

    Args:
        model (`PreTrainedModel`):
            Transformer with any head. It is left in evaluation mode, with the attention kernel that it had.
        ids (sequence of `int`):
            Token ids that fit the model's context.

    Returns:
        `np.ndarray` of shape `(layers, heads, seq, seq)`: row i of a head holds the weights with which token i reads
        the tokens up to itself. They add up to 1.

    Raises:
        GPT1Error: if the model has no attention, as the LSTM.
    """
    if not has_attention(model):
        raise GPT1Error(f"a {type(model).__name__} has no attention to draw: it reads a text token by token")
    kernel = model.config._attn_implementation
    model.eval().set_attn_implementation("eager")  # other kernels do not return the weights
    try:
        backbone = getattr(model, model.base_model_prefix, model)
        input_ids = torch.tensor([list(ids)], device=model.device)
        output = backbone(input_ids=input_ids, output_attentions=True, use_cache=False)
    finally:
        model.set_attn_implementation(kernel)
    return torch.cat(output.attentions).float().cpu().numpy()


def has_attention(model: PreTrainedModel) -> bool:
    """Whether a model has attention heads."""
    return getattr(model.config, "num_attention_heads", None) is not None


def shown_tokens(n_tokens: int, at_most: int) -> list[int]:
    """Positions to draw of a sequence: all, or its first and last tokens in equal numbers if there are more."""
    if n_tokens <= at_most:
        return list(range(n_tokens))
    first = (at_most + 1) // 2
    return [*range(first), *range(n_tokens - (at_most - first), n_tokens)]


__all__ = ["attention_weights", "has_attention", "shown_tokens"]
