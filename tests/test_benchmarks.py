"""Every benchmark runs at a tiny size. No test looks at a time."""

import dataclasses
import importlib
import json
import math
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from helpers.models import CLOSE, in_our_layout
from torch.testing import assert_close

from gpt1_hf import modeling_gpt1_cpu


FOLDER = Path(__file__).with_name("benchmarks")
SIZES = ["--layers", "1", "--hidden_size", "16", "--vocab_size", "90", "--span", "32"]


@pytest.fixture
def script(monkeypatch):
    """Import scripts, whose folder and names are known only during the test."""
    names = {path.stem for path in FOLDER.glob("*.py")}
    before = {name: sys.modules.pop(name) for name in names & {*sys.modules}}
    monkeypatch.syspath_prepend(FOLDER)
    for variable in ("TOKENIZERS_PARALLELISM", "RAYON_NUM_THREADS"):  # scripts set them for their own process
        monkeypatch.setenv(variable, os.environ.get(variable, ""))
    yield importlib.import_module
    for name in names & {*sys.modules}:
        del sys.modules[name]
    sys.modules.update(before)


def test_the_order_alternates_and_ratios_are_paired(script):
    measure, calls = script("measure"), []
    durations = {"ours": iter([1.0, 2.0, 4.0]), "OpenAIGPT": iter([2.0, 6.0, 4.0])}

    def step(name):
        calls.append(name)
        return next(durations[name])

    steps = {name: lambda name=name: step(name) for name in durations}
    costs, limits = measure.interleaved(steps, 3, lambda: calls.append("limit") or 7.0)
    assert " ".join(calls) == "limit ours OpenAIGPT limit OpenAIGPT ours limit ours OpenAIGPT limit"
    assert costs == {"ours": [1.0, 2.0, 4.0], "OpenAIGPT": [2.0, 6.0, 4.0]} and limits == [7.0] * 4
    assert measure.paired_ratios(costs) == {"OpenAIGPT": [2.0, 1.0, 3.0]}


def test_no_share_is_above_1(script):
    measure = script("measure")
    steps = {"ours": lambda: 0.5, "GPT-2": lambda: 2.0}
    found = measure.compare(
        "train", "x", "tokens/s", steps, 10, 3, {"ours": 10.0, "GPT-2": 10.0}, lambda: 15.0, "rate"
    )
    assert found.values == {"ours": 20.0, "GPT-2": 5.0} and found.ratios == {"GPT-2": [4.0, 4.0, 4.0]}
    assert found.limit == 20.0 and found.shares == {"ours": 1.0, "GPT-2": 0.25}


def test_the_number_type_is_that_of_the_hardware(script, monkeypatch):
    measure = script("measure")
    for has_bf16, expected in ((True, ["bf16", "fp32"]), (False, ["fp32"])):
        monkeypatch.setattr(measure, "has_half_precision", lambda *_, has_bf16=has_bf16: has_bf16)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has_bf16=has_bf16, **_: has_bf16)
        assert measure.number_types("cpu") == measure.number_types("cuda") == expected


def test_generation_counts_the_weights_of_the_model(script):
    contenders = script("contenders")
    sizes = contenders.tiny_sizes(contenders.Sizes(prompt=4, new_tokens=2))
    n_bytes = contenders.generation("ours", "fp32", sizes, 1, "cpu", tiny=True)[1]
    model = contenders.open_causal_lm("gpt1-tiny")
    products = sum(module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear))
    cached = (4 + 5) * 2 * sizes.layers * sizes.width
    assert n_bytes == 4 * (2 * products + cached)


def test_one_command_runs_everything_and_writes_the_table(script, tmp_path, monkeypatch, capsys):
    run, startup = script("run"), script("startup")
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- benchmarks:begin -->\nold\n<!-- benchmarks:end -->\nafter\n")
    monkeypatch.setattr(run, "README", readme)
    code = [sys.executable, "-c", ""]
    monkeypatch.setattr(startup, "cases", lambda: {"gpt1 --help": {"ours": code, "OpenAIGPT": code}})
    tiny = ["--quick", "--rounds", "1", "--megabytes", "0.002", "--output", str(tmp_path / "x" / "found.json")]
    run.main([*tiny, "--dtype", "fp32", "--write", "--model", *SIZES, "--new_tokens", "2"])
    content = json.loads((tmp_path / "x" / "found.json").read_text())
    assert {*content} == {"device", "precision", "versions", "command", "results"}
    assert content["precision"] == "fp32" and "torch" in content["versions"] and "--quick" in content["command"]
    results = content["results"]
    assert [one["section"] for one in results] == [
        *("train", "classify", "choice", "score"),
        *["generate"] * 4,
        *("tokenizer", "start-up"),
    ]
    for one in results:
        peers = {"OpenAIGPT"} if one["section"] in ("tokenizer", "start-up") else {"OpenAIGPT", "GPT-2"}
        assert {*one["values"]} == {"ours", *peers} and {*one["ratios"]} == peers
        assert all(low <= median <= high for median, low, high in one["ratios"].values())
        assert all(0 < share <= 1 for share in one["shares"].values())
        assert bool(one["shares"]) == (one["section"] in ("train", "classify", "score", "generate"))
    text = readme.read_text()
    assert text.startswith("before\n<!-- benchmarks:begin -->\n") and text.endswith("<!-- benchmarks:end -->\nafter\n")
    assert "old" not in text and text.count("\n| ") == 1 + len(results)
    assert (
        "matmul rate" in text and "bandwidth" in text and re.search(r"gpt1-tiny \([\d.]+ MB a step\), batch 8", text)
    )
    assert text.split("-->\n\n")[1].split("\n\n<!--")[0] == capsys.readouterr().out.rstrip("\n")


@pytest.mark.parametrize("task", ["train", "classify", "choice"])
def test_peak_memory(task, script, capsys):
    model = script("model")
    sizes = model.Sizes(layers=1, width=16, head_width=16, vocab=90, span=32, rows=1, short_rows=2, questions=1)
    model.measure_memory(task, "fp32", json.dumps(model.asdict(sizes)), "ours")
    assert float(capsys.readouterr().out) > 0


def test_choice_without_sharing_has_columns_of_its_own(script):
    model = script("model")
    sizes = model.Sizes(layers=1, width=16, head_width=16, vocab=90, span=32, questions=1)
    (found,) = model.compare_updates("choice", "fp32", sizes, 1, without_sharing=True)
    assert {*found.ratios} == {"OpenAIGPT", "GPT-2", "without sharing"}
    assert "ours over without sharing" in model.markdown([found])


@pytest.mark.parametrize(("task", "span"), [("classify", 8), ("classify", 48), ("choice", 16), ("choice", 96)])
def test_both_sides_compute_the_same_loss(task, span, script):
    contenders = script("contenders")
    sizes = contenders.Sizes(layers=1, width=16, head_width=16, vocab=90, span=span, short_rows=4, dropout=0.0)
    ours, theirs = (contenders.build(name, task, sizes).train() for name in ("ours", "OpenAIGPT"))
    renamed = {"multiple_choice_head.summary": "classifier", "score": "classifier"}
    weights = {
        next((name.replace(old, new) for old, new in renamed.items() if name.startswith(old)), name): weight
        for name, weight in theirs.state_dict().items()
    }
    missing = ours.load_state_dict(in_our_layout(weights), strict=False).missing_keys
    assert missing == (["classifier.bias"] if task == "classify" else [])
    torch.nn.init.zeros_(ours.classifier.bias)
    contenders.speed_up(ours, bf16=True)
    found, tasks = [], []
    for name, model in (("ours", ours), ("OpenAIGPT", theirs)):
        batch, _ = contenders.batch_of(name, task, sizes, ours)
        found.append(contenders.loss_of(name, task, model, model.get_input_embeddings(), batch))
        outputs = model(**batch)
        tasks.append(next(outputs[part] for part in ("task_loss", "mc_loss", "loss") if part in outputs))
    assert_close(*tasks, **CLOSE)
    if span < 48:  # all rows have the same length, so that the mean over rows is the mean over tokens
        assert_close(*found, **CLOSE)
    elif task == "classify":
        assert "position_ids" in contenders.batch_of("ours", task, sizes, ours)[0]  # packed


def test_compiled_contenders(script, monkeypatch):
    model = script("model")
    for name in ("update", "generation"):
        monkeypatch.setattr(model, name, lambda name, *_: (lambda: None, 1))
    monkeypatch.setattr(model, "matmul_peak", lambda *_: 1.0)
    monkeypatch.setattr(model, "memory_bandwidth", lambda *_: 1.0)
    found = model.main(["train", "classify", "generate", "--dtype", "fp32", "--quick", "--compile", *SIZES])
    assert [one.section for one in found if "ours, compiled" in one.ratios] == ["train", *["generate"] * 4]
    assert all("ours, compiled" in one.shares for one in found if one.section != "classify")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_the_compiled_step_of_generation_is_compiled_once(script):
    contenders = script("contenders")
    sizes = contenders.Sizes(layers=1, width=16, head_width=16, vocab=90, span=32, prompt=4, new_tokens=8)
    step, _ = contenders.generation("ours, compiled", "fp32", sizes, 2, "cpu")
    with torch._dynamo.config.patch(error_on_recompile=True):
        step()
    torch.compiler.reset()


def test_a_file_without_both_markers_is_refused(script, tmp_path):
    path = tmp_path / "README.md"
    path.write_text("<!-- benchmarks:end --> <!-- benchmarks:begin -->")
    with pytest.raises(ValueError, match="once each and in this order"):
        script("table").insert(path, "table")


def test_multiple_choice_on_race(script, data_dir):
    contenders = script("contenders")
    sizes = contenders.Sizes(questions=1, data_dir=data_dir)
    ours, n_tokens = contenders.batch_of("ours", "choice", sizes)
    theirs, same = contenders.batch_of("GPT-2", "choice", sizes)
    assert n_tokens == same and theirs["input_ids"].shape[:2] == (1, 4)
    assert ours["input_ids"].numel() < theirs["input_ids"].numel()
    small = dataclasses.replace(sizes, layers=1, width=8, head_width=8)
    for name in contenders.CONTENDERS:  # the special tokens have embeddings
        step, _ = contenders.update(name, "choice", "fp32", small, "cpu")
        step()


@pytest.mark.skipif(not modeling_gpt1_cpu._has_onednn(), reason="needs an x86 CPU and oneDNN")
def test_decode(script, capsys):
    decode = script("decode")
    decode.TOKENS, decode.LAYERS = 12, 2
    decode.main(["--rounds", "1"])
    rows = re.findall(r"(?m)^\| (?:fp32|bf16) \| (?:2048|[18]) ((?:\| -?\d+ )+)\|$", capsys.readouterr().out)
    n_values = [row.count("|") for row in rows]
    with_bf16 = [2] * 2 + [4] * 4 + [3] * 2 + [2] * 4
    assert n_values in (with_bf16, [2] + [4] * 2 + [3] * 2 + [2] * 2)


def test_pretraining(script, tmp_path, texts, capsys):
    (tmp_path / "corpus.txt").write_text("\n".join(texts))
    argv = ["--data_dir", str(tmp_path), "--corpus", str(tmp_path / "corpus.txt"), "--updates", "1", "--rounds", "1"]
    script("pretrain").main([*argv, *SIZES[:4], "--vocab_size", "4000", "--span", "16", "--dtype", "fp32"])
    assert re.findall(r"(?m)^(ours|synthetic|OpenAIGPT) ", capsys.readouterr().out) == [
        "ours",
        "synthetic",
        "OpenAIGPT",
    ]


def test_attention(script, capsys):
    script("attention").main(["--rows", "1", "--span", "8", "--rounds", "1"])
    assert "| float32 | 0.1 |" in capsys.readouterr().out


def test_task_rows(script, capsys, monkeypatch):
    module = script("task_rows")
    monkeypatch.setattr(module.datasets.config, "HF_DATASETS_CACHE", module.datasets.config.HF_DATASETS_CACHE)
    module.main(["--rows", "30", "--words", "3"])
    assert "30 rows" in capsys.readouterr().out


def test_tokenizer_growth(script, capsys):
    script("tokenizer_growth").main(["--scale", "0.001"])
    assert capsys.readouterr().out.count("-fold |") == 19


def test_batching(script, data_dir, capsys):
    argv = ["--tasks", "rte", "--layers", "1", "--hidden_size", "64", "--updates", "1", "--batch_size", "2"]
    script("batching").main(["--data_dir", data_dir, *argv])
    assert "| rte | packed |" in capsys.readouterr().out


def test_tokenizers_on_corpora(script, data_dir, capsys):
    pytest.importorskip("spacy")
    script("tokenizer").main(["--data_dir", data_dir, "--texts", "1", "--threads", "1"])
    assert "| story_cloze |" in capsys.readouterr().out


@pytest.mark.slow
def test_programs_generate_the_tokens_of_the_model(script, base_model, tmp_path, capsys, monkeypatch):
    for library in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(library)
    decode = script("onnx_decode")
    decode.main(["--model", base_model, "--rounds", "1", "--prompt", "5", "--new_tokens", "4", "--batch_sizes", "2"])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith(f"| {base_model}")]
    names = [f"torch {dtype}" for dtype in decode.number_types("cpu")] + ["ONNX fp32", "ONNX int8"]
    assert [row[2] for row in rows] == names and all(len(row) == len(decode.COLUMNS) for row in rows)

    decode.export(base_model, tmp_path / "fp32", use_cache=True)
    prompt = torch.randint(1, 99, (2, 5)).numpy()
    expected = decode.model_generation(decode.open_causal_lm(base_model), prompt)(6)
    assert (decode.program_generation(tmp_path / "fp32", prompt)(6) == expected).all()

    sizes = decode.Sizes(layers=1, width=16, head_width=16, vocab=90, span=32)
    monkeypatch.setattr(decode, "Sizes", lambda: sizes)
    assert decode.open_causal_lm(decode.open_folder(decode.RANDOM, tmp_path / "random")).config.vocab_size == 90


def test_unusual_input(script, capfd, monkeypatch):
    module = script("load")
    module.measure(next(name for name in module.cases(0.0001) if name.startswith("corpus, one line")), 0.0001)
    assert "tokens" in capfd.readouterr().out


def test_corpus(script, tmp_path, texts, capfd):
    (tmp_path / "corpus.txt").write_text("\n".join(texts))
    script("corpus").main(["--corpus", str(tmp_path / "corpus.txt"), "--only", "0.001"])
    assert capfd.readouterr().out.startswith("| ")


def test_growth(script, tmp_path, monkeypatch):
    growth = script("growth")
    monkeypatch.setattr(growth, "measure", lambda kind, size, width: (float(size), 3.0))
    monkeypatch.setattr(growth, "KINDS", {"rows": (1, 5), "attention": (2, 4)})
    found = growth.main(["--output_dir", str(tmp_path / "out")])
    assert found["rows"] == {"seconds": [5, 10, 20, 40], "MiB": [3.0] * 4}
    assert json.loads((tmp_path / "out" / "growth.json").read_text()) == found
    if (tmp_path / "out" / "growth.svg").exists():
        assert "rows: time^1.00, memory^0.00" in (tmp_path / "out" / "growth.svg").read_text()


def test_exponents(script):
    exponent = script("growth").exponent
    assert exponent([3.0, 6.0, 12.0, 24.0]) == pytest.approx(1) and exponent([1.0, 4.0, 16.0, 64.0]) == pytest.approx(
        2
    )
    assert math.isnan(exponent([0.0, 1.0, 2.0, 4.0]))


@pytest.mark.parametrize("kind", ["tokens", "rows", "layers", "context", "attention"])
def test_what_growth_measures(kind, script, tmp_path):
    script("growth").work(kind, 8, 16, tmp_path)()


@pytest.mark.slow
def test_growth_of_processes(script):
    seconds, mib = script("growth").measure("processes", 2, 16)
    assert seconds > 0 and mib >= 0


def test_profile_of_the_demonstration(script, capsys, monkeypatch):
    demo = script("demo")
    clock = iter(range(100))
    parts = demo.Parts(lambda: next(clock))
    inner = parts.timing("import", lambda: None)
    parts.timing("training", inner)()
    parts.switch()
    # Each look at the clock is a second later than the last.
    assert (parts.seconds["import"], parts.seconds["training"], parts.seconds[demo.REST]) == (1, 2, 2)
    for functions in demo.PARTS.values():
        for module, name in functions:
            demo.replace(module, name, lambda function: function)()  # all of them exist


@pytest.mark.slow
def test_the_demonstration_is_profiled(script, capsys):
    seconds = script("demo").main(["--quick"])
    assert all(value >= 0 for value in seconds.values()) and seconds["training"] > 0
