"""Pushes from a run to the Hub: the same files as `gpt1 push`, not everything in the folder as in transformers."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import HfApi
from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments
from transformers.trainer_utils import HubStrategy

from ..checkpoints.lora import kept_card, save_adapter
from ..console import note
from ..errors import GPT1Error
from ..hub.card import base_name, is_plain_card, write_plain_card
from ..hub.upload import CARD, Upload, check_base, check_repo_name, explained, upload
from ..processing_gpt1 import forget_location


if TYPE_CHECKING:
    from peft import PeftModel

logger = logging.getLogger(__name__)


def push_run(args: TrainingArguments):
    """Push a finished run's model and card, if `push_to_hub` is set. Only the main process pushes."""
    if args.push_to_hub and args.process_index == 0:
        repo = args.hub_model_id or Path(args.output_dir).resolve().name
        try:
            sent = upload(args.output_dir, repo, None, args.hub_private_repo, args.hub_revision, args.hub_token)
        except GPT1Error as error:
            raise GPT1Error(f"{args.output_dir} is finished but was not pushed: {error}") from error
        note(f"pushed to {sent.url}")


class PublishingTrainer(Trainer):
    """A `Trainer` that pushes only what users of the model need, and does not overwrite cards written by others."""

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        repo = self.args.hub_model_id or Path(self.args.output_dir).resolve().name
        check_repo_name(repo)
        if (adapted := self._adapted()) is not None:
            check_base(f"the adapter in {self.args.output_dir}", adapted.active_peft_config.base_model_name_or_path)
        with explained(repo, "training did not start, as its model could not be pushed"):
            super().init_hf_repo(token, private)

    def _adapted(self) -> "PeftModel | None":
        """The model with its adapter, or `None` if the whole model is trained."""
        model = self.accelerator.unwrap_model(self.model)
        return model if hasattr(model, "active_peft_config") else None

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if isinstance(self.processing_class, PreTrainedTokenizerBase):
            forget_location(self.processing_class)
        adapted, folder = self._adapted(), output_dir or self.args.output_dir
        if adapted is None:
            return super()._save(output_dir, state_dict)
        with kept_card(folder):
            super()._save(output_dir, state_dict)
        if self.args.should_save:
            save_adapter(adapted, folder, state_dict)

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
        Write a card into `output_dir`, unless it has one that the Trainer did not write, such as that of [`finetune`].

        The arguments are transformers'. Those that the Hub knows go into the card's metadata.
        """
        card = Path(self.args.output_dir) / CARD
        if not self.is_world_process_zero() or (card.is_file() and not is_plain_card(card)):
            return
        if finetuned_from is None:  # as in transformers: the Hub id that the model was loaded from
            base, on_hub = base_name(self.model.config._name_or_path or ".")
            finetuned_from = base if on_hub else None
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
        Like transformers' method, but sends only what `gpt1 push` sends: no pickles, predictions or optimizer states.
        The whole model is one commit. Returns when the upload is complete, even with `blocking=False`.
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
        """Push a checkpoint's model. If that fails, training continues: the checkpoint is on disk."""
        args = self.args
        if not self.is_world_process_zero() or args.hub_strategy == HubStrategy.END:
            return
        self.callback_handler.on_push_begin(args, self.state, self.control)
        message = f"Training in progress, update {self.state.global_step}"
        try:
            sent = upload(checkpoint_folder, self.hub_model_id, message, None, args.hub_revision, args.hub_token)
            if args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
                is_last = args.hub_strategy == HubStrategy.CHECKPOINT
                with explained(sent.repo, "the model was pushed, but its training state was not"):
                    HfApi(token=args.hub_token).upload_folder(
                        repo_id=sent.repo,
                        folder_path=checkpoint_folder,
                        path_in_repo="last-checkpoint" if is_last else Path(checkpoint_folder).name,
                        commit_message=f"{message}, checkpoint",
                        revision=args.hub_revision,
                    )
        except GPT1Error as error:
            logger.warning(f"{checkpoint_folder} was not pushed, and training continues: {error}")
