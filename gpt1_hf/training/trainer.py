"""The Trainer: transformers' own, with GPT-1's batching, its two loss terms logged apart, and tokens/s in the bar."""

import inspect
import time

import torch
from torch.utils.data import RandomSampler, Sampler, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_utils import get_last_checkpoint

from ..data.collator import GPT1DataCollator
from ..data.corpus import RandomSpans
from ..processing_gpt1 import GPT1Processor


def resume_point(args: TrainingArguments) -> str | None:
    """Checkpoint to go on from: `resume_from_checkpoint` itself or, if it is `true`, the last one in `output_dir`."""
    wish = args.resume_from_checkpoint
    return get_last_checkpoint(args.output_dir) if str(wish).lower() == "true" else wish


class ThroughputProgress(ProgressCallback):
    """transformers' progress bar, with the rate of training in tokens per second."""

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        self.started, self.first_token = time.perf_counter(), state.num_input_tokens_seen

    def on_step_end(self, args, state, control, **kwargs):
        super().on_step_end(args, state, control, **kwargs)
        tokens = state.num_input_tokens_seen - self.first_token
        if self.training_bar is not None and tokens:
            rate = tokens / (time.perf_counter() - self.started)
            self.training_bar.set_postfix_str(f"{rate:,.0f} tokens/s", refresh=False)


class GPT1Trainer(Trainer):
    """
    transformers' `Trainer` for GPT-1.

    Five things differ: a [`GPT1Processor`] as `processing_class` brings [`GPT1DataCollator`] along; the logs of a task
    head show `task_loss` and `lm_loss` apart; a language model trains without materialising its logits (the same loss
    and gradients); [`RandomSpans`] are drawn at random with replacement, as many an epoch as hold the corpus once;
    rows are evaluated in their own order, however training rows are sampled.
    """

    def __init__(self, model=None, args=None, data_collator=None, *positional, **kwargs):
        processor = kwargs.get("processing_class")
        if data_collator is None and isinstance(processor, GPT1Processor):
            data_collator = GPT1DataCollator(processor)
        super().__init__(model, args, data_collator, *positional, **kwargs)
        self._loss_terms: dict[str, torch.Tensor] = {}
        self._loss_terms_step = 0
        forward = inspect.signature(self.accelerator.unwrap_model(self.model).forward)
        self._can_skip_logits = "skip_logits" in forward.parameters
        if any(type(callback) is ProgressCallback for callback in self.callback_handler.callbacks):
            self.remove_callback(ProgressCallback)
            self.add_callback(ThroughputProgress)

    def _get_train_sampler(self, train_dataset=None) -> Sampler | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if isinstance(dataset, RandomSpans):
            return RandomSampler(dataset, replacement=True, num_samples=dataset.spans_per_epoch)
        return super()._get_train_sampler(train_dataset)

    def _get_eval_sampler(self, eval_dataset) -> Sampler | None:
        # `group_by_length` reorders evaluation rows too, in transformers: predictions would belong to other rows.
        return None if self.args.world_size > 1 else SequentialSampler(eval_dataset)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if self._can_skip_logits and model.training and not return_outputs:
            inputs = {**inputs, "skip_logits": True}
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        if model.training:
            for name in ("task_loss", "lm_loss"):
                if (term := outputs.get(name)) is not None:
                    self._loss_terms[name] = self._loss_terms.get(name, 0.0) + term.detach()
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        # Each term is already divided by the examples of its whole update, over all batches and processes, so that the
        # sum over an update's batches is that update's value.
        steps = self.state.global_step - self._loss_terms_step
        if "loss" in logs and self._loss_terms and steps:
            for name, total in self._loss_terms.items():
                logs[name] = round(self.accelerator.gather(total.reshape(1)).sum().item() / steps, 4)
            self._loss_terms = {}
            self._loss_terms_step = self.state.global_step
        super().log(logs, start_time)


class StopOnNonFinite(TrainerCallback):
    """Ends a run whose loss is NaN or infinite, naming the step, before it spoils what is saved."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        loss = (logs or {}).get("loss")
        if loss is not None and not torch.isfinite(torch.tensor(float(loss))):
            raise FloatingPointError(
                f"the training loss is {loss} at update {state.global_step}: lower learning_rate, or train in fp32"
            )
