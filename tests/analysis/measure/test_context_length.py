"""`gpt1 analyze context-length`: the numbers of `gpt1 evaluate` at each length, in one results file and figure."""

import json

from gpt1_hf import GPT1ForSequenceClassification
from gpt1_hf.analysis.report.report import report
from gpt1_hf.checkpoints.loading import open_config, open_tokenizer
from gpt1_hf.cli import main
from gpt1_hf.evaluation.evaluate import EvaluateArguments, evaluate
from gpt1_hf.processing_gpt1 import GPT1Processor


def measure(*argv) -> int:
    return main(["analyze", "context-length", *map(str, argv)])


def test_text_and_task_at_each_length(base_model, tmp_path, texts, caplog):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(texts[:10]))
    finetuned = tmp_path / "sst2"
    processor = GPT1Processor(open_tokenizer(base_model), "classification")
    names = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    model = GPT1ForSequenceClassification(open_config(base_model, **names))
    model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    model.save_pretrained(finetuned)
    processor.save_pretrained(finetuned)

    out = tmp_path / "out"
    argv = ["--model", base_model, "--text_file", text, "--lengths", 64, 8, 16, 128, "--output_dir", out]
    assert measure(*argv, "--finetuned", finetuned, "--task", "sst2", "--sample") == 0
    assert "context of 64: not run at 128" in caplog.text
    rows = json.loads((out / "results.json").read_text())
    values = {(row["metric"], row["details"]["context_length"]): row["value"] for row in rows}
    metrics = ("perplexity", "bits_per_character", "accuracy")
    assert set(values) == {(metric, length) for metric in metrics for length in (8, 16, 64)}
    again = EvaluateArguments(model=base_model, text_file=str(text), max_length=16, output_dir=str(tmp_path / "again"))
    assert values["perplexity", 16] == evaluate(again)[0].value
    assert "| accuracy " in (out / "analysis.md").read_text()
    for metric in ("perplexity", "accuracy"):
        assert (out / "figures" / f"context_length_{metric}.svg").is_file()
    page = report(tmp_path / "out").read_text()
    assert "Accuracy by context length" in page and page.count("<svg") >= 2


def test_bad_input_is_one_sentence(base_model, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("The old lady wept.")
    out = ["--model", base_model, "--output_dir", tmp_path / "out"]
    cases = {
        "all of the lengths are longer": [*out, "--text_file", tmp_path / "text.txt", "--lengths", 100],
    }
    for message, argv in cases.items():
        assert measure(*argv) == 1
        assert message in capsys.readouterr().err
    assert measure(*out) == 2
    assert "analyze context-length needs --text_file or --finetuned" in capsys.readouterr().err


def test_analyze_lists_its_actions(capsys):
    try:
        main(["analyze", "--help"])
    except SystemExit as stop:
        assert stop.code == 0
    text = capsys.readouterr().out
    assert "zero-shot" in text and "context-length" in text
