"""Fine-tuning on the packaged samples: train, evaluate, load back as a user would."""

import dataclasses
import json
import math
import shutil
import statistics

import pytest
import torch
from helpers.data import write_jsonl, write_stories
from helpers.runs import finetune_arguments
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoProcessor,
    AutoTokenizer,
    pipeline,
)

from gpt1_hf.analysis.report import runs as report_runs
from gpt1_hf.analysis.report.groups import grouped
from gpt1_hf.errors import GPT1Error
from gpt1_hf.evaluation import task_scores
from gpt1_hf.evaluation.evaluate import EvaluateArguments, evaluate
from gpt1_hf.tasks import all_tasks
from gpt1_hf.training import finetune as finetuning
from gpt1_hf.training.finetune import finetune


def arguments(base_model, tmp_path, **changes):
    return finetune_arguments(base_model, tmp_path, **{"max_train_examples": 48, **changes})


# Split and metric of each row of results, for tasks with several rows.
SEVERAL_RESULTS = {
    "mnli": [("validation_matched", "accuracy", 82.1), ("validation_mismatched", "accuracy", 81.4)],
    "race": [
        ("validation", "accuracy", 59.0),
        ("validation_middle", "accuracy", 62.9),
        ("validation_high", "accuracy", 57.4),
    ],
    "mrpc": [("validation", "f1", 82.3), ("validation", "accuracy", None)],
    "qqp": [("validation", "f1", 70.3), ("validation", "accuracy", None)],
    "stsb": [("validation", "pearson", 82.0), ("validation", "spearman", None)],
}


def read_predictions(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


# Both orders of training rows for the task with one sequence per row, and one order for the other tasks.
@pytest.mark.parametrize(
    ("task_id", "sampling"), [("cola", "group_by_length"), *((task_id, "random") for task_id in sorted(all_tasks()))]
)
def test_finetune_evaluate_and_reload(task_id, sampling, base_model, tmp_path):
    run, task = tmp_path / "run", all_tasks()[task_id]
    results = finetune(arguments(base_model, tmp_path, task=task_id, train_sampling_strategy=sampling))
    expected = SEVERAL_RESULTS.get(task_id, [("validation", task.metric, task.paper)])
    assert [(result.split, result.metric, result.paper) for result in results] == expected
    assert {result.task for result in results} == {task_id}
    assert results[0].details["n_train_examples"] == min(48, len(task.load("train", sample=True)))
    # The sample of Story Cloze has no test stories.
    assert results[0].details.get("not_run", []) == (["test"] if task_id == "story_cloze" else [])
    predictions = read_predictions(run)
    assert len(predictions) == len(task.load("validation", sample=True))
    keys = {"id", "label", "prediction", "scores", "truncated"}
    assert set(predictions[0]) == keys | ({"subset"} if task.subsets else set())
    for row in predictions:
        if task.score_range:
            assert row["scores"] == [row["prediction"]] and 0 <= row["prediction"] <= 5
        else:
            assert len(row["scores"]) == len(task.label_names)
            assert sum(row["scores"]) == pytest.approx(1.0, abs=1e-5)
            assert row["scores"][row["prediction"]] == max(row["scores"])

    # `evaluate` on the saved folder, with other batches, finds the same numbers and the same predictions.
    again = evaluate(
        EvaluateArguments(model=str(run), task=task_id, sample=True, batch_size=3, output_dir=str(tmp_path / "eval"))
    )
    key = ("split", "metric", "value", "n_examples", "paper", "prior")
    assert [[getattr(r, name) for name in key] for r in again] == [[getattr(r, name) for name in key] for r in results]
    for row, before in zip(read_predictions(tmp_path / "eval"), predictions, strict=True):
        assert row["prediction"] == pytest.approx(before["prediction"], abs=1e-5)
        assert row["scores"] == pytest.approx(before["scores"], abs=1e-5)


def test_a_score_can_be_learned_by_squared_error(base_model, tmp_path):
    finetune(arguments(base_model, tmp_path, task="stsb", plain_regression=True))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    assert (model.config.regression_bins, model.config.num_labels, model.classifier.out_features) == (None, 1, 1)
    assert len({row["prediction"] for row in read_predictions(tmp_path / "run")}) > 1
    with pytest.raises(GPT1Error, match="plain_regression needs a task whose labels are scores"):
        finetune(arguments(base_model, tmp_path, task="cola", plain_regression=True))


def test_race_without_a_question_delimiter_as_in_the_paper(base_model, tmp_path):
    finetune(arguments(base_model, tmp_path, task="race", question_delimiter=False, max_train_examples=8))
    assert AutoProcessor.from_pretrained(tmp_path / "run").question_delimiter is False
    assert evaluate(EvaluateArguments(model=str(tmp_path / "run"), task="race", sample=True))


def test_a_push_publishes_curves_only_on_request(base_model, tmp_path):
    assert arguments(base_model, tmp_path, task="cola").trackio_static_space_id is False
    asked = arguments(base_model, tmp_path, task="cola", trackio_static_space_id="me/curves")
    assert asked.trackio_static_space_id == "me/curves"


def test_fewer_rows_than_a_batch(base_model, tmp_path, caplog):
    changes = {"task": "cola", "max_train_examples": 5, "per_device_train_batch_size": 8}
    with pytest.raises(GPT1Error, match="5 training rows are fewer than one batch, and dataloader_drop_last"):
        finetune(arguments(base_model, tmp_path, dataloader_drop_last=True, **changes))
    assert not (tmp_path / "run").exists()
    finetune(arguments(base_model, tmp_path, **changes))
    assert "5 training rows are fewer than the 8 of one update" in caplog.text
    assert (tmp_path / "run" / "results.json").is_file()


def test_plain_pipeline_agrees_with_the_predictions(base_model, tmp_path):
    run = str(tmp_path / "run")
    finetune(arguments(base_model, tmp_path, task="sst2"))
    rows = all_tasks()["sst2"].load("validation", sample=True)
    model = AutoModelForSequenceClassification.from_pretrained(run)
    classifier = pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(run))
    answers = classifier(rows["text"][:5], top_k=None)
    with open(f"{run}/predictions.jsonl") as file:
        expected = [json.loads(line)["scores"] for line in file][:5]
    for answer, scores in zip(answers, expected, strict=True):
        by_name = {entry["label"]: entry["score"] for entry in answer}
        assert [by_name["negative"], by_name["positive"]] == pytest.approx(scores, abs=1e-5)


def test_new_embeddings_are_drawn_like_any_weight(base_model, tmp_path):
    """The three special tokens start from N(0, initializer_range), not from the mean of the old rows."""
    finetune(arguments(base_model, tmp_path, task="sst2", num_train_epochs=0.01, learning_rate=0.0))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    rows = model.transformer.tokens_embed.weight.detach()
    assert rows.shape[0] == 163
    assert rows[160:].std() == pytest.approx(0.02, rel=0.35)
    assert not torch.allclose(rows[160], rows[161])


def test_from_scratch_draws_new_weights(base_model, tmp_path):
    finetune(arguments(base_model, tmp_path / "a", task="cola", num_train_epochs=0.01, learning_rate=0.0))
    finetune(
        arguments(base_model, tmp_path / "b", task="cola", num_train_epochs=0.01, learning_rate=0.0, from_scratch=True)
    )
    base = AutoModelForSequenceClassification.from_pretrained(base_model).transformer.h[0].mlp.up_proj.weight
    kept = AutoModelForSequenceClassification.from_pretrained(tmp_path / "a" / "run").transformer.h[0].mlp.up_proj
    drawn = AutoModelForSequenceClassification.from_pretrained(tmp_path / "b" / "run").transformer.h[0].mlp.up_proj
    assert torch.equal(kept.weight, base)
    assert not torch.equal(drawn.weight, base)


def test_seeds_make_one_run_each(base_model, tmp_path, capsys):
    args = arguments(base_model, tmp_path, task="cola", seeds=3, num_train_epochs=0.1)
    results = finetune(args)
    assert [result.seed for result in results] == [42, 43, 44]
    assert (tmp_path / "run" / "seed-43" / "model.safetensors").is_file()
    rows = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [row["value"] for row in rows] == [result.value for result in results]
    values = [result.value for result in results]
    found = rows[0]["details"]["over_seeds"]
    assert found["median"] == pytest.approx(sorted(values)[1], abs=0.01)
    assert found["mean"] == pytest.approx(statistics.mean(values), abs=0.01)
    assert found["std"] == pytest.approx(statistics.stdev(values), abs=0.01)
    assert (found["min"], found["max"]) == (min(values), max(values))
    assert f"median {found['median']:.1f}" in capsys.readouterr().out


def test_a_seed_whose_predictions_are_not_finite_counts_as_failed(base_model, tmp_path, monkeypatch, capsys):
    """The score of NaN is that of one answer for every row, and must not enter the mean."""
    scored, is_bad = task_scores.row_logits, []

    def row_logits(*args):
        return [logits * math.nan for logits in scored(*args)] if is_bad[-1] else scored(*args)

    def once(run, task, rows, own=finetuning.finetune_once):
        is_bad.append(run.args.seed == 43)
        return own(run, task, rows)

    monkeypatch.setattr(task_scores, "row_logits", row_logits)
    monkeypatch.setattr(finetuning, "finetune_once", once)
    results = finetune(arguments(base_model, tmp_path, task="mrpc", seeds=2, num_train_epochs=0.1))
    out = capsys.readouterr().out
    assert "failed: seed 43" in out and "predictions of mrpc validation are NaN or infinite" in out
    for result in results:
        n_bad = result.details.get("rows_not_finite")
        assert n_bad == (result.n_examples if result.seed == 43 else None)
        over = result.details["over_seeds"]
        assert (over["seeds"], over["failed_seeds"]) == ([42], [43])
    (group,) = (group for group in grouped(report_runs.scores(report_runs.collect(tmp_path))) if group.metric == "f1")
    assert list(group.values) == [42] and group.failed == [43]
    (single,) = {result.value for result in results if result.seed == 42 and result.metric == "f1"}
    assert group.mean == single


def test_seeds_resume_where_they_stopped(base_model, tmp_path, monkeypatch, capsys, caplog):
    """Seed 43 diverges: it is reported, and the others run. Later only seed 43 runs, unless settings differ."""
    train, trained = finetuning.finetune_once, []

    def fails(run, task, rows):
        trained.append(run.args.seed)
        if run.args.seed == 43:
            raise FloatingPointError("the training loss is nan at update 3")
        return train(run, task, rows)

    monkeypatch.setattr(finetuning, "finetune_once", fails)
    args = arguments(base_model, tmp_path, task="cola", seeds=3, num_train_epochs=0.1)
    results = finetune(args)
    assert trained == [42, 43, 44]
    assert [result.seed for result in results] == [42, 44]
    assert "cola, seed 43 failed: the training loss is nan at update 3" in caplog.text
    assert "failed: seed 43" in capsys.readouterr().out
    rows = json.loads((tmp_path / "run" / "results.json").read_text())
    assert rows[0]["details"]["over_seeds"]["failed_seeds"] == [43]
    assert rows[0]["details"]["over_seeds"]["seeds"] == [42, 44]

    monkeypatch.setattr(finetuning, "finetune_once", train)
    again = finetune(dataclasses.replace(args, logging_steps=7))
    assert [result.seed for result in again] == [42, 43, 44]
    err = capsys.readouterr().err
    assert "seed 42: already finished" in err
    assert "seed 43: already finished" not in err
    assert {r.seed: r.value for r in again if r.seed != 43} == {r.seed: r.value for r in results}

    caplog.clear()
    finetune(dataclasses.replace(args, seeds=2, learning_rate=1e-3))
    assert "different settings (learning_rate was " in caplog.text
    assert "already finished" not in capsys.readouterr().err

    monkeypatch.setattr(finetuning, "finetune_once", fails)
    with pytest.raises(FloatingPointError):
        finetune(arguments(base_model, tmp_path / "one", task="cola", seed=43))


def test_settings_can_be_chosen_on_held_out_training_rows(base_model, tmp_path):
    (result,) = finetune(arguments(base_model, tmp_path, task="sst2", held_out_share=0.1, max_train_examples=None))
    assert (result.split, result.n_examples, result.details["n_train_examples"]) == ("held-out train", 40, 360)
    rows = all_tasks()["sst2"].load("train", sample=True)
    texts = dict(zip(rows["idx"], rows["label"], strict=True))
    predictions = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    assert all(texts[row["id"]] == row["label"] for row in predictions)
    with pytest.raises(GPT1Error, match="at least 0 and below 1, not 1.5"):
        finetune(arguments(base_model, tmp_path, task="sst2", held_out_share=1.5))


@pytest.mark.parametrize("task_id", ["mnli", "race", "sst2"])
def test_a_part_of_the_rows_is_scored_as_evaluate_scores_it(task_id, base_model, tmp_path, caplog):
    settings = {"task": task_id, "max_eval_examples": 7, "max_train_examples": 10, "score_train": True}
    results = finetune(arguments(base_model, tmp_path, **settings))
    run = tmp_path / "run"
    assert results[0].details["max_examples"] == 7
    assert all(result.n_examples <= 7 for result in results)
    assert [result.n_examples for result in results if result.split == "train"] == [7]
    assert len(read_predictions(run)) == 7
    part = EvaluateArguments(
        task=task_id, model=str(run), sample=True, max_examples=7, output_dir=str(tmp_path / "evaluated")
    )
    again = evaluate(part)
    assert read_predictions(tmp_path / "evaluated") == read_predictions(run)
    own = [(r.split, r.metric, r.value, r.n_examples) for r in results if not r.split.startswith("train")]
    assert [(r.split, r.metric, r.value, r.n_examples) for r in again] == own
    evaluate(dataclasses.replace(part, max_examples=None))
    assert "cannot be compared" not in caplog.text


def test_a_part_of_the_held_out_rows_is_scored(base_model, tmp_path):
    changes = {"held_out_share": 0.1, "max_train_examples": 16, "max_eval_examples": 9}
    (result,) = finetune(arguments(base_model, tmp_path, task="sst2", **changes))
    assert (result.split, result.n_examples, result.details["n_train_examples"]) == ("held-out train", 9, 16)
    with pytest.raises(GPT1Error, match="max_eval_examples"):
        finetune(arguments(base_model, tmp_path, task="sst2", max_eval_examples=0))


def test_the_best_checkpoint_is_an_option_and_is_reported(base_model, tmp_path):
    (result,) = finetune(
        arguments(
            base_model,
            tmp_path,
            task="sst2",
            num_train_epochs=2,
            eval_strategy="epoch",
            save_strategy="epoch",
            load_best_model_at_end=True,
            metric_for_best_model="accuracy",
        )
    )
    assert result.details["checkpoint"] == "best on validation"


def test_bad_input_is_named(base_model, tmp_path):
    with pytest.raises(GPT1Error, match="--task"):
        finetune(arguments(base_model, tmp_path))
    with pytest.raises(GPT1Error, match="did you mean cola"):
        finetune(arguments(base_model, tmp_path, task="colla"))
    with pytest.raises(GPT1Error, match="task dpr cannot be fine-tuned: it is for `gpt1 zero-shot` only"):
        finetune(arguments(base_model, tmp_path, task="dpr"))
    with pytest.raises(GPT1Error, match="no/such/model"):
        finetune(arguments("no/such/model", tmp_path, task="cola"))
    with pytest.raises(GPT1Error, match="no/such/model"):
        evaluate(EvaluateArguments(model="no/such/model", task="race", output_dir=str(tmp_path / "eval")))
    with pytest.raises(GPT1Error, match=r"classifier.*fine-tune it first"):
        evaluate(EvaluateArguments(model=base_model, task="cola", sample=True, output_dir=str(tmp_path / "eval")))
    assert not (tmp_path / "run" / "results.json").exists()
    assert not (tmp_path / "eval" / "results.json").exists()


def test_a_model_of_another_task_is_refused(base_model, tmp_path):
    finetune(arguments(base_model, tmp_path, task="sst2", num_train_epochs=0.01))
    for task_id, message in {
        "cola": "negative.*acceptable",
        "race": "not fine-tuned for the multiple_choice format of task race",
        "stsb": "not fine-tuned for the similarity format of task stsb",
        "dpr": "for `gpt1 zero-shot` only",
    }.items():
        with pytest.raises(GPT1Error, match=message):
            evaluate(
                EvaluateArguments(
                    model=str(tmp_path / "run"), task=task_id, sample=True, output_dir=str(tmp_path / "eval")
                )
            )
    assert not (tmp_path / "eval").exists()


def test_missing_splits_do_not_stop_the_others(base_model, tmp_path, capsys):
    """A copy of RACE without the high-school questions of validation, and Story Cloze with test stories."""
    question = {"article": "It is a rainy day.", "question": "How is it?", "options": list("wxyz"), "answer": "B"}
    rows = [{"example_id": f"{school}{n}.txt", **question} for n in range(4) for school in ("middle", "high")]
    race = tmp_path / "data" / "ehovy" / "race"
    write_jsonl(race / "all" / "train.jsonl", rows)
    write_jsonl(race / "middle" / "validation.jsonl", rows[:5:2])
    changes = {"sample": False, "data_dir": str(tmp_path / "data")}
    results = finetune(arguments(base_model, tmp_path, task="race", **changes))
    assert [(result.split, result.n_examples) for result in results] == [("validation_middle", 3)]
    assert results[0].details["not_run"] == ["validation", "validation_high"]
    assert "not run: race validation_high" in capsys.readouterr().out

    stories = tmp_path / "data" / "story_cloze"
    write_stories(stories / "cloze_test_val__spring2016 - cloze_test_ALL_val.csv", 20)
    write_stories(stories / "cloze_test_test__spring2016 - cloze_test_ALL_test.csv", 6)
    changes["output_dir"] = str(tmp_path / "stories")
    results = finetune(arguments(base_model, tmp_path, task="story_cloze", **changes))
    assert [(result.split, result.n_examples, result.paper) for result in results] == [
        ("validation", 4, 86.5),
        ("test", 6, 86.5),
    ]
    assert "not_run" not in results[0].details
    assert len((tmp_path / "stories" / "predictions_test.jsonl").read_text().splitlines()) == 6


def test_hidden_labels_give_predictions_without_a_number(base_model, tmp_path, capsys):
    finetune(arguments(base_model, tmp_path, task="stsb", num_train_epochs=0.01))
    rows = [{"sentence1": "the lady", "sentence2": "the captain", "label": -1.0, "idx": n} for n in range(3)]
    write_jsonl(tmp_path / "data" / "nyu-mll" / "glue" / "stsb" / "test.jsonl", rows)
    results = evaluate(
        EvaluateArguments(
            model=str(tmp_path / "run"),
            task="stsb",
            split="test",
            data_dir=str(tmp_path / "data"),
            output_dir=str(tmp_path / "eval"),
        )
    )
    assert results == []
    assert "labels of stsb (test) are hidden" in capsys.readouterr().err
    assert [row["label"] for row in read_predictions(tmp_path / "eval")] == [-1.0] * 3


def test_the_head_of_another_task_is_replaced(base_model, tmp_path):
    first, step = str(tmp_path / "first"), {"max_steps": 1}
    finetune(arguments(base_model, tmp_path, task="sst2", output_dir=first, **step))
    old = AutoModelForSequenceClassification.from_pretrained(first).classifier.weight
    frozen = {"output_dir": str(tmp_path / "cola"), "learning_rate": 0.0, "seed": 7, **step}
    finetune(arguments(first, tmp_path, task="cola", **frozen))
    new = AutoModelForSequenceClassification.from_pretrained(tmp_path / "cola")
    assert not torch.allclose(new.classifier.weight, old)
    assert new.classifier.weight.std().item() == pytest.approx(new.config.initializer_range, rel=0.3)
    finetune(arguments(first, tmp_path, task="mnli", output_dir=str(tmp_path / "mnli"), **step))  # three labels


def test_a_run_is_repeated_if_its_base_model_was_trained_again(base_model, tmp_path, capsys, caplog):
    base = shutil.copytree(base_model, tmp_path / "base")
    args = arguments(str(base), tmp_path, task="sst2", max_steps=1)
    finetune(args, resume=True)
    finetune(args, resume=True)
    assert "already finished" in capsys.readouterr().err
    model = AutoModelForCausalLM.from_pretrained(base)
    model.transformer.h[0].ln_1.weight.data += 1
    model.save_pretrained(base)
    (result,) = finetune(args, resume=True)
    assert "already finished" not in capsys.readouterr().err and "different settings (weights was " in caplog.text
    assert result.details["epochs"] < 1
