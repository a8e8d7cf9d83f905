"""Fine-tuning on a user's own rows, and evaluation: every kind of labels, from a YAML file or from flags."""

import csv
import json
import random
import re
from pathlib import Path

import pytest
from helpers.data import WORDS, write_jsonl
from sklearn.metrics import accuracy_score, f1_score
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoProcessor

from gpt1_hf.analysis.report.groups import grouped
from gpt1_hf.analysis.report.runs import collect, scores
from gpt1_hf.cli import main
from gpt1_hf.data.loading import open_dataset
from gpt1_hf.tasks import load_task
from gpt1_hf.training_record import trained_on


FAST = "--max_steps 2 --per_device_train_batch_size 4 --disable_tqdm true --use_cpu true --learning_rate 1e-3"
STARS = ("bad", "fair", "good")


def a_text(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(2, 9)))


def write_csv(path: Path, rows: list[dict]):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def write_files(rng: random.Random):
    """Training rows of every kind of labels, and the YAML files of their tasks, in the current folder."""
    write_csv(Path("reviews.csv"), [{"review": a_text(rng), "stars": rng.choice(STARS)} for _ in range(40)])
    write_csv(Path("dev.csv"), [{"review": a_text(rng), "stars": rng.choice(STARS)} for _ in range(12)])
    pairs = [{"one": a_text(rng), "two": a_text(rng), "value": round(rng.uniform(-10, 30), 2)} for _ in range(40)]
    write_csv(Path("pairs.csv"), pairs)
    write_csv(Path("bins.csv"), [{**row, "value": rng.randint(0, 3)} for row in pairs])
    stories = [
        {"story": a_text(rng), "a": a_text(rng), "b": a_text(rng), "right": rng.choice("AB")} for _ in range(40)
    ]
    write_csv(Path("stories.csv"), stories)
    write_jsonl(
        Path("topics.jsonl"), [{"text": a_text(rng), "label": rng.sample(STARS, rng.randint(0, 3))} for _ in range(40)]
    )
    words = [a_text(rng).split() for _ in range(40)]
    write_jsonl(
        Path("words.jsonl"),
        [{"words": own, "label": ["LONG" if len(w) > 4 else "SHORT" for w in own]} for own in words],
    )
    for name, lines in TASKS.items():
        Path(f"{name}.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")


TASKS = {
    "own_reviews": (
        "train_file: reviews.csv",
        "validation_file: dev.csv",
        "input_format: classification",
        "columns: {text: review}",
        "label_column: stars",
    ),
    "own_topics": ("train_file: topics.jsonl", "input_format: classification"),
    "own_pairs": (
        "train_file: pairs.csv",
        "input_format: similarity",
        "columns: {text_a: one, text_b: two}",
        "label_column: value",
        "other_metrics: [spearman]",
    ),
    "own_bins": (
        "train_file: bins.csv",
        "input_format: entailment",
        "columns: {premise: one, hypothesis: two}",
        "label_column: value",
        "score_range: [0, 3]",
        "regression_bins: 4",
    ),
    "own_stories": (
        "train_file: stories.csv",
        "input_format: multiple_choice",
        "columns: {document: story, choices: [a, b]}",
        "label_column: right",
    ),
    "own_words": ("train_file: words.jsonl", "input_format: token_classification"),
}


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with the files of every task, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GPT1_DATA_DIR", raising=False)
    write_files(random.Random(0))
    return tmp_path


def read(folder, name: str = "results.json"):
    text = Path(folder, name).read_text(encoding="utf-8")
    return json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.splitlines()]


def values(folder) -> list[tuple]:
    return [(row["task"], row["split"], row["metric"], row["value"], row["n_examples"]) for row in read(folder)]


@pytest.mark.parametrize("name", TASKS)
def test_fine_tuning_and_evaluation_agree(name, base_model, place):
    argv = f"finetune --task {name}.yaml --model {base_model} {FAST}"
    assert main(argv.split()) == 0
    run = Path("runs", name)
    assert main(f"evaluate --task {name}.yaml --model {run} --batch_size 64 --output_dir again".split()) == 0
    assert values("again") == values(run)
    assert Path("again/predictions.jsonl").read_text() == (run / "predictions.jsonl").read_text()
    task, config = load_task(f"{name}.yaml").resolved(), read(run, "config.json")
    rows, predictions = task.load("validation"), read(run, "predictions.jsonl")
    assert [row["label"] for row in predictions] == rows["label"][:]
    assert {row["id"] for row in predictions} == set(rows["idx"][:])
    record = config["trained_on"]
    assert record["labels"] == list(task.label_names) and record["label_kind"] == task.labels
    assert str(place) not in json.dumps(record) and record["dataset"] == Path(task.files["train"]).name
    assert record["columns"] == json.loads(json.dumps(task.columns))
    for file in ("config.json", "settings.json", "results.json"):  # no infinity, which is no JSON
        json.loads((run / file).read_text(), parse_constant=pytest.fail)
    metrics = {row["metric"]: row["value"] for row in read(run)}
    labels, answers = ([row[column] for row in predictions] for column in ("label", "prediction"))
    if task.labels == "classes":
        assert metrics == {"accuracy": pytest.approx(100 * accuracy_score(labels, answers), abs=0.01)}
        if task.input_format == "classification":
            assert config["id2label"] == {str(index): label for index, label in enumerate(task.label_names)}
    elif task.labels == "multiple":
        assert config["problem_type"] == "multi_label_classification"
        assert metrics == {"f1_micro": pytest.approx(100 * f1_score(labels, answers, average="micro"), abs=0.01)}
        for row in predictions:
            assert row["prediction"] == [int(score >= 0.5) for score in row["scores"]]
    elif task.labels == "tags":
        flat = [[tag for tags in part for tag in tags] for part in (labels, answers)]
        assert metrics == {"accuracy": pytest.approx(100 * accuracy_score(*flat), abs=0.01)}
        assert read(run)[0]["details"]["n_words"] == len(flat[0])
    else:
        assert set(metrics) == {"pearson", *task.other_metrics}
        assert all(row["scores"] == [row["prediction"]] for row in predictions)
        assert config["regression_bins"] == task.regression_bins


def test_predictions_are_those_of_the_model_alone(base_model, place):
    """A user who has only transformers and the saved folder gets the same answers."""
    for name in ("own_topics", "own_words"):
        assert main(f"finetune --task {name}.yaml --model {base_model} {FAST}".split()) == 0
    rows = load_task("own_topics.yaml").load("validation")
    model = AutoModelForSequenceClassification.from_pretrained("runs/own_topics").eval()
    batch = AutoProcessor.from_pretrained("runs/own_topics")(text=rows["text"][:], padding=True, return_tensors="pt")
    for row, logits in zip(read("runs/own_topics", "predictions.jsonl"), model(**batch).logits, strict=True):
        assert row["scores"] == pytest.approx(logits.sigmoid().tolist(), abs=1e-4)
    rows = load_task("own_words.yaml").load("validation")
    model = AutoModelForTokenClassification.from_pretrained("runs/own_words").eval()
    processor = AutoProcessor.from_pretrained("runs/own_words")
    for row, words in zip(read("runs/own_words", "predictions.jsonl"), rows["words"][:], strict=True):
        logits = model(**processor(words=[words], return_tensors="pt")).logits[0]
        ends = processor(words=words, return_word_ends=True)["word_ends"]
        assert row["prediction"] == logits[ends].argmax(-1).tolist()
        assert row["scores"] == [pytest.approx(own, abs=1e-4) for own in logits[ends].softmax(-1).tolist()]


def test_words_that_are_cut_off_count_as_wrong(base_model, place):
    argv = f"finetune --task own_words.yaml --model {base_model} --max_length 6 {FAST}"
    assert main(argv.split()) == 0
    (result,), predictions = read("runs/own_words"), read("runs/own_words", "predictions.jsonl")
    pairs = [pair for row in predictions for pair in zip(row["label"], row["prediction"], strict=True)]
    n_cut = sum(answer == -1 for _, answer in pairs)
    assert 0 < n_cut < len(pairs)
    assert result["details"]["n_words_cut"] == n_cut and result["details"]["n_words"] == len(pairs)
    assert result["value"] == pytest.approx(
        100 * sum(label == answer for label, answer in pairs) / len(pairs), abs=0.01
    )
    for row in predictions:
        assert [scores is None for scores in row["scores"]] == [answer == -1 for answer in row["prediction"]]


FLAGS = {
    "own_reviews": "--train_file reviews.csv --validation_file dev.csv --input_format classification "
    "--text_column review --label_column stars",
    "own_pairs": "--train_file pairs.csv --input_format similarity --text_column one two --label_column value",
    "own_stories": "--train_file stories.csv --input_format multiple_choice --text_column story --choices_column a b "
    "--label_column right",
    "own_words": "--train_file words.jsonl --input_format token_classification",
}


@pytest.mark.parametrize("name", FLAGS)
def test_flags_do_what_the_yaml_file_does(name, base_model, place):
    assert main(f"finetune --task {name}.yaml --model {base_model} {FAST}".split()) == 0
    assert main(f"finetune {FLAGS[name]} --model {base_model} {FAST}".split()) == 0
    flags = Path("runs", Path(FLAGS[name].split()[1]).stem)
    assert (flags / "predictions.jsonl").read_text() == Path("runs", name, "predictions.jsonl").read_text()
    one, other = (read(run, "config.json") for run in (flags, Path("runs", name)))
    assert one.pop("trained_on") == {**other.pop("trained_on"), "task": flags.name} and one == other


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--task own_reviews.yaml --train_file reviews.csv", "give either --task or --train_file, not both"),
        ("--task cola --label_column stars", "--label_column describes the rows of --train_file"),
        ("--train_file reviews.csv --sample", "--sample is of the built-in tasks"),
        ("--train_file reviews.csv", "column 'text' is missing"),
        ("--train_file reviews.csv --text_column review --label_column star", "column 'star' is missing"),
        ("--train_file gone.csv", "there is no file"),
        ("--train_file reviews.csv --choices_column a b", "columns has 'choices'"),
        ("--train_file reviews.csv --input_format entailment --text_column review", "give 2 text columns, not 1"),
        ("--train_file reviews.csv --metric f1", "unknown argument --metric"),
    ],
)
def test_flags_that_do_not_fit_together(flags, message, base_model, place, capsys):
    assert main(["finetune", *flags.split(), "--model", base_model, "--use_cpu", "true"]) in (1, 2)
    error = capsys.readouterr().err.strip().split("\n")[-1]
    assert message in error
    assert not Path("runs").exists()


def test_seeds_that_are_finished_are_skipped_until_a_file_changes(base_model, place, capsys, caplog):
    command = f"finetune --task own_reviews.yaml --model {base_model} {FAST} --seeds 2 --max_train_examples 8".split()
    assert main(command) == 0
    before = values("runs/own_reviews")
    assert len(before) == 2
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().err.count("already finished") == 2 and values("runs/own_reviews") == before
    settings = read("runs/own_reviews/seed-42", "settings.json")
    assert settings["task"] == "own_reviews" and str(place) not in json.dumps(settings)
    with Path("dev.csv").open("a") as file:
        file.write("the lady,bad\n")
    caplog.clear()
    assert main(command) == 0
    assert "different settings (the validation file was dev.csv (" in caplog.text
    text = Path("own_reviews.yaml").read_text()
    Path("own_reviews.yaml").write_text(text + "other_metrics: [matthews_correlation]\n")
    caplog.clear()
    assert main(command) == 0
    assert "the task's other_metrics was none and is ['matthews_correlation'] now" in caplog.text


def test_evaluation_uses_the_labels_of_the_model(base_model, place, capsys):
    """The training file need not be there, nor have rows of every label any more."""
    assert main(f"finetune --task own_reviews.yaml --model {base_model} {FAST}".split()) == 0
    Path("reviews.csv").unlink()
    evaluate = "evaluate --task own_reviews.yaml --model runs/own_reviews --output_dir again".split()
    assert main(evaluate) == 0
    assert values("again") == values("runs/own_reviews")
    text = Path("own_reviews.yaml").read_text()
    Path("own_reviews.yaml").write_text(text + "label_names: [good, fair, bad]\n")
    write_csv(Path("reviews.csv"), [{"review": "the lady", "stars": star} for star in STARS])
    assert main(evaluate) == 1
    assert "has the labels ['bad', 'fair', 'good']" in capsys.readouterr().err


def test_a_file_that_changed_since_training_is_named(base_model, place, caplog):
    for name in ("own_reviews", "own_topics"):
        assert main(f"finetune --task {name}.yaml --model {base_model} {FAST}".split()) == 0
    with Path("dev.csv").open("a") as file:
        file.write("the lady,bad\n")
    write_jsonl(Path("topics.jsonl"), [{"text": "the lady", "label": [star]} for star in STARS * 9])
    for name, file in (("own_reviews", "dev.csv"), ("own_topics", "topics.jsonl")):
        caplog.clear()
        assert main(f"evaluate --task {name}.yaml --model runs/{name} --output_dir again".split()) == 0
        assert f"the rows of validation ({file}) are not those that model" in caplog.text


def test_a_validation_file_that_is_the_training_file_is_warned_of(base_model, place, caplog):
    Path("link.csv").symlink_to("reviews.csv")
    flags = "--train_file reviews.csv --validation_file link.csv --text_column review --label_column stars"
    assert main(f"finetune {flags} --model {base_model} {FAST}".split()) == 0
    assert "task reviews: the validation file is the training file" in caplog.text


def test_a_model_of_another_kind_of_labels_is_refused(base_model, place, capsys):
    assert main(f"finetune --task own_topics.yaml --model {base_model} {FAST}".split()) == 0
    write_csv(Path("single.csv"), [{"text": "the lady", "label": star} for star in STARS * 8])
    Path("single.yaml").write_text("train_file: single.csv\ninput_format: classification\n")
    assert main("evaluate --task single.yaml --model runs/own_topics --output_dir again".split()) == 1
    assert "predicts several labels a row, but task single has one class a row" in capsys.readouterr().err
    assert not Path("again").exists()


def test_held_out_rows_adapters_and_checkpoints(base_model, place):
    held_out = f"--task own_topics.yaml --model {base_model} {FAST} --held_out_share 0.25 --output_dir held"
    assert main(["finetune", *held_out.split()]) == 0
    assert [row["split"] for row in read("held")] == ["held-out train"]
    lora = f"--task own_words.yaml --model {base_model} {FAST} --peft lora --output_dir lora"
    assert main(["finetune", *lora.split()]) == 0
    assert main("evaluate --task own_words.yaml --model lora --output_dir again".split()) == 0
    assert values("again") == values("lora")
    resumed = f"finetune --task own_words.yaml --model {base_model} --output_dir resumed --resume_from_checkpoint true"
    steps = f"{FAST} --save_strategy steps --save_steps 1".split()
    assert main([*resumed.split(), *steps]) == 0
    assert main(f"finetune --task own_words.yaml --model {base_model} --output_dir whole {FAST}".split()) == 0
    for name in ("results.json", "settings.json", "trained.json"):
        Path("resumed", name).unlink(missing_ok=True)
    assert main([*resumed.split(), *steps]) == 0
    assert values("resumed") == values("whole")


def test_what_a_model_learns_to_predict_is_among_its_settings(base_model, place):
    """The same rows and task id, with bins and without."""
    lines = dict(TASKS)["own_bins"]
    for folder, text in (("bins", lines), ("plain", lines[:-1])):
        Path(folder).mkdir()
        own = [line.replace("bins.csv", "../bins.csv") for line in text]
        Path(folder, "own_bins.yaml").write_text("\n".join(own) + "\n", encoding="utf-8")
        command = f"finetune --task {folder}/own_bins.yaml --model {base_model} {FAST} --output_dir runs/{folder}"
        assert main(command.split()) == 0
    groups = grouped(scores(collect("runs")))
    assert {group.settings["regression_bins"] for group in groups} == {4, None}
    assert all(len(group.values) == 1 for group in groups)
    (settings,) = {(group.settings["input_format"], group.settings["n_labels"]) for group in groups}
    assert settings == ("entailment", 0)


def test_ragged_choices_are_one_clear_error(base_model, place, capsys):
    all_choices = (["she wept", "she smiled"], ["she wept", "she smiled", "nobody"])
    write_jsonl(
        Path("ragged.jsonl"), [{"document": "the lady", "choices": own, "label": 0} for own in all_choices * 10]
    )
    flags = "--train_file ragged.jsonl --input_format multiple_choice --text_column document --use_cpu true"
    assert main(f"finetune {flags} --model {base_model}".split()) == 1
    assert re.search(r"ragged.jsonl: line 1 has 2 choices .* line 2 has 3: every row", capsys.readouterr().err)
    assert not Path("runs").exists()


def test_tags_need_a_model_with_a_head_for_words(place, capsys, texts):
    from gpt1_hf import GPT1LSTMConfig, GPT1LSTMForCausalLM, GPT1Tokenizer

    tokenizer = GPT1Tokenizer.train(texts, vocab_size=120, show_progress=False)
    sizes = {"hidden_size": 8, "lstm_size": 8, "num_hidden_layers": 1, "max_position_embeddings": 32}
    GPT1LSTMForCausalLM(GPT1LSTMConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained("lstm")
    tokenizer.save_pretrained("lstm")
    assert main(f"finetune --task own_words.yaml --model lstm {FAST}".split()) == 2
    assert "the LSTM has no head for it" in capsys.readouterr().err


def test_built_in_tasks_keep_their_records(base_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(f"finetune --task cola --sample --model {base_model} {FAST} --output_dir run".split()) == 0
    record = trained_on(AutoModelForSequenceClassification.from_pretrained("run").config)
    assert set(record) == {
        *("task", "task_version", "input_format", "labels", "tokenizer", "dataset", "revision", "sample", "rows"),
        *("rows_digest", "scored", "max_length", "seed", "eval_batch_size"),
    }
    settings = read("run", "settings.json")
    own = {"train_file", "validation_file", "input_format", "text_column", "label_column", "choices_column"}
    assert settings["task"] == "cola" and not own.intersection(settings)
    assert not [name for name in settings if name.startswith("the ")]


def test_scitails_rows_as_an_own_task_give_the_same_model_and_predictions(data_dir, base_model, tmp_path, monkeypatch):
    folder = Path(data_dir, "allenai", "scitail", "tsv_format")
    if not folder.is_dir():
        pytest.skip("needs SciTail's tsv_format")
    monkeypatch.chdir(tmp_path)
    for split in ("train", "validation"):
        rows = open_dataset(str(folder), split)
        with Path(f"{split}.tsv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ("premise", "hypothesis", "label"), delimiter="\t")
            writer.writeheader()
            writer.writerows(rows.select_columns(writer.fieldnames))
    names = "label_names: [entailment, neutral]\nlabel_ids: {entails: 0, neutral: 1}\n"
    files = "train_file: train.tsv\nvalidation_file: validation.tsv\ninput_format: entailment\n"
    Path("own.yaml").write_text(files + names)
    for task in ("own.yaml", "scitail"):
        settings = f"--data_dir {data_dir} --model {base_model} --max_train_examples 32 {FAST}"
        assert main(["finetune", "--task", task, *settings.split()]) == 0
    for file in ("predictions.jsonl", "model.safetensors"):
        assert Path("runs/own", file).read_bytes() == Path("runs/scitail", file).read_bytes()
