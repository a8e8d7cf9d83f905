"""Compare the speed of pre-training with that of transformers' Trainer and OpenAIGPT on the same rows.

    python tests/benchmarks/pretrain.py --data_dir DIR [--updates 6] [--rounds 2] [--batch_size 4] [--torch_compile]

The measurement covers a whole run: reading the memory-mapped stream, collating, forward, backward, clipping, fused
AdamW, the schedule, one log line per update, and loss monitoring. `synthetic` trains our model on random tokens from
memory; it is equally fast if reading data costs nothing. The contenders run in turn, round after round, in one
process. The script prints the median of the rounds, each without its first update. The share of peak is relative to
the fastest matrix product measured in any round, or to training if that is faster. Models have the paper's size, with
40,478 vocabulary entries and random weights. The corpus is tokenized with gpt1-tiny's smaller vocabulary, which does
not change the amount of work.
"""

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from measure import number_types
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


SPAN, VOCAB = 512, 40478


def train(name: str, stream: TokenStream, args: PretrainArguments) -> Throughput:
    """Train a contender from new weights for a few updates."""
    set_seed(0)
    rows = ConsecutiveSpans(stream, SPAN)
    if name != "OpenAIGPT":
        trainer = GPT1Trainer(GPT1ForCausalLM(GPT1Config(vocab_size=VOCAB)), args, train_dataset=rows)
        throughput = watch_throughput(trainer, SPAN)
    else:
        trainer = Trainer(OpenAIGPTLMHeadModel(OpenAIGPTConfig(vocab_size=VOCAB)), args, train_dataset=rows)
        dtype = torch.bfloat16 if args.bf16 else torch.float32
        per_update = args.per_device_train_batch_size * SPAN
        # `operations_per_token` does not count its `Conv1D` layers, so use our model, which has the same weights.
        ours = GPT1ForCausalLM(GPT1Config(vocab_size=VOCAB))
        shapes = product_shapes(ours.config, per_update, args.device)
        throughput = Throughput(
            per_update,
            operations_per_token(ours, SPAN),
            lambda repeats: matmul_peak(dtype, args.device, shapes, repeats),
        )
        trainer.add_callback(throughput)
    trainer.train()
    return throughput


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="Folder with the corpus.")
    parser.add_argument("--corpus", default="books")
    parser.add_argument("--updates", type=int, default=6, help="Timed updates per round.")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch_size", type=int, default=4)
    types = number_types("cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default=types[0], choices=types)
    parser.add_argument("--torch_compile", action="store_true")
    parser.add_argument("--contenders", nargs="+", default=["ours", "synthetic", "OpenAIGPT"])
    given = parser.parse_args()
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
        n_tokens = (given.updates + 1) * given.batch_size * SPAN
        random = np.random.default_rng(0).integers(VOCAB, size=n_tokens, dtype=np.uint16)
        streams = {"synthetic": TokenStream(random, [n_tokens], [n_tokens])}
        measured: dict[str, list[Throughput]] = {name: [] for name in given.contenders}
        for _ in range(given.rounds):
            for name in given.contenders:
                measured[name].append(train(name, streams.get(name, stream), replace(args)))
        rates = {name: statistics.median(one.tokens_per_second for one in of) for name, of in measured.items()}
        peak = max(one.peak for of in measured.values() for one in of)
        shares = {name: statistics.median(one.reached / peak for one in of) for name, of in measured.items()}
        rows = [
            (name, f"{rates[name]:,.0f}", f"{100 * shares[name]:.0f} %", f"{rates['ours'] / rates[name]:.2f}")
            for name in given.contenders
        ]
        print(f"peak: {peak / 1e9:,.0f} GFLOP/s ({given.dtype}), {device_name(args.device)}")
        print(
            tabulate(rows, headers=("contender", "tokens/s", "share of peak", "ours over it"), disable_numparse=True)
        )


if __name__ == "__main__":
    main()
