"""Draw attention, token probabilities and input formats of a model for a text, as a page or pictures."""

import sys

from ..errors import UsageError
from .flags import Parser, read_constant


def main(argv: list[str]):
    parser = Parser("show", __doc__)
    parser.add_argument(
        "--text",
        nargs="+",
        action="extend",
        required=True,
        help="Text; - reads it from standard input. For a fine-tuned model or --input_format, the texts of one row in "
        "the order of the format: both texts of a pair; document, question and choices.",
    )
    parser.add_argument(
        "--model", default="gpt1-tiny", help="Language model or fine-tuned model: folder, Hub id, or gpt1-tiny."
    )
    parser.add_argument(
        "--output",
        help="An .html file, a .png file (needs matplotlib), or a folder for both. Default: "
        "runs/show/<model>/show.html.",
    )
    parser.add_argument(
        "--input_format",
        choices=read_constant("gpt1_hf.processing_gpt1.INPUT_FORMATS"),
        help="Show how a row of this format becomes tokens. Default: the format of a fine-tuned model.",
    )
    parser.add_argument(
        "--max_tokens",
        type=int,
        default=40,
        help="Tokens in a heatmap: of a longer text, the first and the last ones. Default: 40.",
    )
    parser.add_argument("--layers", type=int, nargs="+", help="Layers to draw, counted from 1. Default: all.")
    parser.add_argument("--heads", type=int, nargs="+", help="Attention heads to draw, counted from 1. Default: all.")
    args = parser.parse_args(argv)
    texts = [sys.stdin.read().rstrip("\n") if text == "-" else text for text in args.text]
    if not any(text.strip() for text in texts):
        raise UsageError("the text is empty: give --text something to read")

    from ..inside.show import show

    files = show(texts, args.model, args.output, args.input_format, args.max_tokens, args.layers, args.heads)
    for file in files:
        print(f"written to {file}")
