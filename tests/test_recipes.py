"""The real parser reads every shipped recipe, and recipes/README.md lists it."""

import pytest
import torch
import yaml

from gpt1_hf.cli.parser import parse
from gpt1_hf.cli.recipes import listing
from gpt1_hf.hardware import has_half_precision
from gpt1_hf.resources import recipes_dir
from gpt1_hf.tasks import all_tasks, load_task
from gpt1_hf.training.arguments import FinetuneArguments, PretrainArguments


ARGUMENTS = {"pretrain": PretrainArguments, "finetune": FinetuneArguments}
RUNS = sorted(path for kind in ARGUMENTS for path in (recipes_dir() / kind).rglob("*.yaml"))


def name(path):
    return path.relative_to(recipes_dir()).as_posix()


@pytest.mark.parametrize("path", RUNS, ids=name)
def test_the_parser_keeps_every_value_of_a_recipe(path):
    kind = path.relative_to(recipes_dir()).parts[0]
    args = parse(ARGUMENTS[kind], ["--config", str(path)], kind, "")
    for key, value in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        read = getattr(args, key)
        if key == "bf16":  # switched off on a CPU without bf16 instructions
            value = value and has_half_precision(torch.bfloat16, args.device)
        assert getattr(read, "value", read) == value, key


@pytest.mark.parametrize("path", RUNS, ids=name)
def test_a_recipe_starts_with_its_command(path):
    kind = path.relative_to(recipes_dir()).parts[0]
    head = path.read_text(encoding="utf-8").split("\n\n")[0]
    assert head.startswith("# ")
    assert f"gpt1 {kind} --config recipes/{name(path)}" in head


def test_every_task_has_a_recipe_with_the_papers_values():
    found = {path.stem for path in (recipes_dir() / "finetune").glob("*.yaml")}
    assert found == set(all_tasks())
    for task_id in found:
        recipe = recipes_dir() / "finetune" / f"{task_id}.yaml"
        args = parse(FinetuneArguments, ["--config", str(recipe)], "finetune", "")
        assert args.task == task_id
        task, text = load_task(task_id), recipe.read_text(encoding="utf-8")
        for number in (task.paper, task.prior, *(number for pair in task.subsets.values() for number in pair)):
            assert number is None or str(number) in text.split("\n\n")[0], number
        defaults = FinetuneArguments(task=task_id)
        for key in ("learning_rate", "global_batch_size", "num_train_epochs", "warmup_steps", "lm_coef"):
            assert getattr(args, key) == getattr(defaults, key), key


def test_readme_and_gpt1_recipes_list_every_recipe():
    readme = (recipes_dir() / "README.md").read_text(encoding="utf-8")
    assert RUNS
    for path in RUNS:
        assert f"`{name(path)}`" in readme, f"{name(path)} is not in recipes/README.md"
    lines = {line.split()[0]: line for line in listing()}
    for task_id, task in all_tasks().items():
        line = lines[f"finetune/{task_id}"]
        assert f" {task_id} " in line and f" {task.metric} " in line
        assert all(str(number) in line for number in (task.paper, *(paper for paper, _ in task.subsets.values())))
    assert lines["finetune/mnli"].endswith("paper matched 82.1, mismatched 81.4")
    assert lines["finetune/race"].endswith("paper 59.0 (middle 62.9, high 57.4)")
    assert {line.split()[0] for line in listing()} >= {name(path).removesuffix(".yaml") for path in RUNS}


@pytest.mark.parametrize("path", sorted((recipes_dir() / "accelerate").glob("*.yaml")), ids=name)
def test_accelerate_configs_are_valid(path):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.num_processes >= 1
