"""
The outputs that README.md and recipes/README.md show are those of their commands and snippets, which run as printed,
in order, in one folder. `python tests/helpers/refresh_outputs.py` writes them.
"""

import json
from pathlib import Path

import pytest
from helpers.documents import (
    BENCHMARKS,
    GUIDE,
    PICTURE,
    README,
    WITH_OUTPUTS,
    benchmarks_table,
    outputs,
    without_numbers,
)
from helpers.texts import write_texts

from gpt1_hf.cli import main


HINT = "run `python tests/helpers/refresh_outputs.py`"
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


@pytest.mark.parametrize("document", WITH_OUTPUTS, ids=lambda path: path.parent.name)
def test_outputs_are_as_shown(document, tmp_path, monkeypatch, capsys):
    write_texts(tmp_path)
    monkeypatch.chdir(tmp_path)
    shown = 0
    for block, actual in outputs(document):
        assert {*without_numbers(block.content)} <= {*without_numbers(actual)}, f"{actual}\n{HINT}"
        assert block.content.strip(), HINT
        shown += 1
    assert shown >= 3
    if document != GUIDE:
        return
    capsys.readouterr()
    for name, (key, kind) in ANSWERS.items():
        rows = Path(name).read_text(encoding="utf-8").splitlines()
        assert len(rows) == 8 + name.endswith(".csv"), name
        assert main(["predict", "--model", f"runs/{Path(name).stem}", "--input", name]) == 0
        answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert len(answers) == 8 and all(isinstance(row[key], kind) for row in answers), answers


def test_the_table_of_benchmarks_has_the_current_results():
    (shown,) = BENCHMARKS.findall(README.read_text(encoding="utf-8"))
    assert shown == benchmarks_table(), HINT


def test_the_picture_is_small():
    assert 10_000 < PICTURE.stat().st_size < 200_000
