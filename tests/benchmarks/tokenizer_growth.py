"""Measure how the tokenizer's time grows with the length of a text: about fourfold from 250 kB to 1 MB.

    python tests/benchmarks/tokenizer_growth.py

Each text repeats one piece, or has one long run of a character inside a word. A careless pattern would rescan the run
from each of its characters and take 16 times as long for 4 times the text.
"""

import argparse
import time

from gpt1_hf.checkpoints.loading import open_tokenizer


LENGTHS = (250_000, 1_000_000)
REPEATED = ["a", "He said so. ", ".", "'", "-", "!", " ", "\n", "a:", "a.B", "1km", "a' ", "&amp;", "e\u0301"]
INSIDE_A_WORD = ["'", "-", ".", "!", "'s"]


def seconds(tokenizer, text: str) -> float:
    begin = time.process_time()
    tokenizer(text, verbose=False)
    return time.process_time() - begin


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="Makes every text this many times as long.")
    lengths = [int(length * parser.parse_args(argv).scale) for length in LENGTHS]
    tokenizer = open_tokenizer("gpt1-tiny")
    texts = {repr(piece): [piece * (length // len(piece)) for length in lengths] for piece in REPEATED}
    for mark in INSIDE_A_WORD:
        texts[f"a{mark}...{mark}b"] = [f"a{mark * (length // len(mark))}b" for length in lengths]
    print("| text | s for a quarter | s for all | growth |\n|---|---|---|---|")
    for name, (short, long) in texts.items():
        first, second = seconds(tokenizer, short), seconds(tokenizer, long)
        print(f"| {name} | {first:.2f} | {second:.2f} | {second / max(first, 1e-9):.1f}-fold |", flush=True)


if __name__ == "__main__":
    main()
