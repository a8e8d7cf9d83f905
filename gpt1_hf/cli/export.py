"""Export a model to ONNX or torch.export, and check that the program gives the model's logits."""

from .flags import Parser, read_constant


def main(argv: list[str]):
    parser = Parser("export", __doc__)
    parser.add_argument("model", help="Model with any head: folder, Hub id, or gpt1-tiny.")
    parser.add_argument("--output_dir", required=True, help="Folder to save the program in, new or empty.")
    parser.add_argument(
        "--format",
        choices=read_constant("gpt1_hf.checkpoints.export.FORMATS"),
        default="onnx",
        help="Format; `onnx` needs the extra `onnx`. Default: onnx.",
    )
    parser.add_argument(
        "--use_cache",
        action="store_true",
        help="For a language model: take keys and values of earlier tokens as input, and return those of all tokens.",
    )
    args = parser.parse_args(argv)

    from ..checkpoints.export import export

    result = export(args.model, args.output_dir, args.format, args.use_cache)
    print(f"{result.architecture} saved in {args.output_dir}; inputs: {', '.join(result.inputs)}")
    print(f"largest difference from the model's logits in {result.n_cases} comparisons: {result.difference:.1e}")
