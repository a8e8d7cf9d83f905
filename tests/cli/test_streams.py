"""Standard output and standard error, generated text, and exceptions with and without a traceback."""

import errno
import io
import json

import pytest
from huggingface_hub.errors import OfflineModeIsEnabled

from gpt1_hf import GPT1Config, GPT1Processor
from gpt1_hf.checkpoints.loading import open_tokenizer
from gpt1_hf.cli import main, run_command
from gpt1_hf.errors import GPT1Error, UsageError
from gpt1_hf.inside.generation import Stream, generate, readable


GENERATE = ["generate", "The old lady", "--max_new_tokens", "6", "--temperature", "0", "--model"]


def test_standard_output_has_only_the_result(base_model, tmp_path, capsys):
    argv = ["zero-shot", "--task", "sst2", "--sample", "--max_examples", "8", "--model", base_model]
    argv += ["--output-dir", str(tmp_path / "out")]
    assert main(argv) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("task ") and "written to" not in printed.out
    assert f"written to {tmp_path / 'out' / 'results.json'}" in printed.err
    assert main(["--quiet", *argv]) == main([*argv, "--quiet"]) == 0
    quiet = capsys.readouterr()
    assert quiet.out == 2 * printed.out and "written to" not in quiet.err


def test_a_prompt_can_come_from_standard_input(base_model, capsys, monkeypatch):
    assert main([*GENERATE, base_model]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("The old lady\n"))
    assert main(["generate", "-", *GENERATE[2:], base_model]) == 0
    first, second = capsys.readouterr().out.split("\nthe old lady", 1)
    assert first + "\n" == "the old lady" + second


def test_several_continuations_are_numbered(base_model, capsys):
    argv = ["generate", "The old lady", "--max-new-tokens=6", "--num-return-sequences=3", "--model", base_model]
    assert main(argv) == 0
    lines = capsys.readouterr().out
    assert [f"=== {n} of 3 ===" in lines for n in (1, 2, 3)] == [True] * 3
    assert main([*argv, "--json", "--no_echo"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["index"] for row in rows] == [1, 2, 3]
    assert not any(row["text"].startswith("the old lady") for row in rows)
    assert all(row["text"] in lines for row in rows)


def test_a_terminal_gets_the_same_text_in_pieces(base_model):
    pieces = []
    settings = {"model": base_model, "max_new_tokens": 20, "seed": 3}
    (text,) = generate("The old lady", **settings)
    generate("The old lady", **settings, stream=pieces.append)
    assert "".join(pieces) == text and len([piece for piece in pieces if piece]) > 3
    (rest,) = generate("The old lady", **settings, echo=False)
    pieces.clear()
    generate("The old lady", **settings, echo=False, stream=pieces.append)
    assert "".join(pieces) == rest and text.endswith(rest) and "lady" not in rest.split()[:1]


@pytest.mark.parametrize(
    ("prompt", "more"), [("1, 2, 3", ", and so on"), ("he said -", '- "yes"'), ("don'", "my hat")]
)
def test_no_echo_when_the_next_word_changes_the_prompts_spaces(prompt, more):
    tokenizer = open_tokenizer("gpt1-tiny")
    ids, rest = tokenizer([prompt, more])["input_ids"]
    whole, new = (readable(tokenizer, ids + rest, prompt, start) for start in (0, len(ids)))
    assert not whole.startswith(readable(tokenizer, ids, prompt))
    assert whole.endswith(new) and new.replace(" ", "") == more.replace(" ", "")


def test_a_stream_holds_back_an_unfinished_word(base_model):
    tokenizer, shown = open_tokenizer(base_model), []
    stream = Stream(tokenizer, "the lady wept", 0, shown.append)
    ids = tokenizer("the lady wept")["input_ids"]
    import torch

    stream.put(torch.tensor([ids[:-1]]))
    assert "".join(shown) != readable(tokenizer, ids, "the lady wept")
    stream.put(torch.tensor(ids[-1:]))
    stream.end()
    assert "".join(shown) == readable(tokenizer, ids, "the lady wept")


def test_any_field_of_the_generation_config_is_a_flag(base_model, capsys):
    def run(*flags):
        assert main(["generate", "The old lady", "--model", base_model, "--max_new_tokens", "8", *flags]) == 0
        return capsys.readouterr().out

    greedy = run("--temperature", "0")
    assert run("--do_sample", "false") == run("--top_k", "1") == greedy
    stopped = run("--do_sample", "false", "--stop_strings", f"[{greedy.split()[3]!r}]")
    assert len(stopped.split()) == 4 and greedy.startswith(stopped.strip())
    assert run("--do-sample=false", "--repetition_penalty", "9") != greedy
    tokenizer = open_tokenizer(base_model)
    token = tokenizer(greedy)["input_ids"][len(tokenizer("The old lady")["input_ids"])]
    assert run("--temperature", "0", "--suppress_tokens", f"[{token}]") != greedy


def test_a_model_s_own_settings_come_before_the_defaults(base_model, tmp_path, capsys):
    import shutil

    shutil.copytree(base_model, tmp_path / "model")
    own = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    own |= {"max_new_tokens": 3, "do_sample": False}
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(own))
    (short,) = generate("The old lady", str(tmp_path / "model"))
    (greedy,) = generate("The old lady", base_model, max_new_tokens=3, temperature=0)
    assert short == greedy
    (longer,) = generate("The old lady", str(tmp_path / "model"), max_new_tokens=9)
    assert longer.startswith(short) and longer != short


@pytest.mark.parametrize("flags", ["--max_new_tokens 200", "--max_length 200"])
def test_a_text_beyond_the_context_is_an_error_at_once(base_model, capsys, monkeypatch, flags):
    monkeypatch.setattr("transformers.GenerationMixin.generate", lambda *args, **kwargs: pytest.fail("it began"))
    assert main(["generate", "The old lady", "--model", base_model, *flags.split()]) == 1
    assert "the model's context of 64" in capsys.readouterr().err


def test_the_advice_for_a_text_beyond_the_context_works(base_model, capsys):
    command = ["generate", "The old lady", "--model", base_model, "--temperature", "0", "--max_length", "200"]
    assert main(command) == 1
    advice = capsys.readouterr().err.split()[-2:]
    assert advice[0] == "max_new_tokens" and main([*command, f"--{advice[0]}", advice[1]]) == 0


def test_training_a_tokenizer_prints_only_its_result(tmp_path, capfd):
    (tmp_path / "text.txt").write_text("the old lady saw the old man\n" * 20, encoding="utf-8")
    command = ["tokenizer", "train", "--corpus", str(tmp_path / "text.txt"), "--vocab_size", "30"]
    assert main([*command, "--output_dir", str(tmp_path / "out")]) == 0
    assert capfd.readouterr().out.splitlines() == [f"30 entries saved in {tmp_path / 'out'}"]


WRONG_VALUES = [
    "finetune --config nowhere",
    "finetune --config FILE",
    "finetune --task nothing",
    "finetune --task cola --sample --metric_for_best_model nothing",
    "finetune --task cola --report_to nothing",
    "finetune --task dpr",
    "finetune --task cola --sample --held_out_share 1",
    "pretrain --corpus FILE --tokenizer gpt1-tiny --metric_for_best_model accuracy",
    "evaluate --text_file FILE --split test",
    "zero-shot --task sst2 --sample --split nothing",
    "analyze ablations --dry_run --config FILE",
    "analyze ablations --dry_run --tasks nothing",
    "analyze ablations --dry_run --finetune.learning_rate much",
    "recipes show nowhere",
    "space --model gpt1-tiny --output_dir out",
]


@pytest.mark.parametrize("command", WRONG_VALUES)
def test_an_invalid_value_is_wrong_usage(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").write_text("[a list]\n", encoding="utf-8")
    assert main(command.replace("FILE", "file.txt").split()) == 2
    assert capsys.readouterr().err.count("gpt1: error: ") == 1


def fail(error):
    raise error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        OSError("a bug"),
        FileNotFoundError(errno.ENOENT, "a bug"),
        KeyError("a bug"),
        TypeError("a"),
    ],
)
def test_a_bug_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        run_command(lambda: fail(error))


def test_a_bug_inside_the_family_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(GPT1Processor, "__init__", lambda self: int("a bug"))
    monkeypatch.setitem(GPT1Processor.__init__.__globals__, "__name__", "gpt1_hf.processing_gpt1")
    with pytest.raises(ValueError, match="invalid literal"):
        run_command(GPT1Processor)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (GPT1Error("the file is bad"), 1),
        (UsageError("the flag is bad"), 2),
        (OSError(errno.ENOSPC, "No space left on device"), 1),
        (PermissionError(errno.EACCES, "Permission denied"), 1),
        (FloatingPointError("the loss is nan"), 1),
        (OfflineModeIsEnabled("offline"), 1),
    ],
)
def test_known_causes_give_one_sentence(error, status, capsys):
    assert run_command(lambda: fail(error)) == status
    assert capsys.readouterr().err == f"gpt1: error: {error}\n"


def test_errors_of_the_model_family_give_one_sentence(capsys):
    assert run_command(lambda: GPT1Config(hidden_size=10, num_attention_heads=3)) == 1
    assert capsys.readouterr().err == "gpt1: error: hidden_size (10) must be a multiple of num_attention_heads (3)\n"
    assert run_command(lambda: GPT1Processor(None, "nothing")) == 1
    assert "unknown input_format 'nothing'" in capsys.readouterr().err


def test_a_damaged_file_is_reported(capsys):
    assert run_command(lambda: json.loads("{nothing")) == 1
    assert capsys.readouterr().err.startswith("gpt1: error: a file is damaged: ")
