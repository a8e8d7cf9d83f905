"""Write the zip file of test predictions for GLUE's leaderboard."""

from .flags import check


def main(argv: list[str]):
    check(
        "gpt1_hf.evaluation.glue_submission.SubmitArguments",
        argv,
        "submit",
        __doc__,
        required=[("models", "predictions")],
    )

    from ..evaluation.glue_submission import SubmitArguments, submit
    from .parser import parse

    submit(parse(SubmitArguments, argv, "submit", __doc__))
