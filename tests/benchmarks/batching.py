"""Measure the cost of padding on real rows: in fixed order, in random order, grouped by length, and packed.

    python tests/benchmarks/batching.py --data_dir DIR [--tasks cola rte qnli] [--batch_size 32] [--updates 0]

The script counts the tokens of a whole epoch, with each batch padded to its longest row. The cost of every layer
except attention is proportional to them. `--updates N` also times N updates, evenly spaced over the epoch, with all
orders in turn and a model of the paper's size (`--layers`, `--hidden_size`). On a CPU it measures processor time.
"""

import argparse
import time
from pathlib import Path

import torch

from gpt1_hf import GPT1Config, GPT1DataCollator, GPT1ForSequenceClassification, GPT1Processor, GPT1Tokenizer
from gpt1_hf.data.batching import LengthGroupedSampler
from gpt1_hf.data.loading import open_dataset


COLUMNS = {
    "cola": {"text": "sentence"},
    "rte": {"premise": "sentence1", "hypothesis": "sentence2"},
    "qnli": {"premise": "question", "hypothesis": "sentence"},
}


def encoded(task: str, data_dir: str) -> tuple[GPT1Processor, list[list[int]]]:
    tokenizer = GPT1Tokenizer.from_original(Path(data_dir) / "openai-community" / "openai-gpt")
    processor = GPT1Processor(tokenizer, "classification" if task == "cola" else "entailment")
    rows = open_dataset("nyu-mll/glue", "train", task, data_dir)
    return processor, processor({name: list(rows[own]) for name, own in COLUMNS[task].items()})["input_ids"]


def orders(lengths: list[int], batch_size: int) -> dict[str, list[int]]:
    """Name of each order -> indices of the rows."""
    shuffled = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(0)).tolist()
    fixed = list(range(len(lengths)))
    grouped = list(LengthGroupedSampler(lengths, batch_size))
    return {"fixed order": fixed, "random order": shuffled, "grouped by length": grouped, "packed": shuffled}


def n_tokens(batches: list[list[int]], lengths: list[int], packed: bool) -> int:
    sizes = [[lengths[row] for row in batch] for batch in batches]
    return sum(sum(size) if packed else len(size) * max(size) for size in sizes)


def timer(processor: GPT1Processor, rows: list[list[int]], args: argparse.Namespace, packed: bool, device: str):
    """Return a function that runs an update on given rows and returns its time in seconds."""
    sizes = {"n_embd": args.hidden_size, "n_head": args.hidden_size // 64, "n_layer": args.layers, "pad_token_id": 0}
    sizes |= {"embd_pdrop": args.dropout, "attn_pdrop": args.dropout, "resid_pdrop": args.dropout}
    torch.manual_seed(0)
    config = GPT1Config(vocab_size=len(processor.tokenizer), **sizes)
    model = GPT1ForSequenceClassification(config).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    collator = GPT1DataCollator(processor, packing=packed)
    clock = time.process_time if device == "cpu" else time.perf_counter

    def update(batch: list[int]) -> float:
        inputs = collator([{"input_ids": rows[row], "label": row % 2} for row in batch])
        begin = clock()
        model(**{name: tensor.to(device) for name, tensor in inputs.items()}).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device != "cpu":
            torch.accelerator.synchronize()
        return clock() - begin

    return update


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="Local copies laid out as on the Hub.")
    parser.add_argument("--tasks", nargs="+", default=list(COLUMNS), choices=COLUMNS, help="Tasks to measure.")
    parser.add_argument("--batch_size", type=int, default=32, help="Rows per update.")
    parser.add_argument("--updates", type=int, default=0, help="Number of updates to time.")
    parser.add_argument("--layers", type=int, default=12, help="Transformer blocks of the timed model.")
    parser.add_argument("--hidden_size", type=int, default=768, help="Width of the timed model.")
    parser.add_argument("--dropout", type=float, default=0.1, help="Dropout everywhere (paper: 0.1).")
    args = parser.parse_args(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print("| | order | tokens per epoch | padding | fewer by | faster by |")
    print("|---|---|---|---|---|---|")
    for task in args.tasks:
        processor, rows = encoded(task, args.data_dir)
        lengths = [len(row) for row in rows]
        batches = {
            name: [order[start : start + args.batch_size] for start in range(0, len(order), args.batch_size)]
            for name, order in orders(lengths, args.batch_size).items()
        }
        tokens = {name: n_tokens(batches[name], lengths, name == "packed") for name in batches}
        spent = dict.fromkeys(batches, 0.0)
        if args.updates:
            updates = {name: timer(processor, rows, args, name == "packed", device) for name in batches}
            for index in range(args.updates + 1):
                for name, update in updates.items():
                    # The middle batch of each part of the epoch. The first update is a warm-up.
                    part = len(batches[name]) * max(2 * index - 1, 0) // (2 * args.updates)
                    spent[name] += update(batches[name][part]) * (index > 0)
            del updates
        for name in batches:
            padding = f"{100 * (1 - sum(lengths) / tokens[name]):.0f} %"
            fewer = f"{tokens['fixed order'] / tokens[name]:.2f}"
            faster = f"{spent['fixed order'] / spent[name]:.2f}" if args.updates else "–"
            print(f"| {task} | {name} | {tokens[name]:,} | {padding} | {fewer} | {faster} |", flush=True)


if __name__ == "__main__":
    main()
