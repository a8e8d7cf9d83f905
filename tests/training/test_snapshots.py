"""Files that pre-training writes on the way: log-spaced weights, their perplexities, the loss curve, held-out
losses."""

import json
import math
import random
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from gpt1_hf import GPT1ForCausalLM, GPT1Trainer
from gpt1_hf.data.spans import ConsecutiveSpans
from gpt1_hf.data.token_stream import TokenStream
from gpt1_hf.errors import GPT1Error
from gpt1_hf.evaluation.perplexity import score_documents
from gpt1_hf.training.arguments import GPT1TrainingArguments, PretrainArguments
from gpt1_hf.training.loss_plot import plot_losses
from gpt1_hf.training.pretrain import pretrain, token_streams
from gpt1_hf.training.snapshots import log_spaced, read_trajectory


def arguments(texts, base_model, tmp_path, name, **changes) -> PretrainArguments:
    corpus = tmp_path / "corpus.txt"
    if not corpus.exists():
        corpus.write_text("\n\n".join(texts), encoding="utf-8")
    settings = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "max_steps": 12,
        "per_device_train_batch_size": 4,
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return PretrainArguments(
        **{**settings, "corpus": str(corpus), "tokenizer": base_model, "output_dir": str(tmp_path / name), **changes}
    )


def test_updates_are_log_spaced_from_the_first_to_the_last():
    assert log_spaced(1, 1000) == [0, 1, 10, 100, 1000]
    assert log_spaced(3, 250) == [0, 1, 2, 5, 10, 22, 46, 100, 215, 250]
    assert log_spaced(2, 1) == [0, 1]


def test_the_trajectory_has_models_with_their_perplexity_and_does_not_change_training(texts, base_model, tmp_path):
    seen = []

    def evaluate(model, update):
        assert not model.training
        seen.append(update)
        return {"guess": torch.rand(()).item() + np.random.rand() + random.random()}

    plain = pretrain(arguments(texts, base_model, tmp_path, "plain"))
    args = arguments(texts, base_model, tmp_path, "run", checkpoints_per_decade=2, save_strategy="steps", save_steps=4)
    args.save_total_limit = 1
    results = pretrain(args, evaluate)
    run = tmp_path / "run"
    updates = [0, 1, 3, 10, 12]
    rows = read_trajectory(run)
    assert [row["update"] for row in rows] == updates == seen
    assert [row["tokens"] for row in rows] == [update * 4 * 32 for update in updates]
    assert all(row["guess"] >= 0 for row in rows)
    assert sorted(folder.name for folder in (run / "trajectory").iterdir()) == [
        f"update-{update:07d}" for update in updates
    ]
    assert [folder.name for folder in run.glob("checkpoint*")] == ["checkpoint-12"]
    assert rows[-1]["perplexity"] == pytest.approx(results[0].value, abs=1e-3)
    assert results[0].value == plain[0].value
    for name, weight in load_file(run / "model.safetensors").items():
        assert torch.equal(weight, load_file(tmp_path / "plain" / "model.safetensors")[name]), name

    _, held_out = token_streams(args, AutoTokenizer.from_pretrained(base_model))
    folder = run / "trajectory" / "update-0000003"
    assert len(AutoTokenizer.from_pretrained(folder)) == 160
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert score_documents(model, held_out.documents(), 32).perplexity == pytest.approx(rows[2]["perplexity"])


def test_a_hook_without_a_trajectory_is_refused(texts, base_model, tmp_path):
    with pytest.raises(GPT1Error, match="checkpoints_per_decade"):
        pretrain(arguments(texts, base_model, tmp_path, "run"), lambda model, update: {})


def test_a_trajectory_is_read(tmp_path):
    (tmp_path / "trajectory.jsonl").write_text('{"update": 0}\n{"update": 1}\n')
    assert read_trajectory(tmp_path) == [{"update": 0}, {"update": 1}]
    assert read_trajectory(tmp_path / "elsewhere") == []


def test_the_curve_is_drawn(texts, base_model, tmp_path):
    pytest.importorskip("matplotlib")
    pretrain(arguments(texts, base_model, tmp_path, "run", eval_strategy="steps", eval_steps=4))
    assert (tmp_path / "run" / "loss.png").read_bytes().startswith(b"\x89PNG")
    history = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    evaluations = [entry for entry in history if "eval_loss" in entry]
    assert [entry["step"] for entry in evaluations] == [4, 8, 12]
    assert evaluations[0]["eval_perplexity"] == pytest.approx(math.exp(evaluations[0]["eval_loss"]))


def test_missing_matplotlib_is_reported_in_one_sentence(tmp_path, monkeypatch, caplog):
    for module in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, module, None)
    plot_losses([{"step": 1, "loss": 2.0}], [], 5.0, tmp_path / "loss.png")
    assert "plots need matplotlib: pip install 'gpt1_hf[plots]'" in caplog.text
    assert not (tmp_path / "loss.png").exists()


def test_a_curve_on_a_part_of_the_text_does_not_join_the_score_on_all_of_it(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("gpt1_hf.training.loss_plot.write_png", lambda figure, path: drawn.append(figure))
    log = [{"step": 1, "loss": 2.0}, {"step": 10, "loss": 1.0}]
    part = {"scored_tokens": 100, "validation_tokens": 1000, "partial": True}
    whole = {"scored_tokens": 1000, "validation_tokens": 1000}

    def lines(known, details):
        rows = [{"update": update, "perplexity": math.e, **known} for update in (1, 10)]
        plot_losses(log, rows, math.e**2, tmp_path / "loss.png", details)
        return {line.label: line.points for line in drawn[-1].series if line.dashed}

    end = "held out, in documents (perplexity 7.389 at the end)"
    for known, details in (({}, None), ({}, whole), (whole, whole)):
        assert lines(known, details) == {end: [(1, 1.0), (10, 2.0)]}
    assert lines(part, whole) == {
        end: [(10, 2.0)],
        "held out, in documents on 100 of 1,000 tokens": [(1, 1.0), (10, 1.0)],
    }
    assert lines(part, part) == {
        "held out, in documents (perplexity 7.389 on 100 of 1,000 tokens at the end)": [(1, 1.0), (10, 2.0)]
    }


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_the_held_out_loss_does_not_depend_on_the_batch_size(config, tmp_path, batch_size):
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, 7 * 16 + 5, dtype=np.uint16)
    windows = ConsecutiveSpans(TokenStream(tokens, [len(tokens)], [1]), 16)
    torch.manual_seed(0)
    model = GPT1ForCausalLM(config)
    args = GPT1TrainingArguments(str(tmp_path), use_cpu=True, disable_tqdm=True, per_device_eval_batch_size=batch_size)
    metrics = GPT1Trainer(model, args, eval_dataset=windows).evaluate()
    rows = torch.tensor(tokens[: 7 * 16].astype(np.int64)).view(7, 16)
    with torch.no_grad():
        expected = sum(model(input_ids=row[None], labels=row[None]).loss.item() for row in rows) / 7
    assert metrics["eval_loss"] == pytest.approx(expected, rel=1e-6)
    assert metrics["eval_perplexity"] == pytest.approx(math.exp(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("report_to", "message"),
    [("trackio", "trackio is not installed; pip install trackio"), ("tensorbored", "unknown 'tensorbored'")],
)
def test_a_tracker_that_is_missing_is_named_at_the_start(tmp_path, monkeypatch, report_to, message):
    monkeypatch.setattr("gpt1_hf.training.arguments.get_available_reporting_integrations", lambda: [])
    with pytest.raises(GPT1Error, match=message):
        PretrainArguments(output_dir=str(tmp_path), report_to=report_to)
    assert PretrainArguments(output_dir=str(tmp_path)).report_to == []
