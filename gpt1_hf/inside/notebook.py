"""A view in a notebook: coloured tokens, pictures, plots, tables and pages, for light and dark.

IPython is not needed: a notebook asks an object for its forms (`_repr_mimebundle_`).
"""

import base64
import html
import io
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from ..errors import GPT1Error
from ..figures import Figure
from ..figures import draw as draw_plot
from .page import class_colours, page, part_colours, sequence_fields, template, token_fields
from .palette import SPECIAL
from .pictures import draw
from .view import View


DPI = 100  # of pictures
NUMBER = re.compile(r"$|[-+]?\d")  # nothing, or a text that begins with a number


@dataclass(frozen=True)
class Output:
    """What a notebook shows: its forms by media type, of which the notebook chooses the best that it knows."""

    forms: dict[str, str]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return self.forms

    def __str__(self) -> str:
        return self.forms["text/plain"]


def probabilities(view: View) -> Output:
    """
    A text's tokens, coloured by their probabilities. Point at one to see the most probable tokens in its place.

    Raises:
        GPT1Error: if the view has no probabilities.
    """
    _check(view, "probabilities")
    tokens = []
    for token in map(token_fields, view.probabilities):
        lines = [f"{token['text']}: {token['probability']}", *(f"{text} {p}" for text, p in token["alternatives"])]
        tokens.append({**token, "is_special": False, "title": "\n".join(lines) if token["probability"] else ""})
    return _tokens(class_colours(), [{"title": "", "tokens": tokens}])


def formats(view: View) -> Output:
    """
    The sequences that the model reads for a row, coloured by the texts of the row. Point at a token to see its id.

    Raises:
        GPT1Error: if the view has no input format.
    """
    _check(view, "formats")
    colours = SPECIAL | part_colours(view.formats)
    sequences = []
    for sequence in map(sequence_fields, view.formats):
        tokens = [
            {**token, "colour": colours[token["role"]], "title": f"{token['role']}, id {token['id']}"}
            for token in sequence["tokens"]
        ]
        sequences.append({"title": sequence["title"], "tokens": tokens})
    key = {"start, delimiter, extract": SPECIAL["start"]} | part_colours(view.formats)
    return _tokens([{"name": name, "colour": colour} for name, colour in key.items()], sequences)


def picture(view: View, parts: Sequence[str] | None = None) -> Output:
    """A view, or some parts of it, as a picture without background. Arguments and errors as in `pictures.draw`."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # drawn as a box
        draw(view, parts, on_white=False).savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    shown = ", ".join(part for part in parts or ("probabilities", "attention", "formats") if getattr(view, part))
    return Output({"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": f"[picture: {shown}]"})


def plot(figure: Figure) -> Output:
    """
    A line plot as SVG without background.

    Raises:
        GPT1Error: if matplotlib is not installed.
    """
    svg = draw_plot(figure)
    if svg is None:
        raise GPT1Error("plots need matplotlib: pip install 'gpt1_hf[plots]'")
    svg = svg.replace("<svg ", '<svg style="max-width:44rem" ', 1)
    return Output({"image/svg+xml": svg, "text/plain": f"[plot: {figure.title}]"})


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> Output:
    """A table. A column is right-aligned if each of its values is a number, begins with one, or is empty."""
    texts = [[str(value) for value in row] for row in rows]
    sides = ["right" if all(NUMBER.match(text) for text in column) else "left" for column in zip(*texts, strict=True)]

    def line(cell: str, values: Sequence[str]) -> str:
        pairs = zip(values, sides, strict=True)
        cells = (f'<{cell} style="text-align:{side}">{html.escape(text)}</{cell}>' for text, side in pairs)
        return f"<tr>{''.join(cells)}</tr>"

    body = "\n".join(line("td", row) for row in texts)
    shown = f"<table>\n<thead>{line('th', headers)}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    plain = tabulate(texts, headers=headers, colalign=sides, disable_numparse=True)
    return Output({"text/html": shown, "text/plain": plain})


def interactive(view: View, height: int = 900) -> Output:
    """The page of `gpt1 show` in a frame of the notebook: as high as the page, or `height` pixels without scripts."""
    frame = (
        f'<iframe srcdoc="{html.escape(page(view))}" style="border:0;height:{height}px;width:100%" '
        "onload=\"this.style.height = this.contentDocument.documentElement.scrollHeight + 'px'\" "
        f'title="Inside {html.escape(view.model)}"></iframe>'
    )
    return Output({"text/html": frame, "text/plain": f"[page: inside {view.model}]"})


def _check(view: View, part: str):
    if not getattr(view, part):
        raise GPT1Error(f"there is nothing to show. {view.notes.get(part, '')}".strip())


def _tokens(key: list[dict[str, Any]], sequences: list[dict[str, Any]]) -> Output:
    lines = []
    for sequence in sequences:
        text, was_special = "", False
        for token in sequence["tokens"]:
            text += " " * (token["has_space"] or token["is_special"] or was_special) + token["text"]
            was_special = token["is_special"]
        lines.append(f"{sequence['title']}: {text.strip()}" if sequence["title"] else text.strip())
    page_part = template("notebook.html").render(key=key, sequences=sequences)
    return Output({"text/html": page_part, "text/plain": "\n".join(lines)})


__all__ = ["Output", "formats", "interactive", "picture", "plot", "probabilities", "table"]
