"""Rows of the built-in tasks: real data and samples in canonical columns, and errors for files that do not fit."""

import csv
import re
from collections import Counter
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from helpers.data import STORY_COLUMNS, write_jsonl, write_stories
from sklearn.model_selection import train_test_split

from gpt1_hf.errors import GPT1Error, MissingSplitError
from gpt1_hf.processing_gpt1 import INPUT_FORMATS
from gpt1_hf.tasks import Task, all_tasks, load_task


# Label counts of the validation rows, for the data sets that the data folder has whole.
VALIDATION = {
    "cola": {1: 721, 0: 322},
    "sst2": {1: 444, 0: 428},
    "snli": {0: 3329, 1: 3235, 2: 3278},
    "qnli": {0: 2702, 1: 2761},
    "rte": {0: 146, 1: 131},
    "scitail": {0: 657, 1: 647},
    "mrpc": {1: 279, 0: 129},
}
GOOD = [{"sentence": "The lady wept.", "label": 1, "idx": 7}, {"sentence": "Wept lady.", "label": 0, "idx": 9}]
QUESTION = {
    "example_id": "high1.txt",
    "article": "It is a rainy day.",
    "question": "How is the day?",
    "options": ["Dry.", "Wet.", "Cold.", "Hot."],
    "answer": "B",
}


@pytest.fixture(params=sorted(all_tasks(zero_shot=True)))
def task(request) -> Task:
    return load_task(request.param)


def write_cola(folder, rows, split: str = "train") -> str:
    """Lay rows out as a local copy of CoLA, and return the data folder."""
    write_jsonl(folder / "nyu-mll" / "glue" / "cola" / f"{split}-00000-of-00001.jsonl", rows)
    return str(folder)


def load_rows(folder, task_id: str, rows: list[dict], split: str = "train", config: str | None = None) -> Dataset:
    """Load rows that are laid out as a local copy of a task's data."""
    task = load_task(task_id)
    write_jsonl(folder / task.dataset / (config or task.config) / f"{split}.jsonl", rows)
    return task.load(split, str(folder))


class TestRealData:
    def test_rows_are_in_canonical_columns(self, data_dir, task):
        rows = task.load("train", data_dir)
        names = INPUT_FORMATS[task.input_format] if task.input_format else tuple(task.columns)
        assert tuple(rows.column_names) == (*names, "label", "idx", *(["subset"] if task.id == "race" else []))
        assert rows.features["label"] == Value("float64" if task.score_range else "int64")
        if not task.score_range:
            assert set(rows.unique("label")) == set(range(len(task.label_names)))
        for name in set(names) - {"choices", "question"}:
            assert rows.features[name] == Value("string")
            assert all(rows[name][:])
        if "choices" in names:
            assert {len(choices) for choices in rows["choices"][:]} == {len(task.label_names)}

    @pytest.mark.parametrize("task_id", VALIDATION)
    def test_the_labels_mean_what_the_task_says(self, data_dir, task_id):
        assert Counter(load_task(task_id).load("validation", data_dir)["label"][:]) == VALIDATION[task_id]

    @pytest.mark.parametrize(("task_id", "n"), [("cola", 1063), ("stsb", 1379), ("rte", 3000)])
    def test_hidden_labels_stay_as_they_are(self, data_dir, task_id, n):
        rows = load_task(task_id).load("test", data_dir)
        assert len(rows) == n
        assert rows.unique("label") == [-1]

    def test_scores_are_those_published(self, data_dir):
        rows = load_task("stsb").load("validation", data_dir)
        assert (len(rows), min(rows["label"][:]), max(rows["label"][:])) == (1500, 0.0, 5.0)
        assert {0.8, 2.6, 3.8} <= set(rows["label"][:])  # not 3.799999952316284, as in fp32

    def test_story_cloze_is_split_as_in_the_released_code(self, data_dir):
        """Compared with scikit-learn on the lists that the released code passes to it (datasets.py, `rocstories`)."""
        (path,) = Path(data_dir).glob("story_cloze/cloze_test_val__spring2016*.csv")
        with open(path, encoding="utf-8-sig", newline="") as lines:
            stories = list(csv.reader(lines))[1:]
        texts = [" ".join(story[1:5]) for story in stories]
        answers = [int(story[-1]) - 1 for story in stories]
        train, validation, train_y, validation_y = train_test_split(
            texts, answers, test_size=374, random_state=3535999445
        )
        for split, documents, labels in (("train", train, train_y), ("validation", validation, validation_y)):
            rows = load_task("story_cloze").load(split, data_dir)
            assert rows["document"][:] == documents
            assert rows["label"][:] == labels
            assert [stories[i][5:7] for i in rows["idx"][:]] == rows["choices"][:]
        assert (len(train), len(validation)) == (1497, 374)

    def test_the_subsets_that_a_copy_has_are_loaded(self, data_dir, caplog):
        """The folder has the matched validation set of MultiNLI, and the middle schools of RACE's."""
        for task_id, part, missing, n in (("mnli", "matched", "mismatched", 9815), ("race", "middle", "high", 1436)):
            assert len(load_task(task_id).load(f"validation_{part}", data_dir)) == n
            assert "is not run" not in caplog.text  # nobody asked for the other subset
            caplog.clear()
            rows = load_task(task_id).load("validation", data_dir)
            assert Counter(rows["subset"][:]) == {part: n}
            assert f"validation_{missing} is not run" in caplog.text
            caplog.clear()
        with pytest.raises(MissingSplitError, match="lacks the split 'validation_mismatched'"):
            load_task("mnli").load("validation_mismatched", data_dir)


class TestSample:
    @pytest.mark.parametrize("split", ["train", "validation"])
    def test_the_packaged_sample_has_the_same_columns(self, task, split):
        rows = task.load(split, sample=True)
        names = INPUT_FORMATS[task.input_format] if task.input_format else tuple(task.columns)
        in_subsets = task.id == "race" or (task.id == "mnli" and split == "validation")
        assert tuple(rows.column_names) == (*names, "label", "idx", *(["subset"] if in_subsets else []))
        if not task.score_range:
            assert set(rows.unique("label")) == set(range(len(task.label_names)))

    def test_it_does_not_need_the_data_folder(self, task, tmp_path):
        assert task.load("train", str(tmp_path), sample=True).num_rows == task.load("train", sample=True).num_rows

    def test_its_subsets_are_splits_by_themselves(self):
        for task_id in ("mnli", "race"):
            for subset in load_task(task_id).subsets:
                rows = load_task(task_id).load(f"validation_{subset}", sample=True)
                assert len(rows) and rows.unique("subset") == [subset]

    def test_it_has_no_test_split(self, task):
        with pytest.raises(MissingSplitError, match="split 'test"):
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

    def test_other_columns_are_dropped(self, tmp_path):
        rows = [{**row, "source": "gj04", "text": "not this one"} for row in GOOD]
        loaded = load_task("cola").load("train", write_cola(tmp_path, rows))
        assert loaded.column_names == ["text", "label", "idx"]
        assert loaded["text"][0] == "The lady wept."

    def test_hidden_labels_are_allowed(self, tmp_path):
        rows = [{**row, "label": -1} for row in GOOD]
        assert load_task("cola").load("test", write_cola(tmp_path, rows, "test"))["label"][:] == [-1, -1]

    @pytest.mark.parametrize("label", [2, -2, "acceptable", 0.5])
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

    @pytest.mark.parametrize("split", ["dev", "validation_nowhere", "train_matched", ""])
    def test_an_unknown_split_names_the_known_ones(self, task, split):
        with pytest.raises(GPT1Error, match=f"task {task.id} has no split '{split}'; .*train, validation, test"):
            task.load(split)
        with pytest.raises(GPT1Error, match="test, validation_matched, validation_mismatched, test_matched"):
            load_task("mnli").load("dev")

    def test_a_split_that_the_copy_lacks_is_named(self, tmp_path):
        with pytest.raises(MissingSplitError, match="no file of the split 'validation'"):
            load_task("cola").load("validation", write_cola(tmp_path, GOOD))

    def test_a_data_set_that_cannot_be_found_is_named(self, task, tmp_path, monkeypatch):
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

    def test_a_column_that_is_not_text_is_an_error(self, tmp_path):
        with pytest.raises(GPT1Error, match=r"cola \(train\): column 'sentence' holds .*int64.*not text"):
            load_task("cola").load("train", write_cola(tmp_path, [{"sentence": 5, "label": 1}]))

    @pytest.mark.parametrize("column", ["sentence", "label"])
    def test_a_row_without_a_value_is_named(self, tmp_path, column):
        rows = [*GOOD, {**GOOD[0], "idx": 12, column: None}]
        with pytest.raises(GPT1Error, match=rf"cola \(train\): row 12 has no '{column}'"):
            load_task("cola").load("train", write_cola(tmp_path, rows))

    def test_a_json_file_whose_last_line_is_cut_off_is_an_error(self, tmp_path):
        path = tmp_path / "nyu-mll" / "glue" / "cola" / "train.jsonl"
        write_jsonl(path, GOOD * 50)
        path.write_text(path.read_text()[:-9])
        with pytest.raises(GPT1Error, match="cannot read the split 'train'.*damaged") as error:
            load_task("cola").load("train", str(tmp_path))
        assert "\n" not in str(error.value)


class TestEntailment:
    PAIR = {"premise": "It rains.", "hypothesis": "It is wet."}

    def test_snli_rows_without_a_gold_label_are_dropped(self, tmp_path):
        rows = [{**self.PAIR, "label": label} for label in (0, -1, 2, -1, 1)]
        loaded = load_rows(tmp_path, "snli", rows)
        assert loaded["label"][:] == [0, 2, 1]
        assert loaded["idx"][:] == [0, 2, 4]

    def test_scitail_has_two_layouts_and_two_names_of_a_label(self, tmp_path):
        tsv = [{**self.PAIR, "label": label} for label in ("entails", "neutral")]
        snli = [
            {"sentence1": "It rains.", "sentence2": "It is wet.", "gold_label": label, "sentence1_parse": "x"}
            for label in ("entailment", "neutral")
        ]
        expected = [{**self.PAIR, "label": label, "idx": label} for label in (0, 1)]
        assert load_rows(tmp_path / "a", "scitail", tsv, config="tsv_format").to_list() == expected
        assert load_rows(tmp_path / "b", "scitail", snli, config="snli_format").to_list() == expected
        write_jsonl(tmp_path / "b" / "allenai" / "scitail" / "tsv_format" / "train.jsonl", tsv[:1])
        assert len(load_task("scitail").load("train", str(tmp_path / "b"))) == 2  # the fuller one first

    def test_a_label_outside_the_set_is_named(self, tmp_path):
        rows = [{**self.PAIR, "label": "entails"}, {**self.PAIR, "label": "contradicts"}]
        with pytest.raises(
            GPT1Error, match=r"scitail \(train\): label 'contradicts' is outside the set .*entails, neutral"
        ):
            load_rows(tmp_path, "scitail", rows, config="tsv_format")

    def test_mnli_is_loaded_in_parts(self, tmp_path):
        for index, subset in enumerate(load_task("mnli").subsets):
            path = tmp_path / "nyu-mll" / "glue" / "mnli" / f"validation_{subset}-00000-of-00001.jsonl"
            write_jsonl(path, [{**self.PAIR, "label": index, "idx": 0}] * (2 + index))
        rows = load_task("mnli").load("validation", str(tmp_path))
        assert rows["subset"][:] == ["matched"] * 2 + ["mismatched"] * 3
        assert rows["label"][:] == [0] * 2 + [1] * 3
        with pytest.raises(MissingSplitError, match="no file of the split 'test_matched'"):
            load_task("mnli").load("test", str(tmp_path))


class TestScores:
    PAIR = {"sentence1": "It rains.", "sentence2": "It is wet."}

    def test_scores_are_floats(self, tmp_path):
        rows = load_rows(tmp_path, "stsb", [{**self.PAIR, "label": label} for label in (0.0, 3.799999952316284, 5.0)])
        assert rows["label"][:] == [0.0, 3.8, 5.0]

    @pytest.mark.parametrize("label", [5.1, -0.5, "4.0", float("nan")])
    def test_a_score_outside_the_range_is_named(self, tmp_path, label):
        with pytest.raises(GPT1Error, match=rf"stsb \(train\): label {label!r} is outside the scores 0 to 5"):
            load_task("stsb").canonical(Dataset.from_list([{**self.PAIR, "label": label}]), "stsb (train)")


class TestRACE:
    def test_schools_are_distinguished_by_id(self, tmp_path):
        rows = load_rows(tmp_path, "race", [QUESTION, {**QUESTION, "example_id": "middle2.txt", "answer": "D"}])
        assert rows["subset"][:] == ["high", "middle"]
        assert rows["label"][:] == [1, 3]
        assert rows[0]["choices"] == QUESTION["options"]

    def test_schools_are_joined_without_a_file_of_all(self, tmp_path):
        for school, n in (("middle", 1), ("high", 2)):
            write_jsonl(tmp_path / "ehovy" / "race" / school / "train.jsonl", [QUESTION] * n)
        assert load_task("race").load("train", str(tmp_path))["subset"][:] == ["middle", "high", "high"]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"options": ["Dry.", "Wet.", "Cold."]}, "row 1 has 3 choices, but every row of task race has 4"),
            ({"options": ["Dry.", "Wet.", " ", "Hot."]}, "choice C of row 1 is empty"),
            ({"options": ["Dry.", "Wet.", None, "Hot."]}, "not a list of texts"),
            ({"answer": "E"}, "label 'E' is outside the set A, B, C, D"),
            ({"answer": ""}, "row 1 has no 'answer'"),
            ({"article": None}, "row 1 has no 'article'"),
            ({"example_id": "primary3.txt"}, "'primary3.txt' begins with neither 'middle' nor 'high'"),
        ],
    )
    def test_a_bad_question_is_named(self, tmp_path, change, message):
        with pytest.raises(GPT1Error, match=rf"race \(train\): .*{message}") as error:
            load_rows(tmp_path, "race", [QUESTION, {**QUESTION, **change}])
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("column", ["example_id", "article", "options", "answer"])
    def test_a_missing_column_is_named(self, tmp_path, column):
        row = {name: value for name, value in QUESTION.items() if name != column}
        with pytest.raises(GPT1Error, match=f"column '{column}' is missing; the file has"):
            load_rows(tmp_path, "race", [row])


class TestStoryCloze:
    FILE = "story_cloze/cloze_test_val__spring2016 - cloze_test_ALL_val.csv"

    def load(self, folder, split="train"):
        return load_task("story_cloze").load(split, str(folder))

    def test_the_official_file_is_split(self, tmp_path, caplog):
        write_stories(tmp_path / self.FILE, 1871)
        train, validation = self.load(tmp_path), self.load(tmp_path, "validation")
        assert (len(train), len(validation)) == (1497, 374)
        assert sorted([*train["idx"][:], *validation["idx"][:]]) == list(range(1871))
        index = train["idx"][0]
        assert train[0] == {
            "document": f"One {index}. Two, {index}. Three. Four.",
            "question": "",
            "choices": ['"Good," she said.', "NA"],
            "label": index % 2,
            "idx": index,
        }
        assert not caplog.records

    def test_another_number_of_stories_is_split_with_a_warning(self, tmp_path, caplog):
        write_stories(tmp_path / self.FILE, 20)
        assert (len(self.load(tmp_path)), len(self.load(tmp_path, "validation"))) == (16, 4)
        assert "has 20 stories, not the 1871" in caplog.text
        write_stories(tmp_path / self.FILE, 2)
        with pytest.raises(GPT1Error, match="2 stories, too few"):
            self.load(tmp_path)

    def test_test_stories_are_a_separate_file(self, tmp_path):
        write_stories(tmp_path / self.FILE, 20)
        with pytest.raises(
            MissingSplitError, match="no file of the test stories, such as cloze_test_test__spring2016"
        ):
            self.load(tmp_path, "test")
        write_stories(tmp_path / "story_cloze" / "cloze_test_test__spring2016 - cloze_test_ALL_test.csv", 7)
        assert self.load(tmp_path, "test")["idx"][:] == list(range(7))

    def test_a_byte_order_mark_is_not_part_of_the_first_column(self, tmp_path):
        write_stories(tmp_path / self.FILE, 20, encoding="utf-8-sig")
        assert len(self.load(tmp_path)) == 16

    @pytest.mark.parametrize(
        ("tail", "message"),
        [
            ("id-x,One.,Two.,Three.,Four.,She sang.,She wept.", r"row 20 .*remove the row \(was the file cut"),
            ("id-x,One.,Two.,Thr", "row 20 has no 'AnswerRightEnding'"),
            ('id-x,One.,"Two.,', "cannot read .*damaged"),
            ("id-x,One.,Two.,Three.,Four.,,She wept.,1\n", "choice 1 of row 20 is empty"),
            ("id-x,One.,Two.,Three.,Four.,She sang.,She wept.,3\n", "label 3 is outside the set 1, 2"),
        ],
    )
    def test_a_bad_last_line_is_named(self, tmp_path, tail, message):
        write_stories(tmp_path / self.FILE, 20, tail=tail)
        for split in ("train", "validation"):
            try:
                self.load(tmp_path, split)
            except GPT1Error as error:
                assert re.search(message, str(error)) and "\n" not in str(error)
                break
        else:
            pytest.fail("no error for the bad line")

    def test_a_file_with_other_columns_is_an_error(self, tmp_path):
        path = write_stories(tmp_path / self.FILE, 20)
        path.write_text(path.read_text().replace(STORY_COLUMNS, STORY_COLUMNS.replace("InputSentence3", "Third")))
        with pytest.raises(GPT1Error, match="column 'InputSentence3' is missing; the file has .*Third"):
            self.load(tmp_path)

    def test_without_the_files_the_error_says_where_to_get_them(self, tmp_path):
        with pytest.raises(GPT1Error, match="cannot load 'LSDSem/story_cloze': .*on request.*--data_dir"):
            self.load(tmp_path)
