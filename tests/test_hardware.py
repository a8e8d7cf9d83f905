"""Precision: only types that the hardware supports, and fp32 weights in all training."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, TrainingArguments

from gpt1_hf import GPT1Config, GPT1ForCausalLM, GPT1Trainer, GPT1TrainingArguments, hardware
from gpt1_hf.checkpoints.loading import new_model, open_config, open_model
from gpt1_hf.cli import main
from gpt1_hf.hardware import device_name, has_half_precision, training_dtype
from gpt1_hf.resources import model_path
from gpt1_hf.training.arguments import FinetuneArguments, PretrainArguments


CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def without_bf16(monkeypatch):
    """A CPU without bf16 instructions, as torch reports it."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(hardware.platform, "machine", lambda: "x86_64")


def test_one_variable_of_onednn_hides_the_bf16_instructions():
    ask = "hardware.has_half_precision(torch.bfloat16, torch.device('cpu'))"
    code = f"import torch; from gpt1_hf import hardware; print({ask})"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "False"


def test_a_requested_type_is_used_where_the_device_supports_it(without_bf16):
    assert not has_half_precision(torch.bfloat16, CPU) and not has_half_precision(torch.float16, CPU)
    assert has_half_precision(torch.bfloat16, GPU) and has_half_precision(torch.float16, GPU)
    assert training_dtype(True, False, CPU) == training_dtype(False, True, CPU) == torch.float32
    assert training_dtype(True, False, GPU) == torch.bfloat16 and training_dtype(False, True, GPU) == torch.float16
    assert training_dtype(False, False, GPU) == torch.float32
    assert "no bf16" in device_name(CPU)


@pytest.mark.parametrize("name", ["bf16", "fp16"])
@pytest.mark.parametrize("kind", [GPT1TrainingArguments, FinetuneArguments, PretrainArguments])
def test_a_run_without_the_instructions_is_in_fp32(kind, name, without_bf16, tmp_path):
    args = kind(output_dir=str(tmp_path), use_cpu=True, **{name: True})
    assert not args.bf16 and not args.fp16 and args.mixed_precision == "no"


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_a_type_from_accelerate_launch_becomes_fp32_without_the_instructions(
    name, without_bf16, tmp_path, monkeypatch
):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", name)
    args = GPT1TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert args.mixed_precision == "no"


def test_the_librarys_own_arguments_give_fp32_without_the_instructions(without_bf16, tmp_path):
    config = GPT1Config(vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    args = TrainingArguments(str(tmp_path), use_cpu=True, bf16=True, report_to="none")
    trainer = GPT1Trainer(GPT1ForCausalLM(config), args, train_dataset=[{"input_ids": [1, 2]}])
    assert trainer.accelerator.mixed_precision == "no"


@pytest.mark.skipif(not has_half_precision(torch.bfloat16, CPU), reason="this CPU has no bf16 matrix products")
def test_with_the_instructions_bf16_stays(tmp_path):
    args = GPT1TrainingArguments(output_dir=str(tmp_path), use_cpu=True, bf16=True)
    assert args.bf16 and args.mixed_precision == "bf16"


# Master weights


def half(folder: str, to: str):
    """Save a model and its configuration in bf16, as earlier versions did."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(to)
    assert json.loads((to / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.fixture(scope="module")
def bf16_folder(base_model, tokenizer, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("bf16")
    half(base_model, folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_new_models_are_fp32_whatever_the_configuration_says(bf16_folder):
    config = open_config(bf16_folder)
    assert config.dtype == torch.bfloat16
    for auto_class in (AutoModelForCausalLM, AutoModelForSequenceClassification):
        assert {p.dtype for p in new_model(auto_class, config).parameters()} == {torch.float32}


def test_gpt1_tiny_is_fp32_by_default_and_bf16_on_disk():
    folder = model_path("gpt1-tiny")
    assert {p.dtype for p in AutoModelForCausalLM.from_pretrained(folder).parameters()} == {torch.float32}
    config = open_config("gpt1-tiny")
    assert {p.dtype for p in AutoModelForCausalLM.from_config(config).parameters()} == {torch.float32}
    with safe_open(f"{folder}/model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}
    assert open_model(GPT1ForCausalLM, "gpt1-tiny", config, dtype="auto").dtype == torch.bfloat16


RUNS = {
    "pretrained": ["finetune"],
    "from scratch": ["finetune", "--from_scratch", "true"],
    "some layers": ["finetune", "--transfer_layers", "1"],
    "lora": ["finetune", "--peft", "lora"],
    "bf16 autocast": ["finetune", "--bf16", "true"],
    "transformer": ["pretrain"],
    "lstm": ["pretrain", "--architecture", "lstm", "--lstm_size", "24", "--num_hidden_layers", "1"],
    "saved in bf16": ["pretrain", "--save_dtype", "bfloat16"],
}


@pytest.mark.parametrize("run", RUNS)
def test_masters_and_optimizer_states_are_fp32(run, bf16_folder, texts, tmp_path, monkeypatch):
    seen = []
    train = GPT1Trainer.train

    def watched(self, *args, **kwargs):
        output = train(self, *args, **kwargs)
        states = [t for state in self.optimizer.state.values() for t in state.values() if torch.is_tensor(t)]
        seen.append({t.dtype for t in [*self.model.parameters(), *states]})
        return output

    monkeypatch.setattr(GPT1Trainer, "train", watched)
    command = [*RUNS[run], "--output_dir", str(tmp_path / "run"), "--max_steps", "1", "--use_cpu", "true"]
    if command[0] == "finetune":
        command += ["--task", "sst2", "--sample", "--model", bf16_folder, "--max_train_examples", "8"]
    else:
        corpus = tmp_path / "corpus.txt"
        corpus.write_text("\n".join(texts), encoding="utf-8")
        command += ["--corpus", str(corpus), "--tokenizer", bf16_folder, "--hidden_size", "16"]
        command += ["--num_attention_heads", "2", "--max_position_embeddings", "32", "--warmup_steps", "0"]
        if "lstm" not in command:
            command += ["--num_hidden_layers", "1"]
    assert main(command) == 0
    assert seen == [{torch.float32}]
    if run != "lora":
        assert json.loads((tmp_path / "run" / "config.json").read_text())["dtype"] == "float32"
