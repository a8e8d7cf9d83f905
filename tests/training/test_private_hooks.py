"""Private methods and attributes of transformers' Trainer that ours use. A test names those that a release removes."""

import ast
import inspect
import re

import pytest
from transformers import Trainer

from gpt1_hf.training import exact_resume, publishing, trainer
from gpt1_hf.training.exact_resume import PRIVATE_HOOKS, ResumableTrainer
from gpt1_hf.training.publishing import PublishingTrainer
from gpt1_hf.training.trainer import GPT1Trainer


SOURCE = inspect.getsource(Trainer)


def trainer_has(name: str) -> bool:
    """Whether transformers' Trainer has a method or sets an attribute of that name."""
    return hasattr(Trainer, name) or re.search(rf"\bself\.{name}\b[^=\n]*=[^=]", SOURCE) is not None


def used_names() -> set[str]:
    """Private names that our trainers define, or look up in `self`, `super()` or a trainer."""
    names = set()
    for module in (trainer, exact_resume, publishing):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.FunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.Attribute):
                owner = node.value
                is_super = isinstance(owner, ast.Call) and getattr(owner.func, "id", "") == "super"
                if is_super or getattr(owner, "id", "") in ("self", "trainer"):
                    names.add(node.attr)
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


@pytest.mark.parametrize("name", PRIVATE_HOOKS)
def test_trainer_still_has(name):
    assert trainer_has(name), f"transformers' Trainer has no {name} any more, which GPT1Trainer uses"


def test_the_list_is_complete():
    assert set(PRIVATE_HOOKS) == {name for name in used_names() if trainer_has(name)}
    assert list(PRIVATE_HOOKS) == sorted(PRIVATE_HOOKS)


@pytest.mark.parametrize("name", [name for name in PRIVATE_HOOKS if inspect.isfunction(getattr(Trainer, name, None))])
def test_overrides_accept_the_trainers_arguments(name):
    theirs = inspect.signature(getattr(Trainer, name))
    for owner in (GPT1Trainer, ResumableTrainer, PublishingTrainer):
        ours = inspect.signature(getattr(owner, name))
        ours.bind(*theirs.parameters)  # by position
        ours.bind(None, **{parameter: None for parameter in list(theirs.parameters)[1:]})  # by name
