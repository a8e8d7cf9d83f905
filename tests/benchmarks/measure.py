"""What several measurements share: precision, interleaved rounds, paired ratios, limits of the hardware, memory."""

import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from gpt1_hf.hardware import has_half_precision
from gpt1_hf.training.throughput import seconds


DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
OURS, COMPILED, PEERS = "ours", "ours, compiled", ("OpenAIGPT", "GPT-2")


def this_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def number_types(device: str) -> list[str]:
    """Number types that a device supports in hardware, the fastest first."""
    if device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return ["fp32"]
    return list(DTYPES) if has_half_precision(torch.bfloat16, torch.device(device)) else ["fp32"]


@dataclass
class Comparison:
    """
    Measurements of one case: a row of the table.

    Args:
        section (`str`), case (`str`):
            What was measured.
        unit (`str`):
            Unit of the values.
        values (`dict[str, float]`):
            Median over the rounds, of each contender.
        ratios (`dict[str, list[float]]`):
            Median, least and greatest of the rounds' ratios, for each peer. Above 1, ours is better.
        shares (`dict[str, float]`):
            Median share of what the hardware can reach, of each contender.
        share_of (`str`):
            What the shares are relative to.
        limit (`float`):
            What the hardware can reach, in operations or bytes per second.
    """

    section: str
    case: str
    unit: str
    values: dict[str, float]
    ratios: dict[str, list[float]] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    share_of: str = ""
    limit: float = 0.0

    def as_dict(self) -> dict:
        return asdict(self)


def interleaved(
    steps: dict[str, Callable[[], float]], rounds: int, between: Callable[[], float] | None = None
) -> tuple[dict[str, list[float]], list[float]]:
    """
    Run the contenders in turn, round after round.

    Every second round has the opposite order, so that a machine that slows down favours none.

    Args:
        steps (`dict[str, Callable]`):
            Contender -> a function that does its work once and returns what it cost.
        rounds (`int`):
            Number of rounds.
        between (`Callable`, *optional*):
            Called before, between and after the rounds, to measure what the hardware can reach.

    Returns:
        `tuple`: the costs of each contender, one per round, and the results of `between`.
    """
    costs: dict[str, list[float]] = {name: [] for name in steps}
    limits = [between()] if between else []
    for number in range(rounds):
        for name in list(steps)[:: -1 if number % 2 else 1]:
            costs[name].append(steps[name]())
        limits += [between()] if between else []
    return costs, limits


def paired_ratios(costs: dict[str, list[float]]) -> dict[str, list[float]]:
    """Peer -> median, least and greatest of its costs divided by ours in the same round."""
    found = {}
    for name in (name for name in costs if name != OURS):
        ratios = [theirs / ours for theirs, ours in zip(costs[name], costs[OURS], strict=True)]
        found[name] = [statistics.median(ratios), min(ratios), max(ratios)]
    return found


def compare(
    section: str,
    case: str,
    unit: str,
    steps: dict[str, Callable[[], float]],
    amount: float,
    rounds: int,
    work: dict[str, float] | None = None,
    limit: Callable[[], float] | None = None,
    share_of: str = "",
) -> Comparison:
    """
    Compare contenders in interleaved rounds.

    Args:
        section (`str`), case (`str`), unit (`str`), share_of (`str`):
            See [`Comparison`].
        steps (`dict[str, Callable]`), rounds (`int`):
            See [`interleaved`]; the cost of a step is its time in seconds.
        amount (`float`):
            What a step processes, in the unit of the values times seconds.
        work (`dict[str, float]`, *optional*):
            Operations or bytes of a step that count against the limit, for each contender.
        limit (`Callable`, *optional*):
            Measures the operations or bytes per second that the hardware can reach. The best measurement counts, or a
            contender that is faster, so that no share is above 1.
    """
    costs, limits = interleaved(steps, rounds, limit)
    medians = {name: statistics.median(values) for name, values in costs.items()}
    reached = {name: one / medians[name] for name, one in (work or {}).items()}
    best = max([0.0, *limits, *reached.values()])
    shares = {name: rate / best for name, rate in reached.items()} if limit else {}
    values = {name: amount / median for name, median in medians.items()}
    return Comparison(section, case, unit, values, paired_ratios(costs), shares, share_of, best)


def timed(work: Callable[[], object], device: str) -> Callable[[], float]:
    """A step that returns the wall-clock seconds of work on a device."""
    return lambda: seconds(work, torch.device(device))


def memory_bandwidth(n_bytes: int, device: str, repeats: int = 5) -> float:
    """
    Bytes per second that a device reads when it sums, or reads and writes when it copies, a stream of a size.

    A stream that fits a cache is read from the cache, as weights of that size would be.
    """
    stream = torch.zeros(max(1, n_bytes // 4), device=device)
    target = torch.empty_like(stream)
    size, best = 4 * stream.numel(), 0.0
    loops = max(1, 2**26 // size)  # short streams are measured together
    for moved, work in ((size, stream.sum), (2 * size, lambda: target.copy_(stream))):
        for _ in range(repeats):
            passed = seconds(lambda work=work: [work() for _ in range(loops)], torch.device(device))
            best = max(best, loops * moved / passed)
    return best


def peak_gib(device: str = "cpu") -> float:
    """Peak memory of this process on a device so far, in GiB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, `ru_maxrss` would start at the memory of the parent process
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30  # bytes on macOS


def printed_by(script: str, *argv: object) -> str:
    """The last word that a benchmark prints in a process of its own."""
    command = [sys.executable, script, *map(str, argv)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]


def cpu_seconds_of(command: list[str]) -> float:
    """User and system time of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


class Stopwatch:
    """Wall-clock and processor seconds of a `with` block; the latter are those of all threads."""

    def __enter__(self):
        self.begin, self.cpu_begin = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *error):
        self.seconds = time.perf_counter() - self.begin
        self.cpu_seconds = time.process_time() - self.cpu_begin
