"""Compare speed and memory of GPT-1 with transformers' OpenAIGPT and GPT-2 of the same size.

    python tests/benchmarks/model.py [train classify choice score generate] [--quick] [--dtype bf16 fp32] [--rounds 3]

All models run in turn, round after round, in one process. Each value is the median of the rounds. Each ratio is the
median of the rounds' ratios, with the least and the greatest. An update is forward, backward, clipping and fused
AdamW.

- `train`: an update on rows of 512 tokens.
- `classify`: an update on 32 rows of 8 to 48 tokens, with the language-model loss. Ours packs the rows.
- `choice`: an update on two questions with four choices, with the language-model loss. Ours computes the common
  beginning of the choices once; the peers are the double-heads models. `--data_dir` takes the questions from RACE.
- `score`: the logits of rows of 512 tokens, always in fp32, as `gpt1 evaluate` and `gpt1 predict` compute them.
- `generate`: greedy search, for a batch of 1 and of 8, with the full size and with gpt1-tiny.

Our model trains as in `GPT1Trainer`: without all logits at once and, on a CPU, with `cpu_kernels.py` and packed rows.
The peers train as their users do: with padding and all logits. Weights are random, except gpt1-tiny's. The default
number type is the fastest that the hardware supports: bf16 is autocast over fp32 weights in training, and bf16 weights
in generation. Peak memory is that of two updates in a separate process. `--quick` halves the layers and shortens the
texts. `--compile` adds ours with compiled blocks to `train`, and ours with a compiled step and a static cache to
`generate`.

A share of the matmul rate counts 6 operations per weight and token, plus those of attention. It is relative to the
fastest matrix product measured before, between and after the rounds. A share of the bandwidth counts the weights and
the cache that every new token reads. It is relative to the fastest read or copy of a stream as large as both.
"""

import argparse
import gc
import json
import sys
from dataclasses import asdict, replace
from functools import partial

import torch
from contenders import CONTENDERS, Sizes, generation, scoring, tiny_sizes, training_operations, update
from measure import (
    COMPILED,
    OURS,
    Comparison,
    compare,
    memory_bandwidth,
    number_types,
    peak_gib,
    printed_by,
    this_device,
    timed,
)
from table import markdown, number

from gpt1_hf import GPT1Config
from gpt1_hf.hardware import device_name
from gpt1_hf.training.throughput import matmul_peak, product_shapes


TRAINING = ("train", "classify", "choice")
SECTIONS = (*TRAINING, "score", "generate")
UNSHARED = "without sharing"
MATMUL, BANDWIDTH = "matmul rate", "bandwidth"


def quick_sizes(sizes: Sizes) -> Sizes:
    """Half the layers, and fewer new tokens."""
    return replace(sizes, layers=max(1, sizes.layers // 2), new_tokens=min(32, sizes.new_tokens))


def compare_updates(
    task: str,
    dtype: str,
    sizes: Sizes,
    rounds: int,
    memory: bool = False,
    compiled: bool = False,
    without_sharing: bool = False,
) -> list[Comparison]:
    """Compare the updates of a task and, if requested, their peak memory."""
    device = this_device()
    updates = {name: update(name, task, dtype, sizes, device) for name in CONTENDERS}
    if task == "train" and compiled:  # the tasks have another number of tokens in each update
        updates[COMPILED] = update(COMPILED, task, dtype, sizes, device)
    if task == "choice" and without_sharing:
        updates[UNSHARED] = update(OURS, task, dtype, sizes, device, shared_prefix=False)
    n_tokens = updates[OURS][1]
    case = {
        "train": f"{sizes.rows} × {sizes.span}",
        "classify": f"{sizes.short_rows} rows of 8 to 48",
        "choice": f"{sizes.questions} questions" + (" of RACE" if sizes.data_dir else ""),
    }[task]
    case = f"{case}, {dtype}" + (f", dropout {sizes.dropout:g}" if sizes.dropout != 0.1 else "")
    if task == "choice":  # the operations that our shared prefix needs are not those of the peers
        operations, limit = {}, None
    else:
        # Attention within the short rows is not counted. The first token of a row is not predicted.
        span, n_rows = (sizes.span, sizes.rows) if task == "train" else (0, sizes.short_rows)
        operations = dict.fromkeys(updates, training_operations(sizes, n_tokens, span, n_tokens - n_rows))
        config = GPT1Config(vocab_size=sizes.vocab, hidden_size=sizes.width, num_attention_heads=1)
        shapes = product_shapes(config, n_tokens, torch.device(device))
        number_type = torch.bfloat16 if dtype == "bf16" else torch.float32
        limit = partial(matmul_peak, number_type, torch.device(device), shapes)
    steps = {name: timed(step, device) for name, (step, _) in updates.items()}
    found = [compare(task, case, "tokens/s", steps, n_tokens, rounds, operations, limit, MATMUL)]
    del updates, steps
    gc.collect()
    if memory:
        settings = ("memory", task, dtype, json.dumps(asdict(sizes)))
        gib = {name: float(printed_by(__file__, *settings, name)) for name in CONTENDERS}
        ratios = {name: [gib[name] / gib[OURS]] * 3 for name in CONTENDERS[1:]}
        found.append(Comparison(task, f"{case}: peak memory", "GiB", gib, ratios))
    return found


def measure_memory(task: str, dtype: str, sizes: str, name: str):
    """Print the peak memory of two updates."""
    step, _ = update(name, task, dtype, Sizes(**json.loads(sizes)), this_device())
    step()
    print(peak_gib(this_device()))


def compare_scores(sizes: Sizes, rounds: int) -> list[Comparison]:
    """Compare the logits of rows in fp32."""
    device = this_device()
    steps = {name: scoring(name, sizes, device) for name in CONTENDERS}
    n_tokens = steps[OURS][1]
    operations = dict.fromkeys(steps, training_operations(sizes, n_tokens, sizes.span, n_tokens) / 3)
    config = GPT1Config(vocab_size=sizes.vocab, hidden_size=sizes.width, num_attention_heads=1)
    shapes = product_shapes(config, n_tokens, torch.device(device))
    limit = partial(matmul_peak, torch.float32, torch.device(device), shapes)
    timed_steps = {name: timed(step, device) for name, (step, _) in steps.items()}
    case = f"{sizes.rows} × {sizes.span}, fp32"
    return [compare("score", case, "tokens/s", timed_steps, n_tokens, rounds, operations, limit, MATMUL)]


def compare_generation(
    dtype: str, sizes: Sizes, rounds: int, batch_sizes: tuple[int, ...] = (1, 8), compiled: bool = False
) -> list[Comparison]:
    """Compare generation with the full size and with gpt1-tiny."""
    device, found = this_device(), []
    names = (*CONTENDERS, COMPILED) if compiled else CONTENDERS
    for tiny in (True, False):
        own = tiny_sizes(sizes) if tiny else sizes
        for batch_size in batch_sizes:
            steps = {name: generation(name, dtype, own, batch_size, device, tiny) for name in names}
            n_bytes = steps[OURS][1]
            timed_steps = {name: timed(step, device) for name, (step, _) in steps.items()}
            # OpenAIGPT has no cache: it computes the whole text for every token, and bytes do not limit it.
            needed = {name: n_bytes for name in names if name != "OpenAIGPT"}
            limit = partial(memory_bandwidth, int(n_bytes / own.new_tokens), device)
            model = "gpt1-tiny" if tiny else f"{own.layers} × {own.width}"
            model += f" ({number(n_bytes / own.new_tokens / 1e6)} MB a step)"
            case = f"{model}, batch {batch_size}, {own.new_tokens} tokens, {dtype}"
            amount = batch_size * own.new_tokens
            found.append(compare("generate", case, "tokens/s", timed_steps, amount, rounds, needed, limit, BANDWIDTH))
            del steps, timed_steps
            gc.collect()
    return found


def main(argv: list[str] | None = None) -> list[Comparison]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=SECTIONS, help="Comparisons to run. Default: all.")
    parser.add_argument("--quick", action="store_true", help="Half the layers, shorter texts, no memory.")
    types = number_types(this_device())
    parser.add_argument("--dtype", nargs="+", default=types[:1], choices=types, help="Default: %(default)s.")
    parser.add_argument("--rounds", type=int, default=3, help="Number of rounds.")
    parser.add_argument("--dropout", type=float, default=0.1, help="Dropout in training (paper: 0.1).")
    parser.add_argument("--batch_size", type=int, help="Rows of 512 tokens. Default: 4 on a CPU, 64 on a GPU.")
    parser.add_argument("--new_tokens", type=int, default=128, help="Tokens to generate per row.")
    parser.add_argument("--layers", type=int, default=12, help="Transformer blocks (paper: 12).")
    parser.add_argument("--hidden_size", type=int, default=768, help="Hidden size (paper: 768).")
    parser.add_argument("--vocab_size", type=int, default=40478, help="Vocabulary entries (paper: 40478).")
    parser.add_argument("--span", type=int, default=512, help="Tokens of a row, and positions (paper: 512).")
    parser.add_argument("--data_dir", default="", help="Local copies laid out as on the Hub, for RACE.")
    parser.add_argument("--without_sharing", action="store_true", help="Also measure `choice` without sharing.")
    parser.add_argument("--compile", action="store_true", help="Also measure ours compiled (train, generate).")
    args = parser.parse_args(argv)
    if unknown := {*args.what} - {*SECTIONS}:
        parser.error(f"unknown comparison {', '.join(sorted(unknown))}: choose from {', '.join(SECTIONS)}")
    sizes = Sizes(
        layers=args.layers,
        width=args.hidden_size,
        head_width=min(64, args.hidden_size),
        vocab=args.vocab_size,
        span=args.span,
        rows=args.batch_size or (64 if this_device() == "cuda" else 4),
        new_tokens=args.new_tokens,
        prompt=min(32, args.span // 2),
        dropout=args.dropout,
        data_dir=args.data_dir,
    )
    sizes = quick_sizes(sizes) if args.quick else sizes
    found = []
    for dtype in args.dtype:
        for task in (task for task in TRAINING if task in args.what):
            found += compare_updates(
                task, dtype, sizes, args.rounds, not args.quick, args.compile, args.without_sharing
            )
        if "score" in args.what and dtype == args.dtype[0]:
            found += compare_scores(sizes, args.rounds)
        if "generate" in args.what:
            found += compare_generation(dtype, sizes, args.rounds, compiled=args.compile)
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        measure_memory(*sys.argv[2:])
    else:
        print(f"{device_name(torch.device(this_device()))}, torch {torch.__version__}\n")
        print(markdown(main()))
