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
    return template("show.html").render(
        view=view,
        classes=class_colours(),
        tokens=[token_fields(token) for token in view.probabilities],
        formats=[sequence_fields(sequence) for sequence in view.formats],
        parts=part_colours(view.formats),
        attention=[_heads(attention) for attention in view.attention],
        colour=ATTENTION,
    )


def template(name: str) -> jinja2.Template:
    """A template of the package."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(name)


def class_colours() -> list[dict[str, str]]:
    """Name and colour of each class of probability."""
    return [{"name": name, "colour": colour} for _, name, colour in CLASSES]


def part_colours(formats: list[FormatSequence]) -> dict[str, str]:
    """Colour of each text of a row, in the order of their first appearance."""
    names = dict.fromkeys(t.role for sequence in formats for t in sequence.tokens if t.role not in SPECIAL_ROLES)
    return dict(zip(names, PARTS, strict=False))


def token_fields(token: Any) -> dict[str, Any]:
    """What a template shows of a [`Token`]."""
    known = probability_class(token.probability)
    return {
        "text": visible(token.text.strip(" ")),
        "has_space": token.text.startswith(" "),
        "colour": known[1] if known else None,
        "probability": percent(token.probability) if known else "",
        "alternatives": [(visible(text).strip(), percent(value)) for text, value in token.alternatives],
    }


def sequence_fields(sequence: FormatSequence) -> dict[str, Any]:
    """What a template shows of a [`FormatSequence`]."""
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


__all__ = ["class_colours", "page", "part_colours", "sequence_fields", "template", "token_fields"]
