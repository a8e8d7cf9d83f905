"""Save a model with 8-bit weights, and show the loss of quality."""

from ..errors import UsageError
from .flags import Parser


def main(argv: list[str]):
    parser = Parser("quantize", f"{__doc__} Needs the extra `quantize`.")
    parser.add_argument("model", help="Model with any head: folder, Hub id, or gpt1-tiny.")
    parser.add_argument("--output_dir", required=True, help="Folder to save it in, new or empty.")
    scored = parser.add_mutually_exclusive_group()
    scored.add_argument("--text_file", help="Text to score a language model on, as in `gpt1 evaluate`.")
    scored.add_argument("--task", help="Task to score a fine-tuned model on.")
    parser.add_argument("--split", help="Split of the task or of the text. Default: validation.")
    parser.add_argument("--sample", action="store_true", help="Score the small labelled sample in the package.")
    parser.add_argument("--data_dir", help="Folder with local copies of data sets. Default: GPT1_DATA_DIR.")
    parser.add_argument(
        "--max_characters", type=int, help="Score only this many characters from the start of the text."
    )
    parser.add_argument("--batch_size", type=int, default=16, help="Rows or windows of text per forward pass.")
    args = vars(parser.parse_args(argv))

    model, output_dir = args.pop("model"), args.pop("output_dir")
    if not args["text_file"] and not args["task"] and (args["split"] or args["sample"]):
        raise UsageError("--split and --sample select what to score: also give --task or --text_file")

    from ..evaluation.evaluate import EvaluateArguments
    from ..evaluation.quantization_cost import format_comparison, quantize_and_score
    from ..hub.card import write_derived_card
    from ..settings import default_data_dir

    args["data_dir"] = args["data_dir"] or default_data_dir()
    evaluation = EvaluateArguments(**args) if args["text_file"] or args["task"] else None
    comparison = quantize_and_score(model, output_dir, evaluation)
    write_derived_card(output_dir, model, "quantized to 8 bits", "quantized")
    print(format_comparison(comparison))
    print(f"saved in {output_dir}")
