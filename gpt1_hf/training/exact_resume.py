"""Exact resume: an interrupted run reaches the same losses and weights as an uninterrupted one."""

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
from typing import Any

import torch
import torch.distributed as dist
from transformers import Trainer
from transformers.trainer import TRAINING_ARGS_NAME

from ..checkpoints.loading import new_model
from ..console import note
from ..errors import Terminated
from ..files import check_writable, write_json, writing
from .manifest import checkpoints, rotate, write_manifest
from .publishing import PublishingTrainer
from .run_folder import RunFolder, training_identity


logger = logging.getLogger(__name__)

# Private methods and attributes of transformers' Trainer that `GPT1Trainer` and its bases override, call, read or set.
# If a release renames one, ours would silently stop working; `test_private_hooks.py` reports it.
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


def save_full_model(trainer: Trainer, auto_class: type, folder: str, dtype: torch.dtype = torch.float32):
    """
    Save the trained model with all its weights, even if training shards them. Every process must call this; only the
    main one writes.

    Args:
        trainer (`Trainer`):
            Trainer of the model.
        auto_class (`type`):
            Auto class of the model, such as `AutoModelForCausalLM`.
        folder (`str`):
            Folder to write.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`):
            Type of the saved weights. The configuration always says fp32, so that a model loaded by default computes
            and trains in fp32.
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


class ResumableTrainer(PublishingTrainer):
    """
    A `Trainer` that resumes exactly: an interruption changes neither losses nor weights, even between two log lines
    and with several processes.

    A checkpoint counts once its manifest is written, and no older one is deleted before that. SIGTERM and Ctrl-C end
    training after the current update, with a checkpoint and [`Terminated`]; a second Ctrl-C ends it at once.
    (transformers' `enable_jit_checkpoint` saves three seconds later, possibly between the backward pass and the
    optimizer's step, does not let processes agree on the update, and returns as if training were done.)
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.identity = training_identity(self.args)  # for the manifests
        self.how_to_resume = "`train` with `resume_from_checkpoint`"
        self._resumed_from: Path | None = None
        self._seconds_before, self._began = 0.0, time.perf_counter()
        self._signal, self._is_ending, self._saved_at = 0, False, None
        self._host_group: dist.ProcessGroup | None = None
        if self.args.should_save:  # now: a full disk at the end would lose the whole training
            trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
            check_writable(self.args.output_dir, sum(weight.numel() * weight.element_size() for weight in trained))

    @property
    def seconds(self) -> float:
        """How long training has taken, including the time before it was resumed."""
        return self._seconds_before + time.perf_counter() - self._began

    def check_losses(self):
        """Raise if training has failed since the last call. Called before anything is logged, saved or evaluated."""

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        self._resumed_from = Path(resume_from_checkpoint) if resume_from_checkpoint else None
        self._seconds_before, self._began = 0.0, time.perf_counter()
        self._signal, self._is_ending, self._saved_at = 0, False, None
        if self._resumed_from is not None and self.is_world_process_zero():
            note(f"training resumes from {self._resumed_from}")
        if self.args.world_size > 1 and self._host_group is None:
            self._host_group = dist.new_group(backend="gloo")  # lets processes communicate without waiting for devices

        with self._signals():
            output = super().train(resume_from_checkpoint, *args, **kwargs)
        self.check_losses()
        if self._is_ending:
            cause = "Ctrl-C" if self._signal == signal.SIGINT else "SIGTERM"
            raise Terminated(
                f"{cause} ended training after update {self.state.global_step}; {self.how_to_resume} resumes from "
                f"{self._checkpoint_folder()}",
                self._signal,
            )
        return output._replace(training_loss=output.metrics["train_loss"])

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Let SIGTERM and the first Ctrl-C end training after the current update."""

        def end(number, _):
            if number == self._signal == signal.SIGINT:
                raise KeyboardInterrupt
            self._signal = number
            if number == signal.SIGINT and self.is_world_process_zero():
                # Not with `print`, which the signal may have interrupted.
                os.write(2, b"\ntraining ends after this update, with a checkpoint; press Ctrl-C again to end now\n")

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [signal.SIGTERM]
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else ignored, or handled by other code
            numbers.append(signal.SIGINT)
        before = {number: signal.signal(number, end) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)

    def _got_signal(self) -> bool:
        """Whether SIGTERM or Ctrl-C reached any process."""
        if self._host_group is not None:
            number = torch.tensor(int(self._signal))
            dist.all_reduce(number, dist.ReduceOp.MAX, group=self._host_group)
            self._signal = number.item()
        return bool(self._signal)

    def _run_epoch(self, *args, **kwargs):
        self._resume_progress()
        if self.state.global_step >= self.state.max_steps:
            return  # resumed from the last checkpoint; transformers would train one more update
        # accelerate's `set_epoch` misses the sampler of a data loader that skips batches of several processes.
        sampler = kwargs["train_dataloader"].batch_sampler
        while sampler is not None:
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(kwargs["epoch"])
            sampler = getattr(sampler, "batch_sampler", None) or getattr(sampler, "sampler", None)
        super()._run_epoch(*args, **kwargs)

    def _finalize_training(self, *args, **kwargs):
        self._resume_progress()  # if the last epoch was already done
        return super()._finalize_training(*args, **kwargs)

    def _issue_warnings_after_load(self, load_result):
        # The output layer shares the embedding's weights, which are saved once; transformers would warn that it is
        # missing.
        tied = getattr(self.model, "all_tied_weights_keys", {})
        missing = [key for key in load_result.missing_keys if key not in tied]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing))

    def progress(self) -> dict[str, Any]:
        """Progress that transformers does not save: the losses since the last log line, and the time spent so far."""
        return {
            "processes": self.args.world_size,
            "seconds": self.seconds,
            "loss": self._tr_loss.item(),
            "logged_loss": self._total_loss_scalar,
            "logged_at": self._globalstep_last_logged,
        }

    def restore_progress(self, progress: dict[str, Any]):
        """Restore the result of [`progress`]; an empty one changes nothing."""
        if progress:
            self._seconds_before = progress["seconds"]
            self._tr_loss += progress["loss"]
            self._total_loss_scalar = progress["logged_loss"]
            self._globalstep_last_logged = progress["logged_at"]

    def _resume_progress(self):
        if self._resumed_from is None:
            return
        checkpoint, self._resumed_from, progress = self._resumed_from, None, {}
        file = checkpoint / f"progress_{self.args.process_index}.json"
        if file.is_file():
            progress = json.loads(file.read_text(encoding="utf-8"))
            if progress["processes"] != self.args.world_size:
                logger.warning(
                    f"{checkpoint} was saved by {progress['processes']} processes and training resumes with "
                    f"{self.args.world_size}: dropout and rounding will differ from an uninterrupted run"
                )
        else:
            logger.warning(f"{checkpoint} has no {file.name}: the next logged losses lack the updates before it")
        self.restore_progress(progress)

    def _checkpoint_folder(self, trial=None) -> Path:
        return Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"

    def _save_checkpoint(self, model, trial):
        folder, args = self._checkpoint_folder(trial), self.args
        # transformers would delete old checkpoints before this one is known to be complete.
        limit, args.save_total_limit = args.save_total_limit, None
        # Training must be able to resume from the last checkpoint of an interrupted run.
        weights_only, args.save_only_model = args.save_only_model, args.save_only_model and not self._is_ending
        is_complete = False
        earlier = [checkpoint for checkpoint in checkpoints(folder.parent) if checkpoint != folder]
        left = f"{earlier[0]} is unchanged" if earlier else "there is no earlier checkpoint"
        try:
            with writing(folder, f"{left}; make room and run the command again"):
                if args.should_save:
                    shutil.rmtree(folder, ignore_errors=True)
                self.accelerator.wait_for_everyone()
                super()._save_checkpoint(model, trial)
                write_json(folder / f"progress_{args.process_index}.json", self.progress())
                self.accelerator.wait_for_everyone()
                if args.should_save:
                    write_manifest(folder, self.identity.content, has_state=not args.save_only_model)
            is_complete = True
        finally:
            args.save_total_limit, args.save_only_model = limit, weights_only
            if args.should_save and not is_complete:
                shutil.rmtree(folder, ignore_errors=True)  # makes room for the next attempt
        if args.should_save:
            rotate(folder, limit, self.state.best_model_checkpoint)
        self._saved_at = self.state.global_step

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None):
        super()._save(output_dir, state_dict)
        # A pickle of the settings, including the Hub's token; nothing reads it.
        (Path(output_dir or self.args.output_dir) / TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def _maybe_log_save_evaluate(self, *args, **kwargs):
        control = self.control
        if self._is_ending:  # this is the call at the end of an epoch, which may be incomplete
            is_due = self.state.epoch.is_integer() and (control.should_log or control.should_evaluate)
            control.should_log = control.should_evaluate = control.should_save = is_due
        elif self._got_signal():
            self._is_ending = control.should_training_stop = control.should_save = True
        elif self._saved_at == self.state.global_step:
            control.should_save = False
        if control.should_log or control.should_save or control.should_evaluate:
            self.check_losses()
        super()._maybe_log_save_evaluate(*args, **kwargs)


def save_beside_weights(trainer: ResumableTrainer, run: RunFolder, processing, details: dict[str, Any]):
    """
    Save the tokenizer or processor, the log and the details of training beside the weights. The weights are saved
    earlier, so that a failure here cannot lose them.

    Args:
        trainer ([`ResumableTrainer`]):
            Trainer of the model.
        run ([`RunFolder`]):
            Where to save it.
        processing (processor or tokenizer):
            Anything with `save_pretrained`.
        details (`dict`):
            Details of training for `results.json`.
    """
    if trainer.is_world_process_zero():
        with writing(run.path):
            processing.save_pretrained(run.path)
            trainer.save_state()  # the log of the losses, for the curve and `gpt1 report`
            run.record_trained(details)
    trainer.accelerator.wait_for_everyone()
