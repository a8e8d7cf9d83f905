"""Flags of the commands that change a model and score it before and after."""

import argparse
from typing import TYPE_CHECKING, Any

from ..errors import UsageError


if TYPE_CHECKING:
    from ..evaluation.evaluate import EvaluateArguments


NAMES = ("text_file", "task", "split", "sample", "data_dir", "max_characters", "batch_size")


def add_scoring(parser: argparse.ArgumentParser):
    """Add the flags that say what to score."""
    scored = parser.add_mutually_exclusive_group()
    scored.add_argument("--text_file", help="Text to score a language model on, as in `gpt1 evaluate`.")
    scored.add_argument("--task", help="Task to score a fine-tuned model on.")
    parser.add_argument("--split", help="Split of the task or of the text. Default: validation.")
    parser.add_argument("--sample", action="store_true", help="Score the small labelled sample in the package.")
    parser.add_argument("--data_dir", help="Folder with local copies of data sets. Default: GPT1_DATA_DIR.")
    parser.add_argument(
        "--max_characters", type=int, help="Score only this many characters from the start of the text."
    )
    parser.add_argument("--batch_size", type=int, default=16, help="Rows or windows of text per forward pass.")


def scoring_of(args: argparse.Namespace) -> "EvaluateArguments | None":
    """
    What to score, or `None`.

    Raises:
        UsageError: if the flags do not fit together.
    """
    values: dict[str, Any] = {name: getattr(args, name) for name in NAMES}
    if not args.text_file and not args.task:
        if args.split or args.sample:
            raise UsageError("--split and --sample select what to score: also give --task or --text_file")
        return None

    from ..evaluation.evaluate import EvaluateArguments
    from ..settings import default_data_dir

    return EvaluateArguments(**values | {"data_dir": args.data_dir or default_data_dir()})
