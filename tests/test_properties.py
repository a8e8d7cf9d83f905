"""Random input from hypothesis: it is read correctly, or refused with a documented error in one sentence.

By default, each test has a few fixed cases. `GPT1_TEST_CASES=1000 pytest tests/test_properties.py` generates a
thousand new ones for each test.
"""

import contextlib
import dataclasses
import io
import json
import re
import tempfile
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt1_hf import GPT1Processor
from gpt1_hf.analysis.plan.plan import Plan
from gpt1_hf.analysis.report.report import build
from gpt1_hf.analysis.report.runs import collect
from gpt1_hf.analysis.report.sections import Table
from gpt1_hf.cli import main
from gpt1_hf.errors import GPT1Error
from gpt1_hf.evaluation.results import RESULTS, Result, format_results
from gpt1_hf.hub.card import write_plain_card
from gpt1_hf.processing_gpt1 import INPUT_FORMATS, TASK_TOKENS
from gpt1_hf.tasks import all_tasks, load_task
from gpt1_hf.training.arguments import FinetuneArguments


SPECIAL = (*TASK_TOKENS.values(), "<unk>", "</w>", "\n</w>")
ODD = "\x00 \u200b \ufeff e\u0301 \U0001f600 \U000e0041 \U0010ffff \u2028 \u00e2\u20ac\u0153 \u03a3".split(" ")
PIECES = (*"a it's Mr. U.S.A. ... &amp; \x1b[31m --".split(" "), "\r\n", "\t", "\n", " ", *ODD, *SPECIAL)
texts = st.text(max_size=60) | st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
halves = st.text(st.characters(), max_size=20)  # with half surrogate pairs
names = st.text(st.characters(exclude_categories=()), min_size=1, max_size=30) | st.lists(
    st.sampled_from(
        ("|", "---", "\n", "`", "{{", "%}", "#", ": ", "- ", '"', "'", "\\", "<b>", "[x](y)", "&", "*", "é")
    )
).map("".join)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(
    scalars | st.dates() | st.sampled_from(("1e-4", "no", "steps", "cola", "lora", "all")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(scalars, inner, max_size=3),
    max_leaves=5,
)


def assert_one_sentence(message: str):
    assert message.strip() and "\n" not in message.strip() and "Traceback" not in message


@pytest.fixture(scope="module")
def processors(tokenizer):
    return {input_format: GPT1Processor(tokenizer, input_format) for input_format in INPUT_FORMATS}


@given(text=texts | halves)
def test_any_text_becomes_known_ids_and_any_ids_a_text(tokenizer, processors, text):
    for one in (tokenizer, processors["classification"].tokenizer):
        ids = one(text, add_special_tokens=False, verbose=False)["input_ids"]
        assert all(0 <= number < len(tokenizer) for number in ids)  # none of the special tokens behind them
        assert isinstance(one.decode(ids), str)
        assert one([text, text], add_special_tokens=False, verbose=False)["input_ids"] == [ids, ids]


@given(ids=st.lists(st.integers(0, 162), max_size=30))
def test_any_ids_become_a_text(processors, ids):
    tokenizer = processors["classification"].tokenizer
    assert len(tokenizer) == 163
    assert isinstance(tokenizer.decode(ids), str)
    assert isinstance(tokenizer.decode(ids, skip_special_tokens=True), str)


@given(text=texts)
def test_offsets_lie_inside_the_text_in_order(tokenizer, text):
    encoding = tokenizer(text, return_offsets_mapping=True, verbose=False)
    offsets = encoding["offset_mapping"]
    assert len(offsets) == len(encoding["input_ids"])
    assert all(0 <= start <= end <= len(text) for start, end in offsets)
    assert all(one[0] <= other[0] for one, other in zip(offsets, offsets[1:], strict=False))


@given(data=st.data(), input_format=st.sampled_from(sorted(INPUT_FORMATS)), max_length=st.integers(-2, 40) | st.none())
def test_any_row_is_framed_by_its_special_tokens_or_refused(processors, data, input_format, max_length):
    processor = processors[input_format]
    one_row = {name: texts | st.sampled_from(SPECIAL) for name in processor.columns}
    if input_format == "multiple_choice":
        one_row["choices"] = st.lists(texts, min_size=2, max_size=2)
        one_row["question"] |= st.none()
    rows = data.draw(st.lists(st.fixed_dictionaries(one_row), max_size=3), label="rows")
    try:
        encoding = processor(rows, max_length=max_length, return_truncated=True)
    except ValueError as error:
        assert_one_sentence(str(error))
        is_empty = "choices" in one_row and not all(choice.strip() for row in rows for choice in row["choices"])
        assert is_empty or max_length < 2 * len(processor.columns) + 1
        return
    tokenizer = processor.tokenizer
    start, delimiter, extract = (getattr(tokenizer, f"{name}_id") for name in TASK_TOKENS)
    assert len(encoding["input_ids"]) == len(encoding["attention_mask"]) == len(encoding["truncated"]) == len(rows)
    for row, sequences in zip(rows, encoding["input_ids"], strict=True):
        sequences = sequences if processor.has_several_sequences else [sequences]
        assert len(sequences) == {"similarity": 2, "multiple_choice": 2}.get(input_format, 1)
        n_delimiters = {"classification": 0, "multiple_choice": 1}.get(input_format, 1)
        if row.get("question") and tokenizer(row["question"], add_special_tokens=False, verbose=False)["input_ids"]:
            n_delimiters += 1
        for sequence in sequences:
            assert len(sequence) <= (max_length or tokenizer.model_max_length)
            assert (sequence[0], sequence[-1]) == (start, extract)
            assert [sequence.count(token) for token in (start, delimiter, extract)] == [1, n_delimiters, 1]


@given(
    rows=values | st.dictionaries(st.sampled_from(["text", "document", "question", "choices"]), values), data=st.data()
)
def test_invalid_rows_are_refused_in_one_sentence(processors, rows, data):
    processor = processors[data.draw(st.sampled_from(sorted(INPUT_FORMATS)), label="format")]
    try:
        processor(rows)
    except ValueError as error:
        assert_one_sentence(str(error))


KEYS = sorted(field.name for field in dataclasses.fields(FinetuneArguments) if field.init)
PLAN_KEYS = ("output_dir", "tasks", "variants", "models", "pretrain", "finetune")
# Content that PyYAML handles badly.
ODD_YAML = (
    *("!!int ''", "!!float ''", "a: !!bool x", "a: !!timestamp x", "2024-13-45", "!!python/object:os.system x"),
    *("[" * 5000, "&a [*a]", "a: &b {c: *b}", "? [a]\n: b", "a: " + "9" * 5000, "!!set {a}", "seed: !!set {a}"),
)
texts_of_recipes = (
    st.dictionaries(st.sampled_from(KEYS), values, max_size=2).map(yaml.safe_dump)
    | st.dictionaries(st.sampled_from(PLAN_KEYS), values).map(yaml.safe_dump)
    | values.map(yaml.safe_dump)
    | st.sampled_from(ODD_YAML)
)
documents = texts_of_recipes.map(str.encode) | st.binary(max_size=60)


@contextlib.contextmanager
def written(content: bytes, name: str = "recipe.yaml"):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        yield path


@given(content=documents)
def test_any_recipe_is_parsed_or_refused_in_one_sentence(content):
    errors = io.StringIO()
    with written(content) as path, mock.patch("gpt1_hf.training.finetune.finetune") as run:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            try:
                status = main(["finetune", "--task", "cola", "--output_dir", "runs/x", "--config", str(path)])
            except SystemExit as end:  # argparse's
                status, errors = end.code, io.StringIO(errors.getvalue().strip().split("\n")[-1])
    assert (status, run.called) in [(0, True), (1, False), (2, False)]
    if status:
        assert_one_sentence(errors.getvalue().strip().split("\n")[-1])
        assert "error: " in errors.getvalue()


PLAN = {
    "output_dir": "runs/x",
    "models": {"m": {"num_hidden_layers": 2}},
    "tasks": {"cola": {"seeds": 1}},
    "variants": {"full": {"model": "m"}},
}


@given(data=st.data())
def test_any_plan_is_read_or_refused_in_one_sentence(data):
    plan = json.loads(json.dumps(PLAN))
    where = plan
    for _ in range(data.draw(st.integers(0, 2), label="depth")):
        where = where[data.draw(st.sampled_from([key for key in where if isinstance(where[key], dict)] or [None]))]
        if not any(isinstance(value, dict) for value in where.values()):
            break
    keys = st.sampled_from([*where, "model", "seeds", "seed", "transfer_layers", "config", "lm_coef"]) | scalars
    where[data.draw(keys, label="key")] = data.draw(values, label="value")
    with written(yaml.safe_dump(plan).encode()) as path, contextlib.redirect_stderr(io.StringIO()):
        try:
            runs = Plan.read(str(path)).runs()
            assert all(run.hash and run.command for run in runs)
        except ValueError as error:
            assert_one_sentence(" ".join(str(error).split()))
        except SystemExit as end:  # argparse's
            assert end.code == 2


results = st.builds(
    Result,
    task=names,
    split=names,
    metric=names,
    value=st.floats(),
    n_examples=st.integers(0, 10**9),
    paper=st.none() | st.floats(0, 100),
    model=names,
    seed=st.none() | st.integers(0, 2**32),
    details=st.dictionaries(st.sampled_from(["device", "note", "checkpoint"]), names, max_size=3),
)


def assert_tables_hold(markdown: str):
    """Every row of every table has as many cells as its header."""
    for table in re.findall(r"(?:^\|.*\n?)+", markdown, flags=re.MULTILINE):
        cells = [len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in table.strip().split("\n")]
        assert len(cells) >= 2 and len(set(cells)) == 1, table


@given(rows=st.lists(results, min_size=1, max_size=3), junk=values)
def test_results_of_any_name_are_written_read_and_reported(rows, junk):
    format_results(rows)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (("run", [dataclasses.asdict(row) for row in rows]), ("junk", junk)):
            (Path(folder) / name).mkdir()
            (Path(folder) / name / RESULTS).write_text(json.dumps(content, default=str, skipkeys=True))
        collected = collect(folder)
        report = build(collected, rows[0].model)
    found = [result for run in collected for result in run.results]
    assert [(one.task, one.model, repr(one.value)) for one in found][: len(rows)] or not rows
    assert_tables_hold(report.markdown())
    assert_tables_hold(Table("title", ["a", "b"], [[one.task, one.model] for one in rows]).markdown())
    assert "<script" not in report.html().replace("<script>\n", "")


@given(model_name=names, tags=st.lists(names, max_size=2), metric=names, value=st.floats())
def test_a_card_of_any_name_has_metadata_that_reads_back_and_whole_tables(base_model, model_name, tags, metric, value):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_bytes((Path(base_model) / "config.json").read_bytes())
        write_plain_card(folder, model_name=model_name, tags=tags, metrics={f"eval_{metric}": value})
        card = (Path(folder) / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n")
    metadata = yaml.safe_load(card.split("\n---\n")[0])
    assert metadata["library_name"] == "transformers" and "gpt1" in metadata["tags"]
    assert all(isinstance(tag, str) for tag in metadata["tags"])
    assert_tables_hold(card.split("\n---\n", 1)[1])


def own_columns(task) -> dict[str, list]:
    """Columns of three valid rows, with the names of the task's files."""
    label = {task.label_column: list(task.label_ids or range(len(task.label_names) or 3))[:1] * 3}
    texts = {}
    for name, own in task.columns.items():
        for one in (own,) if isinstance(own, str) else own:
            is_list = name == "choices" and isinstance(own, str)
            texts[one] = [[f"{one} {n}" for n in range(len(task.label_names))] if is_list else f"{one} of it"] * 3
    return {**texts, **label}


def column(size: int) -> st.SearchStrategy[list]:
    """A column of one type, maybe with gaps."""
    kinds = (st.text(max_size=4), st.integers(-(2**63), 2**63 - 1), st.integers(-2, 5), st.floats(), st.booleans())
    more = (st.dates(), st.binary(max_size=4), st.lists(st.text(max_size=2), max_size=4), st.just({"a": 1}), st.none())
    each = [one | st.none() for one in kinds] + [*kinds, *more]
    return st.sampled_from(each).flatmap(lambda kind: st.lists(kind, min_size=size, max_size=size))


@given(data=st.data(), task=st.sampled_from(sorted(all_tasks())).map(load_task))
def test_rows_of_any_columns_are_those_of_the_task_or_refused(data, task):
    columns = own_columns(task)
    for name in data.draw(st.sets(st.sampled_from([*columns, "idx", "subset", "text", "label", "é"]), max_size=2)):
        columns[name] = data.draw(column(3), label=name)
    if data.draw(st.booleans(), label="without one"):
        del columns[data.draw(st.sampled_from(sorted(columns)))]
    order = data.draw(st.permutations(sorted(columns)), label="order")
    try:
        table = pa.table({name: columns[name] for name in order})
        rows = task.canonical(Dataset(table), "here")
    except GPT1Error as error:
        assert_one_sentence(str(error))
        return
    assert set(rows.column_names) - {"subset"} == {*INPUT_FORMATS[task.input_format], "label", "idx"}
    for row in rows:
        given_texts = [row[name] for name in INPUT_FORMATS[task.input_format] if name != "choices"]
        assert all(isinstance(text, str) for text in given_texts + row.get("choices", []))
        low, high = task.score_range or (0, len(task.label_names) - 1)
        assert row["label"] == -1 or low <= row["label"] <= high
        assert isinstance(row["idx"], int | str | None)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Valid files of CoLA in each format, with a separate cache."""
    rows = {"sentence": ["It is so.", 'It \u00e9 not,\n"so".'] * 4, "label": [1, 0] * 4, "idx": list(range(8))}
    folder = tmp_path_factory.mktemp("files")
    pq.write_table(pa.table(rows), folder / "x.parquet")
    Dataset.from_dict(rows).to_csv(folder / "x.csv", index=False)
    Dataset.from_dict(rows).to_json(folder / "x.jsonl")
    with mock.patch("datasets.config.HF_DATASETS_CACHE", folder / "cache"):
        yield {kind: (folder / f"x.{kind}").read_bytes() for kind in ("parquet", "csv", "jsonl")}


@settings(max_examples=settings.default.max_examples // 2)
@given(kind=st.sampled_from(["parquet", "csv", "jsonl"]), data=st.data())
def test_files_that_are_broken_anywhere_are_read_or_refused(files, kind, data):
    content = bytearray(files[kind])
    place = data.draw(st.integers(0, len(content) - 1), label="place")
    how = data.draw(st.sampled_from(["cut", "flip", "insert", "drop"]), label="how")
    if how == "cut":
        del content[place:]
    elif how == "flip":
        content[place] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    elif how == "insert":
        content[place:place] = data.draw(st.binary(min_size=1, max_size=4), label="bytes")
    else:
        del content[place : place + data.draw(st.integers(1, 20), label="length")]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "nyu-mll" / "glue" / "cola" / f"train.{kind}"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        try:
            rows = load_task("cola").load("train", folder)
        except GPT1Error as error:
            assert_one_sentence(str(error))
        else:
            assert {*rows["label"]} <= {-1, 0, 1} and all(isinstance(text, str) for text in rows["text"])
