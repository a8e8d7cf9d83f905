"""Score a fine-tuned model on a task, or a language model on text."""

from .flags import check


def main(argv: list[str]):
    check("gpt1_hf.evaluation.evaluate.EvaluateArguments", argv, "evaluate", __doc__, required=[("task", "text_file")])

    from ..evaluation.evaluate import EvaluateArguments, evaluate
    from .parser import parse

    evaluate(parse(EvaluateArguments, argv, "evaluate", __doc__))
