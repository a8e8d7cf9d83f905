"""Measure one attention layer of the paper's size on a CPU, forward and backward: sdpa against `"cpu_blocks"`.

    python tests/benchmarks/attention.py [--rows 4] [--rounds 5]

Rows have 512 tokens, and the layer has 12 heads of size 64. Both implementations run in turn in every round. The
script prints the fastest round of each.
"""

import argparse

import torch
from measure import DTYPES, number_types
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from gpt1_hf.training.cpu_kernels import cpu_blocks_attention_forward
from gpt1_hf.training.throughput import seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4, help="Rows of 512 tokens.")
    parser.add_argument("--rounds", type=int, default=5, help="Number of rounds.")
    args = parser.parse_args()
    module = nn.Module().train()
    module.is_causal = True
    print(f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| | dropout | sdpa, ms | cpu_blocks, ms | cpu_blocks is faster by |")
    print("|---|---|---|---|---|")
    for dtype in (DTYPES[name] for name in number_types("cpu")):
        query, key, value = (
            torch.randn(args.rows, 512, 12, 64).to(dtype).transpose(1, 2).detach().requires_grad_() for _ in range(3)
        )
        for dropout in (0.0, 0.1):

            def step(attention, inputs=(query, key, value), dropout=dropout):
                attention(module, *inputs, None, scaling=0.125, dropout=dropout)[0].float().sum().backward()

            times = {sdpa_attention_forward: [], cpu_blocks_attention_forward: []}
            for _ in range(args.rounds):
                for attention, values in times.items():
                    values.append(seconds(lambda a=attention: step(a), torch.device("cpu")))
            sdpa, blocks = (1e3 * min(values) for values in times.values())
            print(f"| {str(dtype).split('.')[1]} | {dropout} | {sdpa:.0f} | {blocks:.0f} | {sdpa / blocks:.2f} |")


if __name__ == "__main__":
    main()
