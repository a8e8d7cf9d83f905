"""The command line: precedence of settings, and errors, which are one sentence and a non-zero status."""

import subprocess
import sys

import pytest
from helpers.data import write_jsonl
from transformers import GPT2Config, GPT2LMHeadModel

from gpt1_hf.checkpoints.loading import open_tokenizer
from gpt1_hf.cli import commands, main
from gpt1_hf.cli.parser import parse
from gpt1_hf.data.corpus import file_lines
from gpt1_hf.errors import GPT1Error
from gpt1_hf.training.arguments import FinetuneArguments


def read(argv):
    return parse(FinetuneArguments, argv, "finetune", "")


def test_every_command_has_help(capsys):
    assert main([]) == main(["--help"]) == 0
    assert set(commands()) == {
        "analyze",
        "convert",
        "demo",
        "evaluate",
        "export",
        "finetune",
        "generate",
        "predict",
        "pretrain",
        "push",
        "quantize",
        "recipes",
        "report",
        "show",
        "space",
        "submit",
        "tasks",
        "tokenizer",
        "zero-shot",
    }
    for command, line in commands().items():
        assert line.endswith(".")
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
        assert f"gpt1 {command}" in capsys.readouterr().out


def test_command_line_beats_yaml_beats_default(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("task: cola\nlearning_rate: 1e-4\nseed: 7\nbf16: false\neval_strategy: no\n")
    args = read(["--config", str(recipe), "--seed=9", "--num_train_epochs", "2"])
    assert (args.task, args.learning_rate, args.seed, args.num_train_epochs) == ("cola", 1e-4, 9, 2.0)
    assert args.weight_decay == 0.01
    assert args.eval_strategy == "no"


def test_booleans_can_be_switched_both_ways(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("task: cola\nfrom_scratch: true\n")
    assert read(["--config", str(recipe)]).from_scratch is True
    assert read(["--config", str(recipe), "--from_scratch", "false"]).from_scratch is False
    assert read(["--task", "cola", "--from_scratch"]).from_scratch is True


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("learning_rat: 1\n", "unknown key 'learning_rat'; did you mean learning_rate?"),
        ("- a\n- b\n", "must be a mapping"),
        ("task: [cola\n", "not valid YAML"),
        ("task: !!int ''\n", "not valid YAML"),
        ("task: {cola: 1}\n", "task takes one value, not a mapping"),
        ("learning_rate: [1, 2]\n", "learning_rate takes one value, not a list"),
        ("learning_rate:\n", "learning_rate has no value"),
        ("train_sampling_strategy: some\n", "train_sampling_strategy must be one of group_by_length, random"),
    ],
)
def test_bad_recipes_are_refused(tmp_path, recipe, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe)
    with pytest.raises(GPT1Error) as error:
        read(["--config", str(path)])
    assert message in str(error.value)


def test_a_recipe_is_found_by_name_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("finetune/cola", "finetune/cola.yaml", "recipes/finetune/cola.yaml"):
        assert read(["--config", name]).task == "cola"
    with pytest.raises(GPT1Error, match="no/such"):
        read(["--config", "no/such"])


@pytest.fixture
def other_model(tmp_path):
    folder = tmp_path / "gpt2"
    GPT2LMHeadModel(GPT2Config(vocab_size=10, n_embd=8, n_layer=1, n_head=1)).save_pretrained(folder)
    return str(folder)


def test_bad_input_gives_one_sentence(base_model, other_model, tmp_path, capsys):
    (tmp_path / "empty.txt").write_text("")
    question = {"example_id": "high1", "article": "a", "question": "b", "options": ["c", "", "d", "e"], "answer": "A"}
    write_jsonl(tmp_path / "bad" / "ehovy" / "race" / "all" / "train.jsonl", [question])
    bad_data = ["--data_dir", str(tmp_path / "bad")]
    out = ["--output_dir", str(tmp_path / "out")]
    cases = {
        "no command 'nothing'": ["nothing"],
        "did you mean --task": ["finetune", "--taks", "cola", *out],
        "seeds must be at least 1, not 0": ["finetune", "--task", "cola", "--seeds", "0", *out],
        "learning_rate must be at least 0, not nan": [
            "finetune",
            "--task",
            "cola",
            "--learning_rate",
            "nan",
            *out,
        ],
        "did you mean sst2": ["finetune", "--task", "sst", *out],
        "evaluate needs --task or --text_file": ["evaluate", *out],
        "empty.txt is empty": ["evaluate", "--model", base_model, "--text_file", str(tmp_path / "empty.txt"), *out],
        "nowhere.txt": ["evaluate", "--model", base_model, "--text_file", "nowhere.txt", *out],
        "the corpus has no text": ["tokenizer", "train", "--corpus", str(tmp_path / "empty.txt"), *out],
        "pretrain needs --corpus": ["pretrain", *out],
        "someone/some-model": ["generate", "--model", "someone/some-model", "hello"],
        "prompt is empty": ["generate", "--model", base_model, "  "],
        "context of 64": ["generate", "--model", base_model, "the old lady " * 30],
        "a `gpt2` model": ["finetune", "--task", "sst2", "--sample", "--model", other_model, *out],
        "cannot load 'nyu-mll/glue'": ["finetune", "--task", "cola", "--data_dir", str(tmp_path), *out],
        "choice B of row 0 is empty": ["finetune", "--task", "race", "--model", base_model, *bad_data, *out],
        "not fine-tuned for the multiple_choice": [
            "evaluate",
            "--task",
            "race",
            "--sample",
            "--model",
            base_model,
            *out,
        ],
        "encoder_bpe_40000.json": ["tokenizer", "convert", str(tmp_path), *out],
    }
    if not (tmp_path / "tokenizer.json").exists():  # the tokenizer is loaded before the weights
        (tmp_path / "gpt2" / "tokenizer.json").write_text(open(f"{base_model}/tokenizer.json").read())
        (tmp_path / "gpt2" / "tokenizer_config.json").write_text(open(f"{base_model}/tokenizer_config.json").read())
    for message, argv in cases.items():
        try:
            status = main(argv)
        except SystemExit as end:  # argparse
            status = end.code
        assert status in (1, 2), argv
        error = capsys.readouterr().err
        line = error.strip().splitlines()[-1]
        assert line.startswith("gpt1") and error.count("error: ") == 1, error
        assert message in line, line
        assert "Traceback" not in error
    assert not list((tmp_path / "out").rglob("*.json"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("finetun", "there is no command 'finetun'; did you mean finetune?"),
        ("finetune --task cola --lm_coef -1", "lm_coef must be at least 0, not -1.0"),
        (
            "finetune --task cola --neftune_noise_alpha -1",
            "neftune_noise_alpha must be at least 0, not -1.0",
        ),
        (
            "finetune --task cola --num_train_epochs 0",
            "num_train_epochs must be above 0, not 0",
        ),
        ("finetune --task cola --lora_r 8", "also give --peft lora"),
        ("finetune --task cola --load_best_model_at_end true", "set eval_strategy and save_strategy"),
        ("finetune --task cola --learning_rate much", "invalid float value: 'much'; --help lists the arguments"),
        ("pretrain --corpus x --tokenizer gpt1-tiny --save_dtype float16", "invalid choice: 'float16'"),
        ("pretrain --corpus x --tokenizer gpt1-tiny --max_position_embeddings 0", "must be at least 2, not 0"),
        ("pretrain --corpus x --tokenizer gpt1-tiny --lstm_size 0", "lstm_size must be at least 1, not 0"),
        ("pretrain --corpus x --tokenizer gpt1-tiny --hidden_size 10 --num_attention_heads 3", "gpt1: error: hidden_"),
        ("pretrain --corpus /no/where.txt --tokenizer gpt1-tiny", "there is no file or folder '/no/where.txt'"),
        ("evaluate --task cola --text_file x.txt", "either --task or --text_file"),
        ("evaluate --text_file TEXT --sample", "--sample needs a task"),
        ("evaluate --text_file TEXT --split test", "is plain text and has no splits: drop --split"),
        ("evaluate --text_file TEXT --max_characters -4", "max_characters must be at least 1, not -4"),
        ("evaluate --text_file TEXT --max_length 0", "max_length must be at least 2, not 0"),
        ("evaluate --text_file TEXT --output_dir TEXT", "cannot write"),
        ("evaluate --text_file TEXT --model TEXT", "it is a file"),
        ("analyze context-length --text_file TEXT --lengths 0", "lengths must be at least 2 tokens, not 0"),
        ("analyze ablations --dry_run --tokens_per_second 0", "tokens_per_second must be above 0"),
        ("analyze ablations --dry_run --finetune.seed [1", "--finetune.seed '[1' is not a YAML value"),
        ("quantize gpt1-tiny --sample --output_dir q", "also give --task or --text_file"),
        ("generate 日本語", "no character that the tokenizer knows"),
        ("generate house --top_p 0", "top_p must be above 0 and at most 1, not 0.0"),
        ("generate house --num_return_sequences 0", "num_return_sequences must be at least 1, not 0"),
        ("space --port 99999999", "port must be at least 1 and at most 65,535, not 99999999"),
        ("tokenizer train --corpus TEXT --output_dir TEXT", "cannot write"),
        ("tokenizer train --corpus TEXT --output_dir t --model_max_length -1", "model_max_length must be at least 2"),
        ("tokenizer convert . --output_dir t", "has no vocabulary: it contains neither encoder_bpe_40000.json and"),
        ("predict --input TEXT", "predict needs --model (Fine-tuned model: folder or Hub id)"),
        ("predict --model x", "predict needs --input (Texts: a"),
        ("predict --model gpt1-tiny --input TEXT", "'gpt1-tiny' is not fine-tuned for a task"),
        ("predict --model gpt1-tiny --input TEXT --output a.xlsx", "a name that ends in .jsonl or .csv"),
        ("zero-shot", "zero-shot needs --task (Task id: cola"),
        ("zero-shot --task sst", "did you mean sst2?"),
        ("recipes copy finetune/cola no/where.yaml", "cannot write no/where.yaml"),
        ("recipes show TEXT", "is not valid YAML"),
    ],
)
def test_mistakes_are_reported_before_any_work(tmp_path, monkeypatch, capsys, argv, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_bytes(b"It was a dark night: caf\xe9\n{")
    argv = argv.replace("TEXT", str(tmp_path / "text.txt")).split()
    try:
        status = main(argv)
    except SystemExit as end:  # argparse
        status = end.code
    error = capsys.readouterr().err
    assert status in (1, 2) and message in error and error.count("error:") == 1, error
    assert not list(tmp_path.rglob("*.json"))


def test_text_that_is_not_utf8_gives_a_warning(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("gpt1_hf.data.corpus.logger.propagate", True)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n" * 2)
    assert list(file_lines(tmp_path / "latin.txt")) == ["caf\ufffd", "caf\ufffd", ""]
    assert [record.message.split(" is not valid UTF-8")[0] for record in caplog.records] == [
        str(tmp_path / "latin.txt")
    ]


def test_a_tokenizer_is_trained_on_the_rows_and_revision_that_pretraining_reads(tmp_path, monkeypatch, capsys):
    sentences = ["the lady wept", "the captain smiled", "the lady smiled"] * 20
    corpus = write_jsonl(tmp_path / "corpus.jsonl", [{"text": sentence} for sentence in sentences])
    train = ["tokenizer", "train", "--vocab_size", "100", "--corpus", str(corpus), "--output_dir"]
    assert main([*train, str(tmp_path / "lines"), "--corpus_rows", "lines"]) == 0
    assert main([*train, str(tmp_path / "documents")]) == 0
    # Lines of one text are joined by line breaks, which have a token. Documents of one line have no line break.
    line_break = [open_tokenizer(str(tmp_path / name)).get_vocab().get("\n</w>") for name in ("lines", "documents")]
    assert line_break[0] is not None and line_break[1] is None

    read = []
    monkeypatch.setattr("gpt1_hf.data.corpus.read_pieces", lambda *source: read.append(source) or [(0, "the lady")])
    main([*train, str(tmp_path / "hub"), "--corpus_revision", "abc", "--data_dir", "data"])
    assert read == [(str(corpus), "train", "data", "abc", "documents", "text", None)]


def test_generation_is_repeatable_and_reads_like_text(base_model, capsys):
    texts = []
    for _ in range(2):
        assert main(["generate", "--model", base_model, "The old lady", "--max_new_tokens", "8", "--seed", "3"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert texts[0].startswith("the old lady")


def test_recipes_are_listed_shown_and_copied(tmp_path, capsys):
    assert main(["recipes", "ls"]) == 0
    assert "finetune/cola" in capsys.readouterr().out
    assert main(["recipes", "show", "finetune/cola"]) == 0
    assert "task: cola" in capsys.readouterr().out
    assert main(["recipes", "copy", "finetune/cola", str(tmp_path)]) == 0
    assert (tmp_path / "cola.yaml").is_file()
    assert main(["recipes", "copy", "finetune/cola", str(tmp_path)]) == 1


def test_module_and_script_are_the_same_command():
    run = subprocess.run([sys.executable, "-m", "gpt1_hf", "nothing"], capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].startswith(
        "gpt1: error: "
    )  # torchao may print something about its kernels first
