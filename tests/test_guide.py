"""The files and commands of "Your own data" in recipes/README.md work as printed, in order, in one folder."""

import io
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from gpt1_hf.cli import main


GUIDE = Path(__file__).resolve().parent.parent / "recipes" / "README.md"
# Start of a command -> arguments that make it smaller.
SMALL = {
    "gpt1 finetune --task films.yaml --model": "--max_steps 2",
    "gpt1 pretrain": "--max_steps 1 --per_device_train_batch_size 1",
}
# Training file of each format -> what `gpt1 predict` answers beside the scores.
ANSWERS = {
    "reviews.csv": ("label", str),
    "claims.csv": ("label", str),
    "questions.csv": ("label", str),
    "stories.jsonl": ("answer", str),
    "essays.csv": ("prediction", float),
    "mails.jsonl": ("label", list),
    "names.jsonl": ("label", list),
}


def parts() -> list[tuple[str, str, str]]:
    """The code blocks of the section: the name of a file (named at the end of the text above), language, content."""
    section = GUIDE.read_text(encoding="utf-8").split("\n## Your own data\n")[1].split("\n## ")[0]
    found = []
    for text, language, content in re.findall(r"(.*?)^```(\w+)\n(.*?)^```$", section, flags=re.DOTALL | re.MULTILINE):
        names = re.findall(r"`(\w+\.(?:csv|jsonl|yaml))`", text.strip().split("\n\n")[-1])
        found.append((names[0] if names else "", language, content))
    return found


def commands(script: str) -> list[tuple[str, str]]:
    """Each command of a block, and its standard input."""
    lines = script.replace("\\\n", " ").splitlines()
    matches = [re.fullmatch(r'(?:echo "(.*)" \| )?(gpt1 .*)', line) for line in lines]
    assert all(matches), script
    return [(match[2], f"{match[1]}\n" if match[1] else "") for match in matches]


def without_numbers(text: str) -> list[str]:
    """Lines with each number as `#`: scores depend on the hardware."""
    return [" ".join(re.sub(r"-?\d+(\.\d+)?(e-\d+)?", "#", line).split()) for line in text.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("guide")
    (folder / "my_texts").mkdir()
    text = "It was a dark and stormy night, and the old captain walked slowly to the house by the sea.\n" * 100
    for name in ("one", "two"):
        (folder / "my_texts" / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


def test_the_guide_works_as_printed(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    printed = ""
    for name, language, content in parts():
        path = Path(name)
        if language == "bash":
            printed = ""
            for command, given in commands(content):
                start = next((start for start in SMALL if command.startswith(start)), None)
                monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
                status = main([*shlex.split(command)[1:], *(SMALL[start].split() if start else ())])
                captured = capsys.readouterr()
                assert status == 0, f"{command}\n{captured.err}"
                printed += captured.out + captured.err
        elif language == "text":
            assert {*without_numbers(content)} <= {*without_numbers(printed)}, printed
        elif language == "yaml" and not name:  # the keys of the file that `gpt1 tasks new` wrote
            assert yaml.safe_load(content) == yaml.safe_load(Path("films.yaml").read_text(encoding="utf-8"))
        elif path.exists():  # answers
            assert without_numbers(content) == without_numbers(path.read_text(encoding="utf-8"))
        else:
            path.write_text(content, encoding="utf-8")

    for name, (key, kind) in ANSWERS.items():
        rows = Path(name).read_text(encoding="utf-8").splitlines()
        assert len(rows) == 8 + name.endswith(".csv"), name
        assert main(["predict", "--model", f"runs/{Path(name).stem}", "--input", name]) == 0
        answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert len(answers) == 8 and all(isinstance(row[key], kind) for row in answers), answers
