"""Continue a text with a language model."""

import argparse
import ast
import functools
import json
import re
import sys
from collections.abc import Callable
from typing import Any

import yaml

from ..errors import UsageError
from ..resources import UNREADABLE
from .flags import Parser, find_class


def main(argv: list[str]):
    parser = Parser(
        "generate",
        __doc__,
        epilog="Every other field of transformers' GenerationConfig is a flag too, with a YAML value: --top_k 40 "
        "--num_beams 4 --stop_strings '[\".\"]'. A setting without a flag comes from the model's "
        "generation_config.json or else has the default above.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("prompt", help="Text to continue; - reads it from standard input.")
    parser.add_argument("--model", help="Folder, Hub id, or gpt1-tiny. Default: gpt1-tiny.")
    parser.add_argument("--seed", type=int, help="Seed of the sampling. Default: 0.")
    parser.add_argument("--no_echo", action="store_true", help="Print the continuation without the prompt.")
    parser.add_argument(
        "--json", action="store_true", help='Print each continuation as a line of JSON: {"index": 1, "text": "..."}.'
    )
    own = {
        "max_new_tokens": "Longest continuation in tokens. Default: 60.",
        "temperature": "Sampling temperature; 0 is greedy. Default: 0.8.",
        "top_p": "Sample from the most probable tokens whose probabilities add up to this. Default: 0.95.",
        "num_return_sequences": "Number of continuations; several are printed under numbered lines. Default: 1.",
    }
    for name, kind in generation_fields().items():
        parser.add_argument(f"--{name}", type=kind, help=own.get(name, argparse.SUPPRESS))
    options = vars(parser.parse_args(argv))

    prompt, as_json = options.pop("prompt"), options.pop("json", False)
    echo = not options.pop("no_echo", False)
    if prompt == "-":
        prompt = sys.stdin.read().rstrip("\n")
    if not prompt.strip():
        raise UsageError("the prompt is empty: give the model a word to continue")

    from ..inside.generation import generate

    n_texts, n_beams = options.get("num_return_sequences", 1), options.get("num_beams", 1)
    if sys.stdout.isatty() and not as_json and n_texts == n_beams == 1:
        generate(prompt, echo=echo, stream=lambda text: print(text, end="", flush=True), **options)
        print()
        return
    texts = generate(prompt, echo=echo, **options)
    for index, text in enumerate(texts, 1):
        if as_json:
            print(json.dumps({"index": index, "text": text}, ensure_ascii=False))
            continue
        if len(texts) > 1:
            print(f"=== {index} of {len(texts)} ===")
        print(text)


def generation_fields() -> dict[str, Callable[[str], Any]]:
    """Field of transformers' `GenerationConfig` -> function that reads its value, from the class's source file."""
    _, _, definition = find_class("transformers.generation.configuration_utils.GenerationConfig")
    kinds = dict(
        re.findall(r"(?m)^\s+(\w+) \(`?(int|float|bool|list|dict)[\w\[\], ]*`?[,)]", ast.get_docstring(definition))
    )
    (init,) = (part for part in definition.body if getattr(part, "name", "") == "__init__")
    targets = [part.targets[0] for part in ast.walk(init) if isinstance(part, ast.Assign)]
    names = [target.attr for target in targets if isinstance(target, ast.Attribute) and target.attr[0] != "_"]
    readers = {"int": int, "float": float}
    return {
        name: readers.get(kinds.get(name)) or functools.partial(yaml_value, kind=kinds.get(name))
        for name in names
        if name != "transformers_version"
    }


def yaml_value(word: str, kind: str | None = None) -> Any:
    """A flag's value as YAML reads it; `kind` is the type that it must have."""
    try:
        value = yaml.safe_load(word)
    except UNREADABLE as error:
        raise argparse.ArgumentTypeError(f"{word!r} is not a YAML value: put quotes around text") from error
    if kind is not None and type(value).__name__ != kind:
        raise argparse.ArgumentTypeError(f"expected a {kind} in YAML, not {word!r}")
    return value
