"""Continued pre-training: `gpt1 pretrain --model` starts from weights, with a new optimizer and its own schedule."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, OpenAIGPTConfig, OpenAIGPTLMHeadModel

import gpt1_hf.training.pretrain
from gpt1_hf import GPT1LSTMConfig, GPT1LSTMForCausalLM, GPT1Tokenizer, GPT1Trainer
from gpt1_hf.checkpoints.loading import open_causal_lm
from gpt1_hf.cli import main
from gpt1_hf.evaluation.perplexity import score_documents
from gpt1_hf.training.arguments import PretrainArguments
from gpt1_hf.training.pretrain import pretrain


@pytest.fixture(autouse=True)
def no_measuring(monkeypatch):
    """Measuring the machine's peak, which no test here needs, takes longer than a run."""
    monkeypatch.setattr(gpt1_hf.training.pretrain, "matmul_peak", lambda *_: 1e12)


@pytest.fixture
def corpus(texts, tmp_path):
    (tmp_path / "corpus.txt").write_text("\n".join(texts), encoding="utf-8")
    return str(tmp_path / "corpus.txt")


@pytest.fixture
def arguments(corpus, base_model, tmp_path):
    """Settings of a run of three updates from `base_model`, with changes."""

    def arguments(**changes) -> PretrainArguments:
        defaults = {
            "corpus": corpus,
            "model": base_model,
            "output_dir": str(tmp_path / "run"),
            "dropout": 0.0,
            "max_steps": 3,
            "warmup_steps": 1,
            "learning_rate": 1e-2,
            "per_device_train_batch_size": 4,
            "save_strategy": "no",
            "logging_steps": 1,
            "disable_tqdm": True,
            "use_cpu": True,
        }
        return PretrainArguments(**{**defaults, **changes})

    return arguments


def details_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())[0]["details"]


def weights_of(folder) -> dict[str, torch.Tensor]:
    return open_causal_lm(str(folder)).state_dict()


def test_every_weight_moves_from_the_models_and_the_text_is_predicted_better(arguments, base_model, tmp_path):
    starts = {}

    class Watched(GPT1Trainer):
        def train(self, *args, **kwargs):
            starts.update({name: weight.clone() for name, weight in self.model.state_dict().items()})
            return super().train(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpt1_hf.training.pretrain, "GPT1Trainer", Watched)
        results = pretrain(arguments())
    base, tuned = weights_of(base_model), weights_of(tmp_path / "run")
    assert all(torch.equal(starts[name], weight) for name, weight in base.items())
    assert base.keys() == tuned.keys() and not any(torch.equal(base[name], tuned[name]) for name in base)
    details = details_of(tmp_path / "run")
    assert details["perplexity_after"] == results[0].value < details["perplexity_before"]
    assert details["continued_from"] == Path(base_model).name
    assert (tmp_path / "run" / "tokenizer.json").is_file()


def test_the_perplexity_before_is_the_models_on_the_same_held_out_text(arguments, base_model, tmp_path):
    pretrain(arguments())
    from gpt1_hf.checkpoints.loading import open_tokenizer
    from gpt1_hf.training.pretrain import token_streams

    _, held_out = token_streams(arguments(), open_tokenizer(base_model))
    score = score_documents(open_causal_lm(base_model), held_out.documents(), 64, show_progress=False)
    assert details_of(tmp_path / "run")["perplexity_before"] == pytest.approx(score.perplexity, abs=2e-3)


def test_the_card_and_the_results_name_the_base_and_no_path(arguments, base_model, tmp_path):
    pretrain(arguments())
    name, card = Path(base_model).name, (tmp_path / "run" / "README.md").read_text()
    assert f"continued from `{name}`" in card and "from scratch" not in card and "base_model" not in card
    details = details_of(tmp_path / "run")
    assert f"`{name}` had a perplexity of {details['perplexity_before']}" in card
    assert str(tmp_path) not in card and base_model not in card and base_model not in json.dumps(details)


def test_a_run_that_resumes_gets_its_weights_from_its_checkpoint(arguments, base_model, tmp_path, monkeypatch):
    whole = pretrain(arguments(output_dir=str(tmp_path / "whole"), max_steps=4))
    part = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "output_dir": str(tmp_path / "part")}
    stop_after = GPT1Trainer.training_step

    def stop(self, *args, **kwargs):
        if self.state.global_step == 3:
            raise KeyboardInterrupt
        return stop_after(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(GPT1Trainer, "training_step", stop)
        with pytest.raises(KeyboardInterrupt):
            pretrain(arguments(**part))
    opened = []

    def watch(model, *args):
        opened.append((model, (tmp_path / "part" / "model.safetensors").is_file()))
        return open_causal_lm(model, *args)

    monkeypatch.setattr(gpt1_hf.training.pretrain, "open_causal_lm", watch)
    resumed = pretrain(arguments(**part))
    assert resumed[0].value == whole[0].value
    assert all(is_trained for _, is_trained in opened)  # opened to be scored only
    left, right = weights_of(tmp_path / "part"), weights_of(tmp_path / "whole")
    assert all(torch.equal(left[name], right[name]) for name in left)
    opened.clear()
    pretrain(arguments(**part))
    assert not opened  # it is finished


def test_a_base_that_was_trained_again_is_another_run(arguments, tmp_path, base_model, capsys):
    import shutil

    shutil.copytree(base_model, tmp_path / "base")
    pretrain(arguments(model=str(tmp_path / "base")))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    with torch.no_grad():
        model.transformer.tokens_embed.weight.add_(1)
    model.save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match="belongs to a run with different settings .weights was"):
        pretrain(arguments(model=str(tmp_path / "base")))
    with pytest.raises(ValueError, match="belongs to a run with different settings"):
        pretrain(arguments(model=base_model))


def test_an_lstm_continues(arguments, tokenizer, tmp_path):
    config = GPT1LSTMConfig(
        vocab_size=len(tokenizer), hidden_size=16, lstm_size=24, num_hidden_layers=1, max_position_embeddings=32
    )
    GPT1LSTMForCausalLM(config).save_pretrained(tmp_path / "lstm")
    tokenizer.save_pretrained(tmp_path / "lstm")
    pretrain(arguments(model=str(tmp_path / "lstm")))
    model = open_causal_lm(str(tmp_path / "run"))
    assert type(model) is GPT1LSTMForCausalLM and model.config.lstm_size == 24
    details = details_of(tmp_path / "run")
    assert details["perplexity_after"] < details["perplexity_before"]


def test_transformers_openai_gpt_continues_and_is_saved_in_our_layout(arguments, tokenizer, tmp_path):
    torch.manual_seed(0)
    config = OpenAIGPTConfig(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2, n_positions=32)
    OpenAIGPTLMHeadModel(config).save_pretrained(tmp_path / "openai")
    with pytest.raises(ValueError, match="model '.*/openai' has no tokenizer: give its own with --tokenizer"):
        pretrain(arguments(model=str(tmp_path / "openai")))
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    pretrain(arguments(model=str(tmp_path / "openai"), tokenizer=str(tmp_path / "tokenizer"), dropout=0.2))
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (saved["model_type"], saved["num_hidden_layers"], saved["attn_pdrop"]) == ("gpt1", 1, 0.2)
    details = details_of(tmp_path / "run")
    assert details["perplexity_after"] < details["perplexity_before"]


def test_a_tokenizer_without_a_models_vocabulary_must_have_its_size(arguments, base_model, texts, tmp_path):
    open_causal_lm(base_model).save_pretrained(tmp_path / "weights")
    GPT1Tokenizer.train(texts, vocab_size=140, show_progress=False).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"another vocabulary than model '.*/weights' \(160 entries\)"):
        pretrain(arguments(model=str(tmp_path / "weights"), tokenizer=str(tmp_path / "other")))


def test_from_the_command_line_gpt1_tiny_learns_a_domain(tmp_path, texts):
    rows = "\n".join(["body", *(f'"{text}"' for text in texts)])
    (tmp_path / "domain.csv").write_text(rows + "\n", encoding="utf-8")
    recipe = "pretrain --config recipes/pretrain/continue.yaml"
    sizes = "--corpus_column body --max_steps 2 --warmup_steps 1 --per_device_train_batch_size 1 --bf16 false"
    options = f"--corpus {tmp_path / 'domain.csv'} --output_dir {tmp_path / 'run'} --use_cpu true --disable_tqdm true"
    assert main(f"{recipe} {sizes} {options}".split()) == 0
    details = details_of(tmp_path / "run")
    assert details["continued_from"] == "gpt1-tiny"
    assert details["perplexity_after"] < details["perplexity_before"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"hidden_size": 64, "architecture": "lstm"},
            r"leave out --architecture lstm \(the model's is transformer\), --hidden_size 64 \(the model's is 32\)$",
        ),
        ({"lstm_size": 48}, r"--lstm_size 48 \(the model's is None\)"),
        ({"model": "no/such/model"}, "model 'no/such/model'"),
    ],
)
def test_what_contradicts_the_model_is_named(arguments, changes, message):
    with pytest.raises(ValueError, match=message):
        pretrain(arguments(**changes))


def test_sizes_that_agree_with_the_model_may_be_given(arguments):
    assert pretrain(arguments(hidden_size=32, num_hidden_layers=2, max_steps=1))


@pytest.mark.parametrize("given", [None, 0.02])
def test_a_run_from_before_positions_had_a_scale_still_counts(given, arguments, tmp_path, capsys):
    """A finished run, and one that resumes from its checkpoint."""
    changes = {"save_strategy": "steps", "save_steps": 1, "position_initializer_range": given}
    pretrain(arguments(**changes))
    files = [tmp_path / "run" / "run.json", *(tmp_path / "run").glob("checkpoint-*/manifest.json")]
    assert len(files) > 1
    for file in files:
        content = json.loads(file.read_text())
        assert content["settings"].pop("position_initializer_range") is None
        file.write_text(json.dumps(content))
    capsys.readouterr()
    pretrain(arguments(**changes))
    assert "already finished" in capsys.readouterr().err
    for name in ("run.json", "results.json"):
        (tmp_path / "run" / name).unlink()
    assert pretrain(arguments(**changes))


def test_another_vocabulary_is_refused_by_name(arguments, base_model, texts, tmp_path):
    GPT1Tokenizer.train(texts, vocab_size=140, show_progress=False).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"tokenizer '.*/other' \(140 entries\) has another vocabulary than model"):
        pretrain(arguments(tokenizer=str(tmp_path / "other")))
    assert not (tmp_path / "run" / "tokens").exists()


def test_another_kind_of_model_is_refused(arguments, tokenizer, tmp_path, capsys):
    GPT2LMHeadModel(GPT2Config(vocab_size=160, n_embd=8, n_layer=1, n_head=1)).save_pretrained(tmp_path / "gpt2")
    corpus = arguments().corpus
    assert main(["pretrain", "--model", str(tmp_path / "gpt2"), "--corpus", corpus, "--use_cpu", "true"]) != 0
    error = capsys.readouterr().err
    assert "Traceback" not in error and "gpt2" in error.strip().splitlines()[-1]


def test_the_model_is_not_overwritten(base_model, corpus):
    with pytest.raises(ValueError, match="is also the output folder: use another --output_dir"):
        PretrainArguments(model=base_model, corpus=corpus, output_dir=base_model)
