"""Measure the time and memory that a token stream takes as its corpus grows.

    python tests/benchmarks/corpus.py --corpus books --data_dir DIR

Each size is built in its own process from the start of the corpus. Peak memory is `VmHWM` of `/proc/self/status`,
which requires Linux; the process has no children, because tokenization uses threads. CPU seconds cover all threads, so
they are comparable even if other work shares the cores.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from gpt1_hf.checkpoints.loading import open_tokenizer
from gpt1_hf.data.corpus import read_pieces
from gpt1_hf.data.token_stream import build_token_stream
from gpt1_hf.settings import default_data_dir


SIZES = [10, 20, 40, 76]  # million characters


def peak_memory() -> float:
    """Peak memory of this process so far, in MiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def first(pieces: Iterable[tuple[int, str]], n_characters: int) -> Iterator[tuple[int, str]]:
    """The first characters of a corpus."""
    for number, piece in pieces:
        yield number, piece[:n_characters]
        n_characters -= len(piece) + 1
        if n_characters <= 0:
            return


def build(args: argparse.Namespace):
    """Build one stream and print its table row."""
    tokenizer = open_tokenizer(args.tokenizer)
    before = peak_memory()
    with tempfile.TemporaryDirectory() as folder:
        begin, cpu_begin = time.perf_counter(), time.process_time()
        pieces = first(read_pieces(args.corpus, "train", args.data_dir), args.only * 10**6)
        stream = build_token_stream(pieces, tokenizer, Path(folder) / "tokens", "benchmark")
        seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
    characters = sum(stream.document_chars)
    counts = (characters, len(stream), seconds, characters / seconds, cpu_seconds, characters / cpu_seconds)
    cells = (f"{count:,.{0 if count > 100 else 1}f}" for count in (*counts, before, peak_memory()))
    print(f"| {' | '.join(cells)} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", default="books")
    parser.add_argument("--data_dir", default=default_data_dir())
    parser.add_argument("--tokenizer", default="gpt1-tiny")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="Sizes in million characters.")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        return build(args)
    print(f"{os.cpu_count()} CPU cores")
    columns = ("characters", "tokens", "s", "characters/s", "CPU s", "characters/CPU s", "MiB before", "peak MiB")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)
    for size in args.sizes:
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--only", str(size)], check=True)


if __name__ == "__main__":
    main()
