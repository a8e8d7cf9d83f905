"""Line plots: as SVG for pages, whose CSS variables set the colours for light and dark, and as PNG files."""

import io
import logging
import math
import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .files import writing


if TYPE_CHECKING:
    from matplotlib.axes import Axes


logger = logging.getLogger(__name__)

# Placeholder colours, which CSS variables replace in the SVG.
INK, GRID = "#010203", "#040506"
ON_ANY = {INK: "#767676", GRID: "#8884"}  # readable both on white and on near black
VARIABLES = {INK: f"var(--ink, {ON_ANY[INK]})", GRID: f"var(--grid, {ON_ANY[GRID]})"}
ON_WHITE = {INK: "#24292f", GRID: "#d8d8d8"}
# Contrast of at least 3 both on white and on near black.
COLORS = ("#2f7ed8", "#d9660b", "#1f9d63", "#b04fc4", "#d23f57", "#8a7a12", "#0e93a8", "#8a6d5c")
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a `$` in a name is a `$`
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass
class Series:
    """
    A line through points (x, y), sorted by x. `color` is an index into `COLORS`; by default the line's own. `band` has
    the low and the high end of an error band for each point, or `None` for a point without one. `marked` draws a mark
    on each point; by default, if there are at most 30.
    """

    label: str
    points: list[tuple[float, float]]
    dashed: bool = False
    color: int | None = None
    band: list[tuple[float, float] | None] = field(default_factory=list)
    marked: bool | None = None


@dataclass
class Figure:
    """
    A line plot. `name` is its file's name; with `few_x` the x axis marks exactly the points' values. `log_x` and
    `log_y` make an axis logarithmic. `perplexities` labels the right side with the exponential of y. `level` is the
    label and the height of a dotted horizontal line.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    series: list[Series] = field(default_factory=list)
    caption: str = ""
    log_x: bool = False
    log_y: bool = False
    few_x: bool = False
    perplexities: bool = False
    level: tuple[str, float] | None = None

    def __post_init__(self):
        self.name = re.sub(r"[^\w.-]+", "-", self.name)  # names come from results.json, which may hold anything

    @property
    def is_empty(self) -> bool:
        return not any(series.points for series in self.series)


def draw(figure: Figure) -> str | None:
    """
    Draw a figure for a page.

    Returns:
        `str`: an `<svg>` element for a page that sets the CSS variables `--ink` and `--grid`. Without matplotlib,
        `None` and a warning.
    """
    content = _render(figure, "svg", {**STYLE, "svg.hashsalt": figure.name})  # ids: reproducible, unique on a page
    if content is None:
        return None
    svg = content.decode()
    svg = svg[svg.index("<svg") :]
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, variable)
    # The page sets the size.
    head, bracket, rest = svg.partition(">")
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return head + bracket + re.sub(r"<metadata>.*?</metadata>", "", rest, count=1, flags=re.DOTALL)


def write_png(figure: Figure, path: str | Path):
    """Draw a figure into a PNG file. Without matplotlib, warn and write nothing."""
    style = {name: ON_WHITE.get(value, value) for name, value in STYLE.items()}
    if (content := _render(figure, "png", style)) is not None:
        with writing(path):
            Path(path).write_bytes(content)


def _render(figure: Figure, format: str, style: dict) -> bytes | None:
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        logger.warning("plots need matplotlib: pip install 'gpt1_hf[plots]'")
        return None
    with rc_context(style):
        canvas = Canvas(figsize=(7, 4.2), layout="constrained")
        _plot(figure, canvas.subplots())
        file = io.BytesIO()
        metadata = {"Date": None, "Creator": None} if format == "svg" else {"Software": None}
        canvas.savefig(file, format=format, dpi=150, transparent=format == "svg", metadata=metadata)
    return file.getvalue()


def _plot(figure: Figure, axes: "Axes"):
    for number, series in enumerate(series for series in figure.series if series.points):
        color = COLORS[(number if series.color is None else series.color) % len(COLORS)]
        x, y = zip(*series.points, strict=True)
        is_marked = len(x) <= 30 if series.marked is None else series.marked
        marker = "o" if is_marked else None
        line = "--" if series.dashed else "-"
        label = "\n".join(textwrap.wrap(series.label, 36))  # names can be paths, of any length
        axes.plot(x, y, line, color=color, marker=marker, markersize=4, linewidth=1.6, label=label)
        if any(series.band):
            low, high = zip(*(ends or (math.nan, math.nan) for ends in series.band), strict=True)
            if len(x) == 1:  # a band would have no width
                axes.vlines(x, low, high, color=color, linewidth=1.6)
            else:  # see-through on light and dark
                axes.fill_between(x, low, high, color=color, alpha=0.16, linewidth=0)
    if figure.level is not None:
        label, height = figure.level
        axes.axhline(height, color=axes.xaxis.label.get_color(), linestyle=":", linewidth=1.2, label=label)
    axes.set(xlabel=figure.x_label, ylabel=figure.y_label)
    if figure.log_x:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,.0f}")  # matplotlib's own writes powers as formulas
        axes.xaxis.set_minor_formatter("")
    if figure.log_y:
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
    if figure.few_x:
        axes.set_xticks(sorted({x for series in figure.series for x, _ in series.points}))
        axes.minorticks_off()
    axes.grid(linewidth=0.6)
    if figure.perplexities:  # the right axis takes the legend's place beside the plot
        axes.locator_params(axis="x", integer=True)
        right = axes.secondary_yaxis("right", functions=(lambda loss: loss, lambda loss: loss))
        right.yaxis.set_major_formatter(lambda loss, _: f"{math.exp(loss):,.0f}")
        right.set_ylabel("perplexity")
        axes.legend(frameon=False, fontsize=9)
    else:
        axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))


OWN_COLORS = (
    "<style>:root{--ink:#24292f;--grid:#8884}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--grid:#8886}}</style>"
)


def standalone(svg: str) -> str:
    """An SVG of [`draw`] as a separate file, with its own colours."""
    head, bracket, rest = svg.partition(">")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{head}{bracket}\n{OWN_COLORS}{rest}'


def is_standalone(text: str) -> bool:
    """Whether a file's text was made by [`standalone`]."""
    return OWN_COLORS in text
