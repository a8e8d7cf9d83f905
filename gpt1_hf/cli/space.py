"""See a model in the browser: probabilities of tokens and answers, tokens of a text; or write it as a Space."""

from .flags import Parser


def main(argv: list[str]):
    parser = Parser("space", __doc__)
    parser.add_argument("--model", default="gpt1-tiny", help="Language model: folder, Hub id, or gpt1-tiny.")
    parser.add_argument("--choice_model", help="Checkpoint fine-tuned for multiple choice (race, story_cloze).")
    parser.add_argument("--port", type=int, default=7860, help="Port on 127.0.0.1.")
    parser.add_argument("--output_dir", help="Write a folder for a Hugging Face Space there, and serve nothing.")
    args = parser.parse_args(argv)

    from ..space import serve, write_space

    if args.output_dir is None:
        serve(args.model, args.choice_model, args.port)
    else:
        print(f"written to {write_space(args.output_dir)}")
