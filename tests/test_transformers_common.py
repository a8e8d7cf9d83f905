"""transformers' own common tests (models, generation, pipelines, training) on the GPT-1 classes.

They are in transformers' repository and, in part, in its source distribution, not in the installed package. This runs
them from a folder `tests` of the installed version, with `parameterized` installed; `addopts` is emptied since they
use marks that are not this project's:

    TRANSFORMERS_TESTS=transformers-5.24.0/tests pytest -o addopts= tests/test_transformers_common.py

A source distribution has the model and the training tests, and no sub-folders: what is missing is skipped by name.
"""

import importlib
import json
import os
import sys
import tempfile
import types
import unittest
from pathlib import Path
from unittest import mock

import pytest
import torch
from transformers import PreTrainedModel
from transformers.models.auto import modeling_auto

from gpt1_hf import (
    GPT1Config,
    GPT1ForCausalLM,
    GPT1ForMultipleChoice,
    GPT1ForSequenceClassification,
    GPT1ForTokenClassification,
    GPT1Model,
    GPT1Tokenizer,
)
from gpt1_hf.modeling_gpt1 import GPT1PreTrainedModel


TESTS = os.environ.get("TRANSFORMERS_TESTS")
if not TESTS:
    pytest.skip("set TRANSFORMERS_TESTS to the folder of transformers' own tests", allow_module_level=True)

pytestmark = pytest.mark.slow

# Imports of the mixins from sub-folders, and their replacements if the folders are missing.
PARTS = {
    "exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    "generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
}
# The pipelines that a text decoder can serve.
PIPELINES = {
    "feature-extraction": GPT1Model,
    "text-classification": GPT1ForSequenceClassification,
    "text-generation": GPT1ForCausalLM,
    "token-classification": GPT1ForTokenClassification,
    "zero-shot": GPT1ForSequenceClassification,
}


def has_part(name: str) -> bool:
    return Path(TESTS, *name.split(".")).with_suffix(".py").is_file()


def import_tests(*names: str) -> list[types.ModuleType]:
    """Import modules of transformers' package `tests`."""
    sys.path.insert(0, str(Path(TESTS).absolute().parent))
    for part, contents in PARTS.items():
        if not has_part(part):
            stand_in = types.ModuleType(f"tests.{part}")
            vars(stand_in).update(contents)
            sys.modules[stand_in.__name__] = stand_in
    return [importlib.import_module(f"tests.{name}") for name in names]


def save_tiny_models(folder: Path, models: dict[str, type], config, tokenizer) -> None:
    """Files that `PipelineTesterMixin` reads in place of the Hub's tiny models."""
    summary = {}
    for model_class in set(models.values()):
        saved = folder / config.model_type / model_class.__name__
        torch.manual_seed(0)
        model_class(config).save_pretrained(saved)
        tokenizer.save_pretrained(saved)
        summary[model_class.__name__] = {"tokenizer_classes": ["TokenizersBackend"], "processor_classes": []}
    (folder / "reports").mkdir(exist_ok=True)
    (folder / "reports" / "tiny_model_summary.json").write_text(json.dumps(summary), encoding="utf-8")


def tiny_tokenizer() -> GPT1Tokenizer:
    texts = ["this is a test of the tiny model", "politics, public health and science", "hello world: how are you?"]
    tokenizer = GPT1Tokenizer.train(texts * 3, vocab_size=200, model_max_length=512, show_progress=False)
    return tokenizer


_TINY_MODELS = tempfile.TemporaryDirectory()
os.environ["TRANSFORMERS_TINY_MODEL_PATH"] = _TINY_MODELS.name
_TOKENIZER = tiny_tokenizer()
save_tiny_models(
    Path(_TINY_MODELS.name),
    PIPELINES,
    GPT1Config(
        vocab_size=len(_TOKENIZER),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        pad_token_id=_TOKENIZER.pad_token_id,
    ),
    _TOKENIZER,
)
test_generation, test_modeling_common, test_pipeline_mixin, test_training_mixin = import_tests(
    "generation.test_utils",
    "test_modeling_common",
    "test_pipeline_mixin",
    "test_training_mixin",
)


@pytest.fixture(autouse=True, scope="module")
def _known_by_name():
    # `_prepare_for_class` tells by these names which labels a class takes; the base model takes none.
    known = {
        "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES": GPT1ForCausalLM,
        "MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES": GPT1ForMultipleChoice,
        "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES": GPT1ForSequenceClassification,
        "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES": GPT1ForTokenClassification,
        "MODEL_MAPPING_NAMES": GPT1Model,
    }
    names = {name: {**getattr(modeling_auto, name), "gpt1": known[name].__name__} for name in known}
    with mock.patch.multiple(test_modeling_common, **names):
        yield


class GPT1ModelTester:
    """The sizes of a tiny model and a batch for it, as transformers' mixins ask for them."""

    config_class = GPT1Config
    base_model_class = GPT1Model
    causal_lm_class = GPT1ForCausalLM
    sequence_classification_class = GPT1ForSequenceClassification

    is_training = True
    batch_size = 13
    seq_length = 7
    num_choices = 4
    hidden_size = 32
    num_hidden_layers = 2
    num_attention_heads = 2

    def get_config(self) -> GPT1Config:
        return self.config_class(
            vocab_size=99,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=37,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )

    def prepare_config_and_inputs_for_common(self):
        input_ids = test_modeling_common.ids_tensor([self.batch_size, self.seq_length], 99)
        return self.get_config(), {"input_ids": input_ids, "attention_mask": torch.tril(torch.ones_like(input_ids))}


class CommonTests(
    test_modeling_common.ModelTesterMixin,
    test_generation.GenerationTesterMixin,
    test_pipeline_mixin.PipelineTesterMixin,
    test_training_mixin.TrainingTesterMixin,
):
    model_tester = None

    def test_config(self):
        if not has_part("utils.test_configuration_utils"):
            self.skipTest("utils.test_configuration_utils is not in TRANSFORMERS_TESTS")
        (common,) = import_tests("test_configuration_common")
        common.ConfigTester(self, config_class=self.model_tester.config_class).run_common_tests()

    def run_task_tests(self, task, dtype="float32"):
        name = f"pipelines.test_pipelines_{task.replace('-', '_')}"
        if task in self.pipeline_model_mapping and not has_part(name):
            self.skipTest(f"{name} is not in TRANSFORMERS_TESTS")
        super().run_task_tests(task, dtype)


class GPT1CommonTest(CommonTests, unittest.TestCase):
    model_tester = GPT1ModelTester()
    all_model_classes = (
        GPT1Model,
        GPT1ForCausalLM,
        GPT1ForSequenceClassification,
        GPT1ForMultipleChoice,
        GPT1ForTokenClassification,
    )
    pipeline_model_mapping = PIPELINES
    test_can_init_all_missing_weights_before_2023 = True
    _torch_compile_train_cls = GPT1ForCausalLM

    def test_reverse_loading_mapping(self):
        # It expects the layout of the checkpoints that the mapping reads, which GPT-1 writes on request only.
        with mock.patch.object(GPT1PreTrainedModel, "save_pretrained", PreTrainedModel.save_pretrained):
            super().test_reverse_loading_mapping()

    def test_bc_cache_name_forward(self):
        # From 5.24 on; it expects a warning of the old name, which GPT-1 takes without one: PEFT gives no other.
        self.skipTest("both names are tried in test_caches_and_padding.py")


@pytest.mark.parametrize("part", PARTS)
def test_no_part_is_missing(part):
    if not has_part(part):
        pytest.skip(f"{part} is not in TRANSFORMERS_TESTS: a source distribution has no sub-folders")
