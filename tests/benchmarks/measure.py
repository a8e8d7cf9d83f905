"""Functions that several measurements share."""

import re
from pathlib import Path

import torch

from gpt1_hf.hardware import has_half_precision


DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def number_types(device: str) -> list[str]:
    """Number types that a device supports in hardware, the fastest first."""
    return list(DTYPES) if has_half_precision(torch.bfloat16, torch.device(device)) else ["fp32"]


def peak_gib(device: str) -> float:
    """Peak memory of this process on a device so far, in GiB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    # `ru_maxrss` would start at the memory of the parent process.
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 2**20
