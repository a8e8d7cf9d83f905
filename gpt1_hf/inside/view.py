"""What a model does with one text or row: token probabilities, attention, input format. Pages and pictures draw it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from transformers import AutoConfig, PreTrainedModel

from ..checkpoints.loading import (
    OPEN_ERRORS,
    compute_device,
    load_error,
    open_config,
    open_model,
    open_processor,
    open_tokenizer,
)
from ..errors import GPT1Error, UsageError
from ..processing_gpt1 import INPUT_FORMATS, GPT1Processor
from ..registration import family_classes
from ..resources import model_path
from ..settings import NO_LIMIT, check_ranges
from ..training_record import row_length
from .attention import attention_weights, has_attention, shown_tokens
from .explorer import MAX_CHARACTERS, Explorer, Token
from .input_formats import FormatSequence, format_row, row_of_texts
from .tokens import token_texts, visible


MAX_TOKENS = 40  # drawn in a heatmap by default
N_ALTERNATIVES = 5


@dataclass(frozen=True)
class Attention:
    """
    Attention weights of one sequence.

    `weights` has the shape `(layers, heads, shown, shown)`; `layers` and `heads` number its first two axes, from 1.
    `tokens` are the shown tokens, and `positions` their places in the sequence, which has `n_tokens`.
    """

    title: str
    weights: np.ndarray
    layers: list[int]
    heads: list[int]
    tokens: list[str]
    positions: list[int]
    n_tokens: int

    @property
    def is_cut(self) -> bool:
        """Whether the sequence has tokens that are not shown."""
        return len(self.positions) < self.n_tokens

    @property
    def note(self) -> str:
        """Says which tokens are shown, if not all are."""
        n_last = len(self.positions) // 2
        shown = f"The first {len(self.positions) - n_last} and the last {n_last} of {self.n_tokens} tokens are shown."
        return shown if self.is_cut else ""


@dataclass(frozen=True)
class View:
    """
    A model's view of a text or row. A part that the model does not have is empty, and `notes` (part -> sentence) says
    why.
    """

    model: str
    summary: str
    probabilities: list[Token]
    attention: list[Attention]
    formats: list[FormatSequence]
    input_format: str | None
    notes: dict[str, str] = field(default_factory=dict)


def look(
    texts: Sequence[str],
    model: str = "gpt1-tiny",
    input_format: str | None = None,
    max_tokens: int = MAX_TOKENS,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> View:
    """
    Let a model read a text or the texts of a row.

    Args:
        texts (sequence of `str`):
            The text, or the texts of a row in the order of its format; see [`row_of_texts`].
        model (`str`, *optional*, defaults to `"gpt1-tiny"`):
            Language model or fine-tuned model: folder, Hub id, or `gpt1-tiny`.
        input_format (`str`, *optional*):
            Format of the row. Default: that of the fine-tuned model. A language model reads the plain texts, joined
            by spaces, and its tokenizer makes the sequences of this format.
        max_tokens (`int`, *optional*, defaults to 40):
            Tokens in a heatmap of attention. Of a longer sequence, the first and the last ones are kept.
        layers, heads (sequence of `int`, *optional*):
            Layers and heads whose attention is kept, counted from 1. Default: all.

    Returns:
        [`View`].

    Raises:
        GPT1Error: if a text is empty or too long, if the number of texts does not fit the format, if there is no such
        layer or head, or if the model cannot be loaded.
    """
    check_ranges({"max_tokens": max_tokens}, {"max_tokens": (2, NO_LIMIT)})
    for number, text in enumerate(texts, 1):
        if len(text) > MAX_CHARACTERS:
            raise GPT1Error(f"text {number} is {len(text):,} characters long: shorten it to {MAX_CHARACTERS:,}")
    fine_tuned = _open_fine_tuned(model)
    choice = max_tokens, layers, heads
    if fine_tuned is not None:
        return _look_at_row(model, *fine_tuned, texts, input_format, choice)
    return _look_at_text(model, texts, input_format, choice)


def _look_at_text(model: str, texts: Sequence[str], input_format: str | None, choice: tuple) -> View:
    """A language model's view."""
    if input_format is None and len(texts) != 1:
        raise UsageError(
            f"a language model reads one text, not {len(texts)}: join them, or give --input_format "
            f"{'|'.join(INPUT_FORMATS)}"
        )
    formats: list[FormatSequence] = []
    notes = {}
    if input_format is not None:
        row = row_of_texts(input_format, texts)
        formats, is_cut = format_row(GPT1Processor(open_tokenizer(model), input_format), row)
        notes["formats"] = "The row was longer than the context and was cut." * is_cut
    explorer = Explorer(model)
    text = " ".join(text for text in texts if text)
    tokens = explorer.read(text, N_ALTERNATIVES)
    lm = explorer.scorer.model
    attention = []
    if has_attention(lm):
        (ids,) = explorer.scorer.encode([text])
        attention = [_attention("", lm, ids, token_texts(explorer.scorer.tokenizer, ids), choice)]
    else:
        notes["attention"] = _no_attention(lm)
    return View(model, _summary(lm, explorer.scorer.window), tokens, attention, formats, input_format, notes)


def _look_at_row(
    name: str,
    model: PreTrainedModel,
    processor: GPT1Processor,
    texts: Sequence[str],
    input_format: str | None,
    choice: tuple,
) -> View:
    """A fine-tuned model's view."""
    own = processor.input_format
    if input_format not in (None, own):
        raise UsageError(
            f"model {name!r} was fine-tuned for the format {own}, not {input_format}: drop --input_format"
        )
    max_length = row_length(model.config, processor.tokenizer)
    formats, is_cut = format_row(processor, row_of_texts(own, texts), max_length)
    notes = {
        "probabilities": "A fine-tuned model predicts no tokens: give a language model to see probabilities.",
        "formats": "The row was longer than the model reads and was cut." * is_cut,
    }
    attention = []
    if has_attention(model):
        attention = [
            _attention(sequence.title, model, sequence.ids, [token.text for token in sequence.tokens], choice)
            for sequence in formats
        ]
    else:
        notes["attention"] = _no_attention(model)
    return View(name, _summary(model, max_length), [], attention, formats, own, notes)


def _attention(title: str, model: PreTrainedModel, ids: list[int], texts: list[str], choice: tuple) -> Attention:
    max_tokens, layers, heads = choice
    weights = attention_weights(model, ids)
    layers = _numbers("layer", layers, weights.shape[0])
    heads = _numbers("head", heads, weights.shape[1])
    positions = shown_tokens(len(ids), max_tokens)
    kept = np.ix_([layer - 1 for layer in layers], [head - 1 for head in heads], positions, positions)
    shown = [visible(texts[position]).strip() for position in positions]
    return Attention(title, weights[kept], layers, heads, shown, positions, len(ids))


def _numbers(what: str, given: Sequence[int] | None, n: int) -> list[int]:
    for number in given or ():
        if not 1 <= number <= n:
            raise UsageError(f"there is no {what} {number}: the model has {what}s 1 to {n}")
    return sorted({*given}) if given else list(range(1, n + 1))


def _open_fine_tuned(model: str) -> tuple[PreTrainedModel, GPT1Processor] | None:
    """A fine-tuned model with its processor; `None` for a language model."""
    try:
        config = AutoConfig.from_pretrained(model_path(model), trust_remote_code=False)
    except (*OPEN_ERRORS, ValueError) as error:
        raise load_error(model, "configuration", error) from error
    (architecture, *_) = config.architectures or [""]
    if not architecture.endswith(("Classification", "MultipleChoice")) or not hasattr(config, "auto_classes"):
        return None
    processor = open_processor(model)
    if not isinstance(processor, GPT1Processor):
        raise GPT1Error(f"model {model!r} has no processor, which says its input format: save it beside the model")
    classes = {own.__name__: own for own in family_classes(type(config)).values()}
    if architecture not in classes:
        raise GPT1Error(f"model {model!r} is a {architecture}, which is not one of this package's models")
    return open_model(classes[architecture], model, open_config(model)).to(compute_device()), processor


def _summary(model: PreTrainedModel, window: int) -> str:
    config = model.config
    heads = getattr(config, "num_attention_heads", None)
    size = f"{config.num_hidden_layers} layers" + (f" of {heads} attention heads" if heads else "")
    millions = model.num_parameters() / 1e6
    return f"{type(model).__name__}: {size}, {millions:,.1f} million parameters, a context of {window} tokens"


def _no_attention(model: PreTrainedModel) -> str:
    return f"A {type(model).__name__} has no attention: it reads a text token by token, through its state."


__all__ = ["Attention", "View", "look"]
