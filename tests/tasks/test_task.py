"""The built-in tasks: consistent in themselves, and with the paper's tables."""

import pytest

from gpt1_hf.errors import GPT1Error
from gpt1_hf.evaluation.metrics import METRICS
from gpt1_hf.processing_gpt1 import INPUT_FORMATS
from gpt1_hf.tasks import Task, all_tasks, load_task
from gpt1_hf.tasks.spec import FORMAT_COLUMNS, LABEL_METRICS, OPTIONAL_COLUMNS


# The paper's Tables 2 to 4: format, metric, and by the part of the split its number and the best before it.
PAPER = {
    "snli": ("entailment", "accuracy", {"": (89.9, 89.3)}),
    "mnli": ("entailment", "accuracy", {"_matched": (82.1, 80.6), "_mismatched": (81.4, 80.1)}),
    "qnli": ("entailment", "accuracy", {"": (88.1, 82.3)}),
    "rte": ("entailment", "accuracy", {"": (56.0, 61.7)}),
    "scitail": ("entailment", "accuracy", {"": (88.3, 83.3)}),
    "race": ("multiple_choice", "accuracy", {"": (59.0, 53.3), "_middle": (62.9, 60.2), "_high": (57.4, 50.3)}),
    "story_cloze": ("multiple_choice", "accuracy", {"": (86.5, 77.6)}),
    "mrpc": ("similarity", "f1", {"": (82.3, 86.0)}),
    "qqp": ("similarity", "f1", {"": (70.3, 66.1)}),
    "stsb": ("similarity", "pearson", {"": (82.0, 81.0)}),
    "sst2": ("classification", "accuracy", {"": (91.3, 93.2)}),
    "cola": ("classification", "matthews_correlation", {"": (45.4, 35.0)}),
}


@pytest.fixture(params=sorted(all_tasks(zero_shot=True)))
def task(request) -> Task:
    return load_task(request.param)


def test_every_task_is_consistent(task):
    assert all_tasks(zero_shot=True)[task.id] is task
    for metric in (task.metric, *task.other_metrics):
        assert metric in METRICS
    assert len(set(task.label_names)) == len(task.label_names)
    assert bool(task.score_range) != (len(task.label_names) >= 2)
    assert set(task.scored_splits) <= set(task.splits)
    assert task.notes.endswith(".")


def test_there_are_twelve_and_one_for_zero_shot_only():
    assert all_tasks().keys() == PAPER.keys()
    assert all_tasks(zero_shot=True).keys() - PAPER.keys() == {"dpr"}
    assert load_task("dpr").input_format is None


@pytest.mark.parametrize("task_id", PAPER)
def test_the_papers_numbers_are_those_of_its_tables(task_id):
    task = load_task(task_id)
    input_format, metric, numbers = PAPER[task_id]
    assert (task.input_format, task.metric) == (input_format, metric)
    parts = {name.removeprefix("validation"): subset for name, subset in task.parts("validation").items()}
    assert {name: task.numbers(subset) for name, subset in parts.items()} == numbers
    assert (task.paper, task.prior) == next(iter(numbers.values()))


def test_a_subset_is_a_split_of_its_own():
    assert load_task("mnli").parts("validation_matched") == {"validation_matched": "matched"}
    assert load_task("mnli").numbers("mismatched") == (81.4, 80.1)


@pytest.mark.parametrize(("wrong", "near"), [("coal", "cola"), ("sst-2", "sst2"), ("sst", "sst2")])
def test_an_unknown_task_names_the_nearest(wrong, near):
    with pytest.raises(GPT1Error, match=f"no task '{wrong}'; did you mean {near}\\?.*cola, dpr, mnli"):
        load_task(wrong)


@pytest.mark.parametrize("wrong", ["xyzzy", "", None])
def test_a_task_far_from_all_gets_the_list_only(wrong):
    with pytest.raises(GPT1Error, match="no task .*cola, dpr, mnli") as error:
        load_task(wrong)
    assert "did you mean" not in str(error.value)


def test_a_task_must_have_the_columns_of_its_format():
    with pytest.raises(ValueError, match="entailment"):
        Task("x", "someone/x", "entailment", {"text": "sentence"}, ("no", "yes"), "accuracy", 50.0)


def test_the_formats_are_the_processors_and_tokens():
    assert {**INPUT_FORMATS, "token_classification": ("words",)} == FORMAT_COLUMNS
    assert {column for columns in FORMAT_COLUMNS.values() for column in columns} > {*OPTIONAL_COLUMNS}


def test_every_metric_is_for_some_kind_of_labels():
    assert {*METRICS} <= {metric for metrics in LABEL_METRICS.values() for metric in metrics}


def test_a_built_in_task_has_nothing_to_infer(task):
    assert task.is_complete and task.resolved() is task
    assert task.source == task.dataset
