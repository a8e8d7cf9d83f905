"""Estimate the peak memory of a training update on an accelerator, without one: with fake tensors, which hold no data.

    python tests/benchmarks/memory.py [--rows 64] [--tokens 512]

The model has the paper's size. Its matrix products run in bf16 by autocast; its weights, gradients and AdamW moments
are fp32. Its attention keeps no probabilities, like flash attention. The script prints the peak of an update and its
parts in GiB, with and without activation checkpointing. Memory that an allocator holds in reserve is not included.
"""

import argparse

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from gpt1_hf import GPT1Config, GPT1ForCausalLM


PARTS = {"param": "weights", "grad": "gradients", "opt": "AdamW", "act": "activations", "total": "all"}


def peak(config: GPT1Config, rows: int, tokens: int, checkpointing: bool) -> dict[str, float]:
    """Peak of the second update, the first with AdamW's moments, and its parts, in GiB."""
    with FakeTensorMode():
        model = GPT1ForCausalLM(config)
        if checkpointing:
            model.activation_checkpointing_enable()
        model.train()
        optimizer = torch.optim.AdamW(model.parameters())
        input_ids = torch.zeros(rows, tokens, dtype=torch.long)
        tracker = MemTracker()
        tracker.track_external(model, optimizer, input_ids)
        with tracker:
            for _ in range(2):
                tracker.reset_mod_stats()
                with torch.autocast("cpu", torch.bfloat16):
                    loss = model(input_ids, labels=input_ids, skip_logits=True).loss
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
    (device,) = tracker.get_tracker_snapshot("peak").values()
    sizes = {str(part).rsplit(".", 1)[-1].lower(): size / 2**30 for part, size in device.items()}
    return {name: sizes[part] for part, name in PARTS.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64, help="Rows of a batch.")
    parser.add_argument("--tokens", type=int, default=512, help="Tokens of a row.")
    args = parser.parse_args()
    # On a CPU, torch drops attention probabilities in a way that keeps them; flash attention does not.
    config = GPT1Config(attn_pdrop=0.0, use_cache=False)
    print(f"{args.rows} rows of {args.tokens} tokens, GiB at the peak of an update\n")
    print(f"| checkpointing | {' | '.join(PARTS.values())} |\n|---|{'---|' * len(PARTS)}")
    for checkpointing in (False, True):
        sizes = peak(config, args.rows, args.tokens, checkpointing)
        print(
            f"| {'on' if checkpointing else 'off'} | {' | '.join(f'{size:.1f}' for size in sizes.values())} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
