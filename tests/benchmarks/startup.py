"""Measure the CPU seconds of commands that should answer at once: `python tests/benchmarks/startup.py`.

The script prints the median of several runs, each in its own process.
"""

import os
import statistics
import subprocess
import sys

from tabulate import tabulate


CASES = (
    ["--help"],
    ["--version"],
    ["recipes", "ls"],
    ["finetune", "--help"],
    ["finetune", "--tsk", "cola"],
    ["analyze", "ablations", "--finetune.seeed", "1"],
)
N_RUNS = 7


def cpu_seconds(argv: list[str]) -> float:
    """User and system time of one process."""
    before = os.times()
    subprocess.run([sys.executable, "-m", "gpt1_hf", *argv], capture_output=True)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def main():
    rows = [(" ".join(["gpt1", *argv]), statistics.median(cpu_seconds(argv) for _ in range(N_RUNS))) for argv in CASES]
    print(tabulate(rows, headers=("command", "CPU seconds"), floatfmt=".2f"))


if __name__ == "__main__":
    main()
