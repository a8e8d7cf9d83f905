"""Faster matrix products on a CPU, and for generation a cache that grows in place and the attention of one query.

torch multiplies fp32 matrices with MKL, which reaches less than half the speed of a CPU that has AVX-512 but is not
Intel's. A step of generation reads every weight, and the keys and values of the text so far, to multiply them with a
few rows, so that memory limits it. torch reads them at a third to a half of the memory's bandwidth: its bf16 products
put the weights in another order each time, its bf16 attention computes with one query as with many, and transformers'
cache copies itself for every token. The products here are oneDNN's operators, which `torch.compile` also calls.
`tests/benchmarks/decode.py` compares each with what it replaces.

This file travels to the Hub beside every checkpoint. It imports nothing from the package.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers.cache_utils import Cache, DynamicLayer


# Uses of a weight before it is put in oneDNN's order. That costs as much as 5 to 10 later products save in bf16, and 10
# to 40 in fp32.
USES_BEFORE_PACKING = 8
# The order suits any number of rows, except that the one for fewer than 8 is slow with more.
ROWS_TO_PACK_FOR = 32
# MKL is faster for smaller fp32 weights, which the processor's caches hold.
LEAST_FP32_WEIGHTS = 2**17
# Tokens by which a cache grows.
CACHE_STEP = 64

# Linear layers, or modules that an adapter or a quantizer put in their place.
Layers = tuple[Any, ...]

_products: ContextVar["_Products | None"] = ContextVar("products", default=None)
_trains: ContextVar[bool] = ContextVar("trains", default=False)


@contextmanager
def fast_inference() -> Iterator[None]:
    """
    Let this file's functions replace torch's in this thread, where they are faster: on an x86 CPU, without gradients,
    for models whose weights do not change until the end. Results may differ in the last digits. A layer that is used
    more than a few times gets a copy of its weights in oneDNN's order, which is freed at the end.
    """
    token = _products.set(_Products() if _has_onednn() else None)
    try:
        yield
    finally:
        _products.reset(token)


@contextmanager
def fast_training(device: torch.device) -> Iterator[None]:
    """
    Let oneDNN compute the fp32 products of linear layers and losses, and of their gradients, in this thread, if the
    device is a CPU on which it is faster than MKL. Results may differ in the last digits, and can be differentiated
    once.
    """
    token = _trains.set(device.type == "cpu" and _has_onednn() and _is_faster_than_mkl())
    try:
        yield
    finally:
        _trains.reset(token)


def _has_onednn() -> bool:
    """Whether torch has oneDNN's products, and may use them. They were measured on x86 only."""
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return False
    return bool(torch.backends.mkldnn.enabled) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _is_faster_than_mkl() -> bool:
    """Whether oneDNN uses AVX-512 for large fp32 products, and MKL does not. MKL does so on Intel's CPUs only."""
    if not hasattr(torch.cpu, "get_capabilities"):  # new in torch 2.10
        return False
    capabilities = torch.cpu.get_capabilities()
    is_wide = capabilities.get("avx512_f", False) and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return is_wide and "Intel" not in capabilities.get("cpu_name", "Intel")


def is_fast_inference() -> bool:
    """Whether the caller runs in [`fast_inference`] and computes neither gradients, a graph, nor in another type."""
    if torch.compiler.is_compiling() or _products.get() is None:
        return False
    return not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def is_fast_training() -> bool:
    """Whether the caller runs in [`fast_training`] and computes neither a graph nor in another type."""
    return not torch.compiler.is_compiling() and _trains.get() and not torch.is_autocast_enabled("cpu")


def linear(layer: nn.Module, states: torch.Tensor) -> torch.Tensor:
    """
    `layer(states)`, faster in [`fast_inference`] and [`fast_training`].

    Args:
        layer (`nn.Module`):
            Linear layer, or a module that an adapter or a quantizer put in its place.
        states (`torch.Tensor` of shape `(..., in_features)`):
            Input.

    Returns:
        `torch.Tensor` of shape `(..., out_features)`.
    """
    return linears((layer,), states)[0]


def linears(layers: Layers, states: torch.Tensor) -> Sequence[torch.Tensor]:
    """As [`linear`], for several layers with the same input and as many outputs each."""
    if is_fast_inference():
        return cast(_Products, _products.get()).multiply(layers, states)
    if is_fast_training() and states.dtype == torch.float32:
        return [
            _Product.apply(states, layer.weight, layer.bias)
            if _are_suitable((layer,)) and _is_suitable_input((layer,), states)
            else layer(states)
            for layer in layers
        ]
    return [layer(states) for layer in layers]


def matmul(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """
    `a @ b` without gradients, faster in [`fast_training`].

    Args:
        a, b (`torch.Tensor` of shapes `(m, k)` and `(k, n)`):
            Matrices.
        out (`torch.Tensor` of shape `(m, n)`, *optional*):
            Memory that may hold the result.
    """
    if is_fast_training() and a.dtype == b.dtype == torch.float32 and a.device.type == "cpu":
        is_plain = all(type(matrix) in (torch.Tensor, nn.Parameter) for matrix in (a, b))
        if is_plain and a.numel() and b.numel() and max(a.numel(), b.numel()) >= LEAST_FP32_WEIGHTS:
            return _product(a, b.T)
    return torch.mm(a, b, out=out)


class _Products:
    """Products of linear layers while their weights do not change."""

    def __init__(self):
        self.uses: dict[Layers, int] = {}
        self.unsuitable: set[Layers] = set()
        # The weights of the layers in oneDNN's order, one under another, and their biases.
        self.packed: dict[Layers, tuple[torch.Tensor, torch.Tensor | None]] = {}

    def multiply(self, layers: Layers, states: torch.Tensor) -> Sequence[torch.Tensor]:
        if layers not in self.packed and layers not in self.unsuitable:
            self._count_use(layers)
        if layers in self.unsuitable or not _is_suitable_input(layers, states):
            if len(layers) == 1:
                return [layers[0](states)]
            return [self.multiply((layer,), states)[0] for layer in layers]
        if layers in self.packed:
            return _product(states, *self.packed[layers]).chunk(len(layers), -1)
        return [_product(states, layer.weight, layer.bias) for layer in layers]

    def _count_use(self, layers: Layers):
        self.uses[layers] = self.uses.get(layers, 0) + 1
        if not _are_suitable(layers):
            self.unsuitable.add(layers)
        elif self.uses[layers] == USES_BEFORE_PACKING:
            weight = layers[0].weight if len(layers) == 1 else torch.cat([layer.weight for layer in layers])
            bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
            self.packed[layers] = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS_TO_PACK_FOR), bias


def _product(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")


class _Product(torch.autograd.Function):
    """A linear layer's product. The operator has no gradients of its own."""

    @staticmethod
    def forward(ctx, states, weight, bias):
        ctx.save_for_backward(states, weight)
        return _product(states, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        states, weight = ctx.saved_tensors
        needs_states, needs_weight, needs_bias = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])
        return (
            _product(grad, weight.T) if needs_states else None,
            _product(rows.T, states.reshape(-1, states.shape[-1]).T) if needs_weight else None,
            rows.sum(0) if needs_bias else None,
        )


def _are_suitable(layers: Layers) -> bool:
    """Whether the layers' weights are plain tensors, all alike, of a type that oneDNN multiplies faster than torch."""
    for layer in layers:
        if type(layer) is not nn.Linear or "forward" in vars(layer) or type(layer.weight) is not nn.Parameter:
            return False
        if layer.weight.device.type != "cpu" or not layer.weight.is_contiguous():
            return False
    if len({(layer.weight.shape, layer.weight.dtype, layer.bias is None) for layer in layers}) > 1:
        return False
    weight = layers[0].weight
    if weight.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.dtype == torch.float32 and weight.numel() >= LEAST_FP32_WEIGHTS


def _is_suitable_input(layers: Layers, states: torch.Tensor) -> bool:
    """Whether suitable layers only have to multiply this input: it is plain, not empty, and nobody watches."""
    if type(states) is not torch.Tensor or states.dtype != layers[0].weight.dtype or not states.numel():
        return False
    is_watched = any(
        layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
        for layer in layers
    )
    return not is_watched and not nn.modules.module._has_any_global_hook()


def is_fast_query(query: torch.Tensor) -> bool:
    """Whether [`one_query_attention_forward`] is faster than sdpa for a query of shape `(batch, heads, seq, dim)`."""
    is_one = query.shape[2] == 1 and query.dtype == torch.bfloat16
    return is_one and query.device.type == "cpu" and is_fast_inference()


def one_query_attention_forward(
    module: nn.Module,
    query: torch.Tensor,  # (batch, heads, 1, head_dim)
    key: torch.Tensor,  # (batch, heads, key_len, head_dim)
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """
    Attention of one query, for masks as sdpa takes them, element by element. A matrix product in bf16 would be
    compiled anew for each number of keys.
    """
    scores = (query * key).sum(-1, dtype=torch.float32).mul_(scaling).unsqueeze(2)  # (batch, heads, 1, key_len)
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores.masked_fill_(~attention_mask, torch.finfo(scores.dtype).min)
    elif attention_mask is not None:
        scores += attention_mask
    probabilities = scores.softmax(-1).to(value.dtype)
    return (probabilities.transpose(2, 3) * value).sum(2).unsqueeze(1), None  # (batch, 1, heads, head_dim)


class GrowingLayer(DynamicLayer):
    """
    The keys and values of one layer in memory that has room for more tokens, so that a new token does not copy those
    before it.
    """

    keys: Any
    values: Any
    _room: Any = None  # memory of keys and values
    _last: Any = None  # what `update` returned last

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        if torch.is_grad_enabled() or torch.compiler.is_compiling():  # autograd may need what this would overwrite
            return super().update(key_states, value_states, *args, **kwargs)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        past = self.get_seq_length()
        total = past + key_states.shape[-2]
        if not past or not self._has_room(total):
            room = (total // CACHE_STEP + 1) * CACHE_STEP
            memories = [new.new_empty(*new.shape[:-2], room, new.shape[-1]) for new in (key_states, value_states)]
            if past:
                for memory, old in zip(memories, (self.keys, self.values), strict=True):
                    memory[..., :past, :] = old
            self._room = memories
        for memory, new in zip(self._room, (key_states, value_states), strict=True):
            memory[..., past:total, :] = new
        self._last = [memory[..., :total, :] for memory in self._room]
        self.keys, self.values = self._last
        return self.keys, self.values

    def _has_room(self, n_tokens: int) -> bool:
        """
        Whether the memory holds what the layer holds, and has room. Beam search, cropping and callers replace the
        layer's tensors; those that they replace stay as they are. `inference_mode` protects its tensors.
        """
        is_own = self._last is not None and self._last[0] is self.keys and self._last[1] is self.values
        if not is_own or self._room[0].is_inference() != torch.is_inference_mode_enabled():
            return False
        return n_tokens <= self._room[0].shape[-2]


def let_grow(cache: Cache):
    """Let an empty cache grow in place, if it would copy its keys and values for every new token."""
    if is_fast_inference() and not cache.offloading:
        for layer in cache.layers:
            if type(layer) is DynamicLayer and not layer.is_initialized:
                layer.__class__ = GrowingLayer
