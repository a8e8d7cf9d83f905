"""What the pictures of the analyses have in common; they need matplotlib, the extra `plots`."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import GPT1Error


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Told apart by most kinds of colour-blindness (Okabe and Ito, 2008), darkest first on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def check_matplotlib():
    """
    Find out before the work begins.

    Raises:
        GPT1Error: if matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise GPT1Error("the picture needs matplotlib: pip install 'gpt1_hf[plots]'") from error


def new_figure(columns: int = 1, width: float = 6.4, height: float = 4.4) -> tuple["Figure", list["Axes"]]:
    """An empty figure with panels side by side, drawn without a display; `width` is a panel's, in inches."""
    check_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height), layout="constrained", facecolor="white")
    panels = list(figure.subplots(1, columns, squeeze=False)[0])
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(True, color="#DDDDDD", linewidth=0.6)
        panel.set_axisbelow(True)
    return figure, panels


def save_figure(figure: "Figure", path: str | Path) -> Path:
    """Save a figure as its file name says, and return the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path
