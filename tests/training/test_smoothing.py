"""`label_smoothing_factor` smooths labels, but not the auxiliary loss, nor evaluation."""

import json
import math

import pytest
import torch
from datasets import Dataset
from helpers.data import TINY
from transformers import AutoModelForCausalLM

from gpt1_hf import (
    GPT1DataCollator,
    GPT1ForCausalLM,
    GPT1ForMultipleChoice,
    GPT1ForSequenceClassification,
    GPT1ForTokenClassification,
    GPT1LSTMConfig,
    GPT1LSTMForCausalLM,
    GPT1LSTMForSequenceClassification,
    GPT1Processor,
    GPT1Trainer,
    GPT1TrainingArguments,
)
from gpt1_hf.cli import main
from gpt1_hf.errors import GPT1Error


SHARE = 0.1
HEADS = {
    "sequence": GPT1ForSequenceClassification,
    "pair": GPT1ForSequenceClassification,
    "choice": GPT1ForMultipleChoice,
    "token": GPT1ForTokenClassification,
}


def smoothed(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Loss of each label, computed by hand: 0.9 times the target's loss plus 0.1 times the mean over the classes."""
    log_probs = logits.log_softmax(-1)
    own = log_probs.gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1)
    return -(1 - SHARE) * own - SHARE * log_probs.mean(-1)


def trainer(model, tmp_path, rows=None, collator=None, **settings) -> GPT1Trainer:
    args = GPT1TrainingArguments(
        str(tmp_path), use_cpu=True, disable_tqdm=True, label_smoothing_factor=SHARE, **settings
    )
    return GPT1Trainer(model, args, collator, rows)


def batch_of(kind: str, config) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = {"pair": (3, 2, 9), "choice": (3, 4, 9)}.get(kind, (3, 9))
    ids = torch.randint(1, config.vocab_size, shape, generator=generator)
    labels = torch.tensor([2, 0, 1])
    if kind == "token":
        labels = (ids % 3).masked_fill(ids % 4 == 0, -100)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


@pytest.mark.parametrize("kind", HEADS)
def test_task_heads_smooth_the_task_and_keep_the_language_model(kind, config, tmp_path):
    config.num_labels, config.lm_coef = 3, 0.5
    model = HEADS[kind](config).eval()
    batch = batch_of(kind, config)
    plain = model(**batch)
    counted = batch["labels"] != -100
    task_loss = smoothed(plain.logits, batch["labels"])[counted].mean()
    of_trainer = trainer(model, tmp_path)
    loss, outputs = of_trainer.compute_loss(model, batch, return_outputs=True)
    assert outputs.task_loss.item() == pytest.approx(task_loss.item(), abs=1e-5)
    assert outputs.lm_loss.item() == pytest.approx(plain.lm_loss.item(), abs=1e-6)
    assert loss.item() == pytest.approx(task_loss.item() + 0.5 * plain.lm_loss.item(), abs=1e-5)
    assert outputs.task_loss.item() != pytest.approx(plain.task_loss.item(), abs=2e-5)
    # An evaluation measures; it does not smooth.
    measured, _, _ = of_trainer.prediction_step(model, batch, prediction_loss_only=True)
    assert measured.item() == pytest.approx(plain.loss.item(), abs=1e-6)
    config.lm_coef = 0.0
    assert of_trainer.compute_loss(model, batch).item() == pytest.approx(task_loss.item(), abs=1e-5)


def test_lstm_heads(tmp_path):
    config = GPT1LSTMConfig(vocab_size=50, hidden_size=16, lstm_size=16, num_labels=3, pad_token_id=0, lm_coef=0.5)
    for name in ("embd_pdrop", "resid_pdrop", "classifier_dropout"):
        setattr(config, name, 0.0)
    batch = batch_of("sequence", config)
    head = GPT1LSTMForSequenceClassification(config)
    plain = head(**batch)
    expected = smoothed(plain.logits, batch["labels"]).mean() + 0.5 * plain.lm_loss
    assert trainer(head, tmp_path).compute_loss(head, batch).item() == pytest.approx(expected.item(), abs=1e-5)
    model, batch = GPT1LSTMForCausalLM(config), {**batch, "labels": batch["input_ids"]}
    expected = smoothed(model(**batch).logits[:, :-1], batch["labels"][:, 1:]).mean()
    assert trainer(model, tmp_path).compute_loss(model, batch).item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_language_model_smooths_the_shifted_labels(training, config, tmp_path):
    model = GPT1ForCausalLM(config).train(training)
    ids = torch.randint(1, config.vocab_size, (2, 12))
    labels = ids.masked_fill(ids % 5 == 0, -100)
    counted = labels[:, 1:] != -100
    losses = smoothed(model(ids).logits[:, :-1], labels[:, 1:])[counted]
    of_trainer = trainer(model, tmp_path)
    batch = {"input_ids": ids, "labels": labels}
    assert of_trainer.compute_loss(model, batch).item() == pytest.approx(losses.mean().item(), abs=1e-5)
    part = of_trainer.compute_loss(model, batch, num_items_in_batch=torch.tensor(100))
    assert part.item() == pytest.approx(losses.sum().item() / 100, abs=1e-5)


def test_packed_rows(config, tokenizer, tmp_path):
    config.num_labels, config.vocab_size = 3, len(tokenizer) + 3
    processor = GPT1Processor(tokenizer, "classification")
    rows = [
        {"input_ids": processor(text=[text])["input_ids"][0], "label": label}
        for label, text in enumerate(("the old captain", "a dark night in the garden walked", "never"))
    ]
    model = GPT1ForSequenceClassification(config).eval()
    of_trainer = trainer(model, tmp_path)
    padded, packed = (
        of_trainer.compute_loss(model, GPT1DataCollator(processor, packing=packing)(rows)).item()
        for packing in (False, True)
    )
    assert packed == pytest.approx(padded, abs=1e-5)


@pytest.mark.parametrize("kind", ["causal_lm", *HEADS])
def test_accumulated_parts_are_one_batch(kind, config, tmp_path):
    """The parts have unequal numbers of labels."""
    config.num_labels = 3
    whole = batch_of("sequence" if kind == "causal_lm" else kind, config)
    if kind == "causal_lm":
        whole["labels"] = whole["input_ids"].masked_fill(whole["input_ids"] % 3 == 0, -100)
    rows = Dataset.from_dict({name: tensor.tolist() for name, tensor in whole.items()})
    weights = {}
    for parts in (1, 3):
        torch.manual_seed(0)
        model = {"causal_lm": GPT1ForCausalLM, **HEADS}[kind](config)
        settings = {
            "per_device_train_batch_size": 3 // parts,
            "gradient_accumulation_steps": parts,
            "max_steps": 2,
            "learning_rate": 1e-2,
            "warmup_steps": 0,
            "optim": "sgd",
            "train_sampling_strategy": "sequential",
            "max_grad_norm": 0.0,
        }
        trainer(model, tmp_path / str(parts), rows, **settings).train()
        weights[parts] = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    assert (weights[1] - weights[3]).abs().max() < 1e-6


@pytest.mark.parametrize(
    "changes",
    [
        {"num_labels": 1},
        {"num_labels": 1, "regression_bins": 6},
        {"num_labels": 3, "problem_type": "regression"},
        {"num_labels": 3, "problem_type": "multi_label_classification"},
    ],
)
@pytest.mark.filterwarnings("ignore:Label smoothing is not compatible")
def test_labels_that_are_not_classes_are_refused(changes, config, tmp_path):
    for name, value in changes.items():
        setattr(config, name, value)
    with pytest.raises(GPT1Error, match="label_smoothing_factor needs labels that are single classes"):
        trainer(GPT1ForSequenceClassification(config), tmp_path)
    model = GPT1ForSequenceClassification(config)
    labels = torch.zeros(1, config.num_labels) if config.num_labels > 1 else torch.zeros(1)
    with pytest.raises(ValueError, match="not classes: switch it off"):
        model(torch.tensor([[3, 4]]), labels=labels, smoothing=SHARE)


def test_the_commands(base_model, texts, tmp_path, capsys):
    """Smoothing changes the weights slightly, and both losses are logged. A task with scores is refused."""
    run = ["finetune", "--model", base_model, "--sample", "--max_train_examples", "16", "--max_steps", "2"]
    run += ["--logging_steps", "1", "--use_cpu", "true", "--dropout", "0", "--classifier_dropout", "0"]
    logs = {}
    for share in ("0", "0.1"):
        out = tmp_path / share
        smooth = ["--label_smoothing_factor", share, "--task", "cola", "--output_dir", str(out)]
        assert main([*run, *smooth]) == 0
        logs[share] = json.loads((out / "trainer_state.json").read_text())["log_history"][0]
    plain, smooth = logs["0"], logs["0.1"]
    assert smooth["lm_loss"] == pytest.approx(plain["lm_loss"], abs=1e-4)
    assert smooth["loss"] == pytest.approx(smooth["task_loss"] + 0.5 * smooth["lm_loss"], abs=2e-4)
    assert smooth["task_loss"] != plain["task_loss"] and smooth["task_loss"] == pytest.approx(math.log(2), abs=0.1)

    assert main([*run, "--task", "stsb", "--label_smoothing_factor", "0.1", "--output_dir", str(tmp_path / "s")]) == 2
    assert "label_smoothing_factor needs labels that are single classes" in capsys.readouterr().err
    assert main([*run, "--task", "cola", "--label_smoothing_factor", "1.5"]) == 2
    assert "label_smoothing_factor must be at least 0" in capsys.readouterr().err


def test_pre_training(base_model, texts, tmp_path):
    corpus = tmp_path / "book.txt"
    corpus.write_text("\n\n".join(texts), encoding="utf-8")
    values = {}
    for share in (0, 0.1):
        out = tmp_path / str(share)
        settings = {
            **TINY,
            "corpus": corpus,
            "tokenizer": base_model,
            "output_dir": out,
            "max_steps": 60,
            "learning_rate": 1e-2,
            "warmup_steps": 0,
            "dropout": 0,
            "label_smoothing_factor": share,
            "logging_steps": 60,
            "use_cpu": "true",
        }
        flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        assert main(["pretrain", *flags]) == 0
        values[share] = json.loads((out / "results.json").read_text())[0]["value"]
    assert values[0.1] == pytest.approx(values[0], rel=0.25)  # and not that of a model that learnt the present token
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "0.1").config.use_cache
