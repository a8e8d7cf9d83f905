"""Fine-tuning on a benchmark (§3.2, §4.1): rows -> Trainer -> a saved classifier, its predictions and its score."""

import copy
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import EvalPrediction, set_seed

from ..checkpoints import open_config, open_model, open_tokenizer
from ..errors import GPT1Error
from ..evaluation.benchmark import (
    auto_class,
    check_supervised,
    config_changes,
    decide,
    encode_rows,
    load_scored,
    predict,
    task_results,
    write_predictions,
)
from ..evaluation.metrics import score
from ..evaluation.results import Result, device_name, format_results, write_results
from ..processing_gpt1 import GPT1Processor
from ..tasks import Task, load_task
from .arguments import FinetuneArguments
from .card import write_finetuning_cards
from .trainer import GPT1Trainer, push_run, resume_point, save_whole


logger = logging.getLogger(__name__)

# The random rows of `max_train_examples` are the same for every run and seed.
SUBSET_SEED = 0


def finetune(args: FinetuneArguments) -> list[Result]:
    """
    Fine-tune a GPT-1 on a task, once per seed.

    Args:
        args ([`FinetuneArguments`]):
            Settings.

    Returns:
        list of [`Result`], also in `<output_dir>/results.json`: for each seed, one of each metric on each split that
        the task is scored on. With several seeds, each run's model is in `<output_dir>/seed-<seed>`.

    Raises:
        GPT1Error: if task, model or data are missing or do not fit together.
    """
    if not args.task:
        raise GPT1Error("fine-tuning needs --task, such as cola or sst2")
    task = load_task(args.task)
    check_supervised(task)
    if not 0 <= args.held_out_share < 1:
        raise GPT1Error(f"held_out_share is a share of the rows, from 0 to below 1, not {args.held_out_share}")
    rows = {"train": task.load("train", args.data_dir, args.sample)}
    if args.held_out_share:
        # The last rows, not random ones: neighbours often share a source or a premise, and would tell of each other.
        parts = rows["train"].train_test_split(args.held_out_share, shuffle=False)
        rows = {"train": parts["train"], "validation": parts["test"]}
    else:
        rows.update(load_scored(task, args.data_dir, args.sample))
    if -1 in rows["train"].unique("label"):
        raise GPT1Error(f"the training rows of task {task.id} have hidden labels (-1)")
    if args.max_train_examples and args.max_train_examples < len(rows["train"]):
        rows["train"] = rows["train"].shuffle(seed=SUBSET_SEED).select(range(args.max_train_examples))

    check_batch(args, len(rows["train"]))

    results = []
    for seed in range(args.seed, args.seed + args.seeds):
        run = copy.copy(args)
        run.seed = seed
        if args.seeds > 1:
            run.output_dir = str(Path(args.output_dir) / f"seed-{seed}")
        results += finetune_once(run, task, rows)
        if args.process_index == 0:
            write_results(args.output_dir, results)
            write_finetuning_cards(args, task, results)
    push_run(args)
    if args.process_index == 0:
        print(format_results(results))
        if args.seeds > 1:
            print(summary(results))
    return results


def finetune_once(args: FinetuneArguments, task: Task, rows: dict[str, Dataset]) -> list[Result]:
    """One run with one seed: train, save model and processor, predict the validation rows."""
    set_seed(args.seed)
    tokenizer = open_tokenizer(args.model)
    processor = GPT1Processor(tokenizer, task.input_format)
    config = open_config(
        args.model,
        **config_changes(task, args.plain_regression),
        embd_pdrop=args.dropout,
        attn_pdrop=args.dropout,
        resid_pdrop=args.dropout,
        classifier_dropout=args.classifier_dropout,
        lm_coef=args.lm_coef,
        pad_token_id=processor.tokenizer.pad_token_id,
        bos_token_id=processor.tokenizer.bos_token_id,
    )
    if args.from_scratch:
        model = auto_class(task).from_config(config)
    else:
        model = open_model(auto_class(task), args.model, config, new_head=True)
    # New rows are drawn like any other weight, N(0, 0.02), not from the mean of the old ones.
    model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)

    max_length = args.max_length or config.max_position_embeddings
    encoded = {split: encode_rows(rows[split], processor, max_length) for split in rows}
    trainer = GPT1Trainer(
        model=model,
        args=args,
        processing_class=processor,
        train_dataset=encoded["train"],
        eval_dataset=encoded["validation"],
        compute_metrics=lambda prediction: compute_metrics(task, prediction),
    )
    trained = trainer.train(resume_from_checkpoint=resume_point(args))
    predictions = {split: predict(trainer, task, rows[split], encoded[split]) for split in rows if split != "train"}
    details = {
        "from_scratch": args.from_scratch,
        "sample": args.sample,
        "n_train_examples": len(rows["train"]),
        "learning_rate": args.learning_rate,
        "epochs": args.num_train_epochs,
        "batch_size": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "lm_coef": args.lm_coef,
        "checkpoint": "best on validation" if args.load_best_model_at_end else "last epoch",
        "train_loss": round(trained.training_loss, 4),
        "train_seconds": round(trained.metrics["train_runtime"], 1),
        "device": device_name(model.device),
    }
    if args.held_out_share:
        predictions = {"held-out train": predictions["validation"]}
    else:
        details["not_run"] = [split for split in task.scored_splits if split not in rows]
    results = [
        result
        for split in predictions
        for result in task_results(task, split, predictions[split], args.model, args.seed, details)
    ]
    save_whole(trainer, auto_class(task), args.output_dir)
    if trainer.is_world_process_zero():
        processor.save_pretrained(args.output_dir)
        write_predictions(args.output_dir, predictions)
        write_results(args.output_dir, results)
    trainer.accelerator.wait_for_everyone()
    return results


def compute_metrics(task: Task, prediction: EvalPrediction) -> dict[str, float]:
    """The task's metric, for the Trainer's logs and its choice of the best checkpoint."""
    return {task.metric: score(task.metric, decide(task, prediction.predictions), prediction.label_ids)}


def check_batch(args: FinetuneArguments, n_rows: int):
    """Warn of a training set that does not fill one update; raise if nothing is left to train on."""
    batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    if n_rows >= batch:
        return
    if args.dataloader_drop_last and n_rows < args.train_batch_size * args.world_size:
        raise GPT1Error(
            f"{n_rows} training rows are fewer than one batch, and dataloader_drop_last leaves none: lower "
            "per_device_train_batch_size or switch it off"
        )
    logger.warning(
        f"{n_rows} training rows are fewer than the {batch} of one update: each epoch is one smaller update"
    )


def summary(results: Sequence[Result]) -> str:
    """Mean and spread over the seeds of one run, a line for each metric and split."""
    values = defaultdict(list)
    for result in results:
        values[f"{result.task} ({result.split}) {result.metric}"].append(result.value)
    return "\n".join(
        f"{name}: mean {np.mean(of_seeds):.1f} ± {np.std(of_seeds, ddof=1):.1f} (standard deviation), median "
        f"{np.median(of_seeds):.1f}, {len(of_seeds)} seeds"
        for name, of_seeds in values.items()
    )


__all__ = ["finetune"]
