"""
Every command and snippet of README.md runs as printed, in order, in one folder, with a Hub on localhost. Every command
of README.md and recipes/README.md has valid arguments. Every file that the documents name exists.

A new command in README needs a line in `SMALL` if no existing line makes it small and offline. If it cannot run in a
test, it needs a line in `NOT_RUN` with the reason.
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
DOCUMENTS = (
    ".ci/run",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
    "recipes/README.md",
    "recipes/results/README.md",
)
PROGRAMS = ("accelerate", "cd", "git", "gpt1", "hf", "make", "pytest", "python", "source")

# Start of a command -> arguments that make it small and offline. They follow its own arguments and override them. The
# longest matching start counts.
SHORT = "--max_steps 2 --max_train_examples 8 --per_device_train_batch_size 4 --disable_tqdm true"
FINETUNE = f"--sample {SHORT}"
SMALL = {
    "accelerate launch": f"{FINETUNE} --use_cpu true",
    "gpt1 analyze ablations": "--tokens_per_second 100",
    "gpt1 convert": "",
    "gpt1 evaluate --model gpt1-tiny --text_file": "",
    "gpt1 evaluate": "--sample",
    "gpt1 evaluate --task films.yaml": "",
    "gpt1 export": "",
    "gpt1 finetune": FINETUNE,
    "gpt1 finetune --task all": f"{FINETUNE} --seeds 1",
    "gpt1 finetune --task films.yaml": SHORT,
    "gpt1 finetune --train_file": SHORT,
    "gpt1 generate": "--max_new_tokens 3",
    "gpt1 predict": "",
    "gpt1 pretrain": "--max_steps 2 --disable_tqdm true",
    "gpt1 push": "",
    "gpt1 recipes": "",
    "gpt1 report": "",
    "gpt1 space --output_dir": "",
    "gpt1 tasks": "",
    "gpt1 tokenizer": "",
    "gpt1 zero-shot": "--sample",
    "python recipes/scale.py": "--tasks 2 --corpus my_texts --tokenizer gpt1-tiny --output_dir runs/scale",
}
# Start of a command -> why it is not run.
NOT_RUN = {
    "cd gpt1_hf": "belongs to git clone",
    "git clone": "needs the repository's address",
    "gpt1 quantize": "needs torchao, an extra; tests/checkpoints/test_quantization.py",
    "gpt1 space": "serves until it is stopped; tests/inside/test_space.py tests it",
    "gpt1 submit": "needs GLUE's hidden test sets; tests/evaluation/test_glue_submission.py",
    "hf auth login": "asks for a token",
    "make": "continuous integration runs it",
    "pytest": "these tests",
    "source": "belongs to make",
    "python tests/benchmarks": "measures for minutes, on models of the paper's size or the real data sets",
}
# Command -> the function that it calls after parsing its arguments.
CALLS = {
    "analyze": "gpt1_hf.analysis.run_plan.run_plan",
    "convert": "gpt1_hf.checkpoints.conversion.convert",
    "evaluate": "gpt1_hf.evaluation.evaluate.evaluate",
    "export": "gpt1_hf.checkpoints.export.export",
    "finetune": "gpt1_hf.training.finetune.finetune",
    "generate": "gpt1_hf.inside.generation.generate",
    "predict": "gpt1_hf.evaluation.predict.predict_file",
    "pretrain": "gpt1_hf.training.pretrain.pretrain",
    "push": "gpt1_hf.hub.push.push",
    "quantize": "gpt1_hf.evaluation.quantization_cost.quantize_and_score",
    "recipes": "gpt1_hf.cli.recipes.listing",
    "report": "gpt1_hf.analysis.report.report.report",
    "space": "gpt1_hf.inside.space.serve",
    "submit": "gpt1_hf.evaluation.glue_submission.submit",
    "tasks": "gpt1_hf.cli.tasks.listing",
    "tokenizer": "gpt1_hf.data.corpus.read_pieces",
    "zero-shot": "gpt1_hf.analysis.zero_shot.zero_shot",
}
# Start of a command whose arguments select another function -> that function.
CALLS_BY_ARGUMENTS = {
    "analyze context-length": "gpt1_hf.analysis.measure.context_length.measure",
    "analyze tune": "gpt1_hf.analysis.tune.tune",
    "analyze zero-shot": "gpt1_hf.analysis.measure.zero_shot.measure",
    "finetune --task all": "gpt1_hf.training.finetune_all.finetune_all",
    "space --output_dir": "gpt1_hf.inside.space.write_space",
    "tasks new": "gpt1_hf.cli.tasks.write_task",
    "tasks show": "gpt1_hf.cli.tasks.show_task",
    "tokenizer convert": "gpt1_hf.tokenization_gpt1.GPT1Tokenizer.from_original",
}
# Makes the shell print the commands of a script instead of running them. It joins lines, expands variables and loops,
# and drops comments.
PRINTING = "set -eu\nPATH=\n" + "\n".join(f"{name}() {{ printf '%q ' {name} \"$@\"; echo; }}" for name in PROGRAMS)


def blocks(file: Path) -> list[tuple[str, str]]:
    """Language and text of each code block, in order."""
    return re.findall(
        r"^```(bash|python)\n(.*?)^```", file.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )


def commands(script: str) -> list[str]:
    """The commands of a block. A program that is not in `PROGRAMS` is an error."""
    printed = subprocess.run(["/bin/bash", "-c", f"{PRINTING}\n{script}"], capture_output=True, text=True)
    assert printed.returncode == 0, f"{printed.stderr}\n{script}"
    return [line.strip() for line in printed.stdout.splitlines()]


def all_commands(file: Path) -> list[str]:
    """The commands in code blocks, and those with arguments in the text."""
    text = file.read_text(encoding="utf-8")
    inline = re.findall(r"`(gpt1 [^`]* --[^`]*)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    scripts = [script for language, script in blocks(file) if language == "bash"]
    scripts += [" ".join(command.split()) for command in inline]
    return [command for script in scripts for command in commands(script)]


def matching_start(command: str, *tables: dict[str, str]) -> str:
    """The longest key of the tables that starts the command, or an empty string."""
    return max((start for table in tables for start in table if command.startswith(start)), key=len, default="")


class Called(Exception):
    """The arguments were parsed and the command is about to start."""


@pytest.mark.parametrize("command", dict.fromkeys([*all_commands(README), *all_commands(RECIPES)]))
def test_a_command_has_valid_arguments(command, monkeypatch, tmp_path):
    def called(*args, **kwargs):
        raise Called

    monkeypatch.chdir(tmp_path)
    program, *argv = shlex.split(command)
    if program in ("accelerate", "python"):
        script = next(word for word in argv if word.endswith(".py"))
        configs = [word for word in argv if word.startswith("recipes/") and word.endswith(".yaml")]
        assert all((ROOT / name).is_file() for name in (script, *configs))
        flags = argv[argv.index(script) + 1 :]
    if program == "accelerate":  # the script is named after its command
        program, argv = "gpt1", [Path(script).stem, *flags]
    if program == "gpt1":
        line = shlex.join(argv)
        monkeypatch.setattr(CALLS_BY_ARGUMENTS.get(matching_start(line, CALLS_BY_ARGUMENTS)) or CALLS[argv[0]], called)
        with pytest.raises(Called):
            main(argv)
    elif program == "python":
        known = (ROOT / script).read_text(encoding="utf-8")
        flags = [flag for flag in flags if flag.startswith("--") and flag != "--config"]
        assert all(f'"{flag}"' in known for flag in flags), flags


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_a_document_names_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    paths = re.findall(r"\b(?:gpt1_hf|recipes|tests)/[a-z0-9_/]+\.(?:py|yaml)\b", text)
    assert not [path for path in paths if not (ROOT / path).is_file()]


def test_the_script_for_trainer_users_is_short():
    section = README.read_text(encoding="utf-8").split("## Trainer users\n")[1].split("\n## ")[0]
    (script,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    assert len(script.strip().splitlines()) <= 25 and "gpt1 " not in script


@pytest.fixture(scope="module")
def place(tmp_path_factory, hub, base_model) -> Path:
    """A reader's working folder, and a Hub with a tiny `openai-community/openai-gpt`."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "my_texts").mkdir()
    text = "It was a dark and stormy night, and the old captain walked slowly to the house by the sea.\n" * 50
    for name in ("my_texts/one.txt", "my_texts/two.txt", "my_text.txt"):
        (folder / name).write_text(text, encoding="utf-8")
    rows = [f"Film {number} is a film that I remember well.,{number % 5 + 1}" for number in range(40)]
    for name in ("reviews.csv", "new.csv"):
        (folder / name).write_text("\n".join(["review,stars", *rows]), encoding="utf-8")
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
    """README's code in order: snippets and single commands."""
    found = []
    for language, text in blocks(README):
        found += [("python", text)] if language == "python" else [("bash", line) for line in commands(text)]
    return found


@pytest.mark.parametrize("command", dict.fromkeys(step for language, step in steps() if language == "bash"))
def test_every_command_is_small_or_has_a_reason_not_to_run(command):
    assert matching_start(command, SMALL, NOT_RUN), f"add this command to SMALL or NOT_RUN: {command}"


@pytest.mark.slow
@pytest.mark.parametrize(("language", "step"), steps(), ids=lambda text: text.strip().split("\n")[0][:60])
def test_a_readme_step_runs(language, step, place, reader, hub):
    """Later steps read the files of earlier ones."""
    step = step.replace("NAME/", "anna/")  # the reader has anna's token
    environment = hub_environment(place, hub) | {"PYTHONPATH": str(ROOT), "HF_TOKEN": TOKEN}

    def run(*argv: str):
        done = subprocess.run(
            [sys.executable, *argv], cwd=place, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr[-4000:]

    if language == "python":
        return run("-c", step)
    start = matching_start(step, SMALL, NOT_RUN)
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
