"""Every command and class with a folder saved by transformers' OpenAIGPT, whose tokenizer has no padding token."""

import json

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoProcessor,
    AutoTokenizer,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
    OpenAIGPTTokenizer,
    TokenizersBackend,
    Trainer,
    TrainingArguments,
    pipeline,
)

from gpt1_hf import GPT1DataCollator, GPT1ForSequenceClassification, GPT1Processor
from gpt1_hf.checkpoints.loading import open_config, open_model, open_tokenizer
from gpt1_hf.cli import main
from gpt1_hf.tasks import load_task


TINY = (
    "--sample --max_steps 2 --max_train_examples 6 --per_device_train_batch_size 3 --disable_tqdm true --use_cpu true"
)
TRAIN = {"max_steps": 2, "per_device_train_batch_size": 3, "use_cpu": True, "report_to": "none", "disable_tqdm": True}


@pytest.fixture(scope="module")
def native(tokenizer, tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("native") / "openai")
    torch.manual_seed(0)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    OpenAIGPTTokenizer(vocab=model["vocab"], merges=merges).save_pretrained(folder)
    config = OpenAIGPTConfig(vocab_size=len(tokenizer), n_layer=2, n_embd=16, n_head=2, n_positions=64)
    OpenAIGPTLMHeadModel(config).save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).pad_token is None
    return folder


def run(command: str, *more: str):
    assert main([*command.split(), *more]) == 0


@pytest.mark.parametrize("task", ["cola", "rte", "mrpc", "stsb", "story_cloze"])
@pytest.mark.parametrize("how", ["", "--peft lora"])
def test_it_is_fine_tuned_and_evaluated(native, tmp_path, task, how):
    if how:
        pytest.importorskip("peft")
    out, scored = tmp_path / "out", tmp_path / "scored"
    run(f"finetune --task {task} {TINY} {how}", "--model", native, "--output_dir", str(out))
    processor = AutoProcessor.from_pretrained(out)
    assert processor.tokenizer.pad_token == "<unk>" and processor.tokenizer.model_max_length == 64
    config = open_config(str(out))
    assert config.pad_token_id == 0 and config.trained_on["input_format"] == load_task(task).input_format
    run(f"evaluate --task {task} --sample", "--model", str(out), "--output_dir", str(scored))
    before, after = (json.loads((folder / "results.json").read_text()) for folder in (out, scored))
    assert [result["value"] for result in before] == [result["value"] for result in after]


def test_its_classifier_answers_in_a_pipeline(native, tmp_path):
    run(f"finetune --task stsb {TINY}", "--model", native, "--output_dir", str(tmp_path / "out"))
    rate = pipeline("text-classification", str(tmp_path / "out"), device="cpu")
    predicted = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    rows = load_task("stsb").load("validation", sample=True)
    pairs = [{"text": row["text_a"], "text_pair": row["text_b"]} for row in rows]
    found = [answer["score"] for answer in rate(pairs, batch_size=3)]
    assert found == pytest.approx([row["prediction"] for row in predicted], abs=1e-4)


def test_a_regression_model_is_fine_tuned_for_classes(native, tmp_path):
    scores, classes = tmp_path / "scores", tmp_path / "classes"
    run(f"finetune --task stsb {TINY} --plain_regression true", "--model", native, "--output_dir", str(scores))
    assert open_config(str(scores)).problem_type == "regression"
    run(f"finetune --task rte {TINY}", "--model", str(scores), "--output_dir", str(classes))
    assert open_config(str(classes)).problem_type in (None, "single_label_classification")


def test_its_language_model(native, tmp_path, texts, capsys):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(texts), encoding="utf-8")
    run("generate the --max_new_tokens 3 --model", native)
    assert capsys.readouterr().out.startswith("the ")
    run("evaluate", "--model", native, "--text_file", str(corpus), "--output_dir", str(tmp_path / "scored"))
    run("zero-shot --task sst2 --sample", "--model", native, "--output_dir", str(tmp_path / "zero_shot"))
    run("convert", native, "--output_dir", str(tmp_path / "converted"))
    assert AutoTokenizer.from_pretrained(tmp_path / "converted").pad_token == "<unk>"
    assert main(["push", native, "someone/model"]) == 1
    assert "convert an OpenAIGPT with `gpt1 convert`" in capsys.readouterr().err
    sizes = "--hidden_size 16 --num_hidden_layers 1 --num_attention_heads 2 --max_position_embeddings 32 --max_steps 1"
    where = ["--corpus", str(corpus), "--tokenizer", native, "--output_dir", str(tmp_path / "new")]
    run(f"pretrain {sizes} --use_cpu true --disable_tqdm true", *where)
    assert open_config(str(tmp_path / "new")).pad_token_id == 0


def test_it_is_exported_with_a_tokenizer_that_pads(native, tmp_path):
    run("export --format torch_export", native, "--output_dir", str(tmp_path / "out"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer(["the old captain", "night"], padding=True)["input_ids"][1].count(tokenizer.unk_token_id) > 0


@pytest.mark.parametrize("input_format", ["classification", "similarity"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_processor_and_collator_in_the_plain_trainer(native, tmp_path, input_format, side):
    tokenizer = AutoTokenizer.from_pretrained(native, padding_side=side)
    processor = GPT1Processor(tokenizer, input_format)
    model = open_model(GPT1ForSequenceClassification, native, open_config(native), new_head=True)
    model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    task = load_task("cola" if input_format == "classification" else "mrpc")
    rows = task.load("train", sample=True).map(
        processor, batched=True, remove_columns=[*processor.columns, "idx"], fn_kwargs={"max_length": 64}
    )
    args = TrainingArguments(str(tmp_path), **TRAIN)
    trainer = Trainer(
        model, args, data_collator=GPT1DataCollator(processor), processing_class=processor, train_dataset=rows
    )
    trainer.train()
    trainer.save_model()
    padded = processor([dict(zip(processor.columns, ("a", "the old captain"), strict=False))], padding=True)
    assert padded["input_ids"] and AutoProcessor.from_pretrained(tmp_path).tokenizer.padding_side == side
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    batch = GPT1DataCollator(processor)([rows[index] for index in range(4)])
    alone = [GPT1DataCollator(processor)([rows[index]]) for index in range(4)]
    with torch.no_grad():
        expected = torch.cat([again(**row).logits for row in alone])
        torch.testing.assert_close(again(**batch).logits, expected, rtol=1e-4, atol=1e-5)


def without_padding(tokenizer, **tokens):
    """A copy of a tokenizer that has these special tokens, and no others."""

    return TokenizersBackend(tokenizer_object=tokenizer.backend_tokenizer, **tokens)


def test_the_padding_token(tokenizer, native):
    entries = tokenizer.get_vocab()
    end, other = list(entries)[40:42]
    for tokens, expected in (
        ({"unk_token": "<unk>"}, "<unk>"),
        ({"unk_token": "<unk>", "eos_token": end}, "<unk>"),
        ({"eos_token": end}, end),
        ({"pad_token": other, "unk_token": "<unk>", "eos_token": end}, other),
        ({"pad_token": "<pad>", "unk_token": "<unk>"}, "<pad>"),
    ):
        given = without_padding(tokenizer, **tokens)
        processor = GPT1Processor(given, "entailment")
        assert processor.tokenizer.pad_token == expected and processor.tokenizer.model_max_length == 512
        assert given.pad_token == tokens.get("pad_token")  # the processor's is a copy
        batch = processor(premise=["a", "the old captain"], hypothesis=["b", "night"], padding=True)
        pad = processor.tokenizer.convert_tokens_to_ids(expected)
        assert batch["input_ids"][0][-1] == pad and batch["attention_mask"][0][-1] == 0
        assert max(max(row) for row in batch["input_ids"]) < len(processor.tokenizer)
    with pytest.raises(ValueError, match="has no padding token: set its pad_token"):
        GPT1Processor(without_padding(tokenizer))
    assert open_tokenizer(native).pad_token == "<unk>"
