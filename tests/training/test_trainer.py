"""GPT1Trainer: accumulation changes nothing, the loss terms are logged separately, spans are drawn at random."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from datasets import Dataset

from gpt1_hf import (
    GPT1ForCausalLM,
    GPT1ForSequenceClassification,
    GPT1Processor,
    GPT1Trainer,
    GPT1TrainingArguments,
    modeling_gpt1_cpu,
)
from gpt1_hf.data.spans import ConsecutiveSpans, RandomSpans
from gpt1_hf.data.token_stream import TokenStream


@pytest.fixture
def processor(tokenizer):
    return GPT1Processor(tokenizer, "classification")


@pytest.fixture
def rows(processor, texts):
    """Rows of unequal length; 30 is not a multiple of any batch size below."""
    encoded = processor([{"text": text} for text in texts[:30]], max_length=48)
    labels = [len(text) % 2 for text in texts[:30]]
    return Dataset.from_dict({"input_ids": encoded["input_ids"], "label": labels})


def arguments(tmp_path, **changes):
    defaults = {
        "output_dir": str(tmp_path),
        "use_cpu": True,
        "logging_steps": 1,
        "disable_tqdm": True,
        "train_sampling_strategy": "sequential",
        "learning_rate": 1e-3,
        "warmup_steps": 0,
    }
    return GPT1TrainingArguments(**{**defaults, **changes})


def stream(tokens) -> TokenStream:
    """Two documents."""
    return TokenStream(tokens, [len(tokens) // 2, len(tokens)], [1, 1])


def train(config, processor, rows, args):
    torch.manual_seed(0)
    config.vocab_size = len(processor.tokenizer)
    model = GPT1ForSequenceClassification(config)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainer = GPT1Trainer(model, args, processing_class=processor, train_dataset=rows)
    trainer.train()
    return model, before, trainer.state.log_history


@pytest.mark.parametrize("lm_coef", [0.0, 0.5])
def test_accumulation_of_small_batches_equals_one_large_batch(config, processor, rows, tmp_path, lm_coef):
    config.lm_coef = lm_coef
    large, _, large_log = train(
        config, processor, rows, arguments(tmp_path, per_device_train_batch_size=8, num_train_epochs=1)
    )
    small, _, small_log = train(
        config,
        processor,
        rows,
        arguments(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=4, num_train_epochs=1),
    )
    for one, four in zip(large_log[:-1], small_log[:-1], strict=True):
        assert float(four["loss"]) == pytest.approx(float(one["loss"]), rel=1e-4)
        assert float(four["grad_norm"]) == pytest.approx(float(one["grad_norm"]), rel=1e-3)
    for (name, one), four in zip(large.named_parameters(), small.parameters(), strict=True):
        # A key's bias has only rounding as its gradient (see below), from which Adam makes full-size steps.
        if not name.endswith("k_proj.bias"):
            assert (one - four).abs().mean() < 1e-5, name


def test_fp32_products_of_another_library_train_the_same_model(config, processor, rows, tmp_path, monkeypatch):
    """As on a CPU whose AVX-512 MKL does not use."""
    monkeypatch.setattr(modeling_gpt1_cpu, "LEAST_FP32_WEIGHTS", 0)
    product, calls, logs = modeling_gpt1_cpu._product, [], []
    monkeypatch.setattr(modeling_gpt1_cpu, "_product", lambda *args: calls.append(len(args[0])) or product(*args))
    for is_faster in (False, modeling_gpt1_cpu._has_onednn()):
        monkeypatch.setattr(modeling_gpt1_cpu, "_is_faster_than_mkl", lambda is_faster=is_faster: is_faster)
        _, _, log = train(config, processor, rows, arguments(tmp_path, num_train_epochs=1))
        assert bool(calls) is is_faster
        logs.append(log[:-1])
    for mkl, onednn in zip(*logs, strict=True):
        for name in ("loss", "task_loss", "lm_loss", "grad_norm"):
            assert float(onednn[name]) == pytest.approx(float(mkl[name]), rel=1e-3)


def test_language_models_train_without_logits_to_the_same_weights(config, tmp_path, monkeypatch):
    skipped, forward = [], GPT1ForCausalLM.forward

    @functools.wraps(forward)
    def with_logits(self, *args, skip_logits=False, **kwargs):
        skipped.append(skip_logits)
        return forward(self, *args, **kwargs)

    spans = RandomSpans(stream(np.random.default_rng(0).integers(0, config.vocab_size, 400, dtype=np.uint16)), 16)
    weights = []
    for method in (forward, with_logits):
        torch.manual_seed(0)
        monkeypatch.setattr(GPT1ForCausalLM, "forward", method)
        model = GPT1ForCausalLM(config)
        args = arguments(tmp_path, max_steps=3, gradient_accumulation_steps=2, per_device_train_batch_size=4)
        GPT1Trainer(model, args, train_dataset=spans).train()
        weights.append(model.transformer.tokens_embed.weight.detach().clone())
    assert skipped == [True] * 6
    assert (weights[0] - weights[1]).abs().max() < 1e-5


def test_every_parameter_moves_and_both_terms_are_logged(config, processor, rows, tmp_path):
    model, before, log = train(
        config, processor, rows, arguments(tmp_path, per_device_train_batch_size=10, num_train_epochs=2)
    )
    for name, parameter in model.named_parameters():
        # A key's bias adds the same to all scores of a query, which cancels in the softmax.
        if not name.endswith("k_proj.bias"):
            assert not torch.equal(parameter, before[name]), name
    for entry in log[:-1]:
        terms = float(entry["task_loss"]) + 0.5 * float(entry["lm_loss"])
        assert float(entry["loss"]) == pytest.approx(terms, abs=2e-4)


def test_biases_and_gains_do_not_decay(config, processor, rows, tmp_path):
    config.vocab_size = len(processor.tokenizer)
    model = GPT1ForSequenceClassification(config)
    trainer = GPT1Trainer(model, arguments(tmp_path), processing_class=processor, train_dataset=rows)
    optimizer = trainer.create_optimizer()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        assert group["betas"] == (0.9, 0.999)
        assert group["eps"] == 1e-8
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert (group["weight_decay"] == 0.0) == (name.endswith("bias") or ".ln_" in name), name


def test_paper_values_are_the_defaults(tmp_path):
    args = GPT1TrainingArguments(output_dir=str(tmp_path))
    assert args.learning_rate == 6.25e-5
    assert args.per_device_train_batch_size == 32
    assert args.num_train_epochs == 3
    assert args.lr_scheduler_type == "linear"
    assert args.get_warmup_steps(1000) == 2
    assert args.weight_decay == 0.01
    assert args.max_grad_norm == 1.0
    assert args.report_to == []


def test_spans_are_drawn_with_replacement_one_corpus_per_epoch(config, tmp_path):
    spans = RandomSpans(stream(np.arange(1000, dtype=np.uint16) % 50), length=16)
    trainer = GPT1Trainer(GPT1ForCausalLM(config), arguments(tmp_path, seed=3), train_dataset=spans)
    starts = list(trainer._get_train_sampler())
    assert len(starts) == spans.spans_per_epoch == 62
    assert len({start % 16 for start in starts}) == 16
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["input_ids"].shape == (32, 16)
    assert torch.equal(batch["input_ids"], batch["labels"])


@pytest.mark.parametrize("when", ["log", "save", "end"])
def test_a_loss_that_is_not_finite_ends_the_run_and_names_update_and_documents(config, tmp_path, monkeypatch, when):
    """The third update's loss is NaN; its batch has tokens of two documents."""
    forward, calls = GPT1ForCausalLM.forward, []

    @functools.wraps(forward)
    def broken(self, *args, **kwargs):
        outputs = forward(self, *args, **kwargs)
        calls.append(outputs.loss)
        return outputs if len(calls) != 3 else dataclasses.replace(outputs, loss=outputs.loss * float("nan"))

    monkeypatch.setattr(GPT1ForCausalLM, "forward", broken)
    steps = {"log": {"logging_steps": 4}, "save": {"save_strategy": "steps", "save_steps": 4}, "end": {}}[when]
    args = arguments(tmp_path, **{"logging_steps": 100, **steps}, max_steps=5, per_device_train_batch_size=2)
    windows = ConsecutiveSpans(stream(np.arange(160, dtype=np.uint16) % 50), 16)
    trainer = GPT1Trainer(GPT1ForCausalLM(config), args, train_dataset=windows)
    with pytest.raises(FloatingPointError, match=r"loss is nan at update 3 \(its batch is from the documents 0, 1 "):
        trainer.train()
    assert len(calls) == (5 if when == "end" else 4)
    assert not list(tmp_path.glob("checkpoint-*"))


def test_a_jump_of_the_loss_gives_a_warning(config, tmp_path, caplog):
    trainer = GPT1Trainer(GPT1ForCausalLM(config), arguments(tmp_path))
    for update, loss in enumerate([5.0] * 9 + [6.9, 5.2, 5.1, 6.6, 7.2], start=1):
        trainer.state.global_step = update
        trainer.log({"loss": loss})
    assert [record.message for record in caplog.records] == [
        "the training loss jumped to 7.200 at update 14, from 5.380 on average before"
    ]


def test_one_process_uses_one_of_several_gpus(config, processor, rows, tmp_path, caplog):
    args = arguments(tmp_path)
    args._n_gpu = 2
    trainer = GPT1Trainer(GPT1ForSequenceClassification(config), args, processing_class=processor, train_dataset=rows)
    assert trainer.args.n_gpu == 1 and "accelerate launch" in caplog.text
