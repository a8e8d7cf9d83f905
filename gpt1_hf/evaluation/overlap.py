"""How much of what is scored was seen in training: rows that stand in the train split, text that stands in a corpus.

Texts are compared by their words alone, without case, punctuation and spacing. Rows are found whole (all columns), and
column by column: a premise or a document that both splits share is no leak by itself, but worth knowing. Of a corpus,
runs of 13 words are looked up, as in GPT-3 (Brown et al., 2020, appendix C).
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from datasets import Dataset

from ..data.corpus import read_documents
from ..processing_gpt1 import INPUT_FORMATS
from .results import Result


N_WORDS = 13


def words(text: str) -> str:
    """The words of a text, lower-cased, with one space between each two."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold().replace("_", " ")))


@dataclass
class RowOverlap:
    """
    Which rows stand in the train split.

    Args:
        whole (`list[bool]`):
            A flag a row: whether a training row has all of its texts. Of a similarity's pair, in either order.
        columns (`dict[str, int]`):
            Column -> number of rows whose text in it a training row has in the same column.
    """

    whole: list[bool]
    columns: dict[str, int]


def row_overlap(train: Dataset, rows: Dataset, input_format: str) -> RowOverlap:
    """
    Look rows up among the training rows.

    Args:
        train (`Dataset`), rows (`Dataset`):
            Training rows, and those to be scored, in canonical columns.
        input_format (`str`):
            Format of the task, whose columns are compared. A text without words is found nowhere.
    """
    names = INPUT_FORMATS[input_format]
    train_keys, keys = ([_key(row, names) for row in part] for part in (train, rows))
    seen = [{key[index] for key in train_keys} for index in range(len(names))]
    columns = {
        name: sum(bool(_text(key[index])) and key[index] in seen[index] for key in keys)
        for index, name in enumerate(names)
    }
    if input_format == "similarity":
        train_keys, keys = ([tuple(sorted(key)) for key in part] for part in (train_keys, keys))
    known = set(train_keys)
    return RowOverlap([key in known and any(map(_text, key)) for key in keys], columns)


def _key(row: dict, names: Sequence[str]) -> tuple:
    """The words of a row's texts. Choices count as a set, as they may be in another order."""
    return tuple(
        words(row[name]) if isinstance(row[name], str) else tuple(sorted(map(words, row[name]))) for name in names
    )


def _text(part: str | tuple[str, ...]) -> str:
    return part if isinstance(part, str) else "".join(part)


def corpus_overlap(corpus: Iterable[str], texts: Sequence[str], n: int = N_WORDS) -> list[float]:
    """
    Look the words of texts up in a corpus, which is read once and not kept.

    Args:
        corpus (iterable of `str`):
            Documents.
        texts (list of `str`):
            Texts to look up.
        n (`int`, *optional*, defaults to 13):
            Words that have to follow one another in both. A text of fewer is looked up whole.

    Returns:
        `list[float]`: of each text the share of its runs of `n` words that the corpus has; 0 of one without words.
    """
    runs = [list(_runs(text, n)) for text in texts]
    sought = {run for of_text in runs for run in of_text}
    lengths = sorted({len(run.split()) for run in sought})
    found: set[str] = set()
    for document in corpus:
        for length in lengths:
            found.update(run for run in _runs(document, length) if run in sought)
    return [sum(run in found for run in of_text) / len(of_text) if of_text else 0.0 for of_text in runs]


def _runs(text: str, n: int) -> Iterable[str]:
    parts = words(text).split()
    if not parts:
        return
    for start in range(max(1, len(parts) - n + 1)):
        yield " ".join(parts[start : start + n])


def in_corpus(corpus: str, texts: Sequence[str], data_dir: str | None = None) -> dict[str, Any]:
    """Say how much of texts stands in a corpus that [`read_documents`] reads, and return it for the results."""
    shares = corpus_overlap(read_documents(corpus, "train", data_dir), texts)
    n_seen = sum(share > 0 for share in shares)
    percent = round(100 * sum(shares) / len(shares), 2)
    print(f"{n_seen} of {len(texts)} texts share {N_WORDS} words in a row with {corpus}, {percent} % of all such runs")
    return {"train_text": corpus, "texts_in_corpus": n_seen, "percent_of_runs_in_corpus": percent}


def row_texts(rows: Dataset, input_format: str) -> list[str]:
    """The texts of each row, one after the other."""
    names = INPUT_FORMATS[input_format]
    columns = [[part if isinstance(part, str) else "\n".join(part) for part in rows[name][:]] for name in names]
    return ["\n".join(parts) for parts in zip(*columns, strict=True)]


def with_overlap(
    results: Sequence[Result], overlap: RowOverlap, clean: Sequence[Result], more: dict[str, Any]
) -> list[Result]:
    """
    Add to results, as `details["overlap"]`, what of their rows was seen in training, and say it.

    Args:
        results (list of [`Result`]):
            Results of one split.
        overlap ([`RowOverlap`]):
            Which of the split's rows stand in the train split.
        clean (list of [`Result`]):
            The same metrics on the other rows; those that are lacking had none.
        more (`dict`):
            What else to add.
    """
    n_rows, n_seen = len(overlap.whole), sum(overlap.whole)
    print(f"{results[0].task}: {n_seen} of {n_rows} rows ({n_seen / n_rows:.1%}) stand in the train split")
    without = {(result.split, result.metric): result for result in clean}
    marked = []
    for result in results:
        other = without.get((result.split, result.metric))
        own = {"rows_in_train": n_seen, "columns_in_train": overlap.columns, **more}
        own |= {"value_without": other and other.value, "n_without": other.n_examples if other else 0}
        if n_seen:
            print(f"{result.split} {result.metric} without them: {own['value_without']} on {own['n_without']} rows")
        marked.append(replace(result, details={**result.details, "overlap": own}))
    return marked


__all__ = ["RowOverlap", "corpus_overlap", "in_corpus", "row_overlap", "row_texts", "with_overlap"]
