"""Write the zip of test predictions that GLUE's leaderboard takes."""

from .parser import parse


def main(argv: list[str]):
    from ..evaluation.submission import SubmitArguments, submit

    submit(parse(SubmitArguments, argv, "submit", __doc__))
