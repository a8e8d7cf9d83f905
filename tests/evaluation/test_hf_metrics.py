"""The metrics as modules of `evaluate`: alone, combined, and fed in batches."""

import numpy as np
import pytest


evaluate = pytest.importorskip("evaluate")

from gpt1_hf.evaluation.hf_metrics import F1, MODULES, Accuracy, Pearson, Spearman  # noqa: E402
from gpt1_hf.evaluation.metrics import METRICS  # noqa: E402


@pytest.fixture(autouse=True)
def cache_in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path)


def test_every_metric_has_its_module():
    assert MODULES.keys() == METRICS.keys()
    for name, module in MODULES.items():
        assert isinstance(module(), evaluate.Metric)
        answers = {"predictions": [0, 1, 1, 0], "references": [0, 1, 0, 0]}
        if name == "f1_micro":  # a 0 or 1 for each of several labels
            answers = {side: [[value, 1 - value] for value in values] for side, values in answers.items()}
        assert module().compute(**answers) == {name: pytest.approx(METRICS[name](*map(list, answers.values())))}


def test_modules_are_combined_and_fed_in_batches():
    together = evaluate.combine([F1(), Accuracy()])
    assert together.compute(predictions=[0, 1, 1], references=[0, 1, 0]) == {
        "f1": pytest.approx(2 / 3),
        "accuracy": pytest.approx(2 / 3),
    }
    for predictions, references in (([0, 1], [0, 1]), ([1], [0])):
        together.add_batch(predictions=predictions, references=references)
    assert together.compute()["accuracy"] == pytest.approx(2 / 3)


def test_scores_are_floats():
    scores = {"predictions": [0.5, 2.5, 2.75], "references": [1.0, 2.0, 4.8]}
    both = evaluate.combine([Pearson(), Spearman()]).compute(**scores)
    assert both == {"pearson": pytest.approx(np.corrcoef(*scores.values())[0, 1]), "spearman": pytest.approx(1.0)}
    assert Pearson().compute(predictions=[1.5, 1.5], references=[0.0, 2.0]) == {"pearson": 0.0}
