"""
Every command and snippet of every README runs, in order, in one folder, with a Hub on localhost. Every command has
valid arguments. Every file and section that a document names exists. `test_outputs.py` compares the outputs.

A new command needs a line in `SMALL` if no existing line makes it small and offline. If it cannot run in a test, it
needs a line in `NOT_RUN` with the reason.
"""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from helpers.documents import GUIDE, README, ROOT, blocks, commands, matching_start
from helpers.hub_client import TOKEN, hub_environment, started_client
from helpers.hub_server import File, Repo
from helpers.texts import SENTENCE, write_texts

from gpt1_hf import GPT1Tokenizer
from gpt1_hf.checkpoints.conversion import convert
from gpt1_hf.cli import main
from gpt1_hf.resources import recipes_dir


PACKAGE, RESULTS = ROOT / "gpt1_hf" / "README.md", ROOT / "recipes" / "results" / "README.md"
# In the order in which a reader runs them.
READMES = (
    README,
    PACKAGE,
    ROOT / "model_card" / "README.md",
    GUIDE,
    RESULTS,
    ROOT / "recipes" / "lm_eval" / "README.md",
    ROOT / "model_card" / "space" / "README.md",
    ROOT / "tests" / "README.md",
    ROOT / "tests" / "benchmarks" / "README.md",
)
DOCUMENTS = (*READMES, *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", ".ci/run")))
# Of the project on the web; README is also the page on PyPI, which has no relative links.
URL = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]

# Start of a command -> arguments that make it small and offline. They follow its own arguments and override them. The
# longest matching start counts.
SHORT = "--max_steps 2 --max_train_examples 8 --per_device_train_batch_size 4 --disable_tqdm true"
FINETUNE = f"--sample {SHORT}"
SMALL = {
    "accelerate launch": f"{FINETUNE} --use_cpu true",
    "gpt1 analyze ablations --dry_run": "--tokens_per_second 100",
    "gpt1 convert": "",
    "gpt1 evaluate --model gpt1-tiny --text_file": "",
    "gpt1 evaluate": "--sample",
    "gpt1 evaluate --task films.yaml": "",
    "gpt1 export": "",
    "gpt1 finetune": FINETUNE,
    "gpt1 finetune --config recipes/finetune/cola.yaml --learning_rate": f"{FINETUNE} --seeds 1",
    "gpt1 finetune --task all": f"{FINETUNE} --seeds 1",
    "gpt1 finetune --task essays.yaml": SHORT,
    "gpt1 finetune --task films.yaml": SHORT,
    "gpt1 finetune --train_file": SHORT,
    "gpt1 generate": "--max_new_tokens 3",
    "gpt1 predict": "",
    "gpt1 pretrain": "--max_steps 2 --disable_tqdm true",
    "gpt1 push": "",
    "gpt1 recipes": "",
    "gpt1 report": "",
    "gpt1 show": "",
    "gpt1 space --output_dir": "",
    "gpt1 tasks": "",
    "gpt1 tokenizer": "",
    "gpt1 zero-shot": "--sample",
    "python recipes/scale.py": "--tasks 2 --corpus my_texts --tokenizer gpt1-tiny --output_dir runs/scale",
}
# Start of a command -> why it is not run.
NOT_RUN = {
    "accelerate launch --config_file recipes/accelerate/single_gpu.yaml": "needs a GPU; tests/test_launch.py",
    "cd gpt1_hf": "belongs to git clone",
    "git clone": "needs the network",
    "gpt1 analyze": "runs for hours; tests/analysis",
    "gpt1 pretrain --config recipes/pretrain/smoke.yaml --corpus Salesforce": "downloads a data set",
    "gpt1 quantize": "needs torchao, an extra; tests/checkpoints/test_quantization.py",
    "gpt1 space": "serves until it is stopped; tests/inside/test_space.py tests it",
    "gpt1 submit": "needs GLUE's hidden test sets; tests/evaluation/test_glue_submission.py",
    "hf": "needs huggingface.co",
    "lm_eval": "needs lm-eval, an extra; tests/analysis/test_lm_eval_tasks.py",
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
    "export": "gpt1_hf.evaluation.quantization_cost.export_and_score",
    "finetune": "gpt1_hf.training.finetune.finetune",
    "generate": "gpt1_hf.inside.generation.generate",
    "predict": "gpt1_hf.evaluation.predict.predict_file",
    "pretrain": "gpt1_hf.training.pretrain.pretrain",
    "push": "gpt1_hf.hub.push.push",
    "quantize": "gpt1_hf.evaluation.quantization_cost.quantize_and_score",
    "recipes": "gpt1_hf.cli.recipes.listing",
    "report": "gpt1_hf.analysis.report.report.report",
    "show": "gpt1_hf.inside.show.show",
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


def all_commands(file: Path) -> list[str]:
    """The commands in code blocks, and those with arguments in the text."""
    text = file.read_text(encoding="utf-8")
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    scripts = [block.content for block in blocks(text) if block.language == "bash"]
    scripts += [" ".join(command.split()) for command in re.findall(r"`(gpt1 [^`]* --[^`]*)`", prose)]
    return [command.line for script in scripts for command in commands(script)]


class Called(Exception):
    """The arguments were parsed and the command is about to start."""


@pytest.mark.parametrize("command", dict.fromkeys(line for file in READMES for line in all_commands(file)))
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


def anchors(file: Path) -> set[str]:
    """The names that GitHub gives to the sections of a Markdown file."""
    text = re.sub(r"^ *```.*?^ *```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"(?m)^#+ (.*)$", text)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_and_sections_that_a_document_names_exist(document):
    text = document.read_text(encoding="utf-8")
    paths = re.findall(r"(?<![\w/])(?:gpt1_hf|recipes|tests)/[a-z0-9_/]+\.(?:py|yaml)\b", text)
    assert not [path for path in paths if not (ROOT / path).is_file()]
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        place, _, section = link.partition("#")
        for start in (f"{URL}/blob/main/", f"{URL}/raw/main/"):
            if place.startswith(start):
                place = str(ROOT / place.removeprefix(start))
        if not place.startswith("http"):
            target = (document.parent / place) if place else document
            assert target.exists(), link
            assert not section or section in anchors(target), link


def test_readme_is_short_and_has_absolute_links():
    """It is the page on PyPI too."""
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 250
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links and all(link.startswith(("https://", "#")) for link in links)


def test_every_readme_is_tested():
    """Those below `gpt1_hf/assets` and `earlier_runs` are cards of models."""
    found = {path for path in ROOT.rglob("README.md") if not {"assets", "earlier_runs"} & {*path.parts}}
    assert {path for path in found if not any(part.startswith(".") for part in path.parts)} == {*READMES}


def test_the_script_for_trainer_users_is_short():
    section = PACKAGE.read_text(encoding="utf-8").split("## In your own Trainer\n")[1].split("\n## ")[0]
    (script,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    assert len(script.strip().splitlines()) <= 25 and "gpt1 " not in script


@pytest.fixture(scope="module")
def place(tmp_path_factory, hub, base_model) -> Path:
    """A reader's working folder, and a Hub with a tiny `openai-community/openai-gpt`."""
    folder = tmp_path_factory.mktemp("reader")
    write_texts(folder)
    (folder / "my_texts.csv").write_text("body\n" + f'"{SENTENCE.strip()}"\n' * 100, encoding="utf-8")
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


def steps() -> list[tuple[str, str, str]]:
    """The code of the READMEs in order: file or language, name of the file, content or single command."""
    found = []
    for file in READMES:
        for block in blocks(file.read_text(encoding="utf-8")):
            if block.language == "bash":
                found += [("bash", command.given, command.line) for command in commands(block.content)]
            elif block.language == "python":
                found.append(("python", "", block.content))
            elif block.name and block.language != "text":
                found.append(("file", block.name, block.content))
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("command", dict.fromkeys(step for kind, _, step in steps() if kind == "bash"))
def test_every_command_is_small_or_has_a_reason_not_to_run(command):
    assert matching_start(command, SMALL, NOT_RUN), f"add this command to SMALL or NOT_RUN: {command}"


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "given", "step"), steps(), ids=lambda text: text.strip().split("\n")[0][:60])
def test_a_step_runs(kind, given, step, place, reader, hub):
    """Later steps read the files of earlier ones."""
    step = step.replace("NAME/", "anna/")  # the reader has anna's token
    environment = hub_environment(place, hub) | {"PYTHONPATH": str(ROOT), "HF_TOKEN": TOKEN}

    def run(*argv: str):
        done = subprocess.run(
            [sys.executable, *argv],
            cwd=place,
            env=environment,
            input=f"{given}\n",
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr[-4000:]

    if kind == "python":
        return run("-c", step)
    if kind == "file":
        return (place / given).write_text(step, encoding="utf-8")
    start = matching_start(step, SMALL, NOT_RUN)
    if start in NOT_RUN:
        pytest.skip(NOT_RUN[start])
    program, *argv = shlex.split(f"{step} {SMALL[start]}")
    if program == "gpt1" and not given:
        answer = reader(*argv)
        assert answer["status"] == 0, answer
    elif program == "gpt1":
        run("-m", "gpt1_hf", *argv)
    elif program == "accelerate":
        run("-m", "accelerate.commands.launch", *argv[1:])
    else:
        run(*argv)
