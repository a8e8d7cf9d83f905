"""Score a language model on a task without fine-tuning."""

from .flags import check


def main(argv: list[str]):
    check("gpt1_hf.analysis.zero_shot.ZeroShotArguments", argv, "zero-shot", __doc__, required=[("task",)])

    from ..analysis.zero_shot import ZeroShotArguments, zero_shot
    from .parser import parse

    zero_shot(parse(ZeroShotArguments, argv, "zero-shot", __doc__))
