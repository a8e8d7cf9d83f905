"""Loss curve of a pre-training run as a PNG: training and held-out loss against updates."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..evaluation.results import part_of_text
from ..figures import Figure, Series, write_png


def plot_losses(
    log_history: Sequence[dict[str, Any]],
    trajectory: Sequence[dict[str, Any]],
    held_out: float,
    path: str | Path,
    details: dict[str, Any] | None = None,
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
        details (`dict`, *optional*):
            Details of the finished model's result, which say how much of the held-out text was scored.
    """
    details = details or {}
    training = [(entry["step"], entry["loss"]) for entry in log_history if "loss" in entry]
    windows = [(entry["step"], entry["eval_loss"]) for entry in log_history if "eval_loss" in entry]
    last = max((entry["step"] for entry in log_history), default=0)
    # The finished model is on the curve only if the trajectory was scored on the same text.
    n_scored = details.get("scored_tokens")
    is_same = n_scored is None or all(row.get("scored_tokens", n_scored) == n_scored for row in trajectory)
    documents = [
        (row["update"], math.log(row["perplexity"])) for row in trajectory if row["update"] != last or not is_same
    ]
    of_end = f" on {part_of_text(details)}" if details.get("partial") else ""
    of_trajectory = next((f" on {part_of_text(row)}" for row in trajectory if row.get("partial")), "")
    end = Series(
        f"held out, in documents (perplexity {held_out:.4g}{of_end} at the end)",
        [*(documents if is_same else []), (last, math.log(held_out))],
        dashed=True,
        color=4,
    )
    series = [Series("training", training), Series("held out, in windows", windows), end]
    if not is_same:
        series.append(Series(f"held out, in documents{of_trajectory}", documents, dashed=True, color=3))
    write_png(Figure("loss", "Loss", "updates", "loss (nats per token)", series, perplexities=True), path)
