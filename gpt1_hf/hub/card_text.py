"""Rendering a model card: templates, escaping, the code that it shows, and the environment of a run."""

import json
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..files import write_text
from ..resources import card_templates
from .upload import BASE_PLACEHOLDER, PLACEHOLDER


VERSIONS = ("gpt1_hf", "torch", "transformers", "datasets", "tokenizers", "accelerate", "peft")

# Code for each head, ready to run. `FOLDER` and `BASE` stand for names of models, as string literals.
HEADER = """from transformers import {auto}, {reader}

name = FOLDER
model = {auto}.from_pretrained(name, trust_remote_code=True)
{tail}"""
# An adapter's folder has the configuration of the whole model (base, head and special tokens) and its code: the base
# may be an OpenAIGPT, which has no code.
ADAPTER_HEADER = """from peft import PeftModel
from transformers import AutoConfig, {reader}
from transformers.dynamic_module_utils import get_class_from_dynamic_module

name = FOLDER
base = BASE
config = AutoConfig.from_pretrained(name, trust_remote_code=True)
size, config.vocab_size = config.vocab_size, AutoConfig.from_pretrained(base, trust_remote_code=True).vocab_size
model_class = get_class_from_dynamic_module(config.auto_map["{auto}"], name)
model = model_class.from_pretrained(base, config=config)
model.resize_token_embeddings(size, mean_resizing=False)
model = PeftModel.from_pretrained(model, name)
{tail}"""
# `AutoTokenizer` reads the model's configuration: without `trust_remote_code` it asks, and with `False` it warns.
GENERATE = """tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=True)
prompt = tokenizer("It was a dark", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=40, do_sample=True)[0]).strip())"""
ENCODE = """tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=True)
print(model(**tokenizer("It was a dark night.", return_tensors="pt"))[0].shape)"""
PROCESS = """processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
inputs = processor({example}, padding=True, return_tensors="pt")
logits = model(**inputs).logits[0]
print({answer})"""
TAG = """processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
inputs = processor({example}, return_word_ends=True, return_tensors="pt")
ends = inputs.pop("word_ends")[0]  # the tag of a word is at its last token
tags = model(**inputs).logits[0].argmax(-1)
print([model.config.id2label[tags[end].item()] for end in ends])"""
EXAMPLES = {
    "classification": 'text="A film that is better than its title."',
    "entailment": 'premise="An old man sleeps in the sun.", hypothesis="Somebody is asleep."',
    "similarity": 'text_a="An old man sleeps in the sun.", text_b="A man is asleep outside."',
    "multiple_choice": 'document="Anna packed a tent and drove into the hills.", question="", choices={choices}',
    "token_classification": 'words=["Anna", "packed", "a", "tent", "."]',
}
# Pipeline -> what its widget on the Hub shows. There, `text-classification` reads one text, and no pair.
WIDGETS = {
    "text-generation": [
        {"text": "It was a dark", "example_title": "A night"},
        {"text": "The old man opened the door and", "example_title": "A visitor"},
    ],
    "text-classification": [
        {"text": "A film that is better than its title.", "example_title": "Praise"},
        {"text": "The plot makes no sense, and the end is dull.", "example_title": "Blame"},
    ],
}
CHOICES = ("She put up the tent.", "She sold her shoes.", "It was a Monday in the office.", "Nobody likes soup.")


def write_card(folder: str | Path, template: str, metadata: ModelCardData, **values: Any):
    """Render a template of `model_card/` into a folder's `README.md`."""
    jinja = Environment(
        loader=FileSystemLoader(card_templates()), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    jinja.filters |= {"text": text, "code": code, "sentence": lambda words: words[:1].upper() + words[1:]}
    body = jinja.get_template(f"{template}.md").render(metadata=metadata.to_yaml(), **values)
    body = body.encode("utf-8", "replace").decode()  # a description can contain half a surrogate pair
    write_text(Path(folder) / "README.md", re.sub(r"\n{3,}", "\n\n", body).strip() + "\n")


def plain(name: str) -> str:
    """A name on one line, without unprintable characters."""
    name = str(name).encode("utf-8", "replace").decode()
    return "".join(char for char in " ".join(name.split()) if char.isprintable()) or "model"


def text(value: Any) -> str:
    """A value as plain Markdown text, also in a table."""
    return re.sub(r"([\\`*_\[\]<>|#~$&])", r"\\\1", plain(value)) if isinstance(value, str) else str(value)


def code(value: Any) -> str:
    """A value as Markdown code, also in a table."""
    value = plain(value).replace("|", "¦")
    fence = "`" * (max((len(run) for run in re.findall("`+", value)), default=0) + 1)
    return f"{fence} {value} {fence}" if "`" in value else f"{fence}{value}{fence}"


def hub_word(name: str) -> str:
    """A name reduced to the characters that the Hub allows in data set names and tags."""
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.") or "text"


def snippet(
    name: str,
    auto: str,
    input_format: str | None = None,
    n_choices: int = 2,
    adapter: dict[str, Any] | None = None,
) -> str:
    """Code that loads a model, or an adapter of `adapter["base"]`, and runs it on an example."""
    if input_format is None:
        reader, tail = "AutoTokenizer", GENERATE if auto == "AutoModelForCausalLM" else ENCODE
    else:
        choices = json.dumps(list(CHOICES[: max(2, min(n_choices, len(CHOICES)))]))
        answer = "logits.softmax(-1).tolist()"
        if auto == "AutoModelForSequenceClassification":
            answer = "dict(zip(model.config.id2label.values(), logits.tolist()))"
        example = EXAMPLES[input_format].replace("{choices}", choices)
        run = TAG if input_format == "token_classification" else PROCESS
        reader, tail = "AutoProcessor", run.format(example=example, answer=answer)
    lines = (ADAPTER_HEADER if adapter else HEADER).format(auto=auto, reader=reader, tail=tail)
    if adapter:
        base = adapter["base"] if adapter["on_hub"] else f"{BASE_PLACEHOLDER}{plain(adapter['base'])}"
        lines = lines.replace("BASE", json.dumps(base, ensure_ascii=False), 1)
    return lines.replace("FOLDER", json.dumps(f"{PLACEHOLDER}{name}", ensure_ascii=False), 1)


def widget(pipeline: str | None, input_format: str | None) -> dict[str, Any]:
    """Metadata: the examples of the Hub's widget; nothing for a pipeline or a format that no widget can show."""
    shown = WIDGETS.get(pipeline or "") if input_format in (None, "classification") else None
    return {"widget": shown} if shown else {}


def environment(device: str | None, processes: int) -> dict[str, str]:
    """Environment of a run: versions and hardware."""
    versions = {}
    for library in VERSIONS:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    hardware = {"hardware": device + (f", {processes} processes" if processes > 1 else "")} if device else {}
    return {"Python": platform.python_version(), **versions, **hardware}
