"""Text generation: prompt in, readable continuation out."""

import re
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from transformers.generation import (
    BaseStreamer,
    GenerateDecoderOnlyOutput,
    StoppingCriteriaList,
    StopStringCriteria,
)

from ..checkpoints.loading import compute_device, open_causal_lm, open_tokenizer
from ..errors import GPT1Error
from ..settings import NO_LIMIT, POSITIVE, check_ranges


RANGES = {
    "temperature": (0.0, 1e6),
    "top_p": (POSITIVE, 1.0),
    "max_new_tokens": (1, NO_LIMIT),
    "max_length": (1, NO_LIMIT),
    "num_return_sequences": (1, NO_LIMIT),
    "seed": (0, 2**32 - 1),
}
# Settings that neither the caller nor the model's `generation_config.json` gives.
DEFAULTS = {"max_new_tokens": 60, "temperature": 0.8, "top_p": 0.95}


def generate(
    prompt: str,
    model: str = "gpt1-tiny",
    max_new_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    num_return_sequences: int = 1,
    seed: int = 0,
    echo: bool = True,
    stream: Callable[[str], None] | None = None,
    **options: Any,
) -> list[str]:
    """
    Continue a prompt.

    Args:
        prompt (`str`):
            Text to continue.
        model (`str`, *optional*, defaults to `"gpt1-tiny"`):
            Causal language model: folder, Hub id, or `gpt1-tiny`.
        max_new_tokens (`int`, *optional*):
            Longest continuation in tokens. Default: the model's own, else 60.
        temperature (`float`, *optional*):
            Sampling temperature; 0 is greedy. Default: the model's own, else 0.8.
        top_p (`float`, *optional*):
            Sample from the most probable tokens whose probabilities add up to this. Default: the model's own, else
            0.95.
        num_return_sequences (`int`, *optional*, defaults to 1):
            Number of continuations.
        seed (`int`, *optional*, defaults to 0):
            Seed of the sampling.
        echo (`bool`, *optional*, defaults to `True`):
            Whether the texts begin with the prompt.
        stream (`Callable`, *optional*):
            Called with each new piece of the text. For one text only.
        options:
            More fields of transformers' `GenerationConfig`.

    Returns:
        list of `str`: prompt and continuation, in the model's lower case, with the line breaks of the prompt.

    Raises:
        GPT1Error: if the prompt is empty, or prompt and continuation exceed the model's context. A recurrent model has
        no such limit.
    """
    tokenizer, lm = open_tokenizer(model), open_causal_lm(model).to(compute_device())
    # Decoding would drop a prompt of unknown characters, and the continuation would not relate to it.
    ids = tokenizer(prompt, split_special_tokens=True, verbose=False)["input_ids"]
    if ids and not tokenizer.decode(ids, skip_special_tokens=True):
        raise GPT1Error("the prompt has no character that the tokenizer knows: give the model a word to continue")
    start = 0 if echo else len(ids)
    streamer = None if stream is None else Stream(tokenizer, prompt, start, stream)
    options |= {"num_return_sequences": num_return_sequences, "streamer": streamer}
    output = sample(tokenizer, lm, prompt, max_new_tokens, temperature, top_p, seed, **options)
    return [readable(tokenizer, sequence, prompt, start) for sequence in output.sequences.tolist()]


def readable(tokenizer: PreTrainedTokenizerBase, ids: list[int], prompt: str, start: int = 0) -> str:
    """
    Text of a sequence from token `start` on. `ids` is the whole sequence, since earlier tokens decide on spaces and
    quotes.
    """
    text = with_line_breaks(tokenizer.decode(ids, skip_special_tokens=True).removeprefix(" "), prompt)
    if not start:
        return text
    # Later tokens can change the spaces between earlier ones, but nothing else.
    n_letters = len(readable(tokenizer, ids[:start], prompt).replace(" ", ""))
    return re.sub(rf"\A(?: *[^ ]){{{n_letters}}} *", "", text)


class Stream(BaseStreamer):
    """Writes a text while it is generated. It holds back the last word, which may still grow."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: str, start: int, write: Callable[[str], None]):
        self.tokenizer, self.prompt, self.start, self.write = tokenizer, prompt, start, write
        self.ids: list[int] = []
        self.shown = ""

    def put(self, value: torch.Tensor):
        self.ids += value.flatten().tolist()
        if len(self.ids) > self.start:
            text = readable(self.tokenizer, self.ids, self.prompt, self.start)
            self._show(text[: text.rfind(" ") + 1].rstrip(" "))

    def end(self):
        self._show(readable(self.tokenizer, self.ids, self.prompt, self.start))

    def _show(self, text: str):
        if text.startswith(self.shown):
            self.write(text[len(self.shown) :])
            self.shown = text


def with_line_breaks(text: str, prompt: str) -> str:
    """
    Restore a prompt's line breaks in the decoded text of prompt and continuation. Decoding reduces them to single
    ones. Line breaks of the continuation become like the prompt's last one.
    """
    runs = re.findall(r"\s*\n\s*", re.sub("\r\n?", "\n", prompt.strip()))
    breaks = ["\n" * run.count("\n") for run in runs]
    each = iter(breaks)
    return re.sub("\n+", lambda found: next(each, breaks[-1] if breaks else found[0]), text)


def sample(
    tokenizer: PreTrainedTokenizerBase,
    lm: PreTrainedModel,
    prompt: str,
    max_new_tokens: int | None,
    temperature: float | None,
    top_p: float | None,
    seed: int,
    **options: Any,
) -> GenerateDecoderOnlyOutput:
    """
    [`generate`] with a loaded model. `options` go to the library's `generate`, whose full output is returned.

    Raises:
        GPT1Error: as in [`generate`].
    """
    given = options | {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}
    given = {"pad_token_id": tokenizer.pad_token_id} | given
    check_ranges(given | {"seed": seed}, RANGES)
    if not prompt.strip():
        raise GPT1Error("the prompt is empty: give the model a word to continue")
    # A prompt that spells a special token is plain text.
    inputs = tokenizer(prompt, return_tensors="pt", split_special_tokens=True, verbose=False).to(lm.device)
    n_prompt = inputs["input_ids"].shape[1]
    if not n_prompt:
        raise GPT1Error("the prompt has no word that the tokenizer keeps: give the model a word to continue")
    settings = complete_settings(given, lm)
    # If both are given, transformers uses max_new_tokens.
    wanted = n_prompt + settings["max_new_tokens"] if "max_new_tokens" in settings else settings["max_length"]
    context = getattr(lm.config, "max_position_embeddings", wanted)
    if wanted > context and not lm._is_stateful:
        raise GPT1Error(
            f"the prompt is {n_prompt} tokens long, which with {wanted - n_prompt} new ones is more than the model's "
            f"context of {context}: shorten the prompt, or give at most max_new_tokens {context - n_prompt}"
            if n_prompt < context
            else f"the prompt is {n_prompt} tokens long, which fills the model's context of {context}: shorten it"
        )
    if words := settings.pop("stop_strings", None):
        settings["stopping_criteria"] = StoppingCriteriaList([StopStringCriteria(tokenizer, words)])
    set_seed(seed)
    return lm.eval().generate(**inputs, **settings | {"return_dict_in_generate": True})


def complete_settings(given: dict[str, Any], lm: PreTrainedModel) -> dict[str, Any]:
    """Settings of generation: the given ones, else the model's own, else `DEFAULTS`."""
    settings = {name: value for name, value in given.items() if value is not None}
    if settings.get("temperature") == 0:  # transformers rejects it
        del settings["temperature"]
        settings.setdefault("do_sample", False)
    config = getattr(lm, "generation_config", None)
    own = {name: getattr(config, name, None) for name in (*DEFAULTS, "do_sample")}
    own = {name: value for name, value in own.items() if value is not None}
    fallback = DEFAULTS | {"do_sample": True} | own
    if "max_length" in settings:
        del fallback["max_new_tokens"]
    if not settings.get("do_sample", fallback["do_sample"]):  # greedy search warns of sampling settings
        fallback = {name: value for name, value in fallback.items() if name not in ("temperature", "top_p")}
    return fallback | settings


__all__ = ["generate", "readable", "sample"]
