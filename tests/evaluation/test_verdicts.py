"""The rule of verdicts, compared with scipy's paired t-test, and averages over tasks."""

import math
import random
from statistics import fmean

import pytest
from scipy.stats import ttest_rel

from gpt1_hf.evaluation.verdicts import (
    MIN_SEEDS,
    RULE,
    Comparison,
    average_over_tasks,
    compare,
    compare_over_tasks,
    mean_and_error,
    standard_error,
    verdict,
)


def test_verdicts_are_those_of_the_paired_t_test():
    draw, found = random.Random(0), set()
    for _ in range(300):
        n, shift = draw.randint(3, 8), draw.choice([-3, 0, 3])
        reference = {seed: draw.gauss(50, 5) for seed in range(n)}
        values = {seed: reference[seed] + draw.gauss(shift, 2) for seed in reversed(range(n))}
        test = ttest_rel([values[seed] for seed in range(n)], list(reference.values()))
        expected = "open" if test.pvalue >= 0.05 else "yes" if test.statistic > 0 else "no"
        assert verdict(values, reference) == expected
        found.add(expected)
    assert found == {"yes", "no", "open"}


@pytest.mark.parametrize(
    ("values", "reference", "expected"),
    [
        ({1: 3.0, 2: 3.5, 3: 4.0}, {1: 1.0, 2: 1.4, 3: 2.1}, "yes"),
        ({1: 1.0, 2: 1.4, 3: 2.1}, {1: 3.0, 2: 3.5, 3: 4.0}, "no"),
        ({1: 3.0, 2: 3.5}, {1: 1.0, 2: 1.4}, "open"),  # too few seeds
        ({1: 90.0}, {1: 1.0}, "open"),
        ({}, {}, "open"),
        ({1: 1.0, 2: 2.0, 3: 3.0}, {1: 1.0, 2: 2.0, 3: 3.0}, "open"),  # no difference at all
        ({1: 1.1, 2: 2.1, 3: 3.1}, {1: 1.0, 2: 2.0, 3: 3.0}, "open"),  # the same difference for every seed
        ({1: 1.0, 2: 2.0, 3: 3.0}, {1: 1.1, 2: 2.1, 3: 3.1}, "open"),
        (dict.fromkeys((1, 2, 3), 52.71), dict.fromkeys((1, 2, 3), 47.29), "open"),  # two constant answers
        ({1: math.nan, 2: 3.5, 3: 4.0}, {1: 1.0, 2: 1.4, 3: 2.1}, "open"),  # a score that is none counts as missing
        ({1: 3.0, 2: 3.5, 3: 4.0, 4: math.inf}, {1: 1.0, 2: 1.4, 3: 2.1, 4: 0.0}, "yes"),
        ({1: 3.0, 2: 3.5, 3: 4.0}, {1: 1.0, 2: 1.4, 4: 2.1}, "open"),  # two seeds in common
        ({1: 3.0, 2: 3.5, 3: 4.0, 4: -99.0}, {1: 1.0, 2: 1.4, 3: 2.1}, "yes"),  # only the common seeds count
        ({None: 3.0, 2: 3.5, 3: 4.0}, {None: 1.0, 2: 1.4, 3: 2.1}, "open"),  # unknown seeds cannot be paired
    ],
)
def test_hand_made_cases(values, reference, expected):
    assert verdict(values, reference) == expected


def test_over_tasks_a_seed_counts_by_its_average():
    ours = {"cola": {1: 10.0, 2: 12.0, 3: 11.0, 4: 0.0}, "rte": {1: 60.0, 2: 62.0, 3: 66.0}}
    other = {"cola": {1: 8.0, 2: 9.0, 3: 9.5}, "rte": {1: 59.0, 2: 61.0, 3: 64.0, 5: 70.0}}
    assert average_over_tasks(ours) == {1: 35.0, 2: 37.0, 3: 38.5}
    pairs = [average_over_tasks(other).values(), average_over_tasks(ours).values()]
    assert ttest_rel(*map(list, pairs)).pvalue < 0.05
    found = compare_over_tasks(ours, other, ["cola", "rte"])
    assert (found.verdict, found.left_out) == ("yes", (4, 5))
    assert found.difference == pytest.approx(fmean([35.0 - 33.5, 37.0 - 35.0, 38.5 - 36.75]))
    assert compare_over_tasks(other, ours, ["cola", "rte"]).verdict == "no"
    nothing = compare_over_tasks(ours, {"cola": other["cola"]}, ["cola", "rte"])
    assert (nothing.difference, nothing.verdict) == (None, "open")
    assert average_over_tasks({}) == {} and average_over_tasks(ours, ["cola", "sst2"]) == {}


def test_averages_have_the_standard_error_over_seeds():
    values = {"cola": {1: 10.0, 2: 12.0, 3: 11.0}, "rte": {1: 60.0, 2: 62.0, 3: 66.0}}
    assert standard_error([35.0, 37.0, 38.5]) == pytest.approx(1.0138, abs=1e-4)
    assert mean_and_error(values, ["cola", "rte"]) == "36.8 ± 1.0 (3)"
    more = {**values, "sst2": {1: 90.0}, "mrpc": {7: 80.0, 8: 82.0}}
    assert mean_and_error(more, ["cola", "sst2"]) == "50.0"  # seed 1 alone
    assert mean_and_error(more, ["cola", "mrpc"]) == "46.0"  # no common seed
    more["cola"][4] = 50.0  # a seed that the other task lacks does not count
    assert mean_and_error(more, ["cola", "rte"]) == "36.8 ± 1.0 (3)"
    assert mean_and_error(values, ["cola", "sst2"]) == "not run"
    assert mean_and_error(values, []) == "not run"
    assert standard_error([1.0]) is None


def test_a_difference_is_over_the_seeds_of_its_verdict():
    pretrained, scratch = {1: 60.0, 2: 61.0, 3: 62.0, 4: 30.0}, {1: 59.0, 2: 60.5, 3: 61.2}
    found = compare(pretrained, scratch)
    assert found == Comparison(pytest.approx(2.3 / 3), "yes", (4,))
    assert compare({**pretrained, 1: math.nan}, scratch) == Comparison(pytest.approx(0.65), "open", (1, 4))
    assert compare({None: 1.0}, {None: 2.0}) == Comparison(None, "open", ())
    assert average_over_tasks({"cola": {1: math.inf, 2: 1.0}}) == {2: 1.0}


def test_the_rule_states_its_numbers():
    assert "5 %" in RULE and f"fewer than {MIN_SEEDS} seeds" in RULE
    assert "the same difference for every seed" in RULE and "without a correction" in RULE
