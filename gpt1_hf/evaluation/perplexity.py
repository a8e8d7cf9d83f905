"""Perplexity and bits per character of a causal language model on text."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..errors import GPT1Error


@dataclass
class TextScore:
    """
    How well a model predicts text.

    Args:
        nats (`float`):
            Negative log-likelihood of the scored tokens.
        n_tokens (`int`):
            Number of scored tokens: all but the first of each document, which nothing precedes.
        n_chars (`int`):
            Number of characters of the raw text.
        n_documents (`int`):
            Number of documents.
    """

    nats: float = 0.0
    n_tokens: int = 0
    n_chars: int = 0
    n_documents: int = 0

    @property
    def perplexity(self) -> float:
        """exp of the mean loss per token; comparable between models of one tokenizer only."""
        return math.exp(self.nats / self.n_tokens)

    @property
    def bits_per_character(self) -> float:
        """Bits per character of raw text; comparable between tokenizers that lose the same (letter case, here)."""
        return self.nats / math.log(2) / self.n_chars


def score_documents(
    model: PreTrainedModel,
    documents: Iterable[tuple[np.ndarray, int]],
    window: int,
    stride: int | None = None,
    batch_size: int = 8,
) -> TextScore:
    """
    Score documents, each token once.

    Args:
        model (`PreTrainedModel`):
            Causal language model.
        documents (`Iterable` of `(token ids, number of characters)`):
            Documents; nothing is carried over from one to the next.
        window (`int`):
            Tokens that the model sees at once.
        stride (`int`, *optional*, defaults to `window - 1`):
            Tokens newly scored in each window. The default reads every token once; a smaller stride gives each token
            more context, at the price of reading tokens again.
        batch_size (`int`, *optional*, defaults to 8):
            Windows per forward pass; the score does not depend on it.

    Returns:
        [`TextScore`].

    Raises:
        GPT1Error: if the stride does not fit the window, or no document has two tokens.
    """
    stride = window - 1 if stride is None else stride
    if not 1 <= stride < window:
        raise GPT1Error(f"stride {stride} does not fit a window of {window} tokens: choose 1 to {window - 1}")
    score = TextScore()
    model.eval()
    with torch.inference_mode(), tqdm(unit="token", unit_scale=True, desc="scoring") as progress:
        batch: list[tuple[np.ndarray, int]] = []

        def flush():
            score.nats += _score_windows(model, batch)
            scored = sum(n_scored for _, n_scored in batch)
            score.n_tokens += scored
            progress.update(scored)
            batch.clear()

        for ids, n_chars in documents:
            score.n_chars += n_chars
            score.n_documents += 1
            for start in range(1, len(ids), stride):
                end = min(start + stride, len(ids))
                batch.append((ids[max(0, end - window) : end], end - start))
                if len(batch) == batch_size:
                    flush()
        if batch:
            flush()
    if not score.n_tokens:
        raise GPT1Error("the text is empty or one token long: there is nothing to score")
    return score


def _score_windows(model: PreTrainedModel, windows: list[tuple[np.ndarray, int]]) -> float:
    """Summed loss in nats of the last `n_scored` tokens of each window."""
    longest = max(len(ids) for ids, _ in windows)
    input_ids = torch.zeros(len(windows), longest, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, -100)
    for row, (ids, n_scored) in enumerate(windows):
        input_ids[row, : len(ids)] = torch.from_numpy(np.asarray(ids).astype(np.int64))
        attention_mask[row, : len(ids)] = 1
        labels[row, len(ids) - n_scored : len(ids)] = input_ids[row, len(ids) - n_scored : len(ids)]
    logits = model(
        input_ids=input_ids.to(model.device), attention_mask=attention_mask.to(model.device), use_cache=False
    ).logits
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten().to(model.device), reduction="sum"
    )
    return losses.item()
