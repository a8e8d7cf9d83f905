"""
Opening checkpoints by name (folder, Hub id, or an embedded model) with errors that say what is wrong.

Code that lies beside a checkpoint is not run, nor asked about; weights are read from safetensors, and nothing is
unpickled.
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

from .. import registration  # noqa: F401 (the Auto classes have to know the family)
from ..configuration_gpt1 import GPT1Config
from ..configuration_gpt1_lstm import GPT1LSTMConfig
from ..errors import GPT1Error
from ..hub_errors import refusal
from ..processing_gpt1 import padding_token
from ..resources import model_path
from ..tokenization_gpt1 import readable_decoder
from ..training_record import trained_on
from .lora import adapter_base, open_adapter


# Of weights that are pickled only, transformers would ask a bot of the Hub for safetensors, in the repository's public
# discussions; and where it is refused weights it takes them for such ones. Nothing is asked of the Hub but files.
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "true")

# What the libraries make of a name, a network, a disk or a file. (That of a request is no OSError in all versions.)
OPEN_ERRORS = (OSError, HTTPError)


def unreachable(model: str, what: str, error: Exception) -> GPT1Error:
    """The error for a part of a model that cannot be had: what is wrong with the name, the Hub or the folder."""
    advice = "give a folder that has one, a Hub id that can be reached, or gpt1-tiny"
    reason = str(error).strip().split("\n")[0]
    if Path(model).is_file():
        reason = "it is a file"
    elif Path(model).is_dir():
        reason = reason if (Path(model) / "config.json").is_file() else "the folder has no config.json"
    elif known := refusal(error, model, "model"):
        reason, remedy = known
        advice = f"{remedy}, or give a folder that has one, or gpt1-tiny"
        return GPT1Error(f"cannot load the {what} of model {model!r}: there is no such folder, and {reason}: {advice}")
    if reason.startswith("Couldn't instantiate the backend tokenizer"):  # all that the library says of missing files
        reason = "it has no tokenizer files that can be read"
    return GPT1Error(f"cannot load the {what} of model {model!r}: {advice} ({reason})")


def open_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """
    Load a tokenizer; one without a padding token pads with `<unk>`, see [`padding_token`].

    Raises:
        GPT1Error: if there is none of that name.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_path(model), trust_remote_code=False)
    except (*OPEN_ERRORS, ValueError) as error:
        raise unreachable(model, "tokenizer", error) from error
    tokenizer.pad_token = padding_token(tokenizer)
    # The library's OpenAIGPTTokenizer, and folders that earlier versions saved: a space between each two words.
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and isinstance(backend.decoder, decoders.BPEDecoder):
        added = {token.content for token in backend.get_added_tokens_decoder().values()}
        backend.decoder = readable_decoder(backend.get_vocab(with_added_tokens=False).keys() - added)
    return tokenizer


def open_processor(model: str) -> ProcessorMixin | PreTrainedTokenizerBase:
    """
    Load a processor, which of a model without one is its tokenizer.

    Raises:
        GPT1Error: if there is none of that name.
    """
    try:
        return AutoProcessor.from_pretrained(model_path(model), trust_remote_code=False)
    except (*OPEN_ERRORS, ValueError) as error:
        raise unreachable(model, "processor", error) from error


def open_config(model: str, **changes: Any) -> PreTrainedConfig:
    """
    Load the configuration of a checkpoint of GPT-1 or of the LSTM, with some of its values changed.

    Args:
        model (`str`):
            Folder, Hub id, or embedded model.
        changes (*optional*):
            New values; those that the architecture does not have (the LSTM has no `attn_pdrop`) are passed over.

    Raises:
        GPT1Error: if there is none of that name.
        ValueError: if it is of another model type.
    """
    try:
        config_dict, _ = PreTrainedConfig.get_config_dict(model_path(model))
        is_lstm = config_dict.get("model_type") == GPT1LSTMConfig.model_type
        # GPT1Config also reads transformers' OpenAIGPT, and refuses the rest by name.
        return (GPT1LSTMConfig if is_lstm else GPT1Config).from_pretrained(model_path(model), **changes)
    except OPEN_ERRORS as error:
        raise unreachable(model, "configuration", error) from error


def _check_libraries(model: str, config: PreTrainedConfig):
    """Raise if a checkpoint is quantized and what reads it is not installed."""
    if getattr(config, "quantization_config", None) is not None and importlib.util.find_spec("torchao") is None:
        raise GPT1Error(f"model {model!r} is quantized and needs the library torchao: pip install 'gpt1_hf[quantize]'")


def _check_language_model(model: str, config: PreTrainedConfig):
    """Raise if a checkpoint has a task head: it would be left out, and what is below it was trained for the task."""
    record = trained_on(config)
    for name in config.architectures or (["a task head"] if record else []):
        if not re.search("Classification|MultipleChoice|QuestionAnswering|task head", name):
            continue
        task = f", fine-tuned on {record['task']}" if "task" in record else ""
        raise GPT1Error(
            f"model {model!r} is no language model but one for a task ({name}{task}): `gpt1 evaluate --task` scores "
            "it; give the language model that it was made from"
        )


def open_causal_lm(model: str) -> PreTrainedModel:
    """
    Load a causal language model of any architecture, in fp32.

    Raises:
        GPT1Error: if there is none of that name, or it was fine-tuned for a task.
    """
    from transformers import AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(model_path(model), trust_remote_code=False)
        _check_language_model(model, config)
        if config.model_type in ("openai-gpt", GPT1Config.model_type, GPT1LSTMConfig.model_type):
            config = open_config(model)
            return open_model(AutoModelForCausalLM._model_mapping[type(config)], model, config)
        _check_libraries(model, config)
        return AutoModelForCausalLM.from_pretrained(
            model_path(model), config=config, dtype="float32", use_safetensors=True, trust_remote_code=False
        )
    except GPT1Error:
        raise
    except (*OPEN_ERRORS, ValueError, SafetensorError) as error:
        raise unreachable(model, "weights", error) from error


def compute_device() -> torch.device:
    """The accelerator, if there is one."""
    if torch.accelerator.is_available():
        return torch.accelerator.current_accelerator()
    return torch.device("cpu")


def new_model(auto_class: type, config: PreTrainedConfig) -> PreTrainedModel:
    """
    Draw a new model in fp32, whatever type the configuration names: that of the weights it was saved with. Half
    precision has no place for a small update of a weight near 1, so that training in it loses updates.

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
    Load the weights of a checkpoint of GPT-1 or of the LSTM; those of an adapter are merged into its base model.

    Args:
        model_class (`type`):
            Class to load, or an Auto class, which finds it by the configuration.
        model (`str`):
            Folder, Hub id, or embedded model.
        config (`PreTrainedConfig`):
            Its configuration.
        new_head (`bool`, *optional*, defaults to `False`):
            Whether the task head may be missing, or be another task's, to be trained.
        dtype (`str`, *optional*, defaults to `"float32"`):
            Type of the weights; `"auto"` is that of the checkpoint's files, which its configuration need not name.
        exact (`bool`, *optional*, defaults to `False`):
            Whether the checkpoint may hold nothing that the class has no place for.

    Raises:
        GPT1Error: if there is no such checkpoint, its files are damaged, or weights are missing from it, have another
        size than the configuration says, or are left over where `exact` is set.
    """
    base = adapter_base(model)
    if base is not None:
        base_config = copy.deepcopy(config)
        base_config.vocab_size = open_config(base).vocab_size
        return open_adapter(model, open_model(model_class, base, base_config, new_head=True, dtype=dtype), config)
    _check_libraries(model, config)
    if dtype == "auto" and getattr(config, "quantization_config", None) is None:
        config = copy.deepcopy(config)
        config.dtype = None  # the library would take it for the files' type
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # the table of missing weights; they are checked here
    try:
        loaded, info = model_class.from_pretrained(
            model_path(model),
            config=config,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # checked here too
            use_safetensors=True,
        )
    except (*OPEN_ERRORS, SafetensorError) as error:
        raise unreachable(model, "weights", error) from error
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
            f"model {model!r} has {key} of size {list(found)}, but its configuration asks for {list(expected)}: the "
            "two do not belong together"
        )
    if exact and (left_over := sorted(info["unexpected_keys"])):
        raise GPT1Error(
            f"model {model!r} holds the weights {left_over[0]} ({len(left_over)} in all), for which its configuration "
            f"has no place in a {model_class.__name__}"
        )
    return loaded
