"""The tasks: real data and packaged samples in canonical columns, and what is wrong with files that do not fit."""

from collections import Counter

import pytest
from conftest import write_jsonl
from datasets import ClassLabel, Dataset, Features, Value

from gpt1_hf.errors import GPT1Error
from gpt1_hf.evaluation.metrics import METRICS
from gpt1_hf.processing_gpt1 import INPUT_FORMATS
from gpt1_hf.tasks import Task, all_tasks, load_task


# Task -> rows of training and validation (the published sizes), and the share of class 1 in validation.
SIZES = {"cola": (8551, 1043), "sst2": (67349, 872)}
GOOD = [{"sentence": "The lady wept.", "label": 1, "idx": 7}, {"sentence": "Wept lady.", "label": 0, "idx": 9}]


@pytest.fixture(params=sorted(all_tasks()))
def task(request) -> Task:
    return load_task(request.param)


def write_cola(folder, rows, split: str = "train") -> str:
    """Lay rows out as a local copy of CoLA, and return the data folder."""
    write_jsonl(folder / "nyu-mll" / "glue" / "cola" / f"{split}-00000-of-00001.jsonl", rows)
    return str(folder)


class TestTable:
    def test_every_task_is_consistent(self, task):
        assert all_tasks()[task.id] is task
        assert set(task.columns) == set(INPUT_FORMATS[task.input_format])
        assert task.metric in METRICS
        assert len(set(task.label_names)) == len(task.label_names) >= 2
        assert 0 < task.paper < 100
        assert task.notes.endswith(".")

    def test_the_papers_numbers_are_those_of_table_4(self):
        assert (load_task("cola").paper, load_task("cola").metric) == (45.4, "matthews_correlation")
        assert (load_task("sst2").paper, load_task("sst2").metric) == (91.3, "accuracy")

    @pytest.mark.parametrize(("wrong", "near"), [("coal", "cola"), ("sst-2", "sst2"), ("sst", "sst2")])
    def test_an_unknown_task_names_the_nearest(self, wrong, near):
        with pytest.raises(GPT1Error, match=f"no task '{wrong}'; did you mean {near}\\?.*cola, sst2"):
            load_task(wrong)

    @pytest.mark.parametrize("wrong", ["xyzzy", "", None])
    def test_a_task_far_from_all_gets_the_list_only(self, wrong):
        with pytest.raises(GPT1Error, match="no task .*cola, sst2") as error:
            load_task(wrong)
        assert "did you mean" not in str(error.value)

    def test_a_task_must_have_the_columns_of_its_format(self):
        with pytest.raises(ValueError, match="entailment"):
            Task("x", "someone/x", "entailment", {"text": "sentence"}, ("no", "yes"), "accuracy", 50.0)


class TestRealData:
    @pytest.mark.parametrize("split", ["train", "validation"])
    def test_rows_are_all_there_in_canonical_columns(self, data_dir, task, split):
        rows = task.load(split, data_dir)
        assert len(rows) == SIZES[task.id][split == "validation"]
        assert rows.column_names == ["text", "label", "idx"]
        assert rows.features["text"] == Value("string") and rows.features["label"] == Value("int64")
        assert set(rows.unique("label")) == {0, 1}
        assert all(rows["text"])
        assert rows["idx"][:3] == [0, 1, 2]

    def test_the_labels_mean_what_the_task_says(self, data_dir):
        rows = load_task("cola").load("validation", data_dir)
        assert Counter(rows["label"]) == {1: 721, 0: 322}
        assert Counter(load_task("sst2").load("validation", data_dir)["label"]) == {1: 444, 0: 428}

    def test_hidden_labels_stay_as_they_are(self, data_dir):
        rows = load_task("cola").load("test", data_dir)
        assert len(rows) == 1063
        assert rows.unique("label") == [-1]


class TestSample:
    @pytest.mark.parametrize("split", ["train", "validation"])
    def test_the_packaged_sample_has_the_same_columns(self, task, split):
        rows = task.load(split, sample=True)
        assert rows.column_names == ["text", "label", "idx"]
        assert len(rows) >= 32
        assert set(rows.unique("label")) == {0, 1}
        assert all(text.strip() for text in rows["text"])
        assert len(set(rows["text"])) == len(rows)

    def test_its_splits_share_no_row(self, task):
        assert not set(task.load("train", sample=True)["text"]) & set(task.load("validation", sample=True)["text"])

    def test_it_does_not_need_the_data_folder(self, task, tmp_path):
        assert task.load("train", str(tmp_path), sample=True).num_rows == task.load("train", sample=True).num_rows

    def test_it_has_no_test_split(self, task):
        with pytest.raises(GPT1Error, match="split 'test'"):
            task.load("test", sample=True)


class TestFiles:
    def test_rows_are_read_from_a_folder_laid_out_as_the_hubs(self, tmp_path):
        rows = load_task("cola").load("train", write_cola(tmp_path, GOOD))
        assert rows.to_list() == [
            {"text": "The lady wept.", "label": 1, "idx": 7},
            {"text": "Wept lady.", "label": 0, "idx": 9},
        ]

    def test_rows_without_idx_are_numbered(self, tmp_path):
        rows = [{name: row[name] for name in ("label", "sentence")} for row in GOOD]
        assert load_task("cola").load("train", write_cola(tmp_path, rows))["idx"][:] == [0, 1]

    def test_other_columns_are_left_out(self, tmp_path):
        rows = [{**row, "source": "gj04", "text": "not this one"} for row in GOOD]
        loaded = load_task("cola").load("train", write_cola(tmp_path, rows))
        assert loaded.column_names == ["text", "label", "idx"]
        assert loaded["text"][0] == "The lady wept."

    def test_hidden_labels_are_allowed(self, tmp_path):
        rows = [{**row, "label": -1} for row in GOOD]
        assert load_task("cola").load("test", write_cola(tmp_path, rows, "test"))["label"][:] == [-1, -1]

    @pytest.mark.parametrize("label", [2, -2, "acceptable", None, 0.5])
    def test_a_label_outside_the_set_is_named(self, tmp_path, label):
        data_dir = write_cola(tmp_path, [{"sentence": "The lady wept.", "label": label}])
        with pytest.raises(GPT1Error, match=rf"cola \(train\): label {label!r} is outside .*unacceptable, acceptable"):
            load_task("cola").load("train", data_dir)

    @pytest.mark.parametrize("column", ["sentence", "label"])
    def test_a_missing_column_is_named(self, tmp_path, column):
        rows = [{("other" if name == column else name): value for name, value in row.items()} for row in GOOD]
        with pytest.raises(GPT1Error, match=rf"cola \(train\): column '{column}' is missing; the file has .*other"):
            load_task("cola").load("train", write_cola(tmp_path, rows))

    def test_an_empty_file_is_an_error(self, tmp_path):
        with pytest.raises(GPT1Error, match="'train'.*nyu-mll/glue.*empty"):
            load_task("cola").load("train", write_cola(tmp_path, []))

    def test_a_split_without_rows_is_an_error(self):
        nothing = Dataset.from_dict({"sentence": [], "label": []})
        with pytest.raises(GPT1Error, match="cola.*no rows"):
            load_task("cola").canonical(nothing, where="cola (train)")

    def test_an_unknown_split_names_the_known_ones(self, task):
        with pytest.raises(GPT1Error, match=f"task {task.id} has no split 'dev'; .*train, validation, test"):
            task.load("dev")

    def test_a_split_that_the_copy_lacks_is_named(self, tmp_path):
        with pytest.raises(GPT1Error, match="no file of the split 'validation'"):
            load_task("cola").load("validation", write_cola(tmp_path, GOOD))

    def test_a_data_set_that_is_nowhere_is_named(self, task, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        absent = Task("x", "someone/absent", "classification", {"text": "s"}, ("no", "yes"), "accuracy", 50.0)
        with pytest.raises(GPT1Error, match="'someone/absent'"):
            absent.load("train", str(tmp_path))

    def test_class_names_in_another_order_are_an_error(self):
        names = Features({"sentence": Value("string"), "label": ClassLabel(names=["acceptable", "unacceptable"])})
        rows = Dataset.from_dict({"sentence": ["The lady wept."], "label": [0]}, features=names)
        with pytest.raises(GPT1Error, match="labels are named"):
            load_task("cola").canonical(rows, where="cola (train)")

    def test_the_classes_of_a_data_set_become_plain_ids(self):
        names = Features({"sentence": Value("string"), "label": ClassLabel(names=["unacceptable", "acceptable"])})
        rows = Dataset.from_dict({"sentence": ["The lady wept."], "label": [1]}, features=names)
        assert load_task("cola").canonical(rows, where="cola (train)").features["label"] == Value("int64")
