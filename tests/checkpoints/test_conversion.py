"""Conversions against transformers' OpenAIGPT, and against the released arrays read by hand."""

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.release import release_shapes, write_release
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    OpenAIGPTConfig,
    OpenAIGPTForSequenceClassification,
    OpenAIGPTLMHeadModel,
    OpenAIGPTTokenizer,
)

from gpt1_hf import GPT1Config, GPT1ForCausalLM, GPT1ForSequenceClassification, GPT1Tokenizer
from gpt1_hf.checkpoints import conversion as conversion_module
from gpt1_hf.checkpoints.conversion import TOLERANCE, convert
from gpt1_hf.errors import GPT1Error


WIDTH, LAYERS, POSITIONS = 128, 2, 24
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def randomized(model):
    """Give a model weights so far from the initial values that every difference shows."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_scale = ".ln_" in name and name.endswith("weight")
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1 + float(is_scale))
    return model.eval()


def tiny_openai_gpt(vocab_size=50, **changes) -> OpenAIGPTLMHeadModel:
    sizes = {"n_embd": 32, "n_layer": LAYERS, "n_head": 4, "n_positions": POSITIONS}
    return randomized(OpenAIGPTLMHeadModel(OpenAIGPTConfig(**{"vocab_size": vocab_size, **sizes, **changes})))


def tiny_gpt1(vocab_size=50, model_class=GPT1ForCausalLM, **changes):
    sizes = {"hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 4}
    sizes["max_position_embeddings"] = POSITIONS
    return randomized(model_class(GPT1Config(**{"vocab_size": vocab_size, **sizes, **changes})))


def ids_for(model) -> torch.Tensor:
    config = model.config
    shape = (2, config.max_position_embeddings)
    return torch.randint(config.vocab_size, shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def assert_same_logits(ours, theirs):
    ids = ids_for(theirs)
    expected = theirs.eval()(ids).logits
    assert expected.std() > 0.1
    assert_close(ours.eval()(ids).logits, expected, **CLOSE)


def change_config(folder: Path, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


@pytest.fixture
def release(tmp_path) -> Path:
    write_release(tmp_path / "release", release_shapes(POSITIONS, 50, WIDTH, LAYERS))
    return tmp_path / "release"


@pytest.fixture
def vocabulary(tokenizer, tmp_path) -> Path:
    """Files of a vocabulary under OpenAI's names."""
    folder = tmp_path / "vocabulary"
    folder.mkdir()
    tokenizer.backend_tokenizer.model.save(str(folder))
    (folder / "vocab.json").rename(folder / "encoder_bpe_40000.json")
    (folder / "merges.txt").rename(folder / "vocab_40000.bpe")
    return folder


@pytest.fixture
def openai_folder(tmp_path) -> Path:
    tiny_openai_gpt().save_pretrained(tmp_path / "openai")
    return tmp_path / "openai"


# OpenAI's release


def computed_by_hand(arrays: list[np.ndarray], ids: np.ndarray, n_head: int) -> np.ndarray:
    """Logits of the released code's model (`train.py`), in fp64; one sequence, `(seq, vocab)`."""

    def norm(x, scale, shift):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * scale + shift

    def heads(x):
        return x.reshape(len(ids), n_head, -1).transpose(1, 0, 2)

    positions, tokens, *layers = (array.astype(np.float64) for array in arrays)
    h = tokens[ids] + positions[: len(ids)]
    for layer in range(0, len(layers), 12):
        attn_w, attn_b, out_w, out_b, g_1, b_1, up_w, up_b, down_w, down_b, g_2, b_2 = layers[layer : layer + 12]
        query, key, value = map(heads, np.split(h @ attn_w[0] + attn_b, 3, axis=-1))
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
        scores = np.where(np.tril(np.ones(scores.shape[1:])), scores, -1e9)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (weights / weights.sum(-1, keepdims=True) @ value).transpose(1, 0, 2).reshape(len(ids), -1)
        n = norm(h + mixed @ out_w[0] + out_b, g_1, b_1)
        up = n @ up_w[0] + up_b
        up = 0.5 * up * (1 + np.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)))
        h = norm(n + up @ down_w[0] + down_b, g_2, b_2)
    return h @ tokens.T


def test_the_release_computes_what_the_released_code_does(tmp_path):
    arrays = write_release(tmp_path / "release", release_shapes(POSITIONS, 50, WIDTH, LAYERS))
    result = convert(tmp_path / "release", tmp_path / "ours")
    assert result.difference < 1e-10 and not result.has_tokenizer
    assert result.n_parameters == sum(array.size for array in arrays)
    model = GPT1ForCausalLM.from_pretrained(tmp_path / "ours").eval()
    assert model.config.num_attention_heads == WIDTH // 64
    ids = ids_for(model)
    with torch.no_grad():
        logits = model(ids).logits
    for row in range(len(ids)):
        assert_close(logits[row].double().numpy(), computed_by_hand(arrays, ids[row].numpy(), WIDTH // 64), **CLOSE)


def test_the_release_becomes_an_openai_gpt(release, tmp_path):
    convert(release, tmp_path / "ours")
    assert convert(release, tmp_path / "theirs", to="openai-gpt").difference < 1e-10
    ours = GPT1ForCausalLM.from_pretrained(tmp_path / "ours")
    assert_same_logits(ours, OpenAIGPTLMHeadModel.from_pretrained(tmp_path / "theirs"))


def test_the_vocabulary_of_the_release_is_read(tokenizer, vocabulary, tmp_path):
    write_release(vocabulary, release_shapes(POSITIONS, len(tokenizer), WIDTH, 1))
    assert convert(vocabulary, tmp_path / "ours").has_tokenizer
    loaded = AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert loaded("The Lady don't.\nNow")["input_ids"] == tokenizer("The Lady don't.\nNow")["input_ids"]
    assert loaded.model_max_length == POSITIONS
    assert GPT1Config.from_pretrained(tmp_path / "ours").pad_token_id == loaded.pad_token_id == 0


def test_a_vocabulary_larger_than_the_model_is_refused(tokenizer, vocabulary, tmp_path):
    write_release(vocabulary, release_shapes(POSITIONS, len(tokenizer) - 1, WIDTH, 1))
    with pytest.raises(GPT1Error, match=f"{len(tokenizer)} tokens, but the model only {len(tokenizer) - 1}"):
        convert(vocabulary, tmp_path / "ours")


def test_half_precision_arrays_are_read(release, tmp_path):
    for file in release.glob("*.npy"):
        np.save(file, np.load(file).astype(np.float16))
    assert convert(release, tmp_path / "ours").difference < 1e-10


def truncate(folder):
    file = folder / "params_7.npy"
    os.truncate(file, file.stat().st_size - 100)


def pickled(folder):
    np.save(folder / "params_7.npy", np.array([{}], dtype=object), allow_pickle=True)


def zipped(folder):
    with open(folder / "params_7.npy", "wb") as file:
        np.savez(file, np.zeros(3, dtype=np.float32))


def reshaped(change):
    def write(folder):
        shapes = json.loads((folder / "params_shapes.json").read_text())
        (folder / "params_shapes.json").write_text(json.dumps(change(shapes)))

    return write


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "params_shapes.json").unlink(), "lacks params_shapes.json"),
        (lambda folder: (folder / "params_7.npy").unlink(), "lacks params_7.npy"),
        (truncate, "params_7.npy is damaged"),
        (lambda folder: (folder / "params_7.npy").write_bytes(b""), "params_7.npy is damaged"),
        (lambda folder: (folder / "params_7.npy").write_text("<html>"), "params_7.npy is damaged"),
        (pickled, "params_7.npy is damaged"),
        (zipped, "params_7.npy does not hold"),
        (lambda folder: np.save(folder / "params_7.npy", np.arange(9)), "params_7.npy does not hold"),
        (lambda folder: np.save(folder / "params_7.npy", np.ones(9, dtype=np.float32)), "hold .* but .* describes"),
        (lambda folder: (folder / "params_shapes.json").write_text("[[24, 128"), "not valid JSON"),
        (lambda folder: (folder / "params_shapes.json").write_text('{"a": null}'), "does not list the shapes"),
        (reshaped(lambda shapes: shapes[:2] + shapes[3:]), "does not list the shapes"),
        (reshaped(lambda shapes: [shapes[0], shapes[1], *shapes[2:14][::-1]]), "does not list the shapes"),
        (reshaped(lambda _: release_shapes(24, 50, 100, 2)), "does not list the shapes"),
        (reshaped(lambda _: release_shapes(24, 51, 128, 2)), "describes"),
    ],
)
def test_a_damaged_release_is_refused_in_one_sentence(release, damage, message, tmp_path):
    damage(release)
    with pytest.raises(GPT1Error, match=message) as refusal:
        convert(release, tmp_path / "ours")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "ours").exists()


def test_nan_weights_are_found_by_the_comparison(release, tmp_path):
    part = np.load(release / "params_9.npy")
    part[-1] = np.nan
    np.save(release / "params_9.npy", part)
    with pytest.raises(GPT1Error, match="logits differ .* by up to nan"):
        convert(release, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


@pytest.mark.slow
def test_a_release_of_the_original_size(data_dir, tmp_path):
    source = Path(data_dir) / "openai-community" / "openai-gpt"
    shapes = json.loads((source / "params_shapes.json").read_text())
    assert shapes == release_shapes(512, 40478, 768, 12)
    write_release(tmp_path / "release", shapes)
    for name in ("encoder_bpe_40000.json", "vocab_40000.bpe"):
        shutil.copy(source / name, tmp_path / "release")
    result = convert(tmp_path / "release", tmp_path / "ours")
    assert result.n_parameters == 116_534_784 and result.has_tokenizer and result.difference < TOLERANCE
    config = GPT1Config.from_pretrained(tmp_path / "ours")
    default = GPT1Config(pad_token_id=0)
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")
    assert [getattr(config, name) for name in names] == [getattr(default, name) for name in names]


# From OpenAIGPT


@pytest.mark.parametrize("with_prefix", [True, False])
def test_an_openai_gpt_becomes_ours(with_prefix, tmp_path):
    theirs = tiny_openai_gpt()
    (theirs if with_prefix else theirs.transformer).save_pretrained(tmp_path / "theirs")
    file = tmp_path / "theirs" / "model.safetensors"
    weights = load_file(file)
    assert all(name.startswith("transformer.") == with_prefix for name in weights)
    prefix = "transformer." if with_prefix else ""
    for layer in range(LAYERS):  # the causal mask, which checkpoints of older versions hold
        weights[f"{prefix}h.{layer}.attn.bias"] = torch.ones(1, 1, POSITIONS, POSITIONS).tril()
    save_file(weights, file, metadata={"format": "pt"})

    result = convert(tmp_path / "theirs", tmp_path / "ours")
    assert result.difference < 1e-10 and not result.has_tokenizer
    ours, info = GPT1ForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values())
    assert_same_logits(ours, theirs)
    saved = load_file(tmp_path / "ours" / "model.safetensors")
    assert "transformer.h.0.attn.q_proj.weight" in saved and not any("c_attn" in name for name in saved)
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert config["model_type"] == "gpt1" and config["architectures"] == ["GPT1ForCausalLM"]
    assert not any(name.startswith(("n_", "summary_", "afn")) for name in config)


VALUES = {
    "embd_pdrop": 0.11,
    "attn_pdrop": 0.12,
    "resid_pdrop": 0.13,
    "layer_norm_epsilon": 0.01,
    "initializer_range": 0.03,
    "pad_token_id": 3,
    "bos_token_id": 4,
    "eos_token_id": 5,
}


@pytest.mark.parametrize("afn", ["gelu", "relu", "silu", "swish"])
def test_configuration_values_survive_both_conversions(afn, tmp_path):
    theirs = tiny_openai_gpt(afn=afn, summary_first_dropout=0.14, **VALUES)
    theirs.save_pretrained(tmp_path / "theirs")
    convert(tmp_path / "theirs", tmp_path / "ours")
    ours = GPT1ForCausalLM.from_pretrained(tmp_path / "ours")
    assert {name: getattr(ours.config, name) for name in VALUES} == VALUES
    assert ours.config.classifier_dropout == 0.14
    assert ours.transformer.drop.p == 0.11 and ours.transformer.h[0].dropout.p == 0.13
    assert_same_logits(ours, theirs)
    convert(tmp_path / "ours", tmp_path / "again", to="openai-gpt")
    again = OpenAIGPTLMHeadModel.from_pretrained(tmp_path / "again")
    assert again.config.to_dict() == {**theirs.config.to_dict(), "_name_or_path": str(tmp_path / "again")}
    for name, weight in theirs.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_the_type_of_the_weights_is_kept(tmp_path):
    tiny_openai_gpt().to(torch.bfloat16).save_pretrained(tmp_path / "theirs")
    assert convert(tmp_path / "theirs", tmp_path / "ours").difference < 1e-10
    convert(tmp_path / "ours", tmp_path / "again", to="openai-gpt")
    for folder in ("ours", "again"):
        dtypes = {weight.dtype for weight in load_file(tmp_path / folder / "model.safetensors").values()}
        assert dtypes == {torch.bfloat16}


def test_an_untied_head_is_kept(tmp_path):
    theirs = tiny_openai_gpt(tie_word_embeddings=False)
    theirs.save_pretrained(tmp_path / "theirs")
    convert(tmp_path / "theirs", tmp_path / "ours")
    ours = GPT1ForCausalLM.from_pretrained(tmp_path / "ours")
    assert_same_logits(ours, theirs)
    assert not torch.equal(ours.lm_head.weight, ours.transformer.tokens_embed.weight)
    convert(tmp_path / "ours", tmp_path / "again", to="openai-gpt")
    assert_same_logits(ours, OpenAIGPTLMHeadModel.from_pretrained(tmp_path / "again"))


def their_tokenizer(tokenizer) -> OpenAIGPTTokenizer:
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    return OpenAIGPTTokenizer(vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]])


def test_the_tokenizer_of_an_openai_gpt_becomes_ours(tokenizer, tmp_path):
    theirs = their_tokenizer(tokenizer)
    theirs.add_tokens(["[plain]"])
    theirs.add_special_tokens({"cls_token": "[CLS]"})
    tiny_openai_gpt(len(theirs)).save_pretrained(tmp_path / "theirs")
    theirs.save_pretrained(tmp_path / "theirs")
    assert convert(tmp_path / "theirs", tmp_path / "ours").has_tokenizer
    ours = GPT1Tokenizer.from_pretrained(tmp_path / "ours")
    assert ours.get_vocab() == theirs.get_vocab()
    assert (ours.cls_token_id, ours.pad_token_id, ours.unk_token_id) == (len(tokenizer) + 1, 0, 0)
    text = "The Lady don't.\nNow"
    assert ours(text)["input_ids"] == tokenizer(text)["input_ids"] != theirs(text)["input_ids"]
    assert GPT1Config.from_pretrained(tmp_path / "ours").pad_token_id == 0


def test_the_two_vocabulary_files_of_older_checkpoints_are_enough(tokenizer, tmp_path):
    tiny_openai_gpt(len(tokenizer)).save_pretrained(tmp_path / "theirs")
    tokenizer.backend_tokenizer.model.save(str(tmp_path / "theirs"))
    assert convert(tmp_path / "theirs", tmp_path / "ours").has_tokenizer
    text = "The Lady don't.\nNow"
    assert AutoTokenizer.from_pretrained(tmp_path / "ours")(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_any_other_tokenizer_is_kept_unchanged(tokenizer, tmp_path):
    tiny_openai_gpt(len(tokenizer)).save_pretrained(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    convert(tmp_path / "theirs", tmp_path / "ours")
    before, after = (json.loads((tmp_path / name / "tokenizer.json").read_text()) for name in ("theirs", "ours"))
    assert before == after


# Back to OpenAIGPT


def test_our_model_becomes_an_openai_gpt(tokenizer, tmp_path):
    ours = tiny_gpt1(len(tokenizer), hidden_act="gelu_new", pad_token_id=0)
    ours.save_pretrained(tmp_path / "ours")
    tokenizer.save_pretrained(tmp_path / "ours")
    result = convert(tmp_path / "ours", tmp_path / "theirs", to="openai-gpt")
    assert result.difference < 1e-10 and result.has_tokenizer
    theirs, info = OpenAIGPTLMHeadModel.from_pretrained(tmp_path / "theirs", output_loading_info=True)
    assert not any(info.values())
    assert type(theirs.config) is OpenAIGPTConfig and theirs.config.architectures == ["OpenAIGPTLMHeadModel"]
    assert_same_logits(ours, theirs)
    text = "The Lady don't.\nNow"
    exact = AutoTokenizer.from_pretrained(tmp_path / "theirs")
    assert exact(text)["input_ids"] == tokenizer(text)["input_ids"]
    their_own = OpenAIGPTTokenizer.from_pretrained(tmp_path / "theirs")
    assert their_own(text)["input_ids"] == their_tokenizer(tokenizer)(text)["input_ids"]
    # The two files that older versions read.
    reread = GPT1Tokenizer.from_original(tmp_path / "theirs")
    assert reread.get_vocab() == tokenizer.get_vocab() and reread(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert not list((tmp_path / "theirs").glob("*.py"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position_embedding_type": "sinusoidal"}, "'sinusoidal' positions"),
        ({"position_embedding_type": "none"}, "'none' positions"),
        ({"intermediate_size": 64}, "intermediate_size of 64.*128"),
        ({"hidden_act": "gelu"}, "activation 'gelu'"),
        ({"model_class": GPT1ForSequenceClassification}, "a GPT1ForSequenceClassification"),
    ],
)
def test_what_openai_gpt_cannot_express_is_refused(changes, message, tmp_path):
    tiny_gpt1(**changes).save_pretrained(tmp_path / "ours")
    with pytest.raises(GPT1Error, match=message):
        convert(tmp_path / "ours", tmp_path / "theirs", to="openai-gpt")
    assert not (tmp_path / "theirs").exists()


# Refused sources, which leave nothing behind


@pytest.mark.parametrize("layout", ["gpt1", "openai-gpt"])
def test_missing_weights_are_named(layout, tmp_path):
    (tiny_gpt1() if layout == "gpt1" else tiny_openai_gpt()).save_pretrained(tmp_path / "source")
    file = tmp_path / "source" / "model.safetensors"
    kept = {name: weight for name, weight in load_file(file).items() if "h.1.mlp" not in name}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(GPT1Error, match=r"lacks the weights transformer\.h\.1\.mlp\.down_proj\.bias.*4 in all"):
        convert(tmp_path / "source", tmp_path / "out", to="openai-gpt" if layout == "gpt1" else "gpt1")
    assert os.listdir(tmp_path) == ["source"]


def test_weights_that_would_be_dropped_are_named(openai_folder, tmp_path):
    change_config(openai_folder, n_layer=LAYERS - 1)
    with pytest.raises(GPT1Error, match=r"transformer\.h\.1\.attn\.k_proj\.bias \(16 in all\), which do not belong"):
        convert(openai_folder, tmp_path / "out")


def test_weights_of_another_size_are_named(openai_folder, tmp_path):
    change_config(openai_folder, vocab_size=51)
    with pytest.raises(GPT1Error, match=r"transformer\.tokens_embed\.weight of size \[50, 32\].*\[51, 32\]"):
        convert(openai_folder, tmp_path / "out")


def test_a_damaged_checkpoint_is_refused(openai_folder, tmp_path):
    os.truncate(openai_folder / "model.safetensors", 3000)
    with pytest.raises(GPT1Error, match=f"cannot load the weights of model '{openai_folder}'"):
        convert(openai_folder, tmp_path / "out")


def test_pickled_weights_are_not_read(openai_folder, tmp_path):
    weights = load_file(openai_folder / "model.safetensors")
    (openai_folder / "model.safetensors").unlink()
    torch.save(weights, openai_folder / "pytorch_model.bin")
    with pytest.raises(GPT1Error, match="model.safetensors"):
        convert(openai_folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: GPT2LMHeadModel(GPT2Config(vocab_size=10, n_embd=8, n_layer=1, n_head=1)), "a `gpt2` model"),
        (
            lambda: OpenAIGPTForSequenceClassification(OpenAIGPTConfig(vocab_size=10, n_embd=8, n_layer=1, n_head=1)),
            "a OpenAIGPTForSequenceClassification; only language models",
        ),
    ],
)
def test_other_models_are_refused_by_name(model, message, tmp_path):
    model().save_pretrained(tmp_path / "source")
    with pytest.raises(GPT1Error, match=message):
        convert(tmp_path / "source", tmp_path / "out")


def test_the_lstm_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt1_lstm"}))
    with pytest.raises(GPT1Error, match="a `gpt1_lstm` model"):
        convert(tmp_path, tmp_path / "out", to="openai-gpt")


def test_an_unknown_source_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "empty", tmp_path / "nowhere", "someone/some-model"):
        with pytest.raises(GPT1Error, match=r"is neither a folder of OpenAI's release .*params_0\.npy"):
            convert(source, tmp_path / "out")


def test_a_model_is_not_converted_to_its_own_layout(openai_folder, tmp_path):
    with pytest.raises(GPT1Error, match="layout 'openai-gpt' and can be converted to gpt1, not"):
        convert(openai_folder, tmp_path / "out", to="openai-gpt")
    with pytest.raises(GPT1Error, match="not to 'gpt3'"):
        convert(openai_folder, tmp_path / "out", to="gpt3")


def test_a_folder_that_is_not_empty_is_not_written_to(openai_folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(GPT1Error, match="not an empty folder"):
        convert(openai_folder, out)
    assert os.listdir(out) == ["notes.txt"]
    (out / "notes.txt").unlink()
    convert(openai_folder, out)
    assert (out / "model.safetensors").is_file()


@pytest.mark.parametrize("layout", ["gpt1", "openai-gpt", "release"])
def test_a_model_with_different_logits_is_not_kept(layout, release, openai_folder, tmp_path, monkeypatch):
    def blurred(*args, **kwargs):
        model = original(*args, **kwargs)
        with torch.no_grad():
            model.transformer.h[1].ln_2.bias[3] += 1e-3
        return model

    tiny_gpt1().save_pretrained(tmp_path / "ours")
    if layout == "gpt1":
        name, source, to = "_to_openai", tmp_path / "ours", "openai-gpt"
    else:
        name, source, to = "_reference", openai_folder if layout == "openai-gpt" else release, "gpt1"
    original = getattr(conversion_module, name)
    monkeypatch.setattr(conversion_module, name, blurred)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(GPT1Error, match="logits differ .* nothing was saved"):
        convert(source, tmp_path / "out", to=to)
    assert sorted(os.listdir(tmp_path)) == before
