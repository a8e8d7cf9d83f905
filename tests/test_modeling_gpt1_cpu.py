"""Faster operations on a CPU: oneDNN's products, a cache that grows in place, and the attention of one bf16 query.

Each is compared with torch's own operation, in fp64 where it rounds. Generation is compared with the same search
without them.
"""

import copy
import threading
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from helpers.models import CLOSE, POSITIONS, mask_of, random_ids, tiny_classifier, tiny_config, tiny_lm
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.testing import assert_close
from transformers import DynamicCache, StaticCache
from transformers.cache_utils import DynamicLayer

from gpt1_hf import GPT1LSTMConfig, GPT1LSTMForCausalLM, modeling_gpt1, modeling_gpt1_cpu, modeling_gpt1_heads
from gpt1_hf.evaluation.precision import full_precision
from gpt1_hf.modeling_gpt1_cpu import (
    USES_BEFORE_PACKING,
    extend_cache,
    fast_inference,
    fast_training,
    is_fast_query,
    linear,
    linears,
    matmul,
    one_query_attention_forward,
)
from gpt1_hf.modeling_gpt1_heads import CACHE


needs_onednn = pytest.mark.skipif(not modeling_gpt1_cpu._has_onednn(), reason="needs an x86 CPU and oneDNN")
CPU = torch.device("cpu")
TYPES = [torch.float32]
if torch.ops.mkldnn._is_mkldnn_bf16_supported():
    TYPES.append(torch.bfloat16)
every_type = pytest.mark.parametrize("dtype", TYPES, ids=str)


@pytest.fixture(autouse=True)
def small_weights(monkeypatch):
    """oneDNN multiplies weights of any size."""
    monkeypatch.setattr(modeling_gpt1_cpu, "LEAST_FP32_WEIGHTS", 0)


@pytest.fixture
def products(monkeypatch):
    """Weights of the products that oneDNN computes."""
    found, product = [], modeling_gpt1_cpu._product

    def noted(states, weight, bias=None):
        found.append(weight)
        return product(states, weight, bias)

    monkeypatch.setattr(modeling_gpt1_cpu, "_product", noted)
    return found


@pytest.fixture
def slow(monkeypatch):
    """Switches to `generate` without this file's functions."""

    def switch_off():
        monkeypatch.setattr(modeling_gpt1_heads, "fast_inference", lambda device: nullcontext())

    return switch_off


def layers_of(n, dtype=torch.float32, bias=True, n_inputs=48, n_outputs=40):
    torch.manual_seed(0)
    return tuple(nn.Linear(n_inputs, n_outputs, bias=bias).to(dtype) for _ in range(n))


def states_of(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).to(dtype)


class TestProducts:
    @needs_onednn
    @every_type
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("shape", [(1, 48), (1, 1, 48), (8, 1, 48), (2, 33, 48), (48,), (0, 48)])
    @pytest.mark.parametrize("n_layers", [1, 3])
    def test_are_those_of_the_layers(self, dtype, bias, shape, n_layers, products):
        layers, states = layers_of(n_layers, dtype, bias), states_of(*shape, dtype=dtype)
        expected = [layer.double()(states.double()) for layer in copy.deepcopy(layers)]
        with torch.no_grad(), fast_inference(CPU):
            for _ in range(USES_BEFORE_PACKING + 2):  # before and after the weights are put in order
                for found, exact in zip(linears(layers, states), expected, strict=True):
                    assert found.dtype == dtype and found.shape == exact.shape
                    assert_close(
                        found.double(),
                        exact.detach(),
                        **({"atol": 0.02, "rtol": 0.02} if dtype != torch.float32 else CLOSE),
                    )
        assert len(products) == ((USES_BEFORE_PACKING - 1) * n_layers + 3) * bool(states.numel())

    def test_are_the_layers_own_elsewhere(self, products):
        (layer,), states = layers_of(1), states_of(2, 48)
        with fast_inference(CPU):
            assert linear(layer, states).requires_grad  # gradients
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                assert linear(layer, states).dtype == torch.bfloat16
            with torch.no_grad():
                assert_close(linear(layer.double(), states.double()), layer(states.double()), atol=0, rtol=0)
        layer.float()
        with torch.no_grad():
            assert_close(linear(layer, states), layer(states), atol=0, rtol=0)
        assert not products

    def test_of_small_fp32_weights_are_the_layers_own(self, monkeypatch, products):
        monkeypatch.setattr(modeling_gpt1_cpu, "LEAST_FP32_WEIGHTS", 48 * 40 + 1)
        with torch.no_grad(), fast_inference(CPU):
            linears(layers_of(3), states_of(2, 48))
        assert not products

    @pytest.mark.filterwarnings("ignore:TF32")
    @pytest.mark.parametrize("missing", ["instructions", "operator", "onednn"])
    def test_need_onednn_on_x86(self, missing, monkeypatch, products):
        if missing == "instructions":
            monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
        elif missing == "operator":
            monkeypatch.setattr(torch.ops, "mkldnn", object())
        (layer,), states = layers_of(1), states_of(2, 48)
        with torch.backends.mkldnn.flags(enabled=missing != "onednn"), torch.no_grad(), fast_inference(CPU):
            assert_close(linear(layer, states), layer(states), atol=0, rtol=0)
        assert not products

    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
    def test_do_not_bypass_hooks(self, when, register):
        layers, states, calls = layers_of(3), states_of(2, 48), []
        with torch.no_grad(), fast_inference(CPU):
            for _ in range(0 if when == "before" else USES_BEFORE_PACKING + 1):
                linears(layers, states)
            getattr(layers[1], register)(lambda *args: calls.append(len(args)))
            for _ in range(3):
                linears(layers, states)
        assert len(calls) == 3

    def test_do_not_bypass_hooks_of_all_modules(self):
        calls, layers = [], layers_of(2)
        handle = nn.modules.module.register_module_forward_hook(lambda *_: calls.append(0))  # as FlopCounterMode does
        with handle, torch.no_grad(), fast_inference(CPU):
            linears(layers, states_of(2, 48))
        assert len(calls) == 2

    @pytest.mark.parametrize("n_before", [0, 1, USES_BEFORE_PACKING + 1])
    def test_do_not_bypass_a_replaced_forward(self, n_before):
        layers, states = layers_of(3), states_of(2, 48)
        with torch.no_grad(), fast_inference(CPU):
            for _ in range(n_before):
                linears(layers, states)
            layers[2].forward = lambda states: "replaced"
            assert linears(layers, states)[2] == "replaced"

    @needs_onednn
    @pytest.mark.parametrize("other", [nn.Linear(48, 12), nn.Linear(48, 40, bias=False)])
    def test_of_linear_layers_of_two_kinds_are_separate(self, other):
        layers, states = (*layers_of(2), other), states_of(2, 48)
        with torch.no_grad(), fast_inference(CPU):
            for _ in range(USES_BEFORE_PACKING + 1):
                found = linears(layers, states)
            assert_close(list(found), [layer(states) for layer in layers], **CLOSE)

    @pytest.mark.parametrize("n_before", [0, USES_BEFORE_PACKING + 1])
    def test_of_another_type_of_states_fail_as_the_layers_do(self, n_before):
        (layer,), states = layers_of(1), states_of(2, 48)
        with torch.no_grad(), fast_inference(CPU):
            for _ in range(n_before):
                linear(layer, states)
            for dtype in (torch.float64, torch.bfloat16):
                with pytest.raises(RuntimeError, match="same dtype"):
                    linear(layer, states.to(dtype))

    @needs_onednn
    def test_of_unlike_layers_are_separate(self, products):
        layers = (*layers_of(2), nn.Linear(48, 12, bias=False), nn.Identity())
        states = states_of(2, 48)
        with torch.no_grad(), fast_inference(CPU):
            for _ in range(USES_BEFORE_PACKING + 1):
                found = linears(layers, states)
            assert_close(list(found), [layer(states) for layer in layers], **CLOSE)
        assert len(products) == (USES_BEFORE_PACKING + 1) * 3

    @needs_onednn
    def test_of_changing_weights_are_not_packed_each_time(self, products):
        (layer,), states = layers_of(1), states_of(2, 48)
        with torch.no_grad(), fast_inference(CPU):
            for _ in range(3 * USES_BEFORE_PACKING):
                layer.weight.mul_(1.1)
                assert_close(linear(layer, states), layer(states), **CLOSE)
        assert sum(weight is not layer.weight for weight in products) == 3

    @needs_onednn
    def test_of_a_layer_that_changes_its_type(self):
        (layer,), states = layers_of(1), states_of(2, 48)
        with torch.no_grad(), fast_inference(CPU):
            for _ in range(USES_BEFORE_PACKING + 1):
                linear(layer, states)
            assert_close(linear(layer.double(), states.double()), layer(states.double()), atol=0, rtol=0)
            assert_close(linear(layer.bfloat16(), states.bfloat16()), layer(states.bfloat16()))

    @pytest.mark.parametrize("kind", ["strided", "expanded", "one", "row", "every other"])
    @pytest.mark.parametrize("mode", ["inference", "training"])
    def test_of_unusual_biases_are_the_layers_own(self, kind, mode, monkeypatch):
        monkeypatch.setattr(modeling_gpt1_cpu, "_is_faster_than_mkl", lambda: True)
        layers, states, fused = layers_of(3), states_of(2, 48), torch.randn(40, 3)
        biases = {
            "strided": lambda index: fused[:, index],
            "expanded": lambda index: fused[:1, index].expand(40),
            "one": lambda index: fused[:1, index],
            "row": lambda index: fused[:, index].contiguous()[None],
            "every other": lambda index: fused.flatten()[:80:2],
        }
        for index, layer in enumerate(layers):
            layer.bias = nn.Parameter(biases[kind](index))
        expected = [layer(states) for layer in layers]
        with torch.set_grad_enabled(mode == "training"), fast_inference(CPU), fast_training(CPU):
            for _ in range(USES_BEFORE_PACKING + 1):
                assert_close(list(linears(layers, states)), expected, **CLOSE)

    @pytest.mark.filterwarnings("ignore:Sparse")
    def test_of_sparse_weights_are_the_layers_own(self):
        (layer,), states = layers_of(1), states_of(2, 48)
        expected = layer(states).detach()
        layer.weight = nn.Parameter(layer.weight.detach().to_sparse_csr(), requires_grad=False)
        with torch.no_grad(), fast_inference(CPU):
            assert_close(linear(layer, states), expected, **CLOSE)

    def test_are_compiled_as_layers(self, products):
        layers, states = layers_of(3), states_of(2, 48)
        compiled = torch.compile(lambda states: linears(layers, states), backend="eager", fullgraph=True)
        with torch.no_grad(), fast_inference(CPU):
            assert_close(compiled(states), [layer(states) for layer in layers], atol=0, rtol=0)
        assert not products

    @needs_onednn
    def test_of_nested_contexts(self, products):
        layers, states = layers_of(1), states_of(2, 48)
        with torch.no_grad(), fast_inference(CPU):
            for _ in range(USES_BEFORE_PACKING):
                linears(layers, states)
            with fast_inference(CPU):
                linears(layers, states)
            linears(layers, states)
        *_, packed, inner, outer = products
        assert packed is outer and inner is layers[0].weight


@pytest.fixture
def mkl_is_slower(monkeypatch):
    """oneDNN is used in training, whatever CPU runs the test."""
    monkeypatch.setattr(modeling_gpt1_cpu, "_is_faster_than_mkl", lambda: True)


@pytest.mark.usefixtures("mkl_is_slower")
class TestTraining:
    @needs_onednn
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("shape", [(1, 48), (2, 33, 48), (48,), (0, 48)])
    @pytest.mark.parametrize("grad", ["whole", "expanded", "transposed"])
    def test_gradients_are_those_of_the_layers(self, bias, shape, grad, products):
        layers, states = layers_of(3, bias=bias), states_of(*shape).requires_grad_()
        exact_layers, exact_states = copy.deepcopy(layers), states.detach().double().requires_grad_()

        def loss(outputs, dtype):
            total = sum(output * 1.5**index for index, output in enumerate(outputs))
            if grad == "expanded":
                return total.sum()
            weights = states_of(*total.shape, dtype=dtype)
            return (
                (total * weights).sum()
                if grad == "whole"
                else (total.flatten().view(40, -1) * weights.view(40, -1)).sum()
            )

        with fast_training(CPU):
            loss(linears(layers, states), torch.float32).backward()
        loss([layer.double()(exact_states) for layer in exact_layers], torch.float64).backward()
        assert len(products) == 3 * 3 * bool(states.numel())
        pairs = [(states, exact_states)]
        for layer, exact in zip(layers, exact_layers, strict=True):
            pairs += zip(layer.parameters(), exact.parameters(), strict=True)
        for found, expected in pairs:
            assert found.grad.dtype == torch.float32
            assert_close(found.grad.double(), expected.grad, atol=1e-4, rtol=1e-5)

    def test_frozen_layers_do_not_keep_their_input(self):
        (layer,), states, kept = layers_of(1), states_of(2, 48).requires_grad_(), []
        layer.weight.requires_grad_(False)
        with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one.numel()) or one, lambda one: one):
            with fast_training(CPU):
                linear(layer, states)
        assert kept == [40 * 48]

    @needs_onednn
    def test_frozen_parts_have_no_gradients(self):
        (layer,), states = layers_of(1), states_of(2, 48)
        layer.weight.requires_grad_(False)
        with fast_training(CPU):
            linear(layer, states).sum().backward()
        assert layer.weight.grad is None and states.grad is None
        assert_close(layer.bias.grad, torch.full((40,), 2.0))

    @pytest.mark.parametrize("register", ["register_full_backward_hook", "register_full_backward_pre_hook"])
    def test_hooks_of_gradients_are_called(self, register):
        layers, calls = layers_of(3), []
        getattr(layers[1], register)(lambda *_: calls.append(0))
        with fast_training(CPU):
            sum(linears(layers, states_of(2, 48).requires_grad_())).sum().backward()
        assert len(calls) == 1

    def test_other_types_are_the_layers_own(self, products):
        (layer,), states = layers_of(1), states_of(2, 48)
        with fast_training(CPU):
            with torch.autocast("cpu", torch.bfloat16):
                assert linear(layer, states).dtype == torch.bfloat16
            linear(layer.double(), states.double()).sum().backward()
            layer.float().register_forward_hook(lambda *_: None)
            linear(layer, states)
            torch.compile(lambda states: linear(layers_of(1)[0], states), backend="eager")(states)
        assert not products

    def test_of_another_device_are_the_layers_own(self, products):
        cuda = torch.device("cuda")
        with fast_training(cuda):
            linears(layers_of(3), states_of(2, 48))
        with torch.no_grad(), fast_inference(cuda):
            linears(layers_of(3), states_of(2, 48))
        assert not products

    def test_matmul(self, products):
        a, b, out = states_of(5, 7), states_of(7, 6), torch.empty(5, 6)
        assert matmul(a, b, out=out) is out
        assert not products
        with fast_training(CPU):
            assert not matmul(a[:0], b).numel() and not matmul(a[:, :0], b[:0]).any()
            for left, right in ((a, b), (b.T, a.T), (a, nn.Parameter(b)), (a[::2], b[:, ::2])):
                assert_close(matmul(left, right).double(), (left.double() @ right.double()), **CLOSE)
            assert len(products) == 4 * modeling_gpt1_cpu._has_onednn()
            assert matmul(a.double(), b.double()).dtype == torch.float64
            assert len(products) == 4 * modeling_gpt1_cpu._has_onednn()

    @needs_onednn
    @pytest.mark.parametrize("skip_logits", [True, False])
    @pytest.mark.parametrize("checkpointing", [None, True, False])
    def test_a_model_has_the_same_loss_and_gradients(self, skip_logits, checkpointing, products):
        found = []
        for context in (nullcontext(), fast_training(CPU)):
            model, ids = tiny_lm().train(), random_ids(3, 12)
            if checkpointing is not None:
                model.activation_checkpointing_enable({"use_reentrant": checkpointing})
                model.enable_input_require_grads()
            with context:
                loss = model(ids, labels=ids, skip_logits=skip_logits).loss
                loss.backward()
            found.append({"loss": loss.detach()} | {name: one.grad for name, one in model.named_parameters()})
        assert products
        assert_close(*found, **CLOSE)

    @needs_onednn
    def test_a_classifier_has_the_same_loss_and_gradients(self, products):
        found = []
        for context in (nullcontext(), fast_training(CPU)):
            model = tiny_classifier(lm_coef=0.5).train()
            with context:
                loss = model(**ids_of("right"), labels=torch.tensor([0, 1, 1])).loss
                loss.backward()
            found.append({"loss": loss.detach()} | {name: one.grad for name, one in model.named_parameters()})
        assert products
        assert_close(*found, **CLOSE)


@pytest.mark.parametrize(
    "name, has_avx512, is_used", [("AMD EPYC", True, True), ("AMD EPYC", False, False), ("Intel Xeon", True, False)]
)
def test_onednn_trains_where_mkl_has_no_avx512(name, has_avx512, is_used, monkeypatch):
    capabilities = {"cpu_name": name, "avx512_f": has_avx512}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(_is_mkldnn_bf16_supported=lambda: True))
    assert modeling_gpt1_cpu._is_faster_than_mkl() is is_used
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not modeling_gpt1_cpu._is_faster_than_mkl()


class TestOneQuery:
    @pytest.mark.parametrize("mask", [None, "bool", "float"])
    def test_equals_sdpa(self, mask):
        query, key, value = (states_of(2, 3, n, 8, dtype=torch.bfloat16) for n in (1, 70, 70))
        if mask is not None:
            seen = torch.arange(70) >= torch.tensor([[0], [50]])
            mask = seen[:, None, None] if mask == "bool" else torch.where(seen, 0.0, -1e9)[:, None, None]
        found, _ = one_query_attention_forward(nn.Module(), query, key, value, mask, scaling=0.3)
        mask = mask.double() if mask is not None and mask.dtype != torch.bool else mask
        exact = nn.functional.scaled_dot_product_attention(
            query.double(), key.double(), value.double(), mask, scale=0.3
        )
        assert found.dtype == torch.bfloat16
        assert_close(found.double(), exact.transpose(1, 2), atol=4e-3, rtol=4e-3)

    @pytest.mark.parametrize("kind", ["bool", "float"])
    def test_is_zero_without_a_key(self, kind):
        query, key, value = (states_of(2, 3, n, 8, dtype=torch.bfloat16) for n in (1, 5, 5))
        mask = torch.tensor([[True] * 5, [False] * 5])[:, None, None]
        mask = mask if kind == "bool" else torch.where(mask, 0.0, -torch.inf).bfloat16()
        found, _ = one_query_attention_forward(nn.Module(), query, key, value, mask, scaling=0.3)
        assert found[0].any() and not found[1].any()

    @needs_onednn
    def test_is_for_one_query_in_bf16(self):
        query = states_of(1, 2, 1, 4, dtype=torch.bfloat16)
        with torch.no_grad():
            assert not is_fast_query(query)
            with fast_inference(CPU):
                assert is_fast_query(query)
                assert not is_fast_query(query.float())
                assert not is_fast_query(query.expand(1, 2, 3, 4))
        with fast_inference(CPU):
            assert not is_fast_query(query)


def new_tokens(n, batch=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 2, n, 3, generator=generator) for _ in range(2)]


def empty_cache():
    return DynamicCache(config=tiny_config(num_hidden_layers=1))


STEPS = {
    "nothing": lambda cache: cache,
    "crop": lambda cache: cache.layers[0].crop(-2) or cache,
    "reorder": lambda cache: cache.reorder_cache(torch.tensor([1, 1, 0, 3])) or cache,
    "repeat": lambda cache: cache.batch_repeat_interleave(2) or cache,
    "select": lambda cache: cache.batch_select_indices(torch.tensor([1, 0])) or cache,
    "slice": lambda cache: cache.batch_select_indices(slice(0, 2)) or cache,
    "deepcopy": copy.deepcopy,
    "assign": lambda cache: setattr(cache.layers[0], "keys", cache.layers[0].keys.clone()) or cache,
    "assign values": lambda cache: setattr(cache.layers[0], "values", -cache.layers[0].values) or cache,
    "data of keys": lambda cache: setattr(cache.layers[0].keys, "data", cache.layers[0].keys.clone()) or cache,
    "data of values": lambda cache: setattr(cache.layers[0].values, "data", -cache.layers[0].values) or cache,
    "reset": lambda cache: cache.reset() or cache,
}


class TestCache:
    @torch.no_grad()
    @pytest.mark.parametrize("step", STEPS)
    @pytest.mark.parametrize("n_new", [1, 7, 200])
    def test_holds_what_a_copied_cache_holds(self, step, n_new):
        expected, cache, batch = empty_cache(), empty_cache(), 4
        with fast_inference(CPU):
            for seed in range(9):
                tokens = new_tokens(n_new, batch, seed)
                found = extend_cache(cache, *tokens, 0)
                assert_close(list(found), list(expected.update(*tokens, 0)), atol=0, rtol=0)
                assert cache.get_seq_length() == expected.get_seq_length()
                if seed % 3 == 2:  # after several updates in a row
                    before = [tensor.clone() for tensor in found]
                    expected, cache = STEPS[step](expected), STEPS[step](cache)
                    batch = len(cache.layers[0].keys) if cache.get_seq_length() else 4
                    extend_cache(cache, *new_tokens(1, batch), 0)
                    expected.update(*new_tokens(1, batch), 0)
                    if "data" not in step and step != "reset":
                        assert_close(list(found), before, atol=0, rtol=0)  # the caller may still hold these
        assert type(cache.layers[0]) is DynamicLayer

    @torch.no_grad()
    @needs_onednn
    def test_is_not_copied_for_every_token(self):
        cache, memories = empty_cache(), set()
        with fast_inference(CPU):
            for _ in range(300):
                memories.add(extend_cache(cache, *new_tokens(1), 0)[0].data_ptr())
        assert len(memories) <= 8

    @torch.no_grad()
    def test_copied_layers_do_not_share_memory(self):
        with fast_inference(CPU):
            cache = empty_cache()
            for seed in range(3):
                extend_cache(cache, *new_tokens(1, seed=seed), 0)
            other = copy.copy(cache)
            other.layers = [copy.copy(layer) for layer in cache.layers]
            keys, _ = extend_cache(cache, *new_tokens(1, seed=4), 0)
            before = keys.clone()
            extend_cache(other, *new_tokens(1, seed=5), 0)
        assert torch.equal(keys, before)

    @torch.no_grad()
    @pytest.mark.parametrize("n_before", [1, 5])
    def test_takes_a_wider_type_as_a_copied_cache_does(self, n_before):
        cache = empty_cache()
        with fast_inference(CPU):
            for seed in range(n_before):
                extend_cache(cache, *(tensor.bfloat16() for tensor in new_tokens(1, seed=seed)), 0)
            keys, _ = extend_cache(cache, *new_tokens(1), 0)
            assert keys.dtype == torch.float32
            with pytest.raises(RuntimeError, match="[Ss]izes"):
                extend_cache(cache, *new_tokens(1, batch=1), 0)

    @torch.no_grad()
    def test_of_another_kind_is_updated_by_itself(self):
        class Own(DynamicCache):
            def update(self, *args, **kwargs):
                return "own"

        with fast_inference(CPU):
            assert extend_cache(Own(), *new_tokens(1), 0) == "own"
            cache = DynamicCache()  # without layers
            for seed in range(3):
                keys, _ = extend_cache(cache, *new_tokens(1, seed=seed), 1)
        assert keys.shape[2] == 3 and len(cache.layers) == 2

    def test_keeps_gradients(self):
        cache, inputs = empty_cache(), []
        with fast_inference(CPU):
            for seed in range(3):
                inputs.append([tensor.requires_grad_() for tensor in new_tokens(1, seed=seed)])
                keys, _ = extend_cache(cache, *inputs[-1], 0)
        keys.sum().backward()
        assert all(torch.equal(one.grad, torch.ones_like(one)) for one, _ in inputs)


def ids_of(side="left"):
    mask = mask_of(side)[:, -6:]
    return {"input_ids": random_ids(*mask.shape) * mask, "attention_mask": mask}


SEARCHES = {
    "greedy": {},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "sampling": {"do_sample": True, "num_return_sequences": 2},
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
    "static cache": {"cache_implementation": "static"},
    "without a cache": {"use_cache": False},
}


@needs_onednn
class TestGenerate:
    @pytest.mark.parametrize("search", SEARCHES)
    @pytest.mark.parametrize("attention", ["sdpa", "eager"])
    def test_finds_what_it_finds_without(self, search, attention, products, slow):
        model = tiny_lm(attention)
        inputs = {name: tensor[:1] if "lookup" in search else tensor for name, tensor in ids_of().items()}
        options = {"max_new_tokens": POSITIONS - 7, "pad_token_id": 0, "do_sample": False, **SEARCHES[search]}
        found = []
        for is_fast in (True, False):
            if not is_fast:
                assert products
                slow()
            torch.manual_seed(0)
            found.append(model.generate(**inputs, **options))
        assert torch.equal(*found)

    @every_type
    @pytest.mark.parametrize("positions", ["learned", "sinusoidal", "none"])
    def test_gives_the_logits_of_a_pass_over_the_text(self, dtype, positions):
        model = tiny_lm(position_embedding_type=positions).to(dtype)
        inputs = ids_of()
        outputs = model.generate(
            **inputs, max_new_tokens=16, do_sample=False, pad_token_id=0, output_logits=True,
            return_dict_in_generate=True,
        )  # fmt: skip
        mask = torch.cat([inputs["attention_mask"], torch.ones(3, 16, dtype=torch.long)], 1)
        with torch.no_grad():
            logits = model.double()(outputs.sequences, attention_mask=mask).logits[:, 5:-1]
        close = CLOSE if dtype == torch.float32 else {"atol": 0.3, "rtol": 0.05}
        assert_close(torch.stack(outputs.logits, 1).double(), logits, **close)

    @pytest.mark.parametrize("change", ["in place", "data", "assigned"])
    def test_sees_weights_that_change_meanwhile(self, change, slow):
        model, inputs, found = tiny_lm(), ids_of(), []
        layer = model.transformer.h[1].mlp.up_proj
        original = layer.weight.detach().clone()
        for is_fast in (True, False):
            calls = []

            def hook(*_, calls=calls):
                calls.append(0)
                weight = original * (1 + 0.3 * (len(calls) // 9 % 4))
                if change == "in place":
                    layer.weight.copy_(weight)
                elif change == "data":
                    layer.weight.data = weight
                else:
                    layer.weight = nn.Parameter(weight)

            if not is_fast:
                slow()
            with model.transformer.h[1].mlp.register_forward_pre_hook(hook):
                found.append(model.generate(**inputs, max_new_tokens=17, do_sample=False, pad_token_id=0))
            assert len(calls) == 17
        assert torch.equal(*found)

    @pytest.mark.parametrize("change", ["in place", "data", "assigned"])
    def test_sees_new_weights(self, change, slow):
        model, inputs = tiny_lm(), ids_of()
        options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
        before = model.generate(**inputs, **options)
        weight = model.transformer.h[0].mlp.up_proj.weight
        with torch.no_grad():
            if change == "in place":
                weight.neg_()
            elif change == "data":
                weight.data.neg_()
            else:
                model.transformer.h[0].mlp.up_proj.weight = nn.Parameter(-weight)
        after = model.generate(**inputs, **options)
        slow()
        assert torch.equal(after, model.generate(**inputs, **options))
        assert not torch.equal(before, after)

    def test_of_several_threads(self):
        model, inputs = tiny_lm(), ids_of()
        options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
        expected, found = model.generate(**inputs, **options), []
        threads = [
            threading.Thread(target=lambda: found.append(model.generate(**inputs, **options))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4 and all(torch.equal(one, expected) for one in found)

    def test_with_an_assistant(self, slow):
        model, assistant = tiny_lm(), tiny_lm(num_hidden_layers=1)
        ids = random_ids(1, 6)
        options = {"max_new_tokens": 15, "do_sample": False, "pad_token_id": 0, "assistant_model": assistant}
        found = model.generate(ids, **options)
        slow()
        assert torch.equal(found, model.generate(ids, **options))

    def test_of_an_adapter(self, products, slow):
        model = get_peft_model(tiny_lm(), LoraConfig(r=4, target_modules=["q_proj", "up_proj"]))
        nn.init.normal_(model.get_parameter("base_model.model.transformer.h.0.attn.q_proj.lora_B.default.weight"))
        inputs, options = ids_of(), {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
        found = model.generate(**inputs, **options)
        assert products  # of the other layers
        slow()
        assert torch.equal(found, model.generate(**inputs, **options))

    def test_of_the_lstm(self, products, slow):
        config = GPT1LSTMConfig(vocab_size=61, hidden_size=32, lstm_size=40, max_position_embeddings=24)
        model, inputs = GPT1LSTMForCausalLM(config).eval(), ids_of()
        options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
        found = model.generate(**inputs, **options)
        assert products
        slow()
        assert torch.equal(found, model.generate(**inputs, **options))

    @pytest.mark.parametrize("inference_mode", [True, False])
    def test_returns_a_plain_cache_to_go_on_with(self, inference_mode):
        model, ids = tiny_lm(), random_ids(1, 6)
        with torch.inference_mode(inference_mode):
            outputs = model.generate(
                ids, max_new_tokens=8, do_sample=False, pad_token_id=0, return_dict_in_generate=True
            )
        cache, sequences = outputs.past_key_values, outputs.sequences.clone()
        assert {type(layer) for layer in cache.layers} == {DynamicLayer}
        expected = model(sequences).logits[:, -1]
        if not inference_mode:
            model(sequences[:, -1:], **{CACHE: copy.deepcopy(cache)}).logits.sum().backward()
            assert model.lm_head.weight.grad is not None
        with torch.no_grad():
            found = model(sequences[:, -1:], **{CACHE: cache}).logits[:, -1]
        assert_close(found, expected.detach(), **CLOSE)

    @pytest.mark.parametrize("kind", [DynamicCache, StaticCache])
    def test_continues_from_the_callers_cache(self, kind, slow):
        model, ids, found = tiny_lm(), random_ids(1, 6), []
        for is_fast in (True, False):
            if not is_fast:
                slow()
            cache = kind(config=model.config, **({"max_cache_len": 20} if kind is StaticCache else {}))
            with torch.no_grad():
                model(ids[:, :4], **{CACHE: cache})
            options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
            found.append(model.generate(ids, **options, **{CACHE: cache}))
            assert cache.get_seq_length() == 13
        assert torch.equal(*found)

    def test_uses_the_attention_of_one_query_in_bf16(self, monkeypatch):
        shapes = []

        def noted(module, query, *args, **kwargs):
            shapes.append(tuple(query.shape))
            return one_query_attention_forward(module, query, *args, **kwargs)

        monkeypatch.setattr(modeling_gpt1, "one_query_attention_forward", noted)
        options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
        tiny_lm().generate(**ids_of(), **options)
        tiny_lm("eager").to(torch.bfloat16).generate(**ids_of(), **options)
        assert not shapes
        tiny_lm().to(torch.bfloat16).generate(**ids_of(), **options)
        assert shapes == [(3, 4, 1, 8)] * 4 * 3  # the first token comes from the prompt
        tiny_lm(attn_pdrop=0.5).to(torch.bfloat16).train().generate(**ids_of(), **options)  # with dropout
        assert len(shapes) == 4 * 3


@needs_onednn
def test_scores_use_the_products_and_never_pack(products):
    model, inputs = tiny_lm(), ids_of("right")
    with torch.no_grad():
        expected = model.double()(**inputs).logits
        model.float()
        for _ in range(USES_BEFORE_PACKING + 2):  # a context for each batch: the same batch gives the same bits
            with full_precision(model):
                logits = model(**inputs).logits
            assert_close(logits.double(), expected, **CLOSE)
    weights = {id(weight) for weight in model.parameters()}
    assert products and all(id(weight) in weights for weight in products)
