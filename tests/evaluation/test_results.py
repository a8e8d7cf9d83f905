"""`results.json` and its schema. `conftest.py` also validates every `results.json` that other tests write."""

import copy
import json
from pathlib import Path

import pytest

from gpt1_hf.analysis.report.runs import read_rows
from gpt1_hf.evaluation import results
from gpt1_hf.evaluation.results import Result, write_results
from gpt1_hf.resources import ASSETS


jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema")
SCHEMA = json.loads(Path(results.__file__).with_name("results_schema.json").read_text(encoding="utf-8"))
DETAILS = {"rows_of_split": 20, "tokenizer": "0123456789abcdef", "sample": False, "not_run": ["test"]}
RESULT = Result("cola", "validation", "matthews_correlation", 40.0, 10, 45.4, "m", 42, DETAILS)


def test_the_schema_is_valid():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_embedded_models_results_match_the_schema():
    rows = json.loads((ASSETS / "gpt1-tiny" / "results.json").read_text(encoding="utf-8"))
    jsonschema.validate(rows, SCHEMA)


def test_write_results_is_validated_in_all_tests(tmp_path):
    write_results(tmp_path, [RESULT])
    with pytest.raises(jsonschema.ValidationError):
        write_results(tmp_path, [Result("cola", "validation", "f1", None, 10, None, "m", 42, {})])
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_results(tmp_path, [Result("cola", "validation", "f1", float("nan"), 10, None, "m", 42, {})])


WRONG = {
    "task": [None, "", 7],
    "split": [None, ""],
    "metric": [None, ["f1"]],
    "value": [None, "40", True],
    "n_examples": [0, -1, 1.5, "10", None],
    "paper": ["45.4"],
    "model": [None],
    "seed": ["42", 1.5],
    "details": [
        None,
        [],
        {"rows_of_split": 0},
        {"tokenizer": "x"},
        {"not_run": "test"},
        {"overlap": {"n_without": -1}},
    ],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_wrong_values_violate_the_schema(name, value):
    row = {**copy.deepcopy(vars(RESULT)), name: value}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate([row], SCHEMA)


@pytest.mark.parametrize("name", [name for name in vars(RESULT) if name != "prior"])
def test_missing_and_unknown_fields_violate_the_schema(name):
    row = copy.deepcopy(vars(RESULT))
    jsonschema.validate([row], SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate([{**row, f"{name}s": 1}], SCHEMA)
    del row[name]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate([row], SCHEMA)


@pytest.mark.parametrize(
    "row", [7, [], {"task": "cola", "metric": "f1"}, {**vars(RESULT), "value": "40"}, {**vars(RESULT), "details": [1]}]
)
def test_a_report_skips_a_file_with_invalid_results(row, tmp_path, caplog):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([vars(RESULT), row]), encoding="utf-8")
    assert read_rows(path) == [] and "is not a list of results" in caplog.text
    path.write_text(json.dumps([vars(RESULT)]), encoding="utf-8")
    assert read_rows(path) == [vars(RESULT)]
