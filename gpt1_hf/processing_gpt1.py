"""GPT-1's task-aware input transformations (paper §3.3), from rows of text to the token sequences of the heads.

This file travels to the Hub beside every checkpoint. It imports nothing else from the package.
"""

import copy
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tokenizers.processors import TemplateProcessing
from transformers import BatchEncoding, PreTrainedTokenizerBase, ProcessorMixin
from transformers.tokenization_utils_base import LARGE_INTEGER


logger = logging.getLogger(__name__)

# Input format -> the canonical columns it reads.
INPUT_FORMATS: dict[str, tuple[str, ...]] = {
    "classification": ("text",),
    "entailment": ("premise", "hypothesis"),
    "similarity": ("text_a", "text_b"),
    "multiple_choice": ("document", "question", "choices"),
    "token_classification": ("words",),
}
LIST_COLUMNS = {"choices": "texts", "words": "words"}  # columns that hold a list in each row, of what
# The released code's tokens (train.py of openai/finetune-transformer-lm) in the order of their ids: start, delimiter,
# extract. The keys are the library's attributes for tokens of these roles.
TASK_TOKENS = {"bos_token": "_start_", "sep_token": "_delimiter_", "cls_token": "_classify_"}

CONTEXT = 512  # GPT-1's context length in tokens
# How a tokenizer was found, which transformers would save into `tokenizer_config.json`.
LOCATION = ("is_local", "local_files_only")


def forget_location(tokenizer: PreTrainedTokenizerBase):
    """Remove from a tokenizer what says how its files were found, so that it is not saved."""
    for name in LOCATION:
        tokenizer.init_kwargs.pop(name, None)


def as_lists(value: Any) -> Any:
    """Convert a value of a data set's format (NumPy, PyTorch, pandas, Arrow, ...) to plain values and lists."""
    for name in ("tolist", "to_list", "to_pylist", "as_py"):
        if hasattr(value, name):
            value = getattr(value, name)()
            break
    if isinstance(value, list | tuple) and value and not isinstance(value[0], str | int | float):
        return [as_lists(part) for part in value]
    return list(value) if isinstance(value, tuple) else value


def as_columns(rows: Any) -> Mapping[str, Any] | None:
    """Columns of a data set, data frame, Arrow table or mapping; `None` for anything else."""
    names = getattr(rows, "column_names", getattr(rows, "columns", None))
    if isinstance(rows, Mapping) or names is None:
        return rows if isinstance(rows, Mapping) else None
    return {name: rows[name] for name in names}


def padding_token(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """
    Padding token of a tokenizer. Without one, as in transformers' `OpenAIGPTTokenizer`, it is the unknown token as in
    [`GPT1Tokenizer`], or else the end token. `None` if the tokenizer has none of the three.
    """
    return next((t for t in (tokenizer.pad_token, tokenizer.unk_token, tokenizer.eos_token) if t is not None), None)


def truncate_pair(first: list[int], second: list[int], budget: int) -> tuple[list[int], list[int]]:
    """Cut the end of the longer of two token lists until both fit into `budget` tokens."""
    if len(first) <= len(second):
        keep = min(len(first), budget // 2)
        return first[:keep], second[: budget - keep]
    keep = min(len(second), budget // 2)
    return first[: budget - keep], second[:keep]


def truncate_question(
    document: list[int], question: list[int], choices: Sequence[list[int]], budget: int
) -> tuple[list[int], list[int], list[list[int]]]:
    """
    Cut the token lists of a question until document, question and each choice fit into `budget` tokens: first the end
    of the document, then the start of the question, then the end of a choice. At least one token of each remains.

    The longest choice decides on document and question, so that all choices have the same context. The released code
    also reads a story equally far for both of its endings (`transform_roc` of openai/finetune-transformer-lm).
    """
    longest = max(map(len, choices))
    document = document[: max(1, budget - len(question) - longest)]
    question = question[-max(1, budget - len(document) - longest) :]
    rest = budget - len(document) - len(question)
    return document, question, [choice[:rest] for choice in choices]


class GPT1Processor(ProcessorMixin):
    """
    Converts rows in canonical columns to token sequences of one of GPT-1's input formats.

    | format | columns | sequence |
    |---|---|---|
    | `classification` | text | start text extract |
    | `entailment` | premise, hypothesis | start premise delimiter hypothesis extract |
    | `similarity` | text_a, text_b | start a delimiter b extract; start b delimiter a extract |
    | `multiple_choice` | document, question, choices | start document delimiter question delimiter choice extract |
    | `token_classification` | words | start words extract |

    Similarity makes two sequences per row, and multiple choice makes one per choice. A question that is absent, `None`
    or empty, as in Story Cloze, has no delimiter. `words` is a list of words, which are tokenized one by one.

    The processor's tokenizer is a copy of the one passed in, with the start, delimiter and extract tokens added. Its
    template follows the format, so that the saved tokenizer alone makes the same sequences in a plain
    `pipeline("text-classification")`. The model needs
    `resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)` for the new tokens, which draws their
    embeddings like its other weights, N(0, `initializer_range`). If the tokenizer has no padding token, the copy pads
    with `<unk>`. If it has no `model_max_length`, the copy uses GPT-1's 512.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            Tokenizer with or without the special tokens.
        input_format (`str`, *optional*, defaults to `"classification"`):
            One of the formats above.
        question_delimiter (`bool`, *optional*, defaults to `True`):
            Whether a delimiter separates document and question. The paper joins them without one (§3.3).

    Raises:
        ValueError: if the format is unknown, or the tokenizer has no token to pad with.
    """

    _auto_class = "AutoProcessor"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        input_format: str = "classification",
        question_delimiter: bool = True,
    ):
        if input_format not in INPUT_FORMATS:
            raise ValueError(f"unknown input_format {input_format!r}; choose one of {', '.join(INPUT_FORMATS)}")
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.add_special_tokens(TASK_TOKENS)
        tokenizer.pad_token = padding_token(tokenizer)
        if tokenizer.pad_token is None:
            raise ValueError(
                f"the tokenizer {tokenizer.name_or_path!r} has no padding token: set its pad_token to one of its "
                "tokens"
            )
        if tokenizer.model_max_length > LARGE_INTEGER:  # not set
            tokenizer.model_max_length = CONTEXT
        # Text that spells a special token is split like other text. The setting is saved, too.
        tokenizer.split_special_tokens = tokenizer.init_kwargs["split_special_tokens"] = True
        forget_location(tokenizer)
        tokenizer.init_kwargs["input_format"] = input_format  # saved for the package's pipelines
        start, delimiter, extract = TASK_TOKENS.values()
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{start} $A {extract}",
            pair=f"{start} $A {delimiter} $B {extract}",
            special_tokens=[(token, tokenizer.convert_tokens_to_ids(token)) for token in TASK_TOKENS.values()],
        )
        super().__init__(tokenizer)
        self.input_format = input_format
        self.question_delimiter = question_delimiter

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that the format reads."""
        return INPUT_FORMATS[self.input_format]

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask"]

    @property
    def has_several_sequences(self) -> bool:
        """Whether a row makes several sequences. Its `input_ids` are then a list of lists."""
        return self.input_format in ("similarity", "multiple_choice")

    def __call__(
        self,
        rows: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        *,
        max_length: int | None = None,
        padding: bool | str = False,
        return_tensors: str | None = None,
        return_truncated: bool = False,
        return_word_ends: bool = False,
        **columns: str | Sequence[str],
    ) -> BatchEncoding:
        """
        Args:
            rows (`dict`, or list of `dict`, *optional*):
                One row, a list of rows, or a dictionary of columns as in `Dataset.map(batched=True)`. Columns that the
                format does not read are ignored. Columns can also be passed as keyword arguments.
            max_length (`int`, *optional*):
                Longest sequence in tokens, special tokens included; defaults to the tokenizer's `model_max_length`. In
                a pair, the longer text is cut, equally in both orders. In multiple choice, the end of the document is
                cut first, then the start of the question, then the end of a choice. All choices of a row keep the same
                part of document and question, which fits the longest of them. The special tokens and at least one
                token of each text remain.
            padding (`bool` or `str`, *optional*, defaults to `False`):
                As in the tokenizer's own call.
            return_tensors (`str`, *optional*):
                `"pt"` for tensors, which need `padding` unless all sequences have the same length.
            return_truncated (`bool`, *optional*, defaults to `False`):
                Whether to return `truncated`, one flag per row, instead of warning about truncated and empty rows.
            return_word_ends (`bool`, *optional*, defaults to `False`):
                Whether to return `word_ends`: for each word of a row, the index of its last token in the sequence, or
                −1 if it was cut or has no token. For `token_classification` only.

        Returns:
            `BatchEncoding` with `input_ids` and `attention_mask`: a list for one row, a list of lists for several
            rows, or tensors of shape `(batch, seq)`. If a row makes several sequences, each row is a list of them, and
            tensors have the shape `(batch, sequences, seq)`.

        Raises:
            ValueError: if a column is missing or contains anything but text; if a single text or any choice is empty;
                if rows have unequal numbers of choices; or if `max_length` leaves no room for a token of each text.
        """
        texts, is_single = self._texts(rows, columns)
        empty = self.count_empty(texts)
        if is_single and empty:
            raise ValueError(
                f"empty text: {' and '.join(self._needed)} must contain at least one character that is not a space"
            )

        max_length = self.tokenizer.model_max_length if max_length is None else max_length
        n_special = len(self.columns) + 1
        if max_length < n_special + len(self.columns):
            raise ValueError(f"max_length {max_length} is too short for the special tokens and one token of each text")
        if return_word_ends and self.input_format != "token_classification":
            raise ValueError(f"the {self.input_format} format has no words: leave out return_word_ends")
        sequences, truncated, word_ends = [], [], []
        for row in zip(*map(self._tokenize, texts.values()), strict=True):
            if return_word_ends:
                word_ends.append(self._word_ends(row[0], max_length))
            row_sequences, is_cut = self._sequences(row, max_length)
            sequences += row_sequences
            truncated.append(is_cut)

        encoding: Any = {"input_ids": sequences, "attention_mask": [[1] * len(sequence) for sequence in sequences]}
        if not return_truncated:
            self.warn(len(truncated), sum(truncated), empty)
        if padding or return_tensors:
            encoding = self.tokenizer.pad(
                encoding, padding=padding, max_length=max_length, return_tensors=return_tensors, verbose=False
            )
        if self.has_several_sequences and sequences:
            n = len(sequences) // len(truncated)  # equal for all rows
            encoding = {
                name: values.reshape(-1, n, values.shape[-1])
                if return_tensors
                else [values[start : start + n] for start in range(0, len(values), n)]
                for name, values in encoding.items()
            }
        if return_truncated:
            encoding["truncated"] = truncated
        if return_word_ends:
            encoding["word_ends"] = word_ends
        if is_single and return_tensors is None:
            encoding = {name: values[0] for name, values in encoding.items()}
        return BatchEncoding(encoding)

    def count_empty(self, columns: Mapping[str, Sequence[str]]) -> int:
        """Number of rows, in columns of text, with an empty text that should not be empty."""
        texts = zip(*(columns[name] for name in self._needed if name not in LIST_COLUMNS), strict=True)
        return sum(any(not text.strip() for text in row) for row in texts)

    def warn(self, n_rows: int, n_truncated: int, n_empty: int):
        """Log a warning about rows that were cut or have no text. They are kept."""
        if n_truncated:
            logger.warning(f"{n_truncated} of {n_rows} rows were longer than the context and were cut")
        if n_empty:
            logger.warning(f"{n_empty} of {n_rows} rows have an empty {' or '.join(self._needed)}")

    @property
    def _needed(self) -> tuple[str, ...]:
        """Columns whose texts should not be empty. A question may be empty; a choice or a word must not be."""
        return tuple(name for name in self.columns if name not in ("question", "choices"))

    def _texts(self, rows, columns: dict[str, Any]) -> tuple[dict[str, list], bool]:
        """The format's columns as lists of texts (lists of lists for choices), and whether the input was one row."""
        if rows is None:
            rows = columns
        elif columns:
            raise ValueError(f"pass rows or columns, not both; unknown arguments: {', '.join(columns)}")
        rows = rows if (given := as_columns(rows)) is None else given
        is_list_of_rows = not isinstance(rows, Mapping)
        if is_list_of_rows:
            rows = list(rows) if isinstance(rows, Iterable) and not isinstance(rows, str) else [rows]
            if not all(isinstance(row, Mapping) for row in rows):
                raise ValueError(f"pass rows with the columns {', '.join(self.columns)}, not bare texts")
            rows = {name: [row.get(name) for row in rows] for name in self.columns}
        rows = {name: as_lists(rows[name]) if name in self.columns else None for name in rows}
        missing = [name for name in self.columns if name not in rows and name != "question"]
        if missing:
            raise ValueError(
                f"the {self.input_format} format needs the column {missing[0]!r}; found: {', '.join(map(str, rows))}"
            )
        is_single = not all(
            isinstance(rows[name], Sequence) and not isinstance(rows[name], str) for name in self._needed
        )
        if self.input_format == "token_classification" and not is_single and not is_list_of_rows:
            # The words of one row are a list, too.
            is_single = len(rows["words"]) > 0 and isinstance(rows["words"][0], str)
        given = {name: rows[name] for name in self.columns if name in rows}
        if given.get("question", "") is None:
            del given["question"]
        for name, column in given.items():
            if not is_single and (isinstance(column, str) or not isinstance(column, Iterable)):
                raise ValueError(f"column {name!r} holds a single value, but {self._needed[0]!r} a list")
        texts = {name: [column] if is_single else list(column) for name, column in given.items()}
        if "question" in self.columns:
            n_rows = len(texts["document"])
            texts["question"] = ["" if text is None else text for text in texts.get("question", [""] * n_rows)]
        texts = {name: texts[name] for name in self.columns}
        for name, column in texts.items():
            if name in LIST_COLUMNS:
                self._check_lists(name, column)
                continue
            for index, text in enumerate(column):
                if not isinstance(text, str):
                    raise ValueError(f"column {name!r} holds {text!r} in row {index}, which is not text")
        if len({len(column) for column in texts.values()}) > 1:
            raise ValueError(f"the columns {', '.join(self.columns)} have unequal lengths")
        return texts, is_single

    def _check_lists(self, name: str, column: Sequence[Sequence[str]]):
        for index, texts in enumerate(column):
            is_list = isinstance(texts, Sequence) and not isinstance(texts, str)
            if not is_list or not texts or not all(isinstance(text, str) for text in texts):
                raise ValueError(
                    f"column {name!r} holds {texts!r} in row {index}, which is not a list of {LIST_COLUMNS[name]}"
                )
            if not all(text.strip() for text in texts):
                raise ValueError(f"column {name!r} holds an empty {name[:-1]} in row {index}: {texts!r}")
            if name == "choices" and len(texts) != len(column[0]):
                raise ValueError(
                    f"row {index} has {len(texts)} choices, but row 0 has {len(column[0])}: rows of a batch need "
                    "equal numbers of choices"
                )

    def _tokenize(self, column: list) -> list:
        """Token ids of each text in a column, nested like the column."""
        if column and not isinstance(column[0], str):
            ids = iter(self._tokenize([text for texts in column for text in texts]))
            return [[next(ids) for _ in texts] for texts in column]
        if not column:
            return []
        # Set here too, in case the tokenizer was replaced or changed.
        return self.tokenizer(column, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]

    def _sequences(self, row: tuple, max_length: int) -> tuple[list[list[int]], bool]:
        """Sequences of a row, made of its token lists and the special tokens, and whether any of them was cut."""
        start, delimiter, extract = ([getattr(self.tokenizer, f"{name}_id")] for name in TASK_TOKENS)
        if self.input_format == "multiple_choice":
            document, question, choices = row
            middle = delimiter if question and self.question_delimiter else []
            budget = max_length - len(start + middle + delimiter + extract)
            is_cut = len(document) + len(question) + max(map(len, choices)) > budget
            document, question, choices = truncate_question(document, question, choices, budget)
            context = [*start, *document, *middle, *question, *delimiter]
            return [[*context, *choice, *extract] for choice in choices], is_cut
        if self.input_format in ("classification", "token_classification"):
            budget = max_length - 2
            ids = row[0] if self.input_format == "classification" else [token for word in row[0] for token in word]
            return [[*start, *ids[:budget], *extract]], len(ids) > budget
        budget = max_length - 3
        is_cut = len(row[0]) + len(row[1]) > budget
        first, second = truncate_pair(row[0], row[1], budget) if is_cut else row
        orders = [(first, second), (second, first)] if self.input_format == "similarity" else [(first, second)]
        return [[*start, *one, *delimiter, *other, *extract] for one, other in orders], is_cut

    def _word_ends(self, words: list[list[int]], max_length: int) -> list[int]:
        """Index of each word's last token, after the start token; −1 if it was cut or has no token."""
        ends, n_tokens = [], 0
        for word in words:
            n_tokens += len(word)
            ends.append(n_tokens if word and n_tokens <= max_length - 2 else -1)
        return ends


__all__ = ["GPT1Processor"]
