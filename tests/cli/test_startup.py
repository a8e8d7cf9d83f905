"""The command line answers before it imports slow libraries, and its answers equal those of the real parser."""

import argparse
import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import gpt1_hf
from gpt1_hf.analysis.zero_shot import HEURISTICS
from gpt1_hf.cli import commands, main
from gpt1_hf.cli.flags import COMPUTED, Parser, check, read_constant, read_fields, with_underscores
from gpt1_hf.cli.generate import generation_fields
from gpt1_hf.cli.groups import GROUPS
from gpt1_hf.cli.parser import DataclassParser


SLOW = ("torch", "transformers", "datasets", "pandas", "numpy", "pyarrow", "huggingface_hub", "sklearn", "scipy")
REFERENCES = (
    "gpt1_hf.training.arguments.FinetuneArguments",
    "gpt1_hf.training.arguments.PretrainArguments",
    "gpt1_hf.evaluation.evaluate.EvaluateArguments",
    "gpt1_hf.evaluation.glue_submission.SubmitArguments",
    "gpt1_hf.evaluation.predict.PredictArguments",
    "gpt1_hf.analysis.zero_shot.ZeroShotArguments",
    "gpt1_hf.analysis.measure.zero_shot.Arguments",
    "gpt1_hf.analysis.measure.context_length.Arguments",
)
# Starts like the console script. Its last line is the exit status and the slow libraries that were imported.
SCRIPT = """
import runpy, sys
sys.argv = ["gpt1", *sys.argv[1:]]
try:
    from gpt1_hf.cli import main
    status = main()
except SystemExit as end:
    status = end.code
print(status, *(name for name in {slow!r} if name in sys.modules), file=sys.stderr)
"""
WRONG = [
    "finetune",
    "finetune --tsk cola",
    "finetune --task cola --optim nothing",
    "finetune --task cola --seeds many",
    "finetune --task cola --bf16 maybe",
    "finetune --config KEY",
    "pretrain --corpus x",
    "evaluate",
    "zero-shot",
    "predict --model x",
    "predict --model x --inputs y",
    "submit",
    "generate",
    "generate x --num_beam 3",
    "generate x --do_sample maybe",
    "convert gpt1-tiny",
    "convert gpt1-tiny --to x --output_dir y",
    "export --format x",
    "quantize gpt1-tiny --sample --output_dir y",
    "push",
    "report",
    "show",
    "show --txt x",
    "show --text x --input_format y",
    "show --text x --layers y",
    "space --prt 1",
    "demo --sed 1",
    "tokenizer",
    "tokenizer train --corpus x --output_dir y --corpus_rows x",
    "tokenizer train --corpus x --output_dir y --vocab_size 0",
    "recipes ls --x",
    "tasks",
    "tasks show coal",
    "tasks new my.yaml",
    "tasks new my.yaml --train_file a.csv --labels x",
    "tasks new cola.yaml --train_file a.csv",
    "tasks new my.json --train_file a.csv",
    "analyze",
    "analyze nothing",
    "analyze zero-shot",
    "analyze tune",
    "analyze context-length --lengths x",
    "analyze ablations --finetune.seeed 1",
    "analyze ablations --tokens_per_second 0",
    "finetun",
]


def start(argv, cwd) -> tuple[int, list[str], subprocess.CompletedProcess]:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(slow=SLOW), *argv], capture_output=True, text=True, cwd=cwd
    )
    status, *imported = run.stderr.splitlines()[-1].split()
    return int(status), imported, run


@pytest.mark.parametrize(
    "argv",
    [
        "",
        "--help",
        "--version",
        "recipes ls",
        "tasks ls",
        "tasks show cola",
        *(f"{name} --help" for name in commands()),
        "finetune --help-all",
    ],
)
def test_help_imports_nothing_slow(argv, tmp_path):
    status, imported, run = start(argv.split(), tmp_path)
    assert (status, imported) == (0, [])
    assert run.stdout


@pytest.mark.parametrize("argv", WRONG)
def test_wrong_usage_imports_nothing_slow_and_has_status_2(argv, tmp_path):
    (tmp_path / "key.yaml").write_text("task: cola\nlearning_rat: 1\n")
    status, imported, run = start(argv.replace("KEY", "key.yaml").split(), tmp_path)
    assert (status, imported, run.stdout) == (2, [], "")
    assert run.stderr.count("error: ") == 1 and "Traceback" not in run.stderr
    assert len(run.stderr.splitlines()) == 2  # the error, and the last line of SCRIPT


def test_the_module_imports_nothing_slow(tmp_path):
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "gpt1_hf", "finetune", "--tsk", "cola"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    imported = {line.split("|")[-1].strip() for line in run.stderr.splitlines()}
    assert "gpt1_hf.cli.flags" in imported and not imported.intersection(SLOW)
    assert run.returncode == 2 and "did you mean --task?" in run.stderr


@pytest.mark.parametrize("reference", REFERENCES)
def test_fields_read_from_the_source_equal_those_of_the_class(reference):
    module, _, name = reference.rpartition(".")
    real = DataclassParser(getattr(import_module(module), name), prog="x", add_help=False, allow_abbrev=False)
    own = Parser("x", "", add_help=False)
    fields = read_fields(reference)
    for field in fields.values():
        field.add_to(own)
    theirs = {action.option_strings[0]: action for action in real._actions}
    mine = {action.option_strings[0]: action for action in own._actions if action.dest not in ("quiet", "help_all")}
    assert [*mine] == [*theirs]
    unread = set()
    for flag, action in theirs.items():
        assert mine[flag].option_strings == [word for word in action.option_strings if "-" not in word[2:]]
        assert (mine[flag].dest, mine[flag].nargs) == (action.dest, action.nargs), flag
        if flag.startswith("--no_"):
            continue
        field = fields[action.dest]
        assert field.help == action.help or action.help is None, flag
        if field.choices is None and action.choices is not None:
            unread.add(action.dest)
        else:
            assert [*(field.choices or ())] == [*(action.choices or ())], flag
        if field.default is COMPUTED:
            unread.add(action.dest)
        elif action.default is not argparse.SUPPRESS:
            assert field.default == action.default, flag
    # Computed in the source. The real parser checks these.
    assert unread <= {"optim", "log_level", "log_level_replica", "include_for_metrics", "data_dir", "tasks"}


def help_of(*argv, capsys) -> str:
    with pytest.raises(SystemExit) as end:
        main([*argv])
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("reference", REFERENCES)
def test_help_all_shows_every_option_once(reference, capsys):
    fields = read_fields(reference)
    with pytest.raises(SystemExit):
        check(reference, ["--help_all"], "x", "")
    shown = re.findall(r"(?m)^  --([\w-]+)", capsys.readouterr().out)
    has_hidden = any(not field.is_own for field in fields.values())
    assert sorted(shown) == sorted(["quiet", "config", *fields, *(["help-all"] if has_hidden else [])])


@pytest.mark.parametrize("command", ["finetune", "pretrain"])
def test_help_shows_own_options_in_groups_and_names_help_all(command, capsys):
    arguments = f"gpt1_hf.training.arguments.{command.title()}Arguments"
    fields = read_fields(arguments)
    text = help_of(command, "--help", capsys=capsys)
    shown = re.findall(r"(?m)^  --(\w+)", text)
    assert {name for name, field in fields.items() if field.is_own} <= {*shown}
    assert not {"deepspeed", "adafactor", "tpu_num_cores", "hub_strategy", "fsdp", "optim_args"} & {*shown}
    titles = re.findall(r"(?m)^(\S.*):$", text)
    assert titles == ["options", *(title for title, names in GROUPS.items() if {*names} & {*fields})]
    hidden = [name for name in fields if name not in shown]
    assert f"--help-all also lists {len(hidden)} options" in " ".join(text.split()) and len(hidden) > 60
    everything = help_of(command, "--help-all", capsys=capsys)
    assert all(f"  --{name} " in everything for name in hidden)
    assert everything.index("--learning_rate ") < everything.index("inherited from") < everything.index("--deepspeed ")


def test_hidden_options_still_work():
    given = check(REFERENCES[0], ["--task", "cola", "--hub_strategy", "end", "--fsdp", "x"], "finetune", "")
    assert (given.hub_strategy, given.fsdp) == ("end", "x")


def test_every_own_setting_of_a_run_has_one_group():
    listed = [name for names in GROUPS.values() for name in names]
    assert len(listed) == len({*listed})
    fields = read_fields(REFERENCES[0]) | read_fields(REFERENCES[1])
    assert {name for name, field in fields.items() if field.is_own} <= {*listed}
    # transformers 5.23 has it under an older name.
    assert {*listed} - {"activation_checkpointing"} <= {*fields}


def test_help_of_a_command_without_inherited_options_has_no_groups(capsys):
    text = help_of("evaluate", "--help", capsys=capsys)
    assert re.findall(r"(?m)^(\S.*):$", text) == ["options"] and "help-all" not in text


@pytest.mark.parametrize("command", ["", "demo", "tasks", "tasks new", "evaluate", "report", "analyze", "show"])
def test_help_all_is_help_where_no_option_is_hidden(command, capsys):
    texts = []
    for flag in ("--help", "--help-all"):
        try:
            assert main([*command.split(), flag]) == 0
        except SystemExit as end:
            assert end.code == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != ""


@pytest.mark.parametrize(("command", "folder"), [("finetune", "runs/<task>"), ("pretrain", "runs/pretrain")])
def test_help_names_the_default_folder(command, folder, capsys):
    text = " ".join(help_of(command, "--help", capsys=capsys).split())
    assert "results.json and checkpoints" in text and f"Default: {folder}." in text


def test_constants_and_generation_fields_are_read_from_the_source():
    from transformers import GenerationConfig

    from gpt1_hf.checkpoints.conversion import LAYOUTS

    assert read_constant("gpt1_hf.checkpoints.conversion.LAYOUTS") == LAYOUTS
    assert read_constant("gpt1_hf.analysis.zero_shot.HEURISTICS") == [*HEURISTICS]
    fields = {name for name in vars(GenerationConfig()) if name[0] != "_" and name != "transformers_version"}
    assert set(generation_fields()) == fields
    assert [generation_fields()[name] for name in ("top_k", "length_penalty")] == [int, float]


@pytest.mark.parametrize(
    ("argv", "same"),
    [
        ("--output-dir a-b", "--output_dir a-b"),
        ("--output-dir=a-b", "--output_dir=a-b"),
        ("--finetune.num-train-epochs=1", "--finetune.num_train_epochs=1"),
        ("x - -- --a-b", "x - -- --a-b"),
        ("zero-shot -1", "zero-shot -1"),
    ],
)
def test_flags_take_hyphens_or_underscores(argv, same):
    assert with_underscores(argv.split()) == same.split()


def test_text_that_begins_with_hyphens_is_not_a_flag():
    assert with_underscores(["generate", "--well-known words", "it-is"]) == ["generate", "--well-known words", "it-is"]


PUBLIC = """
import sys
sys.argv = [{started!r}]
import gpt1_hf
assert ("transformers" in sys.modules) is {eager}
assert {{*gpt1_hf.__all__, "__version__"}} <= {{*dir(gpt1_hf)}}
from gpt1_hf import *
import pickle
assert pickle.loads(pickle.dumps(GPT1Config)) is GPT1Config
import transformers
from transformers.pipelines import PIPELINE_REGISTRY
assert transformers.AutoConfig.for_model("gpt1").__class__ is GPT1Config
assert "multiple-choice" in PIPELINE_REGISTRY.supported_tasks
assert transformers.utils.logging.is_progress_bar_enabled() is {eager}
"""


@pytest.mark.parametrize(
    ("started", "eager"), [("-c", True), ("/x/recipes/finetune.py", True), ("gpt1.py", True), ("/x/bin/gpt1", False)]
)
def test_every_public_name_is_available_however_python_was_started(started, eager):
    subprocess.run([sys.executable, "-c", PUBLIC.format(started=started, eager=eager)], check=True)


@pytest.mark.slow
def test_modules_that_use_auto_classes_register_the_family():
    code = "import sys; sys.argv = ['gpt1']; import gpt1_hf, gpt1_hf.checkpoints.loading; "
    code += "import transformers; assert 'gpt1' in transformers.models.auto.configuration_auto.CONFIG_MAPPING"
    subprocess.run([sys.executable, "-c", code], check=True)
    folder = Path(gpt1_hf.__file__).parent
    for path in folder.rglob("*.py"):
        names = {
            alias.name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and node.module == "transformers"
            for alias in node.names
        }
        if path.parent == folder and path.stem in ("registration", "pipelines", "__init__"):
            continue
        if any(name.startswith("Auto") for name in names):
            module = ".".join(path.relative_to(folder.parent).with_suffix("").parts)
            code = f"import sys; sys.argv = ['gpt1']; import {module}; assert 'gpt1_hf.registration' in sys.modules"
            subprocess.run([sys.executable, "-c", code], check=True)


def test_type_checkers_see_the_lazy_names():
    tree = ast.parse(Path(gpt1_hf.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    seen = {alias.name: part.module for part in block.body for alias in part.names}
    assert seen == gpt1_hf._HOMES and sorted(seen) == gpt1_hf.__all__
