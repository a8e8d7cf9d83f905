"""Importing it registers the model family with transformers' Auto classes, and its pipelines."""

from transformers import AutoTokenizer
from transformers.models import auto
from transformers.utils import logging

from . import AS_COMMAND, pipelines
from .configuration_gpt1 import GPT1Config
from .configuration_gpt1_lstm import GPT1LSTMConfig
from .tokenization_gpt1 import GPT1Tokenizer


for _config_class in (GPT1Config, GPT1LSTMConfig):
    AutoTokenizer.register(_config_class, fast_tokenizer_class=GPT1Tokenizer, exist_ok=True)
    for _auto_class, _own_class in _config_class.auto_classes().items():
        _key = _config_class.model_type if _own_class is _config_class else _config_class
        getattr(auto, _auto_class).register(_key, _own_class, exist_ok=True)


def hide_weight_bars():
    """Leave out the progress bars of loading and saving weights; training and tokenizing show their own."""
    logging.disable_progress_bar()


if AS_COMMAND:
    hide_weight_bars()

__all__ = ["hide_weight_bars", "pipelines"]
