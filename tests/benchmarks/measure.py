"""What the benchmarks measure alike."""

import re
from pathlib import Path

import torch

from gpt1_hf.hardware import has_half_precision


DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def number_types(device: str) -> list[str]:
    """Number types that a device computes in at its own speed, the fastest first."""
    return list(DTYPES) if has_half_precision(torch.bfloat16, torch.device(device)) else ["fp32"]


def peak_gib(device: str) -> float:
    """Most memory, in GiB, that this process has held on a device so far."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    # Not `ru_maxrss`, which begins at what the parent process held.
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 2**20
