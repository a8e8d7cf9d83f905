"""The metrics, against scikit-learn and by hand."""

import logging

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, matthews_corrcoef

from gpt1_hf.evaluation.metrics import METRICS, accuracy, matthews_correlation, score


@pytest.fixture(params=range(5))
def answers(request) -> tuple[np.ndarray, np.ndarray]:
    """Random predictions and labels."""
    rng = np.random.default_rng(request.param)
    return rng.integers(0, 2, 50), rng.integers(0, 2, 50)


def test_accuracy_is_scikit_learns(answers):
    predictions, labels = answers
    assert accuracy(predictions, labels) == pytest.approx(accuracy_score(labels, predictions))
    assert score("accuracy", predictions, labels) == pytest.approx(100 * np.mean(predictions == labels))


def test_matthews_correlation_is_scikit_learns(answers):
    predictions, labels = answers
    assert matthews_correlation(predictions, labels) == pytest.approx(matthews_corrcoef(labels, predictions))


def test_matthews_correlation_by_hand():
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 1])
    predictions = np.array([1, 1, 0, 1, 0, 1, 0, 1])
    true_positive, true_negative, false_positive, false_negative = 4, 2, 1, 1
    expected = (true_positive * true_negative - false_positive * false_negative) / (5 * 5 * 3 * 3) ** 0.5
    assert score("matthews_correlation", predictions, labels) == pytest.approx(100 * expected)
    assert score("accuracy", predictions, labels) == 75.0


@pytest.mark.parametrize("metric", METRICS)
def test_all_right_is_100(metric):
    labels = np.array([0, 1, 1, 0, 1])
    assert score(metric, labels, labels) == pytest.approx(100.0)


def test_all_wrong():
    labels = np.array([0, 1, 1, 0, 1])
    assert score("accuracy", 1 - labels, labels) == 0.0
    assert score("matthews_correlation", 1 - labels, labels) == pytest.approx(-100.0)


@pytest.mark.parametrize("constant", [0, 1])
def test_constant_predictions_give_matthews_0_with_a_warning(constant, caplog):
    labels = np.array([0, 1, 1, 0, 1])
    with caplog.at_level(logging.WARNING):
        value = score("matthews_correlation", np.full(5, constant), labels)
    assert value == 0.0
    assert "all predictions are of one class" in caplog.text


def test_constant_labels_give_matthews_0():
    assert score("matthews_correlation", np.array([0, 1, 1]), np.array([1, 1, 1])) == 0.0


def test_varied_predictions_give_no_warning(answers, caplog):
    with caplog.at_level(logging.WARNING):
        score("matthews_correlation", *answers)
    assert not caplog.records


@pytest.mark.parametrize("metric", METRICS)
def test_plain_lists_are_as_good_as_arrays(metric, answers):
    predictions, labels = answers
    assert score(metric, predictions.tolist(), labels.tolist()) == score(metric, predictions, labels)


@pytest.mark.parametrize("metric", METRICS)
def test_the_result_is_a_plain_float(metric, answers):
    assert type(score(metric, *answers)) is float
