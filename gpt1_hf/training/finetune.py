"""Fine-tuning on a benchmark (§3.2, §4.1): rows -> Trainer -> a saved classifier, its predictions and its score."""

import copy
import logging
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
from ..console import interruptible, note
from ..data.loading import local_copy
from ..errors import GPT1Error, UsageError
from ..evaluation.metrics import score
from ..evaluation.results import Result, format_results, write_results
from ..evaluation.seeds import summary, with_spread
from ..evaluation.task_scores import (
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
from ..files import write_json, writing
from ..hardware import device_name
from ..hub.card import write_finetuning_cards
from ..processing_gpt1 import GPT1Processor
from ..tasks import Task, load_task
from ..training_record import rows_digest, tokenizer_digest, trained_on
from .arguments import FinetuneArguments, check_metric
from .finished import SETTINGS_FILE, finished_results, settings
from .publishing import push_run
from .resume import (
    alone,
    forget_trained,
    found_in_training,
    how_to_go_on,
    note_trained,
    resume_point,
    training_settings,
    what_is_saved,
)
from .trainer import GPT1Trainer, save_whole


logger = logging.getLogger(__name__)

# The random rows of `max_train_examples` are the same for every run and seed.
SUBSET_SEED = 0
# Name of the training rows that settings are chosen on.
HELD_OUT = "held-out train"


def finetune(args: FinetuneArguments, resume: bool = False) -> list[Result]:
    """
    Fine-tune a GPT-1 on a task, once per seed. Of several seeds, those that have finished with the same settings are
    skipped, and one whose loss is no longer finite is named and passed over.

    Args:
        args ([`FinetuneArguments`]):
            Settings.
        resume (`bool`, *optional*, defaults to `False`):
            Whether a single run that has finished with the same settings is skipped, too.

    Returns:
        list of [`Result`], also in `<output_dir>/results.json`: for each seed, one of each metric on each split that
        the task is scored on. With several seeds, each run's model is in `<output_dir>/seed-<seed>`.

    Raises:
        GPT1Error: if task, model or data are missing or do not fit together, or every seed has failed.
    """
    if not args.task:
        raise UsageError("fine-tuning needs --task, such as cola or sst2")
    task = load_task(args.task)
    check_supervised(task)
    check_metric(args, () if args.prediction_loss_only else (task.metric,))
    main = args.process_index == 0
    runs, finished = [], {}
    for seed in range(args.seed, args.seed + args.seeds):
        run = copy.copy(args)
        run.seed = seed
        if args.seeds > 1:
            run.output_dir = str(Path(args.output_dir) / f"seed-{seed}")
            run.run_name = args.run_name and f"{args.run_name}-seed-{seed}"
        runs.append(run)
        if resume or args.seeds > 1:
            finished[seed] = finished_results(run, task)

    rows = None
    results, failed = [], {}
    for run in runs:
        of_seed = finished.get(run.seed)
        if of_seed is not None and main:
            note(f"{task.id}, seed {run.seed}: finished before, in {run.output_dir}; skipped")
        if of_seed is None:
            if rows is None:
                rows = load_rows(args, task)
                check_batch(args, len(rows["train"]))
            try:
                of_seed = finetune_once(run, task, rows)
            except FloatingPointError as error:  # one seed that diverges does not take the others with it
                if len(runs) == 1 or args.world_size > 1:  # other processes may not have seen it, and wait
                    raise
                failed[run.seed] = str(error)
                logger.error(f"{task.id}, seed {run.seed} failed: {error}")
                continue
        results += of_seed
        if main:
            write_results(args.output_dir, with_spread(results, failed))
            write_finetuning_cards(args, task, results)
    if len(failed) == len(runs):
        raise GPT1Error(f"task {task.id}: all {len(runs)} seeds failed, the first since {failed[runs[0].seed]}")
    results = with_spread(results, failed)
    if main:
        write_results(args.output_dir, results)
        print(format_results(results))
        if args.seeds > 1 and results:
            print(summary(results))
        note(f"written to {args.output_dir}")
    push_run(args)
    for run in runs:
        forget_trained(run)
    return results


def load_rows(args: FinetuneArguments, task: Task) -> dict[str, Dataset]:
    """The training rows and, by the names of their splits, the rows that the model is scored on."""
    if not 0 <= args.held_out_share < 1:
        raise UsageError(f"held_out_share is a share of the rows, from 0 to below 1, not {args.held_out_share}")
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
    return rows


@alone
def finetune_once(args: FinetuneArguments, task: Task, rows: dict[str, Dataset]) -> list[Result]:
    """
    One run with one seed: train, save model and processor, and score what was saved. One that is trained and saved is
    only scored, until [`forget_trained`] has been called.
    """
    set_seed(args.seed)
    made_with = settings(args, task)
    Path(args.output_dir).mkdir(parents=True, exist_ok=True)
    if args.process_index == 0:  # what a former run found is not of the model that comes
        (Path(args.output_dir) / "results.json").unlink(missing_ok=True)
    tokenizer = open_tokenizer(args.model)
    processor = GPT1Processor(tokenizer, task.input_format, args.question_delimiter)
    record = training_record(args, task, processor, rows)
    config = open_config(
        args.model,
        trained_on=record,
        **config_changes(task, args.plain_regression),
        embd_pdrop=args.dropout,
        attn_pdrop=args.dropout,
        resid_pdrop=args.dropout,
        classifier_dropout=args.classifier_dropout,
        lm_coef=args.lm_coef,
        pad_token_id=processor.tokenizer.pad_token_id,
        bos_token_id=processor.tokenizer.bos_token_id,
    )
    # Saved with the tokenizer, so that whatever reads with it cuts where training did.
    processor.tokenizer.model_max_length = max_length = args.max_length or config.max_position_embeddings
    encoded = {split: encode_rows(rows[split], processor, max_length) for split in rows}
    details = found_in_training(args, made_with)
    if details is None:
        forget_trained(args)
        details = train(args, task, config, processor, rows, encoded, made_with)
    with interruptible("the scoring", what_is_saved(args)):
        return score_trained(args, task, processor, rows, encoded, made_with, details)


def train(
    args: FinetuneArguments,
    task: Task,
    config: PreTrainedConfig,
    processor: GPT1Processor,
    rows: dict[str, Dataset],
    encoded: dict[str, Dataset],
    made_with: dict[str, Any],
) -> dict[str, Any]:
    """Train, and save model and processor; returns what there is to say of it, for `results.json`."""
    if args.from_scratch:
        model = new_model(auto_class(task), config)
    else:
        model = open_model(auto_class(task), args.model, config, new_head=True)
        if any(not name.endswith(("Model", "ForCausalLM")) for name in config.architectures or ()):
            draw_head(model)
    if args.transfer_layers is not None:
        keep_layers(model, args.transfer_layers)
    # New rows are drawn like any other weight, N(0, 0.02), not from the mean of the old ones.
    model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)

    if args.peft:
        model = add_lora(model, processor.tokenizer, args.model, args.lora_r, args.lora_alpha, args.lora_dropout)
    n_trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)

    trainer = GPT1Trainer(
        model=model,
        args=args,
        processing_class=processor,
        train_dataset=encoded["train"],
        eval_dataset=encoded["validation"],
        compute_metrics=lambda prediction: compute_metrics(task, prediction),
    )
    record = config.trained_on
    # What a checkpoint has to be of, for training to go on from it.
    trainer.settings = training_settings(args) | {
        "training rows": record["rows_digest"],
        "tokenizer": record["tokenizer"],
    }
    trainer.how_to_go_on = how_to_go_on(args)
    trained = trainer.train(resume_from_checkpoint=resume_point(args, trainer.settings))
    details = {
        "from_scratch": args.from_scratch,
        "transfer_layers": args.transfer_layers,
        "sample": args.sample,
        "n_train_examples": len(rows["train"]),
        "learning_rate": args.learning_rate,
        "epochs": args.num_train_epochs if args.max_steps < 1 else round(trainer.state.epoch, 2),
        "batch_size": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "lm_coef": args.lm_coef,
        "peft": args.peft,
        "n_trained_parameters": n_trained,
        "checkpoint": "best on validation" if args.load_best_model_at_end else "last epoch",
        "train_loss": round(trained.training_loss, 4),
        "train_seconds": round(trained.metrics["train_runtime"], 1),
        "device": device_name(model.device),
        "tokenizer": record["tokenizer"],
        "train_rows_digest": record["rows_digest"],
    }
    if args.max_train_examples:
        details["subset_seed"] = SUBSET_SEED
    # The weights first: nothing that comes later may cost them.
    if not args.peft:
        save_whole(trainer, auto_class(task), args.output_dir)
    if trainer.is_world_process_zero():
        with writing(args.output_dir):
            if args.peft:
                save_adapter(trainer.accelerator.unwrap_model(trainer.model), args.output_dir)
            # A former run's in the same folder: where there is an adapter, it is what is opened.
            for name in (SAFE_WEIGHTS_NAME,) if args.peft else (ADAPTER_CONFIG_NAME, ADAPTER_SAFE_WEIGHTS_NAME):
                (Path(args.output_dir) / name).unlink(missing_ok=True)
            processor.save_pretrained(args.output_dir)
            trainer.save_state()  # the log of the losses, for `gpt1 report`
            note_trained(args, made_with, details)
    trainer.accelerator.wait_for_everyone()
    return details


def score_trained(
    args: FinetuneArguments,
    task: Task,
    processor: GPT1Processor,
    rows: dict[str, Dataset],
    encoded: dict[str, Dataset],
    made_with: dict[str, Any],
    details: dict[str, Any],
) -> list[Result]:
    """Score the saved model as `gpt1 evaluate` does, whatever the settings of its training; write what comes of it."""
    model = open_model(auto_class(task), args.output_dir, open_config(args.output_dir)).to(args.device)
    scored = trained_on(model.config)["scored"]

    def predictions_of(split: str) -> list[dict[str, Any]]:
        return predict(model, processor, task, rows[split], encoded[split], args.per_device_eval_batch_size)

    predictions = {split: predictions_of(split) for split in rows if split != "train"}
    if args.held_out_share:
        predictions = {HELD_OUT: predictions["validation"]}
    else:
        details = {**details, "not_run": [split for split in task.scored_splits if split not in rows]}
    results = [
        result
        for split in predictions
        for result in task_results(
            task, split, predictions[split], args.model, args.seed, {**details, "rows_digest": scored[split]}
        )
    ]
    if args.score_train:
        results += task_results(task, "train", predictions_of("train"), args.model, args.seed, details)
    if args.process_index == 0:
        with writing(args.output_dir, what_is_saved(args)):
            write_predictions(args.output_dir, predictions)
            write_json(Path(args.output_dir) / SETTINGS_FILE, made_with)
            write_results(args.output_dir, results)  # last: it marks the run as finished
    PartialState().wait_for_everyone()
    return results


@torch.no_grad()
def draw_head(model: PreTrainedModel):
    """A new head in the place of that of another task, which the model was fine-tuned for before."""
    model.classifier.weight.normal_(std=model.config.initializer_range)
    model.classifier.bias.zero_()


def training_record(
    args: FinetuneArguments, task: Task, processor: GPT1Processor, rows: dict[str, Dataset]
) -> dict[str, Any]:
    """What the model's configuration says of its training, as JSON types; `training_record.py` checks it."""
    is_hubs = not args.sample and local_copy(task.dataset, args.data_dir) is None
    digests = {split: rows_digest(rows[split]) for split in rows}
    trained = digests.pop("train")
    return {
        "task": task.id,
        "task_version": task.version,
        "input_format": task.input_format,
        "labels": list(task.label_names),
        "tokenizer": tokenizer_digest(processor.tokenizer),
        "dataset": task.dataset,
        "revision": task.revision if is_hubs else None,
        "sample": args.sample,
        "rows": len(rows["train"]),
        "rows_digest": trained,
        "scored": {HELD_OUT: digests["validation"]} if args.held_out_share else digests,
        "max_length": args.max_length,
        "seed": args.seed,
    }


def keep_layers(model: PreTrainedModel, n_layers: int):
    """
    Draw all blocks but the first ones anew, as in a model that was never trained (§5, "Impact of number of layers
    transferred"). The embeddings stay.

    Args:
        model (`PreTrainedModel`):
            Pre-trained model with any head.
        n_layers (`int`):
            Number of blocks that stay as they are.

    Raises:
        GPT1Error: if the model has fewer blocks.
    """
    blocks = model.base_model.h
    if not 0 <= n_layers <= len(blocks):
        raise UsageError(f"transfer_layers is a number of blocks from 0 to the model's {len(blocks)}, not {n_layers}")
    # Loaded weights are marked as such, and `_init_weights` passes them over: those of a new model are copied.
    new_blocks = type(model)(model.config).base_model.h
    for block, new_block in zip(blocks[n_layers:], new_blocks[n_layers:], strict=True):
        block.load_state_dict(new_block.state_dict())


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


__all__ = ["finetune"]
