"""Score a fine-tuned model on a task, or a language model on text."""

from .parser import parse


def main(argv: list[str]):
    from ..evaluation.evaluate import EvaluateArguments, evaluate

    evaluate(parse(EvaluateArguments, argv, "evaluate", __doc__))
