"""The precision in which scores are computed: fp32, whatever training used."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from ..modeling_gpt1_cpu import fast_inference


NAMES = {torch.float64: "fp64", torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def precision_of(model: nn.Module) -> str:
    """
    The precision of a model's scores, for `details.precision` of a result: `fp32` for every model that this package
    opens, and `fp32, quantized weights` for a quantized one. Other types are those of the model's weights.
    """
    names = sorted({NAMES.get(weight.dtype, str(weight.dtype)) for weight in model.parameters()})
    is_quantized = getattr(getattr(model, "config", None), "quantization_config", None) is not None
    return ", ".join([*names, "quantized weights"] if is_quantized else names)


def product_precision(device: str, has_lstm: bool = False) -> str:
    """
    How torch computes products of fp32 numbers at present: `fp32`, or `tf32` or `bf16` if it rounds the factors.

    Args:
        device (`str`):
            Type of the device, such as `cuda`.
        has_lstm (`bool`, *optional*, defaults to `False`):
            Whether the products of an LSTM count, too. By default, cuDNN computes them in TF32.
    """
    backends = torch.backends
    matmul, recurrent = {"cpu": (backends.mkldnn, backends.mkldnn), "cuda": (backends.cuda, backends.cudnn)}.get(
        device, (None, None)
    )
    own = [getattr(matmul, "matmul", None)]
    if has_lstm:
        own.append(getattr(recurrent, "rnn", recurrent))  # before torch 2.9, cuDNN has one setting
    found = [getattr(owner, name) for owner, name, _ in _reduced_products() if any(owner is one for one in own)]
    return "fp32" if not found else "tf32" if found[0] is True else str(found[0])


@contextmanager
def full_precision(model: nn.Module) -> Iterator[None]:
    """
    Compute a model's outputs in the type of its weights: without autocast, also where accelerate has wrapped the
    model's `forward` in it, and without TF32 or bf16 in place of fp32 in matrix products. (By default, cuDNN computes
    an LSTM in TF32.) The settings are restored afterwards. On a CPU, [`fast_inference`] applies meanwhile.

    FSDP's own mixed precision, which casts the weights of each block, is not undone.

    Args:
        model (`nn.Module`):
            Model, or a wrapper of it, such as DDP's or that of `torch.compile`.
    """
    is_module = isinstance(model, nn.Module)  # and not some other callable
    modules, weights = (model.modules(), model.parameters()) if is_module else ((), ())
    wrapped = [module for module in modules if "_original_forward" in vars(module)]  # by accelerate
    devices = {weight.device.type for weight in weights} - {"meta"}
    with ExitStack() as stack:
        for module in wrapped:
            stack.callback(vars(module).__setitem__, "forward", module.forward)
            vars(module)["forward"] = vars(module)["_original_forward"]
        for owner, name, value in _reduced_products():
            stack.callback(_restore, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        for device in devices:
            stack.enter_context(torch.autocast(device, enabled=False))
        if "cpu" in devices:
            stack.enter_context(fast_inference(torch.device("cpu")))
        yield


def _reduced_products() -> list[tuple[Any, str, Any]]:
    """Settings of torch by which products of fp32 numbers are less precise: owner, name, and the precise value."""
    backends = torch.backends
    if not hasattr(backends, "fp32_precision"):  # new in torch 2.9
        owners = (backends.cuda.matmul, backends.cudnn)
        return [(owner, "allow_tf32", False) for owner in owners if owner.allow_tf32]
    owners = (backends.cuda.matmul, backends.cudnn.rnn, backends.mkldnn.matmul, backends.mkldnn.rnn)
    return [(owner, "fp32_precision", "ieee") for owner in owners if owner.fp32_precision not in ("none", "ieee")]


def _restore(owner: Any, name: str, value: Any):
    """Set a setting of torch again, unless it follows from a more general one, which then stays in charge."""
    if name == "fp32_precision":
        setattr(owner, name, "none")
    if getattr(owner, name) != value:
        setattr(owner, name, value)
