"""What the benchmarks measure alike."""

import re
from pathlib import Path

import torch


def peak_gib(device: str) -> float:
    """Most memory, in GiB, that this process has held on a device so far."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    # Not `ru_maxrss`, which begins at what the parent process held.
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 2**20
