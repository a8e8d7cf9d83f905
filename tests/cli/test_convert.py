"""`gpt1 convert`: its output and its errors."""

import os

import pytest
from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

from gpt1_hf import GPT1ForCausalLM
from gpt1_hf.cli import main


def test_a_model_converts_there_and_back(base_model, tmp_path, capsys):
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    assert main(["convert", base_model, "--to", "openai-gpt", "--output_dir", str(theirs)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"0.0 M parameters saved in {theirs}"
    assert lines[1].startswith("largest difference from the source's logits: ")
    assert float(lines[1].split()[-1]) < 1e-10
    assert len(lines) == 2
    OpenAIGPTLMHeadModel.from_pretrained(theirs)
    assert main(["convert", str(theirs), "--output_dir", str(ours)]) == 0
    before, after = (GPT1ForCausalLM.from_pretrained(folder).state_dict() for folder in (base_model, ours))
    assert all(before[name].equal(after[name]) for name in before)


def test_a_missing_tokenizer_is_reported(tmp_path, capsys):
    config = OpenAIGPTConfig(vocab_size=10, n_embd=8, n_layer=1, n_head=1)
    OpenAIGPTLMHeadModel(config).save_pretrained(tmp_path / "theirs")
    assert main(["convert", str(tmp_path / "theirs"), "--output_dir", str(tmp_path / "ours")]) == 0
    assert "no tokenizer: convert OpenAI's vocabulary with `gpt1 tokenizer convert`" in capsys.readouterr().out


def test_a_failure_gives_one_sentence_and_leaves_no_files(base_model, tmp_path, capsys):
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "params_shapes.json").write_text("[]")
    cases = {
        "can be converted to openai-gpt": base_model,
        "params_shapes.json does not list": str(tmp_path / "release"),
        "someone/some-model is neither": "someone/some-model",
    }
    for message, source in cases.items():
        assert main(["convert", source, "--output_dir", str(tmp_path / "out")]) == 1
        error = capsys.readouterr().err
        assert error.startswith("gpt1: error: ") and error.count("\n") == 1 and message in error
    assert os.listdir(tmp_path) == ["release"]
    with pytest.raises(SystemExit):
        main(["convert", base_model])
