"""Model cards: they describe the run, the Hub accepts their metadata, and their code runs as printed."""

import ast
import dataclasses
import re
from pathlib import Path

import pytest
import yaml
from helpers.hub_server import card_errors
from huggingface_hub import ModelCard

from gpt1_hf import (
    GPT1Config,
    GPT1ForMultipleChoice,
    GPT1ForSequenceClassification,
    GPT1LSTMConfig,
    GPT1LSTMForSequenceClassification,
    GPT1Processor,
    GPT1Trainer,
)
from gpt1_hf.evaluation.results import Result
from gpt1_hf.hub.card import write_derived_card, write_finetuning_cards, write_plain_card, write_pretraining_card
from gpt1_hf.hub.card_text import code, hub_word
from gpt1_hf.tasks import all_tasks, load_task
from gpt1_hf.training.arguments import FinetuneArguments, GPT1TrainingArguments, PretrainArguments


# Names that would break YAML, Markdown, a table, a code block or a string if they were not escaped.
ODD_NAMES = [
    'say "hi"',
    "it's `code` ```",
    "a\nb: c\n---\n# title",
    "{{ 7 * 7 }} {% raw %}",
    "<script>alert(1)</script> | [x](javascript:y)",
    "back\\slash\\",
    "- a: *b & !!python/object:c #d",
    "日本語 é 😀",
    "tab\tbell\x07 zero\u200bwidth",
    "no\udcffsurrogate",
]


def content_of(folder: Path) -> tuple[dict, str]:
    """Metadata and text of a card, after checks that apply to every card."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card_errors(card) == []
    assert "More information" not in card and "None" not in card
    assert not re.search(r"^#+ .*\n+#", card, flags=re.MULTILINE), "a section without anything in it"
    assert "\n\n\n" not in card
    parsed = ModelCard(card)
    assert parsed.data.to_dict()["library_name"] == "transformers"
    if parsed.data.eval_results:
        assert parsed.data.model_name
    metadata = yaml.safe_load(card.split("---\n")[1])
    return metadata, parsed.text


def run_snippet(text: str, name: str, folder: Path, capsys) -> str:
    """Run a card's only snippet on the folder, and return its output."""
    (snippet,) = re.findall(r"```python\n(.*?)```\n", text, flags=re.DOTALL)
    literal = re.search(r"^name = (.*)$", snippet, flags=re.MULTILINE)[1]
    assert ast.literal_eval(literal) == f"path/to/{name}"
    exec(compile(snippet.replace(literal, repr(str(folder))), "README.md", "exec"), {})
    return capsys.readouterr().out


def result(task, split="validation", metric=None, value=50.0, seed=42, **details) -> Result:
    details = {"n_train_examples": 400, "epochs": 3.0, "batch_size": 32, "lm_coef": 0.5, **details}
    details |= {"checkpoint": "last epoch", "train_seconds": 90.0, "device": "CPU, 1 threads (x86_64)"}
    paper, prior = (task.paper, task.prior) if metric in (None, task.metric) else (None, None)
    return Result(task.id, split, metric or task.metric, value, 100, paper, "m", seed, details, prior)


def save_classifier(folder: Path, tokenizer, task, family="gpt1") -> Path:
    """An untrained model for a task, with the files of a run."""
    processor = GPT1Processor(tokenizer, task.input_format)
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 1, "max_position_embeddings": 64}
    labels = {}
    if task.score_range:
        labels = {"num_labels": 1, "regression_bins": 6, "id2label": {0: "score"}}
    elif task.input_format != "multiple_choice":
        labels = {"num_labels": len(task.label_names), "id2label": dict(enumerate(task.label_names))}
    config = GPT1Config(num_attention_heads=2, **sizes, **labels)
    model_class = GPT1ForMultipleChoice if task.input_format == "multiple_choice" else GPT1ForSequenceClassification
    if family == "gpt1_lstm":
        config, model_class = GPT1LSTMConfig(lstm_size=12, **sizes, **labels), GPT1LSTMForSequenceClassification
    model = model_class(config)
    model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def arguments(folder, task, **settings) -> FinetuneArguments:
    settings = {"model": "gpt1-tiny", "data_dir": None, "report_to": "none"} | settings
    return FinetuneArguments(task=task.id, output_dir=str(folder), **settings)


@pytest.mark.parametrize("task", all_tasks().values(), ids=lambda task: task.id)
def test_every_task_has_a_card(task, tokenizer, tmp_path, capsys):
    folder = save_classifier(tmp_path / "tuned", tokenizer, task)
    results = [result(task, metric=metric) for metric in (task.metric, *task.other_metrics)]
    write_finetuning_cards(arguments(folder, task), task, results)
    metadata, text = content_of(folder)
    assert metadata["language"] == "en" and metadata["license"] == "mit"
    assert metadata["datasets"] == [task.dataset]
    assert "base_model" not in metadata  # gpt1-tiny is not on the Hub
    assert {"gpt1", task.id} <= set(metadata["tags"])
    is_choice = task.input_format == "multiple_choice"
    pipeline = "multiple-choice" if is_choice else "text-classification"
    assert metadata.get("pipeline_tag") == (None if task.input_format == "similarity" else pipeline)
    assert ('`pipeline("text-classification")` does so only after' in text) == (task.input_format == "similarity")
    assert len(metadata["metrics"]) == len(results)
    (model,) = metadata["model-index"]
    assert model["name"] == "tuned"
    (evaluation,) = model["results"]
    assert evaluation["dataset"]["type"] == task.dataset
    assert evaluation["dataset"].get("revision") == task.revision
    assert evaluation["dataset"]["split"] == "validation"
    assert [metric["args"] for metric in evaluation["metrics"]] == [{"seed": 42, "n_seeds": 1}] * len(results)
    assert f"| {task.paper} |" in text
    if task.revision:
        assert task.revision in text
    for part in ("Limitations", "Environment", "Training", "Evaluation", "Use"):
        assert f"\n## {part}\n" in text
    assert "lower-cased" in text and "prejudices" in text and "novels" in text
    assert run_snippet(text, "tuned", folder, capsys)


def test_several_seeds_have_a_card_each(tokenizer, tmp_path):
    task = load_task("cola")
    values = {3: 10.0, 4: 14.0}
    for seed in values:
        save_classifier(tmp_path / "cola" / f"seed-{seed}", tokenizer, task)
    results = [result(task, value=value, seed=seed) for seed, value in values.items()]
    write_finetuning_cards(arguments(tmp_path / "cola", task, seed=3, seeds=2), task, results)
    assert not (tmp_path / "cola" / "README.md").exists()
    for seed, value in values.items():
        metadata, text = content_of(tmp_path / "cola" / f"seed-{seed}")
        assert metadata["model-index"][0]["name"] == f"cola-seed-{seed}"
        (metric,) = metadata["model-index"][0]["results"][0]["metrics"]
        assert metric["value"] == value / 100 and metric["type"] == "matthews_correlation"
        assert metric["args"] == {"seed": seed, "n_seeds": 2, "mean": 0.12, "std": 0.0283}
        assert f"| validation | matthews correlation | 100 | {value:.2f} | 12.00 ± 2.83 | 45.4 | 35.0 |" in text
        assert f"| seed | {seed} |" in text and "Seeds: 3, 4" in text


def test_unknown_facts_are_left_out(tokenizer, tmp_path):
    task = load_task("sst2")
    folder = save_classifier(tmp_path / "x", tokenizer, task)
    base = save_classifier(tmp_path / "secret place" / "my base", tokenizer, task)
    local = tmp_path / "data" / "nyu-mll" / "glue"
    local.mkdir(parents=True)

    write_finetuning_cards(arguments(folder, task, sample=True), task, [result(task)])
    metadata, text = content_of(folder)
    assert "datasets" not in metadata and "its scores say nothing about the benchmark" in text
    assert metadata["model-index"][0]["results"][0]["dataset"]["type"] == "sst2-sample"

    write_finetuning_cards(arguments(folder, task, data_dir=str(tmp_path / "data")), task, [result(task)])
    metadata, text = content_of(folder)
    assert "revision" not in metadata["model-index"][0]["results"][0]["dataset"]
    assert f"not compared with the Hub's revision `{task.revision}`" in text

    write_finetuning_cards(arguments(folder, task, model=str(base)), task, [result(task)])
    metadata, text = content_of(folder)
    assert "`my base`" in text and "secret place" not in text and "license" not in metadata

    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    write_finetuning_cards(arguments(folder, task, model=str(base)), task, [result(task, not_run=["test"])])
    metadata, text = content_of(folder)
    assert metadata["license"] == "apache-2.0" and "the data was missing: test" in text

    write_finetuning_cards(arguments(folder, task, model="someone/gpt", max_steps=7), task, [result(task)])
    metadata, text = content_of(folder)
    assert (
        metadata["base_model"] == "someone/gpt" and "license" not in metadata and "took 7 updates with AdamW" in text
    )

    write_finetuning_cards(arguments(folder, task, model="someone/gpt", from_scratch=True), task, [result(task)])
    metadata, text = content_of(folder)
    assert "base_model" not in metadata and "without pre-training" in text and "novels" not in text


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_cannot_break_a_card(name, tokenizer, tmp_path):
    task = load_task("sst2")
    folder = save_classifier(tmp_path / "x", tokenizer, task)
    odd = dataclasses.replace(result(task, split=name), details={**result(task).details, "device": name})
    args = arguments(folder, task, model=f"x/{name}")
    write_plain_card(folder, model_name=name, tags=[name])
    content_of(folder)
    write_pretraining_card(
        folder,
        PretrainArguments(corpus=f"x/{name}", output_dir=str(folder), data_dir=None, report_to="none"),
        GPT1Config(num_attention_heads=2, hidden_size=16),
        [dataclasses.replace(pretraining_result(), split=name)],
        name=name,
    )
    metadata, _ = content_of(folder)
    assert "datasets" not in metadata
    write_finetuning_cards(args, task, [odd])
    metadata, text = content_of(folder)
    assert metadata.keys() == {
        "language",
        "library_name",
        "pipeline_tag",
        "tags",
        "datasets",
        "metrics",
        "model-index",
        "widget",
    }
    assert [line for line in text.splitlines() if line.startswith("# ")] == ["# x"]
    assert "<script>" not in re.sub(r"`[^`]*`", "", text)
    rows = [line for line in text.splitlines() if line.startswith("|") and "accuracy" in line]
    assert len(rows) == 1 and len(re.findall(r"(?<!\\)\|", rows[0])) == 7


def test_user_text_as_code_and_as_hub_tags():
    assert code("a`b``c") == "``` a`b``c ```" and code("a|b") == "`a¦b`"
    assert hub_word("-a b/é.") == "a-b" and hub_word("///") == "text"


def pretraining_result(metric="perplexity", value=56.3, paper=18.4) -> Result:
    details = {
        "train_documents": 98,
        "train_characters": 1000,
        "train_tokens": 300,
        "tokens_seen": 600,
        "updates": 5,
        "train_seconds": 60,
        "n_parameters": 4_270_000,
        "device": "CPU, 1 threads (x86_64)",
        "processes": 2,
        "window": 64,
    }
    return Result("language_modeling", "validation", metric, value, 5, paper, "m", 42, details)


def test_a_card_of_pre_training(base_model, tmp_path, capsys):
    config = GPT1Config.from_pretrained(base_model)
    results = [pretraining_result(), pretraining_result("bits_per_character", 1.5, None)]
    args = PretrainArguments(
        corpus="someone/books", corpus_revision="abc123", output_dir=str(tmp_path), data_dir=None, report_to="none"
    )
    write_pretraining_card(tmp_path, args, config, results, name="mine")
    metadata, text = content_of(tmp_path)
    assert metadata["datasets"] == ["someone/books"] and metadata["pipeline_tag"] == "text-generation"
    (evaluation,) = metadata["model-index"][0]["results"]
    assert evaluation["dataset"]["revision"] == "abc123" and evaluation["dataset"]["split"] == "validation"
    assert [metric["value"] for metric in evaluation["metrics"]] == [56.3, 1.5]
    assert evaluation["metrics"][0]["args"] == {"seed": 42, "n_seeds": 1, "window": 64}
    assert "| perplexity | 56.3 | 18.4 |" in text and "cannot be compared" in text
    assert "revision `abc123`" in text and "2 processes" in text and "mostly fiction" in text
    assert run_snippet(text, "mine", Path(base_model), capsys).startswith("it was a dark")


@pytest.mark.parametrize("family", ["gpt1", "gpt1_lstm"])
def test_a_plain_card_describes_the_folder(family, tokenizer, base_model, tmp_path, capsys):
    folder = save_classifier(tmp_path / "plain", tokenizer, load_task("rte"), family)
    write_plain_card(folder, metrics={"eval_accuracy": 0.5, "eval_runtime": 3.0, "epoch": 1.0})
    metadata, text = content_of(folder)
    assert metadata["tags"] == list(dict.fromkeys(["gpt1", family])) and "model-index" not in metadata
    assert "| accuracy | 0.5 |" in text and "runtime" not in text and "## Training" not in text
    assert ("LSTM" in text) == (family == "gpt1_lstm")
    assert "entailment" in run_snippet(text, "plain", folder, capsys)
    assert metadata["pipeline_tag"] == "text-classification"


def test_a_plain_card_names_no_pipeline_with_other_answers(tokenizer, tmp_path):
    write_plain_card(save_classifier(tmp_path / "pairs", tokenizer, load_task("mrpc")))
    assert "pipeline_tag" not in content_of(tmp_path / "pairs")[0]


@pytest.mark.parametrize("source", ["openai-community/openai-gpt", "a folder"])
def test_a_model_made_from_another_names_it(source, tokenizer, tmp_path):
    folder = save_classifier(tmp_path / "made", tokenizer, load_task("sst2"))
    name = source
    if source == "a folder":
        (tmp_path / name).mkdir()
        source = str(tmp_path / name)
    write_derived_card(folder, source, "quantized to 8 bits", "quantized")
    metadata, text = content_of(folder)
    assert f"quantized to 8 bits from `{name}` with `gpt1_hf`." in text and str(tmp_path) not in text
    on_hub = name != "a folder"
    assert metadata.get("base_model") == (name if on_hub else None)
    assert metadata.get("base_model_relation") == ("quantized" if on_hub else None)
    assert metadata.get("license") == ("mit" if on_hub else None)


@pytest.mark.parametrize("loaded_from", ["openai-community/openai-gpt", "", "a folder"])
def test_the_card_of_a_plain_run_names_the_model_on_the_hub(loaded_from, tokenizer, tmp_path):
    task = load_task("sst2")
    model = GPT1ForSequenceClassification.from_pretrained(save_classifier(tmp_path / "base", tokenizer, task))
    on_hub = "/" in loaded_from
    if loaded_from == "a folder":
        loaded_from = str(tmp_path / "base")
    model.config._name_or_path = loaded_from  # as `from_pretrained` sets it
    args = GPT1TrainingArguments(output_dir=str(tmp_path / "run"), report_to="none", use_cpu=True)
    trainer = GPT1Trainer(model, args, processing_class=GPT1Processor(tokenizer, "classification"))
    trainer.save_model()
    trainer.create_model_card()
    metadata, _ = content_of(tmp_path / "run")
    assert metadata.get("base_model") == (loaded_from if on_hub else None)
