"""The Trainer: transformers' own, with GPT-1's batching, its two loss terms logged apart, and a watch on the loss."""

import inspect
import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch
from huggingface_hub import HfApi
from torch.utils.data import RandomSampler, Sampler, SequentialSampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import HubStrategy, get_last_checkpoint

from ..data.collator import GPT1DataCollator
from ..data.corpus import RandomSpans
from ..errors import GPT1Error
from ..processing_gpt1 import GPT1Processor
from ..upload import CARD, Upload, check_repo_name, explained, upload
from .card import is_plain_card, write_plain_card
from .cpu import speed_up


logger = logging.getLogger(__name__)

# A logged loss warns when it is this many times the mean of the last ten.
SPIKE = 1.3


def resume_point(args: TrainingArguments) -> str | None:
    """Checkpoint to go on from: `resume_from_checkpoint` itself or, if it is `true`, the last one in `output_dir`."""
    wish = args.resume_from_checkpoint
    return get_last_checkpoint(args.output_dir) if str(wish).lower() == "true" else wish


def save_whole(trainer: Trainer, auto_class: type, folder: str, dtype: torch.dtype | None = None):
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
        dtype (`torch.dtype`, *optional*):
            Type of the saved weights; defaults to their own.
    """
    weights = trainer.accelerator.get_state_dict(trainer.model)
    if trainer.is_world_process_zero():
        model = auto_class.from_config(trainer.accelerator.unwrap_model(trainer.model).config)
        model.load_state_dict(weights)
        model.config.use_cache = True  # the Trainer switched it off
        model.to(dtype or model.dtype).save_pretrained(folder)


def push_run(args: TrainingArguments):
    """Push a finished run's model and card, if its settings ask for it (`push_to_hub`). The main process does it."""
    if args.push_to_hub and args.process_index == 0:
        repo = args.hub_model_id or Path(args.output_dir).resolve().name
        try:
            sent = upload(args.output_dir, repo, None, args.hub_private_repo, args.hub_revision, args.hub_token)
        except GPT1Error as error:
            raise GPT1Error(f"{args.output_dir} is finished but was not pushed: {error}") from error
        print(f"pushed to {sent.url}")


class GPT1Trainer(Trainer):
    """
    transformers' `Trainer` for GPT-1.

    What differs: a [`GPT1Processor`] as `processing_class` brings [`GPT1DataCollator`] along; the logs of a task head
    show `task_loss` and `lm_loss` apart; a language model trains without materialising its logits (the same loss and
    gradients); on a CPU, dropout and attention are those of `training/cpu.py`; [`RandomSpans`] are drawn at random
    with replacement, as many an epoch as hold the corpus once; rows are evaluated in their own order, however training
    rows are sampled; a loss that is NaN or infinite ends the run before anything is logged or saved, and one that
    jumps is warned of.
    """

    def __init__(self, model=None, args=None, data_collator=None, *positional, **kwargs):
        processor = kwargs.get("processing_class")
        if data_collator is None and isinstance(processor, GPT1Processor):
            data_collator = GPT1DataCollator(processor)
        super().__init__(model, args, data_collator, *positional, **kwargs)
        self._loss_terms: dict[str, torch.Tensor] = {}
        self._loss_terms_step = 0
        bare_model = self.accelerator.unwrap_model(self.model)
        self._can_skip_logits = "skip_logits" in inspect.signature(bare_model.forward).parameters
        if self.args.device.type == "cpu":
            speed_up(bare_model, self.args.bf16)
        self._unchecked: list[tuple[int, torch.Tensor, torch.Tensor | None]] = []  # update, loss, starts
        self._last_losses: list[float] = []

    def _get_train_sampler(self, train_dataset=None) -> Sampler | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if isinstance(dataset, RandomSpans):
            return RandomSampler(dataset, replacement=True, num_samples=dataset.spans_per_epoch)
        return super()._get_train_sampler(train_dataset)

    def _get_eval_sampler(self, eval_dataset) -> Sampler | None:
        # `group_by_length` reorders evaluation rows too, in transformers: predictions would belong to other rows.
        return None if self.args.world_size > 1 else SequentialSampler(eval_dataset)

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
        return super().prediction_step(
            model, {name: inputs[name] for name in inputs if name != "start"}, *args, **kwargs
        )

    def train(self, *args, **kwargs):
        output = super().train(*args, **kwargs)
        self._check_losses()
        return output

    def _maybe_log_save_evaluate(self, *args, **kwargs):
        control = self.control
        if control.should_log or control.should_save or control.should_evaluate or len(self._unchecked) > 1000:
            self._check_losses()
        super()._maybe_log_save_evaluate(*args, **kwargs)

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
                raise FloatingPointError(
                    f"the training loss is {loss.item()} at update {update}{where}: lower learning_rate or train in "
                    "fp32, and go on from the last checkpoint with resume_from_checkpoint"
                )

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
        if "loss" in logs:
            if len(self._last_losses) == 10 and logs["loss"] > SPIKE * fmean(self._last_losses):
                logger.warning(
                    f"the training loss jumped to {logs['loss']:.3f} at update {self.state.global_step}, from "
                    f"{fmean(self._last_losses):.3f} on average before"
                )
            self._last_losses = [*self._last_losses[-9:], logs["loss"]]
        super().log(logs, start_time)

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        repo = self.args.hub_model_id or Path(self.args.output_dir).resolve().name
        check_repo_name(repo)
        with explained(repo, "training did not start, for it could not be pushed"):
            super().init_hf_repo(token, private)

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | Sequence[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | Sequence[str] | None = None,
        dataset_tags: str | Sequence[str] | None = None,
        dataset: str | Sequence[str] | None = None,
        dataset_args: str | Sequence[str] | None = None,
    ):
        """
        Write a card into `output_dir`, unless there is one that someone else wrote, such as [`finetune`].

        Of the arguments, which are transformers', those that the Hub knows go into the card's metadata.
        """
        card = Path(self.args.output_dir) / CARD
        if not self.is_world_process_zero() or (card.is_file() and not is_plain_card(card)):
            return
        evaluations = [entry for entry in self.state.log_history if "eval_loss" in entry]
        known = {"language": language, "license": license, "base_model": finetuned_from, "datasets": dataset_tags}
        write_plain_card(
            card.parent,
            self.args,
            updates=self.state.global_step,
            n_train_examples=len(self.train_dataset) if hasattr(self.train_dataset, "__len__") else None,
            metrics=evaluations[-1] if evaluations else None,
            model_name=model_name,
            tags=[tags] if isinstance(tags, str) else tags or (),
            **{name: value for name, value in known.items() if value is not None},
        )

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs,
    ) -> Upload | None:
        """
        As transformers', but what is sent is what `gpt1 push` sends: no pickles, no predictions, no states of the
        optimizer; in one commit, after which the repository has the whole new model. It waits until that has arrived,
        also without `blocking`.
        """
        args = self.args
        self.callback_handler.on_push_begin(args, self.state, self.control)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**kwargs)
        return upload(
            args.output_dir,
            args.hub_model_id or Path(args.output_dir).resolve().name,
            commit_message,
            args.hub_private_repo if private is None else private,
            revision or args.hub_revision,
            token or args.hub_token,
        )

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push a checkpoint's model. Training goes on if that fails: the checkpoint is on disk."""
        args = self.args
        if not self.is_world_process_zero() or args.hub_strategy == HubStrategy.END:
            return
        self.callback_handler.on_push_begin(args, self.state, self.control)
        message = f"Training in progress, update {self.state.global_step}"
        try:
            sent = upload(checkpoint_folder, self.hub_model_id, message, None, args.hub_revision, args.hub_token)
            if args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
                is_last = args.hub_strategy == HubStrategy.CHECKPOINT
                with explained(sent.repo, "the model was pushed, the states of its training were not"):
                    HfApi(token=args.hub_token).upload_folder(
                        repo_id=sent.repo,
                        folder_path=checkpoint_folder,
                        path_in_repo="last-checkpoint" if is_last else Path(checkpoint_folder).name,
                        commit_message=f"{message}, checkpoint",
                        revision=args.hub_revision,
                    )
        except GPT1Error as error:
            logger.warning(f"{checkpoint_folder} was not pushed, and training goes on: {error}")
