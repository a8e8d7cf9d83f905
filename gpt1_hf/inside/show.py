"""`gpt1 show`: a model's view of a text as an HTML page or as PNG pictures."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import UsageError
from ..files import check_writable, default_folder, write_text
from .page import page
from .pictures import PARTS, check_matplotlib, write_pictures
from .view import MAX_TOKENS, View, look


PAGES = (".html", ".htm")
PICTURE = ".png"


def show(
    texts: Sequence[str],
    model: str = "gpt1-tiny",
    output: str | None = None,
    input_format: str | None = None,
    max_tokens: int = MAX_TOKENS,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> list[Path]:
    """
    Draw a model's view of a text or row into files.

    Args:
        output (`str`, *optional*):
            An `.html` file: one page that needs nothing else. A `.png` file: one picture. A folder: the page
            `show.html` and one picture for each part. Default: `runs/show/<model>/show.html`.
        texts, model, input_format, max_tokens, layers, heads:
            As in [`look`].

    Returns:
        list of `Path`: the files.

    Raises:
        GPT1Error: as [`look`], or if the output has another ending, cannot be written, or needs matplotlib.
    """
    target = Path(output or f"{default_folder('show', None, model)}/show.html")
    ending = target.suffix.lower()
    is_folder = target.is_dir() or str(output).endswith("/") or not ending
    if not is_folder and ending not in (*PAGES, PICTURE):
        raise UsageError(f"--output {output} must end in .html or .png, or be a folder")
    if is_folder or ending == PICTURE:
        check_matplotlib()
    check_writable(target if is_folder else target.parent, advice="choose another --output")
    view = look(texts, model, input_format, max_tokens, layers, heads)
    if not is_folder and ending in PAGES:
        write_text(target, page(view))
        return [target]
    if not is_folder:
        return [write_pictures(view, target)]
    write_text(target / "show.html", page(view))
    parts = {part: target / f"{part}.png" for part in PARTS if has_part(view, part)}
    return [target / "show.html", *(write_pictures(view, path, [part]) for part, path in parts.items())]


def has_part(view: View, part: str) -> bool:
    """Whether a view has something to draw for a part."""
    return bool(getattr(view, part))


__all__ = ["show"]
