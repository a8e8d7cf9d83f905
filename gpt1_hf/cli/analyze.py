"""Run one of the paper's analyses (§5): ablations, layer transfer, the auxiliary objective."""

import argparse
from importlib import import_module

import yaml

from ..errors import GPT1Error


# Action -> module of gpt1_hf.analysis. Its docstring is the help, its function of the same name makes tables and plots
# of a plan's runs.
PLANS = {"ablations": "ablations", "auxiliary": "auxiliary", "layer-transfer": "layer_transfer"}


def main(argv: list[str]):
    parser = argparse.ArgumentParser(prog="gpt1 analyze", description=__doc__)
    parser.add_argument(
        "action", choices=sorted(PLANS), help="What to analyze; `gpt1 analyze ACTION --help` says how."
    )
    action = parser.parse_args(argv[:1]).action
    analyze_plan(action, argv[1:])


def analyze_plan(action: str, argv: list[str]):
    """Read a plan's flags, and carry it out."""
    module = import_module(f"...analysis.{PLANS[action]}", __name__)
    parser = argparse.ArgumentParser(
        prog=f"gpt1 analyze {action}",
        description=module.__doc__.split("\n")[0],
        epilog="Any setting of `gpt1 finetune` or `gpt1 pretrain` can be given for all runs of a kind: "
        "--finetune.num_train_epochs 1 --pretrain.max_steps 100.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        default=f"analysis/{PLANS[action]}",
        help="YAML of the plan, or name of a shipped recipe. Default: analysis/" + PLANS[action],
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

    from ..analysis.analyze import analyze

    analyze(
        module.section,
        config=args.config,
        tasks=args.tasks,
        output_dir=args.output_dir,
        models_dir=args.models_dir,
        overrides=read_overrides(rest),
        dry_run=args.dry_run,
        tokens_per_second=args.tokens_per_second,
        shard=args.shard,
    )


def read_overrides(rest: list[str]) -> dict[str, dict[str, object]]:
    """`--finetune.KEY VALUE` and `--pretrain.KEY VALUE`, also with `=`, as YAML would read the values."""
    overrides: dict[str, dict[str, object]] = {"finetune": {}, "pretrain": {}}
    words = iter(rest)
    for word in words:
        flag, has_value, value = word.partition("=")
        kind, _, key = flag.removeprefix("--").partition(".")
        if not flag.startswith("--") or kind not in overrides or not key:
            raise GPT1Error(f"unknown argument {word!r}; settings of the runs are --finetune.KEY and --pretrain.KEY")
        value = value if has_value else next(words, None)
        if value is None:
            raise GPT1Error(f"{flag} needs a value")
        overrides[kind][key] = yaml.safe_load(value)
    return overrides
