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
from torch.autograd.function import once_differentiable
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
    if dropped in (0, 2**16):
        return torch.full(shape, not dropped, dtype=torch.bool), dropout_scale(p)
    # 1 where bits >= lowest, else 0. torch computes these three in vectors, but not a comparison of 16-bit integers.
    lowest = dropped - 2**15
    kept = bits[:n_elements].clamp_(lowest - 1, lowest).sub_(lowest - 1).to(torch.int8)
    return kept.view(torch.bool).view(shape), dropout_scale(p)


def dropout_scale(p: float) -> float:
    """Factor of the elements that dropout keeps, for `p` rounded to a multiple of 2^-16; 1 if it keeps none."""
    kept = 2**16 - round(p * 2**16)
    return 2**16 / kept if kept else 1.0


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


def hide(scores: torch.Tensor, seen: torch.Tensor):
    """
    Lower the scores of unseen keys so far that their probability is 0, in place. `masked_fill_` does the same, but not
    in vectors, and once for each head.
    """
    lowest = torch.finfo(scores.dtype).min / 2  # the sum with a score stays finite
    scores += torch.zeros(seen.shape, dtype=scores.dtype).masked_fill_(~seen, lowest)


class _BlockAttention(torch.autograd.Function):
    """
    Attention of blocks of queries, with the gradients that autograd would compute. But autograd would also save what
    dropout keeps of the probabilities, and add up full gradients of the keys and values for each block.
    """

    @staticmethod
    def forward(ctx, query, key, value, attention_mask, scaling, p):  # (batch, heads, seq, head_dim)
        batch, heads, seq_len, head_dim = query.shape
        query, key, value = (states.contiguous().flatten(0, 1) for states in (query, key, value))
        query = query * scaling
        causal = torch.ones(QUERIES_PER_BLOCK, QUERIES_PER_BLOCK, dtype=torch.bool).tril()
        output = query.new_empty(batch, seq_len, heads, head_dim)
        saved, ranges = [], []
        for start in range(0, seq_len, QUERIES_PER_BLOCK):
            end = min(start + QUERIES_PER_BLOCK, seq_len)
            seen = slice(0, end) if attention_mask is None else seen_keys(attention_mask[:, :, start:end])
            scores = query[:, start:end] @ key[:, seen].transpose(1, 2)  # (batch * heads, block, seen)
            if attention_mask is None:
                hide(scores[..., start:], causal[: end - start, : end - start])
            else:
                mask, by_head = attention_mask[:, :, start:end, seen], scores.unflatten(0, (batch, heads))
                hide(by_head, mask) if mask.dtype == torch.bool else by_head.add_(mask)
            probabilities = scores.softmax(-1)
            saved.append(probabilities)
            if p:
                kept, scale = mask_for(probabilities, p)
                saved.append(kept)
                block = (_times(probabilities, kept, 1.0) @ value[:, seen]).mul_(scale)
            else:
                block = probabilities @ value[:, seen]
            output[:, start:end] = block.unflatten(0, (batch, heads)).transpose(1, 2)
            ranges.append((start, end, seen.start, seen.stop))
        ctx.save_for_backward(query, key, value, *saved)
        ctx.ranges, ctx.heads, ctx.scaling, ctx.p = ranges, heads, scaling, p
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # (batch, seq, heads, head_dim)
        query, key, value, *saved = ctx.saved_tensors
        shape = -1, ctx.heads
        grad = grad.transpose(1, 2).flatten(0, 1)
        grad = grad * dropout_scale(ctx.p) if ctx.p else grad.contiguous()
        grad_query = torch.empty_like(query)
        grad_key, grad_value = torch.zeros_like(key), torch.zeros_like(value)
        for start, end, first, last in reversed(ctx.ranges):
            kept = saved.pop() if ctx.p else None
            probabilities, block = saved.pop(), grad[:, start:end]
            used = probabilities if kept is None else _times(probabilities, kept, 1.0)
            grad_value[:, first:last] += used.transpose(1, 2) @ block
            grad_scores = block @ value[:, first:last].transpose(1, 2)
            if kept is not None:
                grad_scores *= kept.view(torch.int8)
            grad_scores = torch._softmax_backward_data(grad_scores, probabilities, -1, probabilities.dtype)
            grad_query[:, start:end] = (grad_scores @ key[:, first:last]).mul_(ctx.scaling)
            grad_key[:, first:last] += grad_scores.transpose(1, 2) @ query[:, start:end]
        return *(states.unflatten(0, shape) for states in (grad_query, grad_key, grad_value)), None, None, None


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
    has_gradient = attention_mask is not None and attention_mask.requires_grad  # a bias that is learned
    if not module.training or key.shape[2] != query.shape[2] or has_gradient:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    return _BlockAttention.apply(query, key, value, attention_mask, scaling, dropout), None


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
