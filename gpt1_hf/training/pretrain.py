"""Pre-training (§3.1, §4.1): text -> token stream -> random spans -> Trainer -> a saved model and its perplexity."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerState,
    set_seed,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ProgressCallback

from ..checkpoints.loading import new_model, open_causal_lm, open_tokenizer
from ..configuration_gpt1 import GPT1Config
from ..configuration_gpt1_lstm import GPT1LSTMConfig
from ..console import interruptible, note
from ..data.corpus import fingerprint, has_split, read_pieces
from ..data.spans import ConsecutiveSpans, RandomSpans
from ..data.token_stream import TokenStream, build_token_stream
from ..errors import UsageError
from ..evaluation.perplexity import score_documents
from ..evaluation.results import RESULTS, Result, format_results, write_results
from ..files import write_json, writing
from ..hardware import device_name, training_dtype
from ..hub.card import write_pretraining_card
from .arguments import PretrainArguments, check_metric
from .loss_plot import plot_losses
from .publishing import push_run
from .resume import (
    RUN,
    alone,
    check_settings,
    forget_trained,
    found_in_training,
    how_to_go_on,
    note_trained,
    read_manifest,
    resume_point,
    stream_digest,
    tokenizer_digest,
    training_settings,
    what_is_saved,
)
from .snapshots import Trajectory, read_trajectory
from .throughput import Throughput, matmul_peak, operations_per_token
from .trainer import GPT1Trainer, save_whole


logger = logging.getLogger(__name__)

# Share of the corpus's tokens held out when it comes without validation text.
HELD_OUT = 0.05
# What an epoch is made of: as many spans from anywhere as hold the corpus once, or each of its neighbouring ones once.
SPANS = {"random": RandomSpans, "neighbouring": ConsecutiveSpans}
ARCHITECTURES = ("transformer", "lstm")


def pretrain(
    args: PretrainArguments, evaluate: Callable[[PreTrainedModel, int], dict[str, Any]] | None = None
) -> list[Result]:
    """
    Pre-train a GPT-1, or the LSTM that it is compared with, on text.

    Called again with the same settings it goes on from the last whole checkpoint in `output_dir`, to the same losses
    and weights as without the break; where the run is finished, it returns its results.

    Args:
        args ([`PretrainArguments`]):
            Settings. `resume_from_checkpoint` names another checkpoint to go on from, or is `false`, to begin anew.
        evaluate (`Callable`, *optional*):
            Called at every point of the trajectory (`checkpoints_per_decade`), in every process, with the model in
            evaluation mode and the number of updates; the numbers that it returns by name join the row of that
            update in `<output_dir>/trajectory.jsonl`. It may draw random numbers, but not change the model.

    Returns:
        list of [`Result`]: perplexity and bits per character on held-out text, also in `<output_dir>/results.json`.

    Raises:
        GPT1Error: if corpus or tokenizer are missing, the corpus is empty, the output folder cannot be written, or it
            holds a run with other settings.
        Terminated: if SIGTERM or Ctrl-C ended the run; it is saved.
    """
    if not args.corpus or not args.tokenizer:
        raise UsageError("pre-training needs --corpus (text) and --tokenizer (see `gpt1 tokenizer train`)")
    if args.spans not in SPANS:
        raise UsageError(f"unknown kind of spans {args.spans!r}; choose one of {', '.join(SPANS)}")
    if args.architecture not in ARCHITECTURES:
        raise UsageError(f"unknown architecture {args.architecture!r}; choose one of {', '.join(ARCHITECTURES)}")
    check_metric(args, ("perplexity",))
    if evaluate is not None and not args.checkpoints_per_decade:
        raise UsageError("evaluate() is called at the points of the trajectory: set checkpoints_per_decade")
    return run(args, evaluate)


@alone
def run(args: PretrainArguments, evaluate: Callable[[PreTrainedModel, int], dict[str, Any]] | None) -> list[Result]:
    """Train, or go on with it, and score; see [`pretrain`]."""
    set_seed(args.seed)
    tokenizer = open_tokenizer(args.tokenizer)
    config = new_config(args, tokenizer)
    settings = training_settings(args) | {"tokenizer": tokenizer_digest(tokenizer)}
    checkpoint = resume_point(args, settings)  # before the corpus is read, which may take long
    train_stream, validation_stream = token_streams(args, tokenizer)
    settings |= {"corpus": stream_digest(train_stream), "validation corpus": stream_digest(validation_stream)}
    if checkpoint is not None and (manifest := read_manifest(checkpoint)) is not None:
        check_settings(settings, manifest["settings"], checkpoint)
    if (results := finished_results(args, settings)) is not None:
        push_run(args)
        return results
    found = found_in_training(args, settings)
    if found is None:
        forget_trained(args)
        found = train(args, tokenizer, config, settings, train_stream, validation_stream, checkpoint, evaluate)
    with interruptible("the scoring", what_is_saved(args)):
        results = score_trained(args, tokenizer, config, settings, validation_stream, found)
    push_run(args)
    return results


def train(
    args: PretrainArguments,
    tokenizer: PreTrainedTokenizerBase,
    config: PreTrainedConfig,
    settings: dict[str, Any],
    train_stream: TokenStream,
    validation_stream: TokenStream,
    checkpoint: str | None,
    evaluate: Callable[[PreTrainedModel, int], dict[str, Any]] | None,
) -> dict[str, Any]:
    """Train, and save model and tokenizer; returns what there is to say of it, for `results.json`."""
    if args.process_index == 0:  # what a former run found is not of the model that comes
        for name in (RUN, RESULTS):
            (Path(args.output_dir) / name).unlink(missing_ok=True)
    span, is_evaluated = config.max_position_embeddings, args.eval_strategy != "no" or args.eval_on_start
    trainer = GPT1Trainer(
        model=new_model(AutoModelForCausalLM, config),
        args=args,
        train_dataset=SPANS[args.spans](train_stream, span),
        eval_dataset=ConsecutiveSpans(validation_stream, span) if is_evaluated else None,
    )
    trainer.settings, trainer.how_to_go_on = settings, how_to_go_on(args)
    throughput = watch_throughput(trainer, span)
    if args.checkpoints_per_decade:
        kept = (args.checkpoints_per_decade, throughput.tokens_per_update, getattr(torch, args.save_dtype))
        trainer.add_callback(Trajectory(trainer, tokenizer, validation_stream, *kept, evaluate))
    trained = trainer.train(checkpoint)

    model = trainer.accelerator.unwrap_model(trainer.model)
    found = {
        "train_documents": len(train_stream.document_ends),
        "train_characters": sum(train_stream.document_chars),
        "train_tokens": len(train_stream),
        "tokens_seen": trainer.state.global_step * throughput.tokens_per_update,
        "updates": trainer.state.global_step,
        "train_loss": round(trained.training_loss, 4),
        "train_seconds": round(trainer.seconds),
        "tokens_per_second": round(throughput.tokens_per_second),
        "share_of_peak": round(throughput.share_of_peak, 3),
        "processes": args.world_size,
        "n_parameters": model.num_parameters(),
        "n_non_embedding_parameters": model.num_parameters(exclude_embeddings=True),
        "device": device_name(model.device),
        "window": span,
    }
    # The weights first: nothing that comes later may cost them.
    save_whole(trainer, AutoModelForCausalLM, args.output_dir, getattr(torch, args.save_dtype))
    if trainer.is_world_process_zero():
        with writing(args.output_dir):
            tokenizer.save_pretrained(args.output_dir)
            trainer.save_state()  # the log of the losses, for the curve and `gpt1 report`
            note_trained(args, settings, found)
    trainer.accelerator.wait_for_everyone()
    return found


def score_trained(
    args: PretrainArguments,
    tokenizer: PreTrainedTokenizerBase,
    config: PreTrainedConfig,
    settings: dict[str, Any],
    validation_stream: TokenStream,
    found: dict[str, Any],
) -> list[Result]:
    """Score the saved model as `gpt1 evaluate` does, whatever the settings of its training; write what comes of it."""
    model = open_causal_lm(args.output_dir).to(args.device)
    score = score_documents(
        model, validation_stream.documents(), found["window"], batch_size=args.per_device_eval_batch_size
    )
    common = {
        "task": "language_modeling",
        "split": "validation",
        "n_examples": score.n_documents,
        "model": args.output_dir,
        "seed": args.seed,
        "details": found,
    }
    results = [
        # The paper's 18.4 is on BooksCorpus, with the original vocabulary (§4.1).
        Result(metric="perplexity", value=round(score.perplexity, 3), paper=18.4, **common),
        Result(metric="bits_per_character", value=round(score.bits_per_character, 4), paper=None, **common),
    ]
    if args.process_index == 0:
        folder = Path(args.output_dir)
        with writing(folder, what_is_saved(args)):
            write_results(folder, results)
            write_pretraining_card(folder, args, config, results)
            log = TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME)).log_history
            plot_losses(log, read_trajectory(folder), score.perplexity, folder / "loss.png")
            write_json(folder / RUN, {"settings": settings})
        forget_trained(args)
        print(format_results(results))
        note(f"written to {folder}")
    return results


def finished_results(args: PretrainArguments, settings: dict[str, Any]) -> list[Result] | None:
    """
    Results of the finished run in `output_dir`, if there is one; `None` if there is something to train.

    Raises:
        GPT1Error: if it has other settings.
    """
    run_file, results_file = Path(args.output_dir) / RUN, Path(args.output_dir) / RESULTS
    if not run_file.is_file() or str(args.resume_from_checkpoint).lower() != "true":
        return None
    check_settings(settings, json.loads(run_file.read_text(encoding="utf-8"))["settings"], args.output_dir)
    if not results_file.is_file():
        return None
    results = json.loads(results_file.read_text(encoding="utf-8"))
    results = [Result(**result) for result in results]
    if args.process_index == 0:
        note(f"the run in {args.output_dir} is finished: nothing is trained")
        print(format_results(results))
    return results


def watch_throughput(trainer: GPT1Trainer, span: int) -> Throughput:
    """Have the rate of training measured, and shown in the progress bar if there is one."""
    args, model = trainer.args, trainer.accelerator.unwrap_model(trainer.model)
    dtype = training_dtype(args.bf16, args.fp16, args.device)
    tokens_per_update = args.train_batch_size * args.gradient_accumulation_steps * args.world_size * span
    peak = matmul_peak(dtype, args.device) * args.world_size
    throughput = Throughput(tokens_per_update, operations_per_token(model, span), peak)
    bars = [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, ProgressCallback)]
    throughput.progress = bars[0] if bars else None
    trainer.add_callback(throughput)
    return throughput


def new_config(args: PretrainArguments, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """Configuration of the architecture and sizes that are asked for."""
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": args.hidden_size,
        "max_position_embeddings": args.max_position_embeddings,
        "embd_pdrop": args.dropout,
        "resid_pdrop": args.dropout,
        "initializer_range": args.initializer_range,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if args.num_hidden_layers is not None:
        sizes["num_hidden_layers"] = args.num_hidden_layers
    if args.architecture == "lstm":
        return GPT1LSTMConfig(lstm_size=args.lstm_size, **sizes)
    return GPT1Config(
        num_attention_heads=args.num_attention_heads,
        position_embedding_type=args.position_embedding_type,
        attn_pdrop=args.dropout,
        **sizes,
    )


def token_streams(args: PretrainArguments, tokenizer) -> tuple[TokenStream, TokenStream]:
    """Training and validation streams of a run, built or reused; one process builds, the others wait."""
    folder = Path(args.tokens_dir or Path(args.output_dir) / "tokens")

    def stream(corpus: str, split: str, name: str) -> TokenStream:
        source = (corpus, split, args.data_dir, args.corpus_revision, args.corpus_rows)
        return build_token_stream(read_pieces(*source), tokenizer, folder / name, fingerprint(*source))

    with args.main_process_first(desc="tokenizing"):
        train = stream(args.corpus, "train", "train")
        if args.validation_corpus:
            split = "validation" if has_split(args.validation_corpus, "validation", args.data_dir) else "train"
            validation = stream(args.validation_corpus, split, "validation")
        elif has_split(args.corpus, "validation", args.data_dir):
            validation = stream(args.corpus, "validation", "validation")
        else:
            cut = int(len(train) * (1 - HELD_OUT))
            train, validation = train.part(0, cut), train.part(cut, len(train))
    if args.max_validation_tokens is not None:
        validation = validation.part(0, args.max_validation_tokens)
    return train, validation


__all__ = ["pretrain"]
