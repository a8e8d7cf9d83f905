"""Opening data sets: local copies first, in every supported layout, and one sentence when there is nothing to open."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, IterableDataset
from helpers.data import write_jsonl

from gpt1_hf.data.loading import local_copy, open_dataset
from gpt1_hf.errors import GPT1Error
from gpt1_hf.settings import default_data_dir


ROWS = [{"text": "the lady", "label": 1}, {"text": "the captain, she said", "label": 0}]


def write(path, rows=ROWS):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        path.write_text("text,label\n" + "".join(f'"{row["text"]}",{row["label"]}\n' for row in rows))
    else:
        write_jsonl(path, rows)
    return path


class TestLocalCopy:
    def test_it_is_the_folder_or_file_of_that_name(self, tmp_path):
        write(tmp_path / "someone" / "set" / "train.jsonl")
        assert local_copy("someone/set", str(tmp_path)) == tmp_path / "someone" / "set"
        assert local_copy("someone/set/train.jsonl", str(tmp_path)).is_file()

    def test_without_folder_or_copy_there_is_none(self, tmp_path):
        assert local_copy("someone/set", str(tmp_path)) is None
        assert local_copy("someone/set", None) is None
        assert local_copy("someone/set", "") is None
        assert local_copy("someone/", str(tmp_path)) is None

    def test_it_wins_over_the_current_folder(self, tmp_path, monkeypatch):
        write(tmp_path / "data" / "set" / "train.jsonl", [{"text": "of the data folder"}])
        write(tmp_path / "here" / "set" / "train.jsonl", [{"text": "of the current folder"}])
        monkeypatch.chdir(tmp_path / "here")
        assert open_dataset("set", "train", data_dir=str(tmp_path / "data"))["text"][:] == ["of the data folder"]
        assert open_dataset("set", "train")["text"][:] == ["of the current folder"]
        assert open_dataset("set", "train", data_dir=str(tmp_path))["text"][:] == ["of the current folder"]

    @pytest.mark.parametrize(("value", "expected"), [(None, None), ("", None), ("somewhere", "somewhere")])
    def test_the_default_folder_comes_from_the_environment(self, monkeypatch, value, expected):
        monkeypatch.delenv("GPT1_DATA_DIR", raising=False)
        if value is not None:
            monkeypatch.setenv("GPT1_DATA_DIR", value)
        assert default_data_dir() == expected


class TestLayouts:
    @pytest.mark.parametrize(
        "name", ["train-00000-of-00001.parquet", "train.parquet", "train.jsonl", "train.json", "train.csv"]
    )
    def test_a_split_is_found_in_every_format(self, tmp_path, name):
        write(tmp_path / name)
        rows = open_dataset(str(tmp_path), "train")
        assert isinstance(rows, Dataset)
        assert rows.to_list() == ROWS

    @pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl", "rows.csv"])
    def test_a_file_is_a_split_by_itself(self, tmp_path, name):
        assert open_dataset(str(write(tmp_path / name)), "whatever").to_list() == ROWS

    def test_a_configuration_is_a_sub_folder(self, tmp_path):
        write(tmp_path / "someone" / "set" / "first" / "train.jsonl", ROWS[:1])
        write(tmp_path / "someone" / "set" / "second" / "train.jsonl", ROWS[1:])
        assert open_dataset("someone/set", "train", config="first", data_dir=str(tmp_path)).to_list() == ROWS[:1]
        assert open_dataset("someone/set", "train", config="second", data_dir=str(tmp_path)).to_list() == ROWS[1:]

    def test_shards_are_read_in_order(self, tmp_path):
        write(tmp_path / "train-00001-of-00002.parquet", ROWS[1:])
        write(tmp_path / "train-00000-of-00002.parquet", ROWS[:1])
        assert open_dataset(str(tmp_path), "train").to_list() == ROWS

    def test_a_split_is_not_confused_with_one_of_similar_name(self, tmp_path):
        write(tmp_path / "validation_matched-00000-of-00001.parquet", ROWS[:1])
        write(tmp_path / "validation-00000-of-00001.parquet", ROWS[1:])
        assert open_dataset(str(tmp_path), "validation").to_list() == ROWS[1:]

    def test_streaming_reads_the_same_rows(self, tmp_path):
        rows = open_dataset(str(write(tmp_path / "train.parquet")), "train", streaming=True)
        assert isinstance(rows, IterableDataset)
        assert list(rows) == ROWS

    def test_a_changed_file_is_read_again(self, tmp_path):
        write(tmp_path / "train.jsonl", ROWS)
        assert len(open_dataset(str(tmp_path), "train")) == 2
        write(tmp_path / "train.jsonl", ROWS[:1])
        assert len(open_dataset(str(tmp_path), "train")) == 1


class TestErrors:
    @pytest.mark.parametrize("streaming", [False, True])
    def test_an_unreachable_hub_id_is_one_sentence(self, tmp_path, streaming):
        with pytest.raises(GPT1Error) as error:
            open_dataset("someone/no-such-set", "train", data_dir=str(tmp_path), streaming=streaming)
        message = str(error.value)
        assert "'someone/no-such-set'" in message and "GPT1_DATA_DIR" in message and str(tmp_path) in message
        assert "\n" not in message and not message.endswith(".")

    def test_a_missing_split_is_named(self, tmp_path):
        write(tmp_path / "train.jsonl")
        with pytest.raises(GPT1Error, match="no file of the split 'test'"):
            open_dataset(str(tmp_path), "test")

    @pytest.mark.parametrize("name", ["rows.xml", "rows.tsv", "rows"])
    def test_a_file_of_another_format_is_refused(self, tmp_path, name):
        (tmp_path / name).write_text("x")
        with pytest.raises(GPT1Error, match=f"{name} has an unknown format"):
            open_dataset(str(tmp_path / name), "train")

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("train.jsonl", b""),
            ("train.csv", b""),
            ("train.csv", b"text,label\n"),
            ("train.jsonl", b'{"text": '),
            ("train.parquet", b"not a parquet file"),
            ("train.parquet", b""),
        ],
    )
    def test_an_empty_or_damaged_file_is_an_error(self, tmp_path, name, content):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(GPT1Error, match="split 'train'.*empty or damaged") as error:
            open_dataset(str(tmp_path), "train")
        assert "\n" not in str(error.value)
