"""Train a tokenizer on text, or convert the original vocabulary."""

import argparse


def main(argv: list[str]):
    from ..data.corpus import chunks, read_documents
    from ..data.loading import default_data_dir
    from ..tokenization_gpt1 import GPT1Tokenizer

    parser = argparse.ArgumentParser(prog="gpt1 tokenizer", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    train = actions.add_parser("train", help="Learn a byte-pair vocabulary from text.")
    train.add_argument(
        "--corpus", required=True, help="As for `gpt1 pretrain`: .txt files, parquet, JSON lines, Hub id."
    )
    train.add_argument("--vocab_size", type=int, default=40478, help="Entries: base characters and merges.")
    train.add_argument("--model_max_length", type=int, default=512, help="Context of the model it is for, in tokens.")
    train.add_argument(
        "--data_dir", default=default_data_dir(), help="Folder with local copies laid out as on the Hub."
    )
    train.add_argument("--output_dir", required=True, help="Where to save the tokenizer.")
    convert = actions.add_parser("convert", help="Read encoder_bpe_40000.json and vocab_40000.bpe.")
    convert.add_argument("folder", help="Folder with the two files.")
    convert.add_argument("--output_dir", required=True, help="Where to save the tokenizer.")
    args = parser.parse_args(argv)

    if args.action == "train":
        documents = read_documents(args.corpus, "train", args.data_dir)
        tokenizer = GPT1Tokenizer.train(chunks(documents), args.vocab_size, args.model_max_length)
    else:
        tokenizer = GPT1Tokenizer.from_original(args.folder)
    tokenizer.save_pretrained(args.output_dir)
    print(f"{len(tokenizer):,} entries saved in {args.output_dir}")
