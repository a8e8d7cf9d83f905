"""The Trainer: transformers' own, with GPT-1's batching, its two loss terms logged apart, and a watch on the loss."""

import inspect
import json
import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from datasets import Dataset
from torch.utils.data import RandomSampler, Sampler, SequentialSampler
from transformers import EvalPrediction, Trainer
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import unwrap_peft_model

from ..checkpoints.loading import new_model
from ..console import no_bars, note
from ..data.batching import GPT1DataCollator, LengthGroupedSampler, row_lengths
from ..data.spans import RandomSpans, Spans
from ..errors import Terminated, UsageError
from ..evaluation.perplexity import perplexity
from ..files import check_writable, write_json, writing
from ..processing_gpt1 import GPT1Processor
from .arguments import check_metric, drop_missing_precision
from .cpu_kernels import speed_up
from .layerwise_lr import decay_by_layer
from .progress import Lines, OneBar
from .publishing import PublishingTrainer
from .resume import checkpoints, rotate, training_settings, write_manifest


logger = logging.getLogger(__name__)

# A logged loss warns when it is this many times the mean of the last ten.
SPIKE = 1.3
# What transformers keeps to itself and these classes build on: Trainer's methods that they override or call, and its
# attributes that they read or set. A release that renames one would leave ours unused, without an error; a test names
# it (`test_private_hooks.py`).
PRIVATE_HOOKS = (
    "_finalize_training",
    "_get_eval_sampler",
    "_get_output_dir",
    "_get_train_sampler",
    "_globalstep_last_logged",
    "_issue_warnings_after_load",
    "_maybe_log_save_evaluate",
    "_push_from_checkpoint",
    "_run_epoch",
    "_save",
    "_save_checkpoint",
    "_set_signature_columns_if_needed",
    "_signature_columns",
    "_total_loss_scalar",
    "_tr_loss",
)


def save_whole(trainer: Trainer, auto_class: type, folder: str, dtype: torch.dtype = torch.float32):
    """
    Save the trained model with all its weights, also where training has sharded them. Every process has to call this;
    the main one writes.

    Args:
        trainer (`Trainer`):
            Trainer that trained it.
        auto_class (`type`):
            Auto class of the model, such as `AutoModelForCausalLM`.
        folder (`str`):
            Where to save it.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`):
            Type of the saved weights. The configuration names fp32 all the same: what loads the model by default may
            train it, and computes in fp32.
    """
    weights = trainer.accelerator.get_state_dict(trainer.model)
    if trainer.is_world_process_zero():
        model = new_model(auto_class, trainer.accelerator.unwrap_model(trainer.model).config)
        model.load_state_dict(weights)
        model.config.use_cache = True  # the Trainer switched it off
        with writing(folder):
            model.to(dtype).save_pretrained(folder)
            if dtype != torch.float32:
                model.config.dtype = torch.float32
                model.config.save_pretrained(folder)


def mean_loss(rows: EvalPrediction) -> dict[str, float]:
    """Loss and perplexity over spans of one length, from the loss of each."""
    loss = rows.predictions.mean(dtype=np.float64).item()
    return {"loss": loss, "perplexity": perplexity(loss)}


class GPT1Trainer(PublishingTrainer):
    """
    transformers' `Trainer` for GPT-1.

    What differs: a [`GPT1Processor`] as `processing_class` brings [`GPT1DataCollator`] along; the logs of a task head
    show `task_loss` and `lm_loss` apart; `layerwise_lr_decay` gives lower layers lower learning rates; a language
    model trains without materialising its logits (the same loss and gradients); on a CPU, dropout and attention are
    those of `cpu_kernels.py`; [`RandomSpans`] are drawn at random with replacement, as many an epoch as hold the
    corpus once; rows are evaluated in their own order, however training rows are sampled; with `group_by_length` they
    are of like length within an update, in an order of updates that is random; a loss that is NaN or infinite ends the
    run before anything is logged or saved, and one that jumps is warned of; `label_smoothing_factor` smooths the
    task's labels, or the next tokens, and leaves the auxiliary loss and all evaluation as they are; logs and the one
    bar of a run go to standard error.

    Training goes on from a checkpoint exactly: to the same losses and weights as without the break, also where it
    falls between two log lines, and with several processes. A checkpoint counts once its manifest is
    written (see `resume.py`), and no other is deleted before. SIGTERM and Ctrl-C end training after the current
    update, with a checkpoint and [`Terminated`]; a second Ctrl-C ends it at once. (transformers'
    `enable_jit_checkpoint` saves three seconds later, possibly between the backward pass and the optimizer's step,
    does not let processes agree on the update, and returns as if training were done.)
    """

    def __init__(self, model=None, args=None, data_collator=None, *positional, **kwargs):
        processor = kwargs.get("processing_class")
        if data_collator is None and isinstance(processor, GPT1Processor):
            data_collator = GPT1DataCollator(processor)
        if isinstance(kwargs.get("eval_dataset"), Spans) and kwargs.get("compute_metrics") is None:
            kwargs["compute_metrics"] = mean_loss
        if args is not None and args.n_gpu > 1:  # torch's DataParallel, which adds up no loss terms
            logger.warning("several GPUs and one process: one GPU is used; `accelerate launch` uses them all")
            args._n_gpu = 1
        if args is not None:
            drop_missing_precision(args)
        super().__init__(model, args, data_collator, *positional, **kwargs)
        if self.args.report_to and self.args.run_name is None:
            # One name for training, its scores, and what goes on after a kill; trackio draws one for each.
            self.args.run_name = self.args.output_dir
        for callback in list(self.callback_handler.callbacks):
            if type(callback) in (PrinterCallback, ProgressCallback):  # not a notebook's
                self.remove_callback(callback)
                has_bar = isinstance(callback, ProgressCallback) and not no_bars()
                self.add_callback(OneBar() if has_bar else Lines())
        if self.compute_metrics in (None, mean_loss) and not isinstance(self.eval_dataset, dict):
            check_metric(self.args, ("perplexity",) if self.compute_metrics else ())
        self._loss_terms: dict[str, torch.Tensor] = {}
        self._loss_terms_step = 0
        bare_model = self.accelerator.unwrap_model(self.model)
        self._can_skip_logits = "skip_logits" in inspect.signature(bare_model.forward).parameters
        self._label_smoothing = 0.0
        if self.args.label_smoothing_factor and self.compute_loss_func is None:
            self._smooth_in_the_model(unwrap_peft_model(bare_model))
        if self.args.device.type == "cpu":
            speed_up(bare_model, self.args.bf16)
        self._unchecked: list[tuple[int, torch.Tensor, torch.Tensor | None]] = []  # update, loss, starts
        self._last_losses: list[float] = []
        self.settings: dict[str, Any] = training_settings(self.args)  # goes into every checkpoint's manifest
        self._resumed_from: Path | None = None
        self._seconds_before, self._began = 0.0, time.perf_counter()
        self._told_to_end, self._ended, self._saved_at = 0, False, None  # the number of the signal that told it
        self.how_to_go_on = "`train` with `resume_from_checkpoint`"
        self._hosts: dist.ProcessGroup | None = None
        if self.args.should_save:  # before the work, which a full disk would cost at its end
            trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
            check_writable(self.args.output_dir, sum(weight.numel() * weight.element_size() for weight in trained))

    def _smooth_in_the_model(self, model: torch.nn.Module):
        """
        Leave label smoothing to the model. transformers would take the labels away from it, and with them the
        auxiliary loss.
        """
        # The model's keyword is not called `label_...`: Trainer takes every argument of such a name for labels.
        if "smoothing" not in inspect.signature(model.forward).parameters:
            return
        if not getattr(model, "takes_smoothing", True):
            raise UsageError(
                "label_smoothing_factor spreads a label over the classes, and scores, their bins and multiple labels "
                f"are not classes ({type(model).__name__} with problem_type {model.config.problem_type}, num_labels "
                f"{model.config.num_labels}, regression_bins {model.config.regression_bins}): leave it out"
            )
        self.label_smoother, self._label_smoothing = None, self.args.label_smoothing_factor

    @property
    def seconds(self) -> float:
        """How long training has taken, over all sittings."""
        return self._seconds_before + time.perf_counter() - self._began

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        is_given, args = self.optimizer is not None, self.args
        try:
            optimizer = super().create_optimizer(model)
        except (ImportError, TypeError, ValueError) as error:
            name, settings = args.optim.value, args.optim_args
            raise UsageError(f"optim {name} with optim_args {settings} cannot be made: {error}") from error
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
                f"lr_scheduler_type {name} with lr_scheduler_kwargs {settings} cannot be made: {error}"
            ) from error

    def _get_train_sampler(self, train_dataset=None) -> Sampler | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if isinstance(dataset, RandomSpans):
            return RandomSampler(dataset, replacement=True, num_samples=dataset.spans_per_epoch)
        if self.args.train_sampling_strategy == "group_by_length" and isinstance(dataset, Dataset):
            update_size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            return LengthGroupedSampler(row_lengths(dataset["input_ids"]), update_size, seed)
        return super()._get_train_sampler(train_dataset)

    def _get_eval_sampler(self, eval_dataset) -> Sampler | None:
        # `group_by_length` reorders evaluation rows too, in transformers: predictions would belong to other rows.
        return None if self.args.world_size > 1 else SequentialSampler(eval_dataset)

    def get_eval_dataloader(self, *args, **kwargs):
        # transformers lets `dataloader_drop_last` drop rows of evaluation too.
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
        starts = inputs.pop("start", None)  # of [`RandomSpans`]: where in the stream each row begins
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._unchecked.append((self.state.global_step + 1, loss.detach(), starts))
        return loss

    def prediction_step(self, model, inputs, *args, **kwargs):
        if "start" not in inputs:
            smoothing, self._label_smoothing = self._label_smoothing, 0.0  # it is a means of training
            try:
                return super().prediction_step(model, inputs, *args, **kwargs)
            finally:
                self._label_smoothing = smoothing
        # Spans are scored row by row: the mean loss of a batch that is filled up with rows of another process's, as
        # the last one is, would depend on the number of processes.
        labels = inputs["labels"].to(self.args.device)
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = model(input_ids=inputs["input_ids"].to(self.args.device)).logits
        losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), reduction="none"
        )
        row_losses = losses.view(len(labels), -1).mean(1)
        return None, row_losses, row_losses

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        self._resumed_from = Path(resume_from_checkpoint) if resume_from_checkpoint else None
        self._seconds_before, self._began = 0.0, time.perf_counter()
        self._told_to_end, self._ended, self._saved_at = 0, False, None
        if self._resumed_from is not None and self.is_world_process_zero():
            note(f"training goes on from {self._resumed_from}")
        if self.args.world_size > 1 and self._hosts is None:
            self._hosts = dist.new_group(backend="gloo")  # to talk without waiting for the devices

        with self._signals():
            output = super().train(resume_from_checkpoint, *args, **kwargs)
        self._check_losses()
        if self._ended:
            cause = "Ctrl-C" if self._told_to_end == signal.SIGINT else "SIGTERM"
            raise Terminated(
                f"{cause} ended training after update {self.state.global_step}; {self.how_to_go_on} goes on from "
                f"{self._checkpoint_folder()}",
                self._told_to_end,
            )
        return output._replace(training_loss=output.metrics["train_loss"])

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Let SIGTERM and the first Ctrl-C end training in good order."""

        def end(number, _):
            if number == self._told_to_end == signal.SIGINT:
                raise KeyboardInterrupt
            self._told_to_end = number
            if number == signal.SIGINT and self.is_world_process_zero():
                # Not by `print`, which this may have come in the middle of.
                os.write(2, b"\nCtrl-C: training ends after this update, with a checkpoint; again: at once\n")

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [signal.SIGTERM]
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, or someone else's
            numbers.append(signal.SIGINT)
        before = {number: signal.signal(number, end) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)

    def _run_epoch(self, *args, **kwargs):
        self._take_up_progress()
        if self.state.global_step >= self.state.max_steps:
            return  # resumed from the last checkpoint; transformers would train one update more
        # accelerate's `set_epoch` does not reach the sampler of a data loader that skips batches of several processes.
        sampler = kwargs["train_dataloader"].batch_sampler
        while sampler is not None:
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(kwargs["epoch"])
            sampler = getattr(sampler, "batch_sampler", None) or getattr(sampler, "sampler", None)
        super()._run_epoch(*args, **kwargs)

    def _finalize_training(self, *args, **kwargs):
        self._take_up_progress()  # of a run whose last epoch was behind it already
        return super()._finalize_training(*args, **kwargs)

    def _take_up_progress(self):
        if self._resumed_from is not None:
            self._restore_progress(self._resumed_from)
            self._resumed_from = None

    def _issue_warnings_after_load(self, load_result):
        # The output layer is the embedding, and saved as that; transformers would warn that it is missing.
        tied = getattr(self.model, "all_tied_weights_keys", {})
        missing = [key for key in load_result.missing_keys if key not in tied]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing))

    def _progress(self) -> dict[str, Any]:
        """What transformers' checkpoints leave out: the losses since the last log line, and what was before it."""
        return {
            "processes": self.args.world_size,
            "seconds": self.seconds,
            "loss": self._tr_loss.item(),
            "logged_loss": self._total_loss_scalar,
            "logged_at": self._globalstep_last_logged,
            "loss_terms": {name: total.item() for name, total in self._loss_terms.items()},
            "loss_terms_at": self._loss_terms_step,
            "last_losses": self._last_losses,
        }

    def _restore_progress(self, checkpoint: Path):
        """Take up what [`_progress`] left in a checkpoint."""
        self._loss_terms_step = self.state.global_step
        file = checkpoint / f"progress_{self.args.process_index}.json"
        if not file.is_file():
            logger.warning(f"{checkpoint} has no {file.name}: the next logged losses lack the updates before it")
            return
        progress = json.loads(file.read_text(encoding="utf-8"))
        if progress["processes"] != self.args.world_size:
            logger.warning(
                f"{checkpoint} is of {progress['processes']} processes and training goes on with "
                f"{self.args.world_size}: dropout and rounding will differ from a run without the break"
            )
        self._seconds_before = progress["seconds"]
        self._tr_loss += progress["loss"]
        self._total_loss_scalar = progress["logged_loss"]
        self._globalstep_last_logged = progress["logged_at"]
        terms = progress["loss_terms"].items()
        self._loss_terms = {name: torch.tensor(total, device=self.args.device) for name, total in terms}
        self._loss_terms_step = progress["loss_terms_at"]
        self._last_losses = progress["last_losses"]

    def _checkpoint_folder(self, trial=None) -> Path:
        return Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"

    def _save_checkpoint(self, model, trial):
        folder, args = self._checkpoint_folder(trial), self.args
        # transformers would delete old checkpoints before this one is known to be whole.
        limit, args.save_total_limit = args.save_total_limit, None
        # The last checkpoint of a run that was told to end is to go on from.
        weights_only, args.save_only_model = args.save_only_model, args.save_only_model and not self._ended
        is_whole = False
        try:
            with writing(folder, self._what_is_left(folder)):
                if args.should_save:
                    shutil.rmtree(folder, ignore_errors=True)
                self.accelerator.wait_for_everyone()
                super()._save_checkpoint(model, trial)
                write_json(folder / f"progress_{args.process_index}.json", self._progress())
                self.accelerator.wait_for_everyone()
                if args.should_save:
                    write_manifest(folder, self.settings, has_state=not args.save_only_model)
            is_whole = True
        finally:
            args.save_total_limit, args.save_only_model = limit, weights_only
            if args.should_save and not is_whole:
                shutil.rmtree(folder, ignore_errors=True)  # makes room for the next attempt
        if args.should_save:
            rotate(folder, limit, self.state.best_model_checkpoint)
        self._saved_at = self.state.global_step

    def _what_is_left(self, folder: Path) -> str:
        """What to say when a checkpoint cannot be written."""
        earlier = [checkpoint for checkpoint in checkpoints(folder.parent) if checkpoint != folder]
        left = f"{earlier[0]} is left as it was" if earlier else "there is no earlier checkpoint"
        return f"{left}; make room and run the command again"

    def _is_told_to_end(self) -> bool:
        """Whether SIGTERM or Ctrl-C came, to any process."""
        if self._hosts is not None:
            number = torch.tensor(int(self._told_to_end))
            dist.all_reduce(number, dist.ReduceOp.MAX, group=self._hosts)
            self._told_to_end = number.item()
        return bool(self._told_to_end)

    def _maybe_log_save_evaluate(self, *args, **kwargs):
        control = self.control
        if self._ended:  # and this is the call at the end of an epoch, which may have been cut short
            due = self.state.epoch.is_integer() and (control.should_log or control.should_evaluate)
            control.should_log = control.should_evaluate = control.should_save = due
        elif self._is_told_to_end():
            self._ended = control.should_training_stop = control.should_save = True
        elif self._saved_at == self.state.global_step:
            control.should_save = False
        if control.should_log or control.should_save or control.should_evaluate or len(self._unchecked) > 1000:
            self._check_losses()
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _save(self, *args, **kwargs):
        super()._save(*args, **kwargs)
        # A pickle of the settings, with the Hub's token among them; nothing reads it.
        folder = Path(kwargs.get("output_dir") or (args[0] if args else None) or self.args.output_dir)
        (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def _check_losses(self):
        """Stop if a loss since the last check was not finite. Only here is the device waited for."""
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

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "train_loss" in logs:  # transformers counts the updates of this sitting only
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
            if len(self._last_losses) == 10 and logs["loss"] > SPIKE * fmean(self._last_losses):
                logger.warning(
                    f"the training loss jumped to {logs['loss']:.3f} at update {self.state.global_step}, from "
                    f"{fmean(self._last_losses):.3f} on average before"
                )
            self._last_losses = [*self._last_losses[-9:], logs["loss"]]
        super().log(logs, start_time)
