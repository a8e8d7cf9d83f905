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
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer


# Uses of a weight before it is put in oneDNN's order. That costs as much as 5 to 10 later products save in bf16, and
# 10 to 40 products of eight rows in fp32.
USES_BEFORE_PACKING = 8
# This order suits any number of rows. That for fewer than 8 is slow with more.
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
def fast_inference(device: torch.device) -> Iterator[None]:
    """
    Let this file's functions replace torch's in this thread, where they are faster: if the device is an x86 CPU,
    without gradients, and outside of compiled graphs. Results may differ in the last digits. A layer that is used more
    than a few times gets a copy of its weights in oneDNN's order, which is freed at the end.
    """
    token = _products.set(_Products() if device.type == "cpu" and _has_onednn() else None)
    try:
        yield
    finally:
        _products.reset(token)


@contextmanager
def fast_training(device: torch.device) -> Iterator[None]:
    """
    Let oneDNN compute the fp32 products of linear layers and losses, and of their gradients, in this thread, if the
    device is a CPU on which it is faster than MKL. The backward pass belongs inside, too. Results may differ in the
    last digits, and can be differentiated once.
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
    return not torch.is_grad_enabled() and _is_free()


def is_fast_training() -> bool:
    """Whether the caller runs in [`fast_training`] and computes neither a graph nor in another type."""
    return not torch.compiler.is_compiling() and _trains.get() and _is_free()


def _is_free() -> bool:
    """Whether neither autocast nor hooks of all modules, such as those of `FlopCounterMode`, take part."""
    return not torch.is_autocast_enabled("cpu") and not nn.modules.module._has_any_global_hook()


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


class _Packed(NamedTuple):
    """Weights of layers in oneDNN's order, one under another, and their biases; and the state of what was copied."""

    state: list[tuple]
    weight: torch.Tensor
    bias: torch.Tensor | None


class _Products:
    """Products of linear layers, and what they have packed."""

    def __init__(self):
        self.uses: dict[Layers, int] = {}
        self.packed: dict[Layers, _Packed] = {}
        self.unsuitable: set[Layers] = set()
        self.grown: dict[DynamicLayer, _Grown] = {}

    def multiply(self, layers: Layers, states: torch.Tensor) -> Sequence[torch.Tensor]:
        packed = self.packed.get(layers)
        if packed is not None and packed.state != _state(layers):
            packed = None
            del self.packed[layers], self.uses[layers]
        if packed is None and layers not in self.unsuitable and not _are_suitable(layers):
            self.unsuitable.add(layers)
        if layers in self.unsuitable and len(layers) > 1:
            return [self.multiply((layer,), states)[0] for layer in layers]
        if layers in self.unsuitable or not _is_suitable_input(layers, states):
            return [layer(states) for layer in layers]
        packed = packed or self._count_use(layers)
        if packed is not None:
            return _product(states, packed.weight, packed.bias).chunk(len(layers), -1)
        return [_product(states, layer.weight, layer.bias) for layer in layers]

    def _count_use(self, layers: Layers) -> _Packed | None:
        """The packed weights, once they have been used often enough."""
        self.uses[layers] = self.uses.get(layers, 0) + 1
        if self.uses[layers] < USES_BEFORE_PACKING:
            return None
        weight = layers[0].weight if len(layers) == 1 else torch.cat([layer.weight for layer in layers])
        bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
        weight = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS_TO_PACK_FOR)
        self.packed[layers] = _Packed(_state(layers), weight, bias)
        return self.packed[layers]


def _product(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")


class _Product(torch.autograd.Function):
    """A linear layer's product. The operator has no gradients of its own."""

    @staticmethod
    def forward(ctx, states, weight, bias):
        needs_states, needs_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(states if needs_weight else None, weight if needs_states else None)
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


def _state(layers: Layers) -> list[tuple]:
    """A value that differs once the layers have other weights or biases, or have changed them."""
    return [
        (id(tensor), tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version)
        for layer in layers
        for tensor in (layer.weight, layer.bias)
        if tensor is not None
    ]


def _is_plain(tensor: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether a parameter is as oneDNN reads it: it does not look at the strides of a bias."""
    if type(tensor) is not nn.Parameter or tensor.layout != torch.strided or tensor.device.type != "cpu":
        return False
    return tensor.dtype == dtype and tensor.is_contiguous()


def _are_suitable(layers: Layers) -> bool:
    """Whether the layers' parameters are plain, and all alike, of a type that oneDNN multiplies faster than torch."""
    for layer in layers:
        if type(layer) is not nn.Linear or not _is_plain(layer.weight, layer.weight.dtype):
            return False
        has_bias = layer.bias is not None
        if has_bias and (not _is_plain(layer.bias, layer.weight.dtype) or layer.bias.shape != layer.weight.shape[:1]):
            return False
    if len({(layer.weight.shape, layer.weight.dtype, layer.bias is None) for layer in layers}) > 1:
        return False
    weight = layers[0].weight
    if weight.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.dtype == torch.float32 and weight.numel() >= LEAST_FP32_WEIGHTS


def _is_suitable_input(layers: Layers, states: torch.Tensor) -> bool:
    """Whether suitable layers only have to multiply this input: it is plain, not empty, and no hook sees it."""
    if type(states) is not torch.Tensor or states.dtype != layers[0].weight.dtype or not states.numel():
        return False
    return not any(
        "forward" in vars(layer)  # as accelerate's hooks replace it
        or layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        for layer in layers
    )


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
    Attention of one query, for masks as sdpa takes them, in fp32. A matrix product in bf16 would be compiled anew for
    each number of keys.
    """
    scores = (query.float() @ key.float().transpose(2, 3)).mul_(scaling)  # (batch, heads, 1, key_len)
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores.masked_fill_(~attention_mask, -torch.inf)
    elif attention_mask is not None:
        scores += attention_mask
    probabilities = scores.softmax(-1)
    if attention_mask is not None:  # a query that sees no key gets 0, as from sdpa
        probabilities.masked_fill_(scores.amax(-1, keepdim=True) == -torch.inf, 0)
    return (probabilities @ value.float()).to(value.dtype).transpose(1, 2), None


class _Grown(NamedTuple):
    """The keys and values that a layer of a cache had after its last update, and the memory that they fill in part."""

    keys: torch.Tensor
    values: torch.Tensor
    memory: Sequence[torch.Tensor] = ()


def extend_cache(
    cache: Cache, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, **kwargs
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    `cache.update`, which copies all earlier keys and values for every new token. In [`fast_inference`], they are in
    memory with room for more tokens instead.

    Args:
        cache (`Cache`):
            Cache, changed in place.
        keys, values (`torch.Tensor` of shape `(batch, heads, seq, head_dim)`):
            Those of the new tokens.
        layer_idx (`int`):
            Layer of the cache.

    Returns:
        The keys and values of all tokens, of shape `(batch, heads, past + seq, head_dim)`.
    """
    if not is_fast_inference() or keys.device.type != "cpu" or type(cache) is not DynamicCache or cache.offloading:
        return cache.update(keys, values, layer_idx, **kwargs)
    layer: Any = cache.layers[layer_idx] if layer_idx < len(cache.layers) else None
    grown = cast(_Products, _products.get()).grown
    if layer in grown and _continues(grown[layer], layer, keys, values):
        grown[layer] = _append(grown[layer], keys, values)
        layer.keys, layer.values = grown[layer][:2]
        return layer.keys, layer.values
    result = cache.update(keys, values, layer_idx, **kwargs)
    layer = cache.layers[layer_idx]
    if type(layer) is DynamicLayer:
        grown[layer] = _Grown(layer.keys, layer.values)
    return result


def _continues(last: _Grown, layer: Any, keys: torch.Tensor, values: torch.Tensor) -> bool:
    """
    Whether a layer holds what its last update left, and new tokens fit it. Beam search, cropping and callers replace
    its tensors. What they replace stays as it is.
    """
    if last.keys is not layer.keys or last.values is not layer.values:
        return False
    pairs = (layer.keys, keys), (layer.values, values)
    return all(
        new.dtype == old.dtype and new.shape[:2] == old.shape[:2] and new.shape[3] == old.shape[3]
        for old, new in pairs
    )


def _append(last: _Grown, keys: torch.Tensor, values: torch.Tensor) -> _Grown:
    """Add tokens behind those of a layer, in new memory if there is no room."""
    memory, past = last.memory, last.keys.shape[2]
    total = past + keys.shape[2]
    is_own = memory and all(own.data_ptr() == old.data_ptr() for own, old in zip(memory, last[:2], strict=True))
    if not is_own or memory[0].shape[2] < total:
        room = (total // CACHE_STEP + 1) * CACHE_STEP
        memory = [old.new_empty(*old.shape[:2], room, old.shape[3]) for old in last[:2]]
        for new, old in zip(memory, last[:2], strict=True):
            new[:, :, :past] = old
    for own, new in zip(memory, (keys, values), strict=True):
        own[:, :, past:total] = new
    grown_keys, grown_values = (own[:, :, :total] for own in memory)
    return _Grown(grown_keys, grown_values, memory)
