"""Explore a model in the browser (token probabilities, zero-shot answers, tokenization), or write a Space."""

from ..errors import UsageError
from .flags import Parser


def main(argv: list[str]):
    parser = Parser("space", __doc__)
    parser.add_argument("--model", help="Language model: folder, Hub id, or gpt1-tiny. Default: gpt1-tiny.")
    parser.add_argument("--choice_model", help="Checkpoint fine-tuned for multiple choice (race, story_cloze).")
    parser.add_argument("--port", type=int, default=7860, help="Port on 127.0.0.1.")
    parser.add_argument("--output_dir", help="Write a folder for a Hugging Face Space instead of serving one.")
    args = parser.parse_args(argv)
    if args.output_dir is not None and (args.model or args.choice_model):
        raise UsageError(
            "a Space reads its models from the variables GPT1_MODEL and GPT1_CHOICE_MODEL: set them there, and drop "
            "--model and --choice_model"
        )

    from ..inside.space import serve, write_space

    if args.output_dir is None:
        serve(args.model or "gpt1-tiny", args.choice_model, args.port)
    else:
        print(f"written to {write_space(args.output_dir)}")
