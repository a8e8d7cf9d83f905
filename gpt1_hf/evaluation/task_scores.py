"""Score a fine-tuned model on a task: load and encode rows, predict them, compute the task's metrics."""

import itertools
import json
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from scipy.special import expit, softmax
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from ..checkpoints.loading import compute_device, open_config, open_model, open_processor
from ..data.batching import IGNORED, GPT1DataCollator, row_lengths
from ..data.loading import MANY_ROWS, reading_bars
from ..errors import GPT1Error, MissingSplitError, UsageError
from ..files import write_text
from ..processing_gpt1 import GPT1Processor
from ..tasks import Task
from ..tasks.spec import LABEL_METRICS
from ..training_record import check_tokenizer, trained_on
from .metrics import constant_answer, score
from .precision import full_precision
from .program import ScoredProgram
from .results import Result


logger = logging.getLogger(__name__)

HELD_OUT_SPLIT = "held-out train"  # the rows of `held_out_share`
ROWS_AT_ONCE = 1024  # sorted by length, or read from a file: memory does not grow with the input
NO_ANSWER = -1  # prediction for a word that was cut off; no label has this id


def open_fine_tuned(model: str, task: Task) -> tuple[PreTrainedModel, GPT1Processor]:
    """
    Load a fine-tuned model and its processor, with the model on the compute device.

    A model that was fine-tuned on another task with the same labels is loaded with a warning.

    Raises:
        GPT1Error: if the model is not fine-tuned, if its input format or labels differ from the task's, or if its
        tokenizer is not the one it was trained with.
    """
    config = open_config(model)
    processor = open_processor(model)
    refusal = f"model {model!r} was not fine-tuned for the {task.input_format} format of task {task.id}"
    if isinstance(processor, GPT1Processor) and processor.input_format != task.input_format:
        raise GPT1Error(refusal)
    loaded = open_model(auto_class(task), model, config)
    if not isinstance(processor, GPT1Processor):
        raise GPT1Error(refusal)
    check_labels(task, model, loaded.config)
    check_tokenizer(loaded.config, processor.tokenizer, model)
    trained_task = trained_on(loaded.config).get("task", task.id)
    if trained_task != task.id:
        logger.warning(f"model {model!r} was fine-tuned on {trained_task}, not on {task.id}")
    return loaded.to(compute_device()), processor


def check_supervised(task: Task):
    """Raise a [`UsageError`] if a task has no training data."""
    if task.input_format is None:
        raise UsageError(f"task {task.id} cannot be fine-tuned: it is for `gpt1 zero-shot` only")


def auto_class(task: Task) -> type:
    """The Auto class with the head that a task needs."""
    if task.input_format == "multiple_choice":
        return AutoModelForMultipleChoice
    return AutoModelForTokenClassification if task.labels == "tags" else AutoModelForSequenceClassification


def config_changes(task: Task, plain_regression: bool = False) -> dict[str, Any]:
    """
    Settings of a model's configuration that fit it to a task.

    Args:
        task ([`Task`]):
            Task that the model will be fine-tuned on.
        plain_regression (`bool`, *optional*, defaults to `False`):
            Learn a score by its squared error, even if the task has `regression_bins`. With bins, as in the released
            code (Tai et al., 2015), the score is their expected value.

    Raises:
        UsageError: if `plain_regression` is set for a task whose labels are not scores.
    """
    if plain_regression and task.labels != "scores":
        raise UsageError(f"plain_regression needs a task whose labels are scores, unlike {task.id}: leave it out")
    changes = {"both_orders": task.input_format == "similarity", "problem_type": None, "regression_bins": None}
    if task.labels == "scores":
        return changes | {
            "num_labels": 1,
            "id2label": {0: "score"},
            "label2id": {"score": 0},
            "problem_type": "regression",  # otherwise transformers' pipeline applies a sigmoid to the score
            "regression_bins": None if plain_regression else task.regression_bins,
        }
    if task.input_format == "multiple_choice":
        return changes
    return changes | {
        "problem_type": "multi_label_classification" if task.labels == "multiple" else None,
        "num_labels": len(task.label_names),
        "id2label": dict(enumerate(task.label_names)),
        "label2id": {name: index for index, name in enumerate(task.label_names)},
    }


def check_labels(task: Task, model: str, config: PreTrainedConfig):
    """Raise a [`GPT1Error`] if a fine-tuned model's labels, or their order, differ from the task's."""
    labels = config_changes(task).get("id2label")
    found = [config.id2label[index] for index in range(config.num_labels)]
    if labels is not None and found != list(labels.values()):
        raise GPT1Error(
            f"model {model!r} has the labels {found}, but task {task.id} has {list(labels.values())}: give a model "
            "that was fine-tuned on this task"
        )
    recorded = trained_on(config).get("labels", list(task.label_names))
    if recorded != list(task.label_names):
        raise GPT1Error(
            f"model {model!r} was trained with the labels {recorded}, but task {task.id} has "
            f"{list(task.label_names)}: give a model that was fine-tuned on this task"
        )
    if (kind := label_kind(config, task.input_format)) != task.labels:
        raise GPT1Error(f"model {model!r} predicts {KINDS[kind]}, but task {task.id} has {KINDS[task.labels]}")


def resolve_for_model(task: Task, config: PreTrainedConfig, data_dir: str | None = None) -> Task:
    """
    A resolved task. Labels that its file does not name are those that the model was trained with, if it was trained on
    this task, so that its training rows need not be available.
    """
    record = trained_on(config)
    is_own = record.get("task") == task.id and "label_kind" in record
    kind, names = record.get("label_kind"), tuple(record.get("labels", ()))
    if is_own and not task.is_complete and task.labels in (None, kind) and task.label_names in ((), names):
        scores = {"score_range": task.score_range or (-math.inf, math.inf)}
        classes = {"label_names": names, "label_ids": task.label_ids or record["label_ids"]}
        metric = task.metric or LABEL_METRICS[kind][0]
        task = replace(task, labels=kind, metric=metric, **(scores if kind == "scores" else classes))
    return task.resolved(data_dir)


def load_scored(
    task: Task, data_dir: str | None = None, sample: bool = False, split: str | None = None
) -> dict[str, Dataset]:
    """
    Load the splits that a fine-tuned model is scored on.

    Args:
        task ([`Task`]):
            Task to score.
        data_dir (`str`, *optional*):
            Folder with local copies of data sets.
        sample (`bool`, *optional*, defaults to `False`):
            Whether to load the sample that comes with the package.
        split (`str`, *optional*):
            Load only this split. Defaults to the task's `scored_splits`.

    Returns:
        `dict`: split -> rows. If a local copy lacks one of the task's later `scored_splits`, that split is left out
        with a warning.

    Raises:
        GPT1Error: if `split`, or the first of the task's `scored_splits`, cannot be loaded.
    """
    first, *others = (split,) if split else task.scored_splits
    rows = {first: task.load(first, data_dir, sample)}
    for name in others:
        try:
            rows[name] = task.load(name, data_dir, sample)
        except MissingSplitError as error:
            logger.warning(f"task {task.id}: {name} is skipped because the data lacks it ({error})")
    return rows


def hold_out(rows: Dataset, share: float) -> tuple[Dataset, Dataset]:
    """
    Split training rows into those to train on and a share to score. The last rows are held out, not random ones:
    neighbouring rows often share a source or a premise, which would leak.
    """
    parts = rows.train_test_split(share, shuffle=False)
    return parts["train"], parts["test"]


def encode_rows(rows: Dataset, processor: GPT1Processor, max_length: int) -> Dataset:
    """
    Turn rows in canonical columns into `input_ids`, `attention_mask`, `label` and `truncated`.

    In the similarity and multiple-choice formats each row has several sequences. In the token-classification format
    each row also has `word_ends`, and `label` has a number for each token. Truncated and empty texts are counted in
    one warning.
    """
    has_words = processor.input_format == "token_classification"
    with reading_bars(len(rows)):
        encoded = rows.map(
            processor,
            fn_kwargs={"max_length": max_length, "return_truncated": True, "return_word_ends": has_words},
            batched=True,
            remove_columns=[name for name in rows.column_names if name != "label"],
            keep_in_memory=True,
            load_from_cache_file=False,
            desc="encoding",
        )
        if has_words and "label" in rows.column_names:
            encoded = encoded.map(_tag_tokens, keep_in_memory=True, load_from_cache_file=False, desc="tagging")
    # In parts: a data set iterates row by row, which takes longer than encoding them.
    n_empty = sum(processor.count_empty(rows[start : start + MANY_ROWS]) for start in range(0, len(rows), MANY_ROWS))
    processor.warn(len(rows), sum(encoded["truncated"][:]), n_empty)
    return encoded


def _tag_tokens(row: dict[str, Any]) -> dict[str, list[int]]:
    """
    A row's tags as one number for each token.

    The tag of a word is at its last token. The model reads from left to right, so that only there has it seen the
    whole word. (BERT's habit, the first token, would have it tag a word by its first letters.)
    """
    labels = [IGNORED] * len(row["input_ids"])
    for end, tag in zip(row["word_ends"], row["label"], strict=True):
        if end >= 0:
            labels[end] = tag
    return {"label": labels}


# Kind of labels -> what a model predicts, in an error.
KINDS = {
    "classes": "one class a row",
    "multiple": "several labels a row",
    "scores": "a score a row",
    "tags": "a tag for each word",
}


def label_kind(config: PreTrainedConfig, input_format: str | None) -> str:
    """Kind of labels ([`Task`]) that a fine-tuned model predicts."""
    if input_format == "token_classification":
        return "tags"
    if input_format == "multiple_choice":
        return "classes"
    if config.regression_bins or config.problem_type == "regression" or config.num_labels == 1:
        return "scores"
    return "multiple" if config.problem_type == "multi_label_classification" else "classes"


def decide(kind: str | None, logits: np.ndarray) -> np.ndarray:
    """
    Turn logits into predictions.

    Args:
        kind (`str`):
            Kind of labels, see [`Task`].
        logits (`np.ndarray` of shape `(..., classes)`, `(n, choices)` or, for scores, `(n, 1)`):
            Output of the task head.

    Returns:
        `np.ndarray` of shape `(...)`: class ids, or scores; of several labels a row, of shape `(n, classes)`: 1 for
        each label with a probability of at least 0.5, else 0.
    """
    if kind == "scores":
        return logits[..., 0]
    return (logits >= 0).astype(int) if kind == "multiple" else logits.argmax(-1)


def probabilities(kind: str | None, logits: np.ndarray) -> np.ndarray:
    """Logits as `scores` of predictions: a probability for each class or choice, or the predicted score."""
    if kind == "scores":
        return logits
    return expit(logits) if kind == "multiple" else softmax(logits, axis=-1)


def part_size(batch_size: int) -> int:
    """Number of rows that [`row_logits`] sorts by length at a time: about `ROWS_AT_ONCE`, in whole batches."""
    return max(1, ROWS_AT_ONCE // batch_size) * batch_size


@torch.no_grad()
def row_logits(
    model: PreTrainedModel | ScoredProgram, processor: GPT1Processor, encoded: Dataset, batch_size: int
) -> list[np.ndarray]:
    """
    Logits of each row of [`encode_rows`], in fp64. Several processes share the rows, and each process returns all.

    The model runs in the type of its weights, fp32 for models that this package opens, without autocast. This does not
    use `Trainer.predict`, whose output depends on a dozen training settings. Rows of the same batches get the same
    logits to the last bit. In other batches (another `batch_size`, or other processes) the libraries may add up the
    same numbers in another order, which changes the last digits of a logit: a prediction changes only where two
    classes are that close. Of each [`part_size`] rows, those of similar length share a batch, so that little of it is
    padding.

    Args:
        model (`PreTrainedModel` or [`ScoredProgram`]):
            Fine-tuned model, on the device to run on, or a program exported from it.
        processor ([`GPT1Processor`]):
            Processor that encoded the rows.
        encoded (`Dataset`):
            Output of [`encode_rows`].
        batch_size (`int`):
            Rows in a forward pass.

    Returns:
        list of `np.ndarray` of shape `(classes,)`, `(choices,)` or `(1,)` for scores; of a model of words, of shape
        `(words, classes)`, NaN for a word that was cut off.
    """
    model.eval()
    columns = encoded.select_columns([name for name in ("input_ids", "word_ends") if name in encoded.column_names])
    # A program takes each choice as a row of its own.
    collator = GPT1DataCollator(processor, shared_prefix=not isinstance(model, ScoredProgram))
    logits_of_rows: list[np.ndarray] = []
    state, size = PartialState(), part_size(batch_size)
    for start in range(0, len(encoded), size):
        part = columns.select(range(start, min(start + size, len(encoded))))
        longest_first = np.argsort([-length for length in row_lengths(part["input_ids"][:])], kind="stable").tolist()
        shares = [longest_first[process :: state.num_processes] for process in range(state.num_processes)]
        found: list[np.ndarray] = []
        for rows in DataLoader(part.select(shares[state.process_index]), batch_size, collate_fn=list):
            found += _batch_logits(model, collator(rows), rows)
        by_row = dict(zip(itertools.chain(*shares), gather_object(found), strict=True))
        logits_of_rows += [by_row[row] for row in range(len(part))]
    return logits_of_rows


def _batch_logits(
    model: PreTrainedModel | ScoredProgram, batch: dict[str, torch.Tensor], rows: list[dict[str, Any]]
) -> list[np.ndarray]:
    """The logits of each row of a batch."""
    with full_precision(model):
        logits = model(**{name: tensor.to(model.device) for name, tensor in batch.items()}).logits.float().cpu()
    if "word_ends" not in rows[0]:
        return list(logits.numpy().astype(np.float64))
    starts = batch["attention_mask"].argmax(-1).tolist()  # of padding on the left
    return [_of_words(own, row["word_ends"], start) for own, row, start in zip(logits, rows, starts, strict=True)]


def _of_words(logits: torch.Tensor, word_ends: list[int], start: int) -> np.ndarray:
    """The logits `(words, classes)` at the last token of each word."""
    ends = torch.tensor(word_ends)
    found = logits[(ends + start).clamp(min=0)].double()
    found[ends < 0] = math.nan
    return found.numpy()


def word_answers(logits: np.ndarray) -> tuple[list[int], list[list[float] | None]]:
    """Predictions and scores of a row's words, from logits of shape `(words, classes)`; NaN is no answer."""
    has_answer = np.isfinite(logits).all(-1)
    predictions = np.where(has_answer, decide("tags", logits), NO_ANSWER)
    scores = probabilities("tags", logits).tolist()
    return predictions.tolist(), [own if answered else None for own, answered in zip(scores, has_answer, strict=True)]


def predict(
    model: PreTrainedModel | ScoredProgram,
    processor: GPT1Processor,
    task: Task,
    rows: Dataset,
    encoded: Dataset,
    batch_size: int,
) -> list[dict[str, Any]]:
    """
    Predict a split; see [`row_logits`].

    Args:
        task ([`Task`]):
            Task that the rows belong to.
        rows, encoded (`Dataset`):
            Rows in canonical columns, and the output of [`encode_rows`] for them.

    Returns:
        list of `dict`, one for each row: `id`, `label` (−1 if hidden), `prediction`, `scores` (a probability for each
        class or choice, or the predicted score), `truncated` and, if the split has subsets, `subset`. With several
        labels a row, `label` and `prediction` have a 0 or 1 for each label name, as `scores` have a probability. With
        tags, `label`, `prediction` and `scores` have an entry for each word; a word that was cut off has the
        prediction −1 and no scores (`null`). If a row's logits are NaN or infinite, each row says whether its own are
        `finite`.
    """
    logits = row_logits(model, processor, encoded, batch_size)
    if task.labels == "tags":
        predictions, scores = zip(*map(word_answers, logits), strict=True)
        whole = [own[np.array(ends) >= 0] for own, ends in zip(logits, encoded["word_ends"][:], strict=True)]
        is_finite = [bool(np.isfinite(own).all()) for own in whole]
    else:
        stacked = np.stack(logits)
        predictions = decide(task.labels, stacked).tolist()
        scores = probabilities(task.labels, stacked).tolist()
        is_finite = np.isfinite(stacked).all(-1).tolist()
    n_bad = is_finite.count(False)
    if n_bad:
        logger.warning(f"{n_bad} of {len(rows)} rows of task {task.id} have predictions that are NaN or infinite")
    columns = {
        "id": rows["idx"][:],
        "label": rows["label"][:],
        "prediction": predictions,
        "scores": scores,
        "truncated": encoded["truncated"][:],
    }
    if "subset" in rows.column_names:
        columns["subset"] = rows["subset"][:]
    if n_bad:
        columns["finite"] = is_finite
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def task_results(
    task: Task, split: str, predictions: list[dict[str, Any]], model: str, seed: int | None, details: dict[str, Any]
) -> list[Result]:
    """
    Score the predictions of a split with the task's metrics, for each subset and for the whole split.

    Args:
        task ([`Task`]):
            Task that was predicted.
        split (`str`):
            Split that was predicted.
        predictions (list of `dict`):
            Output of [`predict`].
        model (`str`):
            Name of the model, for the results.
        seed (`int`, *optional*):
            Seed that the model was trained with.
        details (`dict`):
            Details of the results. Four are added: `not_run`, the names of the splits that the data lacked (if a
            subset is missing, the whole split counts as not run), `rows_of_split`, the size of the complete split if
            only a part of it was scored, `constant_answer`, the score of one answer for every row, and
            `rows_not_finite`, the number of rows whose logits are NaN or infinite, if there are any.

    Returns:
        list of [`Result`]; empty if the split's labels are hidden.
    """
    if any(task.is_hidden(row["label"]) for row in predictions):
        return []
    subsets = np.array([row.get("subset") for row in predictions])
    parts = task.parts(split) if "subset" in predictions[0] else {split: None}
    selected = {name: np.array([subset in (None, own) for own in subsets]) for name, subset in parts.items()}
    is_missing = {name: not rows.any() for name, rows in selected.items()}
    not_run = [
        name for name, subset in parts.items() if is_missing[name] or (subset is None and any(is_missing.values()))
    ]

    details = {"task_version": task.version, **details, "not_run": [*details.get("not_run", ()), *not_run]}
    if not details["not_run"]:
        del details["not_run"]
    results = []
    for name, subset in parts.items():
        if name in not_run:
            continue
        paper, prior = task.numbers(subset)
        n_rows = int(selected[name].sum())
        n_whole = n_rows if details.get("sample") else task.sizes.get(name, n_rows)
        own_details = details if n_whole == n_rows else {**details, "rows_of_split": n_whole}
        chosen = [row for row, is_in in zip(predictions, selected[name], strict=True) if is_in]
        answers, labels = (_values(task, chosen, column) for column in ("prediction", "label"))
        if n_bad := sum(not row.get("finite", True) for row in chosen):
            own_details = {**own_details, "rows_not_finite": n_bad}
        if task.labels == "tags":
            own_details = {**own_details, "n_words": len(answers)}
            if n_cut := int((answers == NO_ANSWER).sum()):
                own_details["n_words_cut"] = n_cut
        for metric in (task.metric, *task.other_metrics):
            is_main = metric == task.metric
            constant = constant_score(task, metric, chosen, labels)
            results.append(
                Result(
                    task=task.id,
                    split=name,
                    metric=metric,
                    value=round(score(metric, answers, labels), 2),
                    n_examples=n_rows,
                    paper=paper if is_main else None,
                    model=model,
                    seed=seed,
                    details={**own_details, "constant_answer": constant},
                    prior=prior if is_main else None,
                )
            )
    return results


def constant_score(task: Task, metric: str, rows: list[dict[str, Any]], labels: np.ndarray) -> float:
    """
    Score of one answer for every row, see [`constant_answer`]. The place of a choice says nothing about it, so for
    multiple choice this is the share of one choice among a row's.
    """
    if task.input_format == "multiple_choice" and metric == "accuracy" and "scores" in rows[0]:
        return round(100 * float(np.mean([1 / len(row["scores"]) for row in rows])), 2)
    return round(constant_answer(metric, labels), 2)


def _values(task: Task, rows: list[dict[str, Any]], column: str) -> np.ndarray:
    """Labels or predictions as an array of shape `(rows,)`, `(rows, label names)` or, of tags, `(words,)`."""
    values = [row[column] for row in rows]
    return np.array([tag for tags in values for tag in tags] if task.labels == "tags" else values)


def write_predictions(output_dir: str | Path, predictions: dict[str, list[dict[str, Any]]]):
    """Write the predictions of the first split to `predictions.jsonl`, of others to `predictions_<split>.jsonl`."""
    for index, (split, rows) in enumerate(predictions.items()):
        path = Path(output_dir) / (f"predictions_{split}.jsonl" if index else "predictions.jsonl")
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
