"""GLUE averages, compared with the paper's Table 5 and its entry on the leaderboard."""

import math

import pytest

from gpt1_hf.errors import GPT1Error
from gpt1_hf.evaluation.glue_average import glue_averages
from gpt1_hf.evaluation.results import Result


COLUMNS = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte")
TABLE_5 = {
    74.7: (45.4, 91.3, 82.3, 82.0, 70.3, 81.8, 88.1, 56.0),
    59.9: (18.9, 84.0, 79.4, 30.9, 65.5, 75.7, 71.2, 53.8),
    75.0: (47.9, 92.0, 84.9, 83.2, 69.8, 81.1, 86.9, 54.4),
    69.1: (30.3, 90.5, 83.2, 71.8, 68.1, 73.7, 81.1, 54.6),
}
MAIN = {"cola": "matthews_correlation", "mrpc": "f1", "qqp": "f1", "stsb": "pearson"}


def result(task: str, metric: str, value: float, split: str = "validation", seed: int = 0) -> Result:
    return Result(task, split, metric, value, 10, None, "m", seed, {})


def table(values, split: str = "validation") -> list[Result]:
    results = []
    for task, value in zip(COLUMNS, values, strict=True):
        subsets = ("_matched", "_mismatched") if task == "mnli" else ("",)
        results += [result(task, MAIN.get(task, "accuracy"), value, split + subset) for subset in subsets]
    return results


@pytest.mark.parametrize("average", TABLE_5)
def test_the_averages_of_table_5(average):
    (mean,) = glue_averages(table(TABLE_5[average]))
    assert (mean.task, mean.metric, mean.paper, mean.split) == ("glue", "table_5_mean", 74.7, "validation")
    assert mean.value == pytest.approx(average, abs=0.07)  # the columns are rounded, too
    assert mean.n_examples == 90


def test_the_leaderboards_average():
    """The leaderboard's entry for the paper's model, with WNLI and the metrics that the paper leaves out."""
    results = [r for r in table((45.4, 91.3, 82.3, 82.0, 70.3, 82.1, 88.1, 56.0)) if "mismatched" not in r.split]
    results += [
        result("mnli", "accuracy", 81.4, "validation_mismatched"),
        result("mrpc", "accuracy", 75.7),
        result("stsb", "spearman", 80.0),
        result("qqp", "accuracy", 88.5),
        result("wnli", "accuracy", 53.4),
    ]
    means = {mean.metric: mean for mean in glue_averages(results)}
    assert means["leaderboard_mean"].value == pytest.approx(72.8, abs=0.051)
    assert (means["leaderboard_mean"].paper, means["leaderboard_mean"].prior) == (72.8, 68.9)
    assert means["leaderboard_mean"].details["tasks"]["mrpc"] == 79.0
    assert means["table_5_mean"].details["tasks"]["mnli"] == pytest.approx(81.75)


def test_seeds_count_by_their_mean():
    values = list(TABLE_5[74.7])
    more = [result("rte", "accuracy", values[-1] + 8, seed=1)]
    assert glue_averages(table(values) + more)[0].value == pytest.approx(glue_averages(table(values))[0].value + 0.5)


def test_an_average_that_lacks_a_task_is_left_out():
    results = table(TABLE_5[74.7])
    assert glue_averages([r for r in results if r.task != "rte"]) == []
    assert glue_averages([r for r in results if r.split != "validation_mismatched"]) == []
    assert glue_averages(results, split="test") == []
    assert len(glue_averages(table(TABLE_5[74.7], "test"), split="test")) == 1


def test_a_failed_seed_is_not_averaged():
    values = TABLE_5[74.7]
    good = table(values)
    bad = [Result(**{**vars(r), "seed": 7, "value": 0.0, "details": {"rows_not_finite": 3}}) for r in table(values)]
    bad[0].value, bad[0].details = math.nan, {}
    assert [r.value for r in glue_averages([*good, *bad])] == [r.value for r in glue_averages(good)]
    assert glue_averages(bad) == []


def test_two_models_are_not_averaged():
    other = Result("rte", "validation", "accuracy", 50.0, 10, None, "other", 0, {})
    with pytest.raises(GPT1Error, match="one model, not of several: m, other"):
        glue_averages([*table(TABLE_5[74.7]), other])


def test_an_average_has_its_standard_error_over_common_seeds():
    values = TABLE_5[74.7]
    shifted = [[value + shift for value in values] for shift in (0.0, 2.0, 4.0)]
    results = [Result(**{**vars(r), "seed": seed}) for seed, own in enumerate(shifted) for r in table(own)]
    (average,) = glue_averages([*results, result("rte", "accuracy", 99.0, seed=7)])
    assert average.details["standard_error"] == pytest.approx(2 / 3**0.5, abs=0.01)
    assert average.details["seeds"] == [0, 1, 2]
    (single,) = glue_averages(table(values))
    assert "standard_error" not in single.details and "constant_answer" not in single.details
    for one in results:
        one.details["constant_answer"] = 50.0
    assert glue_averages(results)[0].details["constant_answer"] == 50.0
