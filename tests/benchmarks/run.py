"""Run the benchmarks that the documentation shows, and print their table.

    python tests/benchmarks/run.py [--quick] [--write] [--output runs/benchmarks.json]

Sections: training, classification, multiple choice, scores, generation, tokenizer, start-up. In each, ours and the
peers run in turn in one process. `--quick` takes less than three minutes a section on two idle CPU cores: half the
layers, fewer rounds, no peak memory. `--write` puts the table between the markers in `tests/benchmarks/README.md`. All
results are also written as JSON.
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import model
import torch
import transformers
from measure import Comparison, number_types, this_device
from startup import compare_startup
from table import insert, markdown
from tokenizer import compare_speed

from gpt1_hf.hardware import device_name


README = Path(__file__).with_name("README.md")
SECTIONS = (*model.SECTIONS, "tokenizer", "startup")


def measure(section: str, args: argparse.Namespace) -> list[Comparison]:
    """Run one section."""
    rounds = args.rounds or (3 if args.quick else 5)
    if section == "tokenizer":
        return compare_speed(rounds, n_bytes=int(args.megabytes * 1e6))
    if section == "startup":
        return compare_startup(rounds, ("gpt1 --help", "import of the model") if args.quick else ())
    argv = [section, "--rounds", str(rounds), *(["--quick"] if args.quick else [])]
    return model.main([*argv, *(["--dtype", *args.dtype] if args.dtype else []), *args.model])


def conditions(args: argparse.Namespace) -> dict[str, str]:
    """Hardware, precision, versions and command of a measurement."""
    device = torch.device(this_device())
    # `number_types` of the CPU says fp32 where bf16 would be emulated.
    precision = ", ".join(args.dtype or number_types(device.type)[:1])
    versions = {
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    return {
        "device": device_name(device),
        "precision": precision,
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "command": " ".join(["python", "tests/benchmarks/run.py", *args.argv]),
    }


def report(found: list[Comparison], facts: dict[str, str]) -> str:
    """The table, and the conditions of its measurement."""
    return (
        f"{facts['device']}; {facts['precision']}; {facts['versions']}: `{facts['command']}`\n\n{markdown(found)}\n\n"
        "Each value is a median. Each ratio is the median of the ratios in the same round, with the least and the "
        "greatest."
    )


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", default=SECTIONS, help="Sections to run. Default: all.")
    parser.add_argument("--quick", action="store_true", help="Half the layers, fewer rounds, no memory.")
    parser.add_argument("--write", action="store_true", help=f"Put the table into {README.name}.")
    parser.add_argument("--output", default="runs/benchmarks.json", help="File for the results.")
    types = number_types(this_device())
    parser.add_argument("--dtype", nargs="+", choices=types, help="Number types. Default: the fastest, %(choices)s.")
    parser.add_argument("--rounds", type=int, help="Number of rounds. Default: 5, or 3 with --quick.")
    parser.add_argument("--megabytes", type=float, default=1.0, help="Text for the tokenizer.")
    parser.add_argument(
        "--model", nargs=argparse.REMAINDER, default=[], help="More arguments for model.py; must be last."
    )
    args = parser.parse_args(argv)
    args.argv = sys.argv[1:] if argv is None else argv
    if unknown := {*args.sections} - {*SECTIONS}:
        parser.error(f"unknown section {', '.join(sorted(unknown))}: choose from {', '.join(SECTIONS)}")
    facts, found = conditions(args), []
    for section in args.sections:
        begin = time.perf_counter()
        found += measure(section, args)
        print(f"{section}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
    output = Path(args.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({**facts, "results": [one.as_dict() for one in found]}, indent=2) + "\n")
    text = report(found, facts)
    print(text)
    if args.write:
        insert(README, text)


if __name__ == "__main__":
    main()
