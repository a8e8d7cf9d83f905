"""Export a model to ONNX or torch.export, and check that its outputs stay the same."""

from .flags import Parser, read_constant


def main(argv: list[str]):
    parser = Parser("export", __doc__)
    parser.add_argument("model", help="Model with any head: folder, Hub id, or gpt1-tiny.")
    parser.add_argument("--output_dir", required=True, help="Where to save the program; a new or empty folder.")
    parser.add_argument(
        "--format",
        choices=read_constant("gpt1_hf.checkpoints.export.FORMATS"),
        default="onnx",
        help="Default: onnx, which needs the extra `onnx`.",
    )
    parser.add_argument(
        "--use_cache",
        action="store_true",
        help="Of a language model: keys and values of earlier tokens are an input, those of all tokens an output.",
    )
    args = parser.parse_args(argv)

    from ..checkpoints.export import export

    result = export(args.model, args.output_dir, args.format, args.use_cache)
    print(f"{result.architecture} saved in {args.output_dir}; its inputs: {', '.join(result.inputs)}")
    print(f"largest difference to the model's logits, in {result.n_cases} comparisons: {result.difference:.1e}")
