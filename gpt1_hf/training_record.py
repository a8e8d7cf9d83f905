"""What a fine-tuned model was made with, `trained_on` in its `config.json`, and checking that where it is used.

A model that meets other labels, another input format or another tokenizer than it was trained with answers all the
same, with numbers that mean nothing. The record travels with the configuration, so that it is there wherever the
weights are; models that have none, as of other training loops, are checked by what else their folder says.
"""

import hashlib
import json
import logging
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from .errors import GPT1Error


if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

# Cleaned up, split, and lower-cased in ways that tokenizers differ in.
ODD_TEXT = "“Don’t—it’s  5 o’clock…” said Mr. O'Grey:\n\ncafé #3 (A_b) \U0001f600 cannot U.S."


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """
    Digest of what a tokenizer does: its entries and their ids, and how it splits each of them, which takes every
    merge, and an odd text. A digest of its file would change with the version of the library that writes it.
    """
    words = sorted(tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False))
    probe = " ".join(word.removesuffix("</w>") for word in words)
    ids = tokenizer([ODD_TEXT, probe], add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    return digest([sorted(tokenizer.get_vocab().items()), ids])


def rows_digest(rows: "Dataset") -> str:
    """Digest of rows in canonical columns: their texts and labels in their order, wherever they were read from."""
    names = sorted(set(rows.column_names) - {"idx", "subset"})
    return digest(*rows.select_columns(names).iter(1000))


def digest(*contents: Any) -> str:
    """Digest of things that JSON can hold, one after the other."""
    content_hash = hashlib.sha256()
    for content in contents:
        content_hash.update(json.dumps(content, sort_keys=True).encode())
    return content_hash.hexdigest()[:16]


def trained_on(config: PreTrainedConfig) -> dict[str, Any]:
    """The record of a model; empty, if it has none."""
    found = getattr(config, "trained_on", None)
    return found if isinstance(found, dict) else {}


def check_tokenizer(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, model: str):
    """
    Raise if a model was trained with another tokenizer.

    Args:
        config (`PreTrainedConfig`):
            The model's configuration.
        tokenizer (`PreTrainedTokenizerBase`):
            Tokenizer that is to make its inputs.
        model (`str`):
            The model's name, for the message.

    Raises:
        GPT1Error: if the model's record names another tokenizer, or the tokenizer has ids that the model has not.
    """
    expected = trained_on(config).get("tokenizer")
    if expected is not None and tokenizer_digest(tokenizer) != expected:
        raise GPT1Error(
            f"the tokenizer of model {model!r} is not the one that it was trained with (config.json, trained_on): put "
            "tokenizer.json and tokenizer_config.json of the original folder beside it"
        )
    if len(tokenizer) > config.vocab_size:
        raise GPT1Error(
            f"the tokenizer of model {model!r} has {len(tokenizer)} tokens, but the model only {config.vocab_size}: "
            "the two do not belong together"
        )


def check_rows(record: dict[str, Any], digests: dict[str, str], model: str):
    """Warn if rows to score are not those that a model's record knows by the name of their split, or were learnt."""
    for split, found in digests.items():
        if record.get("scored", {}).get(split, found) != found:
            logger.warning(
                f"the rows of {split} are not those that model {model!r} was scored on when it was trained: the two "
                "numbers do not compare"
            )
        if split != "train" and record.get("rows_digest") == found:
            logger.warning(f"the rows of {split} are those that model {model!r} was trained on")


def row_length(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Longest row of a fine-tuned model: that of its training, else the shorter of its context and its tokenizer's."""
    return trained_on(config).get("max_length") or min(config.max_position_embeddings, tokenizer.model_max_length)


__all__ = ["check_rows", "check_tokenizer", "row_length", "rows_digest", "tokenizer_digest", "trained_on"]
