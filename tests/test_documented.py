"""Every public function and class of the package says what it is."""

import ast
from pathlib import Path

import pytest


PACKAGE = Path(__file__).resolve().parent.parent / "gpt1_hf"
FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_public_names_have_docstrings(file):
    module = ast.parse(file.read_text(encoding="utf-8"))
    assert ast.get_docstring(module), "the module has none"
    definitions = (node for node in module.body if isinstance(node, ast.FunctionDef | ast.ClassDef))
    public = [node for node in definitions if not node.name.startswith("_")]
    # A command's own module says what its `main` does.
    missing = [node.name for node in public if not ast.get_docstring(node) and file.parent.name != "cli"]
    assert not missing
