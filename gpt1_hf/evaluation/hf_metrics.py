"""
The metrics as modules of Hugging Face's `evaluate`, included in the package instead of downloaded:

    metrics = evaluate.combine([F1(), Accuracy()])
    metrics.compute(predictions=[0, 1, 1], references=[0, 1, 0])

Like the Hub's metrics, they are not in percent: 1 is perfect. They need the extra `evaluate`.
"""

import numpy as np
from datasets import Features, Sequence, Value

from ..errors import GPT1Error
from .metrics import METRICS, compute


try:
    from evaluate import Metric, MetricInfo
except ImportError as error:
    raise GPT1Error("the metric modules need the `evaluate` library: pip install 'gpt1_hf[evaluate]'") from error


class PackagedMetric(Metric):
    """Base class: one of [`gpt1_hf.evaluation.metrics.METRICS`], by default for class ids."""

    metric: str
    dtype = "int64"

    def _info(self) -> MetricInfo:
        return MetricInfo(
            description=METRICS[self.metric].__doc__,
            citation="",
            inputs_description=f"predictions and references: lists of {self.dtype}",
            features=Features({"predictions": self.feature, "references": self.feature}),
        )

    @property
    def feature(self) -> Value | Sequence:
        """Type of a prediction and of a reference."""
        return Value(self.dtype)

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        return {self.metric: compute(self.metric, np.array(predictions), np.array(references))}


class Accuracy(PackagedMetric):
    """Share of rows with the correct class, from 0 to 1."""

    metric = "accuracy"


class F1(PackagedMetric):
    """Harmonic mean of precision and recall of class 1, from 0 to 1."""

    metric = "f1"


class F1Micro(PackagedMetric):
    """F1 over all pairs of a row and a label, from 0 to 1, for rows with several labels: a 0 or 1 for each label."""

    metric = "f1_micro"

    @property
    def feature(self) -> Sequence:
        return Sequence(Value(self.dtype))


class MatthewsCorrelation(PackagedMetric):
    """Matthews correlation of classes, from -1 to 1."""

    metric = "matthews_correlation"


class Pearson(PackagedMetric):
    """Pearson correlation of scores, from -1 to 1."""

    metric = "pearson"
    dtype = "float64"


class Spearman(PackagedMetric):
    """Spearman's rank correlation of scores, from -1 to 1."""

    metric = "spearman"
    dtype = "float64"


MODULES: dict[str, type[PackagedMetric]] = {
    module.metric: module for module in (Accuracy, F1, F1Micro, MatthewsCorrelation, Pearson, Spearman)
}

__all__ = ["MODULES", "Accuracy", "F1", "F1Micro", "MatthewsCorrelation", "Pearson", "Spearman"]
