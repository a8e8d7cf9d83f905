"""Export a model to ONNX or torch.export, and check that the program gives the model's logits."""

from ..errors import UsageError
from .flags import Parser, read_constant
from .scoring import add_scoring, scoring_of


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
    parser.add_argument(
        "--weights",
        choices=read_constant("gpt1_hf.checkpoints.export.WEIGHTS"),
        default="fp32",
        help="Type of the weights of an ONNX program. `int8` is smaller, and faster on a CPU. Its logits differ from "
        "the model's: --text_file or --task shows what that costs. Default: fp32.",
    )
    add_scoring(parser)
    args = parser.parse_args(argv)
    if args.weights == "int8" and args.format != "onnx":
        raise UsageError(f"--format {args.format} has no int8 weights: drop --weights int8, or choose --format onnx")
    evaluation = scoring_of(args)

    from ..evaluation.quantization_cost import export_and_score, format_comparison

    result, comparison = export_and_score(
        args.model, args.output_dir, args.format, args.use_cache, args.weights, evaluation
    )
    print(f"{result.architecture} saved in {args.output_dir}; inputs: {', '.join(result.inputs)}")
    difference = f"{result.difference:.1e}"
    if args.weights == "int8":
        share = f"{100 * result.relative_difference:.1f} %"
        difference += f", {share} of the largest logit, and {result.fp32_difference:.1e} in fp32"
    print(f"largest difference from the model's logits in {result.n_cases} comparisons: {difference}")
    if comparison:
        print(format_comparison(comparison, args.weights if args.weights == "int8" else args.format))
