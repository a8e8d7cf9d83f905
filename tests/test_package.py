"""Importing the package: what it registers, how much it loads, that it stays off the network."""

import ast
import subprocess
import sys
from pathlib import Path

import transformers

import gpt1_hf


def test_every_public_name_is_there():
    for name in gpt1_hf.__all__:
        assert getattr(gpt1_hf, name) is not None
    assert gpt1_hf.__version__


def test_type_checkers_see_every_public_name():
    """`TYPE_CHECKING` imports each name from the module that it is loaded from at run time."""
    package = Path(gpt1_hf.__file__).parent
    tree = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imported = {alias.name: node.module for node in block.body for alias in node.names}
    assert imported == gpt1_hf._HOMES
    assert sorted(imported) == gpt1_hf.__all__
    assert (package / "py.typed").is_file()


def test_auto_classes_know_the_family(config):
    assert type(transformers.AutoModel.from_config(config)) is gpt1_hf.GPT1Model
    assert type(transformers.AutoModelForCausalLM.from_config(config)) is gpt1_hf.GPT1ForCausalLM
    classifier = transformers.AutoModelForSequenceClassification.from_config(config)
    assert type(classifier) is gpt1_hf.GPT1ForSequenceClassification
    assert type(transformers.AutoConfig.for_model("gpt1")) is gpt1_hf.GPT1Config


def test_import_loads_the_family_only_and_opens_no_socket():
    code = """
import socket, sys
def refuse(*args, **kwargs): raise AssertionError("network")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
import gpt1_hf
rooms = {name.split(".")[1] for name in sys.modules if name.startswith("gpt1_hf.") and name.count(".") > 1}
assert rooms == {"tokenization_rules"}, rooms
assert "datasets" not in sys.modules and "sklearn" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
