"""Scoring a fine-tuned model on a benchmark: rows -> predictions -> the paper's metric."""

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

# Bins of a score from 0 to 5, as in the released code (Tai et al., 2015).
REGRESSION_BINS = 6


def open_fine_tuned(model: str, task: Task) -> tuple[PreTrainedModel, GPT1Processor]:
    """
    Load a fine-tuned model, ready to predict.

    Raises:
        GPT1Error: if it was fine-tuned for another format or other labels than the task's, with another tokenizer than
        is beside it, or not at all. One of another task with the same labels is warned of.
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
    made_for = trained_on(loaded.config).get("task", task.id)
    if made_for != task.id:
        logger.warning(f"model {model!r} was fine-tuned on {made_for}, not on {task.id}")
    return loaded.to(compute_device()), processor


def check_supervised(task: Task):
    """Raise if nothing can be fine-tuned for a task."""
    if task.input_format is None:
        raise UsageError(f"task {task.id} is for zero-shot scoring only: nothing is fine-tuned for it")


def auto_class(task: Task) -> type:
    """The Auto class whose head a task's format needs."""
    if task.input_format == "multiple_choice":
        return AutoModelForMultipleChoice
    return AutoModelForSequenceClassification


def config_changes(task: Task, plain_regression: bool = False) -> dict[str, Any]:
    """
    What a task changes in the configuration of a model that is fine-tuned for it.

    Args:
        task ([`Task`]):
            Task.
        plain_regression (`bool`, *optional*, defaults to `False`):
            Whether a score is learnt by its squared error, in place of the released code's six bins, which are read
            out by their expectation.

    Raises:
        GPT1Error: if `plain_regression` is asked for a task without scores.
    """
    if plain_regression and not task.score_range:
        raise UsageError(f"plain_regression is for scores, and task {task.id} has none")
    changes = {"both_orders": task.input_format == "similarity", "problem_type": None, "regression_bins": None}
    if task.score_range:
        return changes | {
            "num_labels": 1,
            "id2label": {0: "score"},
            "label2id": {"score": 0},
            "problem_type": "regression",  # or else transformers' pipeline takes the score for a logit
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
    """Raise if a fine-tuned model's labels are not those of a task, in their order."""
    labels = config_changes(task).get("id2label")
    found = [config.id2label[index] for index in range(config.num_labels)]
    if labels is not None and found != list(labels.values()):
        raise GPT1Error(f"model {model!r} has the labels {found}, but task {task.id} has {list(labels.values())}")
    recorded = trained_on(config).get("labels", list(task.label_names))
    if recorded != list(task.label_names):
        raise GPT1Error(
            f"model {model!r} was trained with the labels {recorded}, but task {task.id} has {list(task.label_names)}"
        )


def load_scored(
    task: Task, data_dir: str | None = None, sample: bool = False, split: str | None = None
) -> dict[str, Dataset]:
    """
    Load the splits that a fine-tuned model is scored on.

    Args:
        task ([`Task`]):
            Task.
        data_dir (`str`, *optional*):
            Folder with local copies.
        sample (`bool`, *optional*, defaults to `False`):
            Whether to load the sample in the package.
        split (`str`, *optional*):
            The one split to score; defaults to the task's own choice.

    Returns:
        `dict`: split -> rows. Without `split`, those that a local copy lacks are left out, but for the first.

    Raises:
        GPT1Error: if the only or first split cannot be loaded.
    """
    first, *others = (split,) if split else task.scored_splits
    rows = {first: task.load(first, data_dir, sample)}
    for name in others:
        try:
            rows[name] = task.load(name, data_dir, sample)
        except MissingSplitError as error:
            logger.warning(f"task {task.id}: {name} is not run, since the data lacks it ({error})")
    return rows


def encode_rows(rows: Dataset, processor: GPT1Processor, max_length: int) -> Dataset:
    """
    Turn rows in canonical columns into `input_ids`, `attention_mask`, `label` and `truncated`; one warning for all.

    In the similarity and multiple-choice formats, each row has several sequences.
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
    What a model answers.

    Args:
        task ([`Task`]):
            Task.
        logits (`np.ndarray` of shape `(n, classes)`, `(n, choices)` or, of scores, `(n, 1)`):
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
    Predict a split. Of several processes, each predicts a part of it, and every one gets the whole.

    No Trainer does it: what one returns depends on a dozen settings of training.

    Args:
        model (`PreTrainedModel`):
            Fine-tuned model, on the device that it is to run on.
        processor ([`GPT1Processor`]):
            Processor that encoded the rows.
        task ([`Task`]):
            Task.
        rows, encoded (`Dataset`):
            The rows in canonical columns, and what [`encode_rows`] made of them.
        batch_size (`int`):
            Rows per forward pass.

    Returns:
        list of `dict`, one a row: `id`, `label` (−1 if hidden), `prediction`, `scores` (a probability for each class
        or choice, or the predicted score), `truncated` and, where the split has subsets, `subset`.
    """
    model.eval()
    token_ids, parts = encoded.select_columns("input_ids"), []
    with PartialState().split_between_processes(token_ids) as own:
        for batch in DataLoader(own, batch_size, collate_fn=GPT1DataCollator(processor)):
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
    Score the predictions of a split with the task's metrics, on each subset and on the whole.

    A split with hidden labels has no result. Subsets that the data lacked, and with them the whole, are added to
    `details["not_run"]`, the names of the splits that were not run; `details["rows_of_split"]` is how many rows the
    whole data set has in the split, where others were scored.
    """
    labels = np.array([row["label"] for row in predictions])
    if (labels < 0).any():
        return []
    answers = np.array([row["prediction"] for row in predictions])
    subsets = np.array([row.get("subset") for row in predictions])
    parts = task.parts(split) if "subset" in predictions[0] else {split: None}
    chosen = {name: np.array([subset in (None, own) for own in subsets]) for name, subset in parts.items()}
    lacking = [name for name, rows in chosen.items() if not rows.any()]
    not_run = [name for name, subset in parts.items() if name in lacking or (lacking and subset is None)]

    not_run_at_all = [*details.get("not_run", ()), *not_run]
    details = {"task_version": task.version, **details, "not_run": not_run_at_all}
    if not not_run_at_all:
        del details["not_run"]
    results = []
    for name, subset in parts.items():
        paper, prior = task.numbers(subset)
        n_rows = int(chosen[name].sum())
        whole = n_rows if details.get("sample") else task.sizes.get(name, n_rows)
        own_details = details if whole == n_rows else {**details, "rows_of_split": whole}
        for metric in () if name in not_run else (task.metric, *task.other_metrics):
            value = score(metric, answers[chosen[name]], labels[chosen[name]])
            results.append(
                Result(
                    task=task.id,
                    split=name,
                    metric=metric,
                    value=round(value, 2),
                    n_examples=n_rows,
                    paper=paper if metric == task.metric else None,
                    model=model,
                    seed=seed,
                    details=own_details,
                    prior=prior if metric == task.metric else None,
                )
            )
    return results


def write_predictions(output_dir: str | Path, predictions: dict[str, list[dict[str, Any]]]):
    """
    Write predictions, a row each: of the first split to `predictions.jsonl`, of others to `predictions_<split>.jsonl`.
    """
    for index, (split, rows) in enumerate(predictions.items()):
        path = Path(output_dir) / (f"predictions_{split}.jsonl" if index else "predictions.jsonl")
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
