"""Loss curve of a pre-training run as a PNG: training and held-out loss against updates."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..figures import Figure, Series, write_png


def plot_losses(
    log_history: Sequence[dict[str, Any]], trajectory: Sequence[dict[str, Any]], held_out: float, path: str | Path
):
    """
    Draw the losses of a run. Without matplotlib, warn and draw nothing.

    Args:
        log_history (`Sequence[dict]`):
            The Trainer's log.
        trajectory (`Sequence[dict]`):
            Rows of `trajectory.jsonl`.
        held_out (`float`):
            Perplexity of the finished model on held-out documents.
        path (`str` or `Path`):
            PNG file to write.
    """
    training = [(entry["step"], entry["loss"]) for entry in log_history if "loss" in entry]
    windows = [(entry["step"], entry["eval_loss"]) for entry in log_history if "eval_loss" in entry]
    last = max((entry["step"] for entry in log_history), default=0)
    documents = [(row["update"], math.log(row["perplexity"])) for row in trajectory if row["update"] != last]
    series = [
        Series("training", training),
        Series("held out, in windows", windows),
        Series(
            f"held out, in documents (perplexity {held_out:.4g} at the end)",
            [*documents, (last, math.log(held_out))],
            dashed=True,
            color=4,
        ),
    ]
    write_png(Figure("loss", "Loss", "updates", "loss (nats per token)", series, perplexities=True), path)
