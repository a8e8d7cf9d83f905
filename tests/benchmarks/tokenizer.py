"""Measure how often tokenizers reproduce the ids that GPT-1 was trained on, and how fast they are.

    python tests/benchmarks/tokenizer.py --data_dir DIR [--texts 20000] [--seed 0] [--threads N]

Every corpus is a sample of its distinct texts. The oracle is the original pipeline (`helpers/original_tokenizer.py`,
extra `exact`). It caches every word, so each corpus has a new one. The others are our tokenizer and transformers'
OpenAIGPTTokenizer, both with the original vocabulary. Tokens are compared by aligning the ids of a text with the
oracle's. Speed is that of whole calls on batches of 500 texts, with all three in turn on the same batch. For ours and
transformers', which use several threads, the best of three rounds counts; the oracle has one thread and one round. The
last two columns divide the times of transformers' tokenizer and the oracle by ours: above 1, ours is faster.
"""

import argparse
import csv
import json
import os
import random
import re
import sys
import time
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path

import pyarrow.parquet as pq
from measure import OURS, Comparison, compare, timed
from transformers import OpenAIGPTTokenizer

from gpt1_hf import GPT1Tokenizer
from gpt1_hf.checkpoints.loading import open_tokenizer
from gpt1_hf.resources import SAMPLES


# Corpus -> folder under the data directory, and the columns that hold text.
CORPORA = {
    "cola": ("nyu-mll/glue/cola", ["sentence"]),
    "sst2": ("nyu-mll/glue/sst2", ["sentence"]),
    "mnli": ("nyu-mll/glue/mnli", ["premise", "hypothesis"]),
    "qnli": ("nyu-mll/glue/qnli", ["question", "sentence"]),
    "rte": ("nyu-mll/glue/rte", ["sentence1", "sentence2"]),
    "mrpc": ("nyu-mll/glue/mrpc", ["sentence1", "sentence2"]),
    "qqp": ("nyu-mll/glue/qqp", ["question1", "question2"]),
    "stsb": ("nyu-mll/glue/stsb", ["sentence1", "sentence2"]),
    "snli": ("stanfordnlp/snli/plain_text", ["premise", "hypothesis"]),
    "scitail": ("allenai/scitail/tsv_format", ["premise", "hypothesis"]),
    "race": ("ehovy/race", ["article", "question", "options"]),
}
BATCH = 500


def paragraphs(data_dir: Path) -> list[list[str]]:
    """The paragraphs of each book."""
    books = [text for file in sorted((data_dir / "books").glob("*.parquet")) for text in column(file, "text")]
    return [[p for p in re.split(r"\n\s*\n", book) if p.strip()] for book in books]


def column(file: Path, name: str) -> list:
    return pq.read_table(file, columns=[name]).column(name).to_pylist()


def sample_texts(n_bytes: int) -> list[str]:
    """Sentences of the packaged samples in random order, repeated up to a size."""
    rows = [json.loads(line) for file in sorted(SAMPLES.rglob("*.jsonl")) for line in file.open(encoding="utf-8")]
    sentences = [value for row in rows for value in row.values() if isinstance(value, str) and " " in value]
    draw, texts = random.Random(0), []
    while n_bytes > 0:
        texts.append(draw.choice(sentences))
        n_bytes -= len(texts[-1].encode())
    return texts


def compare_speed(rounds: int = 5, n_bytes: int = 1_000_000) -> list[Comparison]:
    """Compare the speed of gpt1-tiny's tokenizer with transformers' OpenAIGPTTokenizer with the same vocabulary."""
    ours, texts = open_tokenizer("gpt1-tiny"), sample_texts(n_bytes)
    model = json.loads(ours.backend_tokenizer.to_str())["model"]
    theirs = OpenAIGPTTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])

    def encode(tokenizer):
        for start in range(0, len(texts), BATCH):
            tokenizer(texts[start : start + BATCH], verbose=False)

    encode(ours), encode(theirs)  # warm-up: both keep words that they have seen
    steps = {OURS: timed(lambda: encode(ours), "cpu"), "OpenAIGPT": timed(lambda: encode(theirs), "cpu")}
    size = sum(len(text.encode()) for text in texts) / 1e6
    return [compare("tokenizer", "packaged sentences", "MB/s", steps, size, rounds)]


def corpora(data_dir: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the distinct texts of each corpus."""
    books = paragraphs(data_dir)
    yield "books: paragraphs", [paragraph for book in books for paragraph in book]
    yield (
        "books: five paragraphs",
        ["\n\n".join(book[i : i + 5]) for book in books for i in range(0, len(book) - 4, 5)],
    )
    for name, (folder, columns) in CORPORA.items():
        cells = [
            cell
            for file in sorted((data_dir / folder).rglob("*.parquet"))
            for c in columns
            for cell in column(file, c)
        ]
        yield name, [text for cell in cells for text in (cell if isinstance(cell, list) else [cell])]
    rows = [
        row
        for file in sorted((data_dir / "story_cloze").glob("*.csv"))
        for row in list(csv.reader(file.open(encoding="utf-8")))[1:]
    ]
    yield "story_cloze", [text for row in rows for text in row[1:7]]


def differing(ids: list[int], expected: list[int]) -> int:
    """Number of expected tokens without a counterpart, at least 1 if the two lists differ."""
    if ids == expected:
        return 0
    matches = SequenceMatcher(None, ids, expected, autojunk=False).get_matching_blocks()
    return max(1, len(expected) - sum(match.size for match in matches))


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="Local copies laid out as on the Hub.")
    parser.add_argument("--texts", type=int, default=20_000, help="Maximum number of texts per corpus.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the samples.")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="Threads of ours and transformers'. Default: all cores."
    )
    parser.add_argument("--show", type=int, default=0, help="Number of differing texts to print per corpus.")
    args = parser.parse_args(argv)
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from helpers.original_tokenizer import OriginalTokenizer

    # The tokenizers read these when they encode the first batch.
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    os.environ["RAYON_NUM_THREADS"] = str(args.threads)

    folder = args.data_dir / "openai-community" / "openai-gpt"
    vocab = json.loads((folder / "encoder_bpe_40000.json").read_text(encoding="utf-8"))
    lines = (folder / "vocab_40000.bpe").read_text(encoding="utf-8").split("\n")[1:-1]
    ours = GPT1Tokenizer.from_original(folder)
    theirs = OpenAIGPTTokenizer(vocab=vocab, merges=[tuple(line.split()) for line in lines])
    encoders = {
        "ours": lambda texts: ours(texts, verbose=False)["input_ids"],
        "theirs": lambda texts: theirs(texts, verbose=False)["input_ids"],
        "oracle": None,
    }
    print(f"{args.threads} threads")
    print("| corpus | texts | tokens | same texts, ours | same tokens, ours | same texts, OpenAIGPTTokenizer ", end="")
    print("| same tokens, OpenAIGPTTokenizer | MB/s ours | MB/s OpenAIGPTTokenizer | MB/s oracle ", end="")
    print("| ours / OpenAIGPTTokenizer | ours / oracle |")
    print("|" + "---|" * 12)
    for name, texts in corpora(args.data_dir):
        texts = [text for text in dict.fromkeys(texts) if text and not text.isspace()]
        random.Random(args.seed).shuffle(texts)
        texts = texts[: args.texts]
        oracle = OriginalTokenizer(folder)
        encoders["oracle"] = lambda texts, oracle=oracle: [oracle.encode(text) for text in texts]
        seconds, wrong_texts, wrong_tokens = (dict.fromkeys(encoders, 0) for _ in range(3))
        n_tokens, shown = 0, 0
        for start in range(0, len(texts), BATCH):
            batch, ids = texts[start : start + BATCH], {}
            rounds = {encoder: [] for encoder in encoders}
            for repetition in range(3):
                for encoder, encode in encoders.items():
                    if encoder == "oracle" and repetition:
                        continue
                    begin = time.perf_counter()
                    ids[encoder] = encode(batch)
                    rounds[encoder].append(time.perf_counter() - begin)
            for encoder in encoders:
                seconds[encoder] += min(rounds[encoder])
                wrong = [differing(a, b) for a, b in zip(ids[encoder], ids["oracle"], strict=True)]
                wrong_texts[encoder] += sum(map(bool, wrong))
                wrong_tokens[encoder] += sum(wrong)
                if encoder == "ours":
                    for text in [text for text, count in zip(batch, wrong, strict=True) if count]:
                        shown += 1
                        if shown <= args.show:
                            print(repr(text[:300]), file=sys.stderr)
            n_tokens += sum(map(len, ids["oracle"]))
        size = sum(len(text.encode(errors="replace")) for text in texts) / 1e6
        row = [name, f"{len(texts):,}", f"{n_tokens:,}"]
        for encoder in ("ours", "theirs"):
            row += [f"{100 * (1 - wrong_texts[encoder] / len(texts)):.2f} %"]
            row += [f"{100 * (1 - wrong_tokens[encoder] / n_tokens):.3f} %"]
        row += [f"{size / seconds[encoder]:.2f}" for encoder in encoders]
        row += [f"{seconds[encoder] / seconds['ours']:.2f}" for encoder in ("theirs", "oracle")]
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
