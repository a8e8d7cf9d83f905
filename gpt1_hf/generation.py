"""Text from a language model: prompt in, readable continuation out."""

import re
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from transformers.generation import GenerateDecoderOnlyOutput

from .checkpoints import compute_device, open_causal_lm, open_tokenizer
from .errors import GPT1Error
from .ranges import LEAST, MOST, check_ranges


RANGES = {
    "temperature": (0.0, 1e6),
    "top_p": (LEAST, 1.0),
    "max_new_tokens": (1, MOST),
    "num_return_sequences": (1, MOST),
    "seed": (0, 2**32 - 1),
}


def generate(
    prompt: str,
    model: str = "gpt1-tiny",
    max_new_tokens: int = 60,
    temperature: float = 0.8,
    top_p: float = 0.95,
    num_return_sequences: int = 1,
    seed: int = 0,
) -> list[str]:
    """
    Continue a prompt.

    Args:
        prompt (`str`):
            Text to continue.
        model (`str`, *optional*, defaults to `"gpt1-tiny"`):
            Causal language model: folder, Hub id, or `gpt1-tiny`.
        max_new_tokens (`int`, *optional*, defaults to 60):
            Longest continuation in tokens.
        temperature (`float`, *optional*, defaults to 0.8):
            Sampling temperature; 0 is greedy.
        top_p (`float`, *optional*, defaults to 0.95):
            Sample from the most probable tokens of this mass.
        num_return_sequences (`int`, *optional*, defaults to 1):
            Number of continuations.
        seed (`int`, *optional*, defaults to 0):
            Seed of the sampling.

    Returns:
        list of `str`: prompt and continuation, lower-cased as the model reads it, with the line breaks of the prompt.

    Raises:
        GPT1Error: if the prompt is empty, or prompt and continuation are longer than the model's context (a
        recurrent model has no such limit).
    """
    tokenizer, lm = open_tokenizer(model), open_causal_lm(model).to(compute_device())
    # A prompt of unknown characters alone is left out by decoding, and what comes after it is about nothing.
    ids = tokenizer(prompt, split_special_tokens=True, verbose=False)["input_ids"]
    if ids and not tokenizer.decode(ids, skip_special_tokens=True):
        raise GPT1Error("the prompt has no character that the tokenizer knows: give the model a word to go on from")
    output = sample(
        tokenizer, lm, prompt, max_new_tokens, temperature, top_p, seed, num_return_sequences=num_return_sequences
    )
    texts = tokenizer.batch_decode(output.sequences, skip_special_tokens=True)
    return [with_line_breaks(text.removeprefix(" "), prompt) for text in texts]


def with_line_breaks(text: str, prompt: str) -> str:
    """
    A prompt's line breaks in decoded text that begins with it, where each is one; the text's own are as its last one.

    Args:
        text (`str`):
            Prompt and continuation, decoded.
        prompt (`str`):
            The prompt as it was given.
    """
    runs = re.findall(r"\s*\n\s*", re.sub("\r\n?", "\n", prompt.strip()))
    breaks = ["\n" * run.count("\n") for run in runs]
    each = iter(breaks)
    return re.sub("\n+", lambda found: next(each, breaks[-1] if breaks else found[0]), text)


def sample(
    tokenizer: PreTrainedTokenizerBase,
    lm: PreTrainedModel,
    prompt: str,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    **options: Any,
) -> GenerateDecoderOnlyOutput:
    """
    [`generate`] with a loaded model, giving all that the library's `generate` returns.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer.
        lm (`PreTrainedModel`):
            Causal language model.
        prompt, max_new_tokens, temperature, top_p, seed:
            As of [`generate`].
        options:
            More of the library's own.

    Raises:
        GPT1Error: as [`generate`].
    """
    check_ranges(
        {"temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens, "seed": seed, **options}, RANGES
    )
    if not prompt.strip():
        raise GPT1Error("the prompt is empty: give the model a word to go on from")
    # A prompt that spells a special token is text.
    inputs = tokenizer(prompt, return_tensors="pt", split_special_tokens=True, verbose=False).to(lm.device)
    n_prompt = inputs["input_ids"].shape[1]
    if not n_prompt:
        raise GPT1Error("the prompt has no word that the tokenizer keeps: give the model a word to go on from")
    context = getattr(lm.config, "max_position_embeddings", n_prompt + max_new_tokens)
    if n_prompt + max_new_tokens > context and not lm._is_stateful:
        raise GPT1Error(
            f"the prompt is {n_prompt} tokens long, which with max_new_tokens {max_new_tokens} is more than the "
            f"model's context of {context}: shorten the prompt or ask for fewer tokens"
        )
    set_seed(seed)
    sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p} if temperature else {"do_sample": False}
    return lm.eval().generate(
        **inputs,
        **sampling,
        **options,
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        return_dict_in_generate=True,
    )
