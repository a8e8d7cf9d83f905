"""Run one of the paper's analyses: results, tables and pictures."""

import ast
from collections.abc import Iterable
from importlib import import_module

import yaml

from ..errors import UsageError
from ..resources import PACKAGE, UNREADABLE
from ..settings import POSITIVE, check_ranges, nearest
from .flags import Parser, check, read_fields


# Action -> module of `gpt1_hf.analysis`: its docstring's first line is the action's in `gpt1 analyze --help`, its
# function `analyze` takes its dataclass `Arguments`.
ACTIONS = {
    "context-length": "context_length",
    "zero-shot": "zero_shot_curves",
}
# Of their settings, one of each tuple has to be given.
REQUIRED = {
    "context-length": [("text_file", "finetuned")],
    "zero-shot": [("run", "lstm_run")],
}
# The same of analyses that are plans of training runs: recipes/analysis/<module>.yaml. The module's function `section`
# makes tables and pictures of the runs.
PLANS = {
    "ablations": "report.ablations",
    "auxiliary": "report.auxiliary",
    "layer-transfer": "report.layer_transfer",
}


def main(argv: list[str]):
    parser = Parser("analyze", __doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    modules = ACTIONS | PLANS
    for action in sorted(modules):
        actions.add_parser(action, help=first_line(modules[action]), add_help=False)
    action = parser.parse_args(argv[:1]).action
    if action in PLANS:
        analyze_plan(action, argv[1:])
        return
    module, command, line = f"gpt1_hf.analysis.{ACTIONS[action]}", f"analyze {action}", first_line(ACTIONS[action])
    check(f"{module}.Arguments", argv[1:], command, line, REQUIRED[action])

    from .parser import parse

    analysis = import_module(module)
    analysis.analyze(parse(analysis.Arguments, argv[1:], command, line))


def first_line(name: str) -> str:
    """First line of a module's docstring, read without importing it."""
    source = (PACKAGE / "analysis" / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)).split("\n")[0]


def analyze_plan(action: str, argv: list[str]):
    """Read a plan's flags, and carry it out."""
    recipe = action.replace("-", "_")
    parser = Parser(
        f"analyze {action}",
        first_line(PLANS[action]),
        epilog="Any setting of `gpt1 finetune` or `gpt1 pretrain` can be given for all runs of a kind: "
        "--finetune.num_train_epochs 1 --pretrain.max_steps 100.",
    )
    parser.add_argument(
        "--config",
        default=f"analysis/{recipe}",
        help=f"YAML of the plan, or name of a shipped recipe. Default: analysis/{recipe}",
    )
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="Task ids, in place of the plan's.")
    parser.add_argument("--output_dir", help="Where runs, tables and plots go, in place of the plan's folder.")
    parser.add_argument("--models_dir", help="Where the pre-training runs go, in place of the plan's folder.")
    parser.add_argument("--dry_run", action="store_true", help="Print the plan and what it will cost, and stop.")
    parser.add_argument(
        "--tokens_per_second", type=float, help="Rate that --dry_run reckons with. Default: measured here and now."
    )
    parser.add_argument(
        "--shard", metavar="I/N", help="Do one of n equal parts of the plan, counted from 1, such as 1/2."
    )
    args, rest = parser.parse_known_args(argv)
    overrides = read_overrides(rest, parser.flags())
    check_ranges(args, {"tokens_per_second": (POSITIVE, 1e18)})

    from ..analysis.plan.execute import analyze

    analyze(
        import_module(f"gpt1_hf.analysis.{PLANS[action]}").section,
        config=args.config,
        tasks=args.tasks,
        output_dir=args.output_dir,
        models_dir=args.models_dir,
        overrides=overrides,
        dry_run=args.dry_run,
        tokens_per_second=args.tokens_per_second,
        shard=args.shard,
    )


def read_overrides(rest: list[str], others: Iterable[str] = ()) -> dict[str, dict[str, object]]:
    """
    `--finetune.KEY VALUE` and `--pretrain.KEY VALUE`, also with `=`, as YAML would read the values.

    Args:
        rest (`list[str]`):
            What is left of the command line.
        others (`Iterable[str]`, *optional*):
            The plan's own flags, one of which may have been meant.
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
            raise UsageError(f"{flag} {value!r} is no YAML value: put quotes around what is text") from error
    return overrides
