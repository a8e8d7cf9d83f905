"""Convert OpenAI's release or an OpenAIGPT checkpoint to this package's layout, or back."""

from .flags import Parser, read_constant


def main(argv: list[str]):
    parser = Parser("convert", f"{__doc__} The result is compared with its source on random tokens before it is kept.")
    parser.add_argument(
        "source",
        help="Folder of OpenAI's release (params_0.npy to params_9.npy, params_shapes.json and, if it is there, the "
        "vocabulary); or folder or Hub id of a language model: openai-community/openai-gpt, gpt1-tiny.",
    )
    parser.add_argument("--output_dir", required=True, help="Where to save the model; a new or empty folder.")
    parser.add_argument(
        "--to",
        choices=read_constant("gpt1_hf.checkpoints.conversion.LAYOUTS"),
        default="gpt1",
        help="Layout to write: this package's, or transformers' OpenAIGPT. Default: gpt1.",
    )
    args = parser.parse_args(argv)

    from ..checkpoints.conversion import convert

    result = convert(args.source, args.output_dir, args.to)
    print(f"{result.n_parameters / 1e6:.1f} M parameters saved in {args.output_dir}")
    print(f"largest difference to the source's logits: {result.difference:.1e}")
    if not result.has_tokenizer:
        print("the source has no tokenizer: `gpt1 tokenizer convert` reads OpenAI's vocabulary")
