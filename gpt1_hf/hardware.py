"""What the hardware computes in. Whoever needs to know whether a precision is at hand asks here."""

import os
import platform

import torch


def has_half_precision(dtype: torch.dtype, device: torch.device) -> bool:
    """
    Whether a device trains in a half precision at its own speed.

    Args:
        dtype (`torch.dtype`):
            `torch.bfloat16` or `torch.float16`.
        device (`torch.device`):
            Device. A CPU has bf16 where it has instructions for products of bf16 matrices; where it has none, torch
            emulates them, about twenty times slower than fp32. No CPU has fp16: torch scales fp16's gradients on
            accelerators only. To see what a CPU without such instructions does, set oneDNN's own variable
            `ONEDNN_MAX_CPU_ISA=AVX2`.
    """
    if device.type != "cpu":
        return True
    if dtype != torch.bfloat16 or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    # On x86, oneDNN supports bf16 from AVX-512 on, also where it has to be emulated.
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return not is_x86 or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def training_dtype(bf16: bool, fp16: bool, device: torch.device) -> torch.dtype:
    """
    Type that matrix products are computed in, when a precision is asked for.

    Args:
        bf16, fp16 (`bool`):
            What is asked for, as in `TrainingArguments`.
        device (`torch.device`):
            Where.

    Returns:
        `torch.dtype`: that type, or fp32 where the device lacks it.
    """
    asked = torch.bfloat16 if bf16 else torch.float16 if fp16 else torch.float32
    return asked if asked == torch.float32 or has_half_precision(asked, device) else torch.float32


def device_name(device: torch.device) -> str:
    """What something ran on, for tables of measurements: of a CPU its name, vector instructions, bf16 and threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    name = platform.machine()
    if hasattr(torch.cpu, "get_capabilities"):  # from torch 2.10 on
        name = torch.cpu.get_capabilities().get("cpu_name", name)
    bf16 = "bf16" if has_half_precision(torch.bfloat16, device) else "no bf16"
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    bf16 += f" by ONEDNN_MAX_CPU_ISA={limit}" if limit else ""
    return f"CPU, {torch.get_num_threads()} threads ({name}, {torch.backends.cpu.get_cpu_capability()}, {bf16})"
