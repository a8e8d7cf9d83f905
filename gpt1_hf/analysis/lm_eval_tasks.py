"""Functions for `recipes/lm_eval/*.yaml`: rows and scores of the zero-shot tasks for lm-evaluation-harness.

lm_eval passes all of its `--model_args` and `--metadata` to the loaders. It returns the sum of a continuation's
log-probabilities, but not the number of its tokens, so the loaders count them with the model's tokenizer. Each YAML
names what still differs from [`gpt1_hf.analysis.zero_shot`].
"""

import numpy as np
from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedTokenizerBase

from ..checkpoints.loading import open_tokenizer
from ..data.loading import evenly_spaced
from ..errors import GPT1Error
from ..settings import default_data_dir
from ..tasks import load_task
from .zero_shot import HEURISTICS, best_threshold, split_at_pronoun


def load_rows(
    task_id: str,
    split: str | None = None,
    data_dir: str | None = None,
    sample: bool = False,
    max_examples: int | None = None,
    **_,
) -> Dataset:
    """
    The rows that `gpt1 zero-shot` scores by default, with the same options.

    Args:
        task_id (`str`):
            `cola`, `sst2`, `race` or `dpr`.
        split (`str`, *optional*):
            Split to score.
        data_dir (`str`, *optional*):
            Folder with local copies of data sets; `GPT1_DATA_DIR` by default.
        sample (`bool`, *optional*, defaults to `False`):
            Whether to load the labelled sample in the package.
        max_examples (`int`, *optional*):
            Number of rows, evenly spaced in the split. lm_eval's `--limit` takes the first ones instead.
    """
    split = split or ("validation" if sample else HEURISTICS[task_id].split)
    rows = load_task(task_id).load(split, data_dir or default_data_dir(), sample)
    return rows.select(evenly_spaced(len(rows), max_examples))


def count_tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[int]:
    """Number of tokens of each text, without special tokens."""
    return list(map(len, tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]))


def load_sst2(**options) -> dict[str, Dataset]:
    """SST-2: rows of `text` and `label`."""
    return {"rows": load_rows("sst2", **options)}


def load_dpr(**options) -> dict[str, Dataset]:
    """Definite pronouns: the sentence up to each candidate in the pronoun's place, and the rest after it."""

    def split(row: dict) -> dict:
        before, after = split_at_pronoun(row["text"], row["pronoun"], row["choices"])
        return {"beginnings": [before + candidate for candidate in row["choices"]], "rest": after}

    return {"rows": load_rows("dpr", **options).map(split)}


def load_race(pretrained: str, tokenizer: str | None = None, **options) -> dict[str, Dataset]:
    """RACE: `context` is document and question, `n_tokens` the number of tokens of each choice after it."""
    counter = open_tokenizer(tokenizer or pretrained)

    def count(row: dict) -> dict:
        context = f"{row['document']} {row['question']}"
        n_context, *n_whole = count_tokens(counter, [context, *(f"{context} {choice}" for choice in row["choices"])])
        return {"context": context, "n_tokens": [n - n_context for n in n_whole]}

    return {"rows": load_rows("race", **options).map(count)}


def score_race(row: dict, results: list[tuple[float, bool]]) -> dict[str, float]:
    """Whether the answer with the highest mean token log-probability is the right one."""
    log_probs = [log_prob for log_prob, _ in results]
    return {"acc_per_token": float(np.argmax(np.divide(log_probs, row["n_tokens"])) == row["label"])}


def load_cola(pretrained: str, tokenizer: str | None = None, **options) -> dict[str, Dataset]:
    """CoLA: each sentence's `first` word and its `rest`. The training rows, which set the threshold, are included."""
    counter = open_tokenizer(tokenizer or pretrained)

    def cut(row: dict) -> dict:
        encoding = counter(row["text"], add_special_tokens=False, return_offsets_mapping=True)
        words = encoding.word_ids()
        n_first = words.count(words[0])
        end = encoding["offset_mapping"][n_first - 1][1]
        return {"first": row["text"][:end], "rest": row["text"][end:], "n_tokens": len(words) - n_first}

    parts = [load_rows("cola", **options), load_rows("cola", **{**options, "split": "train"})]
    parts = [part.map(cut).add_column("is_train", [bool(index)] * len(part)) for index, part in enumerate(parts)]
    return {"rows": concatenate_datasets(parts)}


def score_cola(row: dict, results: list[tuple[float, bool]]) -> dict[str, tuple]:
    """Terms of the correlation: mean token log-probability, label, and whether it is a training row."""
    return {"mcc": (results[0][0] / row["n_tokens"], row["label"], row["is_train"])}


def correlate_cola(rows: list[tuple[float, int, bool]]) -> float:
    """Matthews correlation of the scored split, at the best threshold for the training rows."""
    from sklearn.metrics import matthews_corrcoef

    scores, labels, is_train = map(np.array, zip(*rows, strict=True))
    if is_train.all() or not is_train.any():
        raise GPT1Error(
            "CoLA needs training rows and rows to score: give --metadata max_examples=N instead of --limit"
        )
    threshold, _ = best_threshold(scores[is_train], labels[is_train])
    return float(matthews_corrcoef(labels[~is_train], scores[~is_train] > threshold))
