"""
Opening checkpoints by name: a folder, a Hub id, or an embedded model.

Code in a checkpoint's folder is never run. Weights are read from safetensors; nothing is unpickled.
"""

import copy
import importlib.util
import os
import re
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HTTPError
from safetensors import SafetensorError
from tokenizers import decoders
from transformers import (
    AutoConfig,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.utils import logging

from .. import registration  # noqa: F401 (registers the Auto classes)
from ..configuration_gpt1 import GPT1Config
from ..configuration_gpt1_lstm import GPT1LSTMConfig
from ..errors import GPT1Error
from ..hub_errors import load_failure
from ..processing_gpt1 import forget_location, padding_token
from ..resources import model_path
from ..tokenization_gpt1 import readable_decoder
from ..training_record import trained_on
from .lora import adapter_base, open_adapter


# If a repository has no safetensors, or the Hub does not send them, transformers asks a bot for a conversion in the
# repository's public discussions. This package requests nothing but files.
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "true")

# Errors that the libraries raise for a bad name, network, disk or file. (HTTPError is not an OSError in all versions.)
OPEN_ERRORS = (OSError, HTTPError)


def load_error(model: str, part: str, error: Exception) -> GPT1Error:
    """The error for a part of a model that cannot be loaded. It names the fault of the name, the Hub or the folder."""
    advice = "give the folder of a saved model, an accessible Hub id, or gpt1-tiny"
    reason = str(error).strip().split("\n")[0]
    if Path(model).is_file():
        reason = "it is a file"
    elif Path(model).is_dir():
        reason = reason if (Path(model) / "config.json").is_file() else "the folder has no config.json"
    elif known := load_failure(error, model, "model"):
        reason, remedy = known
        advice = f"{remedy}, or give the folder of a saved model, or gpt1-tiny"
        return GPT1Error(f"cannot load the {part} of model {model!r}: there is no such folder, and {reason}: {advice}")
    if reason.startswith("Couldn't instantiate the backend tokenizer"):  # for any missing file
        reason = "it has no readable tokenizer files"
    return GPT1Error(f"cannot load the {part} of model {model!r}: {advice} ({reason})")


def open_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """
    Load a tokenizer. If it has no padding token, it pads with `<unk>`; see [`padding_token`].

    Raises:
        GPT1Error: if it cannot be loaded.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_path(model), trust_remote_code=False)
    except (*OPEN_ERRORS, ValueError) as error:
        raise load_error(model, "tokenizer", error) from error
    tokenizer.pad_token = padding_token(tokenizer)
    forget_location(tokenizer)
    # OpenAIGPTTokenizer, and folders of earlier versions, would put a space between all tokens.
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and isinstance(backend.decoder, decoders.BPEDecoder):
        added = {token.content for token in backend.get_added_tokens_decoder().values()}
        backend.decoder = readable_decoder(backend.get_vocab(with_added_tokens=False).keys() - added)
    return tokenizer


def open_processor(model: str) -> ProcessorMixin | PreTrainedTokenizerBase:
    """
    Load a processor; for a model without one, its tokenizer.

    Raises:
        GPT1Error: if it cannot be loaded.
    """
    try:
        return AutoProcessor.from_pretrained(model_path(model), trust_remote_code=False)
    except (*OPEN_ERRORS, ValueError) as error:
        raise load_error(model, "processor", error) from error


def open_config(model: str, **changes: Any) -> PreTrainedConfig:
    """
    Load the configuration of a GPT-1 or LSTM checkpoint, with some values changed.

    Args:
        model (`str`):
            Folder, Hub id, or embedded model.
        changes (*optional*):
            New values. Unknown ones are ignored: an LSTM has no `attn_pdrop`.

    Raises:
        GPT1Error: if it cannot be loaded.
        ValueError: if it is another type of model.
    """
    try:
        config_dict, _ = PreTrainedConfig.get_config_dict(model_path(model))
        is_lstm = config_dict.get("model_type") == GPT1LSTMConfig.model_type
        # GPT1Config also reads transformers' OpenAIGPT, and refuses all other types.
        return (GPT1LSTMConfig if is_lstm else GPT1Config).from_pretrained(model_path(model), **changes)
    except OPEN_ERRORS as error:
        raise load_error(model, "configuration", error) from error


def _check_libraries(model: str, config: PreTrainedConfig):
    """Raise if a checkpoint is quantized and torchao is not installed."""
    if getattr(config, "quantization_config", None) is not None and importlib.util.find_spec("torchao") is None:
        raise GPT1Error(f"model {model!r} is quantized and needs the library torchao: pip install 'gpt1_hf[quantize]'")


def _check_language_model(model: str, config: PreTrainedConfig):
    """Raise if a checkpoint has a task head: loading would drop the head, and the rest was trained for the task."""
    record = trained_on(config)
    for name in config.architectures or (["a task head"] if record else []):
        if not re.search("Classification|MultipleChoice|QuestionAnswering|task head", name):
            continue
        task = f", fine-tuned on {record['task']}" if "task" in record else ""
        raise GPT1Error(
            f"model {model!r} is not a language model but a task model ({name}{task}): score it with "
            "`gpt1 evaluate --task`, or give the language model that it was fine-tuned from"
        )


def open_causal_lm(model: str, own_config: PreTrainedConfig | None = None) -> PreTrainedModel:
    """
    Load a causal language model of any architecture, in fp32.

    Args:
        model (`str`):
            Folder, Hub id, or embedded model.
        own_config (`PreTrainedConfig`, *optional*):
            Configuration to use for a GPT-1 or LSTM, such as one with another dropout. Default: the model's.

    Raises:
        GPT1Error: if it cannot be loaded, or was fine-tuned for a task.
    """
    from transformers import AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(model_path(model), trust_remote_code=False)
        _check_language_model(model, config)
        if config.model_type in ("openai-gpt", GPT1Config.model_type, GPT1LSTMConfig.model_type):
            config = own_config or open_config(model)
            return open_model(AutoModelForCausalLM._model_mapping[type(config)], model, config)
        _check_libraries(model, config)
        return AutoModelForCausalLM.from_pretrained(
            model_path(model), config=config, dtype="float32", use_safetensors=True, trust_remote_code=False
        )
    except GPT1Error:
        raise
    except (*OPEN_ERRORS, ValueError, SafetensorError) as error:
        raise load_error(model, "weights", error) from error


def compute_device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    if torch.accelerator.is_available():
        return torch.accelerator.current_accelerator()
    return torch.device("cpu")


def new_model(auto_class: type, config: PreTrainedConfig) -> PreTrainedModel:
    """
    Create a model with new weights in fp32, ignoring the configuration's `dtype`, which is the type of saved weights.
    Half-precision weights would lose updates in training: a small change of a weight near 1 is rounded away.

    Args:
        auto_class (`type`):
            Auto class of the model.
        config (`PreTrainedConfig`):
            Its configuration.
    """
    return auto_class.from_config(config, dtype=torch.float32)


def open_model(
    model_class: type[PreTrainedModel],
    model: str,
    config: PreTrainedConfig,
    new_head: bool = False,
    dtype: str = "float32",
    exact: bool = False,
) -> PreTrainedModel:
    """
    Load a GPT-1 or LSTM checkpoint. An adapter is merged into its base model.

    Args:
        model_class (`type`):
            Class to load, or an Auto class.
        model (`str`):
            Folder, Hub id, or embedded model.
        config (`PreTrainedConfig`):
            Its configuration.
        new_head (`bool`, *optional*, defaults to `False`):
            Whether the task head may be missing or have another shape. It is then created with new weights.
        dtype (`str`, *optional*, defaults to `"float32"`):
            Type of the weights; `"auto"` is the type in the checkpoint's files, even if its configuration has another.
        exact (`bool`, *optional*, defaults to `False`):
            Whether weights that the class does not use are an error.

    Raises:
        GPT1Error: if the checkpoint cannot be loaded, if weights are missing or their size differs from
        the configuration's, or, with `exact`, if weights are left over.
    """
    base = adapter_base(model)
    if base is not None:
        base_config = copy.deepcopy(config)
        base_config.vocab_size = open_config(base).vocab_size
        return open_adapter(model, open_model(model_class, base, base_config, new_head=True, dtype=dtype), config)
    _check_libraries(model, config)
    if dtype == "auto" and getattr(config, "quantization_config", None) is None:
        config = copy.deepcopy(config)
        config.dtype = None  # the library would prefer it to the files' type
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # hides the table of missing weights, which are checked below
    try:
        loaded, info = model_class.from_pretrained(
            model_path(model),
            config=config,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # checked below
            use_safetensors=True,
        )
    except (*OPEN_ERRORS, SafetensorError) as error:
        raise load_error(model, "weights", error) from error
    finally:
        logging.set_verbosity(verbosity)
    missing = sorted(key for key in info["missing_keys"] if not (new_head and key.startswith("classifier.")))
    if missing:
        advice = "fine-tune it first" if missing[0].startswith("classifier.") else "the checkpoint is incomplete"
        names = ", ".join(missing[:4])
        raise GPT1Error(f"model {model!r} lacks the weights {names} ({len(missing)} in all): {advice}")
    for key, found, expected in sorted(info["mismatched_keys"]):
        if new_head and key.startswith("classifier."):
            continue
        raise GPT1Error(
            f"model {model!r} has {key} of size {list(found)}, but its configuration says {list(expected)}: use the "
            "config.json that was saved with the weights"
        )
    if exact and (left_over := sorted(info["unexpected_keys"])):
        raise GPT1Error(
            f"model {model!r} has the weights {left_over[0]} ({len(left_over)} in all), which do not belong to a "
            f"{model_class.__name__} with its configuration: use the config.json that was saved with the weights"
        )
    return loaded
