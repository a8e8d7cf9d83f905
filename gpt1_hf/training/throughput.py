"""Training speed of a language model: tokens/s, and the share of the peak rate of matrix products."""

import time
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, TrainerCallback
from transformers.trainer_callback import ProgressCallback

from ..modeling_gpt1_cpu import fast_training, matmul


# Measurements of each matrix product before and after training.
REPEATS = 4


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


def product_shapes(config: PreTrainedConfig, tokens: int, device: torch.device) -> list[tuple[int, int, int]]:
    """
    Sizes `(m, k, n)` of the matrix products by which [`matmul_peak`] measures a device for a model: a large square,
    and the model's own largest, tokens × hidden × 4 hidden and tokens × hidden × vocabulary. Those have no more
    operations than the square, and fewer tokens if necessary.

    Args:
        config (`PreTrainedConfig`):
            The model's configuration.
        tokens (`int`):
            Tokens in a batch of one process.
        device (`torch.device`):
            Device to measure.
    """
    square = 1536 if device.type == "cpu" else 8192
    hidden, vocab = config.hidden_size, config.vocab_size
    own = [(hidden, 4 * hidden), (hidden, vocab)]
    return [(square,) * 3, *((max(1, min(tokens, square**3 // (k * n))), k, n) for k, n in own)]


def matmul_peak(
    dtype: torch.dtype,
    device: torch.device,
    shapes: Sequence[tuple[int, int, int]],
    repeats: int = REPEATS,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """
    Operations per second of the fastest of several matrix products, over all processes together.

    All processes compute at the same time, as in training: processes that share cores or a device are slower than one
    that has them to itself. A product takes as long as in the slowest process. The generator of training is not used.

    Args:
        dtype (`torch.dtype`), device (`torch.device`):
            Type and place of the matrices.
        shapes (sequence of `(m, k, n)`):
            Sizes of the products, see [`product_shapes`].
        repeats (`int`, *optional*):
            Measurements of each product. The best one counts, because other programs can only slow it down.
        clock (`Callable`, *optional*):
            Seconds since any moment.
    """
    generator = torch.Generator(device).manual_seed(0)
    n_processes = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    best = 0.0
    for m, k, n in shapes:
        a, b = (torch.randn(size, generator=generator, device=device).to(dtype) for size in ((m, k), (n, k)))
        for _ in range(repeats):
            if n_processes > 1:
                dist.barrier()
            with fast_training(device):
                passed = seconds(lambda a=a, b=b: matmul(a, b.T), device, clock)
            if n_processes > 1:
                slowest = torch.tensor(passed, device=device)
                dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
                passed = slowest.item()
            if passed > 0:  # clocks can be coarser than a small product
                best = max(best, n_processes * 2 * m * k * n / passed)
    return best


def seconds(work: Callable[[], object], device: torch.device, clock: Callable[[], float] = time.perf_counter) -> float:
    """Wall-clock time of work on a device."""
    begin = clock()
    work()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return clock() - begin


class Throughput(TrainerCallback):
    """
    Measures the speed of training, and shows it in the progress bar.

    The peak is measured before training, at the 1st, 2nd, 4th, ... line of the log, and after training; the best
    measurement counts. The time of the measurements is not counted as training. If training itself is faster than all
    of them, the peak is raised to its speed, so that the share of the peak is never above 1.

    Args:
        tokens_per_update (`int`):
            Tokens per update, over all processes.
        operations_per_token (`float`):
            See [`operations_per_token`].
        measure_peak (`Callable`):
            Measures the operations per second that all processes can reach together with a number of repeats, see
            [`matmul_peak`]. Every process calls it at the same updates.
        clock (`Callable`, *optional*):
            Seconds since any moment.
    """

    def __init__(
        self,
        tokens_per_update: int,
        operations_per_token: float,
        measure_peak: Callable[[int], float],
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.tokens_per_update = tokens_per_update
        self.operations_per_token = operations_per_token
        self.measure_peak, self.clock = measure_peak, clock
        self.measured_peak = 0.0
        self.progress: ProgressCallback | None = None
        self.first_update, self.started, self.tokens_per_second = None, 0.0, 0.0
        self.n_logged = 0

    @property
    def reached(self) -> float:
        """Operations per second of training."""
        return self.tokens_per_second * self.operations_per_token

    @property
    def peak(self) -> float:
        """Operations per second that the hardware can reach: the best measurement, or training if it is faster."""
        return max(self.measured_peak, self.reached)

    @property
    def share_of_peak(self) -> float:
        """Share of the peak (model FLOPs utilization, MFU), at most 1."""
        return self.reached / self.peak if self.peak else 0.0

    def _measure(self, repeats: int):
        begin = self.clock()
        self.measured_peak = max(self.measured_peak, self.measure_peak(repeats))
        self.started += self.clock() - begin  # as if training had begun that much later

    def on_train_begin(self, args, state, control, **kwargs):
        self._measure(REPEATS)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" not in (logs or {}):  # of an evaluation, or the end
            return
        self.n_logged += 1
        if self.n_logged.bit_count() == 1:
            self._measure(1)

    def on_train_end(self, args, state, control, **kwargs):
        self._measure(REPEATS)

    def on_step_end(self, args, state, control, **kwargs):
        if self.first_update is None:  # the first update includes compilation and filling caches
            self.first_update, self.started = state.global_step, self.clock()
            return
        tokens = (state.global_step - self.first_update) * self.tokens_per_update
        if (passed := self.clock() - self.started) > 0:
            self.tokens_per_second = tokens / passed
        if self.progress is not None and self.progress.training_bar is not None:
            rate = f"{self.tokens_per_second:,.0f} tokens/s, {100 * self.share_of_peak:.0f} % of peak"
            self.progress.training_bar.set_postfix_str(rate, refresh=False)
