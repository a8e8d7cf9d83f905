"""Texts that stand in for a reader's own."""

from pathlib import Path


SENTENCE = "It was a dark and stormy night, and the old captain walked slowly to the house by the sea.\n"


def write_texts(folder: Path):
    """Write `my_text.txt`, and two files into `my_texts`."""
    (folder / "my_texts").mkdir()
    for name in ("my_texts/one.txt", "my_texts/two.txt", "my_text.txt"):
        (folder / name).write_text(SENTENCE * 100, encoding="utf-8")
