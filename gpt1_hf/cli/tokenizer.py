"""Train a tokenizer on text, or convert the original vocabulary."""

import json
import sys

from ..console import no_bars
from ..errors import GPT1Error
from ..files import writing
from ..settings import NO_LIMIT, check_ranges
from .flags import Parser, read_constant


def main(argv: list[str]):
    parser = Parser("tokenizer", __doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    train = actions.add_parser("train", help="Learn a byte-pair vocabulary from text.")
    train.add_argument(
        "--corpus", required=True, help="Corpus as for `gpt1 pretrain`: .txt files, files of rows, or a Hub id."
    )
    train.add_argument("--vocab_size", type=int, default=40478, help="Vocabulary size: base characters and merges.")
    train.add_argument("--model_max_length", type=int, default=512, help="Context length of the model, in tokens.")
    train.add_argument("--data_dir", help="Folder with local copies, laid out as on the Hub. Default: GPT1_DATA_DIR.")
    train.add_argument("--corpus_column", default="text", help="Column of the corpus's rows that holds the text.")
    train.add_argument(
        "--corpus_config", help="Configuration of the corpus on the Hub; in a local copy, a sub-folder."
    )
    train.add_argument("--corpus_split", default="train", help="Split of the corpus to read.")
    train.add_argument("--corpus_revision", help="Revision of the corpus on the Hub.")
    train.add_argument(
        "--corpus_rows",
        choices=read_constant("gpt1_hf.data.corpus.ROWS"),
        default="documents",
        help="Whether a row of the corpus is a document, or a line of one running text.",
    )
    train.add_argument("--output_dir", required=True, help="Where to save the tokenizer.")
    convert = actions.add_parser("convert", help="Convert OpenAI's vocabulary to this package's tokenizer.")
    convert.add_argument(
        "source",
        help="Folder with encoder_bpe_40000.json and vocab_40000.bpe, or vocab.json and merges.txt; or a Hub id.",
    )
    convert.add_argument("--fix_text", action="store_true", help="Run ftfy on every text first (extra `exact`).")
    convert.add_argument("--output_dir", required=True, help="Where to save the tokenizer.")
    args = parser.parse_args(argv)

    if args.action == "train":
        check_ranges(args, {"vocab_size": (1, 2**31), "model_max_length": (2, NO_LIMIT)})

    from ..data.corpus import read_pieces
    from ..files import check_writable
    from ..settings import default_data_dir
    from ..tokenization_gpt1 import GPT1Tokenizer

    check_writable(args.output_dir)  # before the corpus is read
    if args.action == "train":
        source = (args.corpus, args.corpus_split, args.data_dir or default_data_dir(), args.corpus_revision)
        columns = (args.corpus_rows, args.corpus_column, args.corpus_config)
        pieces = (piece for _, piece in read_pieces(*source, *columns))
        # The library's bars end with line breaks on standard output.
        has_bars = sys.stdout.isatty() and not no_bars()
        tokenizer = GPT1Tokenizer.train(pieces, args.vocab_size, args.model_max_length, has_bars)
    else:
        try:
            tokenizer = GPT1Tokenizer.from_original(args.source, fix_text=args.fix_text)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise GPT1Error(f"the vocabulary in {args.source} is damaged ({error}): download it again") from error
    with writing(args.output_dir, "give another --output_dir"):
        tokenizer.save_pretrained(args.output_dir)
    print(f"{len(tokenizer):,} entries saved in {args.output_dir}")
