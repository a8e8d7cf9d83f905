"""The metrics, compared with scikit-learn, scipy and calculations by hand."""

import itertools
import logging

import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from gpt1_hf.evaluation.metrics import (
    METRICS,
    accuracy,
    compute,
    constant_answer,
    f1,
    f1_micro,
    matthews_correlation,
    pearson,
    score,
    spearman,
)
from gpt1_hf.evaluation.task_scores import task_results
from gpt1_hf.tasks import load_task


CORRELATIONS = ("pearson", "spearman")


def shaped(metric: str, values) -> np.ndarray:
    """Values as the metric takes them: with a column for each label where a row may have several."""
    return np.array(values)[:, None] if metric == "f1_micro" else np.array(values)


@pytest.fixture(params=range(5))
def answers(request) -> tuple[np.ndarray, np.ndarray]:
    """Random predictions and labels."""
    rng = np.random.default_rng(request.param)
    return rng.integers(0, 2, 50), rng.integers(0, 2, 50)


def test_accuracy_equals_scikit_learns(answers):
    predictions, labels = answers
    assert accuracy(predictions, labels) == pytest.approx(accuracy_score(labels, predictions))
    assert score("accuracy", predictions, labels) == pytest.approx(100 * np.mean(predictions == labels))


def test_matthews_correlation_equals_scikit_learns(answers):
    predictions, labels = answers
    assert matthews_correlation(predictions, labels) == pytest.approx(matthews_corrcoef(labels, predictions))


def test_f1_equals_scikit_learns_for_class_1(answers):
    predictions, labels = answers
    assert f1(predictions, labels) == pytest.approx(f1_score(labels, predictions, pos_label=1, average="binary"))


@pytest.mark.parametrize("seed", range(5))
def test_f1_of_several_labels_equals_scikit_learns_over_all_pairs(seed):
    rng = np.random.default_rng(seed)
    predictions, labels = rng.integers(0, 2, (50, 4)), rng.integers(0, 2, (50, 4)).astype(float)
    assert f1_micro(predictions, labels) == pytest.approx(f1_score(labels.ravel(), predictions.ravel()))
    assert score("f1_micro", predictions, labels) == pytest.approx(
        100 * f1_score(labels, predictions, average="micro")
    )


def test_f1_of_several_labels_is_0_where_none_is_predicted():
    assert score("f1_micro", np.zeros((3, 2)), np.ones((3, 2))) == 0.0
    with pytest.raises(ValueError, match="f1_micro needs as many predictions as labels"):
        compute("f1_micro", np.zeros(3), np.zeros(3))


def test_class_metrics_by_hand():
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 1])
    predictions = np.array([1, 1, 0, 1, 0, 1, 0, 1])
    true_positive, true_negative, false_positive, false_negative = 4, 2, 1, 1
    expected = (true_positive * true_negative - false_positive * false_negative) / (5 * 5 * 3 * 3) ** 0.5
    assert score("matthews_correlation", predictions, labels) == pytest.approx(100 * expected)
    assert score("accuracy", predictions, labels) == 75.0
    assert score("f1", predictions, labels) == pytest.approx(100 * 2 * 4 / (2 * 4 + 1 + 1))


@pytest.mark.parametrize("seed", range(5))
def test_correlations_by_their_definition(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 26, 40) / 5  # with ties, as in STS-B
    predictions = labels + rng.normal(0, 1.5, 40)
    assert pearson(predictions, labels) == pytest.approx(np.corrcoef(predictions, labels)[0, 1])
    ranks = np.corrcoef(rankdata(predictions), rankdata(labels))[0, 1]
    assert spearman(predictions, labels) == pytest.approx(ranks)
    assert spearman(np.exp(predictions), labels) == pytest.approx(ranks)


@pytest.mark.parametrize("metric", METRICS)
def test_all_right_is_100(metric):
    labels = shaped(metric, [0, 1, 1, 0, 1])
    assert score(metric, labels, labels) == pytest.approx(100.0)


@pytest.mark.parametrize("metric", METRICS)
def test_all_wrong(metric):
    labels = shaped(metric, [0, 1, 1, 0, 1])
    worst = 0.0 if metric in ("accuracy", "f1", "f1_micro") else -100.0
    assert score(metric, 1 - labels, labels) == pytest.approx(worst)


@pytest.mark.parametrize("constant", [0, 1])
def test_constant_predictions_give_matthews_0_with_a_warning(constant, caplog):
    labels = np.array([0, 1, 1, 0, 1])
    with caplog.at_level(logging.WARNING):
        value = score("matthews_correlation", np.full(5, constant), labels)
    assert value == 0.0
    assert "all predictions are one class" in caplog.text


@pytest.mark.parametrize(("constant", "expected"), [(0, 0.0), (1, 75.0)])
def test_constant_predictions_have_an_f1_with_a_warning(constant, expected, caplog):
    assert score("f1", np.full(5, constant), np.array([0, 1, 1, 0, 1])) == pytest.approx(expected)
    assert "one class" in caplog.text


@pytest.mark.parametrize("metric", CORRELATIONS)
def test_constant_scores_give_a_correlation_of_0_with_a_warning(metric, caplog):
    varied, constant = np.array([0.5, 2.0, 4.5]), np.full(3, 2.5)
    assert score(metric, constant, varied) == 0.0
    assert "all predictions are 2.5" in caplog.text
    assert score(metric, varied, constant) == 0.0
    assert "all labels are 2.5" in caplog.text


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("metric", METRICS)
def test_nan_and_infinite_predictions_give_0_with_a_warning(metric, bad, caplog):
    assert score(metric, shaped(metric, [0.0, bad, 1.0]), shaped(metric, [0.0, 1.0, 1.0])) == 0.0
    assert "1 of 3 predictions are NaN or infinite" in caplog.text


def test_constant_labels_give_matthews_0():
    assert score("matthews_correlation", np.array([0, 1, 1]), np.array([1, 1, 1])) == 0.0


@pytest.mark.parametrize("metric", METRICS)
def test_varied_predictions_give_no_warning(metric, answers, caplog):
    with caplog.at_level(logging.WARNING):
        score(metric, *(shaped(metric, values) for values in answers))
    assert not caplog.records


@pytest.mark.parametrize("metric", METRICS)
def test_lists_give_the_same_as_arrays(metric, answers):
    predictions, labels = (shaped(metric, values) for values in answers)
    assert score(metric, predictions.tolist(), labels.tolist()) == score(metric, predictions, labels)


@pytest.mark.parametrize("metric", METRICS)
def test_the_result_is_a_plain_float(metric, answers):
    assert type(score(metric, *(shaped(metric, values) for values in answers))) is float


@pytest.mark.parametrize("metric", METRICS)
def test_unequal_lengths_and_empty_input_are_errors(metric):
    for predictions, labels in (([0, 1], [0, 1, 1]), ([], [])):
        with pytest.raises(ValueError, match=f"{metric} needs as many predictions as labels"):
            compute(metric, predictions, labels)


def test_the_constant_answer_is_the_best_one():
    """Compared with the metric itself on every constant answer."""
    generator = np.random.default_rng(0)
    for classes in (2, 3):
        labels = generator.integers(0, classes, 37)
        answers = [np.full_like(labels, one) for one in range(classes)]
        for metric in ("accuracy", "matthews_correlation", *(["f1"] if classes == 2 else [])):
            assert constant_answer(metric, labels) == pytest.approx(max(score(metric, one, labels) for one in answers))
    labels = (generator.random((23, 4)) < [0.7, 0.4, 0.5, 0.05]).astype(int)
    answers = [np.tile(one, (23, 1)) for one in itertools.product((0, 1), repeat=4)]
    best = max(score("f1_micro", one, labels) for one in answers)
    assert constant_answer("f1_micro", labels) == pytest.approx(best)
    assert constant_answer("pearson", generator.random(9)) == constant_answer("spearman", generator.random(9)) == 0
    assert constant_answer("f1", np.zeros(5, int)) == 0


def test_results_record_the_constant_answer():
    rows = [{"label": label, "prediction": 0} for label in (0, 1, 1, 1)]
    (mcc,) = task_results(load_task("cola"), "validation", rows, "m", 1, {"sample": True})
    f1, accuracy = task_results(load_task("mrpc"), "validation", rows, "m", 1, {"sample": True})
    found = [result.details["constant_answer"] for result in (mcc, f1, accuracy)]
    assert found == [0.0, 85.71, 75.0]
    choices = [{**row, "scores": [0.2, 0.3, 0.5]} for row in rows]
    (accuracy,) = task_results(load_task("story_cloze"), "validation", choices, "m", 1, {"sample": True})
    assert accuracy.details["constant_answer"] == 33.33
