"""Tables and figures that an analysis makes, and how they become Markdown."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

from .figures import Figure, draw, standalone


@dataclass
class Table:
    """
    A table of texts.

    Args:
        title (`str`):
            Its heading.
        headers (`list[str]`):
            Names of its columns.
        rows (list of `list[str]`):
            Its cells.
        note (`str`):
            What to know of it.
    """

    title: str
    headers: list[str]
    rows: list[list[str]]
    note: str = ""

    def markdown(self) -> str:
        """As GitHub's Markdown, under a heading."""
        rows = [[escape(cell) for cell in row] for row in self.rows]
        text = tabulate(
            rows, headers=[escape(header) for header in self.headers], tablefmt="github", disable_numparse=True
        )
        return "\n\n".join(part for part in (f"### {escape(self.title)}", text, escape(self.note)) if part)


@dataclass
class Section:
    """
    What belongs together in a report.

    Args:
        title (`str`):
            Its heading.
        tables (list of [`Table`]):
            Tables.
        figures (list of [`Figure`]):
            Figures.
        note (`str`):
            What to know of it.
    """

    title: str
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    note: str = ""

    def markdown(self, folder: str = "figures") -> str:
        """As Markdown; the figures are files in a folder beside it, see [`write_figures`]."""
        parts = [f"## {escape(self.title)}", escape(self.note), *(table.markdown() for table in self.tables)]
        for figure in self.figures:
            if figure.is_empty:
                parts.append(f"{escape(figure.title)}: not run")
            else:
                parts.append(f"![{escape(figure.title)}]({folder}/{figure.name}.svg)\n\n{escape(figure.caption)}")
        return "\n\n".join(part.strip() for part in parts if part)


def escape(text: str) -> str:
    """Text that Markdown shows as it is, in a table too."""
    text = html.escape(" ".join(str(text).split()), quote=False)
    for sign in "\\`*_[]|":
        text = text.replace(sign, f"\\{sign}")
    return text


def write_figures(sections: Sequence[Section], folder: Path):
    """Write the figures of some sections that have data, an SVG file each."""
    for figure in (figure for section in sections for figure in section.figures):
        if not figure.is_empty and (svg := draw(figure)) is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{figure.name}.svg").write_text(standalone(svg), encoding="utf-8")


def write_section(section: Section, folder: Path) -> Path:
    """Write a section as `analysis.md`, and its figures beside it."""
    path = folder / "analysis.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(section.markdown() + "\n", encoding="utf-8")
    write_figures([section], folder / "figures")
    return path
