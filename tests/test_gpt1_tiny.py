"""gpt1-tiny, the model in the package, is small, complete, works offline and has learned English."""

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gpt1_hf.cli import main
from gpt1_hf.resources import ASSETS, model_path


FOLDER = ASSETS / "gpt1-tiny"
PASSAGE = (
    "The old gentleman rose from his chair by the fire, and walked slowly to the window. It had been raining all the "
    'morning, and the road was deep in mud. "I do not think that she will come," he said at last, without turning '
    "his head; but his daughter made no answer."
)


def test_the_folder_is_small_and_complete():
    files = {file.name: file.stat().st_size for file in FOLDER.iterdir() if file.is_file()}
    assert sum(files.values()) <= 9_000_000
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"} <= set(files)
    assert not [name for name in files if name.endswith((".bin", ".pt"))]


def test_the_name_works_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert model_path("gpt1-tiny") == str(FOLDER)
    assert model_path("someone/else") == "someone/else"


def test_it_predicts_unseen_english_far_better_than_chance():
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype="float32")
    ids = tokenizer(PASSAGE, return_tensors="pt").input_ids
    with torch.inference_mode():
        loss = model(ids, labels=ids).loss.item()
        shuffled = ids[:, torch.randperm(ids.shape[1], generator=torch.Generator().manual_seed(0))]
        assert model(shuffled, labels=shuffled).loss.item() > loss + 1
    assert loss * (ids.shape[1] - 1) / math.log(2) / len(PASSAGE) < 2.0  # bits per character; xz needs more


def test_it_generates_words(capsys):
    assert main(["generate", "--model", "gpt1-tiny", "It was a dark", "--max_new_tokens", "40"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("it was a dark")
    assert len(text.split()) > 20


def test_only_a_plain_name_finds_the_model():
    assert Path(model_path("gpt1-tiny")) == FOLDER
    for name in ("samples/../gpt1-tiny", "../assets/gpt1-tiny", "./../gpt1-tiny"):
        assert model_path(name) == name


def test_the_card_shows_the_results():
    results = json.loads((FOLDER / "results.json").read_text())
    card = (FOLDER / "README.md").read_text()
    for result in results:
        assert f"| {result['metric'].replace('_', ' ')} | {result['value']} |" in card


@pytest.mark.slow
def test_the_published_score_is_reproduced(data_dir, tmp_path):
    published = {row["metric"]: row["value"] for row in json.loads((FOLDER / "results.json").read_text())}
    out = ["--output_dir", str(tmp_path)]
    assert main(["evaluate", "--model", "gpt1-tiny", "--text_file", "books", "--data_dir", data_dir, *out]) == 0
    measured = {row["metric"]: row["value"] for row in json.loads((tmp_path / "results.json").read_text())}
    # The published score belongs to the fp32 weights at the end of training; the files contain them rounded to bf16.
    assert measured["bits_per_character"] == pytest.approx(published["bits_per_character"], abs=0.005)
