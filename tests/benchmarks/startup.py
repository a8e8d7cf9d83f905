"""Measure the CPU seconds of commands that should answer at once: `python tests/benchmarks/startup.py [--rounds 7]`.

Every command runs in a process of its own, in turn with transformers' command or models. Each value is the median of
the rounds.
"""

import argparse
import statistics
import sys
from functools import partial

from measure import OURS, PEERS, Comparison, cpu_seconds_of, interleaved, paired_ratios


ARGUMENTS = (
    ["--help"],
    ["--version"],
    ["recipes", "ls"],
    ["finetune", "--help"],
    ["finetune", "--tsk", "cola"],
    ["analyze", "ablations", "--finetune.seeed", "1"],
)
COMMAND = [sys.executable, "-m", "gpt1_hf"]
# `transformers --help` without its look for a newer version.
THEIR_HELP = [sys.executable, "-c", "from transformers.cli.transformers import app; app()", "--help"]
IMPORTS = {
    OURS: "from gpt1_hf import GPT1ForCausalLM",
    PEERS[0]: "from transformers import OpenAIGPTLMHeadModel",
    PEERS[1]: "from transformers import GPT2LMHeadModel",
}


def cases() -> dict[str, dict[str, list[str]]]:
    """Name of each case -> the command of each contender."""
    found = {" ".join(["gpt1", *argv]): {OURS: [*COMMAND, *argv]} for argv in ARGUMENTS}
    found["gpt1 --help"][PEERS[0]] = THEIR_HELP
    found["import of the model"] = {name: [sys.executable, "-c", code] for name, code in IMPORTS.items()}
    return found


def compare_startup(rounds: int = 7, only: tuple[str, ...] = ()) -> list[Comparison]:
    """Compare the processor time of commands and imports; all of them, or only the cases with these names."""
    found = []
    for case, commands in cases().items():
        if only and case not in only:
            continue
        costs, _ = interleaved({name: partial(cpu_seconds_of, argv) for name, argv in commands.items()}, rounds)
        medians = {name: statistics.median(values) for name, values in costs.items()}
        found.append(Comparison("start-up", case, "CPU s", medians, paired_ratios(costs)))
    return found


def main(argv: list[str] | None = None) -> list[Comparison]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="Number of rounds.")
    return compare_startup(parser.parse_args(argv).rounds)


if __name__ == "__main__":
    from table import markdown

    print(markdown(main()))
