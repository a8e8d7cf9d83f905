"""`gpt1 export --weights int8`: the weights are the rounded ones, and the program is scored like its model."""

import importlib.util
import json
import logging
import os
import re

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers.exporters import ExportedModel

from gpt1_hf import (
    GPT1ForCausalLM,
    GPT1ForMultipleChoice,
    GPT1ForSequenceClassification,
    GPT1ForTokenClassification,
    GPT1Processor,
)
from gpt1_hf.checkpoints import export as export_module
from gpt1_hf.checkpoints.export import Cases, export
from gpt1_hf.cli import main
from gpt1_hf.errors import GPT1Error, UsageError
from gpt1_hf.evaluation.evaluate import EvaluateArguments, compute_results
from gpt1_hf.evaluation.program import ScoredProgram
from gpt1_hf.evaluation.quantization_cost import export_and_score
from gpt1_hf.evaluation.task_scores import row_logits


has_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in export_module.ONNX_LIBRARIES), reason="needs the extra onnx"
)


def integer_products(folder) -> tuple[list[torch.Tensor], list[tuple[int, ...]]]:
    """Weights `(out, in)` of the products of integers, and the shapes of all other matrices."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(folder / "model.onnx").graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights, all_scales = [], set()
    for node in graph.node:
        if node.op_type == "MatMulNBits":
            facts = {attribute.name: attribute.i for attribute in node.attribute}
            assert (facts["bits"], facts["accuracy_level"]) == (8, 4) and len(node.input) == 3
            all_scales.add(node.input[2])
            integers, scales = (tensors[name] for name in node.input[1:3])
            assert integers.dtype == np.uint8
            blocks = (integers.astype(np.float32) - 128) * scales.reshape(*integers.shape[:2], 1)
            weights.append(torch.from_numpy(blocks.reshape(facts["N"], -1)[:, : facts["K"]]))
    matrices = [own.shape for name, own in tensors.items() if own.ndim == 2 and name not in all_scales]
    return weights, matrices


@has_onnx
def test_a_language_model(base_model, texts, tmp_path, capsys):
    text, out = tmp_path / "text.txt", tmp_path / "out"
    text.write_text("\n".join(texts), encoding="utf-8")
    root = logging.getLogger()
    before = root.handlers[:], root.level
    argv = ["export", base_model, "--weights", "int8", "--use_cache", "--output_dir", str(out)]
    assert main([*argv, "--text_file", str(text), "--max_characters", "900"]) == 0
    assert (root.handlers, root.level) == before

    # The weights are the model's, rounded: within half a step of the block's scale, or one at the end of its range.
    model = GPT1ForCausalLM.from_pretrained(base_model, dtype="float32").eval()
    linear = [module.weight for module in model.modules() if isinstance(module, torch.nn.Linear)]
    weights, matrices = integer_products(out)
    assert sorted(tuple(own.shape) for own in weights) == sorted(tuple(own.shape) for own in linear)
    for rounded in weights:
        errors = [(own - rounded).abs().max() for own in linear if own.shape == rounded.shape]
        assert 0 < min(errors) <= rounded.abs().max() / 127
    # Only the embeddings are fp32, the token embeddings beside their int8 copy in the LM head.
    embeddings = model.transformer.tokens_embed.weight, model.transformer.positions_embed.weight
    assert sorted(matrices) == sorted(tuple(own.shape) for own in embeddings)

    # It loads and continues a text like the fp32 program: with keys and values of earlier tokens.
    program = ExportedModel.from_pretrained(out)
    ids = torch.randint(1, 99, (2, 20))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "position_ids": torch.arange(20).expand(2, 20)}
    with torch.no_grad():
        expected = model(ids).logits
    cases = Cases(model, None, use_cache=True)
    for cuts in ((0, 20), (0, 7, 19, 20)):
        found, _ = cases._run(program, inputs, cuts)
        assert 0 < (found - expected).abs().max() < 0.05 * expected.abs().max()

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("attention_mask, position_ids, cache") and lines[0].startswith("GPT1ForCausalLM saved in")
    difference, share, in_fp32 = re.search(
        r"largest .* comparisons: (\S+), (\S+) % of the largest logit, and (\S+) in fp32$", lines[1]
    ).groups()
    assert float(in_fp32) < 1e-4 < float(difference) and 0 < float(share) < 5
    assert lines[2].split() == ["task", "split", "rows", "metric", "before", "int8", "change"]
    size, perplexity, bits = json.loads((out / "results.json").read_text())
    assert size["metric"] == "megabytes" and size["value"] < size["details"]["before"]
    files = sum(os.path.getsize(out / name) for name in ("model.onnx", "model.onnx.data"))
    assert size["value"] == round(files / 1e6, 3)
    scored = EvaluateArguments(
        model=base_model, text_file=str(text), max_characters=900, output_dir=str(tmp_path / "x")
    )
    assert [row["details"]["before"] for row in (perplexity, bits)] == [row.value for row in compute_results(scored)]
    assert perplexity["value"] == pytest.approx(perplexity["details"]["before"], rel=0.02)
    assert bits["details"]["precision"] == "fp32, quantized weights" and bits["model"] == str(out)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(export_module.TOLERANCE, "int8", 1e-9)
        with pytest.raises(GPT1Error, match="nothing was saved"):
            export_module._check(out, cases, base_model, "int8")


@has_onnx
@pytest.mark.slow
def test_a_classifier_stays_in_fp32(base_model, tokenizer, tmp_path):
    torch.manual_seed(0)
    for head in (GPT1ForTokenClassification, GPT1ForSequenceClassification, GPT1ForMultipleChoice):
        folder, out = tmp_path / head.__name__, tmp_path / f"{head.__name__}-out"
        labels = {} if head is GPT1ForMultipleChoice else {"num_labels": 3}
        model = head.from_pretrained(base_model, dtype="float32", **labels).eval()
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        result = export(str(folder), out, weights="int8")
        assert 0 < 10 * result.fp32_difference < result.difference and result.relative_difference < 0.1
        assert result.megabytes < result.fp32_megabytes
        weights, matrices = integer_products(out)
        assert len(weights) == 2 * 6
        assert any(3 in shape or 1 in shape for shape in matrices)


def test_a_program_is_scored_like_its_model(base_model, tokenizer, texts, tmp_path, capsys):
    """In fp32 and without onnxruntime: a text, a task, and choices, whose common beginning a program repeats."""
    text = tmp_path / "text.txt"
    text.write_text("\n".join(texts), encoding="utf-8")
    for use_cache in (False, True):
        evaluation = EvaluateArguments(text_file=str(text), max_characters=900, output_dir=str(tmp_path / "x"))
        _, found = export_and_score(
            base_model, tmp_path / f"lm-{use_cache}", "torch_export", use_cache, evaluation=evaluation
        )
        assert [row.metric for row in found] == ["perplexity", "bits_per_character"]
        assert all(row.value == pytest.approx(row.details["before"], rel=1e-4) for row in found)
        assert found[0].details["precision"] == "fp32" and "quantization" not in found[0].details

    torch.manual_seed(0)
    processor = GPT1Processor(tokenizer, input_format="multiple_choice")
    model = GPT1ForMultipleChoice.from_pretrained(base_model, dtype="float32").eval()
    model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    model.save_pretrained(tmp_path / "choices")
    processor.save_pretrained(tmp_path / "choices")
    export(str(tmp_path / "choices"), tmp_path / "choices-out", "torch_export")
    rows = [[[5, 6, 7, 8, own] for own in (9, 10)], [[5, 6, 11, own, own] for own in (12, 13)]]
    encoded = Dataset.from_dict({"input_ids": rows})
    with torch.no_grad():
        expected = row_logits(model, processor, encoded, 2)
        found = row_logits(ScoredProgram(tmp_path / "choices-out", "fp32"), processor, encoded, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_wrong_call_is_one_sentence(base_model, tmp_path, capsys):
    for argv, message in (
        (["--weights", "int8", "--format", "torch_export"], "--format torch_export has no int8 weights"),
        (["--sample"], "--split and --sample select what to score"),
    ):
        assert main(["export", base_model, *argv, "--output_dir", str(tmp_path / "new")]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    with pytest.raises(UsageError, match="the format torch_export has no int8 weights"):
        export(base_model, tmp_path / "new", "torch_export", weights="int8")
    with pytest.raises(GPT1Error, match="unknown type of weights 'int4': choose one of fp32, int8"):
        export(base_model, tmp_path / "new", weights="int4")
    assert os.listdir(tmp_path) == []
