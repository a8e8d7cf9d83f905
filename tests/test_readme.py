"""
Every command and snippet of README.md is run as it is printed, in its order, in one folder, with a Hub on localhost;
and every command of README.md and recipes/README.md has arguments that exist.

A command that is new in README needs no line here if what `SMALL` adds to its like makes it small and offline; else it
gets one, or, with the reason, one in `NOT_RUN`.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.hub_client import TOKEN, hub_environment, started_client
from helpers.hub_server import File, Repo

from gpt1_hf import GPT1Tokenizer
from gpt1_hf.checkpoints.conversion import convert
from gpt1_hf.cli import main
from gpt1_hf.resources import recipes_dir


ROOT = Path(__file__).resolve().parent.parent
README, RECIPES = ROOT / "README.md", ROOT / "recipes" / "README.md"
PROGRAMS = ("accelerate", "cd", "git", "gpt1", "hf", "make", "pytest", "python", "source")

# What makes a command small and offline, after its own arguments, of which it takes the place; the longest beginning
# counts.
FINETUNE = "--sample --max_steps 2 --max_train_examples 8 --per_device_train_batch_size 4 --disable_tqdm true"
SMALL = {
    "accelerate launch": f"{FINETUNE} --use_cpu true",
    "gpt1 analyze ablations": "--tokens_per_second 100",
    "gpt1 convert": "",
    "gpt1 evaluate --model gpt1-tiny --text_file": "",
    "gpt1 evaluate": "--sample",
    "gpt1 export": "",
    "gpt1 finetune": FINETUNE,
    "gpt1 finetune --task all": f"{FINETUNE} --seeds 1",
    "gpt1 generate": "--max_new_tokens 3",
    "gpt1 pretrain": "--max_steps 2 --disable_tqdm true",
    "gpt1 push": "",
    "gpt1 recipes": "",
    "gpt1 report": "",
    "gpt1 space --output_dir": "",
    "gpt1 tokenizer": "",
    "gpt1 zero-shot": "--sample",
    "python recipes/scale.py": "--tasks 2 --corpus my_texts --tokenizer gpt1-tiny --output_dir runs/scale",
}
# Why a command is not run; the beginning of it.
NOT_RUN = {
    "cd gpt1_hf": "goes with git clone",
    "git clone": "needs the repository's address",
    "gpt1 quantize": "needs torchao, an extra; tests/checkpoints/test_quantization.py",
    "gpt1 space": "serves until it is ended; tests/inside/test_space.py clicks through it",
    "gpt1 submit": "needs GLUE's hidden test sets; tests/evaluation/test_glue_submission.py",
    "gpt1 tokenizer rules": "writes a file of the package; tests/tokenization_rules/test_generate.py",
    "hf auth login": "asks for a token",
    "make": "the project's continuous integration runs it; test-lowest: at hand",
    "pytest": "these tests",
    "source": "goes with make",
    "python tests/benchmarks": "measures for minutes, on models of the paper's size or the real data sets",
}
# Command -> the function that it calls once its arguments are read.
CALLS = {
    "analyze": "gpt1_hf.analysis.plan.execute.analyze",
    "convert": "gpt1_hf.checkpoints.conversion.convert",
    "evaluate": "gpt1_hf.evaluation.evaluate.evaluate",
    "export": "gpt1_hf.checkpoints.export.export",
    "finetune": "gpt1_hf.training.finetune.finetune",
    "generate": "gpt1_hf.inside.generation.generate",
    "pretrain": "gpt1_hf.training.pretrain.pretrain",
    "push": "gpt1_hf.hub.push.push",
    "quantize": "gpt1_hf.evaluation.quantization_cost.quantize_and_score",
    "recipes": "gpt1_hf.cli.recipes.listing",
    "report": "gpt1_hf.analysis.report.report.report",
    "space": "gpt1_hf.inside.space.serve",
    "submit": "gpt1_hf.evaluation.glue_submission.submit",
    "tokenizer": "gpt1_hf.data.corpus.read_pieces",
    "zero-shot": "gpt1_hf.analysis.zero_shot.zero_shot",
}
# The same where the arguments decide.
OTHER_CALLS = {
    "analyze context-length": "gpt1_hf.analysis.context_length.analyze",
    "analyze zero-shot": "gpt1_hf.analysis.zero_shot_curves.analyze",
    "finetune --task all": "gpt1_hf.training.finetune_all.finetune_all",
    "space --output_dir": "gpt1_hf.inside.space.write_space",
    "tokenizer convert": "gpt1_hf.tokenization_gpt1.GPT1Tokenizer.from_original",
    "tokenizer rules": "gpt1_hf.tokenization_rules.generate.write",
}
# Has the shell say what it would run: lines continued, variables and loops filled in, comments left out.
SAY = "set -eu\nPATH=\n" + "\n".join(f"{name}() {{ printf '%q ' {name} \"$@\"; echo; }}" for name in PROGRAMS)


def blocks(file: Path) -> list[tuple[str, str]]:
    """Language and text of each block of code, in order."""
    return re.findall(
        r"^```(bash|python)\n(.*?)^```", file.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )


def commands(script: str) -> list[str]:
    """The commands of a block, one a line. One of a program that is not in `PROGRAMS` is an error."""
    said = subprocess.run(["/bin/bash", "-c", f"{SAY}\n{script}"], capture_output=True, text=True)
    assert said.returncode == 0, f"{said.stderr}\n{script}"
    return [line.strip() for line in said.stdout.splitlines()]


def all_commands(file: Path) -> list[str]:
    """The commands of the blocks, and those with arguments that are named in the text."""
    text = file.read_text(encoding="utf-8")
    named = re.findall(r"`(gpt1 [^`]* --[^`]*)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    scripts = [script for language, script in blocks(file) if language == "bash"]
    scripts += [" ".join(command.split()) for command in named]
    return [command for script in scripts for command in commands(script)]


def entry(command: str, *tables: dict[str, str]) -> str:
    """The longest beginning of a command that the tables have; nothing if they have none."""
    return max((start for table in tables for start in table if command.startswith(start)), key=len, default="")


class Called(Exception):
    """The arguments were read, and the command is about to begin."""


@pytest.mark.parametrize("command", dict.fromkeys([*all_commands(README), *all_commands(RECIPES)]))
def test_a_command_has_arguments_that_exist(command, monkeypatch, tmp_path):
    def called(*args, **kwargs):
        raise Called

    monkeypatch.chdir(tmp_path)
    program, *argv = shlex.split(command)
    if program in ("accelerate", "python"):
        script = next(word for word in argv if word.endswith(".py"))
        configs = [word for word in argv if word.startswith("recipes/") and word.endswith(".yaml")]
        assert all((ROOT / name).is_file() for name in (script, *configs))
        flags = argv[argv.index(script) + 1 :]
    if program == "accelerate":  # the script has the name of the command that it runs
        program, argv = "gpt1", [Path(script).stem, *flags]
    if program == "gpt1":
        line = shlex.join(argv)
        monkeypatch.setattr(OTHER_CALLS.get(entry(line, OTHER_CALLS)) or CALLS[argv[0]], called)
        with pytest.raises(Called):
            main(argv)
    elif program == "python":
        known = (ROOT / script).read_text(encoding="utf-8")
        flags = [flag for flag in flags if flag.startswith("--") and flag != "--config"]
        assert all(f'"{flag}"' in known for flag in flags), flags


def test_the_script_for_trainer_users_is_short():
    section = README.read_text(encoding="utf-8").split("## Trainer users\n")[1].split("\n## ")[0]
    (script,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    assert len(script.strip().splitlines()) <= 25 and "gpt1 " not in script


@pytest.fixture(scope="module")
def place(tmp_path_factory, hub, base_model) -> Path:
    """A folder as README's reader has it, and a Hub with a tiny `openai-community/openai-gpt`."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "my_texts").mkdir()
    text = "It was a dark and stormy night, and the old captain walked slowly to the house by the sea.\n" * 50
    for name in ("my_texts/one.txt", "my_texts/two.txt", "my_text.txt"):
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "recipes").symlink_to(recipes_dir())
    original = tmp_path_factory.mktemp("hub") / "openai-gpt"
    convert(base_model, str(original), "openai-gpt")
    GPT1Tokenizer.from_pretrained(base_model).backend_tokenizer.model.save(str(original))
    files = {path.name: File(path.read_bytes(), path.suffix == ".safetensors") for path in original.iterdir()}
    hub.repos["openai-community/openai-gpt"] = Repo(private=False)
    hub.repos["openai-community/openai-gpt"].commit("main", files, "the original")
    return folder


@pytest.fixture(scope="module")
def reader(place, hub):
    with started_client(place, hub) as run:
        yield run


def steps() -> list[tuple[str, str]]:
    """README's code in order: snippets, and commands one by one."""
    found = []
    for language, text in blocks(README):
        found += [("python", text)] if language == "python" else [("bash", line) for line in commands(text)]
    return found


@pytest.mark.parametrize("command", dict.fromkeys(step for language, step in steps() if language == "bash"))
def test_it_is_said_how_a_command_is_run(command):
    assert entry(command, SMALL, NOT_RUN), f"SMALL says how it is made small, or NOT_RUN why it is not run: {command}"


@pytest.mark.slow
@pytest.mark.parametrize(("language", "step"), steps(), ids=lambda text: text.strip().split("\n")[0][:60])
def test_a_step_runs(language, step, place, reader, hub):
    """In order: later steps read what earlier ones wrote."""
    step = step.replace("NAME/", "anna/")  # whose token the reader has
    environment = hub_environment(place, hub) | {"PYTHONPATH": str(ROOT), "HF_TOKEN": TOKEN}

    def run(*argv: str):
        done = subprocess.run(
            [sys.executable, *argv], cwd=place, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr[-4000:]

    if language == "python":
        return run("-c", step)
    start = entry(step, SMALL, NOT_RUN)
    if start in NOT_RUN:
        pytest.skip(NOT_RUN[start])
    program, *argv = shlex.split(f"{step} {SMALL[start]}")
    if program == "gpt1":
        answer = reader(*argv)
        assert answer["status"] == 0, answer
    elif program == "accelerate":
        run("-m", "accelerate.commands.launch", *argv[1:])
    else:
        run(*argv)
