"""Eight rows in one process, in four parts, and in four processes with two rows each give the same training."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file


pytestmark = pytest.mark.slow

HEADS = ("causal_lm", "classification", "similarity", "multiple_choice", "tokens")

# Trains a head for three updates on rows of unequal length, and saves its weights and losses.
SCRIPT = """
import json, sys
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence

from gpt1_hf import (
    GPT1Config, GPT1ForCausalLM, GPT1ForMultipleChoice, GPT1ForSequenceClassification, GPT1ForTokenClassification,
    GPT1Trainer, GPT1TrainingArguments,
)

head, batch_size, accumulation, output = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
model_class = {
    "causal_lm": GPT1ForCausalLM, "multiple_choice": GPT1ForMultipleChoice, "tokens": GPT1ForTokenClassification,
}.get(head, GPT1ForSequenceClassification)
n_rows = {"similarity": 2, "multiple_choice": 3}.get(head, 1)
generator = torch.Generator().manual_seed(0)
examples = []
for index in range(24):
    rows = [torch.randint(1, 60, (3 + (5 * index + row) % 17,), generator=generator) for row in range(n_rows)]
    examples.append((rows, index % 3))

def collate(batch):
    flat = [row for rows, _ in batch for row in rows]
    ids = pad_sequence(flat, batch_first=True)
    mask = pad_sequence([torch.ones_like(row) for row in flat], batch_first=True)
    labels = torch.tensor([label for _, label in batch])
    if n_rows > 1:
        ids, mask = ids.unflatten(0, (-1, n_rows)), mask.unflatten(0, (-1, n_rows))
    if head == "causal_lm":
        labels = ids.masked_fill(mask == 0, -100)
    if head == "tokens":
        labels = torch.where((mask == 1) & (ids % 5 > 0), ids % 3, -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}

torch.manual_seed(0)
config = GPT1Config(
    vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_labels=3, embd_pdrop=0.0,
    attn_pdrop=0.0, resid_pdrop=0.0, classifier_dropout=0.0, initializer_range=0.2,
)
args = GPT1TrainingArguments(
    str(output), use_cpu=True, per_device_train_batch_size=batch_size, gradient_accumulation_steps=accumulation,
    max_steps=3, logging_steps=1, learning_rate=1e-3, warmup_steps=0, lr_scheduler_type="constant", disable_tqdm=True,
    train_sampling_strategy="sequential", optim="sgd", remove_unused_columns=False,
)
trainer = GPT1Trainer(model_class(config), args, data_collator=collate, train_dataset=examples)
trainer.train()
trainer.save_model()
if trainer.is_world_process_zero():
    losses = [{key: entry[key] for key in ("loss", "task_loss", "lm_loss", "grad_norm") if key in entry}
              for entry in trainer.state.log_history if "loss" in entry]
    (output / "losses.json").write_text(json.dumps(losses))
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("script") / "train.py"
    path.write_text(SCRIPT)
    return path


@pytest.mark.parametrize("head", HEADS)
def test_different_batch_splits_are_the_same_training(script, head, tmp_path):
    runs = {}
    for name, processes, batch_size, accumulation in (("one", 1, 8, 1), ("parts", 1, 2, 4), ("processes", 4, 2, 1)):
        launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)] if processes > 1 else []
        arguments = [str(script), head, str(batch_size), str(accumulation), str(tmp_path / name)]
        done = subprocess.run([sys.executable, *launcher, *arguments], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        runs[name] = (
            load_file(tmp_path / name / "model.safetensors"),
            json.loads((tmp_path / name / "losses.json").read_text()),
        )
    weights, losses = runs["one"]
    assert len(losses) == 3 and ("lm_loss" in losses[0]) == (head != "causal_lm")
    for name in ("parts", "processes"):
        for entry, expected in zip(runs[name][1], losses, strict=True):
            assert entry == pytest.approx(expected, rel=2e-3, abs=2e-4), name
        for key, weight in weights.items():
            difference = (runs[name][0][key] - weight).abs().max().item()
            assert difference < 1e-6, f"{name}, {key}: {difference}"
