"""Every module, public function and public class of the package has a docstring."""

import ast
from pathlib import Path

import pytest


PACKAGE = Path(__file__).resolve().parent.parent / "gpt1_hf"
FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_public_names_have_docstrings(file):
    module = ast.parse(file.read_text(encoding="utf-8"))
    assert ast.get_docstring(module), "the module has no docstring"
    definitions = (node for node in module.body if isinstance(node, ast.FunctionDef | ast.ClassDef))
    public = [node for node in definitions if not node.name.startswith("_")]
    # In a command's module, the module's docstring describes `main`.
    missing = [node.name for node in public if not ast.get_docstring(node) and file.parent.name != "cli"]
    assert not missing
