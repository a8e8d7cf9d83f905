"""Convert OpenAI's release or an OpenAIGPT checkpoint to this package's layout, or back."""

from .flags import Parser, read_constant


def main(argv: list[str]):
    parser = Parser("convert", f"{__doc__} The result is kept only if its logits equal the source's on random tokens.")
    parser.add_argument(
        "source",
        help="Folder of OpenAI's release (params_0.npy to params_9.npy, params_shapes.json and, optionally, the "
        "vocabulary); or folder or Hub id of a language model, such as openai-community/openai-gpt.",
    )
    parser.add_argument("--output_dir", required=True, help="Folder to save the model in, new or empty.")
    parser.add_argument(
        "--to",
        choices=read_constant("gpt1_hf.checkpoints.conversion.LAYOUTS"),
        default="gpt1",
        help="Layout to write: this package's, or transformers' OpenAIGPT. Default: gpt1.",
    )
    args = parser.parse_args(argv)

    from ..checkpoints.conversion import convert
    from ..hub.card import write_derived_card

    result = convert(args.source, args.output_dir, args.to)
    if args.to == "gpt1":
        write_derived_card(args.output_dir, args.source, "converted")
    print(f"{result.n_parameters / 1e6:.1f} M parameters saved in {args.output_dir}")
    print(f"largest difference from the source's logits: {result.difference:.1e}")
    if not result.has_tokenizer:
        print("the source has no tokenizer: convert OpenAI's vocabulary with `gpt1 tokenizer convert`")
