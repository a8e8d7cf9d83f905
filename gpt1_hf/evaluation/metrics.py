"""The paper's metrics over scikit-learn, in percent, with constant predictions guarded."""

import logging
from collections.abc import Callable

import numpy as np
from sklearn.metrics import accuracy_score, matthews_corrcoef


logger = logging.getLogger(__name__)


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows whose class is right."""
    return float(accuracy_score(labels, predictions))


def matthews_correlation(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Matthews correlation; 0, with a warning, if all predictions are of one class."""
    if len(np.unique(predictions)) < 2:
        logger.warning("all predictions are of one class: their Matthews correlation is 0 by definition")
        return 0.0
    return float(matthews_corrcoef(labels, predictions))


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy,
    "matthews_correlation": matthews_correlation,
}


def score(metric: str, predictions: np.ndarray, labels: np.ndarray) -> float:
    """
    Compute a metric in percent.

    Args:
        metric (`str`):
            A key of `METRICS`.
        predictions (`np.ndarray` of shape `(n,)`):
            Predicted classes.
        labels (`np.ndarray` of shape `(n,)`):
            True classes.

    Returns:
        `float`: 100 is perfect, as the paper prints it.
    """
    return 100 * METRICS[metric](predictions, labels)
