"""What a fine-tuned model was trained on: `trained_on` in its `config.json`, and checks against it.

With other labels, another input format or another tokenizer than in training, a model gives meaningless answers
without an error. The record is part of the configuration, so it is wherever the weights are. Models without one, from
other training loops, are checked by the rest of their folder.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from .errors import GPT1Error


if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

UNKNOWN_BATCH_SIZE = 16  # of models without a record
# Keys of a configuration that a model keeps in fine-tuning.
SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "lstm_size",
    "max_position_embeddings",
    "position_embedding_type",
)
# Keys that describe an architecture and the scale of its new weights.
ARCHITECTURE = (
    *SIZES,
    "vocab_size",
    "hidden_act",
    "layer_norm_epsilon",
    "initializer_range",
    "position_initializer_range",
    "tie_word_embeddings",
)
# A text that tokenizers clean up, split and lower-case differently.
ODD_TEXT = "“Don’t—it’s  5 o’clock…” said Mr. O'Grey:\n\ncafé #3 (A_b) \U0001f600 cannot U.S."


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """
    Digest of a tokenizer's behaviour: its vocabulary, and how it splits an odd text and every entry of the vocabulary,
    which uses all merges. A digest of its file would depend on the version of the library that wrote it.
    """
    words = sorted(tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False))
    probe = " ".join(word.removesuffix("</w>") for word in words)
    ids = tokenizer([ODD_TEXT, probe], add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    return digest([sorted(tokenizer.get_vocab().items()), ids])


def architecture_digest(config: PreTrainedConfig) -> str:
    """Digest of an architecture: all that new weights depend on, besides the seed."""
    return digest([config.model_type, {name: getattr(config, name) for name in ARCHITECTURE if hasattr(config, name)}])


def rows_digest(rows: "Dataset") -> str:
    """Digest of rows in canonical columns: texts and labels in order, independent of their source."""
    names = sorted(set(rows.column_names) - {"idx", "subset"})
    return digest(*rows.select_columns(names).iter(1000))


def digest(*contents: Any) -> str:
    """Digest of a sequence of JSON-serializable values."""
    content_hash = hashlib.sha256()
    for content in contents:
        content_hash.update(json.dumps(content, sort_keys=True).encode())
    return content_hash.hexdigest()[:16]


def trained_on(config: PreTrainedConfig) -> dict[str, Any]:
    """The record of a model; empty if there is none."""
    found = getattr(config, "trained_on", None)
    return found if isinstance(found, dict) else {}


def check_tokenizer(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, model: str):
    """
    Raise if a tokenizer does not belong to a model.

    Args:
        config (`PreTrainedConfig`):
            The model's configuration.
        tokenizer (`PreTrainedTokenizerBase`):
            Tokenizer for its inputs.
        model (`str`):
            Name of the model, for the message.

    Raises:
        GPT1Error: if the model's record names another tokenizer, or the tokenizer has more tokens than the model.
    """
    expected = trained_on(config).get("tokenizer")
    if expected is not None and tokenizer_digest(tokenizer) != expected:
        raise GPT1Error(
            f"the tokenizer of model {model!r} is not the one it was trained with (config.json, trained_on): copy "
            "tokenizer.json and tokenizer_config.json from the original folder"
        )
    if len(tokenizer) > config.vocab_size:
        raise GPT1Error(
            f"the tokenizer of model {model!r} has {len(tokenizer)} tokens, but the model only {config.vocab_size}: "
            "use the tokenizer that belongs to the model"
        )


def check_rows(record: dict[str, Any], digests: dict[str, str], model: str, files: Mapping[str, str] | None = None):
    """
    Warn if the rows of a split differ from those of the model's own evaluation, or are its training rows. `files` has
    the data file of each split that has one, for the message.
    """
    for split, found in digests.items():
        file = (files or {}).get(split)
        rows = f"the rows of {split}" + (f" ({Path(file).name})" if file else "")
        if record.get("scored", {}).get(split, found) != found:
            logger.warning(
                f"{rows} are not those that model {model!r} was scored on after training: the two scores "
                "cannot be compared"
            )
        if split != "train" and record.get("rows_digest") == found:
            logger.warning(f"{rows} are the training rows of model {model!r}")


def row_length(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Maximum row length in tokens: that of the training, else the shorter of the model's and the tokenizer's."""
    return trained_on(config).get("max_length") or min(config.max_position_embeddings, tokenizer.model_max_length)


def scored_batch_size(config: PreTrainedConfig) -> int:
    """
    Rows in a forward pass when the model was scored after its training, or 16 if unknown. With the same batches,
    scores are the same to the last digit.
    """
    return trained_on(config).get("eval_batch_size") or UNKNOWN_BATCH_SIZE


__all__ = [
    "check_rows",
    "check_tokenizer",
    "row_length",
    "rows_digest",
    "scored_batch_size",
    "tokenizer_digest",
    "trained_on",
]
