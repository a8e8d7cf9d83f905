"""
Write the outputs that README.md and recipes/README.md show, README's table of the benchmarks, and its picture, with
the current gpt1-tiny and results: `python tests/helpers/refresh_outputs.py`. It takes about two minutes.
"""

import os


os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import sys
import tempfile
from pathlib import Path


sys.path[:0] = [str(Path(__file__).resolve().parents[parent]) for parent in (1, 2)]

from helpers.documents import (  # noqa: E402
    BENCHMARKS,
    PICTURE,
    README,
    WITH_OUTPUTS,
    Command,
    benchmarks_table,
    blocks,
    commands,
    outputs,
    run,
)
from helpers.texts import write_texts  # noqa: E402


def refresh(document: Path):
    """Replace the outputs of one document."""
    text = document.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        write_texts(Path(folder))
        found = list(outputs(document))
    if document.read_text(encoding="utf-8") != text:
        sys.exit(f"{document} was edited meanwhile: start again")
    for block, actual in reversed(found):
        text = text[: block.start] + actual + text[block.end :]
    document.write_text(text, encoding="utf-8")
    print(f"{document}: {len(found)} outputs")


def refresh_benchmarks():
    """Replace README's table of the benchmarks."""
    text = README.read_text(encoding="utf-8")
    README.write_text(BENCHMARKS.sub(lambda _: benchmarks_table(), text), encoding="utf-8")


def refresh_picture():
    """Draw README's picture by the command that README shows for it."""
    scripts = [block.content for block in blocks(README.read_text(encoding="utf-8")) if block.language == "bash"]
    (line,) = [
        command.line for script in scripts for command in commands(script) if command.line.endswith(PICTURE.name)
    ]
    run(Command(line.removesuffix(PICTURE.name) + str(PICTURE)))


if __name__ == "__main__":
    refresh_benchmarks()
    refresh_picture()
    for document in WITH_OUTPUTS:
        refresh(document)
