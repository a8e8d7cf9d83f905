"""Sections of a report, made of tables and figures, and how they become Markdown."""

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

from ...evaluation.verdicts import RULE
from ...figures import Figure, draw, is_standalone, standalone
from ...files import write_text


# Start of the header of a column of verdicts over seeds, and the header of the settings that tell rows apart.
VERDICT, DIFFERENCES = "verdict", "settings that differ"
# Header of the settings that each arm of a row has for itself.
OWN_SETTINGS = "tuned for each arm"


@dataclass
class Table:
    """A table of texts under a heading; the note goes below it."""

    title: str
    headers: list[str]
    rows: list[list[str]]
    note: str = ""

    @classmethod
    def of(cls, title: str, headers: list[str], rows: list[list[str]], note: str = "") -> "Table":
        """A table without the columns that are empty in every row."""
        kept = [number for number in range(len(headers)) if any(row[number] not in ("", "–") for row in rows)]
        return cls(title, [headers[n] for n in kept], [[row[n] for n in kept] for row in rows], note)

    def markdown(self) -> str:
        """As GitHub's Markdown."""
        rows = [[escape(cell) for cell in row] for row in self.rows]
        text = tabulate(
            rows, headers=[escape(header) for header in self.headers], tablefmt="github", disable_numparse=True
        )
        return "\n\n".join(part for part in (f"### {escape(self.title)}", text, escape(self.note)) if part)


@dataclass
class Section:
    """
    Tables and figures under one heading; the note comes first. Verdicts over seeds need their rule beside them.
    `not_run` names the parts that have no results and no place in the tables.
    """

    title: str
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    note: str = ""
    has_verdicts: bool = False
    not_run: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether nothing of it was run."""
        return not self.tables and not self.drawn

    @property
    def drawn(self) -> list[Figure]:
        """The figures that have data."""
        return [figure for figure in self.figures if not figure.is_empty]

    @property
    def gaps(self) -> str:
        """One line on what was not run; empty if everything was."""
        names = [*self.not_run, *(figure.title for figure in self.figures if figure.is_empty)]
        if self.is_empty and not self.note:
            return "Not run."
        return f"Not run: {'; '.join(names)}." if names else ""

    def markdown(self, folder: str = "figures") -> str:
        """As Markdown that refers to the figures' files in a folder, see [`write_figures`]."""
        parts = [f"## {escape(self.title)}", escape(self.note), escape(self.gaps)]
        parts += [table.markdown() for table in self.tables]
        for figure in self.drawn:
            parts.append(f"![{escape(figure.title)}]({folder}/{figure.name}.svg)\n\n{escape(figure.caption)}")
        return "\n\n".join(part.strip() for part in parts if part)


def escape(text: str) -> str:
    """Escape a text so that Markdown shows it unchanged, also in a table."""
    text = html.escape(" ".join(str(text).split()), quote=False)
    for sign in "\\`*_[]|":
        text = text.replace(sign, f"\\{sign}")
    return text


def signed(value: float | None) -> str:
    """A difference as a cell."""
    return "" if value is None else f"{value:+.1f}".replace("-", "−")


def write_figures(sections: Sequence[Section], folder: Path):
    """Write an SVG file for each figure that has data."""
    for figure in (figure for section in sections for figure in section.drawn):
        if (svg := draw(figure)) is not None:
            write_text(folder / f"{figure.name}.svg", standalone(svg))


def figures_named(folder: Path) -> set[str]:
    """Names of the files in `figures/` that the Markdown files in a folder refer to."""
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in folder.glob("*.md")]
    return {name for text in texts for name in re.findall(r"\]\(figures/([\w.-]+\.svg)\)", text)}


def remove_figures(names: Iterable[str], folder: Path):
    """Remove figures that [`write_figures`] wrote into a folder. Other files of these names stay."""
    for path in (folder / name for name in names):
        if path.is_file() and is_standalone(path.read_text(encoding="utf-8", errors="replace")):
            path.unlink()


def write_section(section: Section, folder: str | Path) -> Path:
    """Write a section as `analysis.md`, with its figures beside it."""
    path = Path(folder) / "analysis.md"
    parts = [section.markdown(), escape(RULE)] if section.has_verdicts else [section.markdown()]
    write_text(path, "\n\n".join(parts) + "\n")
    write_figures([section], path.parent / "figures")
    return path
