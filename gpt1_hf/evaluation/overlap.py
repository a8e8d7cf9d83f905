"""Overlap of scored data with training data: rows that are also in the train split, and text that is also in a corpus.

Texts are compared by their words, ignoring case, punctuation and spacing. Rows are compared as a whole (all columns)
and column by column: a premise or document that two splits share is not a leak by itself, but is reported. Text is
compared with a corpus by sequences of 13 words, as in GPT-3 (Brown et al., 2020, appendix C).
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from datasets import Dataset

from ..data.corpus import read_documents
from ..processing_gpt1 import INPUT_FORMATS
from .results import Result


N_WORDS = 13


def words(text: str) -> str:
    """The words of a text, case-folded and separated by single spaces."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold().replace("_", " ")))


@dataclass
class RowOverlap:
    """Overlap of rows with training rows."""

    whole: list[bool]  # for each row, whether a training row has the same texts (similarity: in either order)
    columns: dict[str, int]  # column -> number of rows whose text there also occurs there in a training row


def row_overlap(train: Dataset, rows: Dataset, input_format: str) -> RowOverlap:
    """
    Compare rows with training rows.

    Args:
        train (`Dataset`), rows (`Dataset`):
            Training rows and scored rows, in canonical columns.
        input_format (`str`):
            Input format of the task. Its columns are compared; a text without words never matches.
    """
    names = INPUT_FORMATS[input_format]
    train_keys, keys = ([_key(row, names) for row in part] for part in (train, rows))
    columns = {}
    for index, name in enumerate(names):
        seen = {key[index] for key in train_keys}
        columns[name] = sum(key[index] in seen for key in keys if _has_words(key[index]))
    if input_format == "similarity":
        train_keys, keys = ([tuple(sorted(key)) for key in part] for part in (train_keys, keys))
    seen = set(train_keys)
    return RowOverlap([key in seen and any(map(_has_words, key)) for key in keys], columns)


def _key(row: dict, names: Sequence[str]) -> tuple:
    """The words of a row's texts. Choices are sorted, so that their order does not matter."""
    return tuple(
        words(row[name]) if isinstance(row[name], str) else tuple(sorted(map(words, row[name]))) for name in names
    )


def _has_words(part: str | tuple[str, ...]) -> bool:
    return any(part)  # characters of a text, or choices


def corpus_overlap(corpus: Iterable[str], texts: Sequence[str], n: int = N_WORDS) -> list[float]:
    """
    Measure how much of each text occurs in a corpus. The corpus is read once and not kept in memory.

    Args:
        corpus (iterable of `str`):
            Documents.
        texts (list of `str`):
            Texts to look for.
        n (`int`, *optional*, defaults to 13):
            Length of the compared n-grams in words. A shorter text is one n-gram.

    Returns:
        `list[float]`: for each text, the share of its n-grams that occur in the corpus; 0 for a text without words.
    """
    ngrams = [list(_ngrams(text, n)) for text in texts]
    wanted = {ngram for own in ngrams for ngram in own}
    lengths = sorted({len(ngram.split()) for ngram in wanted})
    found: set[str] = set()
    for document in corpus:
        for length in lengths:
            found.update(ngram for ngram in _ngrams(document, length) if ngram in wanted)
    return [sum(ngram in found for ngram in own) / len(own) if own else 0.0 for own in ngrams]


def _ngrams(text: str, n: int) -> Iterator[str]:
    parts = words(text).split()
    if not parts:
        return
    for start in range(max(1, len(parts) - n + 1)):
        yield " ".join(parts[start : start + n])


def in_corpus(corpus: str, texts: Sequence[str], data_dir: str | None = None) -> dict[str, Any]:
    """Print how much of the texts occurs in a corpus (see [`read_documents`]), and return it as result details."""
    shares = corpus_overlap(read_documents(corpus, "train", data_dir), texts)
    n_seen = sum(share > 0 for share in shares)
    percent = round(100 * sum(shares) / len(shares), 2)
    print(
        f"{n_seen} of {len(texts)} texts share {N_WORDS} words in a row with {corpus}: {percent} % of all such n-grams"
    )
    return {"train_text": corpus, "texts_in_corpus": n_seen, "percent_of_runs_in_corpus": percent}


def row_texts(rows: Dataset, input_format: str) -> list[str]:
    """The texts of each row, joined by line breaks."""
    names = INPUT_FORMATS[input_format]
    columns = [[part if isinstance(part, str) else "\n".join(part) for part in rows[name][:]] for name in names]
    return ["\n".join(parts) for parts in zip(*columns, strict=True)]


def with_overlap(
    results: Sequence[Result], overlap: RowOverlap, results_unseen: Sequence[Result], more: dict[str, Any]
) -> list[Result]:
    """
    Print how many rows of a split are also in the train split, and add it to the results as `details["overlap"]`.

    Args:
        results (list of [`Result`]):
            Results of the split.
        overlap ([`RowOverlap`]):
            Overlap of the split's rows with the train split.
        results_unseen (list of [`Result`]):
            The same metrics on the rows that are not in the train split. A metric without such rows is missing.
        more (`dict`):
            Further entries of `details["overlap"]`.
    """
    n_rows, n_seen = len(overlap.whole), sum(overlap.whole)
    print(f"{results[0].task}: {n_seen} of {n_rows} rows ({n_seen / n_rows:.1%}) are also in the train split")
    unseen = {(result.split, result.metric): result for result in results_unseen}
    extended = []
    for result in results:
        without = unseen.get((result.split, result.metric))
        details = {"rows_in_train": n_seen, "columns_in_train": overlap.columns, **more}
        details |= {"value_without": without and without.value, "n_without": without.n_examples if without else 0}
        if n_seen:
            value, n_unseen = details["value_without"], details["n_without"]
            print(f"{result.split} {result.metric} without them: {value} on {n_unseen} rows")
        extended.append(replace(result, details={**result.details, "overlap": details}))
    return extended


__all__ = ["RowOverlap", "corpus_overlap", "in_corpus", "row_overlap", "row_texts", "with_overlap"]
