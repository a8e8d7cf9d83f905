"""Importing the package: what it registers, how much it loads, that it stays off the network."""

import subprocess
import sys

import transformers

import gpt1_hf


def test_every_public_name_is_there():
    for name in gpt1_hf.__all__:
        assert getattr(gpt1_hf, name) is not None
    assert gpt1_hf.__version__


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
