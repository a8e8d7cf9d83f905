"""A model used with another tokenizer, other labels, another format or other data than in training."""

import json
import logging
import shutil
from itertools import combinations

import pytest
from helpers.data import WORDS, write_jsonl
from transformers import AutoTokenizer, pipeline

from gpt1_hf import GPT1Processor, GPT1Tokenizer
from gpt1_hf.checkpoints.loading import open_config
from gpt1_hf.cli import main
from gpt1_hf.errors import GPT1Error
from gpt1_hf.evaluation.evaluate import EvaluateArguments, evaluate
from gpt1_hf.evaluation.glue_average import glue_averages
from gpt1_hf.evaluation.glue_submission import SubmitArguments, submit
from gpt1_hf.evaluation.results import Result, format_results
from gpt1_hf.hub.upload import model_files
from gpt1_hf.tasks import all_tasks, load_task
from gpt1_hf.training.arguments import FinetuneArguments
from gpt1_hf.training.finetune import finetune
from gpt1_hf.training_record import check_tokenizer, rows_digest, tokenizer_digest, trained_on


def fine_tuned(base_model, folder, task, **changes):
    settings = {"sample": True, "max_steps": 1, "max_train_examples": 8, "disable_tqdm": True, "use_cpu": True}
    finetune(FinetuneArguments(model=base_model, task=task, output_dir=str(folder), **{**settings, **changes}))
    return folder


@pytest.fixture(scope="module")
def models(base_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {task: fine_tuned(base_model, folder / task, task) for task in ("sst2", "qnli", "story_cloze")}


@pytest.fixture
def model(models, tmp_path):
    """A copy of a model for SST-2, to be changed."""
    return shutil.copytree(models["sst2"], tmp_path / "model")


def score(model, tmp_path, task="sst2", **changes):
    settings = {"sample": True, "output_dir": str(tmp_path / "eval"), **changes}
    return evaluate(EvaluateArguments(model=str(model), task=task, **settings))


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_record_is_in_the_configuration_which_is_what_travels(models):
    record = trained_on(open_config(str(models["sst2"])))
    rows = load_task("sst2").load("train", sample=True).shuffle(seed=0).select(range(8))
    assert record["task"] == "sst2" and record["labels"] == ["negative", "positive"] and record["seed"] == 42
    assert record["tokenizer"] == tokenizer_digest(AutoTokenizer.from_pretrained(models["sst2"]))
    assert (record["rows"], record["rows_digest"]) == (8, rows_digest(rows))
    assert record["scored"] == {"validation": rows_digest(load_task("sst2").load("validation", sample=True))}
    assert model_files(models["sst2"])["config.json"].is_file()


def test_results_name_what_was_trained_and_scored(models, tmp_path):
    (result,) = score(models["sst2"], tmp_path)
    record = trained_on(open_config(str(models["sst2"])))
    assert result.seed == 42 and result.details["trained_on"] == "sst2"
    assert result.details["tokenizer"] == record["tokenizer"]
    assert result.details["rows_digest"] == record["scored"]["validation"]
    (of_training,) = json.loads((models["sst2"] / "results.json").read_text())
    assert of_training["details"]["train_rows_digest"] == record["rows_digest"]
    assert of_training["details"]["rows_digest"] == record["scored"]["validation"]


def test_rows_are_compared_by_texts_and_labels_alone():
    rows = load_task("sst2").load("validation", sample=True)
    assert rows_digest(rows) == rows_digest(rows.remove_columns("idx").select(range(len(rows))))
    flipped = [1 - label for label in rows["label"]]
    for other in (rows.select(range(len(rows) - 1)), rows.remove_columns("label").add_column("label", flipped)):
        assert rows_digest(other) != rows_digest(rows)


def test_tokenizers_are_distinguished_by_their_behaviour(tokenizer, texts, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    assert tokenizer_digest(AutoTokenizer.from_pretrained(tmp_path)) == tokenizer_digest(tokenizer)
    used = GPT1Tokenizer.from_pretrained(tmp_path)
    used(texts[:2], padding=True, truncation=True, max_length=4)  # leaves its mark in the backend's state
    assert tokenizer_digest(used) == tokenizer_digest(tokenizer)

    # The same entries, but two merges in another order; the same, but text is not lower-cased; one entry more.
    spec = json.loads((tmp_path / "tokenizer.json").read_text())
    merges = spec["model"]["merges"]
    others = [{**spec, "model": {**spec["model"], "merges": merges[::-1]}}, {**spec, "normalizer": None}]
    for number, other in enumerate(others):
        folder = shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}-{number}"))
        (folder / "tokenizer.json").write_text(json.dumps(other))
        assert tokenizer_digest(AutoTokenizer.from_pretrained(folder)) != tokenizer_digest(tokenizer)
    assert tokenizer_digest(GPT1Processor(tokenizer).tokenizer) != tokenizer_digest(tokenizer)


@pytest.mark.parametrize("kind", ["other vocabulary", "other ids", "larger"])
def test_another_tokenizer_is_refused(models, model, tmp_path, kind):
    if kind == "other vocabulary":
        texts = [" ".join(WORDS[::-1]), "what a zebra, quietly"]
        other = GPT1Tokenizer.train(texts, vocab_size=160, model_max_length=64, show_progress=False)
        GPT1Processor(other).save_pretrained(model)
    elif kind == "other ids":  # the size is equal: only the record shows it
        path = model / "tokenizer.json"
        spec = json.loads(path.read_text())
        vocab = spec["model"]["vocab"]
        vocab["the</w>"], vocab["a</w>"] = vocab["a</w>"], vocab["the</w>"]
        path.write_text(json.dumps(spec))
    else:
        tokenizer = AutoTokenizer.from_pretrained(model)
        tokenizer.add_tokens(["zebra"])
        tokenizer.save_pretrained(model)
        change_config(model, trained_on=None)  # without a record, only the size shows it
    with pytest.raises(
        GPT1Error, match="the tokenizer of model .* (is not the one|has 164 tokens, but the model only 163)"
    ):
        score(model, tmp_path)
    shutil.copytree(model, tmp_path / "models" / "sst2")
    with pytest.raises(GPT1Error, match="sst2: the tokenizer of model"):
        submit(SubmitArguments(models=str(tmp_path / "models"), output_dir=str(tmp_path / "out")))
    assert not (tmp_path / "eval" / "results.json").exists()


@pytest.mark.parametrize("names", [["positive", "negative"], ["neg", "pos"], ["negative", "neutral", "positive"]])
def test_another_label_map_is_refused(model, tmp_path, names):
    change_config(model, id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)})
    with pytest.raises(GPT1Error, match="has the labels|its configuration says"):
        score(model, tmp_path)


def test_the_labels_of_training_are_compared_too(model, tmp_path):
    record = trained_on(open_config(str(model)))
    change_config(model, trained_on={**record, "labels": ["positive", "negative"]})
    with pytest.raises(GPT1Error, match=r"was trained with the labels \['positive', 'negative'\], but task sst2"):
        score(model, tmp_path)


def test_another_format_is_refused(models, model, tmp_path):
    with pytest.raises(GPT1Error, match="not fine-tuned for the entailment format of task qnli"):
        score(model, tmp_path, task="qnli")
    path = model / "processor_config.json"
    path.write_text(path.read_text().replace('"classification"', '"entailment"'))
    with pytest.raises(GPT1Error, match="not fine-tuned for the classification format of task sst2"):
        score(model, tmp_path)


def test_a_model_of_another_task_with_the_same_labels_is_marked_and_not_submitted(models, tmp_path, caplog):
    (result,) = score(models["qnli"], tmp_path, task="rte")
    assert result.details["trained_on"] == "qnli"
    assert "was fine-tuned on qnli, not on rte" in caplog.text
    shutil.copytree(models["qnli"], tmp_path / "models" / "rte")
    with pytest.raises(GPT1Error, match="rte: the model in .* was fine-tuned on qnli, not on rte"):
        submit(SubmitArguments(models=str(tmp_path / "models"), output_dir=str(tmp_path / "out")))


def test_other_rows_give_a_warning(models, base_model, tmp_path, caplog):
    rows = load_task("sst2").load("train", sample=True)
    own_rows = [{"sentence": row["text"], "label": row["label"]} for row in rows]
    data = tmp_path / "data" / "nyu-mll" / "glue" / "sst2"
    write_jsonl(data / "train.jsonl", own_rows[:20])
    write_jsonl(data / "validation.jsonl", own_rows[20:30])
    here = {"sample": False, "data_dir": str(tmp_path / "data")}
    model = fine_tuned(base_model, tmp_path / "own", "sst2", max_train_examples=None, **here)
    caplog.clear()
    score(model, tmp_path, **here)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    write_jsonl(data / "validation.jsonl", own_rows[:20])
    score(model, tmp_path, **here)
    assert "the rows of validation are not those that model" in caplog.text
    assert "the rows of validation are the training rows of model" in caplog.text


def test_a_model_without_a_record_is_scored_by_what_its_folder_says(models, model, tmp_path):
    change_config(model, trained_on=None)
    (result,), (expected,) = score(model, tmp_path), score(models["sst2"], tmp_path)
    assert result.value == expected.value and result.seed is None and "tokenizer" not in result.details


def test_rows_are_as_long_as_in_training(base_model, tmp_path):
    model = fine_tuned(base_model, tmp_path / "short", "sst2", max_length=8)
    trained = [json.loads(line) for line in (model / "predictions.jsonl").read_text().splitlines()]
    score(model, tmp_path)
    scored = [json.loads(line) for line in (tmp_path / "eval" / "predictions.jsonl").read_text().splitlines()]
    assert any(row["truncated"] for row in trained)
    assert [row["truncated"] for row in scored] == [row["truncated"] for row in trained]


def test_the_pipeline_for_multiple_choice_checks_them_too(models, tmp_path):
    folder = str(models["story_cloze"])
    question = {"document": "the old lady spoke", "choices": ["the end", "a letter"]}
    assert pipeline("multiple-choice", model=folder)(question)["answer"] in question["choices"]
    other = GPT1Tokenizer.train([" ".join(WORDS[::-1])], vocab_size=120, model_max_length=64, show_progress=False)
    with pytest.raises(ValueError, match="is not the one it was trained with"):
        pipeline("multiple-choice", model=folder, processor=GPT1Processor(other, "multiple_choice"))
    with pytest.raises(ValueError, match="has the format 'entailment'"):
        pipeline("multiple-choice", model=folder, processor=GPT1Processor(other, "entailment"))


def test_an_invalid_record_is_ignored(model, tokenizer):
    for odd in ("text", [1], 7):
        config = open_config(str(model))
        object.__setattr__(config, "trained_on", odd)
        check_tokenizer(config, tokenizer, "m")


class TestRowsOfTheSplit:
    """A score on a part of a split is marked as such wherever it is shown."""

    def test_of_a_local_part(self, models, tmp_path, capsys):
        rows = load_task("sst2").load("validation", sample=True)
        own_rows = [{"sentence": row["text"], "label": row["label"]} for row in rows]
        write_jsonl(tmp_path / "data" / "nyu-mll" / "glue" / "sst2" / "validation.jsonl", own_rows[:20])
        (result,) = score(models["sst2"], tmp_path, sample=False, data_dir=str(tmp_path / "data"))
        assert (result.n_examples, result.details["rows_of_split"], result.rows) == (20, 872, "20 of 872")
        assert "20 of 872" in capsys.readouterr().out
        assert main(["report", str(tmp_path)]) == 0
        page = (tmp_path / "report.html").read_text()
        assert "Scored on a part of the split: sst2 validation (20 of 872 rows)." in page

    def test_of_max_examples(self, models, tmp_path, capsys):
        argv = ["evaluate", "--model", str(models["sst2"]), "--task", "sst2", "--sample", "--max_examples", "7"]
        assert main([*argv, "--output_dir", str(tmp_path)]) == 0
        (row,) = json.loads((tmp_path / "results.json").read_text())
        assert row["n_examples"] == 7 and row["details"]["max_examples"] == 7
        assert "7 (sample)" in capsys.readouterr().out
        assert main([*argv[:-1], "0", "--output_dir", str(tmp_path)]) == 2
        assert "max_examples must be at least 1, not 0" in capsys.readouterr().err

    def test_of_documents(self, base_model, texts, tmp_path):
        (tmp_path / "texts").mkdir()
        for number, text in enumerate(texts[:5]):
            (tmp_path / "texts" / f"{number}.txt").write_text(text)
        args = {"model": base_model, "text_file": str(tmp_path / "texts"), "output_dir": str(tmp_path / "out")}
        (whole, *_), (part, *_) = (
            evaluate(EvaluateArguments(**args)),
            evaluate(EvaluateArguments(**args, max_examples=2)),
        )
        scored, of_all = part.details["scored_characters"], sum(map(len, texts[:5]))
        assert scored in [len(one) + len(other) for one, other in combinations(texts[:5], 2)]
        in_characters = f"({scored:,} of {of_all:,} characters)"
        assert (whole.rows, part.rows) == ("5", f"2 of 5 {in_characters}")

    def test_in_averages_and_tables(self):
        def result(task, metric, n_examples, **details):
            return Result(task, "validation", metric, 50.0, n_examples, None, "m", 1, details)

        pairs = {"cola": "matthews_correlation", "mrpc": "f1", "stsb": "pearson", "qqp": "f1"}
        results = [result(task, metric, 10) for task, metric in pairs.items()]
        results += [result(task, "accuracy", 10) for task in ("sst2", "qnli")]
        results += [result("rte", "accuracy", 10, rows_of_split=277)]
        for subset in ("matched", "mismatched"):
            results.append(Result("mnli", f"validation_{subset}", "accuracy", 50.0, 10, None, "m", 1, {}))
        (average,) = glue_averages(results)
        assert average.rows == "90 of 357"
        assert "10 of 277" in format_results(results)

    def test_every_task_knows_the_sizes_of_its_splits(self):
        for task in all_tasks(zero_shot=True).values():
            lacking = set(task.splits) - {name.split("_")[0] for name in task.sizes}
            assert lacking == ({"validation"} if task.id == "dpr" else set())  # which only the sample has
            for split in task.splits:
                own = [task.sizes[f"{split}_{part}"] for part in task.subsets if f"{split}_{part}" in task.sizes]
                assert not own or split not in task.sizes or sum(own) == task.sizes[split], (task.id, split)

    def test_the_sizes_are_those_of_the_data(self, data_dir):
        """Only for whole copies: the data folder has parts of the other tasks."""
        for task_id in ("cola", "rte", "sst2", "mrpc", "stsb"):
            task = load_task(task_id)
            for split in ("train", "validation"):
                assert len(task.load(split, data_dir)) == task.sizes[split], (task_id, split)
        assert len(load_task("mnli").load("validation_matched", data_dir)) == 9815
        assert len(load_task("race").load("validation_middle", data_dir)) == 1436
