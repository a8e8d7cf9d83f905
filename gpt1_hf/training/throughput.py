"""Training speed of a language model: tokens/s, and the share of the peak rate of matrix products."""

import time
from collections.abc import Callable

import torch
from torch import nn
from transformers import PreTrainedModel, TrainerCallback
from transformers.trainer_callback import ProgressCallback


def operations_per_token(model: PreTrainedModel, span: int) -> float:
    """
    Floating-point operations per token in training.

    Every weight of a matrix product takes two in the forward pass and four in the backward pass (embeddings count only
    as the output layer). Attention adds two products, and the causal mask halves them.

    Args:
        model (`PreTrainedModel`):
            Language model.
        span (`int`):
            Tokens per row.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.LSTM)]
    weights = sum(weight.numel() for layer in layers for weight in layer.parameters() if weight.dim() == 2)
    has_attention = hasattr(model.config, "num_attention_heads")
    attention = model.config.num_hidden_layers * model.config.hidden_size * span if has_attention else 0
    return 6 * (weights + attention)


def matmul_peak(dtype: torch.dtype, device: torch.device) -> float:
    """Operations per second of the fastest of a few large square matrix products."""
    size = 2048 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / min(seconds(lambda: a @ b, device) for _ in range(4))


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall-clock time of work on a device."""
    begin = time.perf_counter()
    work()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter() - begin


class Throughput(TrainerCallback):
    """
    Measures the speed of training, and shows it in the progress bar.

    Args:
        tokens_per_update (`int`):
            Tokens per update, over all processes.
        operations_per_token (`float`):
            See [`operations_per_token`].
        peak (`float`):
            Operations per second that all processes can reach together, see [`matmul_peak`].
    """

    def __init__(self, tokens_per_update: int, operations_per_token: float, peak: float):
        self.tokens_per_update = tokens_per_update
        self.operations_per_token = operations_per_token
        self.peak = peak
        self.progress: ProgressCallback | None = None
        self.first_update, self.started, self.tokens_per_second = None, 0.0, 0.0

    @property
    def share_of_peak(self) -> float:
        """Share of the peak (model FLOPs utilization, MFU)."""
        return self.tokens_per_second * self.operations_per_token / self.peak

    def on_step_end(self, args, state, control, **kwargs):
        if self.first_update is None:  # the first update includes compilation and filling caches
            self.first_update, self.started = state.global_step, time.perf_counter()
            return
        tokens = (state.global_step - self.first_update) * self.tokens_per_update
        self.tokens_per_second = tokens / (time.perf_counter() - self.started)
        if self.progress is not None and self.progress.training_bar is not None:
            rate = f"{self.tokens_per_second:,.0f} tokens/s, {100 * self.share_of_peak:.0f} % of peak"
            self.progress.training_bar.set_postfix_str(rate, refresh=False)
