"""Bootstrap over rows: 95 % intervals of a score, and of the difference of two models on the same rows.

Each resample draws as many rows as there are, with replacement, and is scored anew (Efron, 1979). Rows that share a
document are not independent: then it draws as many whole documents as there are (Davison and Hinkley, 1997, §3.8; a
cluster bootstrap). The interval is
between the 2.5th and the 97.5th percentile. It says how much the score depends on the choice of rows, not on the seed
of the training. What a heuristic learned from training rows, such as CoLA's threshold, stays as it is.
"""

from collections.abc import Callable

import numpy as np


RESAMPLES, SEED = 1000, 0
LEVEL = 95  # percent


def _accuracy(confusion: np.ndarray) -> np.ndarray:
    return np.trace(confusion, axis1=1, axis2=2) / confusion.sum((1, 2))


def _f1(confusion: np.ndarray) -> np.ndarray:
    hits, total = confusion[:, 1, 1], confusion[:, 1].sum(-1) + confusion[:, :, 1].sum(-1)
    return np.divide(2 * hits, total, out=np.zeros(len(total)), where=total > 0)


def _matthews_correlation(confusion: np.ndarray) -> np.ndarray:
    """For any number of classes (Gorodkin, 2004); 0 where the predictions or the labels are all of one class."""
    n, labels, predictions = confusion.sum((1, 2)), confusion.sum(2), confusion.sum(1)
    covariance = n * np.trace(confusion, axis1=1, axis2=2) - (labels * predictions).sum(-1)
    spread = (n**2 - (labels**2).sum(-1)) * (n**2 - (predictions**2).sum(-1))
    return np.divide(covariance, np.sqrt(spread), out=np.zeros(len(n)), where=spread > 0)


# Metric of classes -> its values from confusion matrices of shape (resamples, labels, predictions).
METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "matthews_correlation": _matthews_correlation,
}


def score_interval(
    metric: str, predictions: np.ndarray, labels: np.ndarray, documents: np.ndarray | None = None
) -> tuple[float, float]:
    """
    95 % interval of a score.

    Args:
        metric (`str`):
            A key of `METRICS`.
        predictions, labels (`np.ndarray` of shape `(n,)`):
            Classes, from 0.
        documents (`np.ndarray` of shape `(n,)`, *optional*):
            Number of each row's document. By default, each row has its own.

    Returns:
        `tuple[float, float]`: low and high end, in percent.
    """
    (values,) = _resampled(metric, [predictions], labels, documents)
    return _ends(values)


def paired_difference(
    metric: str, first: np.ndarray, last: np.ndarray, labels: np.ndarray, documents: np.ndarray | None = None
) -> tuple[float, tuple[float, float]]:
    """
    Difference between two models' scores, last minus first, with its 95 % interval: each resample scores both models
    on the same rows.

    Args:
        metric (`str`):
            A key of `METRICS`.
        first, last, labels (`np.ndarray` of shape `(n,)`):
            Predicted classes of the two models, and true classes.
        documents (`np.ndarray` of shape `(n,)`, *optional*):
            Number of each row's document, see [`score_interval`].

    Returns:
        `tuple`: the difference, and its interval, in percent.
    """
    before, after = _resampled(metric, [first, last], labels, documents)
    whole = [METRICS[metric](confusion_matrices(rows, labels, np.ones((1, len(labels)))))[0] for rows in (first, last)]
    return 100 * float(whole[1] - whole[0]), _ends(after - before)


def chance(metric: str, labels: np.ndarray, n_choices: int | None = None) -> float:
    """
    Score without any knowledge, in percent.

    Args:
        metric (`str`):
            A key of `METRICS`.
        labels (`np.ndarray` of shape `(n,)`):
            True classes.
        n_choices (`int`, *optional*):
            Number of choices of each row. The score is then that of a random guess among them; otherwise it is that
            of the best constant answer.
    """
    if n_choices is not None:
        return 100 / n_choices
    ones = np.ones((1, len(labels)))
    answers = (np.full(len(labels), answer) for answer in np.unique(labels))
    return 100 * max(float(METRICS[metric](confusion_matrices(answer, labels, ones))[0]) for answer in answers)


def confusion_matrices(predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """
    Confusion matrices of weighted rows.

    Args:
        predictions, labels (`np.ndarray` of shape `(rows,)`):
            Classes, from 0.
        weights (`np.ndarray` of shape `(resamples, rows)`):
            How often each resample has each row.

    Returns:
        `np.ndarray` of shape `(resamples, classes, classes)`: rows by label and prediction.
    """
    predictions, labels = np.asarray(predictions, int), np.asarray(labels, int)
    n_classes = max(2, 1 + max(predictions.max(), labels.max()))
    cells = np.zeros((len(weights), n_classes * n_classes))
    np.add.at(cells.T, labels * n_classes + predictions, weights.T)
    return cells.reshape(-1, n_classes, n_classes)


def _resampled(
    metric: str, models: list[np.ndarray], labels: np.ndarray, documents: np.ndarray | None
) -> list[np.ndarray]:
    """A metric's values for each model in the same `RESAMPLES` resamples of the rows, each of shape `(resamples,)`."""
    rows = np.stack([np.asarray(column, int) for column in (labels, *models)], axis=1)
    # Rows with the same label and predictions are alike: it is enough to draw how many there are of each kind.
    kinds, kind_of_row, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    random = np.random.default_rng(SEED)
    if documents is None or len(np.unique(documents)) == len(rows):
        drawn = random.multinomial(len(rows), counts / len(rows), size=RESAMPLES)
    else:
        _, document_of_row = np.unique(documents, return_inverse=True)
        n = 1 + document_of_row.max()
        contents = np.zeros((n, len(kinds)))  # how many rows of each kind a document has
        np.add.at(contents, (document_of_row, kind_of_row.reshape(-1)), 1)
        drawn = random.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) @ contents
    labels, *models = kinds.T
    return [METRICS[metric](confusion_matrices(model, labels, drawn)) for model in models]


def _ends(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(100 * values, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(low), float(high)
