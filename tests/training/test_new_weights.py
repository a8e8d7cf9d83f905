"""New heads, rows of special tokens and blocks are drawn from N(0, initializer_range), the model's own scale."""

import importlib.util

import pytest
import torch
from helpers.models import randomize
from helpers.runs import finetune_arguments
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from gpt1_hf import GPT1Config, GPT1ForCausalLM, GPT1LSTMConfig, GPT1LSTMForCausalLM
from gpt1_hf.checkpoints.loading import open_config, open_model
from gpt1_hf.training.finetune import finetune


RANGES = (0.02, 0.06, 0.3)  # the paper's, gpt1-tiny's, and another
HEADS = (AutoModelForSequenceClassification, AutoModelForMultipleChoice, AutoModelForTokenClassification)
SIZES = {"hidden_size": 128, "num_hidden_layers": 2, "max_position_embeddings": 64, "pad_token_id": 0}
CLOSE = {"rel": 0.25}


@pytest.fixture(params=["gpt1", "gpt1_lstm"])
def make_base(request, tokenizer, tmp_path):
    """Write a language model whose weights are no longer at their initial scale; returns its folder."""

    def make(initializer_range: float) -> str:
        torch.manual_seed(0)
        sizes = {**SIZES, "vocab_size": len(tokenizer), "initializer_range": initializer_range}
        if request.param == "gpt1":
            model = GPT1ForCausalLM(GPT1Config(num_attention_heads=4, **sizes))
        else:
            model = GPT1LSTMForCausalLM(GPT1LSTMConfig(lstm_size=32, **sizes))
        folder = str(tmp_path / f"base-{initializer_range}")
        randomize(model).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


def scale(weight: torch.Tensor) -> float:
    assert abs(weight.mean().item()) < weight.std().item() / 2
    return weight.std().item()


def new_rows(model) -> torch.Tensor:
    return model.get_input_embeddings().weight.detach()[160:]  # the tokenizer fixture has 160 entries


@pytest.mark.parametrize("initializer_range", RANGES)
def test_the_library_draws_heads_and_rows_at_the_models_scale(initializer_range, make_base):
    base = make_base(initializer_range)
    for head in HEADS:
        model = head.from_pretrained(base, num_labels=3)
        assert scale(model.classifier.weight.detach()) == pytest.approx(initializer_range, **CLOSE)
        assert (model.classifier.bias == 0).all()
        model.resize_token_embeddings(163, mean_resizing=False)
        assert scale(new_rows(model)) == pytest.approx(initializer_range, **CLOSE)


CASES = {
    "new head": ({}, "sst2"),
    "multiple choice": ({}, "story_cloze"),
    "similarity": ({}, "mrpc"),
    "bins": ({}, "stsb"),
    "LoRA": ({"peft": "lora"}, "sst2"),
    "from scratch": ({"from_scratch": True}, "sst2"),
    "layers": ({"transfer_layers": 1}, "sst2"),
}


@pytest.mark.parametrize("case", CASES)
def test_fine_tuning_starts_from_the_models_scale(case, make_base, tmp_path):
    (settings, task), initializer_range = CASES[case], 0.06
    base = make_base(initializer_range)
    is_lstm = open_config(base).model_type == "gpt1_lstm"
    if settings.get("peft") and (is_lstm or importlib.util.find_spec("peft") is None):
        pytest.skip("LoRA needs PEFT and a GPT-1")
    frozen = {"max_steps": 1, "learning_rate": 0.0, "max_train_examples": 4, "max_length": 16}
    finetune(finetune_arguments(base, tmp_path, task=task, **frozen, **settings))
    run = str(tmp_path / "run")
    head = AutoModelForMultipleChoice if task == "story_cloze" else AutoModelForSequenceClassification
    model = open_model(head, run, open_config(run))
    assert scale(model.classifier.weight.detach()) == pytest.approx(initializer_range, **CLOSE)
    assert scale(new_rows(model)) == pytest.approx(initializer_range, **CLOSE)
    old = AutoModelForCausalLM.from_pretrained(base)
    for number, (block, old_block) in enumerate(zip(model.base_model.h, old.base_model.h, strict=True)):
        is_new = "from_scratch" in settings or number >= settings.get("transfer_layers", 2)
        for name, weight in block.named_parameters():
            if weight.dim() == 2 and is_new:
                assert scale(weight.detach()) == pytest.approx(initializer_range, **CLOSE), name
            elif not is_new:
                assert torch.equal(weight, old_block.get_parameter(name)), name


@pytest.mark.parametrize("task", ["cola", "mnli", "stsb", "story_cloze"])  # as many labels as sst2, others, one
def test_an_earlier_head_is_replaced_and_earlier_rows_stay(task, make_base, tmp_path):
    base, first = make_base(0.06), str(tmp_path / "first")
    frozen = {"max_steps": 1, "learning_rate": 0.0, "max_train_examples": 4, "max_length": 16}
    finetune(finetune_arguments(base, tmp_path, task="sst2", output_dir=first, **frozen))
    earlier = AutoModelForSequenceClassification.from_pretrained(first)
    randomize(earlier).save_pretrained(first)
    finetune(finetune_arguments(first, tmp_path, task=task, seed=7, **frozen))
    head = AutoModelForMultipleChoice if task == "story_cloze" else AutoModelForSequenceClassification
    model = head.from_pretrained(tmp_path / "run")
    assert scale(model.classifier.weight.detach()) == pytest.approx(0.06, **CLOSE)
    assert (model.classifier.bias == 0).all()
    assert torch.equal(new_rows(model), new_rows(earlier))
