"""Scoring a fine-tuned model on a benchmark: rows -> predictions -> the paper's metric."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from scipy.special import softmax
from transformers import AutoModelForSequenceClassification, AutoProcessor, Trainer, TrainingArguments

from ..checkpoints import open_causal_lm, open_config, open_model, open_tokenizer
from ..data.collator import GPT1DataCollator
from ..data.loading import default_data_dir
from ..errors import GPT1Error
from ..processing_gpt1 import GPT1Processor
from ..resources import model_path
from ..tasks import Task, load_task
from .metrics import score
from .perplexity import score_documents
from .results import Result, format_results, write_results


@dataclass
class EvaluateArguments:
    """One evaluation: of a fine-tuned model on a task, or of a language model on text."""

    model: str = field(default="gpt1-tiny", metadata={"help": "Model: folder, Hub id, or gpt1-tiny."})
    task: str | None = field(default=None, metadata={"help": "Task id; the model must be fine-tuned for it."})
    text_file: str | None = field(
        default=None, metadata={"help": "Text: perplexity and bits per character. As --corpus of `gpt1 pretrain`."}
    )
    split: str = field(default="validation", metadata={"help": "Split of the task, or of the text."})
    sample: bool = field(default=False, metadata={"help": "Score the small labelled sample in the package."})
    data_dir: str | None = field(
        default_factory=default_data_dir,
        metadata={"help": "Folder with local copies of data sets, laid out as on the Hub. Default: GPT1_DATA_DIR."},
    )
    stride: int | None = field(
        default=None, metadata={"help": "Tokens newly scored in each window of text. Default: all but the first."}
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Longest row, or window of text, in tokens. Default: the model's context."}
    )
    batch_size: int = field(default=16, metadata={"help": "Rows or windows per forward pass."})
    output_dir: str = field(default="runs/evaluate", metadata={"help": "Where results.json is written."})


def evaluate(args: EvaluateArguments) -> list[Result]:
    """
    Score a model on a task or on text, and write `results.json` (and, of a task, `predictions.jsonl`).

    Raises:
        GPT1Error: if neither or both of `task` and `text_file` are given, or the model does not fit.
    """
    if (args.task is None) == (args.text_file is None):
        raise GPT1Error("evaluate needs one of --task and --text_file")
    results = _evaluate_text(args) if args.task is None else _evaluate_task(args)
    print(format_results(results))
    print(f"written to {write_results(args.output_dir, results)}")
    return results


def _evaluate_text(args: EvaluateArguments) -> list[Result]:
    from ..data.corpus import encode_document, read_documents

    documents = list(read_documents(args.text_file, args.split, args.data_dir))
    if not documents:
        raise GPT1Error(f"{args.text_file} is empty: it has no text to score")
    tokenizer, model = open_tokenizer(args.model), open_causal_lm(args.model)
    window = args.max_length or getattr(model.config, "max_position_embeddings", 512)
    encoded = ((np.asarray(encode_document(tokenizer, text)), len(text)) for text in documents)
    text_score = score_documents(model, encoded, window, args.stride, args.batch_size)
    common = {
        "task": "language_modeling",
        "split": args.split,
        "n_examples": text_score.n_documents,
        "paper": None,
        "model": args.model,
        "seed": None,
        "details": {"text": args.text_file, "window": window, "stride": args.stride or window - 1},
    }
    return [
        Result(metric="perplexity", value=round(text_score.perplexity, 3), **common),
        Result(metric="bits_per_character", value=round(text_score.bits_per_character, 4), **common),
    ]


def _evaluate_task(args: EvaluateArguments) -> list[Result]:
    task = load_task(args.task)
    model = open_model(AutoModelForSequenceClassification, args.model, open_config(args.model))
    processor = AutoProcessor.from_pretrained(model_path(args.model))
    if not isinstance(processor, GPT1Processor) or processor.input_format != task.input_format:
        raise GPT1Error(
            f"model {args.model!r} was not fine-tuned for the {task.input_format} format of task {task.id}"
        )
    if tuple(model.config.id2label[i] for i in range(model.config.num_labels)) != task.label_names:
        raise GPT1Error(
            f"model {args.model!r} has the labels {list(model.config.id2label.values())}, but task {task.id} has "
            f"{list(task.label_names)}"
        )
    trainer_args = TrainingArguments(
        output_dir=args.output_dir, per_device_eval_batch_size=args.batch_size, dataloader_pin_memory=False
    )
    trainer = Trainer(model, trainer_args, data_collator=GPT1DataCollator(processor))
    rows = task.load(args.split, args.data_dir, args.sample)
    encoded = encode_rows(rows, processor, args.max_length or model.config.max_position_embeddings)
    predictions = predict(trainer, task, rows, encoded)
    write_predictions(args.output_dir, predictions)
    return task_results(task, args.split, predictions, model=args.model, seed=None, details={"sample": args.sample})


def encode_rows(rows: Dataset, processor: GPT1Processor, max_length: int) -> Dataset:
    """
    Turn rows in canonical columns into `input_ids`, `attention_mask`, `label` and `truncated`; one warning for all.
    """
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


def predict(trainer: Trainer, task: Task, rows: Dataset, encoded: Dataset) -> list[dict[str, Any]]:
    """
    Predict a split.

    Returns:
        list of `dict`, one a row: `id`, `label` (−1 if hidden), `prediction`, `scores` (one a class), `truncated`.
    """
    hidden = -1 in rows.unique("label")
    output = trainer.predict(encoded.remove_columns("label") if hidden else encoded)
    if not hidden and not np.array_equal(output.label_ids, rows["label"]):
        raise RuntimeError("the Trainer returned predictions in another order than the rows")
    scores = softmax(output.predictions, axis=-1)
    return [
        {"id": index, "label": label, "prediction": int(row.argmax()), "scores": row.tolist(), "truncated": truncated}
        for index, label, row, truncated in zip(rows["idx"], rows["label"], scores, encoded["truncated"], strict=True)
    ]


def task_results(
    task: Task, split: str, predictions: list[dict[str, Any]], model: str, seed: int | None, details: dict[str, Any]
) -> list[Result]:
    """Score predictions with the task's metric; a split with hidden labels has no result."""
    labels = np.array([row["label"] for row in predictions])
    if (labels < 0).any():
        return []
    value = score(task.metric, np.array([row["prediction"] for row in predictions]), labels)
    return [
        Result(
            task=task.id,
            split=split,
            metric=task.metric,
            value=round(value, 2),
            n_examples=len(predictions),
            paper=task.paper,
            model=model,
            seed=seed,
            details={"task_version": task.version, **details},
        )
    ]


def write_predictions(output_dir: str | Path, predictions: list[dict[str, Any]]):
    """Write `predictions.jsonl`, a row each."""
    path = Path(output_dir) / "predictions.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in predictions), encoding="utf-8")
