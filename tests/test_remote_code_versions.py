"""
Folders that one version of transformers saved, loaded by remote code with another, and the other way round.

`GPT1_OTHER_PYTHON` names interpreters that have another transformers, such as those of `make test-lowest` and
`make test-newest`: `GPT1_OTHER_PYTHON=.venv-lowest/bin/python:.venv-newest/bin/python pytest -m slow THIS_FILE`.
"""

import os
import subprocess
import sys

import pytest
from helpers.hub_client import PACKAGE, run_without_package


pytestmark = pytest.mark.slow

OTHERS = [python for python in os.environ.get("GPT1_OTHER_PYTHON", "").split(os.pathsep) if python]
IDS = [[5, 9, 3, 7, 11, 2], [0, 0, 4, 8, 15, 16]]  # the second padded on the left

# Saves a language model and a classifier of each architecture.
SAVE = """
import sys
from pathlib import Path
import torch
import gpt1_hf as g

sizes = dict(vocab_size=60, hidden_size=32, num_hidden_layers=2, max_position_embeddings=64, pad_token_id=0)
sizes |= dict(initializer_range=0.3, num_labels=3)
torch.manual_seed(0)
for name, config in {
    "gpt1": g.GPT1Config(num_attention_heads=4, **sizes), "lstm": g.GPT1LSTMConfig(lstm_size=24, **sizes)
}.items():
    prefix = "GPT1" if name == "gpt1" else "GPT1LSTM"
    for head in ("ForCausalLM", "ForSequenceClassification"):
        getattr(g, prefix + head)(config).save_pretrained(Path(sys.argv[1]) / (name + head))
"""

# Loads them without the package: what they generate, by every kind of search and cache, and what they answer.
LOAD = f"""
import json, sys, warnings
from pathlib import Path

warnings.simplefilter("error", FutureWarning)
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

source, ids = Path(sys.argv[1]), torch.tensor({IDS})
inputs = dict(input_ids=ids, attention_mask=(ids != 0).long())
report = {{}}
for name in ("gpt1", "lstm"):
    model = AutoModelForCausalLM.from_pretrained(source / (name + "ForCausalLM"), trust_remote_code=True)
    for kind, options in {{
        "cached": {{}}, "uncached": dict(use_cache=False), "beams": dict(num_beams=3),
        "static": dict(cache_implementation="static") if name == "gpt1" else {{}},
    }}.items():
        report[name, kind] = model.generate(**inputs, max_new_tokens=12, do_sample=False, **options).tolist()
    folder = source / (name + "ForSequenceClassification")
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
    outputs = model(**inputs, labels=torch.tensor([0, 2]))
    outputs.loss.backward()
    report[name, "logits"] = outputs.logits.tolist()
report = {{" ".join(key): value for key, value in report.items()}}
print("REPORT" + json.dumps([transformers.__version__, report]))
"""


def save(python: str, folder) -> str:
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    subprocess.run([python, "-c", SAVE, str(folder)], env=environment, check=True, timeout=300)
    return str(folder)


@pytest.mark.skipif(not OTHERS, reason="needs an interpreter with another transformers: set GPT1_OTHER_PYTHON")
@pytest.mark.parametrize("other", OTHERS)
def test_folders_of_one_version_work_with_the_other(other, tmp_path):
    other = os.path.abspath(other)
    for saver, loader in ((sys.executable, other), (other, sys.executable)):
        folder = save(saver, tmp_path / f"by-{len(list(tmp_path.iterdir()))}")
        version, expected = run_without_package(LOAD, folder, home=tmp_path / "home-saver", python=saver)
        other_version, found = run_without_package(LOAD, folder, home=tmp_path / "home-loader", python=loader)
        assert version != other_version
        for key, value in expected.items():
            if key.endswith("logits"):
                flat = [number for row in value for number in row]
                assert [number for row in found[key] for number in row] == pytest.approx(flat, abs=1e-5), key
            else:
                assert found[key] == value, key
        for name in ("gpt1", "lstm"):
            assert found[f"{name} cached"] == found[f"{name} uncached"] == found[f"{name} static"]
