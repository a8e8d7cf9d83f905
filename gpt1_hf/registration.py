"""Importing this module registers the model family with transformers' Auto classes, and its pipelines."""

from importlib import import_module

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


def hide_weight_bars():
    """Hide the progress bars of loading and saving weights. Training and tokenizing show their own."""
    logging.disable_progress_bar()


if AS_COMMAND:
    hide_weight_bars()

__all__ = ["family_classes", "hide_weight_bars", "pipelines"]
