"""`gpt1 export`: the programs alone give the model's outputs, and a failed export leaves nothing behind."""

import importlib.util
import io
import json
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.exporters import ExportedModel

import gpt1_hf
from gpt1_hf import (
    GPT1ForMultipleChoice,
    GPT1ForSequenceClassification,
    GPT1ForTokenClassification,
    GPT1LSTMConfig,
    GPT1LSTMForCausalLM,
    GPT1Processor,
)
from gpt1_hf.checkpoints import export as export_module
from gpt1_hf.checkpoints.export import export
from gpt1_hf.cli import main
from gpt1_hf.errors import GPT1Error
from gpt1_hf.modeling_gpt1_heads import CACHE


has_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in export_module.ONNX_LIBRARIES), reason="needs the extra onnx"
)
FORMATS = [pytest.param("torch_export"), pytest.param("onnx", marks=[has_onnx, pytest.mark.slow])]


@pytest.fixture
def classifier(base_model, tokenizer, tmp_path) -> str:
    """An untrained model that looks fine-tuned."""
    torch.manual_seed(0)
    processor = GPT1Processor(tokenizer, input_format="similarity")
    model = GPT1ForSequenceClassification.from_pretrained(base_model, dtype="float32", num_labels=3)
    model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    model.save_pretrained(tmp_path / "classifier")
    processor.save_pretrained(tmp_path / "classifier")
    return str(tmp_path / "classifier")


@pytest.mark.parametrize("format", FORMATS)
def test_a_language_model_with_padding(base_model, tmp_path, format):
    result = export(base_model, tmp_path / "out", format)
    assert (result.architecture, result.inputs) == ("GPT1ForCausalLM", ["input_ids", "attention_mask"])
    assert result.n_cases == 6 and result.difference < 1e-4
    program, model = (
        ExportedModel.from_pretrained(tmp_path / "out", trust_remote_code=True),
        AutoModelForCausalLM.from_pretrained(base_model),
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    texts = ["the old captain", "a", "night and morning in the garden"]
    for side in ("right", "left"):
        inputs = tokenizer(texts, padding=True, padding_side=side, return_tensors="pt")
        found = program(**inputs).logits
        for row, mask, logits in zip(inputs["input_ids"], inputs["attention_mask"].bool(), found, strict=True):
            with torch.no_grad():
                torch.testing.assert_close(logits[mask], model(row[mask][None]).logits[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("format", FORMATS)
def test_a_language_model_with_a_cache_continues_a_text(base_model, tmp_path, format):
    assert export(base_model, tmp_path / "out", format, use_cache=True).inputs[-1] == "cache"
    program, model = (
        ExportedModel.from_pretrained(tmp_path / "out", trust_remote_code=True),
        AutoModelForCausalLM.from_pretrained(base_model),
    )
    prompt = torch.tensor([[5, 6, 7]])
    expected = model.generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=0)[0].tolist()
    empty = torch.zeros(1, 4, 0, 8)
    cache = getattr(model(prompt[:, :1], use_cache=True), CACHE)
    for layer in cache.layers:
        layer.keys, layer.values = empty.clone(), empty.clone()
    ids, new = prompt, prompt
    while ids.shape[1] < len(expected):
        length = ids.shape[1]
        output = program(
            input_ids=new,
            attention_mask=torch.ones(1, length, dtype=torch.long),
            position_ids=torch.arange(length - new.shape[1], length)[None],
            cache=cache,
        )
        cache, new = getattr(output, CACHE), output.logits[:, -1:].argmax(-1)
        ids = torch.cat([ids, new], dim=1)
    assert ids[0].tolist() == expected


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_heads(base_model, classifier, tokenizer, tmp_path, format):
    torch.manual_seed(0)
    for head in (GPT1ForMultipleChoice, GPT1ForTokenClassification):
        folder = tmp_path / head.__name__
        model = head.from_pretrained(base_model, dtype="float32").eval()
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        assert export(str(folder), tmp_path / f"{head.__name__}-out", format).difference < 1e-4
    choices = ExportedModel.from_pretrained(tmp_path / "GPT1ForMultipleChoice-out", trust_remote_code=True)
    model = GPT1ForMultipleChoice.from_pretrained(tmp_path / "GPT1ForMultipleChoice")
    for shape in ((1, 2, 9), (3, 5, 1)):
        ids = torch.randint(1, 99, shape)
        with torch.no_grad():
            expected = model(ids, attention_mask=torch.ones_like(ids)).logits
        torch.testing.assert_close(choices(input_ids=ids, attention_mask=torch.ones_like(ids)).logits, expected)

    # Both orders of a pair, built by the processor beside the program
    export(classifier, tmp_path / "out", format)
    reader = GPT1Processor.from_pretrained(tmp_path / "out")
    program = ExportedModel.from_pretrained(tmp_path / "out", trust_remote_code=True)
    model = AutoModelForSequenceClassification.from_pretrained(classifier)
    pairs = [("the lady wept", "bad"), ("night", "the house"), ("a dark night", "never")]
    with torch.no_grad():
        alone = [model(**reader(text_a=[a], text_b=[b], padding=True, return_tensors="pt")).logits for a, b in pairs]
    for side in ("right", "left"):
        reader.tokenizer.padding_side = side
        firsts, seconds = map(list, zip(*pairs, strict=True))
        rows = reader(text_a=firsts, text_b=seconds, padding=True, return_tensors="pt")
        assert rows["input_ids"].dim() == 3 and not rows["attention_mask"].all()
        torch.testing.assert_close(program(**rows).logits, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_a_pt2_file_holds_no_pickle(base_model, tmp_path):
    for use_cache in (False, True):
        folder = tmp_path / str(use_cache)
        export(base_model, folder, "torch_export", use_cache)
        with zipfile.ZipFile(folder / "model.pt2") as archive:
            content = {name: archive.read(name) for name in archive.namelist()}
        assert not [name for name in content if name.endswith(".pkl")]
        for name, data in content.items():
            assert not zipfile.is_zipfile(io.BytesIO(data)), name  # as torch.save writes
            if "/data/" in name and name.endswith(".json"):
                assert not any(entry["use_pickle"] for entry in json.loads(data)["config"].values())
        assert not any(path.suffix in (".bin", ".pt", ".pkl") for path in folder.iterdir())


@pytest.mark.parametrize("format", FORMATS)
def test_a_program_names_no_folder_of_this_computer(base_model, tmp_path, format):
    export(base_model, tmp_path / "out", format)
    (file,) = [file for file in (tmp_path / "out").iterdir() if file.suffix in (".onnx", ".pt2")]
    if format == "onnx":
        content = file.read_bytes()
    else:
        with zipfile.ZipFile(file) as archive:
            content = b"".join(archive.read(name) for name in archive.namelist() if name.endswith(".json"))
    assert b"gpt1" in content.lower()  # the content is readable
    assert b"site-packages" not in content and str(Path(gpt1_hf.__file__).parent).encode() not in content


def test_a_program_with_different_outputs_is_not_kept(base_model, tmp_path, monkeypatch):
    trace = export_module._trace

    def wrong(model, cases, format):
        exported = trace(model, cases, format)
        # A new tensor: the program holds the old one.
        model.transformer.positions_embed.weight = torch.nn.Parameter(model.transformer.positions_embed.weight + 0.1)
        return exported

    monkeypatch.setattr(export_module, "_trace", wrong)
    with pytest.raises(GPT1Error, match="differ from those of .* nothing was saved"):
        export(base_model, tmp_path / "out", "torch_export")
    assert os.listdir(tmp_path) == []


def test_command_line(base_model, classifier, tmp_path, capsys, monkeypatch):
    assert main(["export", base_model, "--format", "torch_export", "--output_dir", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("GPT1ForCausalLM saved in ") and lines[0].endswith("input_ids, attention_mask")
    assert float(lines[1].split()[-1]) < 1e-4 and len(lines) == 2

    lstm = tmp_path / "lstm"
    GPT1LSTMForCausalLM(GPT1LSTMConfig(vocab_size=9, hidden_size=8, lstm_size=8)).save_pretrained(lstm)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find_spec(name))
    before = sorted(os.listdir(tmp_path))
    for message, argv in {
        "is an LSTM": [str(lstm), "--format", "torch_export"],
        "pip install 'gpt1_hf[onnx]'": [base_model, "--format", "onnx"],
        "only language models export a cache": [classifier, "--format", "torch_export", "--use_cache"],
        "someone/some-model": ["someone/some-model", "--format", "torch_export"],
    }.items():
        assert main(["export", *argv, "--output_dir", str(tmp_path / "new")]) == 1
        error = capsys.readouterr().err
        assert error.startswith("gpt1: error: ") and error.count("\n") == 1 and message in error
    assert main(["export", base_model, "--format", "torch_export", "--output_dir", str(tmp_path / "out")]) == 1
    assert "is not an empty folder" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == before


@has_onnx
@pytest.mark.slow
def test_onnxruntime_alone_as_in_the_readme(tmp_path, monkeypatch, capsys):
    """The script in the package's README gives the model's own results."""
    readme = (Path(__file__).resolve().parents[2] / "gpt1_hf" / "README.md").read_text(encoding="utf-8")
    (script,) = [script for script in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "onnxruntime" in script]
    monkeypatch.chdir(tmp_path)
    assert main(["export", "gpt1-tiny", "--output_dir", "runs/onnx"]) == 0
    names: dict = {}
    exec(compile(script, "README.md", "exec"), names)
    model = AutoModelForCausalLM.from_pretrained(export_module.model_path("gpt1-tiny"), dtype="float32")
    inputs = names["tokenizer"](names["texts"], padding=True, return_tensors="pt")
    last = inputs["attention_mask"].sum(-1) - 1
    with torch.no_grad():
        expected = model(**inputs).logits[torch.arange(len(last)), last].argmax(-1)
    assert np.array_equal(names["best"], expected.numpy())
