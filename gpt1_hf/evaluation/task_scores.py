"""Score a fine-tuned model on a task: load and encode rows, predict them, compute the task's metrics."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from scipy.special import softmax
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from ..checkpoints.loading import compute_device, open_config, open_model, open_processor
from ..data.batching import GPT1DataCollator
from ..data.loading import reading_bars
from ..errors import GPT1Error, MissingSplitError, UsageError
from ..files import write_text
from ..processing_gpt1 import GPT1Processor
from ..tasks import Task
from ..training_record import check_tokenizer, trained_on
from .metrics import score
from .results import Result


logger = logging.getLogger(__name__)

# The released code spreads a score from 0 to 5 over six bins (Tai et al., 2015).
REGRESSION_BINS = 6


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
    return AutoModelForSequenceClassification


def config_changes(task: Task, plain_regression: bool = False) -> dict[str, Any]:
    """
    Settings of a model's configuration that fit it to a task.

    Args:
        task ([`Task`]):
            Task that the model will be fine-tuned on.
        plain_regression (`bool`, *optional*, defaults to `False`):
            Learn a score by its squared error. By default the model predicts the released code's six bins, and the
            score is their expected value.

    Raises:
        UsageError: if `plain_regression` is set for a task whose labels are not scores.
    """
    if plain_regression and not task.score_range:
        raise UsageError(f"plain_regression needs a task whose labels are scores, unlike {task.id}: leave it out")
    changes = {"both_orders": task.input_format == "similarity", "problem_type": None, "regression_bins": None}
    if task.score_range:
        return changes | {
            "num_labels": 1,
            "id2label": {0: "score"},
            "label2id": {"score": 0},
            "problem_type": "regression",  # otherwise transformers' pipeline applies a sigmoid to the score
            "regression_bins": None if plain_regression else REGRESSION_BINS,
        }
    if task.input_format == "multiple_choice":
        return changes
    return changes | {
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


def encode_rows(rows: Dataset, processor: GPT1Processor, max_length: int) -> Dataset:
    """
    Turn rows in canonical columns into `input_ids`, `attention_mask`, `label` and `truncated`.

    In the similarity and multiple-choice formats each row has several sequences. Truncated and empty texts are counted
    in one warning.
    """
    with reading_bars(len(rows)):
        encoded = rows.map(
            processor,
            fn_kwargs={"max_length": max_length, "return_truncated": True},
            batched=True,
            remove_columns=[name for name in rows.column_names if name != "label"],
            keep_in_memory=True,
            load_from_cache_file=False,
            desc="encoding",
        )
    processor.warn(len(rows), sum(encoded["truncated"]), processor.count_empty(rows))
    return encoded


def decide(task: Task, logits: np.ndarray) -> np.ndarray:
    """
    Turn logits into predictions.

    Args:
        task ([`Task`]):
            Task that the logits are for.
        logits (`np.ndarray` of shape `(n, classes)`, `(n, choices)` or, for scores, `(n, 1)`):
            Output of the task head.

    Returns:
        `np.ndarray` of shape `(n,)`: class ids, or scores.
    """
    return logits[:, 0] if task.score_range else logits.argmax(-1)


@torch.no_grad()
def predict(
    model: PreTrainedModel, processor: GPT1Processor, task: Task, rows: Dataset, encoded: Dataset, batch_size: int
) -> list[dict[str, Any]]:
    """
    Predict a split. Several processes share the rows, and each process returns all predictions.

    This does not use `Trainer.predict`, whose output depends on a dozen training settings.

    Args:
        model (`PreTrainedModel`):
            Fine-tuned model, on the device to run on.
        processor ([`GPT1Processor`]):
            Processor that encoded the rows.
        task ([`Task`]):
            Task that the rows belong to.
        rows, encoded (`Dataset`):
            Rows in canonical columns, and the output of [`encode_rows`] for them.
        batch_size (`int`):
            Rows in a forward pass.

    Returns:
        list of `dict`, one for each row: `id`, `label` (−1 if hidden), `prediction`, `scores` (a probability for each
        class or choice, or the predicted score), `truncated` and, if the split has subsets, `subset`.
    """
    model.eval()
    token_ids, parts = encoded.select_columns("input_ids"), []
    with PartialState().split_between_processes(token_ids) as share:
        for batch in DataLoader(share, batch_size, collate_fn=GPT1DataCollator(processor)):
            logits = model(**{name: tensor.to(model.device) for name, tensor in batch.items()}).logits
            parts.append(logits.float().cpu().numpy())
    logits = np.concatenate(gather_object(parts)).astype(np.float64)
    if n_bad := int((~np.isfinite(logits)).any(-1).sum()):
        logger.warning(f"{n_bad} of {len(rows)} rows of task {task.id} have predictions that are NaN or infinite")
    predictions = decide(task, logits).tolist()
    scores = logits if task.score_range else softmax(logits, axis=-1)
    columns = {
        "id": rows["idx"][:],
        "label": rows["label"][:],
        "prediction": predictions,
        "scores": scores.tolist(),
        "truncated": encoded["truncated"][:],
    }
    if "subset" in rows.column_names:
        columns["subset"] = rows["subset"][:]
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
            Details of the results. Two are added: `not_run`, the names of the splits that the data lacked (if a subset
            is missing, the whole split counts as not run), and `rows_of_split`, the size of the complete split if only
            a part of it was scored.

    Returns:
        list of [`Result`]; empty if the split's labels are hidden.
    """
    labels = np.array([row["label"] for row in predictions])
    if (labels < 0).any():
        return []
    answers = np.array([row["prediction"] for row in predictions])
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
        for metric in (task.metric, *task.other_metrics):
            is_main = metric == task.metric
            results.append(
                Result(
                    task=task.id,
                    split=name,
                    metric=metric,
                    value=round(score(metric, answers[selected[name]], labels[selected[name]]), 2),
                    n_examples=n_rows,
                    paper=paper if is_main else None,
                    model=model,
                    seed=seed,
                    details=own_details,
                    prior=prior if is_main else None,
                )
            )
    return results


def write_predictions(output_dir: str | Path, predictions: dict[str, list[dict[str, Any]]]):
    """Write the predictions of the first split to `predictions.jsonl`, of others to `predictions_<split>.jsonl`."""
    for index, (split, rows) in enumerate(predictions.items()):
        path = Path(output_dir) / (f"predictions_{split}.jsonl" if index else "predictions.jsonl")
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
