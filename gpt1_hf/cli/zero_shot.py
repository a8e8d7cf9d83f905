"""Score a language model on a task that it was not trained for."""

from .parser import parse


def main(argv: list[str]):
    from ..analysis.zero_shot import ZeroShotArguments, zero_shot

    zero_shot(parse(ZeroShotArguments, argv, "zero-shot", __doc__))
