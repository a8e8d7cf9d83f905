"""Settings of the two kinds of run. The defaults are the paper's (§4.1); recipes and the command line change them."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DynamoBackend
from transformers import TrainingArguments
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)
from transformers.utils import logging

from ..errors import GPT1Error, UsageError
from ..hardware import has_half_precision
from ..settings import NO_LIMIT, POSITIVE, check_ranges, default_data_dir
from ..tasks.definition import id_of_file
from .batch_sizes import SIZES, DerivedSize, derive_batch_sizes, given_sizes, n_separate_batches


logger = logging.get_logger(__name__)

# Bounds that transformers does not check, or reports badly.
RANGES = {
    **dict.fromkeys(("seed", "data_seed"), (0, 2**32 - 1)),
    **dict.fromkeys(("label_smoothing_factor", "dropout", "classifier_dropout", "lora_dropout"), (0.0, 1.0)),
    **dict.fromkeys(("max_length", "max_position_embeddings"), (2, NO_LIMIT)),
    **dict.fromkeys(("max_validation_tokens", "max_trajectory_tokens"), (2, NO_LIMIT)),
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size"), (1, NO_LIMIT)),
    "global_batch_size": (1, NO_LIMIT),
    **dict.fromkeys(("gradient_accumulation_steps", "seeds", "lora_r"), (1, NO_LIMIT)),
    **dict.fromkeys(("max_train_examples", "max_eval_examples"), (1, NO_LIMIT)),
    **dict.fromkeys(("hidden_size", "num_attention_heads", "lstm_size"), (1, NO_LIMIT)),
    **dict.fromkeys(("learning_rate", "weight_decay", "max_grad_norm", "neftune_noise_alpha"), (0.0, NO_LIMIT)),
    **dict.fromkeys(("lm_coef", "initializer_range", "position_initializer_range"), (0.0, NO_LIMIT)),
    **dict.fromkeys(("num_hidden_layers", "checkpoints_per_decade"), (0, NO_LIMIT)),
    "num_train_epochs": (POSITIVE, NO_LIMIT),
    "max_steps": (-1, NO_LIMIT),
}
# Settings of fine-tuning that describe `train_file`.
ABOUT_TRAIN_FILE = ("validation_file", "input_format", "text_column", "label_column", "choices_column")
# Settings of `TrainingArguments` that would make a run fail, sometimes after hours, or silently change what it does:
# a test for the values that are refused, and the reason.
REFUSED: dict[str, tuple[Callable[[TrainingArguments], Any], str]] = {
    "auto_find_batch_size": (
        lambda args: args.auto_find_batch_size,
        "would restart training from partly trained weights with fewer rows in an update: set "
        "per_device_train_batch_size instead, and global_batch_size, which keeps the rows of an update",
    ),
    "batch_eval_metrics": (
        lambda args: args.batch_eval_metrics,
        "passes batches to metrics, which here need all rows at once: leave it out",
    ),
    "dataloader_multiprocessing_context": (
        lambda args: args.dataloader_multiprocessing_context and not args.dataloader_num_workers,
        "applies to processes that load data: set dataloader_num_workers, or leave it out",
    ),
    "dataloader_persistent_workers": (
        lambda args: args.dataloader_persistent_workers and not args.dataloader_num_workers,
        "applies to processes that load data: set dataloader_num_workers, or leave it out",
    ),
    "dataloader_prefetch_factor": (
        lambda args: args.dataloader_prefetch_factor and not args.dataloader_num_workers,
        "applies to processes that load data: set dataloader_num_workers, or leave it out",
    ),
    "ddp_backend": (
        lambda args: args.ddp_backend and "LOCAL_RANK" not in os.environ,
        "applies to several processes: start them with `accelerate launch`, or leave it out",
    ),
    "debug": (lambda args: "tpu_metrics_debug" in str(args.debug), "tpu_metrics_debug needs a TPU: leave it out"),
    "enable_jit_checkpoint": (
        lambda args: args.enable_jit_checkpoint,
        "ends training as if it were done: leave it out; SIGTERM and Ctrl-C save a checkpoint anyway",
    ),
    "eval_do_concat_batches": (
        lambda args: not args.eval_do_concat_batches,
        "false passes a list of batches to metrics, which here need all rows at once: leave it out",
    ),
    "eval_use_gather_object": (
        lambda args: args.eval_use_gather_object,
        "splits arrays, but metrics here need complete ones: leave it out",
    ),
    "include_for_metrics": (
        lambda args: args.include_for_metrics,
        "passes inputs or losses to metrics, which here use neither: leave it out",
    ),
    "label_names": (
        lambda args: args.label_names not in (None, ["labels"]),
        "must be labels, the only name in these models: leave it out",
    ),
    "parallelism_config": (
        lambda args: isinstance(args.parallelism_config, str),
        "is an object, which a flag cannot express: use `accelerate launch --config_file`",
    ),
    "use_liger_kernel": (lambda args: args.use_liger_kernel, "has no kernels for these models: leave it out"),
}


def check_metric(args: TrainingArguments, names: Sequence[str]):
    """
    Check that the best checkpoint is chosen by a metric that an evaluation reports.

    Args:
        args (`TrainingArguments`):
            `metric_for_best_model` is checked, with or without `eval_`.
        names (sequence of `str`):
            Metrics other than the loss.

    Raises:
        UsageError: if an evaluation does not report the metric.
    """
    known = ("loss", *names)
    wanted = args.metric_for_best_model
    if wanted is not None and wanted.removeprefix("eval_") not in known:
        raise UsageError(f"metric_for_best_model must be {' or '.join(known)} here, not {wanted!r}")


def refuse(args: TrainingArguments):
    """Raise a [`UsageError`] if a setting has a value that [`REFUSED`] rules out."""
    for name, (is_refused, reason) in REFUSED.items():
        if is_refused(args):
            raise UsageError(f"{name} {reason}")


def drop_missing_precision(args: TrainingArguments):
    """Switch to fp32, with a warning, if the settings ask for half precision on a CPU that lacks it."""
    if torch.accelerator.is_available() and not args.use_cpu:
        return
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        launched = getattr(args, "mixed_precision", None) == name
        if (getattr(args, name) or launched) and not has_half_precision(dtype, torch.device("cpu")):
            setattr(args, name, False)
            if launched:
                args.mixed_precision = "no"
            logger.warning_once(f"this CPU has no {name} matrix instructions: the run uses fp32")


def use_one_gpu(args: TrainingArguments):
    """
    Use one of a single process's several GPUs, with a warning. By default transformers uses torch's DataParallel,
    which does not add up loss terms.
    """
    if args.n_gpu > 1:
        logger.warning("several GPUs and one process: one GPU is used; `accelerate launch` uses them all")
        args._n_gpu = 1
        if isinstance(args, GPT1TrainingArguments):
            args.set_batch_sizes()


@dataclass(repr=False)  # the base class's repr hides tokens
class GPT1TrainingArguments(TrainingArguments):
    """
    transformers' `TrainingArguments` with the paper's fine-tuning values as defaults.

    `global_batch_size` keeps the rows of an update the same on any number of devices:
    `per_device_train_batch_size` and `gradient_accumulation_steps` follow from it, see [`derive_batch_sizes`]. After
    `__init__`, all three are numbers. Replacing one, as with `dataclasses.replace`, derives the others again.
    """

    # Class attributes, not fields.
    default_batch_size = 32  # of the paper (§4.1)
    has_gpt1_trainer = False  # whether only [`GPT1Trainer`] uses these settings
    given_batch_sizes = None  # `global_batch_size` and the other two as given

    global_batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Rows per update, over all devices. Default: 32 (§4.1), or the product of devices, "
            "per_device_train_batch_size and gradient_accumulation_steps if one of these settings is given."
        },
    )
    learning_rate: float = field(default=6.25e-5, metadata={"help": "Peak learning rate of AdamW (§4.1: 6.25e-5)."})
    per_device_train_batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Rows in a batch of one device. With a global_batch_size it only changes memory and speed. "
            "Default: global_batch_size / (devices × gradient_accumulation_steps)."
        },
    )
    gradient_accumulation_steps: int | None = field(
        default=None,
        metadata={
            "help": "Batches per update of each device. Default: global_batch_size / (devices × "
            "per_device_train_batch_size), or 1."
        },
    )
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Rows per evaluation batch and device."})
    num_train_epochs: float = field(default=3.0, metadata={"help": "Passes over the training rows (§4.1: 3)."})
    lr_scheduler_type: str = field(default="linear", metadata={"help": "Decay after warm-up (§4.1: linear)."})
    warmup_steps: float = field(
        default=0.002, metadata={"help": "Warm-up updates, or their share of training if below 1 (§4.1: 0.2 %%)."}
    )
    weight_decay: float = field(
        default=0.01, metadata={"help": "Decoupled decay of all weights but biases and gains (§4.1: 0.01)."}
    )
    layerwise_lr_decay: float = field(
        default=1.0,
        metadata={
            "help": "Factor of the learning rate from each block to the one below it, and to the embeddings; 1 is off."
        },
    )
    max_grad_norm: float = field(default=1.0, metadata={"help": "Gradient clipping norm (released code: 1)."})
    save_strategy: str = field(default="no", metadata={"help": "When to write checkpoints: no, steps or epoch."})
    logging_steps: float = field(default=50, metadata={"help": "Updates between two log lines."})
    logging_nan_inf_filter: bool = field(
        default=False,
        metadata={
            "help": "Leave NaN and infinite losses out of the logged mean. Of no use here: such a loss ends the run. "
            "Waits for the device at every update."
        },
    )

    ddp_find_unused_parameters: bool = field(
        default=False, metadata={"help": "Look for unused parameters in every backward pass; these models have none."}
    )

    def __post_init__(self):
        if not 0 < self.layerwise_lr_decay <= 1:
            raise UsageError(f"layerwise_lr_decay must be above 0 and at most 1 (off), not {self.layerwise_lr_decay}")
        check_ranges(self, RANGES)
        drop_missing_precision(self)
        # TrainingArguments expects a GPU for bf16; autocast also supports it on a CPU, and recipes run on both.
        if not torch.accelerator.is_available():
            # Without it, accelerate would not join several launched processes: each would train alone.
            is_one_of_several = "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1
            self.use_cpu = self.use_cpu or self.bf16 or is_one_of_several
            self.dataloader_pin_memory = False  # pinned pages serve copies to a device; without one, torch warns
        if self.accelerator_config is None and self.dataloader_pin_memory and not self.use_cpu:
            self.accelerator_config = {"non_blocking": True}  # copies from pinned pages overlap with computation
        # By default, pushing a model with trackio's curves beside it would publish them in a Space of their own.
        self.trackio_static_space_id = self.trackio_static_space_id or False
        try:
            super().__post_init__()
        except ImportError as error:  # such as deepspeed
            raise GPT1Error(f"a setting needs a library that is not installed: {error}") from error
        if self.torch_compile and self.torch_compile_backend.upper() not in DynamoBackend.__members__:
            raise UsageError(f"torch_compile_backend: unknown {self.torch_compile_backend!r}; inductor is the default")
        drop_missing_precision(self)  # again: `accelerate launch` may ask for it
        if self.load_best_model_at_end and "no" in (self.eval_strategy, self.save_strategy):
            raise UsageError("load_best_model_at_end chooses among checkpoints: set eval_strategy and save_strategy")
        for tracker in self.report_to:
            if tracker not in INTEGRATION_TO_CALLBACK:
                raise UsageError(f"report_to: unknown {tracker!r}; choose none, tensorboard, trackio or wandb")
            if tracker not in get_available_reporting_integrations():
                raise GPT1Error(f"report_to: {tracker} is not installed; pip install {tracker}, or report_to none")

    @property
    def device(self) -> torch.device:
        # `TrainingArguments.__post_init__` reads it to join the processes. Only then is their number known.
        # A later step there, DeepSpeed's, needs the sizes.
        device = super().device
        if self.given_batch_sizes is None:
            self.given_batch_sizes = given_sizes(self)
            if (self.accelerator_config.gradient_accumulation_kwargs or {}).get("num_steps"):
                raise UsageError("accelerator_config: num_steps is not supported: set gradient_accumulation_steps")
            if self.has_gpt1_trainer:
                use_one_gpu(self)
            self.set_batch_sizes()
        return device

    def set_batch_sizes(self):
        """Set the sizes of an update that were not given, for the devices in use."""
        n_devices = n_separate_batches(self) * max(1, self.n_gpu)
        sizes = derive_batch_sizes(*self.given_batch_sizes, n_devices, self.default_batch_size)
        for name, given, size in zip(SIZES, self.given_batch_sizes, sizes, strict=True):
            setattr(self, name, DerivedSize(size) if given is None else size)

    def to_sanitized_dict(self) -> dict[str, Any]:
        # The base class turns subclasses of int into strings, which trackers cannot plot.
        return super().to_sanitized_dict() | {name: int(getattr(self, name)) for name in SIZES}


@dataclass(repr=False)  # the base class's repr hides tokens
class FinetuneArguments(GPT1TrainingArguments):
    """One fine-tuning run, or one per seed."""

    has_gpt1_trainer = True

    task: str | None = field(
        default=None, metadata={"help": "Task id, such as cola or sst2; or all; or a YAML file that describes a task."}
    )
    train_file: str | None = field(
        default=None,
        metadata={
            "help": "Fine-tune on your own rows, instead of --task: a .csv, .tsv, .jsonl, .json or .parquet file. Its "
            "name is the task's id or, if it is called train or data, the name of its folder."
        },
    )
    validation_file: str | None = field(
        default=None,
        metadata={"help": "Rows to score, with --train_file. Default: 10 %% of the training rows are held out."},
    )
    input_format: str | None = field(
        default=None,
        metadata={
            "help": "What a row of --train_file is: classification (a text), entailment (a pair in order), similarity "
            "(a pair in any order), multiple_choice, or token_classification (words). Default: classification.",
            "choices": ["classification", "entailment", "similarity", "multiple_choice", "token_classification"],
        },
    )
    text_column: list[str] | None = field(
        default=None,
        metadata={
            "help": "Column of the text in --train_file; two columns for a pair, or for document and question. "
            "Default: text; premise hypothesis; text_a text_b; document question; words."
        },
    )
    label_column: str | None = field(
        default=None, metadata={"help": "Column of the label in --train_file. Default: label."}
    )
    choices_column: list[str] | None = field(
        default=None,
        metadata={
            "help": "Column of the lists of choices in --train_file, or one column for each choice. Default: choices."
        },
    )
    model: str = field(default="gpt1-tiny", metadata={"help": "Pre-trained model: folder, Hub id, or gpt1-tiny."})
    from_scratch: bool = field(
        default=False, metadata={"help": "Train the model's architecture from new weights, without pre-training."}
    )
    transfer_layers: int | None = field(
        default=None,
        metadata={
            "help": "Number of pre-trained blocks to keep, from the first. The others get new weights. Default: all."
        },
    )
    score_train: bool = field(default=False, metadata={"help": "Also score the training rows."})
    seeds: int = field(
        default=1, metadata={"help": "Number of runs, with seeds seed, seed + 1, ...; finished runs are skipped."}
    )
    sample: bool = field(default=False, metadata={"help": "Train on the small labelled sample in the package."})
    data_dir: str | None = field(
        default_factory=default_data_dir,
        metadata={"help": "Folder with local copies of data sets, laid out as on the Hub. Default: GPT1_DATA_DIR."},
    )
    max_train_examples: int | None = field(
        default=None, metadata={"help": "Train on this many rows, the same random ones for every seed. Default: all."}
    )
    max_eval_examples: int | None = field(
        default=None,
        metadata={
            "help": "Score at most this many rows of each split, evenly spaced, as `gpt1 evaluate --max_examples` "
            "does. Default: all."
        },
    )
    held_out_share: float = field(
        default=0.0,
        metadata={
            "help": "To choose settings: hold out this share of the training rows, the last ones, and score on "
            "them instead of the validation split."
        },
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Longest row in tokens. Default: the model's context."}
    )
    question_delimiter: bool = field(
        default=True,
        metadata={"help": "RACE: put a delimiter between document and question; the paper has none (false)."},
    )
    train_sampling_strategy: str = field(
        default="group_by_length",
        metadata={
            "help": "Order of the training rows: group_by_length (rows of similar length share an update, which saves "
            "a third of the work or more), random, sequential, or transformers' batch_rebalance.",
            "choices": ["group_by_length", "random", "sequential", "batch_rebalance"],
        },
    )
    lm_coef: float = field(default=0.5, metadata={"help": "Weight of the auxiliary language-model loss (§4.1: 0.5)."})
    plain_regression: bool = field(
        default=False,
        metadata={"help": "Learn scores (STS-B) by squared error, not as the released code's distribution over bins."},
    )
    classifier_dropout: float = field(default=0.1, metadata={"help": "Dropout before the task head (§4.1: 0.1)."})
    dropout: float = field(
        default=0.1, metadata={"help": "Dropout on embeddings, attention and residuals (§4.1: 0.1)."}
    )
    output_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder of the model, results.json and checkpoints; with several seeds, a subfolder for each. "
            "Default: runs/<task>."
        },
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "help": "true: resume from the last complete checkpoint in output_dir, if any; or a checkpoint's folder. "
            "Default: start from the beginning."
        },
    )
    peft: str | None = field(
        default=None,
        metadata={
            "help": "lora: train only adapters, the head and the special tokens; needs a learning rate about ten "
            "times higher. Default: train the whole model."
        },
    )
    lora_r: int = field(default=16, metadata={"help": "Rank of LoRA's matrices."})
    lora_alpha: int = field(default=32, metadata={"help": "LoRA's output is scaled by lora_alpha / lora_r."})
    lora_dropout: float = field(default=0.1, metadata={"help": "Dropout before LoRA's matrices."})

    def __post_init__(self):
        if self.peft not in (None, "lora"):
            raise UsageError(f"peft must be lora, or left out, not {self.peft!r}")
        if not self.peft and (self.lora_r, self.lora_alpha, self.lora_dropout) != (16, 32, 0.1):
            raise UsageError(
                "lora_r, lora_alpha and lora_dropout apply to LoRA only: also give --peft lora, or leave them out"
            )
        if self.peft and self.from_scratch:
            raise UsageError("peft adapts a pre-trained model, and from_scratch has none: drop one of the two")
        self._check_own_data()
        self.output_dir = self.output_dir or f"runs/{self._task_name()}"
        if self.peft and Path(self.output_dir).resolve() == Path(self.model).resolve():
            raise UsageError(
                "output_dir is the folder of the base model, which the adapter needs: use another --output_dir"
            )
        refuse(self)
        if self.push_to_hub and self.seeds > 1:
            raise UsageError(
                "push_to_hub works with one seed only: leave it out, and push one of the runs with `gpt1 push`"
            )
        super().__post_init__()

    def _check_own_data(self):
        for name in ("text_column", "choices_column"):  # a YAML file may give one name without brackets
            value = getattr(self, name)
            setattr(self, name, [value] if isinstance(value, str) else value)
        if self.task and self.train_file:
            raise UsageError("give either --task or --train_file, not both; a task's YAML file names its files")
        given = [name for name in ABOUT_TRAIN_FILE if getattr(self, name) is not None]
        if given and not self.train_file:
            raise UsageError(f"--{given[0]} describes the rows of --train_file: give --train_file, or drop it")
        if self.train_file and self.sample:
            raise UsageError("--sample is of the built-in tasks: drop it, or give --task instead of --train_file")

    def _task_name(self) -> str:
        """Name of the task in the default `output_dir`."""
        if self.train_file:
            return id_of_file(self.train_file)
        task = str(self.task)
        return Path(task).stem if task.endswith((".yaml", ".yml")) else task


@dataclass(repr=False)  # the base class's repr hides tokens
class PretrainArguments(GPT1TrainingArguments):
    """One pre-training run: language modelling of running text."""

    default_batch_size = 64  # of the paper (§4.1)
    has_gpt1_trainer = True

    corpus: str | None = field(
        default=None,
        metadata={
            "help": "Text: a .txt file or folder of them, a file of rows (parquet, JSON lines, csv, tsv) or folder of "
            "them, or a Hub id. A data set on the Hub is streamed into token ids and not stored, so it may be larger "
            "than the disk; only its token stream, 2 bytes a token, must fit. An interrupted build starts again."
        },
    )
    corpus_column: str = field(
        default="text", metadata={"help": "Column that holds the text, in a corpus or validation corpus of rows."}
    )
    corpus_config: str | None = field(
        default=None, metadata={"help": "Configuration of the corpus on the Hub; in a local copy, a sub-folder."}
    )
    corpus_split: str = field(default="train", metadata={"help": "Split of the corpus to train on."})
    validation_corpus: str | None = field(
        default=None,
        metadata={
            "help": "Held-out text. Default: the corpus's own validation files, else the last 5 %% of its tokens."
        },
    )
    held_out_share: float = field(
        default=0.0,
        metadata={
            "help": "To choose settings: hold out this share of the training tokens, the last ones, and score on them "
            "instead of the validation text."
        },
    )
    max_validation_tokens: int | None = field(
        default=None,
        metadata={
            "help": "Score only this many tokens from the start of the held-out text. Default: all. Perplexities on a "
            "part are marked as partial, and cannot be compared with those on all of it."
        },
    )
    corpus_revision: str | None = field(default=None, metadata={"help": "Revision of a corpus on the Hub."})
    corpus_rows: str = field(
        default="documents",
        metadata={
            "help": "Whether the corpus's rows are documents, or lines of one running text.",
            "choices": ["documents", "lines"],
        },
    )
    spans: str = field(
        default="random",
        metadata={
            "help": "random: contiguous spans from random positions, as in the paper; neighbouring: adjacent spans, "
            "each once per epoch, shuffled or, with --train_sampling_strategy sequential, in order.",
            "choices": ["random", "neighbouring"],
        },
    )
    tokenizer: str | None = field(
        default=None, metadata={"help": "Tokenizer: folder or Hub id. Default: that of --model."}
    )
    model: str | None = field(
        default=None,
        metadata={
            "help": "Continue the pre-training of this model (folder, Hub id, or gpt1-tiny) with a new optimizer and "
            "schedule. Its architecture and vocabulary stay. Default: new weights."
        },
    )
    data_dir: str | None = field(
        default_factory=default_data_dir,
        metadata={"help": "Folder with local copies of data sets, laid out as on the Hub. Default: GPT1_DATA_DIR."},
    )
    tokens_dir: str | None = field(
        default=None, metadata={"help": "Where the token streams are kept for reuse. Default: <output_dir>/tokens."}
    )
    architecture: str = field(
        default="transformer",
        metadata={
            "help": "transformer, or lstm, the paper's baseline (§5).",
            "choices": ["transformer", "lstm"],
        },
    )
    hidden_size: int = field(default=768, metadata={"help": "Width of the states (§4.1: 768)."})
    num_hidden_layers: int | None = field(
        default=None, metadata={"help": "Transformer blocks (§4.1: 12) or LSTM layers (§5: 1). Default: the paper's."}
    )
    lstm_size: int = field(default=2048, metadata={"help": "Units of each LSTM layer (§5: 2048)."})
    num_attention_heads: int = field(default=12, metadata={"help": "Attention heads (§4.1: 12)."})
    max_position_embeddings: int = field(default=512, metadata={"help": "Context and span length (§4.1: 512)."})
    position_embedding_type: str = field(
        default="learned",
        metadata={
            "help": "Type of position embeddings (§4.1: learned).",
            "choices": ["learned", "sinusoidal", "none"],
        },
    )
    dropout: float = field(
        default=0.1, metadata={"help": "Dropout on embeddings, attention and residuals (§4.1: 0.1)."}
    )
    initializer_range: float = field(
        default=0.02, metadata={"help": "Standard deviation of the initial weights (§4.1: 0.02)."}
    )
    position_initializer_range: float | None = field(
        default=None,
        metadata={
            "help": "Standard deviation of the initial position vectors, or amplitude of the sinusoidal ones. "
            "Default: initializer_range, as in the paper."
        },
    )
    save_dtype: str = field(
        default="float32", metadata={"help": "Type of the saved weights.", "choices": ["float32", "bfloat16"]}
    )
    learning_rate: float = field(default=2.5e-4, metadata={"help": "Peak learning rate of AdamW (§4.1: 2.5e-4)."})
    global_batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Spans per update, over all devices. Default: 64 (§4.1), or the product of devices, "
            "per_device_train_batch_size and gradient_accumulation_steps if one of these settings is given."
        },
    )
    per_device_eval_batch_size: int = field(default=8, metadata={"help": "Spans per evaluation batch and device."})
    num_train_epochs: float = field(default=100.0, metadata={"help": "Passes over the corpus (§4.1: 100)."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Decay after warm-up (§4.1: cosine)."})
    warmup_steps: float = field(default=2000, metadata={"help": "Warm-up updates (§4.1: 2,000)."})
    save_strategy: str = field(default="steps", metadata={"help": "When to write checkpoints: no, steps or epoch."})
    output_dir: str | None = field(
        default=None,
        metadata={"help": "Folder of the model, results.json and checkpoints. Default: runs/pretrain."},
    )
    resume_from_checkpoint: str | None = field(
        default="true",
        metadata={
            "help": "true: resume from the last complete checkpoint in output_dir, if any; false: start from the "
            "beginning; or a checkpoint's folder."
        },
    )
    checkpoints_per_decade: int = field(
        default=0,
        metadata={
            "help": "Save the weights at this many log-spaced updates per decade, and at the first and last, in "
            "<output_dir>/trajectory, and their held-out perplexities in trajectory.jsonl. 0: never."
        },
    )
    max_trajectory_tokens: int | None = field(
        default=None,
        metadata={
            "help": "Score the trajectory on only this many tokens from the start of the held-out text, to save time. "
            "The finished model is scored on all of it. Default: all."
        },
    )

    def __post_init__(self):
        self.output_dir = self.output_dir or "runs/pretrain"
        if self.model and Path(self.output_dir).resolve() == Path(self.model).resolve():
            raise UsageError(f"--model {self.model} is also the output folder: use another --output_dir")
        refuse(self)
        if self.greater_is_better is None and str(self.metric_for_best_model).endswith("perplexity"):
            self.greater_is_better = False  # transformers knows this about losses only
        super().__post_init__()
