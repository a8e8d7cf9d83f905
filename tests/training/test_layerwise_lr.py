"""Layer-wise learning rates: each parameter's by hand, through schedules and checkpoints, for both architectures."""

import pytest
import torch
from datasets import Dataset
from transformers import Trainer

from gpt1_hf import (
    GPT1Config,
    GPT1ForCausalLM,
    GPT1ForSequenceClassification,
    GPT1LSTMConfig,
    GPT1LSTMForSequenceClassification,
    GPT1Processor,
    GPT1Trainer,
    GPT1TrainingArguments,
)


SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "max_position_embeddings": 64}

# A factor of 0.5 from each of three blocks to the next lower one, and from the lowest to the embeddings.
BY_HAND = {
    "classifier.weight": 1.0,
    "classifier.bias": 1.0,
    "transformer.h.2.mlp.up_proj.weight": 1.0,
    "transformer.h.2.ln_2.weight": 1.0,
    "transformer.h.1.attn.q_proj.weight": 0.5,
    "transformer.h.1.attn.q_proj.bias": 0.5,
    "transformer.h.0.ln_1.bias": 0.25,
    "transformer.h.0.mlp.down_proj.weight": 0.25,
    "transformer.tokens_embed.weight": 0.125,
    "transformer.positions_embed.weight": 0.125,
}


def arguments(folder, **changes):
    return GPT1TrainingArguments(
        output_dir=str(folder), use_cpu=True, disable_tqdm=True, learning_rate=1e-3, warmup_steps=0, **changes
    )


def rates(model, trainer) -> dict[str, tuple[float, float]]:
    """Parameter name -> learning rate and weight decay; every parameter is in one group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = trainer.create_optimizer().param_groups
    found = {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(found) == len(names)
    return found


def test_each_parameter_has_the_rate_of_its_layer(tmp_path):
    model = GPT1ForSequenceClassification(GPT1Config(vocab_size=20, **SIZES))
    found = rates(model, GPT1Trainer(model, arguments(tmp_path, layerwise_lr_decay=0.5)))
    for name, scale in BY_HAND.items():
        assert found[name][0] == pytest.approx(1e-3 * scale), name
    for name, (_, weight_decay) in found.items():
        assert weight_decay == (0.0 if name.endswith("bias") or ".ln_" in name else 0.01), name


def test_lstm_layers_and_tied_embeddings_too(tmp_path):
    model = GPT1LSTMForSequenceClassification(
        GPT1LSTMConfig(vocab_size=20, hidden_size=16, lstm_size=16, num_hidden_layers=2)
    )
    found = rates(model, GPT1Trainer(model, arguments(tmp_path, layerwise_lr_decay=0.1)))
    for name, (rate, _) in found.items():
        scale = 1e-2 if "embed" in name else 1e-1 if ".h.0." in name else 1.0
        assert rate == pytest.approx(1e-3 * scale), name
    model = GPT1ForCausalLM(GPT1Config(vocab_size=20, **SIZES))
    found = rates(model, GPT1Trainer(model, arguments(tmp_path, layerwise_lr_decay=0.5)))
    assert found["transformer.tokens_embed.weight"][0] == pytest.approx(1e-3 * 0.125)
    assert "lm_head.weight" not in found


def test_without_decay_the_optimizer_is_unchanged(tmp_path):
    model = GPT1ForSequenceClassification(GPT1Config(vocab_size=20, **SIZES))
    ours, own = (cls(model, arguments(tmp_path)).create_optimizer().param_groups for cls in (GPT1Trainer, Trainer))
    assert [(group["lr"], len(group["params"])) for group in ours] == [
        (group["lr"], len(group["params"])) for group in own
    ]
    given = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = GPT1Trainer(model, arguments(tmp_path, layerwise_lr_decay=0.5), optimizers=(given, None))
    assert trainer.create_optimizer() is given
    assert len(given.param_groups) == 1


@pytest.mark.parametrize("factor", [0.0, -0.5, 1.5])
def test_a_factor_out_of_range_is_named(factor, tmp_path):
    with pytest.raises(ValueError, match=f"layerwise_lr_decay.*not {factor}"):
        arguments(tmp_path, layerwise_lr_decay=factor)


def test_schedule_and_checkpoints_keep_the_rates(tokenizer, texts, tmp_path):
    """Four updates in one run, and two runs of two with a checkpoint in between, end at the same weights and rates."""
    processor = GPT1Processor(tokenizer)
    rows = processor([{"text": text} for text in texts[:16]], max_length=32)
    rows = Dataset.from_dict({"input_ids": rows["input_ids"], "label": [0, 1] * 8})
    changes = {
        "layerwise_lr_decay": 0.5,
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "save_strategy": "steps",
        "save_steps": 2,
        "logging_steps": 1,
    }

    def train(folder, resume=None):
        torch.manual_seed(0)
        model = GPT1ForSequenceClassification(GPT1Config(vocab_size=len(processor.tokenizer), pad_token_id=0, **SIZES))
        args = arguments(folder, **changes)
        trainer = GPT1Trainer(model, args, processing_class=processor, train_dataset=rows)
        trainer.train(resume_from_checkpoint=resume)
        return model, trainer

    whole, first = train(tmp_path)
    resumed, second = train(tmp_path / "resumed", resume=str(tmp_path / "checkpoint-2"))
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    logged = [float(entry["learning_rate"]) for entry in first.state.log_history if "learning_rate" in entry]
    assert logged == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])  # the head's rate, on its way to zero
    for trainer in (first, second):
        initial = [group["initial_lr"] for group in trainer.optimizer.param_groups]
        assert initial == pytest.approx([1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4, 2.5e-4, 1.25e-4])
