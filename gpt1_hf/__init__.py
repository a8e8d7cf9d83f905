"""GPT-1 (Radford et al., 2018) for the Hugging Face ecosystem.

Importing the package registers the model family with transformers' Auto classes. Everything above the family
(training, evaluation) is imported when it is first asked for. Nothing here touches the network.
"""

from importlib import import_module
from importlib.metadata import version
from typing import Any

from transformers import AutoConfig, AutoProcessor, AutoTokenizer
from transformers.models import auto

from . import modeling_gpt1
from .configuration_gpt1 import GPT1Config
from .modeling_gpt1 import (
    GPT1ForCausalLM,
    GPT1ForMultipleChoice,
    GPT1ForSequenceClassification,
    GPT1ForTokenClassification,
    GPT1Model,
)
from .processing_gpt1 import GPT1Processor
from .tokenization_gpt1 import GPT1Tokenizer


__version__ = version("gpt1_hf")

AutoConfig.register(GPT1Config.model_type, GPT1Config, exist_ok=True)
AutoTokenizer.register(GPT1Config, fast_tokenizer_class=GPT1Tokenizer, exist_ok=True)
AutoProcessor.register(GPT1Config, GPT1Processor, exist_ok=True)
for _auto_class, _model_class in modeling_gpt1.AUTO_CLASSES.items():
    getattr(auto, _auto_class).register(GPT1Config, _model_class, exist_ok=True)

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
    "GPT1Model",
    "GPT1Processor",
    "GPT1Tokenizer",
    "GPT1Trainer",
    "GPT1TrainingArguments",
    "load_task",
]
