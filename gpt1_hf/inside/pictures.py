"""A view as PNG pictures, drawn by matplotlib (extra `plots`): files on white, and pictures for any background."""

import importlib.util
import textwrap
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

from ..errors import GPT1Error
from ..figures import ON_ANY, ON_WHITE, STYLE
from ..files import replacing, writing
from .input_formats import SPECIAL_ROLES
from .page import part_colours
from .palette import ATTENTION, CLASSES, SPECIAL, probability_class
from .tokens import visible
from .view import Attention, View


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

WIDTH = 11.0  # inches
COLUMNS = 110  # characters in a line of tokens
LINE = 0.27  # inches from line to line of tokens
LETTER = 11  # points
HEAD = (1.1, 2.0, 5.0)  # smallest side of a heatmap in inches, the side that fills the width, and the largest
SMALLEST_LABEL = 5  # points
GREY = "#767676"
# A token in a picture: text, colour of its box or `None`, and whether it is one of the special tokens.
Box = tuple[str, str | None, bool]


def check_matplotlib():
    """Raise a [`GPT1Error`] if matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise GPT1Error("pictures need matplotlib: pip install 'gpt1_hf[plots]', or give an .html file as --output")


def write_pictures(view: View, path: str | Path, parts: Sequence[str] | None = None) -> Path:
    """
    Draw a view into one PNG file.

    Args:
        view ([`View`]):
            What to draw.
        path (`str` or `Path`):
            The file.
        parts (sequence of `str`, *optional*):
            Some of `PARTS`. Default: all that the view has.

    Raises:
        GPT1Error: if the file cannot be written, matplotlib is missing, or the view has none of the parts.
    """
    figure = draw(view, parts)
    with writing(path), replacing(path) as unfinished, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # drawn as a box
        figure.savefig(unfinished, format="png", dpi=130, metadata={"Software": None})
    return Path(path)


def draw(view: View, parts: Sequence[str] | None = None, on_white: bool = True) -> "Figure":
    """
    A view as a matplotlib figure. Without `on_white` it has no background, and its colours can be read on a light and
    on a dark page. Other arguments and errors as in [`write_pictures`].
    """
    check_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    chosen = [part for part in parts or PARTS if getattr(view, part)]
    if not chosen:
        raise GPT1Error(f"there is nothing to draw. {' '.join(note for note in view.notes.values() if note)}".strip())
    colours = ON_WHITE if on_white else ON_ANY
    style = {name: colours.get(value, value) for name, value in STYLE.items()}
    if not on_white:
        style |= {"figure.facecolor": "none", "axes.facecolor": "none"}
    with rc_context(style):
        sizes = [PARTS[part][0](view) for part in chosen]
        figure = Figure(figsize=(max(width for width, _ in sizes), sum(height for _, height in sizes)))
        areas = figure.subfigures(len(chosen), 1, height_ratios=[height for _, height in sizes], squeeze=False)
        for area, part in zip(areas[:, 0], chosen, strict=True):
            PARTS[part][1](area, view)
    return figure


def _n_columns(text: str) -> int:
    """Width of a text in columns of a monospaced font."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def _lines(boxes: Iterable[tuple[Box, bool]]) -> list[list[tuple[int, Box]]]:
    """Tokens in lines of `COLUMNS` characters, each with its first column. The flag is a space before the token."""
    lines: list[list[tuple[int, Box]]] = [[]]
    place = 0
    for (text, colour, is_special), has_space in boxes:
        for start in range(0, max(1, len(text)), COLUMNS - 2):  # a token may be longer than a line
            piece = text[start : start + COLUMNS - 2]
            place += bool(lines[-1]) and has_space
            if place + _n_columns(piece) > COLUMNS:
                lines.append([])
                place = 0
            lines[-1].append((place, (piece, colour, is_special)))
            place += _n_columns(piece)
    return lines


def _write_tokens(axes: "Axes", lines: list[list[tuple[int, Box]]], first: float) -> float:
    """Draw lines of tokens from height `first` down, in inches. Returns the height below them."""
    from matplotlib.patches import Rectangle

    for number, line in enumerate(lines):
        bottom = first - (number + 1) * LINE
        for place, (text, colour, is_special) in line:
            if colour is not None:
                shape = {"facecolor": colour, "alpha": 0.3 if not is_special else 0.18, "linewidth": 0}
                axes.add_patch(Rectangle((place + 0.06, bottom + 0.02), _n_columns(text) - 0.12, LINE - 0.04, **shape))
            style = {"family": "monospace", "size": LETTER, "weight": "bold" if is_special else "normal"}
            axes.text(place, bottom + LINE / 2, text, va="center_baseline", parse_math=False, **style)
    return first - len(lines) * LINE


def _page(area: "SubFigure", height: float) -> "Axes":
    """Axes without frame, as wide as `COLUMNS` characters and `height` inches high."""
    # A letter of DejaVu Sans Mono is 0.602 em wide.
    width = COLUMNS * LETTER * 0.602 / 72
    whole = area.get_figure(root=True).get_size_inches()[0]
    axes = area.add_axes((0.25 / whole, 0, width / whole, 1))
    axes.set(xlim=(0, COLUMNS), ylim=(0, height))
    axes.axis("off")
    return axes


def _key(axes: "Axes", entries: Iterable[tuple[str, str]], height: float):
    """A legend in one line: names on their colours."""
    boxes: list[tuple[Box, bool]] = [((f" {name} ", colour, False), True) for name, colour in entries]
    _write_tokens(axes, _lines(boxes), height)


def _probability_lines(view: View) -> list[list[tuple[int, Box]]]:
    boxes = []
    for token in view.probabilities:
        known = probability_class(token.probability)
        box = (visible(token.text.strip(" ")), known[1] if known else None, False)
        boxes.append((box, token.text.startswith(" ")))
    return _lines(boxes)


def _probability_size(view: View) -> tuple[float, float]:
    return WIDTH, 1.2 + len(_probability_lines(view)) * LINE


def _draw_probabilities(area: "SubFigure", view: View):
    height = _probability_size(view)[1]
    axes = _page(area, height)
    axes.text(0, height - 0.3, "Probability of each token, given those before it", size=13, va="center")
    _key(axes, [(name, colour) for _, name, colour in CLASSES], height - 0.5)
    _write_tokens(axes, _probability_lines(view), height - 0.95)


def _format_lines(view: View) -> list[tuple[str, list[list[tuple[int, Box]]]]]:
    """Title and lines of each sequence."""
    colours = SPECIAL | part_colours(view.formats)
    found = []
    for sequence in view.formats:
        boxes = []
        last = None
        for token in sequence.tokens:
            box = (visible(token.text.strip(" ")), colours[token.role], token.role in SPECIAL_ROLES)
            boxes.append((box, token.text.startswith(" ") or token.role != last))
            last = token.role
        found.append((sequence.title, _lines(boxes)))
    return found


def _format_size(view: View) -> tuple[float, float]:
    return WIDTH, 1.2 + sum(len(lines) * LINE + 0.3 * bool(title) for title, lines in _format_lines(view))


def _draw_formats(area: "SubFigure", view: View):
    height = _format_size(view)[1]
    axes = _page(area, height)
    axes.text(0, height - 0.3, f"Input format: {view.input_format}", size=13, va="center")
    colours = {"start, delimiter, extract": SPECIAL["start"]} | part_colours(view.formats)
    _key(axes, colours.items(), height - 0.5)
    place = height - 0.95
    for title, lines in _format_lines(view):
        if title:
            axes.text(0, place - 0.15, title, size=10, va="center", color=GREY)
            place -= 0.3
        place = _write_tokens(axes, lines, place)


def _head_side(attention: Attention) -> float:
    """Side of a heatmap in inches."""
    n_tokens, n_heads = len(attention.tokens), len(attention.heads)
    smallest, usual, largest = HEAD
    return max(smallest, min(usual, (WIDTH - 2) / n_heads), min(largest, 0.16 * n_tokens, (WIDTH + 3) / n_heads))


def _label_size(attention: Attention) -> float | None:
    """Size of token labels in points; `None` if there is no room for them."""
    size = min(8.0, 0.85 * 72 * _head_side(attention) / len(attention.tokens))
    return size if size >= SMALLEST_LABEL else None


def _margin(attention: Attention) -> float:
    """Room for token labels in inches."""
    size = _label_size(attention)
    return 0.3 if size is None else 0.2 + max(map(len, _labels(attention))) * size * 0.62 / 72


def _labels(attention: Attention) -> list[str]:
    return [textwrap.shorten(text, 14, placeholder="…") if len(text) > 14 else text for text in attention.tokens]


def _attention_size(view: View) -> tuple[float, float]:
    attention = view.attention[0]
    step = _head_side(attention) + 0.3
    width = _margin(attention) + 0.3 + step * len(attention.heads)
    return max(WIDTH, width), 0.95 + step * len(attention.layers) + _margin(attention)


def _draw_attention(area: "SubFigure", view: View):
    attention = view.attention[0]
    _, height = _attention_size(view)
    width = area.get_figure(root=True).get_size_inches()[0]
    side, margin, size = _head_side(attention), _margin(attention), _label_size(attention)
    notes = ["Row: the token that reads. Column: the token that it reads from."]
    if len(view.attention) > 1:
        notes.append(f"Of {len(view.attention)} sequences, {attention.title} is drawn.")
    if attention.is_cut:
        notes.append(attention.note)
    if size is None:
        notes.append("Fewer --layers, --heads or --max_tokens leave room for the tokens.")
    area.text(0.25 / width, 1 - 0.3 / height, "Attention", size=13, va="center")
    area.text(0.25 / width, 1 - 0.55 / height, " ".join(notes), size=9, va="center", color=GREY)
    for row, layer in enumerate(attention.layers):
        for column, head in enumerate(attention.heads):
            left = margin + 0.1 + column * (side + 0.3)
            top = 0.95 + row * (side + 0.3)
            axes = area.add_axes((left / width, 1 - (top + side) / height, side / width, side / height))
            _draw_head(axes, attention, row, column)
            axes.set_title(f"layer {layer}, head {head}", size=8, pad=3)
            _label(axes, attention, size, y=column == 0, x=row == len(attention.layers) - 1)


def _label(axes: "Axes", attention: Attention, size: float | None, y: bool, x: bool):
    """Write the tokens beside and below a heatmap."""
    places = range(len(attention.tokens))
    style: dict[str, Any] = {"size": size, "parse_math": False}  # a token such as `$$` is no formula
    axes.set_yticks(places if y and size else [], _labels(attention) if y and size else [], **style)
    axes.set_xticks(places if x and size else [], _labels(attention) if x and size else [], **style, rotation=90)


def _draw_head(axes: "Axes", attention: Attention, layer: int, head: int):
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    colours = LinearSegmentedColormap.from_list("attention", [(ATTENTION, 0.0), (ATTENTION, 1.0)])
    weights = attention.weights[layer, head]
    axes.imshow(weights, cmap=colours, norm=PowerNorm(0.5, 0, 1), interpolation="nearest", aspect="auto")
    axes.tick_params(length=0, pad=2)
    axes.spines[["top", "right"]].set_visible(True)
    for spine in axes.spines.values():
        spine.set_color("#8888")
    if attention.is_cut:  # between the first and the last tokens
        gap = len(attention.positions) - len(attention.positions) // 2 - 0.5
        axes.axhline(gap, color="#8a8a8a", linewidth=0.6, linestyle=":")
        axes.axvline(gap, color="#8a8a8a", linewidth=0.6, linestyle=":")


# Part of a view -> functions of its size in inches, and of its drawing.
PARTS: dict[str, tuple[Callable[[View], tuple[float, float]], Callable[["SubFigure", View], None]]] = {
    "probabilities": (_probability_size, _draw_probabilities),
    "attention": (_attention_size, _draw_attention),
    "formats": (_format_size, _draw_formats),
}

__all__ = ["draw", "write_pictures"]
