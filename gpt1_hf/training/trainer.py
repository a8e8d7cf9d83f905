"""transformers' Trainer with GPT-1's batching, separate logs of its two loss terms, and checks of the loss."""

import inspect
import logging
from statistics import fmean
from typing import Any

import numpy as np
import torch
from accelerate.utils import DynamoBackend
from datasets import Dataset
from torch.utils.data import RandomSampler, Sampler, SequentialSampler
from transformers import DataCollator, EvalPrediction
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import unwrap_peft_model

from ..console import no_bars
from ..data.batching import GPT1DataCollator, LengthGroupedSampler, PackingCollator, row_lengths
from ..data.spans import RandomSpans, Spans
from ..errors import UsageError
from ..evaluation.perplexity import perplexity
from ..evaluation.precision import full_precision
from ..modeling_gpt1_cpu import fast_training
from ..processing_gpt1 import GPT1Processor
from .arguments import check_metric, drop_missing_precision, use_one_gpu
from .batch_sizes import rows_per_update
from .cpu_kernels import CPU_BLOCKS, speed_up
from .exact_resume import ResumableTrainer
from .layerwise_lr import decay_by_layer
from .manifest import checkpoints
from .progress import LogLines, TrainingBar


logger = logging.getLogger(__name__)

# A logged loss above this multiple of the mean of the last ten gives a warning.
SPIKE_RATIO = 1.3
# Losses are checked after at most this many batches.
MAX_UNCHECKED = 1000


def mean_loss(rows: EvalPrediction) -> dict[str, float]:
    """Loss and perplexity over spans of one length, from the loss of each."""
    loss = rows.predictions.mean(dtype=np.float64).item()
    return {"loss": loss, "perplexity": perplexity(loss)}


def training_collator(collator: DataCollator, model: torch.nn.Module) -> DataCollator:
    """
    The collator that [`GPT1Trainer`] trains with: one that packs rows, if the model's attention skips masked tokens.

    Args:
        collator (`DataCollator`):
            Collator of the rows. Only a [`GPT1DataCollator`] that does not pack is replaced.
        model (`torch.nn.Module`):
            Model to train, after `speed_up`.
    """
    # Other attention computes the square of a packed row, and an adapter may add virtual tokens to each row.
    skips_masked = unwrap_peft_model(model) is model and model.config._attn_implementation == CPU_BLOCKS
    if skips_masked and type(collator) is GPT1DataCollator and not collator.packing:
        return PackingCollator(collator)
    return collator


class GPT1Trainer(ResumableTrainer):
    """
    transformers' `Trainer` for GPT-1.

    Differences:

    - With a [`GPT1Processor`] as `processing_class`, the default collator is [`GPT1DataCollator`].
    - The logs of a task head show `task_loss` and `lm_loss` separately.
    - `layerwise_lr_decay` gives lower layers lower learning rates.
    - A language model trains without materialising its logits (the same loss and gradients). On a CPU, dropout and
      attention come from `cpu_kernels.py`, and products in fp32 from `modeling_gpt1_cpu.py`.
    - [`RandomSpans`] are drawn with replacement; an epoch has as many tokens as the corpus.
    - On a CPU, training packs the sequences of a batch that would hold much padding (the same loss and gradients),
      unless the model is compiled.
    - With `group_by_length`, the training rows of an update have similar lengths, and the order of updates is random.
      Evaluation keeps the order of its rows.
    - A loss that is NaN or infinite ends the run before it is logged or saved. A jump of the loss gives a warning.
    - An evaluation during training, which may choose the best checkpoint, computes in fp32 like the final score: the
      weights are fp32, and autocast and TF32 are off meanwhile, on a CPU and on a GPU. `bf16_full_eval` and
      `fp16_full_eval` have no effect. (FSDP's own mixed precision stays.)
    - `label_smoothing_factor` smooths the task's labels, or the next tokens, but not the auxiliary loss, and not in
      evaluation.
    - Logs, and one progress bar per run, go to standard error.
    - Training resumes exactly, and signals end it with a checkpoint, see [`ResumableTrainer`].
    """

    def __init__(self, model=None, args=None, data_collator=None, *positional, **kwargs):
        processor = kwargs.get("processing_class")
        if data_collator is None and isinstance(processor, GPT1Processor):
            data_collator = GPT1DataCollator(processor)
        if isinstance(kwargs.get("eval_dataset"), Spans) and kwargs.get("compute_metrics") is None:
            kwargs["compute_metrics"] = mean_loss
        if args is not None:
            use_one_gpu(args)
            drop_missing_precision(args)
            if args.bf16_full_eval or args.fp16_full_eval:
                logger.warning("scores are computed in fp32: bf16_full_eval and fp16_full_eval have no effect")
                args.bf16_full_eval = args.fp16_full_eval = False
        super().__init__(model, args, data_collator, *positional, **kwargs)
        if self.args.report_to and self.args.run_name is None:
            # One name for training, scoring and resuming; trackio would make up a new one each time.
            self.args.run_name = self.args.output_dir
        for callback in list(self.callback_handler.callbacks):
            if type(callback) in (PrinterCallback, ProgressCallback):  # not a notebook's bar
                self.remove_callback(callback)
                has_bar = isinstance(callback, ProgressCallback) and not no_bars()
                self.add_callback(TrainingBar() if has_bar else LogLines())
        if self.compute_metrics in (None, mean_loss) and not isinstance(self.eval_dataset, dict):
            check_metric(self.args, ("perplexity",) if self.compute_metrics else ())
        self._loss_terms: dict[str, torch.Tensor] = {}
        self._loss_terms_step = 0
        self._unchecked: list[tuple[int, torch.Tensor, torch.Tensor | None]] = []  # update, loss, starts of spans
        self._last_losses: list[float] = []
        bare_model = self.accelerator.unwrap_model(self.model)
        self._can_skip_logits = "skip_logits" in inspect.signature(bare_model.forward).parameters
        self._label_smoothing = 0.0
        if self.args.label_smoothing_factor and self.compute_loss_func is None:
            self._smooth_in_the_model(unwrap_peft_model(bare_model))
        if self.args.device.type == "cpu":
            speed_up(bare_model, self.args.bf16)

    def _smooth_in_the_model(self, model: torch.nn.Module):
        """
        Leave label smoothing to the model. transformers would not pass labels to the model, which would then compute
        no auxiliary loss.
        """
        # The model's argument is not called `label_...`: Trainer treats every argument of such a name as labels.
        if "smoothing" not in inspect.signature(model.forward).parameters:
            return
        if not getattr(model, "takes_smoothing", True):
            config: Any = model.config
            raise UsageError(
                "label_smoothing_factor needs labels that are single classes, not scores, bins of scores or multiple "
                f"labels ({type(model).__name__} with problem_type {config.problem_type}, num_labels "
                f"{config.num_labels}, regression_bins {config.regression_bins}): leave it out"
            )
        self.label_smoother, self._label_smoothing = None, self.args.label_smoothing_factor

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        is_given, args = self.optimizer is not None, self.args
        try:
            optimizer = super().create_optimizer(model)
        except (ImportError, TypeError, ValueError) as error:
            name, settings = args.optim.value, args.optim_args
            raise UsageError(f"optim {name} with optim_args {settings} cannot be created: {error}") from error
        decay = getattr(self.args, "layerwise_lr_decay", 1.0)
        if decay != 1.0 and not is_given:
            decay_by_layer(optimizer, self.model if model is None else model, decay)
        return optimizer

    def create_scheduler(self, *args, **kwargs) -> torch.optim.lr_scheduler.LRScheduler:
        try:
            return super().create_scheduler(*args, **kwargs)
        except (TypeError, ValueError) as error:
            name, settings = self.args.lr_scheduler_type.value, self.args.lr_scheduler_kwargs
            raise UsageError(
                f"lr_scheduler_type {name} with lr_scheduler_kwargs {settings} cannot be created: {error}"
            ) from error

    def _get_train_sampler(self, train_dataset=None) -> Sampler | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if isinstance(dataset, RandomSpans):
            return RandomSampler(dataset, replacement=True, num_samples=dataset.spans_per_epoch)
        if self.args.train_sampling_strategy == "group_by_length" and isinstance(dataset, Dataset):
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            return LengthGroupedSampler(row_lengths(dataset["input_ids"]), rows_per_update(self.args), seed)
        return super()._get_train_sampler(train_dataset)

    def _get_eval_sampler(self, eval_dataset) -> Sampler | None:
        # transformers' `group_by_length` also reorders evaluation rows: predictions would not match their rows.
        return None if self.args.world_size > 1 else SequentialSampler(eval_dataset)

    def get_train_dataloader(self):
        collator, model = self.data_collator, self.accelerator.unwrap_model(self.model)
        # A compiled model would be compiled anew for each number of tokens.
        if self.accelerator.state.dynamo_plugin.backend == DynamoBackend.NO:
            self.data_collator = training_collator(collator, model)
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = collator

    def get_eval_dataloader(self, *args, **kwargs):
        # transformers' `dataloader_drop_last` also drops evaluation rows.
        drop_last, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            return super().get_eval_dataloader(*args, **kwargs)
        finally:
            self.args.dataloader_drop_last = drop_last

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        if "start" not in self._signature_columns:
            self._signature_columns.append("start")

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        inputs = dict(inputs)
        starts = inputs.pop("start", None)  # where in the stream each row of [`RandomSpans`] begins
        with fast_training(self.args.device):
            loss = super().training_step(model, inputs, num_items_in_batch)
        self._unchecked.append((self.state.global_step + 1, loss.detach(), starts))
        if len(self._unchecked) > MAX_UNCHECKED:
            self.check_losses()
        return loss

    def prediction_step(self, model, inputs, *args, **kwargs):
        if "start" not in inputs:
            smoothing, self._label_smoothing = self._label_smoothing, 0.0  # only training is smoothed
            try:
                with full_precision(model):
                    return super().prediction_step(model, inputs, *args, **kwargs)
            finally:
                self._label_smoothing = smoothing
        # Spans are scored one by one. With several processes, the last batch is filled up with repeated rows, so its
        # mean would depend on the number of processes.
        labels = inputs["labels"].to(self.args.device)
        with torch.no_grad(), full_precision(model):
            logits = model(input_ids=inputs["input_ids"].to(self.args.device)).logits
        losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), reduction="none"
        )
        row_losses = losses.view(len(labels), -1).mean(1)
        return None, row_losses, row_losses

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if self._label_smoothing and "labels" in inputs:
            inputs = {**inputs, "smoothing": self._label_smoothing}
        if self._can_skip_logits and model.training and not return_outputs:
            inputs = {**inputs, "skip_logits": True}
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        if model.training:
            for name in ("task_loss", "lm_loss"):
                if (term := outputs.get(name)) is not None:
                    self._loss_terms[name] = self._loss_terms.get(name, 0.0) + term.detach()
        return (loss, outputs) if return_outputs else loss

    def check_losses(self):
        """Raise if a loss since the last check was not finite. Only this method waits for the device."""
        unchecked, self._unchecked = self._unchecked, []
        if not unchecked:
            return
        finite = torch.stack([loss for _, loss, _ in unchecked]).isfinite().tolist()
        for (update, loss, starts), is_finite in zip(unchecked, finite, strict=True):
            if not is_finite:
                where = ""
                if starts is not None:
                    documents = self.train_dataset.documents_of(starts.tolist())
                    where = f" (its batch is from the documents {', '.join(map(str, documents))} of the corpus)"
                elsewhere = ", in another output_dir" if checkpoints(self.args.output_dir) else ""
                raise FloatingPointError(
                    f"the training loss is {loss.item()} at update {update}{where}: lower learning_rate or train in "
                    f"fp32{elsewhere}"
                )

    def progress(self) -> dict[str, Any]:
        return super().progress() | {
            "loss_terms": {name: total.item() for name, total in self._loss_terms.items()},
            "loss_terms_at": self._loss_terms_step,
            "last_losses": self._last_losses,
        }

    def restore_progress(self, progress: dict[str, Any]):
        super().restore_progress(progress)
        terms = progress.get("loss_terms", {}).items()
        self._loss_terms = {name: torch.tensor(total, device=self.args.device) for name, total in terms}
        self._loss_terms_step = progress.get("loss_terms_at", self.state.global_step)
        self._last_losses = progress.get("last_losses", [])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "train_loss" in logs:  # transformers counts only updates since the run was resumed
            logs["train_loss"] = self._total_loss_scalar / max(self.state.global_step, 1)
        # Each term is already divided by the examples of its whole update, over all batches and processes, so that the
        # sum over an update's batches is that update's value.
        steps = self.state.global_step - self._loss_terms_step
        if "loss" in logs and self._loss_terms and steps:
            for name, total in self._loss_terms.items():
                logs[name] = round(self.accelerator.gather(total.reshape(1)).sum().item() / steps, 4)
            self._loss_terms = {}
            self._loss_terms_step = self.state.global_step
        if "loss" in logs:
            if len(self._last_losses) == 10 and logs["loss"] > SPIKE_RATIO * fmean(self._last_losses):
                logger.warning(
                    f"the training loss jumped to {logs['loss']:.3f} at update {self.state.global_step}, from "
                    f"{fmean(self._last_losses):.3f} on average before"
                )
            self._last_losses = [*self._last_losses[-9:], logs["loss"]]
        super().log(logs, start_time)
