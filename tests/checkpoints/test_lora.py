"""LoRA: the special tokens and every head are trained, saved and loaded; merging changes nothing."""

import copy
import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch
from helpers.hub_server import card_errors
from helpers.runs import finetune_arguments
from huggingface_hub import ModelCard
from peft import (
    AutoPeftModelForSequenceClassification,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from transformers.utils.peft_utils import ADAPTER_SAFE_WEIGHTS_NAME

from gpt1_hf import (
    GPT1ForCausalLM,
    GPT1ForMultipleChoice,
    GPT1ForSequenceClassification,
    GPT1ForTokenClassification,
    GPT1LSTMConfig,
    GPT1LSTMForSequenceClassification,
    GPT1Processor,
    GPT1Tokenizer,
    GPT1Trainer,
    GPT1TrainingArguments,
)
from gpt1_hf.checkpoints.loading import open_config, open_model
from gpt1_hf.checkpoints.lora import adapter_base, lora_config
from gpt1_hf.errors import GPT1Error
from gpt1_hf.evaluation.evaluate import EvaluateArguments, evaluate
from gpt1_hf.evaluation.task_scores import auto_class
from gpt1_hf.tasks import load_task
from gpt1_hf.training.finetune import finetune


HEADS = {
    GPT1ForCausalLM: (None, (2, 8)),
    GPT1ForSequenceClassification: (torch.tensor([0, 1]), (2, 8)),
    GPT1ForMultipleChoice: (torch.tensor([0, 1]), (2, 3, 8)),
    GPT1ForTokenClassification: (torch.zeros(2, 8, dtype=torch.long), (2, 8)),
}


@pytest.mark.parametrize("method", [PrefixTuningConfig, PromptTuningConfig, PromptEncoderConfig])
@pytest.mark.parametrize(
    ("head", "task_type"),
    [
        (GPT1ForCausalLM, "CAUSAL_LM"),
        (GPT1ForSequenceClassification, "SEQ_CLS"),
        (GPT1ForTokenClassification, "TOKEN_CLS"),
    ],
)
def test_prompt_methods_train_heads_with_one_row_per_example(head, task_type, method, config):
    """The loss is that of the virtual tokens' states before the text; each of their parameters gets a gradient."""
    torch.manual_seed(0)
    labels, shape = HEADS[head]
    ids = torch.randint(5, config.vocab_size, shape)
    mask = torch.ones_like(ids)
    mask[0, 6:] = 0
    labels = ids.masked_fill(mask == 0, -100) if labels is None else labels
    sizes = {"num_virtual_tokens": 3, "token_dim": 32, "num_layers": 2, "num_attention_heads": 4}
    model = get_peft_model(head(config), method(task_type=task_type, **sizes)).eval()
    outputs = model(input_ids=ids, attention_mask=mask, labels=labels)
    outputs.loss.backward()
    for name, parameter in model.named_parameters():
        assert not parameter.requires_grad or parameter.grad.any(), name
    logits = outputs.logits[:, -shape[1] :] if outputs.logits.dim() == 3 else outputs.logits
    if head is GPT1ForCausalLM:
        before = logits[:, :-1] if method is PrefixTuningConfig else outputs.logits[:, -shape[1] - 1 : -1]
        targets = labels[:, 1:] if method is PrefixTuningConfig else labels
        expected, found = torch.nn.functional.cross_entropy(before.flatten(0, 1), targets.flatten()), outputs.loss
    else:
        expected = torch.nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten())
        found = outputs.get("task_loss", outputs.loss)  # embeddings have no auxiliary loss
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", [PrefixTuningConfig, PromptTuningConfig, PromptEncoderConfig])
def test_prompt_methods_generate_the_predictions_for_whole_inputs(method, config):
    """PEFT reads and writes the cache under its older name."""
    torch.manual_seed(0)
    sizes = {"num_virtual_tokens": 3, "token_dim": 32, "num_layers": 2, "num_attention_heads": 4}
    model = get_peft_model(GPT1ForCausalLM(config), method(task_type="CAUSAL_LM", **sizes)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ids = torch.randint(5, config.vocab_size, (2, 6))
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    found = model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=5, do_sample=False, eos_token_id=-1, pad_token_id=0
    )
    for row, is_token, continued in zip(ids, mask.bool(), found, strict=True):
        expected = row[is_token][None]
        for _ in range(5):
            logits = model(input_ids=expected, attention_mask=torch.ones_like(expected)).logits
            expected = torch.cat([expected, logits[:, -1:].argmax(-1)], 1)
        assert continued[-5:].tolist() == expected[0, -5:].tolist()


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
    defaults = {"max_train_examples": 16, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "peft": "lora"}
    return finetune_arguments(base_model, tmp_path, **{**defaults, **changes})


@pytest.mark.parametrize("task_id", ["sst2", "stsb", "story_cloze"])
def test_finetune_evaluate_and_reload(task_id, base_model, tmp_path, capsys):
    run, task = tmp_path / "run", load_task(task_id)
    results = finetune(arguments(base_model, tmp_path, task=task_id))
    assert results[0].details["peft"] == "lora"
    assert not (run / "model.safetensors").exists()
    weights = load_file(run / "adapter_model.safetensors")
    rows = next(tensor for name, tensor in weights.items() if "trainable_tokens" in name)
    assert rows.shape == (3, 32)
    assert results[0].details["n_trained_parameters"] == sum(tensor.numel() for tensor in weights.values())

    again = evaluate(EvaluateArguments(model=str(run), task=task_id, sample=True, output_dir=str(tmp_path / "eval")))
    assert [(r.metric, r.split, r.value) for r in again if r.split == results[0].split] == [
        (r.metric, r.split, r.value) for r in results if r.split == results[0].split
    ]

    # With PEFT's own tools, on the base model from disk.
    processor = GPT1Processor.from_pretrained(run)
    model = open_model(auto_class(task), str(run), open_config(str(run)))
    if task_id == "sst2":
        plain = AutoPeftModelForSequenceClassification.from_pretrained(run, num_labels=2)
        ids = processor({"text": "A kind captain smiled."}, return_tensors="pt")
        with torch.no_grad():
            assert torch.allclose(plain.eval()(**ids).logits, model.eval()(**ids).logits, atol=1e-5)

    # The card describes this run, and its code loads the adapter, with the special tokens and the head.
    card = ModelCard.load(run / "README.md")
    assert card_errors(str(card)) == [] and "More information" not in card.content
    assert card.data.library_name == "peft" and {"gpt1", "lora", task_id} <= set(card.data.tags)
    assert card.data.base_model is None
    assert card.data.eval_results[0].metric_value == pytest.approx(results[0].value / 100)  # a fraction, as on the Hub
    assert "| lora_r | 16 |" in card.text and f"{results[0].details['n_trained_parameters']:,} parameters" in card.text
    (snippet,) = re.findall(r"```python\n(.*?)```\n", card.text, flags=re.DOTALL)
    assert 'name = "path/to/run"' in snippet and f'base = "folder/of/{Path(base_model).name}"' in snippet
    snippet = snippet.replace('"path/to/run"', repr(str(run)))
    names: dict = {}
    exec(snippet.replace(f'"folder/of/{Path(base_model).name}"', repr(base_model)), names)
    assert capsys.readouterr().out
    with torch.no_grad():
        expected = model.eval()(**names["inputs"]).logits[0]
    assert torch.allclose(names["logits"], expected, atol=1e-5)


def test_a_folder_holds_the_model_of_its_last_run(base_model, tmp_path):
    run = tmp_path / "run"
    for peft, weights in (("lora", "adapter_model.safetensors"), (None, "model.safetensors"), ("lora", None)):
        finetune(arguments(base_model, tmp_path, task="sst2", peft=peft, max_steps=1))
        assert (adapter_base(str(run)) is not None) == (peft == "lora")
        assert [path.name for path in run.glob("*.safetensors")] == [weights or "adapter_model.safetensors"]


def test_an_existing_card_is_kept(base_model, tmp_path):
    """PEFT writes into cards."""
    (tmp_path / "run").mkdir()
    card = tmp_path / "run" / "README.md"
    card.write_text("---\nlanguage: en\n---\nby hand\n")
    written = card.read_bytes()
    base = GPT1ForCausalLM.from_pretrained(base_model)
    trainer = GPT1Trainer(
        get_peft_model(base, lora_config(base)),
        GPT1TrainingArguments(str(tmp_path / "run"), report_to="none"),
        processing_class=GPT1Processor(GPT1Tokenizer.from_pretrained(base_model)),
    )
    trainer.save_model()
    assert card.read_bytes() == written
    card.unlink()
    trainer.save_model()
    assert not card.exists()
    trainer.create_model_card()
    text = card.read_text()
    assert "library_name: peft" in text and "with the head `GPT1ForCausalLM`" in text and "PeftModel" in text


def test_an_adapter_without_all_of_its_weights_is_refused(base_model, tmp_path):
    run, task = tmp_path / "run", load_task("sst2")
    finetune(arguments(base_model, tmp_path, task="sst2", max_steps=1))
    weights = load_file(run / "adapter_model.safetensors")
    for part in ("classifier", "token_adapter.trainable_tokens", "q_proj.lora_A"):
        assert any(part in name for name in weights), part
        save_file(
            {name: tensor for name, tensor in weights.items() if part not in name}, run / ADAPTER_SAFE_WEIGHTS_NAME
        )
        with pytest.raises(GPT1Error, match="lacks weights"):
            open_model(auto_class(task), str(run), open_config(str(run)))
    (run / ADAPTER_SAFE_WEIGHTS_NAME).write_bytes(b"half")
    with pytest.raises(GPT1Error, match="do not fit"):
        open_model(auto_class(task), str(run), open_config(str(run)))


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
    with pytest.raises(ValueError, match="peft must be lora, or left out, not 'dora'"):
        arguments(base_model, tmp_path, peft="dora")
    with pytest.raises(ValueError, match="from_scratch"):
        arguments(base_model, tmp_path, from_scratch=True)
    with pytest.raises(ValueError, match="output_dir is the folder of the base model"):
        arguments(base_model, tmp_path, task="cola", output_dir=f"{base_model}/.")
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
