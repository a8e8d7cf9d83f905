"""`recipes/results` matches the runs that are committed beside it."""

import json
from pathlib import Path

import jsonschema
import pytest

from gpt1_hf.analysis.report.report import report
from gpt1_hf.evaluation import results


RESULTS = Path(__file__).resolve().parents[3] / "recipes" / "results"


def test_the_report_matches_the_runs(tmp_path):
    pytest.importorskip("matplotlib", reason="needs matplotlib: the extra `plots`")
    report(RESULTS / "runs", tmp_path)
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == (RESULTS / "report.md").read_text(encoding="utf-8")
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {
        file.name for file in (RESULTS / "figures").iterdir()
    }


def test_results_follow_the_schema():
    schema = json.loads(Path(results.__file__).with_name("results_schema.json").read_text(encoding="utf-8"))
    files = sorted((RESULTS / "runs").rglob("results.json"))
    assert files
    for file in files:
        jsonschema.validate(json.loads(file.read_text(encoding="utf-8")), schema)
