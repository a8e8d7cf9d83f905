"""The requirements of vLLM's Transformers backend, tested with a stand-in. vLLM itself does not run."""

import pytest
import torch
from torch import nn
from transformers import AutoModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from gpt1_hf import GPT1Config, GPT1ForCausalLM, GPT1Model


class Attention:
    """A layer's attention with its own cache of keys and values, as vLLM's has: rows are `(tokens, hidden)`."""

    def __init__(self, heads: int):
        self.heads, self.keys, self.values = heads, torch.empty(0), torch.empty(0)

    def __call__(self, query, key, value):
        self.keys, self.values = torch.cat([self.keys, key]), torch.cat([self.values, value])
        query, key, value = (
            rows.unflatten(-1, (self.heads, -1)).transpose(0, 1) for rows in (query, self.keys, self.values)
        )
        new, all_ = query.shape[1], key.shape[1]
        mask = torch.ones(new, all_, dtype=torch.bool).tril(all_ - new)
        return nn.functional.scaled_dot_product_attention(query, key, value, mask).transpose(0, 1).flatten(1)


def vllm_attention(module, query, key, value, attention_mask, attention_instances=None, scaling=None, **kwargs):
    assert attention_mask is None and module.is_causal and scaling == query.shape[-1] ** -0.5
    rows = (states[0].transpose(0, 1).flatten(1) for states in (query, key, value))  # one row of tokens, no batch
    return attention_instances[module.layer_idx](*rows), None


class Missing(nn.Identity):
    """A block that another rank of the pipeline computes."""

    def forward(self, *args, **kwargs):
        return args[0]


@pytest.fixture(params=["learned", "sinusoidal", "none"])
def model(request, monkeypatch) -> GPT1Model:
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "vllm", vllm_attention)
    torch.manual_seed(0)
    config = GPT1Config(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        max_position_embeddings=24,
        position_embedding_type=request.param,
        initializer_range=0.3,
    )
    return AutoModel.from_config(config).eval()


@torch.no_grad()
def run(model, instances, positions, **inputs) -> torch.Tensor:
    """Call a model as vLLM does: with positions and vLLM's attention, for a tuple."""
    return model(
        **inputs, use_cache=False, position_ids=positions[None], attention_instances=instances, return_dict=False
    )[0]


def test_attention_comes_from_outside_and_keeps_the_cache(model):
    ids = torch.randint(50, (1, 12))
    with torch.no_grad():
        expected = model(input_ids=ids).last_hidden_state
    model.config._attn_implementation = "vllm"
    instances = {layer: Attention(2) for layer in range(4)}
    first = run(model, instances, torch.arange(9), input_ids=ids[:, :9])
    rest = [run(model, instances, torch.tensor([at]), input_ids=ids[:, at : at + 1]) for at in range(9, 12)]
    torch.testing.assert_close(torch.cat([first, *rest], 1), expected, atol=1e-5, rtol=1e-4)


def test_two_ranks_of_a_pipeline_are_one_model(model):
    ids = torch.randint(50, (1, 12))
    with torch.no_grad():
        expected = model(input_ids=ids).last_hidden_state
    model.config._attn_implementation = "vllm"
    blocks, states = list(model.h), None
    for rank in (range(0, 2), range(2, 4)):
        for layer, block in enumerate(blocks):
            model.h[layer] = block if layer in rank else Missing()
        inputs = {"input_ids": ids} if states is None else {"inputs_embeds": states}
        states = run(model, {layer: Attention(2) for layer in rank}, torch.arange(12), **inputs)
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-4)


def test_what_vllm_reads_of_the_classes_and_the_config(model, tmp_path):
    assert GPT1Model.is_backend_compatible() and model.get_decoder() is model
    assert {"AutoConfig", "AutoModel", "AutoModelForCausalLM"} <= set(saved_auto_map(model.config, tmp_path))
    assert model.supports_pp_plan and model.config.get_text_config() is model.config
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    plan = {name.replace("*", "0") for name in model.tp_plan}
    assert all(name in plan for name in linears if name.startswith("h.0."))
    assert model.config.hidden_size % model.config.num_attention_heads == 0 and model.config.tie_word_embeddings


def saved_auto_map(config: GPT1Config, folder) -> dict[str, str]:
    GPT1ForCausalLM(config).save_pretrained(folder)
    return GPT1Config.from_pretrained(folder).auto_map
