"""The cost of a plan: the tokens of each run, and the minutes that they take at a measured or given rate."""

import functools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

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
from ...evaluation.seeds import mean
from ...evaluation.task_scores import load_scored
from ...hardware import training_dtype
from ...modeling_gpt1_cpu import fast_training
from ...processing_gpt1 import GPT1Processor
from ...tasks import load_task
from ...training.arguments import FinetuneArguments, GPT1TrainingArguments, PretrainArguments
from ...training.batch_sizes import rows_per_update
from ...training.cpu_kernels import speed_up
from ...training.pretrain import new_config, with_model
from ...training.throughput import operations_per_token, seconds
from .run import Run


# Number of rows of a task whose length is measured.
SAMPLED_ROWS = 256
# A forward pass is a third of a training update: the backward pass is the other two.
FORWARD = 1 / 3
# A rate is measured on updates of at most this many tokens, each of about this many seconds.
MAX_TOKENS, UPDATE_SECONDS = 4096, 0.5
# Tokens of the first update. Its time determines the size of the next ones.
FIRST_TOKENS = 64
# After this many seconds of measuring, further rates are computed from the measured ones.
MAX_SECONDS = 15.0


@dataclass
class Cost:
    """
    Cost of a run: its tokens, with padding and a third of the tokens that are only evaluated; and its minutes, without
    loading, tokenizing and saving. If it is unknown, both are NaN and `reason` says why.
    """

    tokens: float = math.nan
    minutes: float = math.nan
    reason: str = ""


class Update(NamedTuple):
    """
    A training update to measure, on a batch of shape `(rows, length)` and in the autocast type `dtype`. `head` is
    `pretrain`, `finetune`, or `finetune without the auxiliary loss`.
    """

    config: PreTrainedConfig
    head: str
    rows: int
    length: int
    device: torch.device
    dtype: torch.dtype


def estimate(run: Run, tokens_per_second: float | None = None) -> Cost:
    """
    Estimate the cost of a run.

    Args:
        run ([`Run`]):
            Run of a plan.
        tokens_per_second (`float`, *optional*):
            Training rate. Default: measured on this machine, with random weights of the run's architecture.
    """
    try:
        tokens, update = _pretraining(run) if run.kind == "pretrain" else _finetuning(run)
        rate = tokens_per_second or training_rate(update)
    except GPT1Error as error:  # the data or the tokenizer do not exist yet
        return Cost(reason=run.explain(error))
    return Cost(tokens, tokens / rate / 60)


def _pretraining(run: Run) -> tuple[float, Update]:
    args: PretrainArguments = with_model(run.arguments())
    length = args.max_position_embeddings
    rows = args.per_device_train_batch_size
    folder = Path(args.tokens_dir or run.folder / "tokens")
    n_train = len(TokenStream.load(folder / "train")) if (folder / "train").is_dir() else None
    if args.max_steps > 0:
        tokens = args.max_steps * rows_per_update(args) * length
    elif n_train is not None:
        tokens = args.num_train_epochs * (1 - args.held_out_share) * n_train
    else:
        raise GPT1Error("its length is a number of epochs, and the corpus is not tokenized yet: give max_steps")
    n_scored = 0.0
    if args.held_out_share:
        n_scored = args.held_out_share * (n_train or 0)
    elif (folder / "validation").is_dir():
        n_scored = len(TokenStream.load(folder / "validation"))
    tokens += FORWARD * min(n_scored, args.max_validation_tokens or n_scored)
    rows = max(1, min(rows, MAX_TOKENS // length))
    return tokens, Update(_architecture(run), "pretrain", rows, length, *_precision(args))


def _finetuning(run: Run) -> tuple[float, Update]:
    args: FinetuneArguments = run.arguments()
    tokenizer_name = with_model(run.needs.arguments()).tokenizer if run.needs else args.model
    config = _architecture(run)
    source = (args.task, args.data_dir, args.sample)
    if source in MISSING:
        raise GPT1Error(MISSING[source])
    try:
        lengths, n_train, n_scored = _lengths(
            *source, tokenizer_name, args.max_length or config.max_position_embeddings
        )
    except GPT1Error as error:
        MISSING[source] = str(error)
        raise
    if args.held_out_share:
        n_scored = (math.ceil(args.held_out_share * n_train),)
        n_train -= n_scored[0]
    n_train = min(n_train, args.max_train_examples or n_train)
    if args.score_train:
        n_scored = (*n_scored, n_train)
    n_evaluated = sum(min(n_rows, args.max_eval_examples or n_rows) for n_rows in n_scored)
    rows = args.per_device_train_batch_size
    n_sequences = lengths.shape[1]
    padded = lengths.max(1)
    if args.train_sampling_strategy != "group_by_length":  # padded to the longest row of a random batch
        padded = np.random.default_rng(0).choice(padded, (SAMPLED_ROWS, rows)).max(1)
    per_row = padded.mean() * n_sequences
    tokens = args.num_train_epochs * n_train * per_row + FORWARD * n_evaluated * per_row
    length = min(2 ** math.ceil(math.log2(padded.mean())), config.max_position_embeddings)
    batch = max(1, min(rows * n_sequences, MAX_TOKENS // length))
    head = "finetune" if args.lm_coef else "finetune without the auxiliary loss"
    return tokens, Update(config, head, batch, length, *_precision(args))


def _precision(args: GPT1TrainingArguments) -> tuple[torch.device, torch.dtype]:
    """Device and autocast type of a run."""
    accelerator = None if args.use_cpu else torch.accelerator.current_accelerator()
    device = accelerator or torch.device("cpu")
    return device, training_dtype(args.bf16, args.fp16, device)


@functools.cache
def _lengths(
    task_id: str, data_dir: str | None, sample: bool, tokenizer_name: str, max_length: int
) -> tuple[np.ndarray, int, tuple[int, ...]]:
    """Lengths in tokens of a sample of training rows `(rows, sequences)`, the number of training rows, and the number
    of rows of each split that is scored."""
    task = load_task(task_id).resolved(data_dir)
    rows = task.load("train", data_dir, sample)
    processor = GPT1Processor(open_tokenizer(tokenizer_name), task.input_format)
    few = rows.shuffle(seed=0).select(range(min(SAMPLED_ROWS, len(rows))))
    input_ids = processor(few[:], max_length=max_length)["input_ids"]
    sequences = [row if isinstance(row[0], list) else [row] for row in input_ids]
    n_sequences = min(map(len, sequences))
    lengths = np.array([[len(ids) for ids in row[:n_sequences]] for row in sequences])
    return lengths, len(rows), tuple(map(len, load_scored(task, data_dir, sample).values()))


@functools.cache
def _tokenizer(name: str) -> PreTrainedTokenizerBase:
    return open_tokenizer(name)


def _architecture(run: Run) -> PreTrainedConfig:
    """Configuration of the model that a run trains."""
    source = run if run.kind == "pretrain" else run.needs
    if source is None:
        return open_config(run.settings.get("model", FinetuneArguments.model))
    args = with_model(source.arguments())
    return new_config(args, _tokenizer(args.tokenizer))


@dataclass
class Rate:
    """
    A measured training rate. `operations` are those of a token, plus one for each parameter's update. Within a `group`
    rates are in proportion to them. `seconds` is the time that measuring took.
    """

    tokens_per_second: float
    operations: float
    group: tuple
    seconds: float


RATES: dict[str, Rate] = {}
# Task, folder and sample -> why its rows cannot be read: looked up once, not for every run.
MISSING: dict[tuple[str, str | None, bool], str] = {}


def training_rate(update: Update) -> float:
    """
    Tokens per second of training a model with new weights on random tokens, on this machine as it is now.

    Measuring takes a few seconds. Once all measurements together have taken `MAX_SECONDS`, the rate is computed from
    that of the most similar measured model, in proportion to their operations.
    """
    config, head, rows, length, device, dtype = update
    key = f"{head} {rows} {length} {device} {dtype} {config.to_json_string()}"
    if key in RATES:
        return RATES[key].tokens_per_second
    with torch.device("meta"):
        model = _new_model(config, head)
    # The parameters count too: a model without layers spends its time on updating the embeddings.
    operations = operations_per_token(model, length) + model.num_parameters()
    group = (config.model_type, device, dtype)
    if sum(rate.seconds for rate in RATES.values()) > MAX_SECONDS:
        known = [rate for rate in RATES.values() if rate.group == group]
        if known:
            near = min(known, key=lambda rate: abs(math.log(rate.operations / operations)))
            return near.tokens_per_second * near.operations / operations
    begin = time.perf_counter()
    rate = _measure(_new_model(config, head).to(device), update)
    RATES[key] = Rate(rate, operations, group, time.perf_counter() - begin)
    return rate


def _new_model(config: PreTrainedConfig, head: str) -> PreTrainedModel:
    if head == "pretrain":
        return AutoModelForCausalLM.from_config(config)
    config.lm_coef = config.lm_coef if head == "finetune" else 0.0
    return AutoModelForSequenceClassification.from_config(config)


def _measure(model: PreTrainedModel, update: Update) -> float:
    """Tokens per second, with batches that are small enough for updates of `UPDATE_SECONDS`."""
    _, head, rows, length, device, dtype = update
    if device.type == "cpu":
        speed_up(model, dtype == torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def time_update(rows: int, length: int) -> float:
        input_ids = torch.randint(model.config.vocab_size, (rows, length), device=device)
        inputs = {"labels": input_ids, "skip_logits": True, "use_cache": False}
        if head != "pretrain":
            mask = torch.ones_like(input_ids)
            inputs = {"labels": input_ids[:, 0] % 2, "attention_mask": mask, "use_cache": False}

        def work():
            with fast_training(device):
                with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                    loss = model(input_ids=input_ids, **inputs).loss
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return seconds(work, device)

    first = min(length, FIRST_TOKENS)
    time_update(1, first)  # allocates memory
    n_tokens = max(first, int(UPDATE_SECONDS * first / time_update(1, first)))
    length, rows = min(length, n_tokens), max(1, min(rows, n_tokens // length))
    times = [time_update(rows, length)]
    while sum(times) < UPDATE_SECONDS:
        times.append(time_update(rows, length))
    return rows * length / mean(times[1:] or times)


def format_runs(runs: Sequence[Run]) -> str:
    """A plan as text, before its cost is known: the runs and their states."""
    n_to_do = sum(run.state != "finished" for run in runs)
    table = tabulate([(run.name, run.state) for run in runs], headers=("run", "state"))
    return f"{table}\n\n{n_to_do} of {len(runs)} runs to do; estimating their cost takes up to a minute\n"


def format_plan(runs: Sequence[Run], costs: Sequence[Cost]) -> str:
    """A plan and its cost as text, with the sums of what is still to do."""
    pairs = list(zip(runs, costs, strict=True))
    rows = [(run.name, run.state, cost.tokens / 1e6, cost.minutes, cost.reason) for run, cost in pairs]
    headers = ("run", "state", "M tokens", "minutes", "")
    lines = [tabulate(rows, headers=headers, floatfmt=".2f").replace(" nan", "   ?"), ""]
    for kind, name in (("pretrain", "pre-training"), ("finetune", "fine-tuning"), (None, "all")):
        chosen = [(run, cost) for run, cost in pairs if kind in (run.kind, None)]
        to_do = [cost for run, cost in chosen if run.state != "finished"]
        known = [cost for cost in to_do if not cost.reason]
        tokens, minutes = sum(cost.tokens for cost in known) / 1e6, sum(cost.minutes for cost in known)
        line = f"{name}: {len(to_do)} of {len(chosen)} runs to do, {tokens:,.1f} M tokens, {minutes:,.0f} minutes"
        n_unknown = len(to_do) - len(known)
        lines.append(line + (f", and {n_unknown} runs of unknown cost" if n_unknown else ""))
    lines.append("minutes are for training and scoring, one run at a time; loading, tokenizing and saving add to them")
    return "\n".join(lines)
