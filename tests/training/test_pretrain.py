"""Pre-training from text files to a saved model, and its bad input."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from gpt1_hf import GPT1Config, GPT1ForCausalLM, GPT1LSTMConfig, GPT1LSTMForCausalLM, GPT1Trainer
from gpt1_hf.checkpoints.loading import open_causal_lm
from gpt1_hf.cli import main
from gpt1_hf.cli.parser import parse
from gpt1_hf.data.spans import RandomSpans
from gpt1_hf.data.token_stream import TokenStream
from gpt1_hf.errors import GPT1Error
from gpt1_hf.evaluation.perplexity import score_documents
from gpt1_hf.resources import recipes_dir
from gpt1_hf.training.arguments import PretrainArguments
from gpt1_hf.training.pretrain import new_config, pretrain, token_streams
from gpt1_hf.training.snapshots import read_trajectory


@pytest.fixture
def corpus(texts, tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for part in range(4):
        (folder / f"book{part}.txt").write_text("\n\n".join(texts[part::4]), encoding="utf-8")
    return str(folder)


def arguments(corpus, base_model, tmp_path, **changes):
    defaults = {
        "corpus": corpus,
        "tokenizer": base_model,
        "output_dir": str(tmp_path / "run"),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 32,
        "max_steps": 6,
        "per_device_train_batch_size": 4,
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return PretrainArguments(**{**defaults, **changes})


def test_a_run_saves_a_model_that_loads_and_reports_its_perplexity(corpus, base_model, tmp_path):
    results = pretrain(arguments(corpus, base_model, tmp_path, save_dtype="bfloat16"))
    run = tmp_path / "run"
    assert [result.metric for result in results] == ["perplexity", "bits_per_character"]
    written = json.loads((run / "results.json").read_text())
    assert {"task", "split", "metric", "value", "n_examples", "paper", "model", "seed"} <= set(written[0])
    assert written[0]["details"]["updates"] == 6
    assert written[0]["details"]["tokens_seen"] == 6 * 4 * 32
    args = arguments(corpus, base_model, tmp_path)
    expected = {name: getattr(args, name) for name in ("learning_rate", "dropout", "hidden_size", "weight_decay")}
    expected |= {"initializer_range": args.initializer_range, "position_initializer_range": None}
    expected |= {"batch_size": 4, "training_precision": "fp32", "warmup_steps": args.warmup_steps, "max_steps": 6}
    assert written[0]["details"].items() >= expected.items() and written[0]["seed"] == args.seed
    # An untrained model is about as good as a guess among all tokens.
    assert written[0]["value"] == pytest.approx(len(AutoTokenizer.from_pretrained(run)), rel=0.3)
    with safe_open(run / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}
    assert AutoModelForCausalLM.from_pretrained(run).dtype == torch.float32


def test_the_lstm_is_trained_generates_and_is_scored_like_a_transformer(corpus, base_model, tmp_path, capsys):
    sizes = {"architecture": "lstm", "num_hidden_layers": None, "lstm_size": 48}
    results = pretrain(arguments(corpus, base_model, tmp_path, **sizes))
    run = str(tmp_path / "run")
    model = AutoModelForCausalLM.from_pretrained(run)
    assert type(model) is GPT1LSTMForCausalLM
    assert (model.config.lstm_size, model.config.hidden_size, model.config.num_hidden_layers) == (48, 32, 1)
    assert "48 units (layers: 1), embeddings of width 32" in (tmp_path / "run" / "README.md").read_text()

    assert main(["evaluate", "--model", run, "--text_file", corpus, "--output_dir", str(tmp_path / "scores")]) == 0
    score = json.loads((tmp_path / "scores" / "results.json").read_text())[0]
    assert score["value"] == pytest.approx(results[0].value, rel=0.1)
    assert score["details"]["window"] == 32
    capsys.readouterr()
    # Longer than the training spans: a recurrent model has no context limit.
    assert main(["generate", "the old lady", "--model", run, "--max_new_tokens", "40", "--temperature", "0"]) == 0
    assert capsys.readouterr().out.startswith("the old lady")


def test_the_sizes_are_the_paper_s_unless_given():
    tokenizer = type("Tokenizer", (), {"pad_token_id": 0, "__len__": lambda self: 40478})()
    for architecture, config in (("transformer", GPT1Config()), ("lstm", GPT1LSTMConfig())):
        config.pad_token_id = 0
        assert new_config(PretrainArguments(architecture=architecture), tokenizer).to_dict() == config.to_dict()


def test_first_loss_is_the_log_of_the_vocabulary(corpus, base_model, tmp_path, capsys):
    args = arguments(corpus, base_model, tmp_path, max_steps=1)
    pretrain(args)
    state = [line for line in capsys.readouterr().err.splitlines() if "'loss'" in line]
    loss = float(state[0].split("'loss': '")[1].split("'")[0])
    assert loss == pytest.approx(math.log(160), abs=0.15)


def test_schedule_warms_up_linearly_then_falls_as_a_cosine(corpus, base_model, tmp_path, capsys):
    pretrain(arguments(corpus, base_model, tmp_path, max_steps=8, warmup_steps=4, learning_rate=1.0))
    lines = [line for line in capsys.readouterr().err.splitlines() if "'loss'" in line]
    rates = [float(line.split("'learning_rate': '")[1].split("'")[0]) for line in lines]
    cosine = [0.5 * (1 + math.cos(math.pi * step / 4)) for step in range(4)]
    assert rates == pytest.approx([0.0, 0.25, 0.5, 0.75, *cosine], abs=1e-3)


def test_a_second_run_reuses_the_token_stream(corpus, base_model, tmp_path):
    pretrain(arguments(corpus, base_model, tmp_path, max_steps=1))
    tokens = tmp_path / "run" / "tokens" / "train" / "tokens.bin"
    written = tokens.stat().st_mtime_ns
    pretrain(arguments(corpus, base_model, tmp_path, max_steps=1))
    assert tokens.stat().st_mtime_ns == written


def test_a_run_resumes_from_its_last_checkpoint(corpus, base_model, tmp_path):
    whole = pretrain(arguments(corpus, base_model, tmp_path / "whole", max_steps=6))
    part = {"save_strategy": "steps", "save_steps": 3}
    pretrain(arguments(corpus, base_model, tmp_path / "part", max_steps=6, **part))
    (tmp_path / "part" / "run" / "model.safetensors").unlink()
    for late in (tmp_path / "part" / "run").glob("checkpoint-6/*"):
        late.unlink()
    (tmp_path / "part" / "run" / "checkpoint-6").rmdir()
    resumed = pretrain(
        arguments(corpus, base_model, tmp_path / "part", max_steps=6, resume_from_checkpoint="true", **part)
    )
    assert resumed[0].value == whole[0].value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corpus": None}, "--corpus"),
        ({"corpus": "no/such/corpus"}, "no/such/corpus"),
        ({"tokenizer": "no/such/tokenizer"}, "no/such/tokenizer"),
        ({"architecture": "rnn"}, "'rnn'; choose one of transformer, lstm"),
    ],
)
def test_missing_input_is_named(corpus, base_model, tmp_path, changes, message):
    with pytest.raises(GPT1Error, match=message):
        pretrain(arguments(**{"corpus": corpus, "base_model": base_model, "tmp_path": tmp_path, **changes}))


def test_an_empty_corpus_leaves_nothing_behind(base_model, tmp_path):
    (tmp_path / "empty.txt").write_text(" \n ")
    with pytest.raises(GPT1Error, match="empty"):
        pretrain(arguments(str(tmp_path / "empty.txt"), base_model, tmp_path))
    assert not list((tmp_path / "run").rglob("*.bin"))


def test_a_cut_document_divides_its_characters():
    stream = TokenStream(np.arange(1000, dtype=np.uint16), [400, 1000], [1600, 2400])
    train, held_out = stream.part(0, 950), stream.part(950, 1000)
    assert (len(train), len(held_out)) == (950, 50)
    assert held_out.tokens[0] == 950
    assert (train.document_ends, train.document_chars) == ([400, 950], [1600, 2200])
    assert [n_chars for _, n_chars in held_out.documents()] == [200]


def test_a_part_of_the_held_out_text_is_scored(corpus, base_model, tmp_path):
    args = arguments(corpus, base_model, tmp_path, max_validation_tokens=10)
    _, whole = token_streams(args, AutoTokenizer.from_pretrained(base_model))
    results = pretrain(args)
    expected = score_documents(open_causal_lm(args.output_dir), whole.part(0, 10).documents(), 32)
    assert results[0].value == pytest.approx(expected.perplexity, abs=1e-3)
    for result in results:
        found = {name: result.details[name] for name in ("scored_tokens", "validation_tokens", "partial")}
        assert found == {"scored_tokens": 10, "validation_tokens": len(whole), "partial": True}
        assert result.rows == f"1 (10 of {len(whole):,} tokens)"
    assert f"**only 10 of {len(whole):,} tokens**" in (tmp_path / "run" / "README.md").read_text()


def test_the_whole_held_out_text_is_scored_by_default(corpus, base_model, tmp_path):
    args = arguments(corpus, base_model, tmp_path, checkpoints_per_decade=1, max_trajectory_tokens=10)
    _, whole = token_streams(args, AutoTokenizer.from_pretrained(base_model))
    details = pretrain(args)[0].details
    assert details["scored_tokens"] == details["validation_tokens"] == len(whole)
    assert details["scored_documents"] == details["validation_documents"] == len(whole.document_ends)
    assert "partial" not in details and "**only" not in (tmp_path / "run" / "README.md").read_text()
    rows = read_trajectory(tmp_path / "run")
    assert {(row["scored_tokens"], row["validation_tokens"], row["partial"]) for row in rows} == {
        (10, len(whole), True)
    }
    # The setting does not change what is learned or scored: the run counts as finished without it.
    args.max_trajectory_tokens = None
    assert pretrain(args)[0].details == details


def test_settings_are_chosen_on_training_text(corpus, base_model, tmp_path):
    validation = tmp_path / "validation.txt"
    validation.write_text("Another text.", encoding="utf-8")
    train, whole = (
        token_streams(arguments(corpus, base_model, tmp_path, **changes), AutoTokenizer.from_pretrained(base_model))
        for changes in ({"held_out_share": 0.25}, {"validation_corpus": str(validation)})
    )
    assert np.array_equal(np.concatenate([train[0].tokens, train[1].tokens]), whole[0].tokens)
    assert len(train[1]) == math.ceil(len(whole[0]) / 4)
    results = pretrain(arguments(corpus, base_model, tmp_path, held_out_share=0.25, max_steps=1))
    assert {result.split for result in results} == {"held-out train"}
    with pytest.raises(GPT1Error, match="held_out_share or validation_corpus, not both"):
        pretrain(arguments(corpus, base_model, tmp_path, held_out_share=0.25, validation_corpus=str(validation)))
    with pytest.raises(GPT1Error, match="held_out_share must be at least 0 and below 1, not 1"):
        pretrain(arguments(corpus, base_model, tmp_path, held_out_share=1.0))


@pytest.mark.parametrize("given", [None, 0.006, 0.0])
def test_positions_have_a_scale_of_their_own(given, corpus, base_model, tmp_path):
    sizes = {"initializer_range": 0.06, "position_initializer_range": given, "max_position_embeddings": 256}
    args = arguments(corpus, base_model, tmp_path, hidden_size=64, **sizes)
    config = new_config(args, AutoTokenizer.from_pretrained(base_model))
    model = GPT1ForCausalLM(config).transformer
    assert config.position_initializer_range == (0.06 if given is None else given)
    assert model.positions_embed.weight.std().item() == pytest.approx(config.position_initializer_range, rel=0.03)
    assert model.tokens_embed.weight.std().item() == pytest.approx(0.06, rel=0.03)


@pytest.mark.parametrize("changes", [{"architecture": "lstm", "lstm_size": 8}, {"position_embedding_type": "none"}])
def test_a_scale_of_positions_that_do_not_exist_is_noted(changes, corpus, base_model, tmp_path, capsys):
    pretrain(arguments(corpus, base_model, tmp_path, max_steps=1, position_initializer_range=0.006, **changes))
    assert "position_initializer_range has no effect: the model has no position" in capsys.readouterr().err


def test_the_card_describes_the_run(corpus, base_model, tmp_path):
    results = pretrain(arguments(corpus, base_model, tmp_path))
    card = (tmp_path / "run" / "README.md").read_text()
    assert card.startswith("---\n")
    assert "license: mit" in card
    assert f"| perplexity | {results[0].value} |" in card
    assert "6 updates on 768 tokens" in card
    assert "4 documents" in card
    assert "{{ " not in card and "{%" not in card


@pytest.fixture
def paper_trainer(tmp_path):
    """The Trainer of the paper's recipe, around a small model, for 20,000 updates."""
    recipe = recipes_dir() / "pretrain" / "bookcorpus.yaml"
    argv = ["--config", str(recipe), "--output_dir", str(tmp_path), "--use_cpu", "true", "--bf16", "false"]
    args = parse(PretrainArguments, argv, "pretrain", "")
    config = GPT1Config(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
    trainer = GPT1Trainer(GPT1ForCausalLM(config), args)
    trainer.create_optimizer_and_scheduler(num_training_steps=20_000)
    return trainer


def test_the_papers_schedule(paper_trainer):
    rates = []
    for _ in range(20_001):
        rates.append(paper_trainer.lr_scheduler.get_last_lr()[0])
        paper_trainer.optimizer.step()
        paper_trainer.lr_scheduler.step()
    expected = {0: 0.0, 1: 1.25e-7, 1000: 1.25e-4, 2000: 2.5e-4, 11_000: 1.25e-4, 20_000: 0.0}
    assert {step: rates[step] for step in expected} == pytest.approx(expected, abs=1e-12)
    quarter = 2000 + 18_000 / 4
    assert rates[int(quarter)] == pytest.approx(2.5e-4 * (1 + math.cos(math.pi / 4)) / 2)


def test_the_papers_optimizer_decays_matrices_only(paper_trainer):
    parameters = dict(paper_trainer.model.named_parameters())
    seen = set()
    for group in paper_trainer.optimizer.param_groups:
        assert (group["betas"], group["eps"]) == ((0.9, 0.999), 1e-8)
        for name in (name for name in parameters if any(parameters[name] is p for p in group["params"])):
            seen.add(name)
            assert group["weight_decay"] == (0.01 if parameters[name].dim() == 2 else 0.0), name
    assert seen == parameters.keys()


def test_gradients_are_clipped_to_norm_one(config, tmp_path, monkeypatch):
    model = GPT1ForCausalLM(config)
    with torch.no_grad():
        model.transformer.tokens_embed.weight *= 50  # large weights, large gradients
    seen = []
    tokens = TokenStream(np.arange(200, dtype=np.uint16) % 50, [200], [200])
    args = PretrainArguments(
        output_dir=str(tmp_path), max_steps=1, logging_steps=1, use_cpu=True, disable_tqdm=True, save_strategy="no"
    )
    trainer = GPT1Trainer(model, args, train_dataset=RandomSpans(tokens, 16))
    optimizer = trainer.create_optimizer()
    step = optimizer.step

    def watched(*positional, **kwargs):
        gradients = [parameter.grad for parameter in model.parameters()]
        seen.append(torch.nn.utils.get_total_norm(gradients).item())
        return step(*positional, **kwargs)

    monkeypatch.setattr(optimizer, "step", watched)
    trainer.train()
    before = [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]
    assert before[0] > 2
    assert seen == [pytest.approx(1.0, abs=1e-3)]
