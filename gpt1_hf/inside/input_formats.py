"""The input formats (paper §3.3, figure 1) as sequences of tokens, each with the part of the row that it is from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError
from ..processing_gpt1 import INPUT_FORMATS, TASK_TOKENS, GPT1Processor
from .tokens import token_texts


# Special token's attribute -> its role.
ROLES = {"bos_token": "start", "sep_token": "delimiter", "cls_token": "extract"}
SPECIAL_ROLES = tuple(ROLES.values())


@dataclass(frozen=True)
class FormatToken:
    """A token of a sequence. `role` is start, delimiter or extract, or the column of its text, such as premise."""

    text: str
    id: int
    role: str


@dataclass(frozen=True)
class FormatSequence:
    """A sequence that the model reads for a row. `title` tells the sequences of a row apart."""

    title: str
    tokens: list[FormatToken]

    @property
    def ids(self) -> list[int]:
        """Token ids of the sequence."""
        return [token.id for token in self.tokens]


def row_of_texts(input_format: str, texts: Sequence[str]) -> dict[str, Any]:
    """
    A row in canonical columns, from its texts in the order of the format.

    Args:
        input_format (`str`):
            One of the formats of [`GPT1Processor`].
        texts (sequence of `str`):
            One text; two texts of a pair; or document, question (may be empty), and at least two choices. For token
            classification: one text, whose words are separated by spaces.

    Raises:
        UsageError: if a text is missing, empty or too many.
    """
    columns = INPUT_FORMATS[input_format]
    if input_format == "multiple_choice":
        if len(texts) < 4:
            raise UsageError(
                "multiple_choice needs a document, a question (may be empty) and at least two choices: give four or "
                f"more texts, not {len(texts)}"
            )
        row = {"document": texts[0], "question": texts[1], "choices": list(texts[2:])}
    elif len(texts) != len(columns):
        what = "one text" if len(columns) == 1 else f"two texts ({' and '.join(columns)})"
        raise UsageError(f"{input_format} needs {what}, not {len(texts)}")
    else:
        row = dict(zip(columns, texts, strict=True))
    for number, text in enumerate(texts, 1):
        if not text.strip() and not (input_format == "multiple_choice" and number == 2):
            raise UsageError(f"text {number} is empty: write something")
    return {"words": texts[0].split()} if input_format == "token_classification" else row


def format_row(
    processor: GPT1Processor, row: Mapping[str, Any], max_length: int | None = None
) -> tuple[list[FormatSequence], bool]:
    """
    The sequences that a processor makes of a row.

    Args:
        processor (`GPT1Processor`):
            Processor of the format.
        row (`Mapping`):
            One row in canonical columns.
        max_length (`int`, *optional*):
            Longest sequence in tokens. Default: the tokenizer's `model_max_length`.

    Returns:
        `tuple[list[FormatSequence], bool]`: two sequences for similarity, one per choice for multiple choice, and
        otherwise one; and whether the row was cut to fit.

    Raises:
        ValueError: as the processor's call, such as for an empty text.
    """
    encoding = processor([row], max_length=max_length, return_truncated=True)
    sequences = encoding["input_ids"][0] if processor.has_several_sequences else encoding["input_ids"]
    titles = [""]
    if processor.input_format == "similarity":
        titles = ["text_a first", "text_b first"]
    elif processor.input_format == "multiple_choice":
        titles = [f"choice {number}" for number in range(1, len(sequences) + 1)]
    formatted = [
        FormatSequence(title, _tokens(processor, ids, number))
        for number, (title, ids) in enumerate(zip(titles, sequences, strict=True))
    ]
    return formatted, encoding["truncated"][0]


def _tokens(processor: GPT1Processor, ids: list[int], number: int) -> list[FormatToken]:
    """Tokens of a row's sequence of that number. Special ids stand only where the processor puts them."""
    tokenizer = processor.tokenizer
    role_of = {getattr(tokenizer, f"{name}_id"): role for name, role in ROLES.items()}
    segments: list[list[int]] = [[]]
    for token in ids:
        if token not in role_of:
            segments[-1].append(token)
        elif role_of[token] == "delimiter":
            segments.append([])
    parts = iter(zip(_part_names(processor, len(segments), number), segments, strict=True))
    tokens: list[FormatToken] = []
    for token in ids:
        if token in role_of:
            tokens.append(FormatToken(TASK_TOKENS[_attribute(role_of[token])], token, role_of[token]))
            if role_of[token] != "extract":
                name, segment = next(parts)
                texts = token_texts(tokenizer, segment)
                tokens += [FormatToken(text, each, name) for text, each in zip(texts, segment, strict=True)]
    return tokens


def _attribute(role: str) -> str:
    return next(name for name, own in ROLES.items() if own == role)


def _part_names(processor: GPT1Processor, n_parts: int, number: int) -> list[str]:
    """Names of the texts between the special tokens of a sequence."""
    if processor.input_format == "similarity":
        return ["text_a", "text_b"] if number == 0 else ["text_b", "text_a"]
    if processor.input_format == "multiple_choice":
        if n_parts == 3:
            return ["document", "question", "choice"]
        return ["document" if processor.question_delimiter else "document and question", "choice"]
    return list(processor.columns)


__all__ = ["FormatSequence", "FormatToken", "format_row", "row_of_texts"]
