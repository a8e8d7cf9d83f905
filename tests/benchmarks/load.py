"""Measure unusual and heavy input: one line of 50 MB, a million rows of one word, words of ten thousand letters.

    python tests/benchmarks/load.py

Each case runs in its own process. CPU seconds cover all its threads. Peak memory is `VmHWM` of `/proc/self/status`,
which requires Linux; "MiB before" is the memory of the imports and the tokenizer. `--scale 0.1` makes every input a
tenth as large.
"""

import argparse
import contextlib
import io
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset
from measure import Stopwatch, peak_gib

from gpt1_hf import GPT1Config, GPT1ForCausalLM, GPT1Processor
from gpt1_hf.checkpoints.loading import open_tokenizer
from gpt1_hf.cli import main as gpt1
from gpt1_hf.data.corpus import read_pieces
from gpt1_hf.data.token_stream import build_token_stream
from gpt1_hf.evaluation.task_scores import encode_rows


WORDS = "the a old young captain lady house garden letter night morning walked spoke don't Mr. 12 km, and but".split()
ONE_LINE, ROWS, LONG_WORD = 50_000_000, 1_000_000, 10_000


def one_line(n_characters: int) -> Iterator[str]:
    rng, written = random.Random(0), 0
    while written < n_characters:
        text = " ".join(rng.choices(WORDS, k=10_000)) + ". "
        written += len(text)
        yield text


def long_words(n_words: int) -> Iterator[str]:
    rng = random.Random(0)
    for _ in range(n_words):
        yield "".join(rng.choices("etaoinshrdlu", k=LONG_WORD)) + " "


def write(folder: Path, name: str, texts: Iterator[str]) -> str:
    with (folder / name).open("w", encoding="utf-8") as file:
        file.writelines(texts)
    return str(folder / name)


def corpus(folder: Path, name: str, texts: Iterator[str]):
    path = write(folder, name, texts)

    def run(tokenizer):
        return f"{len(build_token_stream(read_pieces(path), tokenizer, folder / 'tokens', 'load')):,} tokens"

    return run


def evaluate(folder: Path, texts: Iterator[str]):
    path, model = write(folder, "text.txt", texts), folder / "model"
    tokenizer = open_tokenizer("gpt1-tiny")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 512}
    GPT1ForCausalLM(GPT1Config(vocab_size=len(tokenizer), **sizes)).save_pretrained(model)
    tokenizer.save_pretrained(model)

    def run(_):
        argv = ["evaluate", "--model", str(model), "--text_file", path, "--output_dir", str(folder / "out")]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert gpt1(argv) == 0
        return f"perplexity {json.loads((folder / 'out' / 'results.json').read_text())[0]['value']:,.0f}"

    return run


def tokenize(text: str):
    return lambda tokenizer: f"{len(tokenizer(text, verbose=False)['input_ids']):,} tokens"


def rows(texts: list[str]):
    dataset = Dataset.from_dict({"text": texts, "label": [0] * len(texts)})

    def run(tokenizer):
        encoded = encode_rows(dataset, GPT1Processor(tokenizer), 512)
        return f"{len(encoded):,} rows, {sum(encoded['truncated'])} cut"

    return run


def cases(scale: float) -> dict:
    """Name of each case -> a function that writes its input to a folder and returns the function to measure."""
    n_line, n_rows, n_words = int(ONE_LINE * scale), int(ROWS * scale), max(int(200 * scale), 1)
    json_rows = ('{"text": "word"}\n' for _ in range(n_rows))
    return {
        f"corpus, one line of {n_line / 1e6:g} MB": lambda d: corpus(d, "x.txt", one_line(n_line)),
        f"corpus, {n_rows:,} rows of one word": lambda d: corpus(d, "x.jsonl", json_rows),
        f"corpus, {n_words} words of 10,000 letters": lambda d: corpus(d, "x.txt", long_words(n_words)),
        f"evaluate, one line of {n_line / 5e7:g} MB": lambda d: evaluate(d, one_line(n_line // 50)),
        f"tokenizer, one line of {n_line / 1e7:g} MB": lambda d: tokenize("".join(one_line(n_line // 10))),
        "tokenizer, a word of 100,000 letters": lambda d: tokenize("".join(long_words(10)).replace(" ", "")),
        f"fine-tuning, {n_rows // 5:,} rows of one word": lambda d: rows(["word"] * (n_rows // 5)),
        f"fine-tuning, 10 rows of {n_line / 5e7:g} MB": lambda d: rows(["".join(one_line(n_line // 50))] * 10),
    }


def measure(name: str, scale: float):
    """Run one case and print its table row."""
    with tempfile.TemporaryDirectory() as folder:
        run, tokenizer = cases(scale)[name](Path(folder)), open_tokenizer("gpt1-tiny")
        before = peak_gib()
        with Stopwatch() as spent:
            outcome = run(tokenizer)
    memory = f"{before * 1024:,.0f} | {peak_gib('cpu') * 1024:,.0f}"
    print(f"| {name} | {outcome} | {spent.seconds:.1f} | {spent.cpu_seconds:.1f} | {memory} |", flush=True)


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.only:
        return measure(args.only, args.scale)
    columns = ("input", "outcome", "s", "CPU s", "MiB before", "peak MiB")
    print(f"{os.cpu_count()} CPU cores\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)
    for name in cases(args.scale):
        command = [sys.executable, __file__, *(sys.argv[1:] if argv is None else argv), "--only", name]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)  # hides progress bars


if __name__ == "__main__":
    main()
