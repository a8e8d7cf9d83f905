"""See it work: fine-tune the packaged model on a small sample, offline, in under two minutes."""

from .flags import Parser


def main(argv: list[str]):
    parser = Parser("demo", __doc__)
    parser.add_argument("--output_dir", default="runs/demo", help="Where the fine-tuned models go.")
    parser.add_argument("--seed", type=int, default=42, help="Seed of the runs.")
    args = parser.parse_args(argv)

    from ..inside.demo import demo

    demo(args.output_dir, args.seed)
