"""Loss curve of a pre-training run as a PNG: training and held-out loss against updates."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import writing


logger = logging.getLogger(__name__)


def plot_losses(
    log_history: Sequence[dict[str, Any]], trajectory: Sequence[dict[str, Any]], held_out: float, path: str | Path
):
    """
    Draw the losses of a run. Without matplotlib, warn and draw nothing.

    Args:
        log_history (`Sequence[dict]`):
            Log of the Trainer.
        trajectory (`Sequence[dict]`):
            Rows of `trajectory.jsonl`.
        held_out (`float`):
            Perplexity of the finished model on held-out documents.
        path (`str` or `Path`):
            PNG file to write.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ModuleNotFoundError:
        logger.warning(f"{path} is not drawn: matplotlib is not installed (pip install 'gpt1_hf[plots]')")
        return

    training = [(entry["step"], entry["loss"]) for entry in log_history if "loss" in entry]
    windows = [(entry["step"], entry["eval_loss"]) for entry in log_history if "eval_loss" in entry]
    documents = [(row["update"], math.log(row["perplexity"])) for row in trajectory]
    last = max((entry["step"] for entry in log_history), default=0)
    documents = [*(point for point in documents if point[0] != last), (last, math.log(held_out))]

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    if training:
        axes.plot(*zip(*training, strict=True), color="tab:blue", linewidth=1.2, label="training")
    if windows:
        axes.plot(
            *zip(*windows, strict=True), color="tab:orange", marker=".", linewidth=1.2, label="held out, in windows"
        )
    axes.plot(
        *zip(*documents, strict=True), color="tab:red", marker="o", markersize=4, linewidth=1.0, linestyle="--",
        label=f"held out, in documents (perplexity {held_out:.4g} at the end)", clip_on=False, zorder=3,
    )  # fmt: skip
    axes.set(xlabel="updates", ylabel="loss (nats per token)", xlim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    right = axes.secondary_yaxis("right", functions=(lambda loss: loss, lambda loss: loss))
    right.yaxis.set_major_formatter(lambda loss, _: f"{math.exp(loss):,.0f}")
    right.set_ylabel("perplexity")
    axes.spines["top"].set_visible(False)
    with writing(path):
        figure.savefig(path, dpi=150)
