"""Write one page about all runs in a folder: the paper's tables and figures beside ours, losses and settings."""

from .flags import Parser


def main(argv: list[str]):
    parser = Parser("report", __doc__)
    parser.add_argument("runs_dir", help="Folder with results.json files at any depth, such as runs.")
    parser.add_argument("--output_dir", help="Where the page is written. Default: RUNS_DIR.")
    args = parser.parse_args(argv)

    from ..analysis.report.report import report

    print(report(args.runs_dir, args.output_dir))
