"""LoRA (Hu et al., 2021) with PEFT: defaults that also train what fine-tuning adds to a GPT-1; saved ones opened.

Under PEFT all weights of the base model are frozen. GPT-1's fine-tuning adds a head and three rows of the embedding
matrix, the special tokens; an adapter that left those at random would read its answer off an untrained token.
"""

import copy
import importlib.util
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from ..errors import GPT1Error
from ..processing_gpt1 import TASK_TOKENS
from ..resources import model_path


if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

ADAPTER_WEIGHTS = "adapter_model.safetensors"  # PEFT's name; it would unpickle others
# Every linear layer of a block of GPT-1.
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
# The end of a class's name -> PEFT's name of what it does; it has none for multiple choice.
TASK_TYPES = {
    "ForCausalLM": "CAUSAL_LM",
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
}


def lora_config(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    r: int = 16,
    alpha: int = 32,
    dropout: float = 0.1,
) -> "LoraConfig":
    """
    A `LoraConfig` for a GPT-1 with any head: adapters on every linear layer of the blocks, and, trained whole, the
    head and the embeddings of the special tokens.

    Args:
        model (`PreTrainedModel`):
            GPT-1 that is to be adapted, its embeddings already resized for the special tokens.
        tokenizer (`PreTrainedTokenizerBase`, *optional*):
            Tokenizer, for the ids of start, delimiter and extract. Without one, or if it has none of them, no row of
            the embeddings is trained.
        r (`int`, *optional*, defaults to 16):
            Rank.
        alpha (`int`, *optional*, defaults to 32):
            The adapters' output is scaled by `alpha / r`.
        dropout (`float`, *optional*, defaults to 0.1):
            Dropout before the adapters.

    Returns:
        `LoraConfig`, for `peft.get_peft_model`.

    Raises:
        GPT1Error: if PEFT is not installed, or the model has no such layers (the LSTM).
    """
    _check_peft()
    from peft import LoraConfig

    if not any(name.rsplit(".", 1)[-1] in TARGETS for name, _ in model.named_modules()):
        raise GPT1Error(
            f"LoRA adapts the linear layers of GPT-1's blocks, and a {type(model).__name__} has none: train it whole"
        )
    vocab = tokenizer.get_vocab() if tokenizer is not None else {}
    rows = [vocab[token] for token in TASK_TOKENS.values() if token in vocab]
    has_head = hasattr(model, "classifier")
    return LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(TARGETS),
        modules_to_save=["classifier"] if has_head else None,
        trainable_token_indices={"tokens_embed": rows} if rows else None,
        task_type=next((kind for end, kind in TASK_TYPES.items() if type(model).__name__.endswith(end)), None),
    )


def add_lora(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    base: str,
    r: int = 16,
    alpha: int = 32,
    dropout: float = 0.1,
) -> "PeftModel":
    """
    Freeze a model and add what [`lora_config`] says to it.

    Args:
        model (`PreTrainedModel`), tokenizer (`PreTrainedTokenizerBase`), r, alpha, dropout:
            As in [`lora_config`].
        base (`str`):
            Folder, Hub id, or embedded model that `model` was loaded from; adapters are saved with its name.
    """
    config = lora_config(model, tokenizer, r, alpha, dropout)
    from peft import get_peft_model

    adapted = get_peft_model(model, config)
    path = model_path(base)
    config.base_model_name_or_path = str(Path(path).resolve()) if Path(path).exists() else path
    return adapted


def save_adapter(model: "PeftModel", folder: str, state_dict: dict[str, torch.Tensor] | None = None):
    """
    Save an adapter, and beside it the configuration of the whole model, for [`open_adapter`].

    Args:
        model (`PeftModel`):
            Model with the adapter.
        folder (`str`):
            Where to save it.
        state_dict (`dict`, *optional*):
            The model's weights, where training has sharded them.
    """
    with kept_card(folder):
        # The three rows are in the adapter; PEFT would add the whole embedding matrix, since that has grown.
        model.save_pretrained(folder, state_dict=state_dict, save_embedding_layers=False)
    base = model.get_base_model()
    config = copy.deepcopy(base.config)
    config.use_cache = True  # the Trainer switched it off
    config.architectures = [type(base).__name__]
    config.save_pretrained(folder)


@contextmanager
def kept_card(folder: str) -> Iterator[None]:
    """Leave a folder's card as it is, also if there is none: PEFT writes into it, or a form to fill in."""
    card = Path(folder) / "README.md"
    written = card.read_bytes() if card.exists() else None
    try:
        yield
    finally:
        if written is not None:
            card.write_bytes(written)
        else:
            card.unlink(missing_ok=True)


def adapter_base(model: str) -> str | None:
    """The base model of a saved adapter; `None` if a folder or Hub id holds none."""
    file = find_adapter_config_file(model_path(model))
    if file is None:
        return None
    try:
        base = json.loads(Path(file).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, LookupError, TypeError):
        base = None
    if not isinstance(base, str):
        raise GPT1Error(f"{file} names no base model (base_model_name_or_path): save the adapter again")
    return base


def open_adapter(model: str, base: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    """
    Merge a saved adapter into its base model.

    Args:
        model (`str`):
            Folder or Hub id of the adapter.
        base (`PreTrainedModel`):
            Its base model with the adapter's kind of head; changed in place.
        config (`PreTrainedConfig`):
            Configuration that was saved beside the adapter.

    Returns:
        `PreTrainedModel`: a model as any other, without PEFT.
    """
    _check_peft()
    from peft import PeftModel

    if cached_file(model_path(model), ADAPTER_WEIGHTS, _raise_exceptions_for_missing_entries=False) is None:
        raise GPT1Error(f"adapter {model!r} has no {ADAPTER_WEIGHTS}, and weights in other formats are not read")
    base.resize_token_embeddings(config.vocab_size, mean_resizing=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Found missing adapter keys")
        try:
            return PeftModel.from_pretrained(base, model_path(model)).merge_and_unload()
        except (UserWarning, KeyError) as error:
            raise GPT1Error(
                f"the adapter {model!r} lacks weights that its configuration names: save it again"
            ) from error
        except (RuntimeError, SafetensorError) as error:
            raise GPT1Error(
                f"the weights of the adapter {model!r} do not fit its base model, or are damaged"
            ) from error


def _check_peft():
    if importlib.util.find_spec("peft") is None:
        raise GPT1Error("adapters need the library peft: pip install 'gpt1_hf[peft]'")


__all__ = ["add_lora", "adapter_base", "lora_config", "open_adapter", "save_adapter"]
