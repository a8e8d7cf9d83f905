"""Measure how fast a task on a user's file is read, checked and encoded, against the tokenizer alone.

    python tests/benchmarks/task_rows.py [--rows 1000000] [--words 20]

The file is a CSV of random words with one of three labels. Everything runs in one process, with an empty cache. `read`
opens the file and looks at its labels, `canonical` is `Task.load`, and `encode` is what training does with the rows.
The tokenizer's own rate is that of batches of the same texts. Peak memory is `VmHWM` of `/proc/self/status`, which
requires Linux; it includes the libraries, whose share is printed first. Rates are per CPU second of all threads, which
are comparable even if other work shares the cores.
"""

import argparse
import csv
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
from measure import Stopwatch, peak_gib

from gpt1_hf import GPT1Processor
from gpt1_hf.checkpoints.loading import open_tokenizer
from gpt1_hf.evaluation.task_scores import encode_rows
from gpt1_hf.tasks import task_from_files


WORDS = (
    "the a old young captain lady house garden letter night morning walked spoke smiled wept answered gently slowly "
    "never always dark bright kind cruel good bad and but with from into upon her his their Mr. Mrs. don't it's"
).split()
BATCH = 1000  # rows, as in `Dataset.map`


def write_csv(path: Path, n_rows: int, n_words: int):
    """Write a file of random texts with random labels."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(n_rows):
            writer.writerow([" ".join(draw.choices(WORDS, k=n_words)), draw.choice(["bad", "good", "so-so"])])


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--words", type=int, default=20, help="Words in a row.")
    args = parser.parse_args(argv)
    processor = GPT1Processor(open_tokenizer("gpt1-tiny"), "classification")
    print(f"libraries and tokenizer: peak {1024 * peak_gib():,.0f} MiB")
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        datasets.config.HF_DATASETS_CACHE = Path(folder) / "cache"
        path = Path(folder) / "train.csv"
        write_csv(path, args.rows, args.words)
        print(f"{args.rows:,} rows of {args.words} words: a file of {path.stat().st_size / 2**20:,.0f} MiB")

        @contextmanager
        def measured(step: str) -> Iterator[None]:
            with Stopwatch() as spent:
                yield
            seconds[step] = spent.cpu_seconds
            print(
                f"{step}: {spent.seconds:.2f} s, {seconds[step]:.2f} CPU s, peak {1024 * peak_gib():,.0f} MiB",
                flush=True,
            )

        with measured("read"):
            task = task_from_files(path, path).resolved()  # the same rows as validation rows: none is held out
        with measured("canonical"):
            rows = task.load("train")
        with measured("encode"):
            encoded = encode_rows(rows, processor, 128)
        n_tokens = 0
        with measured("tokenizer alone"):
            for start in range(0, len(rows), BATCH):
                n_tokens += sum(map(len, processor.tokenizer(rows[start : start + BATCH]["text"])["input_ids"]))
        own = n_tokens / seconds.pop("tokenizer alone")
        rate = n_tokens / sum(seconds.values())
        print(f"{len(encoded):,} rows, {n_tokens:,} tokens: {rate:,.0f} tokens/CPU s, the tokenizer alone {own:,.0f}")
        print(f"ratio {rate / own:.2f}")


if __name__ == "__main__":
    main()
