"""Importing this module registers the model family with transformers' Auto classes, its pipelines, and PEFT."""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from transformers import AutoTokenizer
from transformers.models import auto
from transformers.utils import logging

from . import pipelines
from .configuration_gpt1 import GPT1Config, GPT1FamilyConfig
from .configuration_gpt1_lstm import GPT1LSTMConfig
from .console import AS_COMMAND
from .tokenization_gpt1 import GPT1Tokenizer


def family_classes(config_class: type[GPT1FamilyConfig]) -> dict[str, type]:
    """Auto class -> class of the family, for the references in a configuration's `auto_classes`."""
    references = {auto_class: name.split(".") for auto_class, name in config_class.auto_classes.items()}
    return {
        auto_class: getattr(import_module(f".{module}", __package__), name)
        for auto_class, (module, name) in references.items()
    }


for _config_class in (GPT1Config, GPT1LSTMConfig):
    AutoTokenizer.register(_config_class, fast_tokenizer_class=GPT1Tokenizer, exist_ok=True)
    for _auto_class, _own_class in family_classes(_config_class).items():
        _key = _config_class.model_type if _own_class is _config_class else _config_class
        getattr(auto, _auto_class).register(_key, _own_class, exist_ok=True)


# PEFT's module that says which layers each method adapts in each type of model.
PEFT_DEFAULTS = "peft.utils.constants"
# Layer of a Llama block -> layer of a GPT-1 block.
SAME_LAYER = {
    **{name: name for name in ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")},
    "input_layernorm": "ln_1",
    "post_attention_layernorm": "ln_2",
}


def add_peft_defaults(constants: ModuleType):
    """
    Give every PEFT method that adapts layers of its own choice the same layers in GPT-1 as in Llama, so that
    `LoraConfig(task_type="CAUSAL_LM")` needs no `target_modules`. GPT-1's other model, the LSTM, has none of them.

    Args:
        constants (module):
            `peft.utils.constants`. Its dictionaries are changed in place, since the methods import them.
    """
    for name, layers_of in vars(constants).items():
        if name.startswith("TRANSFORMERS_MODELS_TO_") and name.endswith("_MODULES_MAPPING") and "llama" in layers_of:
            own = [SAME_LAYER[layer] for layer in layers_of["llama"] if layer in SAME_LAYER]
            layers_of.setdefault(GPT1Config.model_type, own)


class PeftWatcher(MetaPathFinder):
    """Adds the defaults when PEFT is imported, since importing it here would take seconds."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != PEFT_DEFAULTS:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_add(module: ModuleType):
            load(module)
            add_peft_defaults(module)

        spec.loader.exec_module = load_and_add  # type: ignore[method-assign]
        return spec


if PEFT_DEFAULTS in sys.modules:
    add_peft_defaults(sys.modules[PEFT_DEFAULTS])
else:
    sys.meta_path.insert(0, PeftWatcher())


def hide_weight_bars():
    """Hide the progress bars of loading and saving weights. Training and tokenizing show their own."""
    logging.disable_progress_bar()


if AS_COMMAND:
    hide_weight_bars()

__all__ = ["family_classes", "hide_weight_bars", "pipelines"]
