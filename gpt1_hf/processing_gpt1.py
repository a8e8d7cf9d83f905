"""GPT-1's task-aware input transformations (paper §3.3): rows of text -> the token sequences that the heads read.

This file travels to the Hub beside every checkpoint; it imports nothing of the package but its siblings.
"""

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers.processors import TemplateProcessing
from transformers import BatchEncoding, PreTrainedTokenizerBase, ProcessorMixin


logger = logging.getLogger(__name__)

# Input format -> the canonical columns it reads.
INPUT_FORMATS: dict[str, tuple[str, ...]] = {
    "classification": ("text",),
    "entailment": ("premise", "hypothesis"),
    "similarity": ("text_a", "text_b"),
    "multiple_choice": ("document", "question", "choices"),
}
# The released code's tokens, in the order of their ids: start, delimiter, extract (train.py of
# openai/finetune-transformer-lm), in the slots where the library keeps tokens of these roles.
TASK_TOKENS = {"bos_token": "_start_", "sep_token": "_delimiter_", "cls_token": "_classify_"}


def truncate_pair(first: list[int], second: list[int], budget: int) -> tuple[list[int], list[int]]:
    """Cut the longer of two token lists, from its end, until both fit `budget` tokens."""
    if len(first) <= len(second):
        keep = min(len(first), budget // 2)
        return first[:keep], second[: budget - keep]
    keep = min(len(second), budget // 2)
    return first[: budget - keep], second[:keep]


class GPT1Processor(ProcessorMixin):
    """
    Turns rows in canonical columns into token sequences for one of GPT-1's input formats.

    | format | columns | sequence |
    |---|---|---|
    | `classification` | `text` | start text extract |
    | `entailment` | `premise`, `hypothesis` | start premise delimiter hypothesis extract |

    Its tokenizer is a copy of the given one with the start, delimiter and extract tokens added, and with the format as
    its template, so that the saved tokenizer alone, in a plain `pipeline("text-classification")`, makes the same
    sequences. A model needs `resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)` for them.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            Tokenizer, with or without the special tokens.
        input_format (`str`, *optional*, defaults to `"classification"`):
            One of the formats above.

    Raises:
        ValueError: if there is no such format.
    """

    _auto_class = "AutoProcessor"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, input_format: str = "classification"):
        if input_format not in INPUT_FORMATS:
            raise ValueError(f"unknown input_format {input_format!r}; choose one of {', '.join(INPUT_FORMATS)}")
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.add_special_tokens(TASK_TOKENS)
        start, delimiter, extract = TASK_TOKENS.values()
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{start} $A {extract}",
            pair=f"{start} $A {delimiter} $B {extract}",
            special_tokens=[(token, tokenizer.convert_tokens_to_ids(token)) for token in TASK_TOKENS.values()],
        )
        super().__init__(tokenizer)
        self.input_format = input_format

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that the format reads."""
        return INPUT_FORMATS[self.input_format]

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask"]

    def __call__(
        self,
        rows: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        *,
        max_length: int | None = None,
        padding: bool | str = False,
        return_tensors: str | None = None,
        return_truncated: bool = False,
        **columns: str | Sequence[str],
    ) -> BatchEncoding:
        """
        Args:
            rows (`dict`, or list of `dict`, *optional*):
                One row, a list of rows, or a dictionary of columns as `Dataset.map(batched=True)` passes it. Columns
                that the format does not read are ignored. The columns can be given as keyword arguments instead.
            max_length (`int`, *optional*):
                Longest sequence, special tokens included; defaults to the tokenizer's `model_max_length`. Of a pair
                the longer text is cut; the special tokens always stay.
            padding (`bool` or `str`, *optional*, defaults to `False`):
                As in the tokenizer's own call.
            return_tensors (`str`, *optional*):
                `"pt"` for tensors, which needs `padding` unless the rows are of one length.
            return_truncated (`bool`, *optional*, defaults to `False`):
                Whether to return `truncated`, one flag a row, instead of warning of truncated and empty rows.

        Returns:
            `BatchEncoding` with `input_ids` and `attention_mask`: one list for one row, a list of lists for several.

        Raises:
            ValueError: if a column is missing or holds something other than text, if a single text is empty, or if
                `max_length` leaves no room for a token of each text.
        """
        texts, is_single = self._texts(rows, columns)
        empty = sum(any(not text.strip() for text in row) for row in zip(*texts, strict=True))
        if is_single and empty:
            raise ValueError(
                f"empty text: give {' and '.join(self.columns)} at least one character that is not a space"
            )

        max_length = self.tokenizer.model_max_length if max_length is None else max_length
        n_special = len(self.columns) + 1
        if max_length < n_special + len(self.columns):
            raise ValueError(f"max_length {max_length} is too short for the special tokens and one token of each text")
        pieces = [
            self.tokenizer(column, add_special_tokens=False, verbose=False)["input_ids"] if column else []
            for column in texts
        ]
        sequences, truncated = [], []
        for row in zip(*pieces, strict=True):
            sequences.append(self._sequence(row, max_length - n_special))
            truncated.append(n_special + sum(map(len, row)) > max_length)

        encoding = {"input_ids": sequences, "attention_mask": [[1] * len(sequence) for sequence in sequences]}
        if return_truncated:
            encoding["truncated"] = truncated
        else:
            self.warn(len(sequences), sum(truncated), empty)
        if is_single and return_tensors is None:
            encoding = {name: values[0] for name, values in encoding.items()}
        if padding or return_tensors:
            return self.tokenizer.pad(
                encoding, padding=padding, max_length=max_length, return_tensors=return_tensors, verbose=False
            )
        return BatchEncoding(encoding)

    def warn(self, n_rows: int, n_truncated: int, n_empty: int):
        """Log a warning of the rows that were cut, or that have no text; they are kept all the same."""
        if n_truncated:
            logger.warning(f"{n_truncated} of {n_rows} rows were longer than the context and were cut")
        if n_empty:
            logger.warning(f"{n_empty} of {n_rows} rows have an empty {' or '.join(self.columns)}")

    def _texts(self, rows, columns: dict[str, Any]) -> tuple[list[list[str]], bool]:
        """The format's columns as lists of texts, and whether they were given as one row."""
        if rows is None:
            rows = columns
        elif columns:
            raise ValueError(f"give rows or columns, not both; unknown arguments: {', '.join(columns)}")
        if not isinstance(rows, Mapping):
            if isinstance(rows, str) or not all(isinstance(row, Mapping) for row in rows):
                raise ValueError(f"give rows with the columns {', '.join(self.columns)}, not bare texts")
            rows = {name: [row.get(name) for row in rows] for name in self.columns}
        missing = [name for name in self.columns if name not in rows]
        if missing:
            raise ValueError(
                f"the {self.input_format} format needs the column {missing[0]!r}; given: {', '.join(map(str, rows))}"
            )
        is_single = not all(
            isinstance(rows[name], Sequence) and not isinstance(rows[name], str) for name in self.columns
        )
        texts = [[rows[name]] if is_single else list(rows[name]) for name in self.columns]
        for name, column in zip(self.columns, texts, strict=True):
            for index, text in enumerate(column):
                if not isinstance(text, str):
                    raise ValueError(f"column {name!r} holds {text!r} in row {index}, which is not text")
        if len({len(column) for column in texts}) > 1:
            raise ValueError(f"the columns {', '.join(self.columns)} are of unequal length")
        return texts, is_single

    def _sequence(self, row: tuple[list[int], ...], budget: int) -> list[int]:
        """Join the texts of one row with the special tokens around them."""
        tokenizer = self.tokenizer
        if len(row) == 1:
            return [tokenizer.bos_token_id, *row[0][:budget], tokenizer.cls_token_id]
        first, second = row if len(row[0]) + len(row[1]) <= budget else truncate_pair(*row, budget)
        return [tokenizer.bos_token_id, *first, tokenizer.sep_token_id, *second, tokenizer.cls_token_id]


__all__ = ["GPT1Processor"]
