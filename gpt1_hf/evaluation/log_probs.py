"""Log-probabilities of tokens under a causal language model, each given all tokens before it in its sequence.

Sequences are batched by similar length. Apart from rounding, the result does not depend on the batches or their
padding. The model runs in the type of its weights, without autocast.
"""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import Cache, PreTrainedModel

from ..console import no_bars
from ..modeling_gpt1_heads import CACHE
from .precision import full_precision


# Logits that are converted to fp32 at once: 64 MiB for any vocabulary.
LOGITS_PER_CHUNK = 1 << 24


@torch.no_grad()  # not inference_mode: FSDP2 would keep its tensors, and later training would fail
def token_log_probs(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    n_scored: Sequence[int],
    batch_size: int = 16,
    desc: str | None = None,
) -> list[np.ndarray]:
    """
    Score the last tokens of sequences.

    Args:
        model (`PreTrainedModel`):
            Causal language model. It is left in evaluation mode.
        sequences (list of token ids):
            Sequences that fit the model's context.
        n_scored (`list[int]`):
            Number of tokens to score at the end of each sequence. It is less than the sequence's length, since the
            first token has no context.
        batch_size (`int`, *optional*, defaults to 16):
            Sequences in a forward pass.
        desc (`str`, *optional*):
            Name of a progress bar. Default: no bar.

    Returns:
        list of `np.ndarray` of shape `(n_scored,)`: natural logarithms, in the order of the sequences.
    """
    model.eval()
    scores = [np.empty(0, dtype=np.float32) for _ in sequences]
    scored = [index for index, n in enumerate(n_scored) if n]
    for batch in _batches(scored, [len(ids) for ids in sequences], batch_size, desc):
        input_ids, attention_mask = _pad([sequences[index] for index in batch], model.device)
        counts = [n_scored[index] for index in batch]
        end = attention_mask.sum(1, keepdim=True)  # (batch, 1)
        position = torch.arange(input_ids.shape[1], device=model.device)  # (seq,)
        is_target = (position >= end - torch.tensor(counts, device=model.device)[:, None]) & (position < end)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
        logits, _ = _logits_at(model, is_target.roll(-1, 1), inputs)  # (n_targets, vocab)
        log_probs = _log_probs_of(logits, input_ids[is_target])
        for index, row in zip(batch, log_probs.split(counts), strict=True):
            scores[index] = row.cpu().numpy()
    return scores


@torch.no_grad()  # not inference_mode: FSDP2 would keep its tensors, and later training would fail
def choice_log_probs(
    model: PreTrainedModel,
    contexts: Sequence[Sequence[int]],
    choices: Sequence[Sequence[Sequence[int]]],
    batch_size: int = 16,
    desc: str | None = None,
) -> list[list[np.ndarray]]:
    """
    Score several continuations of each context, reading the context once.

    The result equals that of [`token_log_probs`] on context and continuation, at a fraction of the cost for long
    contexts.

    Args:
        model (`PreTrainedModel`):
            Causal language model with a cache of keys and values or of its state. It is left in evaluation mode.
        contexts (list of token ids):
            Tokens before the choices, at least one for each context.
        choices (list of lists of token ids):
            Continuations of each context. Context and continuation together fit the model's context.
        batch_size (`int`, *optional*, defaults to 16):
            Contexts in a forward pass.
        desc (`str`, *optional*):
            Name of a progress bar. Default: no bar.

    Returns:
        list of lists of `np.ndarray`: natural logarithms of each choice's tokens.
    """
    model.eval()
    scores = [[np.empty(0, dtype=np.float32) for _ in texts] for texts in choices]
    for batch in _batches(range(len(contexts)), [len(ids) for ids in contexts], batch_size, desc):
        # A choice without tokens has no score and takes no row in the batch.
        places = [(row, index, k) for row, index in enumerate(batch) for k, ids in enumerate(choices[index]) if ids]
        if not places:
            continue
        rows = torch.tensor([row for row, _, _ in places], device=model.device)
        choice_ids, choice_mask = _pad([choices[index][k] for _, index, k in places], model.device)
        is_long = choice_ids.shape[1] > 1

        input_ids, attention_mask = _pad([contexts[index] for index in batch], model.device)
        end = attention_mask.sum(1, keepdim=True)  # (batch, 1)
        is_last = torch.arange(input_ids.shape[1], device=model.device) == end - 1
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": is_long}
        logits, cache = _logits_at(model, is_last, inputs)  # (batch, vocab)
        log_probs = torch.zeros(choice_ids.shape, device=model.device)  # (choices, longest)
        log_probs[:, 0] = _log_probs_of(logits[rows], choice_ids[:, 0])

        if is_long:
            cache.reorder_cache(rows)
            position = end[rows] + torch.arange(choice_ids.shape[1] - 1, device=model.device)
            # Padding repeats the last position, since the next one may be beyond the model's context.
            last = end[rows] + choice_mask.sum(1, keepdim=True) - 1
            is_target = choice_mask[:, 1:].bool()
            inputs = {
                "input_ids": choice_ids[:, :-1],
                "attention_mask": torch.cat([attention_mask[rows], choice_mask[:, :-1]], dim=1),
                "position_ids": position.minimum(last),
                CACHE: cache,
                "use_cache": True,
            }
            logits, _ = _logits_at(model, is_target, inputs)  # (n_targets, vocab)
            log_probs[:, 1:][is_target] = _log_probs_of(logits, choice_ids[:, 1:][is_target])

        for (_, index, k), row in zip(places, log_probs.cpu().numpy(), strict=True):
            scores[index][k] = row[: len(choices[index][k])]
    return scores


def _batches(indices: Sequence[int], lengths: Sequence[int], batch_size: int, desc: str | None) -> Iterator[list[int]]:
    """Group indices into batches of similar length."""
    order = sorted(indices, key=lambda index: lengths[index])
    with tqdm(total=len(order), desc=desc, disable=desc is None or no_bars()) as progress:
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            yield batch
            progress.update(len(batch))


def _pad(sequences: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask of shape `(batch, longest)`, padded on the right."""
    input_ids = torch.zeros(len(sequences), max(map(len, sequences)), dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(sequences):
        input_ids[row, : len(ids)] = torch.from_numpy(np.asarray(ids).astype(np.int64))
        attention_mask[row, : len(ids)] = 1
    return input_ids.to(device), attention_mask.to(device)


def _logits_at(model, where: torch.Tensor, inputs: dict[str, Any]) -> tuple[torch.Tensor, Cache | None]:
    """Logits `(n, vocab)` at the positions that a mask of shape `(batch, seq)` selects, row by row, and the cache."""
    selects = "logits_to_keep" in inspect.signature(type(model).forward).parameters
    with full_precision(model):
        outputs = model(**inputs, logits_to_keep=where) if selects else model(**inputs)
    return outputs.logits if selects else outputs.logits[where], outputs.get(CACHE)


def _log_probs_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-probabilities `(n,)` of targets `(n,)` under logits `(n, vocab)`, always in fp32."""
    size = max(1, LOGITS_PER_CHUNK // logits.shape[-1])
    chunks = zip(logits.split(size), targets.split(size), strict=True)
    return -torch.cat([torch.nn.functional.cross_entropy(part.float(), ids, reduction="none") for part, ids in chunks])
