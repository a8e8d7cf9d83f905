"""Which precisions the hardware supports."""

import os
import platform

import torch


def has_half_precision(dtype: torch.dtype, device: torch.device) -> bool:
    """
    Whether a device supports training in a half-precision type at full speed.

    Args:
        dtype (`torch.dtype`):
            `torch.bfloat16` or `torch.float16`.
        device (`torch.device`):
            Device. A CPU supports bf16 if it has instructions for bf16 matrix products; otherwise torch emulates them,
            about twenty times slower than fp32. No CPU supports fp16, since torch scales fp16 gradients on
            accelerators only. oneDNN's variable `ONEDNN_MAX_CPU_ISA=AVX2` simulates a CPU without bf16.
    """
    if device.type != "cpu":
        return True
    if dtype != torch.bfloat16 or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    # On x86, oneDNN reports bf16 for every AVX-512 CPU, even if it has to be emulated.
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return not is_x86 or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def training_dtype(bf16: bool, fp16: bool, device: torch.device) -> torch.dtype:
    """
    Type of matrix products for the requested precision.

    Args:
        bf16, fp16 (`bool`):
            Requested precision, as in `TrainingArguments`.
        device (`torch.device`):
            Device.

    Returns:
        `torch.dtype`: the requested type, or fp32 if the device does not support it.
    """
    requested = torch.bfloat16 if bf16 else torch.float16 if fp16 else torch.float32
    return requested if requested == torch.float32 or has_half_precision(requested, device) else torch.float32


def device_name(device: torch.device) -> str:
    """Name of a device for tables of measurements; for a CPU with threads, vector instructions and bf16 support."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    name = platform.machine()
    if hasattr(torch.cpu, "get_capabilities"):  # new in torch 2.10
        name = torch.cpu.get_capabilities().get("cpu_name", name)
    bf16 = "bf16" if has_half_precision(torch.bfloat16, device) else "no bf16"
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    bf16 += f" by ONEDNN_MAX_CPU_ISA={limit}" if limit else ""
    n_threads = torch.get_num_threads()
    threads = "1 thread" if n_threads == 1 else f"{n_threads} threads"
    return f"CPU, {threads} ({name}, {torch.backends.cpu.get_cpu_capability()}, {bf16})"
