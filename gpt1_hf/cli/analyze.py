"""Run one of the paper's analyses: results, tables and figures."""

import ast
from collections.abc import Iterable
from importlib import import_module

import yaml

from ..errors import UsageError
from ..resources import PACKAGE, UNREADABLE
from ..settings import POSITIVE, check_ranges, nearest
from .flags import Parser, check, read_constant, read_fields


# Each file here is an analysis; the first line of its docstring is its help.
ANALYSES = PACKAGE / "analysis" / "report" / "analyses"
# Analyses with a file of the same name here score models. The others are plans of training runs.
MEASURED = PACKAGE / "analysis" / "measure"
# The analysis that runs the tuning of another one's plan.
TUNE = "tune"


def main(argv: list[str]):
    parser = Parser("analyze", __doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    helps = analyses()
    for action, line in helps.items():
        actions.add_parser(action, help=line, add_help=False)
    action = parser.parse_args(argv[:1]).action
    if is_plan(action):
        plan(action, helps[action], argv[1:])
    else:
        measure(action, helps[action], argv[1:])


def analyses() -> dict[str, str]:
    """Name of each analysis -> its line of help, read without importing it."""
    helps = {}
    for file in sorted(ANALYSES.glob("[!_]*.py")):
        docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
        helps[file.stem.replace("_", "-")] = docstring.split("\n")[0]
    return helps


def is_plan(action: str) -> bool:
    """Whether an analysis is a plan of training runs."""
    return not (MEASURED / f"{action.replace('-', '_')}.py").is_file()


def measure(action: str, help_line: str, argv: list[str]):
    """Read the settings of an analysis that scores models, and run it."""
    module, command = f"gpt1_hf.analysis.measure.{action.replace('-', '_')}", f"analyze {action}"
    check(f"{module}.Arguments", argv, command, help_line, read_constant(f"{module}.REQUIRED"))

    from .parser import parse

    analysis = import_module(module)
    analysis.measure(parse(analysis.Arguments, argv, command, help_line))


def plan(action: str, help_line: str, argv: list[str]):
    """Read the flags of an analysis that is a plan, and run it."""
    name = action.replace("-", "_")
    parser = Parser(
        f"analyze {action}",
        help_line,
        epilog="Any setting of `gpt1 finetune` or `gpt1 pretrain` can be given for all runs of that kind: "
        "--finetune.num_train_epochs 1 --pretrain.max_steps 100.",
    )
    if action == TUNE:
        parser.add_argument(
            "--config",
            required=True,
            help="YAML of a plan with the key tune, or name of a shipped recipe, such as analysis/pretraining_small.",
        )
        parser.add_argument("--tasks", nargs="+", metavar="TASK", help="Do only the runs of these tuning tasks.")
    else:
        parser.add_argument(
            "--config",
            default=f"analysis/{name}",
            help=f"YAML of the plan, or name of a shipped recipe. Default: analysis/{name}",
        )
        parser.add_argument(
            "--tasks", nargs="+", metavar="TASK", help="Task ids or YAML files, instead of the plan's."
        )
        parser.add_argument(
            "--untuned",
            action="store_true",
            help="Use the plan's own settings, instead of those that `gpt1 analyze tune` chose.",
        )
    parser.add_argument("--output_dir", help="Where runs, tables and figures go, instead of the plan's folder.")
    parser.add_argument("--models_dir", help="Where the pre-training runs go, instead of the plan's folder.")
    parser.add_argument("--dry_run", action="store_true", help="Print the plan and its estimated cost, and stop.")
    parser.add_argument(
        "--tokens_per_second",
        type=float,
        help="Training rate for the estimate of --dry_run. Default: measured on this machine.",
    )
    parser.add_argument("--shard", metavar="I/N", help="Do part I of N equal parts of the plan, such as 1/2.")
    args, rest = parser.parse_known_args(argv)
    overrides = read_overrides(rest, parser.flags())
    check_ranges(args, {"tokens_per_second": (POSITIVE, 1e18)})

    settings = {key: value for key, value in vars(args).items() if key != "quiet"} | {"overrides": overrides}
    if action == TUNE:
        from ..analysis.tune import tune

        tune(**settings)
    else:
        from ..analysis.run_plan import run_plan

        run_plan(import_module(f"gpt1_hf.analysis.report.analyses.{name}").section, **settings)


def read_overrides(rest: list[str], others: Iterable[str] = ()) -> dict[str, dict[str, object]]:
    """
    Read `--finetune.KEY VALUE` and `--pretrain.KEY VALUE`, also with `=`. Values are YAML.

    Args:
        rest (`list[str]`):
            The rest of the command line.
        others (`Iterable[str]`, *optional*):
            The command's own flags, to suggest one for an unknown flag.
    """
    classes = {"finetune": "FinetuneArguments", "pretrain": "PretrainArguments"}
    keys = {kind: read_fields(f"gpt1_hf.training.arguments.{name}") for kind, name in classes.items()}
    known = {*others, *(f"--{kind}.{key}" for kind in keys for key in keys[kind])}
    overrides: dict[str, dict[str, object]] = {kind: {} for kind in keys}
    words = iter(rest)
    for word in words:
        flag, has_value, value = word.partition("=")
        kind, _, key = flag.removeprefix("--").partition(".")
        if flag not in known or kind not in overrides:
            raise UsageError(
                f"unknown argument {flag}{nearest(flag, known)}; settings of the runs are --finetune.KEY and "
                "--pretrain.KEY"
            )
        value = value if has_value else next(words, None)
        if value is None:
            raise UsageError(f"{flag} needs a value")
        try:
            overrides[kind][key] = yaml.safe_load(value)
        except UNREADABLE as error:
            raise UsageError(f"{flag} {value!r} is not a YAML value: put quotes around text") from error
    return overrides
