"""Snapshots of pre-training: weights and held-out perplexity after log-spaced numbers of updates."""

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from ..data.token_stream import TokenStream
from ..evaluation.perplexity import score_documents, text_details
from ..files import replacing, write_text, writing
from .exact_resume import save_full_model
from .trainer import GPT1Trainer


FOLDER, ROWS = "trajectory", "trajectory.jsonl"


def log_spaced(per_decade: int, last: int) -> list[int]:
    """Numbers of updates: 0, then `per_decade` in each decade at equal ratios, and the last."""
    exponents = range(per_decade * len(str(last)))
    spaced = {round(10 ** (exponent / per_decade)) for exponent in exponents}
    return sorted({0, last} | {update for update in spaced if update < last})


def read_trajectory(output_dir: str | Path) -> list[dict[str, Any]]:
    """Rows of a run's `trajectory.jsonl`; an empty list if there is no such file."""
    file = Path(output_dir) / ROWS
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


@contextmanager
def unchanged_randomness() -> Iterator[None]:
    """Restore the states of all random generators afterwards, so that training does not change."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [torch.accelerator.current_device_index()] if torch.accelerator.is_available() else []
    device_type = torch.accelerator.current_accelerator().type if devices else "cuda"
    with torch.random.fork_rng(devices, device_type=device_type):
        yield
    random.setstate(python)
    np.random.set_state(numpy)


class Trajectory(TrainerCallback):
    """
    Saves weights and tokenizer after log-spaced numbers of updates, and measures the model each time.

    The folders, `<output_dir>/trajectory/update-<number>`, load with `from_pretrained`. Training cannot resume from
    them, as they lack the optimizer, and `save_total_limit` does not delete them. The measurements are the rows
    of `<output_dir>/trajectory.jsonl`: `update`, `tokens`, `perplexity`, `bits_per_character`, the size of the scored
    text (see [`text_details`]), and the numbers that `evaluate` returns. This callback does not change training.

    Args:
        trainer ([`GPT1Trainer`]):
            Trainer of a pre-training run.
        tokenizer (`PreTrainedTokenizerBase`):
            Saved beside the weights.
        validation_stream ([`TokenStream`]):
            Held-out text to score, or a part of it.
        held_out ([`TokenStream`]):
            The whole held-out text, whose size is recorded.
        tokens_per_update (`int`):
            Tokens per update, over all processes.
        evaluate (`Callable`, *optional*):
            See [`pretrain`].
    """

    def __init__(
        self,
        trainer: GPT1Trainer,
        tokenizer: PreTrainedTokenizerBase,
        validation_stream: TokenStream,
        held_out: TokenStream,
        tokens_per_update: int,
        evaluate: Callable[[PreTrainedModel, int], dict[str, Any]] | None = None,
    ):
        self.trainer = trainer
        self.tokenizer = tokenizer
        self.validation_stream = validation_stream
        self.held_out = held_out
        self.tokens_per_update = tokens_per_update
        self.evaluate = evaluate
        self.updates: set[int] = set()

    def on_train_begin(self, args, state, control, **kwargs):
        self.updates = set(log_spaced(args.checkpoints_per_decade, state.max_steps))
        if state.global_step == 0:
            self._keep(args, 0)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step in self.updates:
            self._keep(args, state.global_step)

    def _keep(self, args, update: int):
        folder = Path(args.output_dir) / FOLDER / f"update-{update:07d}"
        with (
            unchanged_randomness(),
            writing(folder),
            replacing(folder) if args.should_save else nullcontext(folder) as new,
        ):
            save_full_model(self.trainer, AutoModelForCausalLM, str(new), getattr(torch, args.save_dtype))
            if args.should_save:
                self.tokenizer.save_pretrained(new)
        with unchanged_randomness(), writing(folder):
            row = {"update": update, "tokens": update * self.tokens_per_update, **self._measure(args, update)}
            if args.process_index == 0:
                # A resumed run repeats updates, and replaces the rows of this update and later ones.
                rows = [earlier for earlier in read_trajectory(args.output_dir) if earlier["update"] < update]
                lines = "".join(json.dumps(line) + "\n" for line in [*rows, row])
                write_text(Path(args.output_dir) / ROWS, lines)

    def _measure(self, args, update: int) -> dict[str, Any]:
        """
        Held-out perplexity, in fp32 as for the finished model, and the numbers of `evaluate`. (With a `save_dtype` of
        bfloat16, the weights in the folder are rounded, and those measured here are not.)
        """
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        was_training = model.training
        score = score_documents(
            model,
            self.validation_stream.documents(),
            model.config.max_position_embeddings,
            batch_size=args.per_device_eval_batch_size,
            show_progress=False,
        )
        extra = self.evaluate(model, update) if self.evaluate is not None else {}
        model.train(was_training)
        measured = {"perplexity": score.perplexity, "bits_per_character": score.bits_per_character}
        return {**measured, **text_details(score, len(self.held_out), len(self.held_out.document_ends)), **extra}
