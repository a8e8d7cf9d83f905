"""Pre-training (§3.1, §4.1): text -> token stream -> random spans -> Trainer -> a saved model and its perplexity."""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
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

from ..checkpoints.loading import new_model, open_causal_lm, open_config, open_tokenizer
from ..configuration_gpt1 import GPT1Config
from ..configuration_gpt1_lstm import GPT1LSTMConfig
from ..console import interruptible, note
from ..data.corpus import fingerprint, has_split, read_pieces
from ..data.spans import ConsecutiveSpans, RandomSpans
from ..data.token_stream import TokenStream, build_token_stream
from ..errors import GPT1Error, UsageError
from ..evaluation.perplexity import TextScore, score_documents, text_details
from ..evaluation.precision import precision_of
from ..evaluation.results import Result, format_results
from ..evaluation.task_scores import HELD_OUT_SPLIT
from ..files import writing
from ..hardware import device_name, training_dtype
from ..hub.card import base_name, write_pretraining_card
from ..resources import model_path
from ..training_record import check_tokenizer, tokenizer_digest
from .arguments import PretrainArguments, check_metric
from .batch_sizes import rows_per_update
from .exact_resume import save_beside_weights, save_full_model
from .loss_plot import plot_losses
from .manifest import read_manifest, resume_point
from .publishing import push_run
from .run_folder import RunFolder, files_digest, model_settings, resumes, stream_digest
from .snapshots import Trajectory, read_trajectory
from .throughput import Throughput, matmul_peak, operations_per_token, product_shapes
from .trainer import GPT1Trainer


logger = logging.getLogger(__name__)

# Share of the tokens to hold out if the corpus has no validation text.
HELD_OUT_SHARE = 0.05
# An epoch has as many tokens as the corpus: spans from random positions, or each adjacent span once.
SPANS = {"random": RandomSpans, "neighbouring": ConsecutiveSpans}
ARCHITECTURES = ("transformer", "lstm")
# Settings that `--model` decides.
ARCHITECTURE_SETTINGS = (
    "architecture",
    "hidden_size",
    "num_hidden_layers",
    "lstm_size",
    "num_attention_heads",
    "max_position_embeddings",
    "position_embedding_type",
    "initializer_range",
    "position_initializer_range",
)


def pretrain(
    args: PretrainArguments, evaluate: Callable[[PreTrainedModel, int], dict[str, Any]] | None = None
) -> list[Result]:
    """
    Pre-train a GPT-1, or the paper's LSTM baseline, on text: from new weights, or from those of `model`.

    Called again with the same settings, it resumes from the last complete checkpoint in `output_dir` and reaches the
    same losses and weights as without the interruption. If the run is finished, it returns its results.

    Args:
        args ([`PretrainArguments`]):
            Settings. `resume_from_checkpoint` may name another checkpoint, or be `false` to start from the beginning.
        evaluate (`Callable`, *optional*):
            Called at every point of the trajectory (`checkpoints_per_decade`), in every process, with the model in
            evaluation mode and the number of updates. It returns numbers by name, which are added to the row of that
            update in `<output_dir>/trajectory.jsonl`. It may draw random numbers, but must not change the model.

    Returns:
        list of [`Result`]: perplexity and bits per character on held-out text, also in `<output_dir>/results.json`.

    Raises:
        GPT1Error: if corpus or tokenizer are missing, the corpus is empty, sizes or tokenizer do not fit `model`, or
            the output folder cannot be written or belongs to a run with different settings.
        Terminated: if SIGTERM or Ctrl-C ended the run; it is saved.
    """
    if not args.corpus or not (args.tokenizer or args.model):
        raise UsageError("pre-training needs --corpus (text) and --tokenizer (see `gpt1 tokenizer train`) or --model")
    if not 0 <= args.held_out_share < 1:
        raise UsageError(f"held_out_share must be at least 0 and below 1, not {args.held_out_share}")
    if args.held_out_share and args.validation_corpus:
        raise UsageError("give held_out_share or validation_corpus, not both: each says which text is scored")
    if args.spans not in SPANS:
        raise UsageError(f"unknown kind of spans {args.spans!r}; choose one of {', '.join(SPANS)}")
    if args.architecture not in ARCHITECTURES:
        raise UsageError(f"unknown architecture {args.architecture!r}; choose one of {', '.join(ARCHITECTURES)}")
    check_metric(args, ("perplexity",))
    if evaluate is not None and not args.checkpoints_per_decade:
        raise UsageError("evaluate() is called at the points of the trajectory: set checkpoints_per_decade")
    args = with_model(args)
    if args.position_initializer_range is not None and not has_positions(args) and args.process_index == 0:
        note("position_initializer_range has no effect: the model has no position embeddings")
    run = RunFolder.of_pretraining(args)
    with run.locked():
        prepared = prepare(run)
        if resumes(args) and (results := run.finished_results()) is not None:
            if args.process_index == 0:
                note(f"the run in {run.path} is already finished: nothing is trained")
                print(format_results(results))
        else:
            details = run.training_details()
            if details is None:
                trainer, details = train(prepared, evaluate)
                save(prepared, trainer, details)
            with interruptible("the scoring", run.how_to_score):
                results = score_saved(prepared, details)
        push_run(args)
        return results


@dataclass
class Prepared:
    """Inputs of training and scoring."""

    run: RunFolder
    tokenizer: PreTrainedTokenizerBase
    config: PreTrainedConfig
    train_stream: TokenStream
    held_out: TokenStream  # the whole held-out text
    validation_stream: TokenStream  # what is scored of it: all, unless `max_validation_tokens` asks for less
    checkpoint: str | None  # to resume from

    @property
    def args(self) -> PretrainArguments:
        return self.run.args


def prepare(run: RunFolder) -> Prepared:
    """Read the corpus, and find where training resumes."""
    args, facts = run.args, run.training.content
    set_seed(args.seed)
    tokenizer = open_tokenizer(args.tokenizer)
    config = new_config(args, tokenizer)
    if args.model:
        check_same_vocabulary(args, config, tokenizer)
        weights = sorted(Path(model_path(args.model)).glob("*.safetensors"))
        facts["weights"] = files_digest(weights) if weights else None  # `None` for the Hub
    # Earlier versions recorded another digest, as `tokenizer`. It is not compared: the streams' digests are enough.
    facts["tokenizer digest"] = tokenizer_digest(tokenizer)
    checkpoint = resume_point(args, run.training)  # before the corpus is read, which may take long
    train_stream, held_out = token_streams(args, tokenizer)
    validation_stream = first_tokens(held_out, args.max_validation_tokens)
    facts |= {"corpus": stream_digest(train_stream), "validation corpus": stream_digest(validation_stream)}
    if checkpoint is not None and (manifest := read_manifest(checkpoint)) is not None:
        run.training.check(manifest["settings"], checkpoint)
    return Prepared(run, tokenizer, config, train_stream, held_out, validation_stream, checkpoint)


def train(
    prepared: Prepared, evaluate: Callable[[PreTrainedModel, int], dict[str, Any]] | None
) -> tuple[GPT1Trainer, dict[str, Any]]:
    """Train; returns the trainer, and the details of training for `results.json`."""
    args, run, config, train_stream = prepared.args, prepared.run, prepared.config, prepared.train_stream
    span, is_evaluated = config.max_position_embeddings, args.eval_strategy != "no" or args.eval_on_start
    trainer = GPT1Trainer(
        model=initial_model(prepared),
        args=args,
        train_dataset=SPANS[args.spans](train_stream, span),
        eval_dataset=ConsecutiveSpans(prepared.validation_stream, span) if is_evaluated else None,
    )
    trainer.identity, trainer.how_to_resume = run.training, run.how_to_resume
    throughput = watch_throughput(trainer, span)
    if args.checkpoints_per_decade:
        scored = first_tokens(prepared.validation_stream, args.max_trajectory_tokens)
        streams = (scored, prepared.held_out)
        trainer.add_callback(Trajectory(trainer, prepared.tokenizer, *streams, throughput.tokens_per_update, evaluate))
    trained = trainer.train(prepared.checkpoint)

    model = trainer.accelerator.unwrap_model(trainer.model)
    details = {
        **model_settings(args, model),
        "learning_rate": args.learning_rate,
        "batch_size": rows_per_update(args),
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
    return trainer, details


def save(prepared: Prepared, trainer: GPT1Trainer, details: dict[str, Any]):
    """Save the weights, and then everything else."""
    args = prepared.args
    save_full_model(trainer, AutoModelForCausalLM, args.output_dir, getattr(torch, args.save_dtype))
    save_beside_weights(trainer, prepared.run, prepared.tokenizer, details)


def score_saved(prepared: Prepared, details: dict[str, Any]) -> list[Result]:
    """Score the saved model as `gpt1 evaluate` does, regardless of its training settings, and write the results."""
    run, args = prepared.run, prepared.args
    model = open_causal_lm(args.output_dir).to(args.device)
    score = score_held_out(prepared, model)
    if args.model:
        before = score_held_out(prepared, open_causal_lm(args.model).to(args.device))
        details |= {
            "continued_from": base_name(args.model)[0],
            "perplexity_before": round(before.perplexity, 3),
            "perplexity_after": round(score.perplexity, 3),
            "bits_per_character_before": round(before.bits_per_character, 4),
        }
    details |= text_details(score, len(prepared.held_out), len(prepared.held_out.document_ends))
    details["precision"] = precision_of(model)
    common = {
        "task": "language_modeling",
        "split": HELD_OUT_SPLIT if args.held_out_share else "validation",
        "n_examples": score.n_documents,
        "model": args.output_dir,
        "seed": args.seed,
        "details": details,
    }
    results = [
        # The paper's 18.4 is on BooksCorpus, with the original vocabulary (§4.1).
        Result(metric="perplexity", value=round(score.perplexity, 3), paper=18.4, **common),
        Result(metric="bits_per_character", value=round(score.bits_per_character, 4), paper=None, **common),
    ]
    if args.process_index == 0:
        with writing(run.path, run.how_to_score):
            write_pretraining_card(run.path, args, prepared.config, results)
            log = TrainerState.load_from_json(str(run.path / TRAINER_STATE_NAME)).log_history
            plot_losses(log, read_trajectory(run.path), score.perplexity, run.path / "loss.png", details)
        run.finish(results)
        run.close()
        print(format_results(results))
        if args.model:
            note(f"perplexity on the same text before this training: {details['perplexity_before']}")
        note(f"written to {run.path}")
    return results


def score_held_out(prepared: Prepared, model: PreTrainedModel) -> TextScore:
    """Score a model on the run's held-out text, or on the part of it that `max_validation_tokens` allows."""
    window, batch_size = prepared.config.max_position_embeddings, prepared.args.per_device_eval_batch_size
    return score_documents(model, prepared.validation_stream.documents(), window, batch_size=batch_size)


def watch_throughput(trainer: GPT1Trainer, span: int) -> Throughput:
    """Measure the speed of training, and show it in the progress bar, if any."""
    args, model = trainer.args, trainer.accelerator.unwrap_model(trainer.model)
    dtype = training_dtype(args.bf16, args.fp16, args.device)
    tokens_per_update = rows_per_update(args) * span
    shapes = product_shapes(model.config, args.train_batch_size * span, args.device)
    throughput = Throughput(
        tokens_per_update,
        operations_per_token(model, span),
        lambda repeats: matmul_peak(dtype, args.device, shapes, repeats),
    )
    bars = [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, ProgressCallback)]
    throughput.progress = bars[0] if bars else None
    trainer.add_callback(throughput)
    return throughput


def with_model(args: PretrainArguments) -> PretrainArguments:
    """
    Settings in which `model` has decided architecture, sizes and, by default, the tokenizer; the same without a model.

    Raises:
        UsageError: if a setting other than its default differs from the model.
    """
    if not args.model:
        return args
    config = base_config(args)
    found = {name: getattr(config, name) for name in ARCHITECTURE_SETTINGS if hasattr(config, name)}
    found["architecture"] = "lstm" if isinstance(config, GPT1LSTMConfig) else "transformer"
    wrong = [
        f"--{field.name} {getattr(args, field.name)} (the model's is {found.get(field.name)})"
        for field in fields(PretrainArguments)
        if field.name in ARCHITECTURE_SETTINGS
        and getattr(args, field.name) not in (field.default, found.get(field.name))
    ]
    if wrong:
        raise UsageError(f"--model {args.model} decides architecture and sizes: leave out {', '.join(wrong)}")
    if found.get("position_initializer_range") == found["initializer_range"]:
        found["position_initializer_range"] = None  # the default, so that runs from before this setting still match
    args = copy.copy(args)
    for name, value in {"tokenizer": args.tokenizer or args.model, **found}.items():
        setattr(args, name, value)
    return args


def has_positions(args: PretrainArguments) -> bool:
    """Whether the model has position embeddings."""
    return args.architecture == "transformer" and args.position_embedding_type != "none"


def base_config(args: PretrainArguments) -> PreTrainedConfig:
    """Configuration of `model`, with the run's dropout."""
    config = open_config(args.model, embd_pdrop=args.dropout, resid_pdrop=args.dropout, attn_pdrop=args.dropout)
    if getattr(config, "quantization_config", None) is not None:
        raise GPT1Error(f"model {args.model!r} is quantized and cannot be trained: give the model it was made from")
    return config


def check_same_vocabulary(args: PretrainArguments, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase):
    """Raise if a tokenizer has another vocabulary than `model`, whose embeddings would stand for other tokens."""
    try:
        own = open_tokenizer(args.model).get_vocab()
    except GPT1Error:
        own = {}
    # For OpenAIGPT's weights without a tokenizer, transformers makes one that knows `<unk>` only.
    has_own = len(own) > 1
    if not has_own and args.tokenizer == args.model:
        raise GPT1Error(f"model {args.model!r} has no tokenizer: give its own with --tokenizer")
    if tokenizer.get_vocab() != own if has_own else len(tokenizer) != config.vocab_size:
        raise GPT1Error(
            f"the tokenizer {args.tokenizer!r} ({len(tokenizer):,} entries) has another vocabulary than model "
            f"{args.model!r} ({len(own) if has_own else config.vocab_size:,} entries): leave out --tokenizer"
        )
    check_tokenizer(config, tokenizer, args.model)


def initial_model(prepared: Prepared) -> PreTrainedModel:
    """The model that training starts from. A run that resumes gets its weights from its checkpoint."""
    args = prepared.args
    if not args.model or prepared.checkpoint is not None:
        return new_model(AutoModelForCausalLM, prepared.config)
    return open_causal_lm(args.model, prepared.config)


def new_config(args: PretrainArguments, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """Configuration of the model to train: that of `model`, or one of the chosen architecture and sizes."""
    if args.model:
        return base_config(args)
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
        position_initializer_range=args.position_initializer_range,
        attn_pdrop=args.dropout,
        **sizes,
    )


def token_streams(args: PretrainArguments, tokenizer) -> tuple[TokenStream, TokenStream]:
    """
    Training text and whole held-out text of a run. The main process builds missing streams while the others wait.
    """
    folder = Path(args.tokens_dir or Path(args.output_dir) / "tokens")

    def stream(corpus: str, split: str, name: str, config: str | None = None) -> TokenStream:
        source = (corpus, split, args.data_dir, args.corpus_revision, args.corpus_rows, args.corpus_column, config)
        return build_token_stream(read_pieces(*source), tokenizer, folder / name, fingerprint(*source))

    with args.main_process_first(desc="tokenizing"):
        train = stream(args.corpus, args.corpus_split, "train", args.corpus_config)
        has_own = has_split(args.corpus, "validation", args.data_dir, args.corpus_config)
        if args.held_out_share:
            train, validation = hold_out(train, args.held_out_share)
        elif args.validation_corpus and args.validation_corpus != args.corpus:
            split = "validation" if has_split(args.validation_corpus, "validation", args.data_dir) else "train"
            validation = stream(args.validation_corpus, split, "validation")
        elif args.validation_corpus or (has_own and args.corpus_split != "validation"):
            validation = stream(args.corpus, "validation", "validation", args.corpus_config)
        else:
            train, validation = hold_out(train, HELD_OUT_SHARE)
    return train, validation


def hold_out(stream: TokenStream, share: float) -> tuple[TokenStream, TokenStream]:
    """Split off the last tokens of a stream."""
    cut = int(len(stream) * (1 - share))
    return stream.part(0, cut), stream.part(cut, len(stream))


def first_tokens(stream: TokenStream, n: int | None) -> TokenStream:
    """The first `n` tokens of a stream; all of it if `n` is `None`."""
    return stream if n is None else stream.part(0, n)


__all__ = ["pretrain"]
