"""Scores are computed in fp32, whatever training used, and `gpt1 evaluate` repeats those of training."""

import json
from pathlib import Path
from types import MethodType

import pytest
import torch
from accelerate.utils.operations import convert_outputs_to_fp32
from helpers.data import write_jsonl
from helpers.models import random_ids, tiny_classifier, tiny_lm
from helpers.runs import finetune_arguments
from safetensors.torch import load_file
from torch import nn
from transformers import EvalPrediction

from gpt1_hf import GPT1LSTMConfig, GPT1LSTMForCausalLM, GPT1Tokenizer, GPT1Trainer
from gpt1_hf.cli import main
from gpt1_hf.data.spans import ConsecutiveSpans
from gpt1_hf.data.token_stream import TokenStream
from gpt1_hf.evaluation.evaluate import EvaluateArguments, evaluate
from gpt1_hf.evaluation.log_probs import token_log_probs
from gpt1_hf.evaluation.precision import full_precision, precision_of, product_precision
from gpt1_hf.hardware import has_half_precision
from gpt1_hf.training.arguments import GPT1TrainingArguments
from gpt1_hf.training.finetune import finetune
from gpt1_hf.training.run_folder import training_precision


def read(*parts) -> list[dict]:
    return json.loads(Path(*parts).read_text())


def values(results: list) -> list[tuple]:
    rows = [result if isinstance(result, dict) else vars(result) for result in results]
    return [(row["split"], row["metric"], row["value"]) for row in rows]


def predictions(folder) -> list[str]:
    return [path.read_text() for path in sorted(Path(folder).glob("predictions*.jsonl"))]


def autocast_forward(model):
    """A model whose `forward` is wrapped as accelerate's `prepare_model` does for bf16."""
    model._original_forward = model.forward
    model.forward = MethodType(torch.autocast("cpu", torch.bfloat16)(model.forward.__func__), model)
    model.forward = MethodType(convert_outputs_to_fp32(model.forward.__func__), model)
    return model


class Wrapper(nn.Module):
    """As DDP, which holds the model as `module`."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, **inputs):
        return self.module(**inputs)


@pytest.mark.parametrize("wrap", [lambda model: model, Wrapper, lambda model: torch.compile(model, backend="eager")])
def test_outputs_are_those_without_autocast(wrap):
    model, ids = tiny_lm(), random_ids(2, 12)
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        wrapped = wrap(autocast_forward(model))
        rounded = wrapped(input_ids=ids).logits
        assert not torch.allclose(rounded, expected, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16), full_precision(wrapped):
            assert torch.equal(wrapped(input_ids=ids).logits, expected)
        assert torch.equal(wrapped(input_ids=ids).logits, rounded)  # training goes on as before
        with pytest.raises(ZeroDivisionError), full_precision(wrapped):
            raise ZeroDivisionError
        assert torch.equal(wrapped(input_ids=ids).logits, rounded)


def test_log_probabilities_are_those_without_autocast():
    ids = random_ids(2, 12).tolist()
    expected = token_log_probs(tiny_lm(), ids, [11, 11])
    accelerator_wrapped = autocast_forward(tiny_lm())
    with torch.autocast("cpu", torch.bfloat16):
        found = token_log_probs(accelerator_wrapped, ids, [11, 11])
    assert all((a == b).all() for a, b in zip(found, expected, strict=True))


def test_products_are_in_fp32():
    """TF32 and its like are off meanwhile. Afterwards they are as before, and still follow the general setting."""
    backends = torch.backends
    if not hasattr(backends, "fp32_precision"):
        pytest.skip("torch before 2.9 has other settings")
    owners = (backends.cuda.matmul, backends.cudnn.rnn, backends.mkldnn.matmul, backends.mkldnn.rnn)

    def settings():
        return [owner.fp32_precision for owner in owners]

    before = settings()
    with full_precision(tiny_lm()):
        assert set(settings()) <= {"none", "ieee"}
    assert settings() == before
    backends.fp32_precision = "tf32"
    try:
        with full_precision(tiny_lm()):
            assert settings() == ["ieee"] * 4
        assert settings() == ["tf32"] * 4
        backends.fp32_precision = "ieee"
        assert settings() == ["ieee"] * 4
    finally:
        backends.fp32_precision = "none"
        backends.cudnn.rnn.fp32_precision = before[1]  # torch's default differs from the general one
    assert settings() == before


def test_training_in_tf32_says_so(tmp_path):
    """TF32 may be on by `--tf32`, by `--torch_compile`, or by torch's own settings: what is in force is recorded."""
    backends = torch.backends
    if not hasattr(backends, "fp32_precision"):
        pytest.skip("torch before 2.9 has other settings")
    args, lstm = GPT1TrainingArguments(str(tmp_path), use_cpu=True), nn.LSTM(2, 2)
    before = [backends.cuda.matmul.fp32_precision, backends.mkldnn.rnn.fp32_precision]
    assert (training_precision(args), product_precision("cuda")) == ("fp32", "fp32")
    assert training_precision(args, lstm) == "fp32"
    is_tf32 = backends.cudnn.rnn.fp32_precision == "tf32"  # torch's default
    assert product_precision("cuda", has_lstm=True) == ("tf32" if is_tf32 else "fp32")
    try:
        backends.cuda.matmul.fp32_precision = "tf32"
        assert (product_precision("cuda"), product_precision("cpu"), product_precision("mps")) == (
            "tf32",
            "fp32",
            "fp32",
        )
        backends.mkldnn.rnn.fp32_precision = "tf32"
        assert (training_precision(args), training_precision(args, lstm)) == ("fp32", "tf32")
        args.bf16 = True
        assert training_precision(args, lstm) == "bf16 autocast, tf32"
    finally:
        backends.cuda.matmul.fp32_precision, backends.mkldnn.rnn.fp32_precision = before


def test_the_precision_of_a_model_is_that_of_its_weights():
    model = tiny_lm()
    assert precision_of(model) == "fp32"
    assert precision_of(model.to(torch.bfloat16)) == "bf16"
    model.lm_head.float()
    assert precision_of(model.half()) == "fp16"
    model.config.quantization_config = {"quant_method": "torchao"}
    assert precision_of(model.float()) == "fp32, quantized weights"


@pytest.mark.parametrize(
    "setting", [{}, {"bf16_full_eval": True}, {"bf16": True}, {"bf16": True, "bf16_full_eval": True}]
)
def test_an_evaluation_during_training_is_in_fp32(setting, tmp_path, monkeypatch, caplog):
    """As with the same weights outside the Trainer, even if the CPU's autocast is on."""
    monkeypatch.setattr("gpt1_hf.training.arguments.has_half_precision", lambda dtype, device: True)
    model, seen = tiny_classifier(num_labels=3, pad_token_id=0), []

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        fresh.load_state_dict(trainer.accelerator.unwrap_model(trainer.model).state_dict())
        with torch.no_grad():
            expected = fresh(input_ids=ids).logits
        seen.append(torch.equal(torch.tensor(prediction.predictions), expected))
        return {}

    ids, fresh = random_ids(4, 8), tiny_classifier(num_labels=3, pad_token_id=0)
    rows = [{"input_ids": row, "labels": k % 3} for k, row in enumerate(ids)]
    args = GPT1TrainingArguments(
        str(tmp_path), max_steps=2, eval_strategy="steps", eval_steps=1, use_cpu=True, disable_tqdm=True, **setting
    )
    trainer = GPT1Trainer(model, args, train_dataset=rows, eval_dataset=rows, compute_metrics=metrics)
    trainer.train()
    trainer.evaluate()
    assert seen == [True] * 3
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert ("have no effect" in caplog.text) == ("bf16_full_eval" in setting)


def test_the_loss_of_spans_during_training_is_in_fp32(tmp_path, monkeypatch):
    monkeypatch.setattr("gpt1_hf.training.arguments.has_half_precision", lambda dtype, device: True)
    stream = TokenStream(random_ids(48).numpy().astype("uint16"), [48], [48])
    spans, losses = ConsecutiveSpans(stream, 12), []
    for bf16 in (False, True):
        args = GPT1TrainingArguments(str(tmp_path), bf16=bf16, use_cpu=True, disable_tqdm=True)
        losses.append(GPT1Trainer(tiny_lm(), args, eval_dataset=spans).evaluate()["eval_loss"])
    assert losses[0] == losses[1]


FORMATS = {
    "classification": ("cola", {}),
    "entailment": ("rte", {}),
    "similarity": ("mrpc", {}),
    "scores in bins": ("stsb", {}),
    "scores": ("stsb", {"plain_regression": True}),
    "multiple choice": ("story_cloze", {}),
    "choices that are cut": ("race", {"max_length": 40}),
    "several splits": ("mnli", {}),
    "LoRA": ("sst2", {"peft": "lora"}),
    "bf16": ("sst2", {"bf16": True, "bf16_full_eval": True}),
    "batches of 5": ("sst2", {"per_device_eval_batch_size": 5}),
    "several seeds": ("sst2", {"seeds": 2}),
    "best checkpoint": ("sst2", {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}),
}


@pytest.mark.parametrize("case", FORMATS)
def test_evaluate_repeats_the_scores_of_fine_tuning(case, base_model, tmp_path):
    task, settings = FORMATS[case]
    if settings.get("peft"):
        pytest.importorskip("peft")
    args = finetune_arguments(base_model, tmp_path, task=task, max_train_examples=16, learning_rate=1e-3, **settings)
    results = finetune(args)
    for folder in [tmp_path / "run"] if settings.get("seeds", 1) == 1 else sorted((tmp_path / "run").glob("seed-*")):
        check_evaluate(task, folder, tmp_path, sample=True)
    assert {result.details["precision"] for result in results} == {"fp32"}


def check_evaluate(task: str, run: Path, tmp_path: Path, **settings):
    """Compare a run's own results and predictions with those of `gpt1 evaluate`, with several batch sizes."""
    for batch_size in (None, 1, 3):
        out = tmp_path / "evaluated"
        found = evaluate(EvaluateArguments(str(run), task, output_dir=str(out), batch_size=batch_size, **settings))
        own = read(run, "results.json")
        assert values(found) == values(own)
        assert {result.details["precision"] for result in found} == {"fp32"}
        if batch_size is None:
            assert predictions(out) == predictions(run)


def test_evaluate_repeats_the_score_of_the_held_out_share(base_model, tmp_path, capsys):
    settings = {"task": "sst2", "held_out_share": 0.25, "max_train_examples": 16}
    finetune(finetune_arguments(base_model, tmp_path, **settings))
    check_evaluate("sst2", tmp_path / "run", tmp_path, sample=True, split="held-out train")
    finetune(finetune_arguments(base_model, tmp_path, task="sst2", output_dir=str(tmp_path / "other")))
    flags = ["--task", "sst2", "--sample", "true", "--split", "held-out train", "--output_dir", str(tmp_path / "out")]
    assert main(["evaluate", "--model", str(tmp_path / "other"), *flags]) == 2
    assert "not fine-tuned with a held_out_share" in capsys.readouterr().err


def test_evaluate_repeats_the_scores_of_tags_and_of_several_labels(base_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["the", "old", "house", "she"]
    tags = [{"words": words[: 1 + k % 4], "label": ["a", "b", "a", "b"][: 1 + k % 4]} for k in range(24)]
    several = [{"text": " ".join(words[: 1 + k % 4]), "label": ["x", "y"][k % 3 :]} for k in range(24)]
    flags = "--num_train_epochs 1 --use_cpu true --disable_tqdm true"
    for name, rows, input_format in (("tags", tags, "token_classification"), ("several", several, "classification")):
        write_jsonl(Path(f"{name}.jsonl"), rows)
        Path(f"{name}.yaml").write_text(f"train_file: {name}.jsonl\ninput_format: {input_format}\n")
        assert main(f"finetune --task {name}.yaml --model {base_model} --output_dir {name} {flags}".split()) == 0
        check_evaluate(f"{name}.yaml", Path(name), tmp_path)


def test_evaluate_repeats_the_scores_of_an_lstm_and_of_gpt1_tiny(texts, tmp_path):
    """gpt1-tiny's weights are saved in bf16."""
    tokenizer = GPT1Tokenizer.train(texts, vocab_size=160, show_progress=False)
    sizes = {"hidden_size": 16, "lstm_size": 16, "num_hidden_layers": 1, "max_position_embeddings": 64}
    lstm = str(tmp_path / "lstm")
    GPT1LSTMForCausalLM(GPT1LSTMConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(lstm)
    tokenizer.save_pretrained(lstm)
    for base in (lstm, "gpt1-tiny"):
        run = tmp_path / f"run-{Path(base).name}"
        settings = {"task": "rte", "max_train_examples": 8, "max_length": 32, "output_dir": str(run)}
        finetune(finetune_arguments(base, tmp_path, **settings))
        assert {weight.dtype for weight in load_file(run / "model.safetensors").values()} == {torch.float32}
        check_evaluate("rte", run, tmp_path, sample=True)


@pytest.mark.parametrize("save_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("bf16", [False, True])
def test_evaluate_repeats_the_perplexity_of_pre_training(save_dtype, bf16, base_model, texts, tmp_path):
    if bf16 and not has_half_precision(torch.bfloat16, torch.device("cpu")):
        pytest.skip("needs a CPU with bf16 instructions")
    corpus, held_out, run = tmp_path / "corpus.txt", tmp_path / "held_out.txt", tmp_path / "run"
    corpus.write_text("\n".join(texts[:80]))
    held_out.write_text("\n".join(texts[80:]))
    flags = (
        f"--hidden_size 16 --num_hidden_layers 1 --num_attention_heads 2 --max_position_embeddings 32 --bf16 {bf16}"
    )
    flags += f" --save_dtype {save_dtype} --max_steps 2 --use_cpu true --disable_tqdm true --logging_steps 1"
    flags += " --per_device_train_batch_size 2 --checkpoints_per_decade 1"
    texts_of = f"--corpus {corpus} --validation_corpus {held_out} --tokenizer {base_model} --output_dir {run}"
    assert main(f"pretrain {texts_of} {flags}".split()) == 0
    own = read(run, "results.json")
    assert own[0]["details"]["precision"] == "fp32"
    for batch_size in (1, 3, 8, 16):
        args = EvaluateArguments(
            str(run), text_file=str(held_out), batch_size=batch_size, output_dir=str(tmp_path / "out")
        )
        found = evaluate(args)
        assert values(found) == values(own) and found[0].details["precision"] == "fp32"
    last = json.loads((run / "trajectory.jsonl").read_text().splitlines()[-1])
    if save_dtype == "float32":  # autocast changes it in no digit either
        assert round(last["perplexity"], 3) == own[0]["value"]


def test_zero_shot_and_context_length_name_their_precision(base_model, tmp_path):
    flags = ["--model", base_model, "--sample", "true", "--max_examples", "4", "--output_dir", str(tmp_path)]
    assert main(["zero-shot", "--task", "sst2", *flags]) == 0
    assert read(tmp_path, "results.json")[0]["details"]["precision"] == "fp32"
    (tmp_path / "a.txt").write_text("the old house " * 40)
    flags = ["--model", base_model, "--text_file", str(tmp_path / "a.txt"), "--lengths", "16", "32"]
    assert main(["analyze", "context-length", *flags, "--output_dir", str(tmp_path / "lengths")]) == 0
    rows = read(tmp_path, "lengths", "results.json")
    assert rows and {row["details"]["precision"] for row in rows} == {"fp32"}
