"""The CPU's training attention has the outputs and gradients of sdpa, with any mask, and its dropout is correct."""

import pytest
import torch
from accelerate.utils import is_compiled_module
from datasets import Dataset
from torch import nn
from transformers import TrainingArguments
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from gpt1_hf import GPT1Config, GPT1ForCausalLM, GPT1Processor, GPT1Trainer
from gpt1_hf.checkpoints.loading import open_tokenizer
from gpt1_hf.hardware import has_half_precision
from gpt1_hf.training.cpu_kernels import (
    CPU_BLOCKS,
    CPUDropout,
    cpu_blocks_attention_forward,
    dropout_mask,
    seen_keys,
    speed_up,
)


def tiny(attention: str, **changes) -> GPT1ForCausalLM:
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = GPT1Config(**sizes, max_position_embeddings=300, initializer_range=0.3, **changes)
    torch.manual_seed(0)
    model = GPT1ForCausalLM(config).train()
    model.set_attn_implementation(attention)
    return model


NO_DROPOUT = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}


@pytest.mark.parametrize("seq_len", [1, 5, 128, 129, 300])
@pytest.mark.parametrize("padding", [None, "left", "right"])
@pytest.mark.parametrize("training", [True, False])
def test_equals_sdpa(seq_len, padding, training):
    ids = torch.randint(50, (3, seq_len), generator=torch.Generator().manual_seed(1))
    mask = None
    if padding is not None:
        mask = torch.ones_like(ids)
        n_padded = seq_len // 2
        mask[1, slice(0, n_padded) if padding == "left" else slice(seq_len - n_padded, None)] = 0
    results = {}
    for attention in ("sdpa", CPU_BLOCKS):
        model = tiny(attention, **NO_DROPOUT).double().train(training)
        states = model.transformer(ids, attention_mask=mask).last_hidden_state
        if mask is not None:
            states = states * mask[..., None]
        states.pow(3).sum().backward()
        results[attention] = [states, *(p.grad for p in model.transformer.parameters())]
    for expected, actual in zip(results["sdpa"], results[CPU_BLOCKS], strict=True):
        # In fp64, because the rounding of fp32 over 300 positions and two blocks differs between CPUs.
        torch.testing.assert_close(actual, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("is_learned", [False, True])
def test_a_bias_of_the_scores_is_added_and_can_be_learned(is_learned):
    torch.manual_seed(0)
    module = tiny("sdpa").transformer.h[0].attn
    inputs = [torch.randn(2, 2, 140, 8).double() for _ in range(3)]
    bias = torch.randn(2, 1, 140, 140).double().masked_fill(~torch.ones(140, 140, dtype=torch.bool).tril(), -1e9)
    found = []
    for attention in (cpu_blocks_attention_forward, sdpa_attention_forward):
        leaves = [states.clone().requires_grad_() for states in inputs]
        leaves.append(bias.clone().requires_grad_(is_learned))
        output, _ = attention(module, *leaves, scaling=0.3)
        output.pow(3).sum().backward()
        found.append([output, *(leaf.grad for leaf in leaves if leaf.requires_grad)])
    torch.testing.assert_close(*found, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_text_of_padding_alone_gives_finite_numbers(dtype):
    torch.manual_seed(0)
    module = tiny("sdpa").transformer.h[0].attn
    inputs = [(100 * torch.randn(2, 2, 130, 8)).to(dtype).requires_grad_() for _ in range(3)]
    seen = torch.ones(130, 130, dtype=torch.bool).tril().expand(2, 1, -1, -1).clone()
    seen[1] = False
    output, _ = cpu_blocks_attention_forward(module, *inputs, seen, scaling=0.3, dropout=0.1)
    output[0].float().sum().backward()
    assert output.isfinite().all() and all(states.grad.isfinite().all() for states in inputs)


def test_packed_rows_do_not_see_each_other():
    ids = torch.randint(50, (1, 200))
    positions = torch.cat([torch.arange(150), torch.arange(50)]).unsqueeze(0)
    model = tiny(CPU_BLOCKS, **NO_DROPOUT)
    packed = model(ids, position_ids=positions).logits
    torch.testing.assert_close(packed[:, 150:], model(ids[:, 150:]).logits, atol=1e-5, rtol=1e-4)


def test_a_block_of_queries_computes_only_the_keys_that_it_sees():
    sequences = torch.tensor([0] * 3 + [1] * 4 + [2] * 2)
    mask = (sequences[:, None] == sequences).tril()[None, None]
    assert [seen_keys(mask[:, :, start : start + 3]) for start in (0, 3, 6)] == [slice(0, 3), slice(3, 6), slice(3, 9)]
    assert seen_keys(torch.zeros(1, 1, 3, 9, dtype=torch.bool)) == seen_keys(torch.zeros(1, 1, 3, 9)) == slice(0, 9)


def test_generation_with_a_cache_uses_sdpa():
    ids = torch.randint(50, (2, 6))
    expected = tiny("sdpa").eval().generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)
    actual = tiny(CPU_BLOCKS).eval().generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)
    assert actual.tolist() == expected.tolist()


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_mask_keeps_the_right_share_everywhere(p):
    torch.manual_seed(0)
    kept, scale = dropout_mask(torch.Size((1000, 1001)), p)
    assert scale == pytest.approx(1 / (1 - p), abs=2e-3)
    assert kept.float().mean().item() == pytest.approx(1 - p, abs=2e-3)
    # each of the four elements of a draw, and no two of them together
    columns = kept.flatten()[: kept.numel() // 4 * 4].view(-1, 4).float()
    torch.testing.assert_close(columns.mean(0), torch.full((4,), 1 - p), atol=3e-3, rtol=0)
    correlation = torch.corrcoef(columns.T) - torch.eye(4)
    assert correlation.abs().max() < 0.01


@pytest.mark.parametrize(("p", "share"), [(1e-6, 1.0), (1 - 1e-6, 0.0), (1.0, 0.0)])
def test_dropout_that_rounds_to_none_or_all(p, share):
    kept, scale = dropout_mask(torch.Size((5, 7)), p)
    assert kept.float().mean().item() == share and scale == 1.0
    model = tiny("sdpa", **{**NO_DROPOUT, "attn_pdrop": p, "resid_pdrop": min(p, 1 - 1e-6)})
    speed_up(model, bf16=False)
    ids = torch.tensor([[1, 2, 3]])
    model(ids, labels=ids).loss.backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())


def test_dropout_is_unbiased_and_repeats_with_the_seed():
    module = nn.Module().train()
    query, key, value = (torch.randn(1, 2, 40, 8) for _ in range(3))
    expected, _ = cpu_blocks_attention_forward(module, query, key, value, None, scaling=0.3)
    torch.manual_seed(3)
    draws = [cpu_blocks_attention_forward(module, query, key, value, None, 0.3, dropout=0.3)[0] for _ in range(2000)]
    torch.manual_seed(3)
    again, _ = cpu_blocks_attention_forward(module, query, key, value, None, scaling=0.3, dropout=0.3)
    assert torch.equal(again, draws[0]) and not torch.equal(draws[0], draws[1])
    # a mean of 2,000 draws of standard deviation below 2
    torch.testing.assert_close(torch.stack(draws).mean(0), expected, atol=0.2, rtol=0)


@pytest.mark.parametrize(
    ("attention", "dropout", "bf16", "expected"),
    [
        ("sdpa", 0.1, False, CPU_BLOCKS),
        ("sdpa", 0.0, True, CPU_BLOCKS),
        ("sdpa", 0.0, False, "sdpa"),
        ("eager", 0.1, True, "eager"),
    ],
)
def test_the_trainer_uses_it_where_it_is_faster(tmp_path, attention, dropout, bf16, expected):
    if bf16 and not has_half_precision(torch.bfloat16, torch.device("cpu")):
        pytest.skip("this CPU has no bf16 matrix products")
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, bf16=bf16, report_to="none")
    trainer = GPT1Trainer(tiny(attention, attn_pdrop=dropout), args, train_dataset=[{"input_ids": [1, 2]}])
    assert trainer.model.config._attn_implementation == expected


def test_dropout_drops_scales_and_stops_in_evaluation():
    torch.manual_seed(0)
    model = tiny("sdpa", resid_pdrop=0.25)
    speed_up(model, bf16=False)
    dropout = model.transformer.h[0].dropout
    assert type(dropout) is CPUDropout
    states = torch.ones(100, 1000, requires_grad=True)
    dropped = dropout(states)
    assert sorted(set(dropped.flatten().tolist())) == pytest.approx([0, 4 / 3])
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=5e-3)
    dropped.sum().backward()
    assert torch.equal(states.grad, dropped.detach())
    assert torch.equal(dropout.eval()(states), states)


def test_a_compiled_block_is_one_graph_with_the_same_dropout():
    states, found = torch.randn(2, 140, 16), []
    for compiled in (False, True):
        model = tiny("sdpa")
        speed_up(model, bf16=False)
        block = model.transformer.h[0]
        run = torch.compile(block, backend="aot_eager", fullgraph=True) if compiled else block
        inputs = states.clone().requires_grad_()
        torch.manual_seed(1)
        run(inputs).square().sum().backward()
        found.append([inputs.grad, *(parameter.grad for parameter in block.parameters())])
    torch.testing.assert_close(*found)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated")
@pytest.mark.parametrize("regional", [True, False])
def test_a_run_whose_model_is_compiled_trains_the_same_weights(regional, tmp_path, monkeypatch):
    rows = [{"input_ids": [2, 3, 4, 5], "labels": [2, 3, 4, 5]}] * 4
    found = []
    for compiled in (False, True):
        if compiled:  # as `accelerate launch` sets them
            monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "aot_eager")
            monkeypatch.setenv("ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION", str(regional))
        args = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", max_steps=2, disable_tqdm=True)
        trainer = GPT1Trainer(tiny("sdpa"), args, train_dataset=rows)
        trainer.train()
        assert (trainer.model_wrapped is not trainer.model) == compiled
        assert is_compiled_module(trainer.model_wrapped) == (compiled and not regional)
        found.append(trainer.model.state_dict())
    torch.compiler.reset()
    torch.testing.assert_close(*found)


def test_a_compiled_run_packs_no_rows(tmp_path, monkeypatch):
    processor = GPT1Processor(open_tokenizer("gpt1-tiny"))
    for backend, packs in (("no", True), ("aot_eager", False)):
        monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", backend)
        args = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
        dataset = Dataset.from_list([{"input_ids": [1] * n, "label": 0} for n in (2, 9)])
        trainer = GPT1Trainer(tiny("sdpa"), args, train_dataset=dataset, processing_class=processor)
        (batch,) = trainer.get_train_dataloader()
        assert ("position_ids" in batch) == packs
