"""A view as one HTML page, for light and dark, that loads nothing else."""

import json
from typing import Any

import jinja2

from ..resources import ASSETS
from .input_formats import SPECIAL_ROLES, FormatSequence
from .palette import ATTENTION, CLASSES, PARTS, percent, probability_class
from .tokens import visible
from .view import Attention, View


def page(view: View) -> str:
    """The page of a [`View`] as text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("show.html").render(
        view=view,
        classes=[{"name": name, "colour": colour} for _, name, colour in CLASSES],
        tokens=[_token(token) for token in view.probabilities],
        formats=[_format(sequence) for sequence in view.formats],
        parts=part_colours(view.formats),
        attention=[_heads(attention) for attention in view.attention],
        colour=ATTENTION,
    )


def part_colours(formats: list[FormatSequence]) -> dict[str, str]:
    """Colour of each text of a row, in the order of their first appearance."""
    names = dict.fromkeys(t.role for sequence in formats for t in sequence.tokens if t.role not in SPECIAL_ROLES)
    return dict(zip(names, PARTS, strict=False))


def _token(token: Any) -> dict[str, Any]:
    known = probability_class(token.probability)
    return {
        "text": visible(token.text.strip(" ")),
        "has_space": token.text.startswith(" "),
        "colour": known[1] if known else None,
        "probability": percent(token.probability) if known else "",
        "alternatives": [(visible(text).strip(), percent(value)) for text, value in token.alternatives],
    }


def _format(sequence: FormatSequence) -> dict[str, Any]:
    tokens = [
        {
            "text": visible(token.text.strip(" ")),
            "id": token.id,
            "role": token.role,
            "is_special": token.role in SPECIAL_ROLES,
            "has_space": token.text.startswith(" "),
        }
        for token in sequence.tokens
    ]
    return {"title": sequence.title, "tokens": tokens}


def _heads(attention: Attention) -> str:
    """The page's data as JSON that cannot end its script element. Weights are thousandths, of earlier tokens only."""
    weights = (attention.weights * 1000).round().astype(int)
    rows = [
        [[[int(weight) for weight in row[: index + 1]] for index, row in enumerate(head)] for head in layer]
        for layer in weights
    ]
    data = {
        "title": attention.title,
        "layers": attention.layers,
        "heads": attention.heads,
        "tokens": attention.tokens,
        "positions": attention.positions,
        "weights": rows,
    }
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


__all__ = ["page", "part_colours"]
