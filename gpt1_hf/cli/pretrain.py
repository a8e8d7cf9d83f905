"""Pre-train a language model on text."""

from .flags import check


def main(argv: list[str]):
    check(
        "gpt1_hf.training.arguments.PretrainArguments",
        argv,
        "pretrain",
        __doc__,
        required=[("corpus",), ("tokenizer", "model")],
    )

    from ..training.arguments import PretrainArguments
    from ..training.pretrain import pretrain
    from .parser import parse

    pretrain(parse(PretrainArguments, argv, "pretrain", __doc__))
