"""Tiny models with weights far from their initial values, inputs for them, and comparisons of their outputs."""

import pytest
import torch
from torch.testing import assert_close

from gpt1_hf import GPT1Config, GPT1ForCausalLM, GPT1ForSequenceClassification


VOCAB, HIDDEN, LAYERS, HEADS, POSITIONS = 61, 32, 3, 4, 24
LENGTHS = (12, 9, 5)
NO_DROPOUT = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}
ATTENTIONS = pytest.mark.parametrize("attention", ["eager", "sdpa"])
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
# Files of the package that travel beside a checkpoint, by the type of its model.
CODE = {
    "gpt1": {
        "configuration_gpt1.py",
        "modeling_gpt1.py",
        "modeling_gpt1_cpu.py",
        "modeling_gpt1_heads.py",
        "processing_gpt1.py",
    }
}
CODE["gpt1_lstm"] = CODE["gpt1"] | {"configuration_gpt1_lstm.py", "modeling_gpt1_lstm.py"}


def randomize(model, seed=0):
    """Draw weights far enough from their initial values to reveal every difference: std 0.2, norms around 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_scale = ".ln_" in name and name.endswith("weight")
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2 + float(is_scale))
    return model.eval()


def tiny_config(**changes) -> GPT1Config:
    sizes = {
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "max_position_embeddings": POSITIONS,
        "classifier_dropout": 0.0,
    }
    return GPT1Config(**{**sizes, **NO_DROPOUT, **changes})


def tiny_lm(attention="sdpa", **changes) -> GPT1ForCausalLM:
    return randomize(GPT1ForCausalLM._from_config(tiny_config(**changes), attn_implementation=attention))


def tiny_classifier(**changes) -> GPT1ForSequenceClassification:
    return randomize(GPT1ForSequenceClassification(tiny_config(**changes)))


def random_ids(*shape, seed=0) -> torch.Tensor:
    """Random token ids without 0, the padding id."""
    return torch.randint(1, VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def mask_of(side) -> torch.Tensor:
    steps = torch.arange(max(LENGTHS)).expand(len(LENGTHS), -1)
    lengths = torch.tensor(LENGTHS)[:, None]
    return (steps < lengths if side == "right" else steps >= max(LENGTHS) - lengths).long()


def positions_of(mask) -> torch.Tensor:
    return (mask.cumsum(-1) - 1).clamp(min=0)


def padded_batch(side) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A batch of three rows padded on `side` (or not at all), and its mask of real positions."""
    ids = random_ids(len(LENGTHS), max(LENGTHS))
    if side is None:
        return {"input_ids": ids}, torch.ones_like(ids).bool()
    mask = mask_of(side)
    return {"input_ids": ids * mask, "attention_mask": mask}, mask.bool()


def labels_of(ids, mask) -> torch.Tensor:
    """Targets at tokens whose left neighbour is also a token. Nothing predicts the first token after padding."""
    before = torch.nn.functional.pad(mask, (1, 0), value=True)[:, :-1]
    return ids.masked_fill(~(mask & before), -100)


def gradients(model) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def in_our_layout(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Convert tensors from OpenAIGPT's layout to GPT-1's: (out, in), with separate q, k and v."""
    renamed = {"attn.c_proj": "attn.o_proj", "mlp.c_fc": "mlp.up_proj", "mlp.c_proj": "mlp.down_proj"}
    result = {}
    for name, tensor in tensors.items():
        if ".c_" in name and name.endswith("weight"):
            tensor = tensor.T
        if "attn.c_attn" in name:
            for part, chunk in zip("qkv", tensor.chunk(3, dim=0), strict=True):
                result[name.replace("c_attn", f"{part}_proj")] = chunk
            continue
        for old, new in renamed.items():
            name = name.replace(old, new)
        result[name] = tensor
    return result


def assert_same_gradients(ours, theirs):
    """Compare gradients to 1e-5 or, if they are small, to a thousandth of their largest entry."""
    assert ours.keys() == theirs.keys()
    for name in theirs:
        largest = theirs[name].abs().max().item()
        if name.endswith("k_proj.bias"):  # softmax ignores a constant added to every key, so only rounding is left
            assert max(largest, ours[name].abs().max().item()) < 1e-6, name
            continue
        assert largest > 1e-5, name
        tolerance = {"atol": min(1e-5, 1e-3 * largest), "rtol": 1e-5}
        assert_close(ours[name], theirs[name], **tolerance, msg=lambda message, name=name: f"{name}: {message}")


def generate(model, ids, **options):
    """Sequences from greedy search, and the logits that chose them, `(batch, new tokens, vocab)`."""
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "disable_compile": True, **options}
    outputs = model.generate(ids, return_dict_in_generate=True, output_logits=True, **options)
    return outputs.sequences, torch.stack(outputs.logits, dim=1)


def assert_cache_keeps_generation(model):
    """Generate with a dynamic cache, with a static cache and without one, and compare sequences and logits."""
    ids = random_ids(3, 6)
    sequences, logits = generate(model, ids, use_cache=False)
    assert sequences.shape == (3, 14)
    for options in ({"use_cache": True}, {"cache_implementation": "static"}):
        cached_sequences, cached_logits = generate(model, ids, **options)
        assert torch.equal(cached_sequences, sequences)
        assert_close(cached_logits, logits, **CLOSE)
