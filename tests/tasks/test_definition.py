"""A task's YAML file: what is read from it, what is refused, and what is written."""

import re
import subprocess
import sys

import pytest
import yaml

from gpt1_hf.errors import UsageError
from gpt1_hf.tasks import (
    all_tasks,
    definition,
    describe,
    fill_template,
    load_task,
    task_from_files,
)
from gpt1_hf.tasks.definition import FOLDER, KEYS, TEMPLATE, make_task
from gpt1_hf.tasks.spec import FORMAT_COLUMNS, LABEL_METRICS
from gpt1_hf.training.arguments import FinetuneArguments


OWN = {"train_file": "train.csv", "input_format": "classification", "columns": {"text": "review"}}


def write(folder, without: str = "", **changes) -> str:
    """Write a task's YAML file, changed by the given keys, and return its path."""
    content = {key: value for key, value in {**OWN, **changes}.items() if key != without}
    path = folder / "reviews.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return str(path)


class TestBuiltIn:
    def test_the_folder_is_the_list(self):
        assert [*all_tasks(zero_shot=True)] == sorted(path.stem for path in FOLDER.glob("*.yaml"))

    @pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
    def test_a_file_begins_with_a_description_and_states_version_and_sizes(self, path):
        text = path.read_text(encoding="utf-8")
        assert text.startswith("# ") and max(map(len, text.splitlines())) <= 119
        assert {"dataset", "columns", "label_column", "metric", "sizes", "notes", "version"} - {
            *yaml.safe_load(text)
        } <= {"label_column"}
        assert describe(load_task(path.stem)) == text

    def test_every_module_is_named_by_a_file(self):
        code = {task.code for task in all_tasks(zero_shot=True).values()} - {None}
        rooms = {"__init__", "spec", "task", "definition", "rows", "inference", "guess"}
        assert {path.stem for path in FOLDER.glob("*.py")} == code | rooms

    def test_tasks_are_listed_without_reading_rows(self):
        code = "import sys; sys.argv = ['gpt1']; from gpt1_hf.tasks import all_tasks, load_task; all_tasks(); "
        code += "print(*({'torch', 'transformers', 'datasets', 'pyarrow', 'sklearn', 'numpy'} & {*sys.modules}))"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert run.stdout.strip() == ""


class TestOwn:
    def test_paths_are_relative_to_the_file(self, tmp_path):
        task = load_task(write(tmp_path, validation_file="../dev.tsv", test_file="/data/test.jsonl"))
        assert task.id == "reviews" and not task.built_in and not task.is_complete
        assert task.files == {
            "train": str(tmp_path / "train.csv"),
            "validation": str(tmp_path / "../dev.tsv"),
            "test": "/data/test.jsonl",
        }
        assert task.source == "train.csv"
        assert task.splits == ("train", "validation", "test")

    def test_a_data_set_on_the_hub(self, tmp_path):
        task = load_task(write(tmp_path, "train_file", dataset="someone/reviews", config="en", revision="v1"))
        assert (task.dataset, task.config, task.revision, task.files) == ("someone/reviews", "en", "v1", {})

    def test_columns_have_the_names_of_the_format_by_default(self, tmp_path):
        assert load_task(write(tmp_path, "columns")).columns == {"text": "text"}
        task = load_task(write(tmp_path, "columns", input_format="multiple_choice"))
        assert task.columns == {"document": "document", "question": "question", "choices": "choices"}
        task = load_task(write(tmp_path, input_format="multiple_choice", columns={"document": "story"}))
        assert task.columns == {"document": "story", "choices": "choices"}

    def test_label_names_may_be_numbers(self, tmp_path):
        assert load_task(write(tmp_path, label_names=[1, 2.5, "x"])).label_names == ("1", "2.5", "x")

    def test_kind_and_metric_follow_from_the_format_and_the_range(self, tmp_path):
        scores = load_task(write(tmp_path, score_range=[-1, 1]))
        assert (scores.labels, scores.metric, scores.score_range) == ("scores", "pearson", (-1.0, 1.0))
        tags = load_task(write(tmp_path, input_format="token_classification", columns={"words": "tokens"}))
        assert (tags.labels, tags.metric) == ("tags", "accuracy")
        assert load_task(write(tmp_path, labels="multiple")).metric == "f1_micro"
        assert load_task(write(tmp_path)).labels is None

    @pytest.mark.parametrize("twice", ["train_file: a.csv\ntrain_file: b.csv\n", "columns: {text: a, text: b}\n"])
    def test_a_key_that_is_given_twice_is_refused(self, tmp_path, twice):
        (tmp_path / "mine.yaml").write_text(twice)
        with pytest.raises(UsageError, match="mine.yaml is not valid YAML: the key '[a-z_]+' is given twice"):
            load_task(str(tmp_path / "mine.yaml"))

    @pytest.mark.parametrize(
        ("key", "near"),
        [("label_colum", "label_column"), ("columnns", "columns"), ("train_files", "train_file"), ("nmae", None)],
    )
    def test_an_unknown_key_names_the_nearest(self, tmp_path, key, near):
        ending = rf"did you mean {near}\?" if near else "known keys: dataset, config, .*version"
        with pytest.raises(UsageError, match=f"reviews.yaml: unknown key '{key}'; {ending}"):
            load_task(write(tmp_path, **{key: "x"}))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"input_format": "clasification"}, "input_format must be one of classification, entailment"),
            ({"input_format": None}, "input_format must be one of"),
            ({"columns": {"txt": "review"}}, "columns has 'txt'.*reads text; did you mean text"),
            ({"columns": {"text": ["a", "a"]}}, "columns must be a mapping"),
            ({"columns": {"text": "label"}}, "the column 'label' is given twice"),
            ({"columns": {"text": "idx"}}, "a column named idx numbers the rows"),
            ({"columns": "review"}, "columns must be a mapping"),
            ({"columns": {"text": 5}}, "columns must be a mapping"),
            ({"label_names": ["yes", False]}, "label_names must be a list of different names .in quotes"),
            ({"label_names": ["a", "a"]}, "list of different names"),
            ({"label_names": ["a"]}, "at least two"),
            ({"label_names": "a, b"}, "list of different names"),
            ({"label_ids": {"a": 0}}, "label_ids gives 'a' the id 0, which label_names does not have"),
            ({"label_ids": {"a": 2}, "label_names": ["x", "y"]}, "label_ids gives 'a' the id 2"),
            ({"labels": "many"}, "labels must be one of classes, multiple, scores, tags"),
            ({"labels": "tags"}, "labels: tags needs input_format: token_classification"),
            ({"labels": "classes", "input_format": "token_classification", "columns": None}, "columns must be"),
            ({"labels": "scores", "label_names": ["a", "b"]}, "scores have a score_range, not label_names"),
            ({"labels": "classes", "score_range": [0, 1]}, "score_range needs labels: scores"),
            ({"score_range": [5, 0]}, r"the lowest and the highest score, such as \[0, 5\]"),
            ({"score_range": 5}, "score_range must be the lowest"),
            ({"score_range": [1, 5], "regression_bins": 6}, r"regression_bins 6 needs the score_range \[0, 5\]"),
            ({"metric": "acuracy"}, "metric must be one of accuracy, f1"),
            (
                {"labels": "scores", "metric": "accuracy"},
                "accuracy does not fit labels: scores; use pearson",
            ),
            (
                {"labels": "classes", "metric": "f1", "label_names": ["a", "b", "c"]},
                "f1 needs two classes, but there are 3",
            ),
            ({"dataset": "someone/reviews"}, "either dataset or train_file, not both"),
            ({"revision": "v1"}, "revision is for a dataset on the Hub"),
            ({"validation_file": "dev.csv", "validation_share": 0.2}, "either validation_file or validation_share"),
            ({"validation_share": 1.5}, "above 0 and below 1"),
            ({"code": "race"}, "only the package's own tasks may have the key code"),
            ({"drop_unlabelled": "yes"}, "drop_unlabelled must be true or false"),
            ({"scored_splits": ["dev"]}, "scored_splits must be a list of train, validation, test"),
            ({"scored_splits": ["test"]}, "scored_splits names test, but there is no test_file"),
            ({"version": "two"}, "version must be a whole number"),
        ],
    )
    def test_a_wrong_value_is_one_sentence_with_file_and_key(self, tmp_path, changes, message):
        with pytest.raises(UsageError, match=f"reviews.yaml: .*{message}") as error:
            load_task(write(tmp_path, **changes))
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("key", "message"), [("train_file", "train_file is miss"), ("input_format", "is missing")]
    )
    def test_a_missing_key_is_named(self, tmp_path, key, message):
        with pytest.raises(UsageError, match=message):
            load_task(write(tmp_path, key))

    def test_a_missing_or_invalid_file_is_named(self, tmp_path):
        with pytest.raises(UsageError, match="there is no task file .*nowhere.yml"):
            load_task(str(tmp_path / "nowhere.yml"))
        (tmp_path / "bad.yaml").write_text("a: [1")
        with pytest.raises(UsageError, match="bad.yaml is not valid YAML"):
            load_task(str(tmp_path / "bad.yaml"))

    def test_the_id_of_a_built_in_task_is_taken(self, tmp_path):
        path = tmp_path / "cola.yaml"
        path.write_text(describe(load_task("cola")))
        with pytest.raises(UsageError, match="the id of the built-in task cola: give the file another name"):
            load_task(str(path))

    def test_the_file_of_a_built_in_task_is_a_starting_point(self, tmp_path):
        for task in all_tasks().values():
            if task.code is None:
                (tmp_path / f"my_{task.id}.yaml").write_text(describe(task))
                own = load_task(str(tmp_path / f"my_{task.id}.yaml"))
                assert (own.columns, own.metric, own.sizes) == (task.columns, task.metric, task.sizes)

    def test_a_described_task_reads_back_equal(self, tmp_path):
        task = load_task(write(tmp_path, validation_share=0.25, label_names=["no", "yes"], notes="Mine.", version=3))
        (tmp_path / "copy.yaml").write_text(describe(task, tmp_path))
        assert "train_file: train.csv" in describe(task, tmp_path) and str(tmp_path) in describe(task)
        assert vars(load_task(str(tmp_path / "copy.yaml"))) == {**vars(task), "id": "copy"}
        assert {*yaml.safe_load(describe(task))} <= {*KEYS}


class TestTemplate:
    # What only the built-in tasks have.
    OTHERS = {"code", "paper", "prior", "subsets", "pooled", "sizes", "download", "other_configs", "other_layouts"}

    def test_it_has_an_example_of_every_key(self):
        examples = dict(re.findall(r"(?m)^#(\w+): (.*)$", TEMPLATE.read_text(encoding="utf-8")))
        assert {*examples} == {*KEYS} - self.OTHERS
        for key, example in examples.items():
            read, what = KEYS[key]
            assert read(yaml.safe_load(example)) is not None, what

    def test_it_names_every_format_kind_and_metric(self):
        text = TEMPLATE.read_text(encoding="utf-8")
        for name in (
            *FORMAT_COLUMNS,
            *LABEL_METRICS,
            *(name for metrics in LABEL_METRICS.values() for name in metrics),
        ):
            assert re.search(rf"\b{name}\b", text), name
            assert re.search(rf"`{name}`", definition.__doc__) or name in FORMAT_COLUMNS, name

    def test_without_a_setting_it_is_an_empty_mapping(self):
        assert yaml.safe_load(TEMPLATE.read_text(encoding="utf-8")) is None

    def test_a_filled_template_is_the_task(self, tmp_path):
        task = load_task(write(tmp_path, label_names=["no", "yes"], notes="Mine: ours.", sizes={"train": 5}))
        content = yaml.safe_load(fill_template(task, tmp_path))
        assert make_task("reviews", content, "x", tmp_path, built_in=False) == task
        assert content == yaml.safe_load(describe(task, tmp_path))


class TestFromFiles:
    def test_text_columns_are_in_the_order_of_the_format(self, tmp_path):
        task = task_from_files(tmp_path / "a.csv", text_columns=["one", "two"], input_format="entailment")
        assert task.columns == {"premise": "one", "hypothesis": "two"} and task.id == "a"
        assert task_from_files("a.csv", text_columns="review").columns == {"text": "review"}
        assert task_from_files("a.csv", text_columns=["title", "body"]).columns == {"text": ("title", "body")}

    def test_choices_are_a_column_of_lists_or_several_columns(self):
        settings = {"input_format": "multiple_choice", "text_columns": ["story"]}
        assert task_from_files("a.csv", **settings, choices_columns="endings").columns == {
            "document": "story",
            "choices": "endings",
        }
        several = task_from_files("a.csv", **settings, choices_columns=["x", "y"])
        assert several.columns == {"document": "story", "choices": ("x", "y")}

    def test_other_keys_equal_those_of_the_yaml(self):
        assert task_from_files("a.csv", labels="scores", metric="spearman").metric == "spearman"
        with pytest.raises(UsageError, match="a.csv: unknown key 'label_name'; did you mean label_names"):
            task_from_files("a.csv", label_name=["a", "b"])

    def test_a_wrong_number_of_text_columns_is_an_error(self):
        with pytest.raises(UsageError, match="reads text_a and text_b: give 2 text columns, not 1"):
            task_from_files("a.csv", input_format="similarity", text_columns=["one"])
        with pytest.raises(UsageError, match="input_format must be one of"):
            task_from_files("a.csv", input_format="pairs")

    @pytest.mark.parametrize("name", ["train.csv", "Training.tsv", "data.jsonl", "train-00000-of-00001.parquet"])
    def test_a_file_whose_name_says_nothing_has_the_id_of_its_folder(self, name):
        assert task_from_files(f"data/reviews/{name}").id == "reviews"
        assert task_from_files(f"snli/{name}").id == f"snli_{name}".replace(".", "_")  # a built-in task's id
        assert FinetuneArguments(train_file=f"reviews/{name}", use_cpu=True).output_dir == "runs/reviews"

    def test_a_file_with_the_name_of_a_built_in_task_has_another_id(self):
        assert task_from_files("data/cola.csv").id == "cola_csv"
        assert FinetuneArguments(train_file="cola.csv", use_cpu=True).output_dir == "runs/cola_csv"
