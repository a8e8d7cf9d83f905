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
from collections.abc import Iterable, Iterator
from pathlib import Path

from measure import Stopwatch, peak_gib

from gpt1_hf.checkpoints.loading import open_tokenizer
from gpt1_hf.data.corpus import read_pieces
from gpt1_hf.data.token_stream import build_token_stream
from gpt1_hf.settings import default_data_dir


SIZES = [10, 20, 40, 76]  # million characters


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
    before = 1024 * peak_gib()
    with tempfile.TemporaryDirectory() as folder:
        with Stopwatch() as spent:
            pieces = first(read_pieces(args.corpus, "train", args.data_dir), int(args.only * 10**6))
            stream = build_token_stream(pieces, tokenizer, Path(folder) / "tokens", "benchmark")
    characters, seconds, cpu_seconds = sum(stream.document_chars), spent.seconds, spent.cpu_seconds
    counts = (characters, len(stream), seconds, characters / seconds, cpu_seconds, characters / cpu_seconds)
    cells = (f"{count:,.{0 if count > 100 else 1}f}" for count in (*counts, before, 1024 * peak_gib()))
    print(f"| {' | '.join(cells)} |", flush=True)


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", default="books")
    parser.add_argument("--data_dir", default=default_data_dir())
    parser.add_argument("--tokenizer", default="gpt1-tiny")
    parser.add_argument("--sizes", type=float, nargs="+", default=SIZES, help="Sizes in million characters.")
    parser.add_argument("--only", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.only:
        return build(args)
    print(f"{os.cpu_count()} CPU cores")
    columns = ("characters", "tokens", "s", "characters/s", "CPU s", "characters/CPU s", "MiB before", "peak MiB")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)
    for size in args.sizes:
        own_argv = sys.argv[1:] if argv is None else argv
        subprocess.run([sys.executable, __file__, *own_argv, "--only", str(size)], check=True)


if __name__ == "__main__":
    main()
