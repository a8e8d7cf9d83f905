"""Adapters on a Hub on localhost: what `gpt1 push` and a run send, and what PEFT loads without the package."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from helpers.hub_client import error_of, run_without_package
from helpers.hub_server import card_errors
from helpers.models import CODE
from torch.testing import assert_close
from transformers import AutoModelForSequenceClassification

from gpt1_hf import GPT1ForCausalLM, GPT1Processor
from gpt1_hf.checkpoints.loading import open_config, open_model


pytest.importorskip("peft", reason="needs the extra `peft`")
pytestmark = pytest.mark.slow

SENT = CODE["gpt1"] | {
    ".gitattributes",
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
}
# Runs a card's code as it is printed.
RUN = """
import json
names = {}
exec(sys.argv[1], names)
found = type(names["model"].get_base_model())
print("REPORT" + json.dumps({"logits": names["logits"].tolist(), "class": f"{found.__module__}.{found.__name__}"}))
"""
# PEFT's own way, which needs only the repository's name.
AUTO_PEFT = """
import json
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoProcessor
processor = AutoProcessor.from_pretrained("anna/adapter", trust_remote_code=True)
inputs = processor({"text": "A film that is better than its title."}, padding=True, return_tensors="pt")
model = AutoPeftModelForSequenceClassification.from_pretrained("anna/adapter", num_labels=2, trust_remote_code=True)
print("REPORT" + json.dumps({"logits": model(**inputs).logits[0].tolist()}))
"""


def settings(model: str, run: Path, task: str = "sst2") -> list:
    flags = ["--task", task, "--sample", "--model", model, "--output_dir", run, "--peft", "lora", "--max_steps", 2]
    return [*flags, "--max_train_examples", 8, "--per_device_train_batch_size", 4, "--learning_rate", 0.05]


def code_of(card: str) -> str:
    (snippet,) = re.findall(r"```python\n(.*?)```\n", card, flags=re.DOTALL)
    return snippet


def test_an_adapter_whose_base_model_is_a_local_folder(hub, client, base_model, tmp_path):
    run = tmp_path / "run"
    assert client("finetune", *settings(base_model, run))["status"] == 0
    assert "which is not a Hub id" in error_of(client("push", run, "anna/adapter"))
    assert "cannot load the configuration" in error_of(client("push", run, "anna/adapter", "--base_model", "anna/not"))
    assert client("push", base_model, "anna/base")["status"] == 0
    other = Path(shutil.copytree(base_model, tmp_path / "other"))
    changed = GPT1ForCausalLM.from_pretrained(other)
    changed.get_input_embeddings().weight.data += 0.1
    changed.save_pretrained(other)
    assert client("push", other, "anna/other")["status"] == 0
    assert "the model that the adapter" in error_of(client("push", run, "anna/adapter", "--base_model", "anna/other"))
    assert "anna/adapter" not in hub.repos

    before = {path.name: path.read_bytes() for path in run.iterdir()}
    answer = client("push", run, "anna/adapter", "--base_model", "anna/base")
    assert answer["status"] == 0, answer
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    sent = hub.files("anna/adapter")
    assert sent.keys() == SENT
    assert json.loads(sent["adapter_config.json"])["base_model_name_or_path"] == "anna/base"
    for content in sent.values():
        assert str(tmp_path).encode() not in content and base_model.encode() not in content
    card = sent["README.md"].decode()
    assert card_errors(card) == []
    for line in ("base_model: anna/base", "base_model_relation: adapter", "library_name: peft", "- lora", "- sst2"):
        assert f"{line}\n" in card, line
    assert 'name = "anna/adapter"\nbase = "anna/base"\n' in card

    # Head, special tokens and adapter arrive: the same logits, from the Hub alone.
    code = code_of(card)
    report = run_without_package(RUN, code, home=tmp_path / "home", hub=hub)
    assert report["class"].startswith("transformers_modules.")
    assert report["class"].endswith(".GPT1ForSequenceClassification")
    model = open_model(AutoModelForSequenceClassification, str(run), open_config(str(run)))
    processor = GPT1Processor.from_pretrained(run)
    inputs = processor({"text": "A film that is better than its title."}, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model.eval()(**inputs).logits[0]
    assert_close(torch.tensor(report["logits"]), expected, atol=1e-5, rtol=1e-5)
    report = run_without_package(AUTO_PEFT, home=tmp_path / "home", hub=hub)
    assert_close(torch.tensor(report["logits"]), expected, atol=1e-5, rtol=1e-5)

    # A push of one kind removes the other: a leftover adapter's configuration would be read first.
    assert client("push", base_model, "anna/adapter")["status"] == 0
    assert not any(name.startswith("adapter") for name in hub.files("anna/adapter"))
    assert client("push", run, "anna/adapter", "--base_model", "anna/base")["status"] == 0
    assert hub.files("anna/adapter").keys() - {"generation_config.json"} == SENT


def test_a_run_on_a_model_of_the_hub_pushes_itself(hub, client, base_model, tmp_path):
    """Its checkpoints are pushed too, and `gpt1 evaluate` reads it from the Hub. The base model is an OpenAIGPT."""
    folder = tmp_path / "openai-gpt"
    assert client("convert", base_model, "--to", "openai-gpt", "--output_dir", folder)["status"] == 0
    code = "from huggingface_hub import HfApi; api = HfApi(); api.create_repo('anna/openai-gpt'); "
    assert (
        client(code=code + f"api.upload_folder(repo_id='anna/openai-gpt', folder_path={str(folder)!r})")["err"] == ""
    )

    run = tmp_path / "run"
    push = ["--push_to_hub", "--hub_model_id", "anna/choices", "--save_strategy", "epoch"]
    local = client("finetune", *settings(base_model, run, "story_cloze"), *push)
    assert "which is not a Hub id" in error_of(local) and "train_runtime" not in local["out"]
    answer = client("finetune", *settings("anna/openai-gpt", run, "story_cloze"), *push)
    assert answer["status"] == 0, answer
    assert "was not pushed" not in answer["err"]
    assert [m.split(",")[0] for m in hub.repos["anna/choices"].messages.values()][1:] == [
        "Training in progress",
        "Upload GPT1ForMultipleChoice with gpt1_hf",
    ]
    sent = hub.files("anna/choices")
    assert sent.keys() == SENT
    card = sent["README.md"].decode()
    assert "base_model: anna/openai-gpt\n" in card and "pipeline_tag" not in card  # pipelines do not load adapters
    report = run_without_package(RUN, code_of(card), home=tmp_path / "home", hub=hub)
    assert report["class"].endswith(".GPT1ForMultipleChoice") and len(report["logits"]) == 2

    evaluate = ["evaluate", "--task", "story_cloze", "--sample", "--output_dir", tmp_path / "evaluated"]
    assert client(*evaluate, "--model", "anna/choices")["status"] == 0
    found, before = (json.loads((folder / "results.json").read_text()) for folder in (tmp_path / "evaluated", run))
    assert found[0]["value"] == before[0]["value"]
