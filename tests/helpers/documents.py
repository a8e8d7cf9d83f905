"""
The code blocks of the project's Markdown files. A `text` block, or a file that exists already, shows an output of the
commands or the snippet above it. `refresh_outputs.py` writes these outputs, and `tests/test_outputs.py` compares them.
"""

import contextlib
import io
import itertools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from gpt1_hf.analysis.report.paper import TABLES
from gpt1_hf.analysis.report.paper_tables import metric_name, section
from gpt1_hf.analysis.report.runs import collect
from gpt1_hf.cli import main
from gpt1_hf.tasks import load_task


ROOT = Path(__file__).resolve().parents[2]
README, GUIDE = ROOT / "README.md", ROOT / "recipes" / "README.md"
WITH_OUTPUTS = (README, GUIDE)
PICTURE = ROOT / "recipes" / "results" / "show.png"
PROGRAMS = ("accelerate", "cd", "git", "gpt1", "hf", "lm_eval", "make", "pytest", "python", "source")
# Start of a command -> arguments that make it smaller where outputs are compared. They change no output.
SMALL = {
    "gpt1 finetune --task films.yaml --model": "--max_steps 2",
    "gpt1 pretrain": "--max_steps 1 --per_device_train_batch_size 1",
}
# Makes the shell print the commands of a script instead of running them, each after the line that is piped into it. It
# joins lines, expands variables and loops, and drops comments.
PRINT = """{name}() {{
    given=
    [ ! -p /dev/stdin ] || IFS= read -r given
    printf '%q ' "$given" {name} "$@"
    echo
}}"""
PRINTING = "\n".join(["set -eu", "PATH=", *(PRINT.format(name=name) for name in PROGRAMS)])


@dataclass(frozen=True)
class Block:
    """
    A code block. `name` is the file that it shows, which is the first file in the paragraph above, or empty. `start`
    and `end` are the place of the content in the document.
    """

    language: str
    content: str
    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Command:
    """A command of a block, and the line on its standard input."""

    line: str
    given: str = ""


def blocks(text: str) -> list[Block]:
    """The code blocks of a document, in order."""
    found = []
    for match in re.finditer(r"^( *)```(\w+)\n(.*?)^\1```$", text, flags=re.DOTALL | re.MULTILINE):
        above = text[: match.start()].rstrip().split("\n\n")[-1]
        names = re.findall(r"`(\w+\.(?:csv|jsonl|yaml))`", above)
        name = names[0] if names and match[2] in ("csv", "jsonl", "yaml") else ""
        content = re.sub(f"(?m)^{match[1]}", "", match[3])
        found.append(Block(match[2], content, name, match.start(3), match.end(3)))
    return found


def commands(script: str) -> list[Command]:
    """The commands of a block. A program that is not in `PROGRAMS` is an error."""
    printed = subprocess.run(
        ["/bin/bash", "-c", f"{PRINTING}\n{script}"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert printed.returncode == 0, f"{printed.stderr}\n{script}"
    found = []
    for line in printed.stdout.splitlines():
        given, *words = shlex.split(line)
        found.append(Command(shlex.join(words), given))
    return found


def matching_start(command: str, *tables: dict[str, str]) -> str:
    """The longest key of the tables that starts the command, or an empty string."""
    return max((start for table in tables for start in table if command.startswith(start)), key=len, default="")


def with_outputs(text: str) -> list[Block]:
    """The blocks of each section that shows an output."""
    found = blocks(text)
    ends = [match.start() for match in re.finditer(r"(?m)^## ", text)] + [len(text)]
    sections = [[block for block in found if start <= block.start < end] for start, end in itertools.pairwise(ends)]
    return [block for part in sections if any(block.language == "text" for block in part) for block in part]


def outputs(document: Path) -> Iterator[tuple[Block, str]]:
    """
    Run the sections of a document that show outputs, in order, in the current folder.

    Yields:
        each block that shows an output, and the actual output.
    """
    printed = ""
    for block in with_outputs(document.read_text(encoding="utf-8")):
        if block.language == "bash":
            printed = "".join(run(command) for command in commands(block.content))
        elif block.language == "python":
            printed = run_snippet(block.content)
        elif block.language == "text":
            yield block, "".join(f"{line}\n" for line in printed.splitlines() if not line.startswith("{'"))
        elif block.language == "yaml" and not block.name:  # the keys of the file that `gpt1 tasks new` wrote
            assert yaml.safe_load(block.content) == yaml.safe_load(Path("films.yaml").read_text(encoding="utf-8"))
        elif Path(block.name).exists():
            yield block, Path(block.name).read_text(encoding="utf-8")
        else:
            Path(block.name).write_text(block.content, encoding="utf-8")


def run(command: Command) -> str:
    """What a `gpt1` command prints, results and notes in their order."""
    start = matching_start(command.line, SMALL)
    program, *argv = shlex.split(f"{command.line} {SMALL.get(start, '')}")
    assert program == "gpt1", command.line
    given = io.TextIOWrapper(io.BytesIO(f"{command.given}\n".encode()))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), _standard_input(given):
        status = main(argv)
    assert status == 0, f"{command.line}\n{printed.getvalue()}"
    return printed.getvalue()


@contextlib.contextmanager
def _standard_input(stream: io.TextIOBase):
    before, sys.stdin = sys.stdin, stream
    try:
        yield
    finally:
        sys.stdin = before


def run_snippet(code: str) -> str:
    """What a snippet prints to standard output."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "snippet", "exec"), {"__name__": "__main__"})
    return printed.getvalue()


def without_numbers(text: str) -> list[str]:
    """Lines with each number as `#`, which depends on the hardware."""
    return [" ".join(re.sub(r"-?\d+(\.\d+)?(e-\d+)?", "#", line).split()) for line in text.splitlines()]


def benchmarks_table() -> str:
    """README's table of the twelve benchmarks, with results from `recipes/results/runs/pretraining_small`."""
    report = section(collect(ROOT / "recipes" / "results" / "runs" / "pretraining_small"))
    lines = [
        "| data | task | format | metric | paper | gpt1-tiny | from scratch | constant |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for table in report.tables:
        found = {row[0]: dict(zip(table.headers, row, strict=True)) for row in table.rows}
        for column in TABLES[table.title]:
            task, row = load_task(column.task), found.get(column.title, {})  # a report leaves out what was not run
            paper, _ = task.numbers(column.subset)
            cells = (
                column.title,
                f"`{task.id}`",
                task.input_format.replace("_", " "),
                metric_name(task.metric),
                f"{paper:.1f}",
                row.get("ours: gpt1-tiny", "not run"),
                row.get("ours: gpt1-tiny from scratch", "not run").partition(" on ")[0],
                row.get("constant answer", "–").replace("unknown", "–"),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


BENCHMARKS = re.compile(r"(?<=<!-- results:begin -->\n).*?(?=<!-- results:end -->)", flags=re.DOTALL)
