"""LoRA (Hu et al., 2021) with PEFT: creating, saving and opening adapters.

PEFT freezes all weights of the base model. Fine-tuning adds a head and the embeddings of three special tokens to a
GPT-1, so an adapter must train these too: otherwise it would read its answer from an untrained token.
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
from transformers.utils.peft_utils import ADAPTER_SAFE_WEIGHTS_NAME, find_adapter_config_file

from ..errors import GPT1Error
from ..processing_gpt1 import TASK_TOKENS
from ..resources import model_path


if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

# All linear layers of a GPT-1 block.
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
# End of a class's name -> PEFT's task type. PEFT has none for multiple choice.
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
    A `LoraConfig` for a GPT-1 with any head: adapters on all linear layers of the blocks; the head and the embeddings
    of the special tokens are trained in full.

    Args:
        model (`PreTrainedModel`):
            GPT-1 to adapt, with its embeddings already resized for the special tokens.
        tokenizer (`PreTrainedTokenizerBase`, *optional*):
            Tokenizer, for the ids of the start, delimiter and extract tokens. Without them, no embedding is trained.
        r (`int`, *optional*, defaults to 16):
            Rank.
        alpha (`int`, *optional*, defaults to 32):
            Scale: the adapters' output is multiplied by `alpha / r`.
        dropout (`float`, *optional*, defaults to 0.1):
            Dropout before the adapters.

    Returns:
        `LoraConfig`, for `peft.get_peft_model`.

    Raises:
        GPT1Error: if PEFT is not installed, or the model has no such layers (an LSTM).
    """
    _check_peft()
    from peft import LoraConfig

    if not any(name.rsplit(".", 1)[-1] in TARGETS for name, _ in model.named_modules()):
        raise GPT1Error(
            f"LoRA adapts the linear layers of GPT-1's blocks, and a {type(model).__name__} has none: fine-tune it "
            "without --peft"
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
    Freeze a model and add an adapter with the configuration of [`lora_config`].

    Args:
        model (`PreTrainedModel`), tokenizer (`PreTrainedTokenizerBase`), r, alpha, dropout:
            As in [`lora_config`].
        base (`str`):
            Folder, Hub id, or embedded model that `model` was loaded from; saved with the adapter.
    """
    config = lora_config(model, tokenizer, r, alpha, dropout)
    from peft import get_peft_model

    adapted = get_peft_model(model, config)
    path = model_path(base)
    config.base_model_name_or_path = str(Path(path).resolve()) if Path(path).exists() else path
    return adapted


def save_adapter(model: "PeftModel", folder: str, state_dict: dict[str, torch.Tensor] | None = None):
    """
    Save an adapter, with the configuration of the whole model for [`open_adapter`].

    Args:
        model (`PeftModel`):
            Model with the adapter.
        folder (`str`):
            Folder to save it in.
        state_dict (`dict`, *optional*):
            The model's complete weights, if training shards them.
    """
    with kept_card(folder):
        # The adapter contains the new embeddings. PEFT would add the whole matrix, because its size has changed.
        model.save_pretrained(folder, state_dict=state_dict, save_embedding_layers=False)
    base = model.get_base_model()
    config = copy.deepcopy(base.config)
    config.use_cache = True  # the Trainer switched it off
    config.architectures = [type(base).__name__]
    config.save_pretrained(folder)


@contextmanager
def kept_card(folder: str) -> Iterator[None]:
    """Restore a folder's card afterwards, because PEFT changes it or creates an unfilled one."""
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
    """The base model of a saved adapter; `None` if a folder or Hub id is not an adapter."""
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
            Its base model, with the adapter's type of head; changed in place.
        config (`PreTrainedConfig`):
            Configuration saved with the adapter.

    Returns:
        `PreTrainedModel`: a plain model, without PEFT.
    """
    _check_peft()
    from peft import PeftModel

    if cached_file(model_path(model), ADAPTER_SAFE_WEIGHTS_NAME, _raise_exceptions_for_missing_entries=False) is None:
        raise GPT1Error(
            f"adapter {model!r} has no {ADAPTER_SAFE_WEIGHTS_NAME}: save it again, in the safetensors format"
        )
    base.resize_token_embeddings(config.vocab_size, mean_resizing=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Found missing adapter keys")
        try:
            return PeftModel.from_pretrained(base, model_path(model)).merge_and_unload()
        except (UserWarning, KeyError) as error:
            raise GPT1Error(
                f"the adapter {model!r} lacks weights that its configuration requires: save it again"
            ) from error
        except (RuntimeError, SafetensorError) as error:
            raise GPT1Error(
                f"the weights of the adapter {model!r} do not fit its base model, or are damaged: save it again"
            ) from error


def _check_peft():
    if importlib.util.find_spec("peft") is None:
        raise GPT1Error("adapters need the library peft: pip install 'gpt1_hf[peft]'")


__all__ = ["add_lora", "adapter_base", "lora_config", "open_adapter", "save_adapter"]
