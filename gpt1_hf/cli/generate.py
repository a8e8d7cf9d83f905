"""Continue a text with a language model."""

import argparse


def main(argv: list[str]):
    from ..generation import generate

    parser = argparse.ArgumentParser(prog="gpt1 generate", description=__doc__)
    parser.add_argument("prompt", help="Text to continue.")
    parser.add_argument("--model", default="gpt1-tiny", help="Folder, Hub id, or gpt1-tiny.")
    parser.add_argument("--max_new_tokens", type=int, default=60, help="Longest continuation in tokens.")
    parser.add_argument("--temperature", type=float, default=0.8, help="Sampling temperature; 0 is greedy.")
    parser.add_argument("--top_p", type=float, default=0.95, help="Sample from the most probable tokens of this mass.")
    parser.add_argument("--num_return_sequences", type=int, default=1, help="Number of continuations.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the sampling.")
    for text in generate(**vars(parser.parse_args(argv))):
        print(text)
