"""GPT-1 (Radford et al., 2018) for the Hugging Face ecosystem.

Importing the package registers the model family with transformers' Auto classes, and two pipelines: one for multiple
choice, and one for text classification that uses the model's processor. Everything above the family, such as training
and evaluation, is imported on first use. Importing the package does not use the network.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .console import AS_COMMAND


if TYPE_CHECKING:
    from .configuration_gpt1 import GPT1Config
    from .configuration_gpt1_lstm import GPT1LSTMConfig
    from .data.batching import GPT1DataCollator
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
    from .tasks import load_task
    from .tokenization_gpt1 import GPT1Tokenizer
    from .training.arguments import GPT1TrainingArguments
    from .training.trainer import GPT1Trainer

# Public name -> module that defines it, which is imported on first use.
_HOMES = {
    "GPT1Config": "configuration_gpt1",
    "GPT1DataCollator": "data.batching",
    "GPT1ForCausalLM": "modeling_gpt1",
    "GPT1ForMultipleChoice": "modeling_gpt1",
    "GPT1ForSequenceClassification": "modeling_gpt1",
    "GPT1ForTokenClassification": "modeling_gpt1",
    "GPT1LSTMConfig": "configuration_gpt1_lstm",
    "GPT1LSTMForCausalLM": "modeling_gpt1_lstm",
    "GPT1LSTMForMultipleChoice": "modeling_gpt1_lstm",
    "GPT1LSTMForSequenceClassification": "modeling_gpt1_lstm",
    "GPT1LSTMForTokenClassification": "modeling_gpt1_lstm",
    "GPT1LSTMModel": "modeling_gpt1_lstm",
    "GPT1Model": "modeling_gpt1",
    "GPT1Processor": "processing_gpt1",
    "GPT1TextClassificationPipeline": "pipelines",
    "GPT1Tokenizer": "tokenization_gpt1",
    "GPT1Trainer": "training.trainer",
    "GPT1TrainingArguments": "training.arguments",
    "MultipleChoicePipeline": "pipelines",
    "load_task": "tasks",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module(".registration", __name__)
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


# transformers and torch take seconds to import. The command imports them only after parsing its arguments, so `--help`
# and usage errors appear at once. Modules that load models import `registration.py` themselves.
if not AS_COMMAND:
    import_module(".registration", __name__)


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
