"""Faster training on a CPU: attention in blocks of queries, and fast dropout masks.

torch's `scaled_dot_product_attention` has two paths on a CPU. In bf16, the backward pass of its flash kernel takes
longer than plain products. With dropout, which GPT-1 trains with (paper §4.1), it falls back to a path that computes
the whole upper triangle of scores. torch's dropout draws its random numbers one by one in one thread.
`tests/benchmarks/attention.py` compares the two. The price is memory: the probabilities, half of the square, are kept
for the backward pass.
"""

import ctypes
import platform

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ..modeling_gpt1_heads import is_readable


CPU_BLOCKS = "cpu_blocks"
QUERIES_PER_BLOCK = 128


# Parameters of glibc's `mallopt` (malloc.h).
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory():
    """
    Let this process reuse the memory that its tensors free, instead of returning it to the system. Only glibc can.

    An update allocates gigabytes and frees them. By default glibc returns large blocks to the system, and each page of
    a new block is then mapped and cleared again, which costs more than the arithmetic of a pass over it.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def dropout_mask(shape: torch.Size, p: float) -> tuple[torch.Tensor, float]:
    """
    Which elements dropout keeps, and the factor that they are multiplied by.

    Sixteen random bits decide on an element, so that `p` is rounded to a multiple of 2^-16. Four elements share a draw
    of torch's generator; `bernoulli_` takes one for each.
    """
    n_elements = shape.numel()
    bits = torch.empty(-(-n_elements // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    dropped = round(p * 2**16)
    if not dropped:
        return torch.ones(shape, dtype=torch.bool), 1.0
    # 1 where bits >= lowest, else 0. torch computes these three in vectors, but not a comparison of 16-bit integers.
    lowest = dropped - 2**15
    kept = bits[:n_elements].clamp_(lowest - 1, lowest).sub_(lowest - 1).to(torch.int8)
    return kept.view(torch.bool).view(shape), dropout_scale(p)


def dropout_scale(p: float) -> float:
    """Factor of the elements that dropout keeps, for `p` rounded to a multiple of 2^-16."""
    return 2**16 / (2**16 - round(p * 2**16))


# An operator that `torch.compile` leaves as it is: a compiled graph cannot hold `random_`.
torch.library.define("gpt1_hf::kept", "(Tensor states, float p) -> Tensor", tags=(torch.Tag.nondeterministic_seeded,))


@torch.library.impl("gpt1_hf::kept", "cpu")
def _kept(states: torch.Tensor, p: float) -> torch.Tensor:
    return dropout_mask(states.shape, p)[0]


@torch.library.register_fake("gpt1_hf::kept")
def _(states: torch.Tensor, p: float) -> torch.Tensor:
    return torch.empty(states.shape, dtype=torch.bool)


def mask_for(states: torch.Tensor, p: float) -> tuple[torch.Tensor, float]:
    """[`dropout_mask`] for a tensor, also in a compiled graph."""
    if not torch.compiler.is_compiling():
        return dropout_mask(states.shape, p)
    return torch.ops.gpt1_hf.kept(states, p), dropout_scale(p)


class _Keep(torch.autograd.Function):
    """The kept elements times a factor, and 0 elsewhere. `where` computes the same, but not in vectors."""

    @staticmethod
    def forward(ctx, states, kept, factor):
        ctx.save_for_backward(kept)
        ctx.factor = factor
        return _times(states, kept, factor)

    @staticmethod
    def backward(ctx, grad):
        return _times(grad, *ctx.saved_tensors, ctx.factor), None, None


def _times(states: torch.Tensor, kept: torch.Tensor, factor: float) -> torch.Tensor:
    result = kept.view(torch.int8).to(states.dtype).mul_(states)
    return result if factor == 1 else result.mul_(factor)


def seen_keys(mask: torch.Tensor) -> slice:
    """
    Range of the keys that a block of queries sees. In packed rows it holds the block's own sequences.

    Args:
        mask (`torch.Tensor` of shape `(batch, heads or 1, block, seq)`):
            Boolean mask of the block, true where a query sees a key. Any other mask gives the range of all keys.
    """
    if mask.dtype != torch.bool or not is_readable(mask):
        return slice(0, mask.shape[-1])
    seen = mask.flatten(0, 2).any(0).nonzero()
    return slice(int(seen[0]), int(seen[-1]) + 1) if len(seen) else slice(0, mask.shape[-1])


def cpu_blocks_attention_forward(
    module: nn.Module,
    query: torch.Tensor,  # (batch, heads, seq, head_dim)
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """
    Attention for transformers' attention interface, registered as `"cpu_blocks"`.

    Without a mask it is causal, and a block of queries is multiplied only with the keys up to its end. With a boolean
    mask, it is multiplied only with the keys from the first to the last that it sees. Evaluation and generation, which
    have no backward pass, use sdpa.
    """
    seq_len = query.shape[2]
    if not module.training or key.shape[2] != seq_len:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    query = query * scaling
    future = torch.ones(QUERIES_PER_BLOCK, QUERIES_PER_BLOCK, dtype=torch.bool).triu(1)
    lowest = torch.finfo(query.dtype).min
    blocks = []
    for start in range(0, seq_len, QUERIES_PER_BLOCK):
        end = min(start + QUERIES_PER_BLOCK, seq_len)
        seen = slice(0, end) if attention_mask is None else seen_keys(attention_mask[:, :, start:end])
        scores = query[:, :, start:end] @ key[:, :, seen].transpose(2, 3)  # (batch, heads, block, seen)
        if attention_mask is None:
            scores[..., start:].masked_fill_(future[: end - start, : end - start], lowest)
        elif attention_mask.dtype == torch.bool:
            scores.masked_fill_(~attention_mask[:, :, start:end, seen], lowest)
        else:
            scores += attention_mask[:, :, start:end, seen]
        probabilities = scores.softmax(-1)
        if dropout:
            kept, scale = mask_for(probabilities, dropout)
            blocks.append(_Keep.apply(probabilities, kept, 1.0) @ value[:, :, seen] * scale)
        else:
            blocks.append(probabilities @ value[:, :, seen])
    return torch.cat(blocks, dim=2).transpose(1, 2).contiguous(), None  # (batch, seq, heads, head_dim)


class CPUDropout(nn.Dropout):
    """`nn.Dropout` with the mask of [`dropout_mask`]."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0 or states.device.type != "cpu":
            return super().forward(states)
        kept, scale = mask_for(states, self.p)
        return _Keep.apply(states, kept, scale)


def speed_up(model: PreTrainedModel, bf16: bool):
    """
    Make a model use this file's dropout and, where it is faster, its attention. For training on a CPU.

    Args:
        model (`PreTrainedModel`):
            Model, changed in place. Its weights and its saved configuration do not change.
        bf16 (`bool`):
            Whether it trains under bf16 autocast.
    """
    keep_freed_memory()
    for module in model.modules():
        if type(module) is nn.Dropout and module.p < 1:
            module.__class__ = CPUDropout
    config = model.config
    if config.model_type == "gpt1" and config._attn_implementation == "sdpa" and (bf16 or config.attn_pdrop):
        model.set_attn_implementation(CPU_BLOCKS)


AttentionInterface.register(CPU_BLOCKS, cpu_blocks_attention_forward)
AttentionMaskInterface.register(CPU_BLOCKS, sdpa_mask)
