"""GPT-1 (Radford et al., 2018) for the Hugging Face ecosystem.

Importing the package registers the model family with transformers' Auto classes, a pipeline for multiple choice, and
one for text classification that reads with the model's processor. Everything above the family (training, evaluation)
is imported when it is first asked for. Nothing here touches the network.
"""

from importlib import import_module
from importlib.metadata import version
from typing import Any

from transformers import AutoTokenizer
from transformers.models import auto

from .configuration_gpt1 import GPT1Config
from .configuration_gpt1_lstm import GPT1LSTMConfig
from .modeling_gpt1 import (
    GPT1ForCausalLM,
    GPT1ForMultipleChoice,
    GPT1ForSequenceClassification,
    GPT1ForTokenClassification,
    GPT1Model,
)
from .modeling_gpt1_lstm import (
    GPT1LSTMForCausalLM,
    GPT1LSTMForMultipleChoice,
    GPT1LSTMForSequenceClassification,
    GPT1LSTMForTokenClassification,
    GPT1LSTMModel,
)
from .pipelines import GPT1TextClassificationPipeline, MultipleChoicePipeline
from .processing_gpt1 import GPT1Processor
from .tokenization_gpt1 import GPT1Tokenizer


__version__ = version("gpt1_hf")

for _config_class in (GPT1Config, GPT1LSTMConfig):
    AutoTokenizer.register(_config_class, fast_tokenizer_class=GPT1Tokenizer, exist_ok=True)
    for _auto_class, _own_class in _config_class.auto_classes().items():
        _key = _config_class.model_type if _own_class is _config_class else _config_class
        getattr(auto, _auto_class).register(_key, _own_class, exist_ok=True)

# Public name -> module that defines it, imported on first use.
_LAZY = {
    "GPT1DataCollator": "data.collator",
    "GPT1Trainer": "training.trainer",
    "GPT1TrainingArguments": "training.arguments",
    "load_task": "tasks",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


__all__ = [
    "GPT1Config",
    "GPT1DataCollator",
    "GPT1ForCausalLM",
    "GPT1ForMultipleChoice",
    "GPT1ForSequenceClassification",
    "GPT1ForTokenClassification",
    "GPT1LSTMConfig",
    "GPT1LSTMForCausalLM",
    "GPT1LSTMForMultipleChoice",
    "GPT1LSTMForSequenceClassification",
    "GPT1LSTMForTokenClassification",
    "GPT1LSTMModel",
    "GPT1Model",
    "GPT1Processor",
    "GPT1TextClassificationPipeline",
    "GPT1Tokenizer",
    "GPT1Trainer",
    "GPT1TrainingArguments",
    "MultipleChoicePipeline",
    "load_task",
]
