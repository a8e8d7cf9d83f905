"""Cards and results of runs on a user's own data: real, tiny runs for each format and kind of labels."""

import json
import re
from pathlib import Path

import pytest
import yaml
from helpers.data import write_jsonl
from helpers.hub_server import card_errors
from huggingface_hub import ModelCard
from transformers import pipeline

from gpt1_hf.cli import main
from gpt1_hf.evaluation.results import RESULTS


WORDS = ["lady", "captain", "garden", "house", "letter", "night"]


def rows_of(input_format: str, label) -> list[dict]:
    """Thirty rows whose label depends on their number."""
    rows = []
    for number in range(30):
        first, second = f"the old {WORDS[number % 6]}", f"a {WORDS[number // 6]} wept"
        texts = {
            "classification": {"review": f"{first} and {second}"},
            "entailment": {"review": first, "other": second},
            "similarity": {"review": first, "other": second},
            "multiple_choice": {"review": first, "choices": [second, "he smiled", "it was dark"]},
            "token_classification": {"review": [*first.split(), *second.split()]},
        }
        rows.append({**texts[input_format], "label": label(number)})
    return rows


COLUMNS = {
    "classification": {"text": "review"},
    "entailment": {"premise": "review", "hypothesis": "other"},
    "similarity": {"text_a": "review", "text_b": "other"},
    "multiple_choice": {"document": "review", "choices": "choices"},
    "token_classification": {"words": "review"},
}
# Name of the case -> input format, label of a row by its number, and further keys of the task.
CASES = {
    "classes": ("classification", lambda n: ("bad", "good", "so so")[n % 3], {}),
    "several": ("classification", lambda n: [["sad"], ["sad", "old"], ["new"]][n % 3], {}),
    "scores": ("similarity", lambda n: n % 7 - 3.5, {"other_metrics": ["spearman"]}),
    "pairs": ("entailment", lambda n: n % 2, {"metric": "f1", "other_metrics": ["accuracy", "matthews_correlation"]}),
    "choices": ("multiple_choice", lambda n: "ABC"[n % 3], {}),
    "tags": ("token_classification", lambda n: ["DET", "ADJ", "NOUN", "DET", "NOUN", "VERB"], {}),
}


def write_task(folder: Path, name: str, **changes) -> str:
    input_format, label, keys = CASES[name]
    write_jsonl(folder / f"{name} train.jsonl", rows_of(input_format, label))
    content = {"train_file": f"{name} train.jsonl", "input_format": input_format, "columns": COLUMNS[input_format]}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**content, **keys, **changes}), encoding="utf-8")
    return str(path)


def finetune(task: str, out: Path, model: str, *argv: str) -> tuple[dict, str]:
    """Fine-tune for two updates; metadata and text of the card."""
    assert main([*command(task, out, model), "--max_steps", "2", *argv]) == 0
    return card_of(out)


def command(task: str, out: Path, model: str) -> list[str]:
    settings = ["--per_device_train_batch_size", "4", "--report_to", "none", "--disable_tqdm", "true", "--use_cpu"]
    return ["finetune", "--task", task, "--output_dir", str(out), "--model", model, *settings]


def card_of(folder: Path) -> tuple[dict, str]:
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card_errors(card) == []
    read = ModelCard(card)
    assert ModelCard(f"---\n{read.data.to_yaml()}\n---\n").data.eval_results == read.data.eval_results
    for evaluation in read.data.eval_results:
        assert -1 <= evaluation.metric_value <= 1
        assert evaluation.metric_type in ("accuracy", "f1", "matthews_correlation", "pearsonr", "spearmanr")
        assert evaluation.metric_name[0].isupper() and evaluation.dataset_split in ("train", "validation", "test")
    return yaml.safe_load(card.split("---\n")[1]), read.text


@pytest.mark.parametrize("name", CASES)
def test_a_run_on_files_says_what_ran_and_not_where(name, base_model, tmp_path, monkeypatch, capsys):
    home = tmp_path / "home" / "anna"
    home.mkdir(parents=True)
    monkeypatch.chdir(Path(base_model).parent)  # results name the model as it was given
    metadata, text = finetune(write_task(home, name), tmp_path / "out", Path(base_model).name)
    for file in ("README.md", "config.json", RESULTS):
        content = (tmp_path / "out" / file).read_text(encoding="utf-8")
        for secret in ("/home", str(tmp_path), str(Path.home()) + "/", "/tmp", "anna"):
            assert secret not in content, (file, secret)
        assert not re.search(r"""["'`(\s]/\w""", content), file
        assert "Infinity" not in content and "NaN" not in content
    # Words, and no section or column without content.
    assert "benchmark" not in text and "paper |" not in text and "best before" not in text
    assert "hidden) test set" not in text and "None" not in text
    assert not re.search(r"^#+ .*\n+#", text, flags=re.MULTILINE) and "\n\n\n" not in text
    assert "\nmodel\n" not in text
    assert f"rows of the data set `{name} train.jsonl`." in text
    assert "10% were held out for validation" in text

    results = json.loads((tmp_path / "out" / RESULTS).read_text())
    (model,) = metadata["model-index"]
    (evaluation,) = model["results"]
    assert "datasets" not in metadata and "base_model" not in metadata
    assert evaluation["dataset"]["name"] == f"{name} train.jsonl"
    assert evaluation["dataset"]["type"] == f"{name}-train.jsonl"
    assert evaluation["dataset"]["split"] == "validation"
    assert evaluation["dataset"]["args"]["held_out_share"] == 0.1
    values = [round(result["value"] / 100, 4) for result in results]
    assert [metric["value"] for metric in evaluation["metrics"]] == values
    answers = {
        "classes": "answers `bad`, `good`, `so so`.",
        "several": "answers any of `new`, `old`, `sad`.",
        "scores": "answers with a score.",
        "pairs": "answers `0`, `1`.",
        "choices": "chooses one of 3 answers.",
        "tags": "answers for each word `ADJ`, `DET`, `NOUN`, `VERB`.",
    }
    assert answers[name] in text

    capsys.readouterr()
    (snippet,) = re.findall(r"```python\n(.*?)```\n", text, flags=re.DOTALL)
    exec(compile(re.sub(r"^name = .*$", f"name = {str(tmp_path / 'out')!r}", snippet, flags=re.M), "card", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_seeds_a_test_split_and_many_labels(base_model, tmp_path):
    labels = [f"intent {number:02}" for number in range(25)]
    rows = [{"text": f"the {WORDS[n % 6]}", "label": labels[n % 25]} for n in range(50)]
    for split in ("train", "dev", "test"):
        write_jsonl(tmp_path / f"{split}.jsonl", rows)
    path = tmp_path / "intents.yaml"
    files = {"train_file": "train.jsonl", "validation_file": "dev.jsonl", "test_file": "test.jsonl"}
    path.write_text(
        yaml.safe_dump({**files, "input_format": "classification", "scored_splits": ["validation", "test"]})
    )
    assert main([*command(str(path), tmp_path / "out", base_model), "--max_steps", "1", "--seeds", "2"]) == 0
    metadata, text = card_of(tmp_path / "out" / "seed-42")
    splits = [evaluation["dataset"]["split"] for evaluation in metadata["model-index"][0]["results"]]
    assert splits == ["validation", "test"]
    assert all("held_out_share" not in entry["dataset"]["args"] for entry in metadata["model-index"][0]["results"])
    assert "`intent 19` and 5 more labels" in text and "intent 20" not in text and "held out" not in text
    assert "| mean of 2 seeds |\n|---|---|---|---|---|\n" in text
    args = metadata["model-index"][0]["results"][0]["metrics"][0]["args"]
    assert args["n_seeds"] == 2 and 0 <= args["mean"] <= 1


def test_a_run_on_files_is_pushed(hub, client, base_model, tmp_path):
    run = tmp_path / "out"
    settings = ["--max_steps", 1, "--use_cpu", "--report_to", "none"]
    path = write_task(tmp_path, "classes")
    answer = client("finetune", "--task", path, "--output_dir", run, "--model", base_model, *settings)
    assert answer["status"] == 0, answer
    assert client("push", base_model, "anna/start")["status"] == 0
    pushed = client("push", run, "anna/reviews", "--base_model", "anna/start", "--include", "predictions.jsonl")
    assert pushed["status"] == 0, pushed
    sent = hub.files("anna/reviews")
    card = sent["README.md"].decode()
    assert card_errors(card) == [] and "base_model: anna/start\n" in card and 'name = "anna/reviews"' in card
    for content in sent.values():
        assert str(tmp_path).encode() not in content and base_model.encode() not in content


def test_a_folder_of_data_is_named_without_its_path(base_model, tmp_path, monkeypatch):
    input_format, label, _ = CASES["classes"]
    write_jsonl(tmp_path / "anna" / "reviews" / "train.jsonl", rows_of(input_format, label))
    monkeypatch.chdir(Path(base_model).parent)
    path = write_task(tmp_path, "classes")
    content = {"dataset": str(tmp_path / "anna" / "reviews"), "input_format": input_format}
    Path(path).write_text(yaml.safe_dump({**content, "columns": COLUMNS[input_format]}))
    metadata, text = finetune(path, tmp_path / "out", Path(base_model).name, "--data_dir", str(tmp_path))
    assert "of the data set `reviews`." in text and "local copy" not in text and "datasets" not in metadata
    assert metadata["model-index"][0]["results"][0]["dataset"]["type"] == "reviews"
    for file in ("README.md", "config.json", RESULTS):
        assert "anna" not in (tmp_path / "out" / file).read_text(encoding="utf-8")


def test_held_out_training_rows_are_of_the_train_split(base_model, tmp_path):
    metadata, _ = finetune(write_task(tmp_path, "classes"), tmp_path / "out", base_model, "--held_out_share", "0.2")
    (evaluation,) = metadata["model-index"][0]["results"]
    assert evaluation["dataset"]["split"] == "train" and evaluation["dataset"]["args"]["held_out"] is True


def test_a_multiple_choice_of_ones_own_answers_in_a_pipeline(base_model, tmp_path):
    finetune(write_task(tmp_path, "choices"), tmp_path / "out", base_model)
    answer = pipeline("multiple-choice", model=str(tmp_path / "out"))
    choices = ["a lady wept", "he smiled", "it was dark"]
    found = answer({"document": "the old captain", "choices": choices}, top_k=None)
    assert sorted(one["answer"] for one in found) == sorted(choices)
    assert sum(one["score"] for one in found) == pytest.approx(1)
