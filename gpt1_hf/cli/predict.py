"""Answer new texts with a fine-tuned model."""

import os
import sys

from .flags import check


def main(argv: list[str]):
    check(
        "gpt1_hf.evaluation.predict.PredictArguments",
        argv,
        "predict",
        __doc__,
        required=[("model",), ("input",)],
    )

    from ..evaluation.predict import PredictArguments, predict_file
    from .parser import parse

    try:
        predict_file(parse(PredictArguments, argv, "predict", __doc__))
    except BrokenPipeError:  # the reader has seen enough, as in `gpt1 predict ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
