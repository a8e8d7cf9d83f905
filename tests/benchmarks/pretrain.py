"""Compare the speed of pre-training with that of transformers' Trainer and OpenAIGPT on the same rows.

    python tests/benchmarks/pretrain.py --data_dir DIR [--updates 6] [--rounds 2] [--batch_size 4] [--torch_compile]

The measurement covers a whole run: reading the memory-mapped stream, collating, forward, backward, clipping, fused
AdamW, the schedule, one log line per update, and loss monitoring. `synthetic` trains our model on random tokens from
memory; it is equally fast if reading data costs nothing. The contenders run in turn, round after round, in one
process. The script prints the median of the rounds, each without its first update, and the median of the rounds'
ratios, with the least and the greatest. The share of peak is relative to the fastest matrix product measured in any
round, or to training if that is faster. Models have the paper's size, with 40,478 vocabulary entries and random
weights. The corpus is tokenized with gpt1-tiny's smaller vocabulary, which does not change the amount of work.
"""

import argparse
import statistics
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from measure import OURS, interleaved, number_types, paired_ratios, this_device
from table import ratio
from tabulate import tabulate
from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel, Trainer, set_seed

from gpt1_hf import GPT1Config, GPT1ForCausalLM, GPT1Trainer
from gpt1_hf.checkpoints.loading import open_tokenizer
from gpt1_hf.data.spans import ConsecutiveSpans
from gpt1_hf.data.token_stream import TokenStream
from gpt1_hf.hardware import device_name
from gpt1_hf.training.arguments import PretrainArguments
from gpt1_hf.training.pretrain import token_streams, watch_throughput
from gpt1_hf.training.throughput import Throughput, matmul_peak, operations_per_token, product_shapes


def train(name: str, stream: TokenStream, args: PretrainArguments, sizes: dict[str, int]) -> Throughput:
    """Train a contender from new weights for a few updates."""
    set_seed(0)
    span = sizes["n_positions"]
    rows = ConsecutiveSpans(stream, span)
    ours = GPT1ForCausalLM(GPT1Config(**sizes))
    if name != "OpenAIGPT":
        trainer = GPT1Trainer(ours, args, train_dataset=rows)
        throughput = watch_throughput(trainer, span)
    else:
        trainer = Trainer(OpenAIGPTLMHeadModel(OpenAIGPTConfig(**sizes)), args, train_dataset=rows)
        dtype = torch.bfloat16 if args.bf16 else torch.float32
        per_update = args.per_device_train_batch_size * span
        shapes = product_shapes(ours.config, per_update, args.device)
        throughput = Throughput(
            per_update,
            # It does not count the `Conv1D` layers of OpenAIGPT, so use our model, which has the same weights.
            operations_per_token(ours, span),
            lambda repeats: matmul_peak(dtype, args.device, shapes, repeats),
        )
        trainer.add_callback(throughput)
    trainer.train()
    return throughput


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="Folder with the corpus.")
    parser.add_argument("--corpus", default="books")
    parser.add_argument("--updates", type=int, default=6, help="Timed updates per round.")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--layers", type=int, default=12, help="Transformer blocks (paper: 12).")
    parser.add_argument("--hidden_size", type=int, default=768, help="Hidden size (paper: 768).")
    parser.add_argument("--vocab_size", type=int, default=40478, help="Vocabulary entries (paper: 40478).")
    parser.add_argument("--span", type=int, default=512, help="Tokens of a row (paper: 512).")
    types = number_types(this_device())
    parser.add_argument("--dtype", default=types[0], choices=types)
    parser.add_argument("--torch_compile", action="store_true")
    parser.add_argument("--contenders", nargs="+", default=[OURS, "synthetic", "OpenAIGPT"])
    given = parser.parse_args(argv)
    sizes = {"n_layer": given.layers, "n_embd": given.hidden_size, "n_head": max(1, given.hidden_size // 64)}
    sizes |= {"vocab_size": given.vocab_size, "n_positions": given.span}
    with tempfile.TemporaryDirectory() as folder:
        args = PretrainArguments(
            corpus=given.corpus,
            data_dir=given.data_dir,
            output_dir=str(Path(folder) / "run"),
            max_steps=given.updates + 1,
            per_device_train_batch_size=given.batch_size,
            bf16=given.dtype == "bf16",
            torch_compile=given.torch_compile,
            train_sampling_strategy="sequential",
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
        )
        stream, _ = token_streams(args, open_tokenizer("gpt1-tiny"))
        n_tokens = (given.updates + 1) * given.batch_size * given.span
        random = np.random.default_rng(0).integers(given.vocab_size, size=n_tokens, dtype=np.uint16)
        streams = {"synthetic": TokenStream(random, [n_tokens], [n_tokens])}
        measured: dict[str, list[Throughput]] = {name: [] for name in given.contenders}

        def seconds_per_token(name: str) -> float:
            measured[name].append(train(name, streams.get(name, stream), replace(args), sizes))
            return 1 / measured[name][-1].tokens_per_second

        costs, _ = interleaved({name: partial(seconds_per_token, name) for name in measured}, given.rounds)
        ratios = paired_ratios(costs)
        peak = max(one.peak for of in measured.values() for one in of)
        rows = []
        for name, of in measured.items():
            rate = statistics.median(one.tokens_per_second for one in of)
            share = statistics.median(one.reached / peak for one in of)
            rows.append((name, f"{rate:,.0f}", f"{100 * share:.0f} %", ratio(ratios.get(name))))
        print(f"peak: {peak / 1e9:,.0f} GFLOP/s ({given.dtype}), {device_name(args.device)}")
        headers = ("contender", "tokens/s", "share of peak", "ours over it")
        print(tabulate(rows, headers=headers, disable_numparse=True))


if __name__ == "__main__":
    main()
