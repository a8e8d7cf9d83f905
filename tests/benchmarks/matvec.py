"""Measure torch's product of a matrix with one row, which limits generation, against reading the matrix.

    python tests/benchmarks/matvec.py [--rounds 5]

A product reads each weight once. It is measured for the layouts of `nn.Linear` and of GPT-2's `Conv1D`, over twelve
matrices of 3072 × 768, and printed in GB/s beside the sum of the same weights.
"""

import argparse
import statistics
from functools import partial

import torch
from measure import DTYPES, interleaved, number_types, timed
from torch.nn.functional import linear


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="Number of rounds.")
    args = parser.parse_args(argv)
    print(f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| | rows | `nn.Linear`, GB/s | `Conv1D`, GB/s | sum, GB/s |")
    print("|---|---|---|---|---|")
    for dtype in (DTYPES[name] for name in number_types("cpu")):
        weights = [torch.randn(3072, 768).to(dtype) for _ in range(12)]
        transposed = [weight.T.contiguous() for weight in weights]
        n_bytes = sum(weight.nbytes for weight in weights)
        for n_rows in (1, 8):
            states = torch.randn(n_rows, 768).to(dtype)
            works = {
                "Linear": partial(lambda states, weights: [linear(states, one) for one in weights], states, weights),
                "Conv1D": partial(lambda states, weights: [states @ one for one in weights], states, transposed),
                "sum": partial(lambda weights: [one.sum() for one in weights], weights),
            }
            with torch.no_grad():
                costs, _ = interleaved({name: timed(work, "cpu") for name, work in works.items()}, args.rounds)
            rates = [n_bytes / statistics.median(costs[name]) / 1e9 for name in works]
            print(f"| {str(dtype).split('.')[1]} | {n_rows} | {' | '.join(f'{rate:.0f}' for rate in rates)} |")


if __name__ == "__main__":
    main()
