"""Measure how time and memory grow with tokens, rows, layers, context and processes, and draw one plot.

    python tests/benchmarks/growth.py [--quick] [--output_dir runs/growth]

Everything is measured for 1, 2, 4 and 8 times the least size, each in a process of its own. Time is processor time of
all threads and processes, so that other work on the machine matters little. Memory is the peak above that of the
imports, which Linux reports. The exponents are those of fitted power laws: 1 is linear, 2 is quadratic.

- `tokens`: building the token stream of a corpus; its memory should not grow.
- `rows`: encoding rows of 20 words; they are kept on disk.
- `layers`: updates of a model, without its embeddings.
- `context`: updates on one row, whose time has a linear and a quadratic part.
- `attention`: the attention of one such row alone, forward and backward: quadratic.
- `processes`: the same update in every process, with the gradients averaged.

`growth.svg` adapts to light and dark pages; `growth.png` is for white ones. The numbers are in `growth.json`.
"""

import argparse
import json
import math
import multiprocessing
import random
import statistics
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.distributed as dist
from datasets import Dataset, disable_progress_bars
from datasets import config as datasets_config
from measure import Stopwatch, peak_gib
from torch import nn

from gpt1_hf import GPT1Config, GPT1ForCausalLM, GPT1Processor
from gpt1_hf.checkpoints.loading import open_tokenizer
from gpt1_hf.data.corpus import read_pieces
from gpt1_hf.data.token_stream import build_token_stream
from gpt1_hf.evaluation.task_scores import encode_rows
from gpt1_hf.figures import Figure, Series, draw, standalone, write_png
from gpt1_hf.training.cpu_kernels import cpu_blocks_attention_forward


FACTORS = (1, 2, 4, 8)
# Expected exponent of the time, and the size that 1 times stands for.
KINDS = {
    "tokens": (1, 4_000_000),  # characters
    "rows": (1, 20_000),
    "layers": (1, 2),
    "context": (None, 256),
    "attention": (2, 512),
    "processes": (1, 1),
}
QUICK = {"tokens": 400_000, "rows": 2000, "layers": 1, "context": 128, "attention": 256, "processes": 1}
PRELOADED = [
    "torch",
    "datasets",
    "gpt1_hf.evaluation.task_scores",
    "gpt1_hf.data.token_stream",
    "gpt1_hf.training.trainer",
]
WORDS = "the a old young captain lady house garden letter night morning walked spoke don't Mr. but with from".split()


def words(n: int) -> str:
    return " ".join(random.Random(n).choices(WORDS, k=n))


def repeated(run: Callable[[], object], times: int = 5) -> Callable[[], object]:
    """A function that does some work several times. The first time, a warm-up, is over when it returns."""
    run()
    return lambda: [run() for _ in range(times)]


def updates(layers: int, rows: int, span: int, width: int) -> Callable[[], object]:
    """A function that runs an update of a model with a small vocabulary."""
    config = GPT1Config(
        vocab_size=512,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64),
        max_position_embeddings=span,
    )
    model = GPT1ForCausalLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    forward = nn.parallel.DistributedDataParallel(model) if dist.is_initialized() else model
    ids = torch.randint(1, 512, (rows, span), generator=torch.Generator().manual_seed(0))

    def run():
        forward(input_ids=ids, labels=ids, skip_logits=True).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return repeated(run)


def attention(span: int, width: int):
    """A function that computes the attention of one row, forward and backward."""
    module = nn.Module().train()
    module.is_causal = True
    heads = max(1, width // 64)
    states = [torch.randn(1, heads, span, width // heads, requires_grad=True) for _ in range(3)]

    def run():
        cpu_blocks_attention_forward(module, *states, None, scaling=0.125, dropout=0.1)[0].sum().backward()

    return repeated(run)


def work(kind: str, size: int, width: int, folder: Path) -> Callable[[], object]:
    """Prepare what is measured."""
    if kind == "tokens":
        tokenizer, path = open_tokenizer("gpt1-tiny"), folder / "corpus.txt"
        line = words(200) + ".\n"
        with path.open("w", encoding="utf-8") as file:
            file.writelines(line for _ in range(size // len(line) + 1))
        return lambda: build_token_stream(read_pieces(str(path)), tokenizer, folder / "tokens", "growth")
    if kind == "rows":
        disable_progress_bars()
        datasets_config.HF_DATASETS_CACHE = folder / "cache"
        processor = GPT1Processor(open_tokenizer("gpt1-tiny"))
        row = {"text": words(20), "label": 0}
        rows = Dataset.from_generator(lambda: (row for _ in range(size)), cache_dir=str(folder / "cache"))
        return lambda: encode_rows(rows, processor, 128)
    if kind == "layers":
        return updates(size, 4, 128, width)
    if kind == "context":
        return updates(2, 1, size, width)
    if kind == "attention":
        return attention(size, width)
    return updates(2, 4, 128, width)


def measure_here(kind: str, size: int, width: int, rank: int, n_ranks: int, meeting: str, answer: Connection):
    """Measure one size in this process, and send its processor seconds and its MiB."""
    if kind == "processes":
        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=n_ranks)
    with tempfile.TemporaryDirectory() as folder:
        before = peak_gib()
        run = work(kind, size, width, Path(folder))
        with Stopwatch() as stopwatch:
            run()
        answer.send((stopwatch.cpu_seconds, max(0.0, peak_gib() - before) * 1024))
    if dist.is_initialized():
        dist.destroy_process_group()


def measure(kind: str, size: int, width: int) -> tuple[float, float]:
    """Processor seconds and MiB of one size, summed over its processes."""
    n_ranks = size if kind == "processes" else 1
    context = multiprocessing.get_context("forkserver")  # new processes, which need not import the libraries again
    context.set_forkserver_preload(PRELOADED)
    started = []
    with tempfile.TemporaryDirectory() as folder:
        for rank in range(n_ranks):
            receiver, sender = context.Pipe(duplex=False)
            arguments = (kind, size, width, rank, n_ranks, str(Path(folder) / "meeting"), sender)
            process = context.Process(target=measure_here, args=arguments, daemon=True)
            process.start()
            sender.close()  # a process that fails ends the pipe
            started.append((process, receiver))
        answers = [receiver.recv() for _, receiver in started]
        for process, _ in started:
            process.join()
    return sum(one[0] for one in answers), sum(one[1] for one in answers)


def exponent(values: list[float]) -> float:
    """Exponent of the power law that fits the values of `FACTORS`; NaN if one of them is 0."""
    if min(values) <= 0:
        return math.nan
    x, y = map(math.log, FACTORS), map(math.log, values)
    return statistics.linear_regression(list(x), list(y)).slope


def figure(found: dict[str, dict[str, list[float]]]) -> Figure:
    """Growth of all kinds, relative to the least size, with logarithmic axes on which power laws are straight."""
    series = []
    for number, (kind, measured) in enumerate(found.items()):
        label = f"{kind}: time^{exponent(measured['seconds']):.2f}, memory^{exponent(measured['MiB']):.2f}"
        for name, values in measured.items():
            points = [(factor, value / values[0]) for factor, value in zip(FACTORS, values, strict=True) if values[0]]
            # A label that starts with _ is not in the legend.
            series.append(Series(label if name == "seconds" else f"_{kind}", points, name == "MiB", number))
    for power, label in ((1, "linear and quadratic growth"), (2, "_quadratic")):
        series.append(Series(label, [(x, x**power) for x in FACTORS], True, len(KINDS) + 1, marked=False))
    y_label = "growth of time (solid) and memory (dashed)"
    return Figure("growth", "Growth", "times the least size", y_label, series, log_x=True, log_y=True, few_x=True)


def main(argv: list[str] | None = None) -> dict[str, dict[str, list[float]]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=list(KINDS), help="What to measure. Default: all.")
    parser.add_argument("--quick", action="store_true", help="Small sizes, to see that everything works.")
    parser.add_argument("--output_dir", default="runs/growth", help="Where the plot and the numbers go.")
    args = parser.parse_args(argv)
    if unknown := {*args.kinds} - {*KINDS}:
        parser.error(f"unknown kind {', '.join(sorted(unknown))}: choose from {', '.join(KINDS)}")
    found, width = {}, 128 if args.quick else 384
    print("| | least size | expected | time x^ | memory x^ | CPU s | MiB |\n|---|---|---|---|---|---|---|")
    for kind in args.kinds:
        expected, size = KINDS[kind]
        size = QUICK[kind] if args.quick else size
        measured = [measure(kind, size * factor, width) for factor in FACTORS]
        found[kind] = {"seconds": [one[0] for one in measured], "MiB": [one[1] for one in measured]}
        exponents = [f"{exponent(values):.2f}" for values in found[kind].values()]
        numbers = [", ".join(f"{value:.3g}" for value in values) for values in found[kind].values()]
        print(f"| {' | '.join([kind, f'{size:,}', str(expected or '1 to 2'), *exponents, *numbers])} |", flush=True)
    output = Path(args.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    (output / "growth.json").write_text(json.dumps(found, indent=2) + "\n")
    plot = figure(found)
    if (svg := draw(plot)) is not None:
        (output / "growth.svg").write_text(standalone(svg), encoding="utf-8")
        write_png(plot, output / "growth.png")
    return found


if __name__ == "__main__":
    main()
