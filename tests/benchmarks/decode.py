"""Measure how fast a CPU multiplies, and what limits a step of generation: how fast weights and a cache are read.

    python tests/benchmarks/decode.py [--rounds 5]

Each operation reads twelve layers of the paper's size, in turn with the others. It is printed in GB/s beside the sum
of the same numbers, which is the limit:

- products of 2048 rows, in GFLOP/s, by `nn.Linear` and by oneDNN;
- products of one and of eight rows with weights of 3072 × 768, for the layouts of `nn.Linear` and of GPT-2's `Conv1D`,
  and in oneDNN's order (`modeling_gpt1_cpu.py`);
- attention of one query on a cache of 480 tokens, by sdpa and by ours;
- adding a token to such a cache, by transformers' `DynamicCache` and by ours, in microseconds a layer.
"""

import argparse
import statistics
from collections.abc import Callable, Hashable
from functools import partial

import torch
from measure import DTYPES, interleaved, number_types, timed
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers import DynamicCache

from gpt1_hf.modeling_gpt1_cpu import ROWS_TO_PACK_FOR, extend_cache, fast_inference, one_query_attention_forward


LAYERS, HEADS, HEAD_WIDTH, TOKENS = 12, 12, 64, 480


def seconds(works: dict[Hashable, Callable], n_rounds: int) -> dict[Hashable, float]:
    """Median seconds of each work, measured in turn."""
    with torch.no_grad():
        costs, _ = interleaved({name: timed(work, "cpu") for name, work in works.items()}, n_rounds)
    return {name: statistics.median(costs[name]) for name in works}


def products(dtype: torch.dtype, n_rows: int, n_rounds: int) -> list[float]:
    """GB/s of products in three layouts, and of the sum."""
    weights = [torch.randn(3072, 768).to(dtype) for _ in range(LAYERS)]
    transposed = [weight.T.contiguous() for weight in weights]
    operators = torch.ops.mkldnn
    packed = [operators._reorder_linear_weight(weight, ROWS_TO_PACK_FOR) for weight in weights]
    states = torch.randn(n_rows, 768).to(dtype)
    works = {
        "Linear": lambda: [linear(states, weight) for weight in weights],
        "Conv1D": lambda: [states @ weight for weight in transposed],
        "packed": lambda: [operators._linear_pointwise(states, weight, None, "none", [], "") for weight in packed],
        "sum": lambda: [weight.sum() for weight in weights],
    }
    n_bytes = sum(weight.nbytes for weight in weights)
    return [n_bytes / cost / 1e9 for cost in seconds(works, n_rounds).values()]


def large_products(dtype: torch.dtype, n_rounds: int) -> list[float]:
    """GFLOP/s of products with many rows, by torch and by oneDNN."""
    weights = [torch.randn(3072, 768).to(dtype) for _ in range(LAYERS)]
    states = torch.randn(2048, 768).to(dtype)
    product = torch.ops.mkldnn._linear_pointwise
    works = {
        "Linear": lambda: [linear(states, weight) for weight in weights],
        "oneDNN": lambda: [product(states, weight, None, "none", [], "") for weight in weights],
    }
    operations = 2 * len(states) * sum(weight.numel() for weight in weights)
    return [operations / cost / 1e9 for cost in seconds(works, n_rounds).values()]


def attention(batch: int, n_rounds: int) -> list[float]:
    """GB/s of the attention of one bf16 query, and of the sum of its keys and values."""
    query, *cached = (
        torch.randn(batch, HEADS, n_tokens, HEAD_WIDTH).bfloat16() for n_tokens in (1, *[TOKENS] * 2 * LAYERS)
    )
    pairs = list(zip(cached[:LAYERS], cached[LAYERS:], strict=True))
    ours = partial(one_query_attention_forward, torch.nn.Module(), query, attention_mask=None, scaling=0.125)
    works = {
        "sdpa": lambda: [scaled_dot_product_attention(query, key, value) for key, value in pairs],
        "ours": lambda: [ours(key, value) for key, value in pairs],
        "sum": lambda: [tensor.sum() for tensor in cached],
    }
    n_bytes = sum(tensor.nbytes for tensor in cached)
    return [n_bytes / cost / 1e9 for cost in seconds(works, n_rounds).values()]


def cache(dtype: torch.dtype, batch: int, n_rounds: int) -> list[float]:
    """Microseconds for adding a token to a layer of transformers' cache, by itself and by ours."""
    n_new = 30
    text, token = (torch.randn(batch, HEADS, n_tokens, HEAD_WIDTH).to(dtype) for n_tokens in (TOKENS, 1))

    def fill(update, n_new):
        own = DynamicCache()
        with fast_inference(torch.device("cpu")):
            for states in [text, token] + [token] * n_new:  # after the first token, ours has room for others
                for layer in range(LAYERS):
                    update(own, states, states, layer)

    updates = (DynamicCache.update, extend_cache)
    costs = seconds({(one, n): partial(fill, one, n) for one in updates for n in (0, n_new)}, n_rounds)
    return [(costs[one, n_new] - costs[one, 0]) / n_new / LAYERS * 1e6 for one in updates]


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="Number of rounds.")
    args = parser.parse_args(argv)
    print(f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    types = number_types("cpu")
    rows: dict[str, list] = {"large products": [], "products": [], "attention": [], "cache": []}
    for name in types:
        rows["large products"].append([name, 2048, *large_products(DTYPES[name], args.rounds)])
        for n_rows in (1, 8):
            rows["products"].append([name, n_rows, *products(DTYPES[name], n_rows, args.rounds)])
            rows["cache"].append([name, n_rows, *cache(DTYPES[name], n_rows, args.rounds)])
    rows["attention"] += [["bf16", batch, *attention(batch, args.rounds)] for batch in (1, 8)]
    for what, *columns in (
        ("large products", "rows", "`nn.Linear`, GFLOP/s", "oneDNN, GFLOP/s"),
        ("products", "rows", "`nn.Linear`, GB/s", "`Conv1D`, GB/s", "oneDNN's order, GB/s", "sum, GB/s"),
        ("attention", "batch", "sdpa, GB/s", "ours, GB/s", "sum, GB/s"),
        ("cache", "batch", "`DynamicCache`, µs a layer", "ours, µs a layer"),
    ):
        print(f"| {what} | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
        for dtype, n, *values in rows[what]:
            print(f"| {dtype} | {n} | {' | '.join(f'{value:.0f}' for value in values)} |")
        print()


if __name__ == "__main__":
    main()
