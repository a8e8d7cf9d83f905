"""What a plan will cost: the tokens of each run, and the minutes that they take at a measured or given rate."""

import functools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ...checkpoints.loading import open_config, open_tokenizer
from ...data.token_stream import TokenStream
from ...errors import GPT1Error
from ...evaluation.task_scores import load_scored
from ...hardware import training_dtype
from ...processing_gpt1 import GPT1Processor
from ...tasks import load_task
from ...training.arguments import FinetuneArguments, GPT1TrainingArguments, PretrainArguments
from ...training.cpu_kernels import speed_up
from ...training.pretrain import new_config
from ...training.throughput import operations_per_token, seconds
from .run import Run


# Rows of a task that are encoded to see how long they are.
SAMPLED = 256
# A forward pass is a third of a training update: the backward pass takes two.
FORWARD = 1 / 3
# A rate is measured on updates of at most this many tokens, which take at most about this many seconds.
MOST_TOKENS, UPDATE_SECONDS = 4096, 0.5
# The first update is of this many tokens, and tells how many may follow.
FIRST_TOKENS = 64
# When measuring has taken so many seconds, further rates are reckoned from those that are known.
ALL_SECONDS = 15.0


@dataclass
class Cost:
    """
    Cost of a run.

    Args:
        tokens (`float`):
            Tokens, padding included: those of training and a third of those of evaluation.
        minutes (`float`):
            Their time, without that of loading, tokenizing and saving.
        reason (`str`):
            If both are not a number, why.
    """

    tokens: float = math.nan
    minutes: float = math.nan
    reason: str = ""


def estimate(run: Run, tokens_per_second: float | None = None) -> Cost:
    """
    Estimate a run.

    Args:
        run ([`Run`]):
            Run of a plan.
        tokens_per_second (`float`, *optional*):
            Rate of training; measured on this machine by default, with random weights of the run's architecture.
    """
    try:
        estimator = _estimate_pretraining if run.kind == "pretrain" else _estimate_finetuning
        tokens, shape = estimator(run)
        rate = tokens_per_second or measure(*shape)
    except GPT1Error as error:  # data or a tokenizer that is not here yet
        return Cost(reason=run.explain(error))
    return Cost(tokens, tokens / rate / 60)


def _estimate_pretraining(run: Run) -> tuple[float, tuple]:
    args: PretrainArguments = run.arguments()
    span = args.max_position_embeddings
    rows = args.per_device_train_batch_size
    folder = Path(args.tokens_dir or run.folder / "tokens")
    if args.max_steps > 0:
        tokens = args.max_steps * rows * args.gradient_accumulation_steps * span
    elif (folder / "train").is_dir():
        tokens = args.num_train_epochs * len(TokenStream.load(folder / "train"))
    else:
        raise GPT1Error("its length is a number of epochs, and the corpus is not tokenized yet; give max_steps")
    if (folder / "validation").is_dir():
        tokens += FORWARD * len(TokenStream.load(folder / "validation"))
    rows = max(1, min(rows, MOST_TOKENS // span))
    return tokens, (_architecture(run), "pretrain", rows, span, *_precision(args))


def _estimate_finetuning(run: Run) -> tuple[float, tuple]:
    args: FinetuneArguments = run.arguments()
    tokenizer_name = run.needs.settings["tokenizer"] if run.needs else args.model
    config = _architecture(run)
    source = (args.task, args.data_dir, args.sample)
    if source in MISSING:
        raise GPT1Error(MISSING[source])
    try:
        lengths, n_train, n_validation = _lengths(
            *source, tokenizer_name, args.max_length or config.max_position_embeddings
        )
    except GPT1Error as error:
        MISSING[source] = str(error)
        raise
    n_train = min(n_train, args.max_train_examples or n_train)
    rows = args.per_device_train_batch_size
    n_sequences = lengths.shape[1]
    padded = lengths.max(1)
    if args.train_sampling_strategy != "group_by_length":
        padded = np.random.default_rng(0).choice(padded, (SAMPLED, rows)).max(1)  # of random batches
    per_row = padded.mean() * n_sequences
    n_scored = n_validation + (n_train if args.score_train else 0)
    tokens = args.num_train_epochs * n_train * per_row + FORWARD * n_scored * per_row
    length = min(2 ** math.ceil(math.log2(padded.mean())), config.max_position_embeddings)
    at_once = max(1, min(rows * n_sequences, MOST_TOKENS // length))
    head = "finetune" if args.lm_coef else "finetune without the auxiliary loss"
    return tokens, (config, head, at_once, length, *_precision(args))


def _precision(args: GPT1TrainingArguments) -> tuple[torch.device, torch.dtype]:
    """Where a run trains, and the type that it computes in there."""
    accelerator = None if args.use_cpu else torch.accelerator.current_accelerator()
    device = accelerator or torch.device("cpu")
    return device, training_dtype(args.bf16, args.fp16, device)


@functools.cache
def _lengths(
    task_id: str, data_dir: str | None, sample: bool, tokenizer_name: str, max_length: int
) -> tuple[np.ndarray, int, int]:
    """Tokens of the sequences of a few training rows `(rows, sequences)`, and the numbers of training and evaluation
    rows."""
    task = load_task(task_id)
    rows = task.load("train", data_dir, sample)
    processor = GPT1Processor(open_tokenizer(tokenizer_name), task.input_format)
    few = rows.shuffle(seed=0).select(range(min(SAMPLED, len(rows))))
    input_ids = processor(few[:], max_length=max_length)["input_ids"]
    sequences = [row if isinstance(row[0], list) else [row] for row in input_ids]
    n_sequences = min(map(len, sequences))
    lengths = np.array([[len(ids) for ids in row[:n_sequences]] for row in sequences])
    return lengths, len(rows), sum(map(len, load_scored(task, data_dir, sample).values()))


@functools.cache
def _tokenizer(name: str) -> PreTrainedTokenizerBase:
    return open_tokenizer(name)


def _architecture(run: Run) -> PreTrainedConfig:
    """Configuration of the model that a run trains."""
    source = run if run.kind == "pretrain" else run.needs
    if source is None:
        return open_config(run.settings.get("model", FinetuneArguments.model))
    return new_config(source.arguments(), _tokenizer(source.settings["tokenizer"]))


@dataclass
class Rate:
    """
    A measured rate of training.

    Args:
        tokens_per_second (`float`):
            The rate.
        operations (`float`):
            Operations of a token, see [`operations_per_token`], and one a parameter for its update.
        alike (`tuple`):
            What rates have in common that are in proportion to their operations.
        seconds (`float`):
            What it took to measure it.
    """

    tokens_per_second: float
    operations: float
    alike: tuple
    seconds: float


RATES: dict[str, Rate] = {}
# Task, folder and sample -> why its rows are not to be had, which is not asked again for every run.
MISSING: dict[tuple[str, str | None, bool], str] = {}


def measure(
    config: PreTrainedConfig, kind: str, rows: int, length: int, device: torch.device, dtype: torch.dtype
) -> float:
    """
    Tokens per second of training a model with new weights on random tokens, on this machine as it is now.

    It takes a few seconds. When all measurements together have taken `ALL_SECONDS`, the rate is that of a model that
    was measured, in proportion to their operations.

    Args:
        config (`PreTrainedConfig`):
            Architecture.
        kind (`str`):
            `pretrain`, or what of fine-tuning.
        rows, length (`int`):
            Sequences of a batch, and tokens of each.
        device (`torch.device`):
            Where to compute.
        dtype (`torch.dtype`):
            Type of autocast; fp32 is none.
    """
    key = f"{kind} {rows} {length} {device} {dtype} {config.to_json_string()}"
    if key in RATES:
        return RATES[key].tokens_per_second
    with torch.device("meta"):
        model = _new_model(config, kind)
    # Of a model without layers, only the embeddings' update is left.
    operations = operations_per_token(model, length) + model.num_parameters()
    alike = (config.model_type, device, dtype)
    if sum(rate.seconds for rate in RATES.values()) > ALL_SECONDS:
        known = [rate for rate in RATES.values() if rate.alike == alike]
        if known:
            near = min(known, key=lambda rate: abs(math.log(rate.operations / operations)))
            return near.tokens_per_second * near.operations / operations
    begin = time.perf_counter()
    rate = _measure(_new_model(config, kind).to(device), kind, rows, length, dtype)
    RATES[key] = Rate(rate, operations, alike, time.perf_counter() - begin)
    return rate


def _new_model(config: PreTrainedConfig, kind: str) -> PreTrainedModel:
    if kind == "pretrain":
        return AutoModelForCausalLM.from_config(config)
    config.lm_coef = config.lm_coef if kind == "finetune" else 0.0
    return AutoModelForSequenceClassification.from_config(config)


def _measure(model: PreTrainedModel, kind: str, rows: int, length: int, dtype: torch.dtype) -> float:
    """Tokens per second of updates that take no longer than `UPDATE_SECONDS` each."""
    device = model.device
    if device.type == "cpu":
        speed_up(model, dtype == torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def update(rows: int, length: int) -> float:
        input_ids = torch.randint(model.config.vocab_size, (rows, length), device=device)
        inputs = {"labels": input_ids, "skip_logits": True, "use_cache": False}
        if kind != "pretrain":
            mask = torch.ones_like(input_ids)
            inputs = {"labels": input_ids[:, 0] % 2, "attention_mask": mask, "use_cache": False}

        def work():
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                loss = model(input_ids=input_ids, **inputs).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return seconds(work, device)

    first = min(length, FIRST_TOKENS)
    update(1, first)  # pays for memory
    n_tokens = max(first, int(UPDATE_SECONDS * first / update(1, first)))
    length, rows = min(length, n_tokens), max(1, min(rows, n_tokens // length))
    times = [update(rows, length)]
    while sum(times) < UPDATE_SECONDS:
        times.append(update(rows, length))
    return rows * length / (sum(times[1:]) / len(times[1:]) if len(times) > 1 else times[0])


def format_runs(runs: Sequence[Run]) -> str:
    """A plan for people, before its cost is known: its runs and their states."""
    n_to_do = sum(run.state != "finished" for run in runs)
    table = tabulate([(run.name, run.state) for run in runs], headers=("run", "state"))
    return f"{table}\n\n{n_to_do} of {len(runs)} runs to do; what they cost is being reckoned, in up to a minute\n"


def format_plan(runs: Sequence[Run], costs: Sequence[Cost]) -> str:
    """A plan and its cost for people, with the sums of what is still to do."""
    rows = [
        (run.name, run.state, cost.tokens / 1e6, cost.minutes, cost.reason)
        for run, cost in zip(runs, costs, strict=True)
    ]
    headers = ("run", "state", "M tokens", "minutes", "")
    lines = [tabulate(rows, headers=headers, floatfmt=".2f").replace(" nan", "   ?"), ""]
    for kind, name in (("pretrain", "pre-training"), ("finetune", "fine-tuning"), (None, "all")):
        of_kind = [(r, c) for r, c in zip(runs, costs, strict=True) if kind in (r.kind, None)]
        to_do = [cost for run, cost in of_kind if run.state != "finished"]
        known = [cost for cost in to_do if not cost.reason]
        tokens, minutes = sum(cost.tokens for cost in known) / 1e6, sum(cost.minutes for cost in known)
        line = f"{name}: {len(to_do)} of {len(of_kind)} runs to do, {tokens:,.1f} M tokens, {minutes:,.0f} minutes"
        n_unknown = len(to_do) - len(known)
        lines.append(line + (f", and {n_unknown} runs of unknown cost" if n_unknown else ""))
    lines.append("minutes are of training and scoring, one run at a time; loading, tokenizing and saving come on top")
    return "\n".join(lines)
