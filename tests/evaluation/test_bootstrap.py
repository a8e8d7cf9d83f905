"""Bootstrap intervals against scipy's bootstrap and scikit-learn's metrics."""

import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from gpt1_hf.evaluation.bootstrap import METRICS, chance, confusion_matrices, paired_difference, score_interval


REFERENCE = {"accuracy": accuracy_score, "f1": f1_score, "matthews_correlation": matthews_corrcoef}


def answers(n_classes: int, n: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, and the predictions of a weak model and of a better one that agrees with it on many rows."""
    random = np.random.default_rng(n_classes)
    labels = random.integers(0, n_classes, n)
    weak = np.where(random.random(n) < 0.1, labels, random.integers(0, n_classes, n))
    better = np.where(random.random(n) < 0.3, labels, weak)
    return labels, weak, better


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("metric", METRICS)
def test_metrics_of_weighted_rows_are_scikit_learns_of_repeated_rows(metric, n_classes):
    labels, weak, _ = answers(n_classes, 60)
    if metric == "f1" and n_classes > 2:
        labels, weak = labels % 2, weak % 2
    weights = np.random.default_rng(0).integers(0, 4, (5, 60))
    values = METRICS[metric](confusion_matrices(weak, labels, weights))
    for value, own in zip(values, weights, strict=True):
        assert value == pytest.approx(REFERENCE[metric](np.repeat(labels, own), np.repeat(weak, own)))


@pytest.mark.parametrize("metric", METRICS)
def test_a_constant_answer_has_the_metrics_of_scikit_learn(metric):
    labels = np.array([0, 1, 1, 0, 1])
    for answer in (0, 1):
        (value,) = METRICS[metric](confusion_matrices(np.full(5, answer), labels, np.ones((1, 5))))
        assert value == pytest.approx(REFERENCE[metric](labels, np.full(5, answer)))


@pytest.mark.parametrize(("metric", "n_classes"), [("accuracy", 4), ("f1", 2), ("matthews_correlation", 2)])
def test_intervals_are_scipys(metric, n_classes):
    labels, weak, better = answers(n_classes)
    settings = {"paired": True, "vectorized": False, "method": "percentile", "n_resamples": 500, "rng": 1}
    found = score_interval(metric, better, labels)
    expected = bootstrap((labels, better), REFERENCE[metric], **settings).confidence_interval
    assert found == pytest.approx([100 * end for end in expected], abs=1.5)

    value, interval = paired_difference(metric, weak, better, labels)
    score = REFERENCE[metric]

    def difference(labels, weak, better):
        return score(labels, better) - score(labels, weak)

    expected = bootstrap((labels, weak, better), difference, **settings).confidence_interval
    assert value == pytest.approx(100 * difference(labels, weak, better))
    assert interval == pytest.approx([100 * end for end in expected], abs=1.5)
    # Paired: narrower than for two samples of rows.
    low, high = zip(*(score_interval(metric, model, labels) for model in (weak, better)), strict=True)
    assert interval[1] - interval[0] < np.hypot(high[0] - low[0], high[1] - low[1])


def test_the_same_rows_give_the_same_interval():
    labels, weak, better = answers(2)
    assert score_interval("accuracy", weak, labels) == score_interval("accuracy", weak, labels)
    assert paired_difference("accuracy", weak, weak, labels) == (0.0, (0.0, 0.0))
    one = np.zeros(1)
    assert score_interval("accuracy", one, one) == (100.0, 100.0)


def test_nineteen_of_twenty_intervals_hold_the_true_score():
    """Coverage: of 400 samples of a population with accuracy 60 %, about 95 % of the intervals hold 60."""
    random = np.random.default_rng(5)
    holds = []
    for _ in range(400):
        low, high = score_interval("accuracy", (random.random(300) < 0.6).astype(int), np.ones(300))
        holds.append(low <= 60 <= high)
    assert 0.92 <= np.mean(holds) <= 0.98


def test_chance_is_a_guess_or_the_best_constant_answer():
    labels = np.array([0, 1, 1, 1])
    assert chance("accuracy", labels, 4) == 25
    assert chance("accuracy", labels) == 75
    assert chance("matthews_correlation", labels) == 0
    assert chance("f1", labels) == pytest.approx(100 * f1_score(labels, np.ones(4)))


def test_rows_that_share_a_document_are_drawn_together():
    """Against a bootstrap by hand that draws documents, and by coverage: intervals over rows are too narrow."""
    random = np.random.default_rng(3)
    documents = np.repeat(np.arange(60), random.integers(1, 9, 60))
    labels = random.integers(0, 2, len(documents))
    right = (random.random(60) < 0.6)[documents] ^ (random.random(len(documents)) < 0.1)  # alike within a document
    answers = np.where(right, labels, 1 - labels)
    low, high = score_interval("accuracy", answers, labels, documents)
    values = []
    for _ in range(2000):
        drawn = random.integers(0, 60, 60)
        values.append(100 * np.concatenate([right[documents == number] for number in drawn]).mean())
    assert (low, high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])), abs=2)
    narrow = score_interval("accuracy", answers, labels)
    assert high - low > 1.5 * (narrow[1] - narrow[0])
    # A document for each row draws the rows, to the last digit.
    assert score_interval("accuracy", answers, labels, np.arange(len(labels))) == narrow
    value, ends = paired_difference("accuracy", 1 - labels, answers, labels, documents)
    assert value == pytest.approx(100 * right.mean()) and ends == pytest.approx((low, high))
