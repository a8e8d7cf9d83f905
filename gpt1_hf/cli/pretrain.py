"""Pre-train a GPT-1 on text."""

from .parser import parse


def main(argv: list[str]):
    from ..training.arguments import PretrainArguments
    from ..training.pretrain import pretrain

    pretrain(parse(PretrainArguments, argv, "pretrain", __doc__))
