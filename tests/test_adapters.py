"""LoRA: the special tokens and every head are trained, saved and loaded; merging changes nothing."""

import copy
import importlib.util
import json

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification, PeftModel, get_peft_model
from safetensors.torch import load_file

from gpt1_hf import (
    GPT1ForCausalLM,
    GPT1ForMultipleChoice,
    GPT1ForSequenceClassification,
    GPT1ForTokenClassification,
    GPT1LSTMConfig,
    GPT1LSTMForSequenceClassification,
    GPT1Processor,
    GPT1Tokenizer,
)
from gpt1_hf.adapters import lora_config
from gpt1_hf.checkpoints import open_config, open_model
from gpt1_hf.errors import GPT1Error
from gpt1_hf.evaluation.benchmark import EvaluateArguments, auto_class, evaluate
from gpt1_hf.tasks import load_task
from gpt1_hf.training.arguments import FinetuneArguments
from gpt1_hf.training.finetune import finetune


HEADS = {
    GPT1ForCausalLM: (None, (2, 8)),
    GPT1ForSequenceClassification: (torch.tensor([0, 1]), (2, 8)),
    GPT1ForMultipleChoice: (torch.tensor([0, 1]), (2, 3, 8)),
    GPT1ForTokenClassification: (torch.zeros(2, 8, dtype=torch.long), (2, 8)),
}


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.__name__)
def test_every_head_trains_saves_loads_and_merges(head, config, tokenizer, tmp_path):
    torch.manual_seed(0)
    processor = GPT1Processor(tokenizer)
    extended = processor.tokenizer
    specials = [extended.bos_token_id, extended.sep_token_id, extended.cls_token_id]
    base = head(config)
    base.resize_token_embeddings(len(extended), mean_resizing=False)
    untouched = copy.deepcopy(base)
    model = get_peft_model(base, lora_config(base, extended, dropout=0.0))
    labels, shape = HEADS[head]
    ids = torch.randint(5, len(tokenizer), shape)
    ids[..., 0], ids[..., 4], ids[..., -1] = specials
    batch = {"input_ids": ids, "labels": ids if labels is None else labels}

    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in trainable.items()}
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.SGD(trainable.values(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    for name, parameter in trainable.items():
        assert not torch.equal(parameter, before[name]), name
    assert all(torch.equal(p, frozen[name]) for name, p in model.named_parameters() if name in frozen)
    n_layers = config.num_hidden_layers
    for part, n_tensors in {"q_proj.lora_": 2 * n_layers, "up_proj.lora_": 2 * n_layers, "token_adapter": 1}.items():
        assert sum(part in name for name in trainable) == n_tensors, part
    assert sum("classifier" in name for name in trainable) == (0 if head is GPT1ForCausalLM else 2)

    model.eval()
    with torch.no_grad():
        expected = model(**batch)
        model.save_pretrained(tmp_path, save_embedding_layers=False)
        size = sum(tensor.numel() for tensor in load_file(tmp_path / "adapter_model.safetensors").values())
        assert size == sum(parameter.numel() for parameter in trainable.values())

        loaded = PeftModel.from_pretrained(untouched, tmp_path).eval()
        assert torch.allclose(loaded(**batch).logits, expected.logits, atol=1e-6)
        merged = loaded.merge_and_unload()
        assert type(merged) is head
        found = merged(**batch)
        assert torch.allclose(found.logits, expected.logits, atol=1e-5)
        assert torch.allclose(found.loss, expected.loss, atol=1e-5)


def arguments(base_model, tmp_path, **changes):
    defaults = {
        "model": base_model,
        "sample": True,
        "output_dir": str(tmp_path / "run"),
        "max_train_examples": 16,
        "num_train_epochs": 1,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "peft": "lora",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return FinetuneArguments(**{**defaults, **changes})


@pytest.mark.parametrize("task_id", ["sst2", "stsb", "story_cloze"])
def test_finetune_evaluate_and_reload(task_id, base_model, tmp_path):
    run, task = tmp_path / "run", load_task(task_id)
    results = finetune(arguments(base_model, tmp_path, task=task_id))
    assert results[0].details["peft"] == "lora"
    assert not (run / "model.safetensors").exists()
    assert not (run / "README.md").exists()
    weights = load_file(run / "adapter_model.safetensors")
    rows = next(tensor for name, tensor in weights.items() if "trainable_tokens" in name)
    assert rows.shape == (3, 32)
    assert results[0].details["n_trained_parameters"] == sum(tensor.numel() for tensor in weights.values())

    again = evaluate(EvaluateArguments(model=str(run), task=task_id, sample=True, output_dir=str(tmp_path / "eval")))
    assert [(r.metric, r.split, r.value) for r in again if r.split == results[0].split] == [
        (r.metric, r.split, r.value) for r in results if r.split == results[0].split
    ]

    # With PEFT's own tools, over the base model as it is on disk.
    processor = GPT1Processor.from_pretrained(run)
    model = open_model(auto_class(task), str(run), open_config(str(run)))
    if task_id == "sst2":
        plain = AutoPeftModelForSequenceClassification.from_pretrained(run, num_labels=2)
        ids = processor({"text": "A kind captain smiled."}, return_tensors="pt")
        with torch.no_grad():
            assert torch.allclose(plain.eval()(**ids).logits, model.eval()(**ids).logits, atol=1e-5)


def test_checkpoints_of_adapters_resume(base_model, tmp_path):
    changes = {"task": "cola", "save_strategy": "steps", "save_steps": 2, "max_steps": 4, "lora_dropout": 0.0}
    whole = arguments(base_model, tmp_path / "whole", **changes)
    finetune(whole)
    resumed = arguments(
        base_model, tmp_path / "resumed", resume_from_checkpoint=f"{whole.output_dir}/checkpoint-2", **changes
    )
    finetune(resumed)
    one, two = (load_file(f"{args.output_dir}/adapter_model.safetensors") for args in (whole, resumed))
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)


def test_bad_input_is_named(base_model, config, tokenizer, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="peft is lora or nothing, not 'dora'"):
        arguments(base_model, tmp_path, peft="dora")
    with pytest.raises(ValueError, match="from_scratch"):
        arguments(base_model, tmp_path, from_scratch=True)
    lstm = GPT1LSTMForSequenceClassification(GPT1LSTMConfig(vocab_size=20, hidden_size=16, lstm_size=16))
    with pytest.raises(GPT1Error, match="GPT1LSTMForSequenceClassification has none"):
        lora_config(lstm)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else find_spec(name))
    with pytest.raises(GPT1Error, match=r"pip install 'gpt1_hf\[peft\]'"):
        finetune(arguments(base_model, tmp_path, task="cola"))


def test_without_special_tokens_no_row_is_trained(config, tokenizer):
    assert isinstance(tokenizer, GPT1Tokenizer)
    adapted = lora_config(GPT1ForCausalLM(config), tokenizer)
    assert adapted.trainable_token_indices is None
    assert adapted.modules_to_save is None
    assert adapted.task_type == "CAUSAL_LM"
    assert json.dumps(sorted(adapted.target_modules))
