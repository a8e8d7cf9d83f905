"""Compare the time of a generated token between torch, the ONNX program and the ONNX program with int8 weights.

    python tests/benchmarks/onnx_decode.py [--model gpt1-tiny random] [--quick] [--rounds 5] [--batch_sizes 1 8]

Needs the extra `onnx`. A model is a folder, a Hub id or gpt1-tiny; `random` has the paper's size and random weights.
Each contender generates by greedy search with a cache, on the CPU with the same number of threads: torch with
`generate`, in bf16 if the hardware supports it and in fp32; onnxruntime with a loop that passes keys and values from
step to step. All run in turn, round after round, in one process. A time is the median of the rounds. A ratio is the
median of the rounds' ratios, with the least and the greatest. The prompt's forward pass gives the first new token. It
is timed alone, too.

The share of the bandwidth counts the weights of the products and the cache, which every step reads. It is relative to
the fastest read or copy of a stream as large as that of the contender. `--quick` takes gpt1-tiny, fewer tokens and one
round.
"""

import argparse
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from contenders import Sizes, build
from measure import DTYPES, interleaved, memory_bandwidth, number_types, timed
from table import number, ratio

from gpt1_hf.checkpoints.export import export
from gpt1_hf.checkpoints.int8_program import BLOCK_SIZE
from gpt1_hf.checkpoints.loading import open_causal_lm, open_tokenizer
from gpt1_hf.hardware import device_name


RANDOM, REFERENCE = "random", "torch fp32"
# Bytes of a weight; an int8 block of weights also has a scale in fp32.
BYTES = {"torch bf16": 2.0, REFERENCE: 4.0, "ONNX fp32": 4.0, "ONNX int8": 1 + 4 / BLOCK_SIZE}
# Bytes of a number in the cache.
CACHE_BYTES = {"torch bf16": 2, REFERENCE: 4, "ONNX fp32": 4, "ONNX int8": 4}
COLUMNS = (
    *("model", "batch", "contender", "ms a step", "speed over torch fp32", "ms of the prompt", "MB a step"),
    *("bandwidth", "MB of files"),
)


@dataclass(frozen=True)
class Lengths:
    """Tokens of a prompt, and new tokens."""

    prompt: int = 32
    new: int = 128


def program_generation(folder: Path, prompt: np.ndarray) -> Callable[[int], np.ndarray]:
    """A function that continues a prompt `(batch, seq)` by a number of tokens, with a program that has a cache."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]
    # Keys and values have the same names in inputs and outputs, after their first part.
    caches = {f"input.{name.partition('.')[2]}": name for name in outputs if name.startswith("output.")}
    shapes = {value.name: value.shape for value in session.get_inputs()}
    value_of = onnxruntime.OrtValue.ortvalue_from_numpy

    def generate(n_tokens: int) -> np.ndarray:
        batch, length = prompt.shape
        past = {name: value_of(np.zeros((batch, shapes[name][1], 0, shapes[name][3]), np.float32)) for name in caches}
        new, found = prompt, []
        for _ in range(n_tokens):
            first = length - new.shape[1]
            inputs = {
                "input_ids": value_of(np.ascontiguousarray(new)),
                "attention_mask": value_of(np.ones((batch, length), np.int64)),
                "position_ids": value_of(np.tile(np.arange(first, length), (batch, 1))),
            }
            values = dict(zip(outputs, session.run_with_ort_values(outputs, inputs | past), strict=True))
            past = {name: values[output] for name, output in caches.items()}
            new = values["logits"].numpy()[:, -1:].argmax(-1)
            found.append(new)
            length += 1
        return np.concatenate(found, axis=1)

    return generate


def model_generation(model: torch.nn.Module, prompt: np.ndarray) -> Callable[[int], np.ndarray]:
    """A function that continues a prompt `(batch, seq)` by a number of tokens, with a model's `generate`."""
    ids = torch.from_numpy(prompt)
    options = {"attention_mask": torch.ones_like(ids), "do_sample": False, "pad_token_id": 0, "use_cache": True}

    def generate(n_tokens: int) -> np.ndarray:
        tokens = model.generate(ids, max_new_tokens=n_tokens, min_new_tokens=n_tokens, **options)
        return tokens[:, ids.shape[1] :].numpy()

    return generate


def open_folder(model: str, folder: Path) -> str:
    """A model's name; for `random`, the folder of a new one, with the tokenizer of gpt1-tiny."""
    if model != RANDOM:
        return model
    build("ours", "train", Sizes()).save_pretrained(folder)
    open_tokenizer("gpt1-tiny").save_pretrained(folder)
    return str(folder)


def compare_model(model: str, lengths: Lengths, rounds: int, batch_sizes: list[int], folder: Path) -> list[list]:
    """Cells of the table's rows for a model. Programs are saved in `folder`."""
    source, rows = open_folder(model, folder / "model"), []
    sizes = {
        f"ONNX {weights}": export(source, folder / weights, use_cache=True, weights=weights).megabytes
        for weights in ("fp32", "int8")
    }
    models = {f"torch {dtype}": open_causal_lm(source).to(DTYPES[dtype]).eval() for dtype in number_types("cpu")}
    config = models[REFERENCE].config
    linear = [module for module in models[REFERENCE].modules() if isinstance(module, torch.nn.Linear)]
    n_weights = sum(module.weight.numel() for module in linear)
    for batch in batch_sizes:
        prompt = np.random.default_rng(2).integers(1, config.vocab_size, (batch, lengths.prompt))
        generate = {name: model_generation(own, prompt) for name, own in models.items()}
        generate |= {name: program_generation(folder / name.split()[1], prompt) for name in sizes}
        for run in generate.values():
            run(2)  # warm-up
        n_cached = batch * 2 * config.num_hidden_layers * config.hidden_size * (lengths.prompt + lengths.new // 2)
        needed = {name: BYTES[name] * n_weights + CACHE_BYTES[name] * n_cached for name in generate}
        best = dict.fromkeys(generate, 0.0)

        def measure_bandwidth(needed=needed, best=best) -> float:
            for name, n_bytes in needed.items():
                best[name] = max(best[name], memory_bandwidth(int(n_bytes), "cpu"))
            return 0.0

        whole = {name: timed(partial(run, lengths.new), "cpu") for name, run in generate.items()}
        first = {name: timed(partial(run, 1), "cpu") for name, run in generate.items()}
        totals, _ = interleaved(whole, rounds, measure_bandwidth)
        prompts, _ = interleaved(first, rounds)
        for name in generate:
            begin = statistics.median(prompts[name])
            step = (statistics.median(totals[name]) - begin) / (lengths.new - 1)
            ratios = [theirs / own for theirs, own in zip(totals[REFERENCE], totals[name], strict=True)]
            # No share is above 1, as in `measure.compare`.
            bandwidth = max(best[name], needed[name] / step)
            rows.append(
                [
                    *(model, batch, name, f"{1000 * step:.2f}"),
                    ratio([statistics.median(ratios), min(ratios), max(ratios)]),
                    *(f"{1000 * begin:.1f}", number(needed[name] / 1e6)),
                    f"{100 * needed[name] / step / bandwidth:.0f} % of {number(bandwidth / 1e9)} GB/s",
                    number(sizes[name]) if name in sizes else "–",
                ]
            )
    return rows


def line(cells: Iterable[object]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", help=f"Models. Default: gpt1-tiny and {RANDOM}, or gpt1-tiny if quick.")
    parser.add_argument("--quick", action="store_true", help="gpt1-tiny, 16 new tokens, one round.")
    parser.add_argument("--rounds", type=int, help="Number of rounds. Default: 5, or 1 with --quick.")
    parser.add_argument("--prompt", type=int, default=32, help="Tokens of the prompt.")
    parser.add_argument("--new_tokens", type=int, help="Tokens to generate. Default: 128, or 16 with --quick.")
    parser.add_argument("--batch_sizes", nargs="+", type=int, default=[1, 8], help="Texts generated together.")
    args = parser.parse_args(argv)
    lengths = Lengths(args.prompt, args.new_tokens or (16 if args.quick else 128))
    if lengths.new < 2:
        parser.error("--new_tokens must be at least 2: the prompt gives the first")
    rounds = args.rounds or (1 if args.quick else 5)
    conditions = f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    tokens = f"prompts of {lengths.prompt} tokens, {lengths.new} new tokens"
    print(f"{device_name(torch.device('cpu'))}, {conditions}; {tokens}\n")
    print(f"{line(COLUMNS)}\n{'|---' * len(COLUMNS)}|")
    for model in args.model or (["gpt1-tiny"] if args.quick else ["gpt1-tiny", RANDOM]):
        with TemporaryDirectory() as folder:
            for cells in compare_model(model, lengths, rounds, args.batch_sizes, Path(folder)):
                print(line(cells), flush=True)


if __name__ == "__main__":
    main()
