"""Perplexity and bits per character of a causal language model on text, with a sliding window."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..console import no_bars
from ..errors import GPT1Error, UsageError
from .log_probs import token_log_probs


def perplexity(loss: float) -> float:
    """
    Perplexity of a mean loss in nats.

    Raises:
        FloatingPointError: if the loss is too high for a float, as after a training run that diverged.
    """
    try:
        return math.exp(loss)
    except OverflowError:
        raise FloatingPointError(
            f"the loss on held-out text is {loss:.0f} nats per token, too high to compute a perplexity: training "
            "has diverged, so lower learning_rate"
        ) from None


@dataclass
class TextScore:
    """How well a model predicts text."""

    nats: float = 0.0  # negative log-likelihood of the scored tokens
    n_tokens: int = 0  # scored: all but the first of each document
    n_text_tokens: int = 0  # of the text: with the first of each document
    n_chars: int = 0  # of the raw text
    n_documents: int = 0

    @property
    def perplexity(self) -> float:
        """Perplexity per token. It is comparable only between models with the same tokenizer."""
        return perplexity(self.nats / self.n_tokens)

    @property
    def bits_per_character(self) -> float:
        """Bits per character of raw text. It is comparable between tokenizers that discard the same, such as case."""
        return self.nats / math.log(2) / self.n_chars


def text_details(score: TextScore, n_tokens: int, n_documents: int) -> dict[str, Any]:
    """
    The held-out text behind a score, for `details` of a [`Result`].

    Args:
        score ([`TextScore`]):
            Score on the text, or on a part of it.
        n_tokens, n_documents (`int`):
            Size of the whole text.

    Returns:
        `dict`: `scored_tokens` and `scored_documents`, `validation_tokens` and `validation_documents` of the whole
        text and, only if a part was scored, `partial`, which is `True`.
    """
    sizes = {
        "scored_tokens": score.n_text_tokens,
        "scored_documents": score.n_documents,
        "validation_tokens": n_tokens,
        "validation_documents": n_documents,
    }
    return sizes | ({"partial": True} if score.n_text_tokens < n_tokens else {})


def score_documents(
    model: PreTrainedModel,
    documents: Iterable[tuple[np.ndarray, int]],
    window: int,
    stride: int | None = None,
    batch_size: int = 8,
    show_progress: bool = True,
) -> TextScore:
    """
    Score each token of documents once.

    Args:
        model (`PreTrainedModel`):
            Causal language model.
        documents (`Iterable` of `(token ids, number of characters)`):
            Documents. The context of a token never reaches into another document.
        window (`int`):
            Tokens in a forward pass of one row, at most the model's context.
        stride (`int`, *optional*, defaults to `window - 1`):
            New tokens scored in each window. The default reads every token once. A smaller stride gives tokens more
            context but reads them several times.
        batch_size (`int`, *optional*, defaults to 8):
            Windows in a forward pass. The score does not depend on it.
        show_progress (`bool`, *optional*, defaults to `True`):
            Whether to show a progress bar on a terminal.

    Returns:
        [`TextScore`].

    Raises:
        UsageError: if the stride does not fit the window.
        GPT1Error: if no document has two tokens.
    """
    stride = window - 1 if stride is None else stride
    if not 1 <= stride < window:
        raise UsageError(f"stride {stride} does not fit a window of {window} tokens: choose 1 to {window - 1}")
    score = TextScore()
    with tqdm(unit="token", unit_scale=True, desc="scoring", disable=not show_progress or no_bars()) as progress:
        batch: list[tuple[np.ndarray, int]] = []

        def flush():
            windows, n_scored = zip(*batch, strict=True)
            log_probs = token_log_probs(model, windows, n_scored, batch_size)
            score.nats -= float(sum(row.sum(dtype=np.float64) for row in log_probs))
            score.n_tokens += sum(n_scored)
            progress.update(sum(n_scored))
            batch.clear()

        for ids, n_chars in documents:
            score.n_chars += n_chars
            score.n_documents += 1
            score.n_text_tokens += len(ids)
            for start in range(1, len(ids), stride):
                end = min(start + stride, len(ids))
                batch.append((ids[max(0, end - window) : end], end - start))
                if len(batch) == batch_size:
                    flush()
        if batch:
            flush()
    if not score.n_tokens:
        raise GPT1Error("the text has fewer than two tokens, so there is nothing to score: give a longer text")
    return score
