"""Fine-tuning on a benchmark (§3.2, §4.1): rows -> Trainer -> a saved classifier, its predictions and its score."""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, EvalPrediction, set_seed

from ..checkpoints import open_config, open_model, open_tokenizer
from ..errors import GPT1Error
from ..evaluation.benchmark import encode_rows, predict, task_results, write_predictions
from ..evaluation.metrics import score
from ..evaluation.results import Result, device_name, format_results, write_results
from ..processing_gpt1 import GPT1Processor
from ..tasks import Task, load_task
from .arguments import FinetuneArguments
from .resume import resume_point
from .trainer import GPT1Trainer, save_whole


# The random rows of `max_train_examples` are the same for every run and seed.
SUBSET_SEED = 0


def finetune(args: FinetuneArguments) -> list[Result]:
    """
    Fine-tune a GPT-1 on a task, once per seed.

    Args:
        args ([`FinetuneArguments`]):
            Settings.

    Returns:
        list of [`Result`], one per seed, also in `<output_dir>/results.json`. With several seeds, each run's model is
        in `<output_dir>/seed-<seed>`.

    Raises:
        GPT1Error: if task, model or data are missing or do not fit together.
    """
    if not args.task:
        raise GPT1Error("fine-tuning needs --task, such as cola or sst2")
    task = load_task(args.task)
    if not 0 <= args.held_out_share < 1:
        raise GPT1Error(f"held_out_share is a share of the rows, from 0 to below 1, not {args.held_out_share}")
    rows = {"train": task.load("train", args.data_dir, args.sample)}
    if args.held_out_share:
        # The last rows, not random ones: neighbours often share a source or a premise, and would tell of each other.
        parts = rows["train"].train_test_split(args.held_out_share, shuffle=False)
        rows = {"train": parts["train"], "validation": parts["test"]}
    else:
        rows["validation"] = task.load("validation", args.data_dir, args.sample)
    if -1 in rows["train"].unique("label"):
        raise GPT1Error(f"the training rows of task {task.id} have hidden labels (-1)")
    if args.max_train_examples and args.max_train_examples < len(rows["train"]):
        rows["train"] = rows["train"].shuffle(seed=SUBSET_SEED).select(range(args.max_train_examples))

    results = []
    for seed in range(args.seed, args.seed + args.seeds):
        run = copy.copy(args)
        run.seed = seed
        if args.seeds > 1:
            run.output_dir = str(Path(args.output_dir) / f"seed-{seed}")
        results += finetune_once(run, task, rows)
        if args.process_index == 0:
            write_results(args.output_dir, results)
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
        num_labels=len(task.label_names),
        id2label=dict(enumerate(task.label_names)),
        label2id={name: index for index, name in enumerate(task.label_names)},
        embd_pdrop=args.dropout,
        attn_pdrop=args.dropout,
        resid_pdrop=args.dropout,
        classifier_dropout=args.classifier_dropout,
        lm_coef=args.lm_coef,
        pad_token_id=processor.tokenizer.pad_token_id,
        bos_token_id=processor.tokenizer.bos_token_id,
    )
    if args.from_scratch:
        model = AutoModelForSequenceClassification.from_config(config)
    else:
        model = open_model(AutoModelForSequenceClassification, args.model, config, new_head=True)
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
    predictions = predict(trainer, task, rows["validation"], encoded["validation"])
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
    split = "held-out train" if args.held_out_share else "validation"
    results = task_results(task, split, predictions, args.model, args.seed, details)
    save_whole(trainer, AutoModelForSequenceClassification, args.output_dir)
    if trainer.is_world_process_zero():
        processor.save_pretrained(args.output_dir)
        write_predictions(args.output_dir, predictions)
        write_results(args.output_dir, results)
    trainer.accelerator.wait_for_everyone()
    return results


def compute_metrics(task: Task, prediction: EvalPrediction) -> dict[str, float]:
    """The task's metric, for the Trainer's logs and its choice of the best checkpoint."""
    return {task.metric: score(task.metric, prediction.predictions.argmax(-1), prediction.label_ids)}


def summary(results: Sequence[Result]) -> str:
    """Mean and spread over the seeds of one run."""
    values = np.array([result.value for result in results])
    return (
        f"{results[0].task} {results[0].metric}: mean {values.mean():.1f} ± {values.std(ddof=1):.1f} (standard "
        f"deviation), median {np.median(values):.1f}, {len(values)} seeds"
    )


__all__ = ["finetune"]
