"""Metrics from scikit-learn and scipy, with defined values for constant predictions and NaN."""

import logging
from collections.abc import Callable

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef


logger = logging.getLogger(__name__)


def _one_class(predictions: np.ndarray) -> bool:
    return len(np.unique(predictions)) < 2


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows, or words, with the correct class."""
    return float(accuracy_score(labels, predictions))


def f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """F1 of class 1; 0 if it is never predicted and never a label. Warns if all predictions are one class."""
    if _one_class(predictions):
        logger.warning("all predictions are one class: F1 is that of a constant answer")
    return float(f1_score(labels, predictions, zero_division=0))


def f1_micro(predictions: np.ndarray, labels: np.ndarray) -> float:
    """
    F1 over all pairs of a row and a label, of rows with several labels: arrays of 0 and 1 of shape `(n, classes)`. 0
    if no label is predicted or none is right.
    """
    return float(f1_score(labels, predictions, average="micro", zero_division=0))


def matthews_correlation(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Matthews correlation; 0, with a warning, if all predictions are one class."""
    if _one_class(predictions):
        logger.warning("all predictions are one class: Matthews correlation is set to 0")
        return 0.0
    return float(matthews_corrcoef(labels, predictions))


def _correlation(name: str, function: Callable, predictions: np.ndarray, labels: np.ndarray) -> float:
    for what, values in (("predictions", predictions), ("labels", labels)):
        if np.ptp(values) == 0:
            logger.warning(f"all {what} are {values[0]:g}: {name} correlation is undefined and set to 0")
            return 0.0
    return float(function(predictions, labels).statistic)


def pearson(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Pearson correlation of scores; 0, with a warning, if all predictions or all labels are equal."""
    return _correlation("Pearson", pearsonr, predictions, labels)


def spearman(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Spearman's rank correlation of scores; 0, with a warning, if all predictions or all labels are equal."""
    return _correlation("Spearman", spearmanr, predictions, labels)


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "f1_micro": f1_micro,
    "matthews_correlation": matthews_correlation,
    "pearson": pearson,
    "spearman": spearman,
}


def compute(metric: str, predictions: np.ndarray, labels: np.ndarray) -> float:
    """
    Compute a metric.

    Args:
        metric (`str`):
            A key of `METRICS`.
        predictions (`np.ndarray` of shape `(n,)`, or `(n, classes)` for `f1_micro`):
            Predicted classes or scores. If one is NaN or infinite, the metric is 0, with a warning.
        labels (`np.ndarray` of the same shape):
            True classes or scores.

    Returns:
        `float`: at most 1.

    Raises:
        ValueError: if there are no rows, or if predictions and labels differ in number.
    """
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    n_dims = 2 if metric == "f1_micro" else 1
    if predictions.shape != labels.shape or predictions.ndim != n_dims or not len(labels):
        raise ValueError(f"{metric} needs as many predictions as labels, not {len(predictions)} and {len(labels)}")
    n_bad = int((~np.isfinite(predictions)).sum())
    if n_bad:
        logger.warning(f"{n_bad} of {len(predictions)} predictions are NaN or infinite: {metric} is set to 0")
        return 0.0
    return METRICS[metric](predictions, labels)


def score(metric: str, predictions: np.ndarray, labels: np.ndarray) -> float:
    """[`compute`] in percent: 100 is perfect, as the paper prints it."""
    return 100 * compute(metric, predictions, labels)


def constant_answer(metric: str, labels: np.ndarray) -> float:
    """
    The highest score that one answer for every row can reach, in percent.

    Args:
        metric (`str`):
            A key of `METRICS`.
        labels (`np.ndarray` of shape `(n,)`, or `(n, classes)` for `f1_micro`):
            True classes or scores.

    Returns:
        `float`: the share of the most frequent class for accuracy; for F1, the value if every row is class 1; for
        micro F1, that of the best set of labels; 0 for correlations.
    """
    labels = np.asarray(labels)
    if metric == "accuracy":
        return 100 * float(np.unique(labels, return_counts=True)[1].max() / len(labels))
    if metric == "f1":
        return 100 * float(f1_score(labels, np.ones_like(labels), zero_division=0))
    if metric == "f1_micro":  # the best set of k labels has the k most frequent ones
        found = np.sort(labels.sum(0))[::-1].cumsum()
        answered = len(labels) * np.arange(1, labels.shape[1] + 1)
        return 100 * float((2 * found / (answered + labels.sum())).max())
    return 0.0
