"""The configuration: the paper's sizes, OpenAIGPT's names, rejected values, and the content of saved folders."""

import ast
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.models import CODE
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, GPT2Config, OpenAIGPTConfig

import gpt1_hf
from gpt1_hf import (
    GPT1Config,
    GPT1ForCausalLM,
    GPT1ForSequenceClassification,
    GPT1LSTMConfig,
    GPT1Model,
    GPT1Processor,
)
from gpt1_hf.registration import family_classes


AUTO_MAP = {
    "AutoConfig": "configuration_gpt1.GPT1Config",
    "AutoModel": "modeling_gpt1.GPT1Model",
    "AutoModelForCausalLM": "modeling_gpt1.GPT1ForCausalLM",
    "AutoModelForMultipleChoice": "modeling_gpt1.GPT1ForMultipleChoice",
    "AutoModelForSequenceClassification": "modeling_gpt1.GPT1ForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_gpt1.GPT1ForTokenClassification",
    "AutoProcessor": "processing_gpt1.GPT1Processor",
}
SMALL = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}


def config_json(folder) -> dict:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def test_the_defaults_are_the_paper_s_model():
    config = GPT1Config()
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (12, 768, 12)
    assert (config.intermediate_size, config.max_position_embeddings, config.vocab_size) == (3072, 512, 40478)
    assert (config.embd_pdrop, config.attn_pdrop, config.resid_pdrop, config.classifier_dropout) == (0.1,) * 4
    assert (config.initializer_range, config.lm_coef, config.layer_norm_epsilon) == (0.02, 0.5, 1e-5)
    assert (config.hidden_act, config.position_embedding_type) == ("gelu_pytorch_tanh", "learned")
    with torch.device("meta"):
        model = GPT1ForCausalLM(config)
    embeddings = (40478 + 512) * 768
    block = 4 * (768 * 768 + 768) + (768 * 3072 + 3072) + (3072 * 768 + 768) + 2 * 2 * 768
    assert model.num_parameters() == embeddings + 12 * block == 116_534_784


def test_openai_gpt_s_names_are_read_and_written():
    config = GPT1Config(n_embd=24, n_layer=3, n_head=4, n_positions=40, afn="gelu")
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (24, 3, 4)
    assert (config.max_position_embeddings, config.intermediate_size) == (40, 96)
    assert config.hidden_act == "gelu_pytorch_tanh"
    assert (config.n_embd, config.n_layer, config.n_head, config.n_positions, config.n_ctx) == (24, 3, 4, 40, 40)
    config.n_embd = 32
    assert config.hidden_size == 32
    assert GPT1Config(n_ctx=77).max_position_embeddings == 77
    assert GPT1Config(n_inner=10).intermediate_size == 10


@pytest.mark.parametrize(("afn", "expected"), [("gelu", "gelu_pytorch_tanh"), ("relu", "relu"), ("silu", "silu")])
def test_activations_of_openai_gpt_are_translated(afn, expected):
    assert GPT1Config(afn=afn).hidden_act == expected


def test_gelu_under_our_own_name_is_the_exact_one(tmp_path):
    config = GPT1Config(hidden_act="gelu", **SMALL)
    assert config.hidden_act == "gelu"
    config.save_pretrained(tmp_path)
    assert GPT1Config.from_pretrained(tmp_path).hidden_act == "gelu"


def test_a_saved_openai_gpt_config_is_read(tmp_path):
    theirs = OpenAIGPTConfig(n_embd=24, n_layer=3, n_head=4, n_positions=40, vocab_size=99, resid_pdrop=0.3)
    theirs.save_pretrained(tmp_path / "theirs")
    config = GPT1Config.from_pretrained(tmp_path / "theirs")
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (24, 3, 4)
    assert (config.max_position_embeddings, config.vocab_size, config.resid_pdrop) == (40, 99, 0.3)
    assert config.hidden_act == "gelu_pytorch_tanh" and config.model_type == "gpt1"
    config.save_pretrained(tmp_path / "ours")
    assert config_json(tmp_path / "ours")["model_type"] == "gpt1"
    again = AutoConfig.from_pretrained(tmp_path / "ours")
    assert type(again) is GPT1Config
    assert again.hidden_size == 24 and again.hidden_act == "gelu_pytorch_tanh"


def test_the_original_release_s_config_file_is_read(tmp_path):
    # As on the Hub (openai-community/openai-gpt), with both names of the context length.
    names = {"afn": "gelu", "n_ctx": 512, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 512}
    more = {"model_type": "openai-gpt", "n_special": 0, "predict_special_tokens": True, "vocab_size": 40478}
    (tmp_path / "config.json").write_text(json.dumps({**names, **more, "architectures": ["OpenAIGPTLMHeadModel"]}))
    config, default = GPT1Config.from_pretrained(tmp_path), GPT1Config()
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings", "hidden_act"):
        assert getattr(config, name) == getattr(default, name)


def test_a_size_that_is_given_keeps_its_place():
    assert GPT1Config(hidden_size=24, num_attention_heads=4, intermediate_size=5).intermediate_size == 5


@pytest.mark.parametrize("names", [("hidden_size", "num_attention_heads"), ("n_embd", "n_head")])
def test_heads_that_do_not_divide_the_width_are_refused_with_both_numbers(names):
    with pytest.raises(StrictDataclassError, match=r"hidden_size \(30\).*num_attention_heads \(4\)"):
        GPT1Config(**dict(zip(names, (30, 4), strict=True)))


def test_an_unknown_position_kind_is_refused():
    with pytest.raises(StrictDataclassError, match="position_embedding_type"):
        GPT1Config(position_embedding_type="rotary")


@pytest.mark.parametrize("load", [GPT1Config.from_pretrained, GPT1Model.from_pretrained])
def test_the_folder_of_another_model_type_is_refused_by_name(load, tmp_path):
    GPT2Config(n_embd=8, n_head=2, n_layer=1).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="gpt2") as refusal:
        load(tmp_path)
    assert str(tmp_path) in str(refusal.value)


def test_config_json_keeps_every_value(tmp_path):
    config = GPT1Config(
        vocab_size=33,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=50,
        max_position_embeddings=40,
        position_embedding_type="sinusoidal",
        hidden_act="relu",
        embd_pdrop=0.2,
        attn_pdrop=0,
        resid_pdrop=0.4,
        classifier_dropout=0.3,
        layer_norm_epsilon=1e-6,
        initializer_range=0.0,
        position_initializer_range=0.5,
        lm_coef=0.0,
        use_cache=False,
        pad_token_id=0,
        num_labels=5,
    )
    config.save_pretrained(tmp_path / "first")
    again = GPT1Config.from_pretrained(tmp_path / "first")
    assert again.num_labels == 5
    assert {**again.to_dict(), "_name_or_path": ""} == {**config.to_dict(), "_name_or_path": ""}
    again.save_pretrained(tmp_path / "second")
    assert config_json(tmp_path / "second") == config_json(tmp_path / "first")


def test_label_names_survive(tmp_path):
    labels = {0: "entailment", 1: "neutral", 2: "contradiction"}
    GPT1Config(id2label=labels, label2id={name: index for index, name in labels.items()}).save_pretrained(tmp_path)
    assert GPT1Config.from_pretrained(tmp_path).id2label == labels


@pytest.mark.parametrize("model_class", [None, GPT1Model, GPT1ForCausalLM, GPT1ForSequenceClassification])
def test_every_saved_folder_has_the_whole_auto_map_and_its_code(model_class, tokenizer, tmp_path):
    folder = tmp_path / "first"
    config = GPT1Config(**SMALL)
    (config if model_class is None else model_class(config)).save_pretrained(folder)
    assert config_json(folder)["auto_map"] == AUTO_MAP
    assert {path.name for path in folder.glob("*.py")} == CODE["gpt1"]

    # A processor or tokenizer beside it, saving over itself, and saving what was loaded change nothing of that.
    GPT1Processor(tokenizer).save_pretrained(folder)
    loaded = (model_class or GPT1Config).from_pretrained(folder)
    loaded.save_pretrained(folder)
    loaded.save_pretrained(tmp_path / "second")
    for place in (folder, tmp_path / "second"):
        assert config_json(place)["auto_map"] == AUTO_MAP
        assert {path.name for path in place.glob("*.py")} == CODE["gpt1"]
    processor_config = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))
    assert processor_config["auto_map"] == {"AutoProcessor": AUTO_MAP["AutoProcessor"]}


@pytest.mark.parametrize("config_class", [GPT1Config, GPT1LSTMConfig])
def test_the_auto_map_names_the_classes_that_are_registered(config_class):
    classes = family_classes(config_class)
    for auto_class, own_class in classes.items():
        module = own_class.__module__.removeprefix("gpt1_hf.")
        assert config_class.auto_classes[auto_class] == f"{module}.{own_class.__name__}"
        if hasattr(own_class, "config_class"):
            assert own_class.config_class is config_class
    assert classes["AutoConfig"] is config_class and classes["AutoProcessor"] is GPT1Processor
    models = sys.modules[classes["AutoModel"].__module__].__all__
    heads = {name for name in models if not name.endswith("PreTrainedModel")}
    assert heads == {own.__name__ for auto, own in classes.items() if auto.startswith("AutoModel")}


@pytest.mark.parametrize("module", ["configuration_gpt1", "configuration_gpt1_lstm"])
def test_a_configuration_imports_no_model(module):
    tree = ast.parse(Path(gpt1_hf.__file__).with_name(f"{module}.py").read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level}
    assert imported <= {"configuration_gpt1"}


def test_a_processor_alone_carries_its_code(tokenizer, tmp_path):
    GPT1Processor(tokenizer).save_pretrained(tmp_path)
    assert (tmp_path / "processing_gpt1.py").is_file()


def test_a_config_is_pushed_with_its_code(monkeypatch, tmp_path):
    class Hub:
        def create_repo(self, repo_id, **_):
            return SimpleNamespace(repo_id=repo_id)

        def create_commit(self, operations, **_):
            self.uploaded = {operation.path_in_repo for operation in operations}

    api = Hub()
    monkeypatch.setattr("transformers.configuration_utils.hf_api", lambda *_, **__: api)
    monkeypatch.setattr("transformers.utils.hub.hf_api", lambda *_, **__: api)
    (tmp_path / "notes.txt").write_text("not ours")
    GPT1Config(**SMALL).save_pretrained(str(tmp_path), push_to_hub=True, repo_id="someone/something")
    assert api.uploaded == CODE["gpt1"] | {"config.json"}
