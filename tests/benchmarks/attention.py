"""Measure one attention layer of the paper's size on a CPU, forward and backward: sdpa against `"cpu_blocks"`.

    python tests/benchmarks/attention.py [--rows 4] [--span 512] [--rounds 5]

Rows have 512 tokens, and the layer has 12 heads of size 64. Both implementations run in turn in every round. The
script prints the median of the rounds, and of their ratios.
"""

import argparse
import statistics
from functools import partial

import torch
from measure import DTYPES, OURS, interleaved, number_types, paired_ratios, timed
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from gpt1_hf.training.cpu_kernels import cpu_blocks_attention_forward


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4, help="Rows of a batch.")
    parser.add_argument("--span", type=int, default=512, help="Tokens of a row.")
    parser.add_argument("--rounds", type=int, default=5, help="Number of rounds.")
    args = parser.parse_args(argv)
    module = nn.Module().train()
    module.is_causal = True
    print(f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| | dropout | sdpa, ms | cpu_blocks, ms | cpu_blocks is faster by |")
    print("|---|---|---|---|---|")
    for dtype in (DTYPES[name] for name in number_types("cpu")):
        query, key, value = (
            torch.randn(args.rows, args.span, 12, 64).to(dtype).transpose(1, 2).detach().requires_grad_()
            for _ in range(3)
        )
        for dropout in (0.0, 0.1):

            def step(attention, inputs=(query, key, value), dropout=dropout):
                attention(module, *inputs, None, scaling=0.125, dropout=dropout)[0].float().sum().backward()

            implementations = {OURS: cpu_blocks_attention_forward, "sdpa": sdpa_attention_forward}
            steps = {name: timed(partial(step, own), "cpu") for name, own in implementations.items()}
            costs, _ = interleaved(steps, args.rounds)
            sdpa, blocks = (1e3 * statistics.median(costs[name]) for name in ("sdpa", OURS))
            ratio = paired_ratios(costs)["sdpa"][0]
            print(f"| {str(dtype).split('.')[1]} | {dropout} | {sdpa:.0f} | {blocks:.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
