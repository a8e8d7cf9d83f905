"""`python recipes/scale.py --tasks 8 --config recipes/pretrain/X.yaml`: build the token stream of a run's corpus.

datatrove (extra `scale`) builds it in several processes; `gpt1 pretrain` with the same settings then reuses it. For
clusters see `gpt1_hf/data/datatrove_pipeline.py`.
"""

import argparse
import sys
from pathlib import Path

from gpt1_hf.checkpoints.loading import open_tokenizer
from gpt1_hf.cli import run_command
from gpt1_hf.cli.parser import parse
from gpt1_hf.data.datatrove_pipeline import build_with_datatrove
from gpt1_hf.errors import GPT1Error
from gpt1_hf.training.arguments import PretrainArguments


def main(argv: list[str]):
    parser = argparse.ArgumentParser(description=__doc__, add_help=False, allow_abbrev=False)
    parser.add_argument("--tasks", type=int, required=True, help="Shards, at most one per file of the corpus.")
    parser.add_argument("--workers", type=int, default=-1, help="Tasks that run at the same time. Default: all.")
    tasks, rest = parser.parse_known_args(argv)
    args = parse(PretrainArguments, rest, "pretrain", __doc__)
    if not args.corpus or not (args.tokenizer or args.model):
        raise GPT1Error("the token stream needs --corpus and --tokenizer or --model")
    stream = build_with_datatrove(
        args.corpus,
        open_tokenizer(args.tokenizer or args.model),
        Path(args.tokens_dir or Path(args.output_dir) / "tokens") / "train",
        tasks.tasks,
        tasks.workers,
        data_dir=args.data_dir,
        revision=args.corpus_revision,
        rows=args.corpus_rows,
        split=args.corpus_split,
        column=args.corpus_column,
        config=args.corpus_config,
    )
    print(f"{len(stream.document_ends):,} documents, {len(stream):,} tokens")


if __name__ == "__main__":
    sys.exit(run_command(lambda: main(sys.argv[1:])))
