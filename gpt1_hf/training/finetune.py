"""Fine-tuning on a task (§3.2, §4.1): rows -> Trainer -> a saved classifier, its predictions and its scores."""

import copy
import logging
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import EvalPrediction, PreTrainedConfig, PreTrainedModel, set_seed
from transformers.utils import SAFE_WEIGHTS_NAME
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME, ADAPTER_SAFE_WEIGHTS_NAME

from ..checkpoints.loading import new_model, open_config, open_model, open_tokenizer
from ..checkpoints.lora import add_lora, save_adapter
from ..console import interruptible, note, silent
from ..data.batching import IGNORED
from ..data.loading import evenly_spaced, local_copy
from ..errors import GPT1Error, UsageError
from ..evaluation.metrics import score
from ..evaluation.precision import precision_of
from ..evaluation.results import Result, format_results, write_results
from ..evaluation.seeds import summary, with_spread
from ..evaluation.task_scores import (
    HELD_OUT_SPLIT,
    auto_class,
    check_supervised,
    config_changes,
    decide,
    encode_rows,
    hold_out,
    load_scored,
    predict,
    task_results,
    write_predictions,
)
from ..files import writing
from ..hardware import device_name
from ..hub.card import write_finetuning_cards
from ..processing_gpt1 import GPT1Processor
from ..tasks import Task, load_task, task_from_files
from ..training_record import architecture_digest, rows_digest, tokenizer_digest, trained_on
from .arguments import FinetuneArguments, check_metric
from .batch_sizes import rows_per_update
from .exact_resume import save_beside_weights, save_full_model
from .manifest import resume_point
from .publishing import push_run
from .run_folder import RunFolder, finetuning_facts, model_settings
from .trainer import GPT1Trainer


logger = logging.getLogger(__name__)

# Seed of the random rows of `max_train_examples`, which are the same for every run.
SUBSET_SEED = 0


def finetune(args: FinetuneArguments, resume: bool = False) -> list[Result]:
    """
    Fine-tune a GPT-1 on a task, once per seed.

    With several seeds, those that have finished with the same settings are skipped, and one whose loss becomes NaN or
    infinite is reported and skipped.

    Args:
        args ([`FinetuneArguments`]):
            Settings.
        resume (`bool`, *optional*, defaults to `False`):
            Whether to skip a single run, too, if it has finished with the same settings.

    Returns:
        list of [`Result`], also in `<output_dir>/results.json`: for each seed, one for each metric on each split that
        the task is scored on. With several seeds, each run's model is in `<output_dir>/seed-<seed>`.

    Raises:
        GPT1Error: if task, model or data are missing or do not fit together, or every seed has failed.
    """
    is_main = args.process_index == 0
    task = open_task(args)
    check_supervised(task)
    with nullcontext() if is_main else silent():
        task = task.resolved(args.data_dir)
    check_metric(args, () if args.prediction_loss_only else (task.metric,))
    facts = finetuning_facts(args, task)
    runs = [RunFolder.of_finetuning(own_args, facts) for own_args in args_of_each_seed(args)]
    finished = {run.args.seed: run.finished_results() for run in runs} if resume or len(runs) > 1 else {}

    rows, results, failed = None, [], {}
    for run in runs:
        seed, run_results = run.args.seed, finished.get(run.args.seed)
        if run_results is not None:
            if is_main:
                note(f"{task.id}, seed {seed}: already finished, in {run.path}; skipped")
        else:
            rows = rows or load_rows(args, task)
            try:
                run_results = finetune_once(run, task, rows)
            except FloatingPointError as error:  # the other seeds may still converge
                if len(runs) == 1 or args.world_size > 1:  # other processes may not have seen it, and wait
                    raise
                failed[seed] = str(error)
                logger.error(f"{task.id}, seed {seed} failed: {error}")
                continue
        results += run_results
        if is_main:
            write_results(args.output_dir, with_spread(results, failed))
            write_finetuning_cards(args, task, results)
    if len(failed) == len(runs):
        raise GPT1Error(
            f"task {task.id}: all {len(runs)} seeds failed; the error of the first: {failed[runs[0].args.seed]}"
        )
    results = with_spread(results, failed)
    if is_main:
        write_results(args.output_dir, results)
        print(format_results(results))
        if len(runs) > 1 and results:
            print(summary(results))
        note(f"written to {args.output_dir}")
    push_run(args)
    for run in runs:
        run.close()
    return results


def open_task(args: FinetuneArguments) -> Task:
    """The task of `--task`, or of `--train_file` and the settings that describe it."""
    if args.train_file:
        return task_from_files(
            args.train_file,
            args.validation_file,
            args.input_format or "classification",
            args.text_column,
            args.label_column or "label",
            args.choices_column,
        )
    if not args.task:
        raise UsageError("fine-tuning needs --task, such as cola or sst2, or --train_file")
    return load_task(args.task)


def args_of_each_seed(args: FinetuneArguments) -> list[FinetuneArguments]:
    """Settings of each run. With several seeds, each has its own folder."""
    if args.seeds == 1:
        return [args]
    runs = []
    for seed in range(args.seed, args.seed + args.seeds):
        run = copy.copy(args)
        run.seed, run.output_dir = seed, str(Path(args.output_dir) / f"seed-{seed}")
        run.run_name = args.run_name and f"{args.run_name}-seed-{seed}"
        runs.append(run)
    return runs


def load_rows(args: FinetuneArguments, task: Task) -> dict[str, Dataset]:
    """The training rows and, by the names of their splits, the rows that the model is scored on."""
    if not 0 <= args.held_out_share < 1:
        raise UsageError(f"held_out_share must be at least 0 and below 1, not {args.held_out_share}")
    rows = {"train": task.load("train", args.data_dir, args.sample)}
    if args.held_out_share:
        train, held_out = hold_out(rows["train"], args.held_out_share)
        rows = {"train": train, "validation": held_out}
    else:
        rows.update(load_scored(task, args.data_dir, args.sample))
        for split in ("validation", "test"):
            if split in task.files and Path(task.files[split]).resolve() == Path(task.files["train"]).resolve():
                logger.warning(f"task {task.id}: the {split} file is the training file: its score is of learnt rows")
    if args.max_eval_examples:
        chosen = {split: evenly_spaced(len(part), args.max_eval_examples) for split, part in rows.items()}
        rows |= {split: rows[split].select(chosen[split]) for split in rows if split != "train"}
    if task.labels in ("classes", "scores") and any(map(task.is_hidden, set(rows["train"]["label"][:]))):
        raise GPT1Error(f"the training rows of task {task.id} have hidden labels (-1): use data with labels")
    if args.max_train_examples and args.max_train_examples < len(rows["train"]):
        rows["train"] = rows["train"].shuffle(seed=SUBSET_SEED).select(range(args.max_train_examples))

    n_rows, update = len(rows["train"]), rows_per_update(args)
    if args.dataloader_drop_last and n_rows < args.train_batch_size * args.world_size:
        raise GPT1Error(
            f"{n_rows} training rows are fewer than one batch, and dataloader_drop_last drops them all: lower "
            "per_device_train_batch_size or switch dataloader_drop_last off"
        )
    if n_rows < update:
        logger.warning(
            f"{n_rows} training rows are fewer than the {update} of one update: each epoch is one smaller update"
        )
    return rows


@dataclass
class Prepared:
    """Inputs of training and scoring."""

    run: RunFolder
    task: Task
    rows: dict[str, Dataset]  # by split, in canonical columns
    encoded: dict[str, Dataset]  # by split
    processor: GPT1Processor
    config: PreTrainedConfig

    @property
    def args(self) -> FinetuneArguments:
        return self.run.args


def finetune_once(run: RunFolder, task: Task, rows: dict[str, Dataset]) -> list[Result]:
    """
    One run with one seed: train, save, and score the saved model. If an interrupted run has already saved its model,
    the model is only scored.
    """
    with run.locked():
        prepared = prepare(run, task, rows)
        details = run.training_details()
        if details is None:
            trainer, details = train(prepared)
            save(prepared, trainer, details)
        with interruptible("the scoring", run.how_to_score):
            return score_saved(prepared, details)


def prepare(run: RunFolder, task: Task, rows: dict[str, Dataset]) -> Prepared:
    """Encode the rows, and build the model's configuration with its training record."""
    args = run.args
    set_seed(args.seed)
    processor = GPT1Processor(open_tokenizer(args.model), task.input_format, args.question_delimiter)
    tokenizer = processor.tokenizer
    digests = {split: rows_digest(rows[split]) for split in rows}
    train_digest, tokenizer_id = digests.pop("train"), tokenizer_digest(tokenizer)
    is_from_hub = task.dataset and not args.sample and local_copy(task.dataset, args.data_dir) is None
    record = {
        "task": task.id,
        "task_version": task.version,
        "input_format": task.input_format,
        "labels": list(task.label_names),
        "tokenizer": tokenizer_id,
        "dataset": task.source,
        "revision": task.revision if is_from_hub else None,
        "sample": args.sample,
        "rows": len(rows["train"]),
        "rows_digest": train_digest,
        "scored": {HELD_OUT_SPLIT: digests["validation"]} if args.held_out_share else digests,
        "max_length": args.max_length,
        "seed": args.seed,
        "eval_batch_size": args.per_device_eval_batch_size,
    }
    if args.held_out_share:
        record["held_out_share"] = args.held_out_share
    if args.max_eval_examples:
        record["max_eval_examples"] = args.max_eval_examples
    if not task.built_in:
        record |= {"label_kind": task.labels, "label_ids": task.label_ids, "columns": task.columns}
    run.training.content |= {"training rows": train_digest, "tokenizer": tokenizer_id}
    config = open_config(
        args.model,
        trained_on=record,
        **config_changes(task, args.plain_regression),
        embd_pdrop=args.dropout,
        attn_pdrop=args.dropout,
        resid_pdrop=args.dropout,
        classifier_dropout=args.classifier_dropout,
        lm_coef=args.lm_coef,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    if task.labels == "tags" and config.model_type == "gpt1_lstm":
        raise UsageError(f"task {task.id} has a tag for each word, and the LSTM has no head for it: use a GPT-1")
    # Saved with the tokenizer, so that scoring truncates rows to the same length as training.
    tokenizer.model_max_length = args.max_length or config.max_position_embeddings
    encoded = {split: encode_rows(rows[split], processor, tokenizer.model_max_length) for split in rows}
    return Prepared(run, task, rows, encoded, processor, config)


def train(prepared: Prepared) -> tuple[GPT1Trainer, dict[str, Any]]:
    """Train; returns the trainer, and the details of training for `results.json`."""
    args, task, config, run = prepared.args, prepared.task, prepared.config, prepared.run
    architecture = architecture_digest(config)  # before the embeddings grow by the special tokens
    model = model_to_train(prepared)
    trainer = GPT1Trainer(
        model=model,
        args=args,
        processing_class=prepared.processor,
        train_dataset=prepared.encoded["train"],
        eval_dataset=prepared.encoded["validation"],
        compute_metrics=lambda prediction: compute_metrics(task, prediction),
    )
    trainer.identity, trainer.how_to_resume = run.training, run.how_to_resume
    trained = trainer.train(resume_from_checkpoint=resume_point(args, run.training))
    details = {
        **model_settings(args, model),
        "from_scratch": args.from_scratch,
        "transfer_layers": args.transfer_layers,
        "sample": args.sample,
        "n_train_examples": len(prepared.rows["train"]),
        "learning_rate": args.learning_rate,
        "epochs": args.num_train_epochs if args.max_steps < 1 else round(trainer.state.epoch, 2),
        "batch_size": rows_per_update(args),
        "lm_coef": args.lm_coef,
        "peft": args.peft,
        "architecture_digest": architecture,
        "base_weights": None if args.from_scratch else run.results.content.get("weights"),
        "n_trained_parameters": sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        "checkpoint": "best on validation" if args.load_best_model_at_end else "last epoch",
        "train_loss": round(trained.training_loss, 4),
        "train_seconds": round(trained.metrics["train_runtime"], 1),
        "device": device_name(model.device),
        "tokenizer": config.trained_on["tokenizer"],
        "train_rows_digest": config.trained_on["rows_digest"],
    }
    if not task.built_in:  # its id and rows do not tell what the model learns to predict
        details |= {
            "input_format": task.input_format,
            "n_labels": len(task.label_names),
            "regression_bins": task.regression_bins,
        }
    if args.max_train_examples:
        details["subset_seed"] = SUBSET_SEED
    return trainer, details


def model_to_train(prepared: Prepared) -> PreTrainedModel:
    """
    The model to train, wholly, partly or not pre-trained, with a new head and embeddings of the special tokens.

    New weights are drawn at the scale of the model's own pre-training, N(0, `initializer_range`). That is the paper's
    N(0, 0.02) for the paper's model, and 0.06 for gpt1-tiny. It holds for a head, the rows of special tokens, and
    blocks that are not kept. Rows of special tokens that the model was already fine-tuned with are kept.
    """
    args, config, tokenizer = prepared.args, prepared.config, prepared.processor.tokenizer
    model_class = auto_class(prepared.task)
    if args.from_scratch:
        model = new_model(model_class, config)
    else:
        model = open_model(model_class, args.model, config, new_head=True)
        if any(not name.endswith(("Model", "ForCausalLM")) for name in config.architectures or ()):
            with torch.no_grad():  # it has the head of an earlier fine-tuning
                model.classifier.weight.normal_(std=config.initializer_range)
                model.classifier.bias.zero_()
    if args.transfer_layers is not None:
        keep_layers(model, args.transfer_layers)
    # New rows are drawn like any other weight, not around the mean of the old ones, the library's default.
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if args.peft:
        model = add_lora(model, tokenizer, args.model, args.lora_r, args.lora_alpha, args.lora_dropout)
    return model


def save(prepared: Prepared, trainer: GPT1Trainer, details: dict[str, Any]):
    """Save the weights, and then everything else."""
    run, is_adapter = prepared.run, prepared.args.peft
    if not is_adapter:
        save_full_model(trainer, auto_class(prepared.task), str(run.path))
    if trainer.is_world_process_zero():
        with writing(run.path):
            if is_adapter:
                save_adapter(trainer.accelerator.unwrap_model(trainer.model), str(run.path))
            # Remove what an earlier run left in the folder: loading would prefer an adapter to full weights.
            for name in (SAFE_WEIGHTS_NAME,) if is_adapter else (ADAPTER_CONFIG_NAME, ADAPTER_SAFE_WEIGHTS_NAME):
                (run.path / name).unlink(missing_ok=True)
    save_beside_weights(trainer, run, prepared.processor, details)


def score_saved(prepared: Prepared, details: dict[str, Any]) -> list[Result]:
    """Score the saved model as `gpt1 evaluate` does, regardless of its training settings, and write the results."""
    run, args, task, rows = prepared.run, prepared.args, prepared.task, prepared.rows
    model = open_model(auto_class(task), args.output_dir, open_config(args.output_dir)).to(args.device)
    scored = trained_on(model.config)["scored"]

    def predictions_of(split: str) -> list[dict[str, Any]]:
        chosen = evenly_spaced(len(rows[split]), args.max_eval_examples)
        scored_rows, encoded = rows[split].select(chosen), prepared.encoded[split].select(chosen)
        return predict(model, prepared.processor, task, scored_rows, encoded, args.per_device_eval_batch_size)

    predictions = {split: predictions_of(split) for split in rows if split != "train"}
    if args.held_out_share:
        predictions = {HELD_OUT_SPLIT: predictions["validation"]}
    else:
        details = {**details, "not_run": [split for split in task.scored_splits if split not in rows]}
    if args.max_eval_examples:
        details = {**details, "max_examples": args.max_eval_examples}
    details = {**details, "precision": precision_of(model)}
    results = []
    for split, found in predictions.items():
        own_details = {**details, "rows_digest": scored[split]}
        results += task_results(task, split, found, args.model, args.seed, own_details)
    if args.score_train:
        results += task_results(task, "train", predictions_of("train"), args.model, args.seed, details)
    if args.process_index == 0:
        with writing(run.path, run.how_to_score):
            write_predictions(run.path, predictions)
        run.finish(results)
    PartialState().wait_for_everyone()
    return results


def keep_layers(model: PreTrainedModel, n_layers: int):
    """
    Give all blocks except the first ones new weights, as in an untrained model (§5, "Impact of number of
    layers transferred"). The embeddings stay.

    Args:
        model (`PreTrainedModel`):
            Pre-trained model with any head.
        n_layers (`int`):
            Number of blocks to keep.

    Raises:
        GPT1Error: if the model has fewer blocks.
    """
    blocks = model.base_model.h
    if not 0 <= n_layers <= len(blocks):
        raise UsageError(
            f"transfer_layers must be from 0 to {len(blocks)}, the model's number of blocks, not {n_layers}"
        )
    # `_init_weights` skips weights that were loaded, so the new ones come from a new model.
    new_blocks = type(model)(model.config).base_model.h
    for block, new_block in zip(blocks[n_layers:], new_blocks[n_layers:], strict=True):
        block.load_state_dict(new_block.state_dict())


def compute_metrics(task: Task, prediction: EvalPrediction) -> dict[str, float]:
    """
    The task's metric, for the Trainer's logs and its choice of the best checkpoint. Words that were cut off are left
    out here, whose number is the same for every checkpoint.
    """
    answers, labels = decide(task.labels, prediction.predictions), prediction.label_ids
    if task.labels == "tags":
        is_word = labels != IGNORED
        answers, labels = answers[is_word], labels[is_word]
    return {task.metric: score(task.metric, answers, labels)}


__all__ = ["finetune"]
