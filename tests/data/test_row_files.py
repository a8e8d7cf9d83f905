"""A user's file of rows: what is read, and one-sentence errors that name the line."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Value

from gpt1_hf.data.row_files import line_of_row, open_file
from gpt1_hf.errors import GPT1Error


ROWS = [
    {"text": 'He said "no", twice.', "label": "1"},
    {"text": "NA", "label": "2"},
    {"text": "two\nlines", "label": "1"},
]


def write(path, kind: str, rows=ROWS):
    path = path.with_suffix(f".{kind}")
    data = Dataset.from_list(rows)
    if kind == "parquet":
        data.to_parquet(path)
    elif kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        data.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_each_kind_of_file_holds_the_same_rows(tmp_path, kind):
    assert open_file(write(tmp_path / "x", kind)).to_list() == ROWS


def test_cells_are_unchanged_strings(tmp_path):
    (tmp_path / "x.csv").write_text("a,b,c\n01,1.0,NaN\nTrue,null,\n")
    rows = open_file(tmp_path / "x.csv")
    assert rows.to_list() == [{"a": "01", "b": "1.0", "c": "NaN"}, {"a": "True", "b": "null", "c": ""}]
    assert [*rows.features.values()] == [Value("string")] * 3


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl"])
def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path, kind):
    path = write(tmp_path / "x", kind)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert open_file(path).to_list() == ROWS


def test_a_tsv_without_quoting_keeps_its_quotation_marks(tmp_path):
    (tmp_path / "x.tsv").write_text('text\tlabel\n"No," he said.\ta\nIt is 5" long.\tb\n"\tc\n')
    assert open_file(tmp_path / "x.tsv")["text"][:] == ['"No," he said.', 'It is 5" long.', '"']


@pytest.mark.parametrize("kind", ["tsv", "csv"])
def test_a_quoted_tsv_may_have_cells_of_several_lines_with_quotation_marks_in_them(tmp_path, kind):
    rows = [["label", "text"], ["a", 'He said "no",\nand left.'], ["b", '"Why?"\n\n"So."'], ["c", "It rains."]]
    with (tmp_path / f"x.{kind}").open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows(rows)
    found = open_file(tmp_path / f"x.{kind}")
    assert [[row["label"], row["text"]] for row in found] == rows[1:]
    assert line_of_row(tmp_path / f"x.{kind}", 2) == 7


@pytest.mark.parametrize("mark", [";", "\t", "|"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_csv_file_may_separate_cells_by_another_mark(tmp_path, mark, quote):
    header = mark.join(f"{quote}{name}{quote}" for name in ("text", "label"))
    (tmp_path / "x.csv").write_text(f"{header}\nYes, it is.{mark}1\n{quote}No.{quote}{mark}2\n")
    assert open_file(tmp_path / "x.csv").to_list() == [
        {"text": "Yes, it is.", "label": "1"},
        {"text": "No.", "label": "2"},
    ]


def test_the_line_of_a_row_counts_blank_lines_and_cells_of_several_lines(tmp_path):
    (tmp_path / "x.csv").write_text('text,label\n"two\nlines",1\n\nb,2\n')
    assert [line_of_row(tmp_path / "x.csv", index) for index in range(3)] == [2, 5, None]
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n\n{"text": "b"}\n')
    assert [line_of_row(tmp_path / "x.jsonl", index) for index in range(3)] == [1, 3, None]
    assert line_of_row(write(tmp_path / "y", "json"), 0) is None
    assert line_of_row(write(tmp_path / "y", "parquet"), 0) is None


def test_blank_lines_and_windows_line_ends_are_accepted(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"text,label\r\na,1\r\n\r\nb,2\r\n")
    assert open_file(tmp_path / "x.csv").to_list() == [{"text": "a", "label": "1"}, {"text": "b", "label": "2"}]


def test_an_index_without_a_name_is_a_column(tmp_path):
    (tmp_path / "x.csv").write_text(",text\n0,a\n1,b\n")
    assert open_file(tmp_path / "x.csv").column_names == ["Unnamed: 0", "text"]


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_dates_in_json_are_strings_as_they_stand(tmp_path, kind):
    rows = [{"day": "2020-01-01", "list": ["2020-01-02T03:04:05"], "text": "a"}, {"day": "2021-01-01", "list": []}]
    lines = json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows))
    (tmp_path / f"x.{kind}").write_text(lines)
    assert open_file(tmp_path / f"x.{kind}").to_list() == [rows[0], {**rows[1], "text": None}]


def test_strings_as_polars_writes_them_are_text(tmp_path):
    views = pa.table({"text": pa.array(["a", None, "b"], pa.string_view()), "label": [1, 2, 3]})
    pq.write_table(views, tmp_path / "x.parquet")
    rows = open_file(tmp_path / "x.parquet")
    assert rows["text"][:] == ["a", None, "b"] and rows.column_names == ["text", "label"]
    assert rows.features["text"] == Value("large_string")


def test_a_file_that_changes_is_read_again(tmp_path):
    assert len(open_file(write(tmp_path / "x", "csv"))) == 3
    assert len(open_file(write(tmp_path / "x", "csv", ROWS[:1]))) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "", "is empty"),
        ("x.txt", "a", "unknown format: give a file that ends in .csv, .tsv"),
        ("x.csv", "text;label\na;1\nb;c;2\n", "line 3 has 3 cells, .*quote cells that hold semicolons"),
        ("x.tsv", "text,label\na,1\n", "separated by commas, not tabs"),
        ("x.csv", "text,text\na,1\n", "the header has the column 'text' 2 times"),
        ("x.csv", "text,label\na,1\nb,c,2\n", r"line 3 has 3 cells, but the header has 2 \(text, label\)"),
        ("x.csv", "text,label\na,1\nb\n", "line 3 has 1 cell, but the header has 2 .*cut off there"),
        ("x.csv", 'text,label\n"a,1\n', "line 2 is damaged"),
        ("x.csv", "text,label\na,1\ncaf\xe9,2\n".encode("latin-1"), "line 3 is not UTF-8"),
        ("x.jsonl", '{"text": "a"}\n{"text": "caf\xe9"}\n'.encode("latin-1"), "line 2 is not UTF-8"),
        ("x.csv", "text,label\na,1\n".encode("utf-16"), "is UTF-16: save it as UTF-8"),
        ("x.csv", b"text,label\na,1\nb\xc3", "line 3 is not UTF-8, or was cut off"),
        ("x.csv", "text,label\na,1\n".encode("utf-16-le"), "line 1 holds a null character"),
        ("x.jsonl", '{"text": "a"}\n{"text": "b"', "line 2 is not valid JSON"),
        ("x.jsonl", '{"text": "a"}\n\n{"text": "a", "text": "b"}', "line 3 .*has the key 'text' twice"),
        ("x.jsonl", '{"text": "a"}\n{"text": "\\ud800"}', "line 2 is not valid JSON .*surrogate"),
        ("x.jsonl", "5\n6\n", "line 1 is not an object, such as"),
        ("x.jsonl", "\n\n", "has no rows"),
        ("x.json", "5", "cannot read .*x.json"),
        ("x.parquet", "text", "cannot read .*x.parquet"),
    ],
)
def test_an_unreadable_file_gives_one_sentence(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(GPT1Error, match=message) as error:
        open_file(path)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_a_bad_parquet_file_is_one_sentence(tmp_path):
    two = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    for table, message in (
        (two, "has the column 'text' 2 times"),
        (pa.table({"text": [], "label": []}), "has no rows"),
    ):
        pq.write_table(table, tmp_path / "x.parquet")
        with pytest.raises(GPT1Error, match=f"x.parquet.* {message}"):
            open_file(tmp_path / "x.parquet")


def test_nothing_is_logged_beside_the_error(tmp_path, capfd):
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n{"text": "b"')
    with pytest.raises(GPT1Error):
        open_file(tmp_path / "x.jsonl")
    assert "Failed" not in capfd.readouterr().err


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(GPT1Error, match="there is no file .*x.csv"):
        open_file(tmp_path / "x.csv")
    (tmp_path / "y.csv").mkdir()
    with pytest.raises(GPT1Error, match="there is no file .*y.csv"):
        open_file(tmp_path / "y.csv")
