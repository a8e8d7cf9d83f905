"""Save a model with 8-bit weights, and show the loss of quality."""

from .flags import Parser
from .scoring import add_scoring, scoring_of


def main(argv: list[str]):
    parser = Parser("quantize", f"{__doc__} Needs the extra `quantize`.")
    parser.add_argument("model", help="Model with any head: folder, Hub id, or gpt1-tiny.")
    parser.add_argument("--output_dir", required=True, help="Folder to save it in, new or empty.")
    add_scoring(parser)
    args = parser.parse_args(argv)
    evaluation = scoring_of(args)

    from ..evaluation.quantization_cost import format_comparison, quantize_and_score
    from ..hub.card import write_derived_card

    comparison = quantize_and_score(args.model, args.output_dir, evaluation)
    write_derived_card(args.output_dir, args.model, "quantized to 8 bits", "quantized")
    print(format_comparison(comparison))
    print(f"saved in {args.output_dir}")
