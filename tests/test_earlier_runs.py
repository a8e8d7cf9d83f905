"""Runs and checkpoints written by an earlier version still load, still count as finished, and give the same numbers.

`earlier_runs/` holds tiny runs as `gpt1 pretrain`, `gpt1 finetune` and `gpt1 analyze` of version 0.1's first layout
wrote them, without code, pictures and the copies of the tokenizer. Nothing in it is ever regenerated.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from gpt1_hf import GPT1Processor, GPT1Trainer
from gpt1_hf.checkpoints.loading import open_config, open_model, open_processor
from gpt1_hf.cli import main
from gpt1_hf.training.arguments import FinetuneArguments
from gpt1_hf.training.finetune import finetune


EARLIER = Path(__file__).parent / "earlier_runs"
LOGITS = json.loads((EARLIER / "logits.json").read_text())
TASK_MODELS = ("finetuned", "lora", "similarity")
PRETRAIN = (
    "pretrain --corpus corpus.txt --tokenizer tokenizer --hidden_size 16 --num_hidden_layers 2 "
    "--max_position_embeddings 32 --per_device_train_batch_size 2 --disable_tqdm true --use_cpu true "
    "--logging_steps 1 --max_steps 2 --resume_from_checkpoint true"
).split()


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A working folder that holds the earlier runs, each with its tokenizer."""
    shutil.copytree(EARLIER, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    monkeypatch.delenv("GPT1_DATA_DIR", raising=False)
    for config in Path("runs").rglob("tokenizer_config.json"):
        is_fine_tuned = (config.parent / "processor_config.json").is_file()
        source = "tokenizer_finetuned.json" if is_fine_tuned else "tokenizer.json"
        shutil.copyfile(source, config.with_name("tokenizer.json"))
    Path("tokenizer").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(Path("runs", "pretrained", name), Path("tokenizer", name))
    return tmp_path / "place"


@pytest.mark.parametrize("name", LOGITS)
def test_a_model_gives_the_same_logits(name, place):
    auto_class = AutoModelForSequenceClassification if name in TASK_MODELS else AutoModelForCausalLM
    ids = torch.arange(5, 25).view(2, 10)
    model = open_model(auto_class, f"runs/{name}", open_config(f"runs/{name}")).eval()
    with torch.no_grad():
        logits = model(ids.view(1, 2, 10) if name == "similarity" else ids).logits
    assert_close(logits.double().sum().item(), LOGITS[name]["sum"], atol=1e-4, rtol=1e-5)
    assert_close(logits[-1].flatten()[-6:], torch.tensor(LOGITS[name]["last"]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", TASK_MODELS)
def test_a_processor_opens_and_evaluation_gives_the_recorded_numbers(name, place):
    assert isinstance(open_processor(f"runs/{name}"), GPT1Processor)
    recorded = json.loads(Path("runs", name, "results.json").read_text())
    task = recorded[0]["task"]
    assert main(f"evaluate --task {task} --sample --model runs/{name} --output_dir again".split()) == 0
    values = [
        (row["split"], row["metric"], row["value"]) for row in json.loads(Path("again/results.json").read_text())
    ]
    assert values == [(row["split"], row["metric"], row["value"]) for row in recorded]
    assert Path("again/predictions.jsonl").read_text() == Path("runs", name, "predictions.jsonl").read_text()


def test_a_plain_transformers_user_opens_them(place):
    assert AutoTokenizer.from_pretrained("runs/pretrained")("the old house")["input_ids"]
    assert AutoModelForCausalLM.from_pretrained("runs/pretrained").config.trained_on is None
    assert AutoModelForSequenceClassification.from_pretrained("runs/finetuned").config.trained_on["task"] == "cola"


def refuse_to_train(*args, **kwargs):
    raise AssertionError("it trains again")


@pytest.mark.parametrize(
    "more",
    [
        "--num_attention_heads 2 --save_strategy steps --save_steps 1 --checkpoints_per_decade 1 "
        "--output_dir runs/pretrained",
        "--architecture lstm --lstm_size 24 --save_strategy no --output_dir runs/lstm",
    ],
    ids=["transformer", "lstm"],
)
def test_a_finished_pre_training_run_is_not_trained_again(more, place, monkeypatch, capsys):
    monkeypatch.setattr(GPT1Trainer, "train", refuse_to_train)
    assert main([*PRETRAIN, *more.split()]) == 0
    assert "finished" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "peft"), [("finetuned", None), ("lora", "lora")])
def test_a_finished_fine_tuning_run_is_not_trained_again(name, peft, place, monkeypatch):
    monkeypatch.setattr(GPT1Trainer, "train", refuse_to_train)
    settings = {"task": "cola", "sample": True, "max_train_examples": 8, "max_steps": 1, "use_cpu": True}
    folder = f"runs/{name}"
    results = finetune(FinetuneArguments(**settings, model="runs/pretrained", peft=peft, output_dir=folder), True)
    assert [result.value for result in results] == [
        row["value"] for row in json.loads(Path(folder, "results.json").read_text())
    ]


def test_a_finished_plan_is_not_carried_out_again(place, monkeypatch, capsys):
    monkeypatch.setattr(GPT1Trainer, "train", refuse_to_train)
    assert main("analyze ablations --config plan.yaml".split()) == 0
    notes = capsys.readouterr().err
    assert "pretrain/transformer: finished" in notes and "finetune/cola/full/seed-42: finished" in notes
