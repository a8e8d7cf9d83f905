"""The code of every kind of card runs in a process without the package: it asks nothing and warns of nothing."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
from datasets import Dataset
from helpers.hub_client import process_without_package
from test_card import arguments, result, save_classifier
from test_own_cards import CASES, command, write_task
from transformers import AutoTokenizer

from gpt1_hf import GPT1ForCausalLM, GPT1ForSequenceClassification, GPT1Processor, GPT1Trainer
from gpt1_hf.checkpoints.conversion import convert
from gpt1_hf.cli import main
from gpt1_hf.hub.card import write_finetuning_cards
from gpt1_hf.hub.push import complete_copy
from gpt1_hf.tasks import load_task
from gpt1_hf.training.arguments import GPT1TrainingArguments


# Runs each card's code in turn. `transformers` draws bars while it loads weights, which are no warnings.
SCRIPT = """
import json, os, sys
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
from transformers.utils import logging
logging.disable_progress_bar()
for name, code in json.loads(sys.argv[1]).items():
    print("CARD", name, file=sys.stderr)
    print("CARD", name)
    exec(compile(code, name, "exec"), {"__name__": "__main__"})
assert "gpt1_hf" not in sys.modules
"""
# An adapter's head is loaded after its base model, so transformers reports it as new, and PEFT reads an old attribute.
# torchao looks for kernels of GPUs.
OF_LIBRARIES = re.compile(
    r"\[transformers\] \S+ LOAD REPORT.*?downstream task\.\n\n?"
    r"|Failed to load \S+/torchao/[^\n]*\n|W\d+ [^\n]*_pytree\.py[^\n]*\n"
    r"|\S+ FutureWarning: `is_gradient_checkpointing`[^\n]*\n[^\n]*\n",
    flags=re.DOTALL,
)
BENCHMARKS = ("sst2", "rte", "mrpc", "race", "stsb")  # one of each format, and scores


def code_of(folder: Path) -> str:
    """The only snippet of a folder's card, for the folder itself."""
    (snippet,) = re.findall(r"```python\n(.*?)```\n", (folder / "README.md").read_text(), flags=re.DOTALL)
    return re.sub(r"^name = .*$", f"name = {str(folder)!r}", snippet, flags=re.MULTILINE)


def train_plainly(folder: Path, model: Path) -> Path:
    """A run of GPT1Trainer, without a task of this package."""
    args = GPT1TrainingArguments(
        output_dir=str(folder), max_steps=1, report_to="none", disable_tqdm=True, use_cpu=True, save_strategy="no"
    )
    processor = GPT1Processor.from_pretrained(model)
    encoded = processor([{"text": text} for text in ("he wept", "she smiled")])
    trainer = GPT1Trainer(
        model=GPT1ForSequenceClassification.from_pretrained(model),
        args=args,
        train_dataset=Dataset.from_dict({"input_ids": encoded["input_ids"], "label": [0, 1]}),
        processing_class=processor,
    )
    trainer.train()
    trainer.save_model()
    trainer.create_model_card()
    return folder


def save_plainly(folder: Path, model: Path) -> Path:
    """A language model that GPT1Trainer saves with the library's own tokenizer."""
    trainer = GPT1Trainer(
        model=GPT1ForCausalLM.from_pretrained(model),
        args=GPT1TrainingArguments(output_dir=str(folder), report_to="none", use_cpu=True),
        processing_class=AutoTokenizer.from_pretrained(model),
    )
    trainer.save_model()
    trainer.create_model_card()
    return folder


@pytest.fixture(scope="module")
def cards(base_model, tokenizer, texts, tmp_path_factory) -> dict[str, Path]:
    """Folders with a card, by what they hold."""
    root = tmp_path_factory.mktemp("cards")
    found = {}
    for task in map(load_task, BENCHMARKS):
        found[task.id] = save_classifier(root / task.id, tokenizer, task)
        write_finetuning_cards(arguments(found[task.id], task), task, [result(task)])
    for name in CASES:
        found[name] = root / f"own_{name}"
        assert main([*command(write_task(root, name), found[name], base_model), "--max_steps", "1"]) == 0
    found["adapter"] = root / "adapter"
    argv = [*command(str(root / "pairs.yaml"), found["adapter"], base_model), "--max_steps", "1", "--peft", "lora"]
    assert main(argv) == 0
    (root / "corpus.txt").write_text("\n\n".join(texts), encoding="utf-8")
    for name, more in (("gpt1", ["--num_attention_heads", "1"]), ("lstm", ["--architecture", "lstm"])):
        found[name] = root / name
        sizes = "--hidden_size 16 --num_hidden_layers 1 --max_position_embeddings 64 --max_steps 1 --use_cpu"
        argv = ["pretrain", "--corpus", str(root / "corpus.txt"), "--tokenizer", base_model, *sizes.split(), *more]
        argv += ["--output_dir", str(found[name]), "--disable_tqdm", "true", "--report_to", "none"]
        assert main([*argv, "--per_device_train_batch_size", "2"]) == 0
    for name in ("classes", "scores", "choices"):  # the LSTM has no head for tags
        found[f"lstm {name}"] = root / f"lstm_{name}"
        argv = command(str(root / f"{name}.yaml"), found[f"lstm {name}"], str(found["lstm"]))
        assert main([*argv, "--max_steps", "1"]) == 0
    found["trainer"] = train_plainly(root / "trainer", found["sst2"])
    found["trainer of a language model"] = save_plainly(root / "trainer_lm", found["gpt1"])
    convert(found["gpt1"], root / "openai", to="openai-gpt")
    found["converted"] = root / "converted"
    assert main(["convert", str(root / "openai"), "--output_dir", str(found["converted"])]) == 0
    if importlib.util.find_spec("torchao"):
        for name in ("gpt1", "pairs", "choices", "tags"):
            found[f"quantized {name}"] = root / f"quantized_{name}"
            argv = ["quantize", str(found[name]), "--output_dir", str(found[f"quantized {name}"])]
            assert main(argv) == 0
    # Cards that a push adds.
    convert(root / "openai", root / "bare")
    found["plain converted"] = complete_copy(root / "bare", root / "pushed_converted")
    for name in ("gpt1", "lstm", "pairs", "tags"):
        (root / f"plain_{name}").mkdir()
        for file in found[name].iterdir():
            if file.is_file() and file.name != "README.md":
                (root / f"plain_{name}" / file.name).write_bytes(file.read_bytes())
        found[f"plain {name}"] = complete_copy(root / f"plain_{name}", root / f"pushed_{name}")
    return found


def test_every_snippet_runs_without_the_package_questions_or_warnings(cards, base_model, tmp_path):
    codes = {name: code_of(folder) for name, folder in cards.items()}
    codes["adapter"] = re.sub(r"^base = .*$", f"base = {base_model!r}", codes["adapter"], flags=re.MULTILINE)
    done = process_without_package(SCRIPT, json.dumps(codes), home=tmp_path / "home")
    assert done.returncode == 0, done.stderr[-4000:]
    outputs = dict(re.findall(r"^CARD (.+)\n((?:(?!CARD ).*\n?)*)", done.stdout, flags=re.MULTILINE))
    assert outputs.keys() == codes.keys() and all(output.strip() for output in outputs.values())
    assert OF_LIBRARIES.sub("", done.stderr).split("\n") == [*(f"CARD {name}" for name in codes), ""], done.stderr
    assert "[y/N]" not in done.stdout


def test_no_saved_tokenizer_says_where_it_was_read(cards):
    for folder in cards.values():
        for file in folder.rglob("tokenizer_config.json"):
            assert not {"is_local", "local_files_only"} & json.loads(file.read_text()).keys(), file
