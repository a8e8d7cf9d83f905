"""`gpt1 quantize`: 8-bit weights are saved as safetensors and load again, and the loss in quality is reported."""

import importlib.util
import json
import os

import pytest
import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForMultipleChoice, AutoModelForSequenceClassification

from gpt1_hf import (
    GPT1ForCausalLM,
    GPT1ForMultipleChoice,
    GPT1ForSequenceClassification,
    GPT1LSTMConfig,
    GPT1LSTMForCausalLM,
    GPT1Processor,
)
from gpt1_hf.checkpoints import quantization as quantization_module
from gpt1_hf.checkpoints.loading import open_causal_lm, open_config, open_model
from gpt1_hf.checkpoints.quantization import quantize
from gpt1_hf.cli import main
from gpt1_hf.errors import GPT1Error
from gpt1_hf.evaluation.evaluate import EvaluateArguments, compute_results, first_characters


needs_torchao = pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="needs the extra quantize")
PROJECTIONS = ["attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.o_proj", "mlp.up_proj", "mlp.down_proj"]


@pytest.fixture
def classifier(base_model, tokenizer, tmp_path) -> str:
    """A model of two classes that looks fine-tuned."""
    torch.manual_seed(0)
    processor = GPT1Processor(tokenizer, input_format="classification")
    names = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    model = GPT1ForSequenceClassification.from_pretrained(base_model, dtype="float32", num_labels=2, **names)
    model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    model.save_pretrained(tmp_path / "classifier")
    processor.save_pretrained(tmp_path / "classifier")
    return str(tmp_path / "classifier")


def rounded(model):
    """
    A model with its blocks' projections rounded by hand: 127 steps up to each row's largest value, of either sign.
    """
    with torch.no_grad():
        for name, module in model.named_modules():
            if name.endswith(tuple(PROJECTIONS)):
                step = module.weight.abs().amax(1, keepdim=True) / 127.5
                module.weight.copy_((module.weight / step).round().clamp(-128, 127) * step)
    return model.eval()


@needs_torchao
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_quantized_model_is_the_rounded_one(base_model, tokenizer, tmp_path, dtype):
    source, folder = tmp_path / "source", tmp_path / "out"
    model = GPT1ForCausalLM.from_pretrained(base_model, dtype=dtype)
    model.save_pretrained(source)
    tokenizer.save_pretrained(source)
    quantize(str(source), folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert loaded.dtype == getattr(torch, dtype) and loaded.lm_head.weight is loaded.get_input_embeddings().weight
    for block in loaded.transformer.h:
        assert all(type(block.get_submodule(name).weight).__name__ == "Int8Tensor" for name in PROJECTIONS)
    assert type(loaded.lm_head.weight) is nn.Parameter

    wide = open_causal_lm(str(folder))  # in fp32, as `gpt1 evaluate` reads it
    ids = torch.randint(1, 99, (3, 20))
    plain = GPT1ForCausalLM.from_pretrained(source, dtype="float32").eval()
    with torch.no_grad():
        exact, expected, found = plain(ids).logits, rounded(plain)(ids).logits, wide(ids).logits
    loss = (exact - expected).abs().max()
    assert 0 < (found - expected).abs().max() < loss * (0.2 if dtype == "float32" else 1.5)
    generated = loaded.generate(ids[:1], max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert generated.shape == (1, 24)


@needs_torchao
def test_nothing_is_pickled_and_the_size_is_correct(base_model, tmp_path):
    sizes = quantize(base_model, tmp_path / "out")
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        kinds = {name: file.get_tensor(name).dtype for name in file.keys()}
    integers = [name for name, kind in kinds.items() if kind == torch.int8 and name.endswith("_qdata")]
    assert len(integers) == 2 * len(PROJECTIONS)
    assert not [name for name in kinds if name.endswith("proj.weight")]
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".py", ".safetensors"}
    before, after = (os.path.getsize(f"{folder}/model.safetensors") for folder in (base_model, tmp_path / "out"))
    assert sizes == (round(before / 1e6, 3), round(after / 1e6, 3)) and after < before


@needs_torchao
def test_heads(base_model, classifier, tokenizer, tmp_path):
    quantize(classifier, tmp_path / "out")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    exact = AutoModelForSequenceClassification.from_pretrained(classifier)
    assert loaded.classifier.weight.equal(exact.classifier.weight)
    assert type(loaded.transformer.h[0].mlp.up_proj.weight).__name__ == "Int8Tensor"
    assert GPT1Processor.from_pretrained(tmp_path / "out").input_format == "classification"

    GPT1ForMultipleChoice.from_pretrained(base_model, dtype="float32").save_pretrained(tmp_path / "choices")
    tokenizer.save_pretrained(tmp_path / "choices")
    quantize(str(tmp_path / "choices"), tmp_path / "choices-out")
    model = AutoModelForMultipleChoice.from_pretrained(tmp_path / "choices-out")
    assert model(torch.randint(1, 99, (2, 3, 5))).logits.shape == (2, 3)


@needs_torchao
def test_the_loss_in_quality_is_measured_as_by_evaluate(base_model, classifier, texts, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(texts), encoding="utf-8")
    out = tmp_path / "out"
    argv = ["quantize", base_model, "--output_dir", str(out), "--text_file", str(text), "--max_characters", "900"]
    assert main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["task", "split", "rows", "metric", "before", "int8", "change"]
    rows = json.loads((out / "results.json").read_text())
    assert [row["metric"] for row in rows] == ["megabytes", "perplexity", "bits_per_character"]
    scored = EvaluateArguments(text_file=str(text), max_characters=900, output_dir=str(tmp_path / "scores"))
    for index, model in (("before", base_model), ("value", str(out))):
        scored.model = model
        expected = [result.value for result in compute_results(scored)]
        assert [row["details"]["before"] if index == "before" else row["value"] for row in rows[1:]] == expected
    assert all(row["model"] == str(out) and row["details"]["of"] == base_model for row in rows)

    argv = ["quantize", classifier, "--output_dir", str(tmp_path / "tasks"), "--task", "sst2", "--sample"]
    assert main(argv) == 0
    size, accuracy = json.loads((tmp_path / "tasks" / "results.json").read_text())
    assert (accuracy["task"], accuracy["metric"]) == ("sst2", "accuracy") and 0 <= accuracy["value"] <= 100
    argv = ["evaluate", "--model", str(tmp_path / "tasks"), "--task", "sst2", "--sample", "--output_dir", str(out)]
    assert main(argv) == 0
    assert json.loads((out / "results.json").read_text())[0]["value"] == accuracy["value"]
    assert f"{accuracy['value']:.4f}" in capsys.readouterr().out


def test_the_first_characters_of_a_text():
    assert first_characters(["abc", "def", "g"], None) == ["abc", "def", "g"]
    assert first_characters(["abc", "def", "g"], 5) == ["abc", "de"]
    assert first_characters(["abc", "def"], 3) == ["abc"]


@needs_torchao
def test_a_model_that_loads_differently_is_not_kept(base_model, tmp_path, monkeypatch):
    def wrong(*args, **kwargs):
        model = open_model(*args, **kwargs)
        if kwargs.get("exact"):
            with torch.no_grad():
                model.get_input_embeddings().weight[3] += 1
        return model

    monkeypatch.setattr(quantization_module, "open_model", wrong)
    with pytest.raises(GPT1Error, match="nothing was saved"):
        quantize(base_model, tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_failure_is_one_sentence_and_leaves_nothing(base_model, tmp_path, monkeypatch, capsys):
    lstm = tmp_path / "lstm"
    GPT1LSTMForCausalLM(GPT1LSTMConfig(vocab_size=9, hidden_size=8, lstm_size=8)).save_pretrained(lstm)
    quantized = tmp_path / "quantized"
    config = open_config(base_model)
    config.quantization_config = {"quant_method": "torchao"}
    config.save_pretrained(quantized)
    spec = importlib.util.spec_from_loader("torchao", None)
    find_spec = importlib.util.find_spec
    capsys.readouterr()
    for found, cases in (
        (
            spec,
            {
                "is an LSTM": str(lstm),
                "is already quantized": str(quantized),
                "someone/some-model": "someone/some-model",
            },
        ),
        (None, {"pip install 'gpt1_hf[quantize]'": base_model}),
    ):
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, f=found: f if name == "torchao" else find_spec(name)
        )
        for message, model in cases.items():
            assert main(["quantize", model, "--output_dir", str(tmp_path / "out")]) == 1
            error = capsys.readouterr().err
            assert error.startswith("gpt1: error: ") and error.count("\n") == 1 and message in error
    # torchao is still missing
    with pytest.raises(GPT1Error, match=r"is quantized .*gpt1_hf\[quantize\]"):
        open_model(GPT1ForCausalLM, str(quantized), open_config(str(quantized)))
    assert sorted(os.listdir(tmp_path)) == ["lstm", "quantized"]
