"""Colours of tokens in the Space and in the pictures of `gpt1 show`: by probability, and by part of the input."""

# Classes of probability: the lowest one, name, colour.
CLASSES = (
    (0.5, "over 50 %", "#0d9488"),
    (0.1, "10 to 50 %", "#65a30d"),
    (0.01, "1 to 10 %", "#ca8a04"),
    (0.001, "0.1 to 1 %", "#ea580c"),
    (0.0, "under 0.1 %", "#dc2626"),
)
# The start, delimiter and extract tokens, and the texts of a row in the order of the sequence.
SPECIAL = {"start": "#6b7280", "delimiter": "#6b7280", "extract": "#6b7280"}
PARTS = ("#2f7ed8", "#d9660b", "#1f9d63", "#b04fc4")
ATTENTION = "#2f7ed8"


def probability_class(probability: float | None) -> tuple[str, str] | None:
    """Name and colour of a probability's class; `None` for a token that was not predicted."""
    if probability is None:
        return None
    return next((name, colour) for least, name, colour in CLASSES if probability >= least)


def percent(probability: float) -> str:
    """A probability with three digits, such as `0.42 %`."""
    return f"{100 * probability:.3g} %" if probability >= 1e-4 else f"{100 * probability:.1e} %"
