"""Failures of the Hub, the network and the disk, tested with a Hub on localhost: one sentence with the remedy.

These tests cover every kind of error that `datasets`, `transformers` and `huggingface_hub` raise while loading.
"""

import errno
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.hub_client import OTHER_TOKEN, PACKAGE, TOKEN, error_of, hub_environment
from helpers.hub_server import File, Refused, Repo

from gpt1_hf.cli import main
from gpt1_hf.data.corpus import read_documents
from gpt1_hf.data.loading import LOAD_ERRORS, open_dataset
from gpt1_hf.errors import GPT1Error
from gpt1_hf.hub_errors import load_failure
from gpt1_hf.resources import model_path


ROWS = b'{"text": "the old house"}\n'
CONFIGS = (
    "---\nconfigs:\n- config_name: one\n  data_files: one.jsonl\n- config_name: two\n  data_files: two.jsonl\n---\n"
)
INFO = "---\ndataset_info:\n  features:\n  - name: text\n    dtype: {dtype}\n  splits:\n{splits}---\n"
SPLIT = "  - name: {}\n    num_bytes: 10\n    num_examples: {}\n"


def repo(files: dict[str, bytes | str], **kwargs) -> Repo:
    found = Repo(**kwargs)
    contents = {name: content.encode() if isinstance(content, str) else content for name, content in files.items()}
    found.commit("main", {name: File(content, False) for name, content in contents.items()}, "all")
    return found


def refusing(status: int, message: str = "", code: str | None = None, where: str = "") -> dict[str, Refused]:
    return {where: Refused(status, message, code)}


FINE = {"train.jsonl": ROWS}
# Name of a data set -> its repository, and the expected message.
BAD = {
    "script": (repo({"script.py": "raise SystemExit"}), "a script.*use its Parquet copy, .*@refs/convert/parquet"),
    "empty": (repo({"README.md": "nothing"}), "not as expected.*EmptyDatasetError"),
    "binary": (repo({"README.md": "x", "x.bin": "x"}), "not as expected.*DataFilesNotFoundError"),
    "private": (repo(FINE, private=True), "no data set with this name, or it is private: check the name, log in"),
    "gated": (repo(FINE, gated=True), r"gated on the Hub: ask for access at http\S*/datasets/bert/gated and log in"),
    "busy": (repo(FINE, refuses=refusing(429)), r"too many requests \(429\): wait a few minutes"),
    "busy-file": (repo(FINE, refuses=refusing(429, where="train.jsonl")), r"too many requests \(429\)"),
    "down": (repo(FINE, refuses=refusing(503)), r"an internal error \(503\): try again later"),
    "down-file": (repo(FINE, refuses=refusing(500, where="train.jsonl")), r"an internal error \(500\)"),
    "disabled": (
        repo(FINE, refuses=refusing(403, "Access to this resource is disabled.")),
        r"has disabled it \(Access to this resource is disabled\)",
    ),
    "forbidden": (repo(FINE, refuses=refusing(403, "Not from there.")), r"denies access \(.*\): log in"),
    "legal": (repo(FINE, refuses=refusing(451)), "has disabled it"),
    "teapot": (repo(FINE, refuses=refusing(418)), "the Hub answers 418"),
    "configs": (
        repo({"README.md": CONFIGS, "one.jsonl": ROWS, "two.jsonl": ROWS}),
        "configurations one, two: name one of them .--corpus_config",
    ),
    "test-only": (repo({"test.jsonl": ROWS}), "does not have the split 'train'"),
    "card": (repo({"README.md": "---\na: [\n---\n", **FINE}), "damaged or empty"),
    "card-list": (repo({"README.md": "---\nconfigs: 3\n---\n", **FINE}), "damaged or empty"),
    "card-item": (repo({"README.md": "---\nconfigs:\n- 3\n---\n", **FINE}), "damaged or empty"),
    "card-file": (
        repo({"README.md": "---\nconfigs:\n- config_name: a\n  data_files: no.jsonl\n---\n", **FINE}),
        "damaged or empty.*no.jsonl",
    ),
    "types": (repo({"README.md": INFO.format(dtype="nonsense", splits=""), **FINE}), "damaged or empty"),
    "damaged": (repo({"train.parquet": "xx"}), "damaged"),
    "damaged-later": (repo({"train.jsonl": ROWS * 3 + b'{"text": '}), "damaged"),
    "zip": (repo({"train.zip": "xx"}), "damaged"),
    "gz": (repo({"train.jsonl.gz": "xx"}), "damaged"),
    "gz-cut": (repo({"train.jsonl.gz": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"}), "damaged|no rows|no text"),
    "xz": (repo({"train.jsonl.xz": "xx"}), "damaged"),
    "no-rows": (repo({"train.jsonl": ""}), "damaged|empty|no rows"),
}
# Further cases, for data that is not streamed.
BAD_WHOLE = {
    "sizes": (
        repo({"README.md": INFO.format(dtype="string", splits=SPLIT.format("train", 700)), **FINE}),
        "not as expected.*NonMatchingSplitsSizesError",
    ),
    "splits": (
        repo(
            {
                "README.md": INFO.format(dtype="string", splits=SPLIT.format("train", 1) + SPLIT.format("test", 1)),
                **FINE,
            }
        ),
        "not as expected.*ExpectedMoreSplitsError",
    ),
    "numbers": (
        repo({"README.md": INFO.format(dtype="int64", splits=SPLIT.format("train", 1)), **FINE}),
        "damaged or empty.*the old house",
    ),
    "columns": (repo({"train-0.jsonl": ROWS, "train-1.jsonl": '{"text": "x", "b": 3}\n'}), "damaged or empty"),
}
IMPATIENT = """
import sys, time
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(seconds, 0.01))
from gpt1_hf.cli import main
sys.exit(main(sys.argv[1:]))
"""
WHOLE = """
import sys
from gpt1_hf.data.loading import open_dataset
from gpt1_hf.errors import GPT1Error
try:
    open_dataset("bert/NAME", "train", config=CONFIG)
except GPT1Error as error:
    print("gpt1: error:", error, file=sys.stderr)
    sys.exit(1)
"""


@pytest.fixture(scope="module", autouse=True)
def repositories(hub):
    for name, (found, _) in (BAD | BAD_WHOLE).items():
        hub.repos[f"datasets/bert/{name}"] = found
    hub.repos["datasets/bert/fine"] = repo(FINE)
    parquet = repo(FINE)
    parquet.branches["refs/convert/parquet"] = parquet.branches["main"]
    hub.repos["datasets/bert/copied"] = parquet
    hub.repos["datasets/bert/copied"].commit("main", {"copied.py": File(b"x", False)}, "a script")


def train(client, corpus, *more, token=TOKEN, **kwargs) -> dict:
    sizes = ["--vocab_size", 30, "--output_dir", "tokenizer"]
    return client("tokenizer", "train", "--corpus", corpus, *sizes, *more, token=token, **kwargs)


@pytest.mark.parametrize("name", BAD)
def test_a_corpus_that_cannot_be_read_says_why(client, name):
    message = error_of(train(client, f"bert/{name}"))
    assert re.search(BAD[name][1], message), message
    assert f"'bert/{name}'" in message and len(message) < 700
    # `datasets` before 5.0 reads a file without rows as an empty data set.
    assert "--data_dir" in message or "cannot read the corpus" in message or "it has no rows" in message


@pytest.mark.parametrize("name", BAD | BAD_WHOLE)
def test_a_data_set_that_cannot_be_mapped_says_why(client, name):
    answer = client(code=WHOLE.replace("NAME", name).replace("CONFIG", "None"))
    message = error_of(answer)
    assert re.search((BAD | BAD_WHOLE)[name][1].replace("|no rows|no text", "|empty"), message), message


@pytest.mark.parametrize("name", ["script", "configs", "test-only", "empty", "fine"])
def test_fixed_settings_of_a_task_are_not_advised(client, name):
    """The configuration and revision of a task are fixed, so the remedy is a local copy."""
    message = error_of(client(code=WHOLE.replace("NAME", name).replace("CONFIG", "'nix'")))
    assert "give another" not in message and "refs/convert" not in message and "hf download" not in message
    assert message.endswith("give --data_dir (or GPT1_DATA_DIR) a folder with a local copy")
    if name in ("fine", "configs"):
        assert f"configurations {'default' if name == 'fine' else 'one, two'}:" in message


def test_the_copy_in_parquet_can_be_read(client):
    assert "bert/copied@refs/convert/parquet" in error_of(train(client, "bert/copied"))
    assert train(client, "bert/copied@refs/convert/parquet")["status"] == 0
    assert train(client, "bert/copied", "--corpus_revision", "refs/convert/parquet")["status"] == 0
    assert "no such revision" in error_of(train(client, "bert/fine@nix"))
    assert "no such revision" in error_of(train(client, "bert/fine", "--corpus_revision", "nix"))


def test_invalid_and_missing_tokens_are_distinguished(client):
    assert "no data set with this name, or it is private" in error_of(train(client, "bert/nothing"))
    assert "no data set with this name, or it is private" in error_of(train(client, "bert/nothing", token=None))
    assert "the Hub does not accept the token: log in again" in error_of(train(client, "bert/fine", token="hf_other"))
    assert train(client, "bert/private", token=OTHER_TOKEN)["status"] == 0
    assert train(client, "bert/gated", token=OTHER_TOKEN)["status"] == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bad name!", "cannot have this name"),
        ("a--b/c..d", "cannot have this name"),
        ("a/b/c/d", "damaged or empty|there is no file"),
        ("../x/y", "damaged or empty|there is no file"),
        ("csv", "there is no file or folder 'csv'"),
        ("text", "there is no file or folder 'text'"),
        ("missing.TXT", "there is no file or folder"),
        ("http://127.0.0.1:9/x", "damaged or empty|there is no file"),
    ],
)
def test_names_that_the_hub_cannot_have(client, name, message):
    assert re.search(message, error_of(train(client, name)))


@pytest.mark.parametrize(
    "argv",
    [
        ["tokenizer", "train", "--corpus", "bert/script", "--output_dir", "x"],
        ["pretrain", "--corpus", "bert/script", "--tokenizer", model_path("gpt1-tiny"), "--use_cpu", "true"],
        ["evaluate", "--text_file", "bert/script"],
        ["evaluate", "--text_file", "x.txt", "--check_overlap", "true", "--train_text", "bert/script"],
    ],
)
def test_every_command_that_reads_a_corpus(client, argv, tmp_path):
    text = tmp_path / "x.txt"
    text.write_text("the old house")
    argv = [str(text) if arg == "x.txt" else arg for arg in argv] + ["--output_dir", str(tmp_path / "out")]
    assert "bert/script@refs/convert/parquet" in error_of(client(*argv))


# Name of a model -> changes to its repository, and the expected message.
MODELS = {
    "private": ({"private": True}, "no model with this name, or it is private: check the name, log in"),
    "gated": ({"gated": True}, r"gated on the Hub: ask for access at http\S*\d/bert/gated and log in"),
    "busy": ({"refuses": refusing(429)}, r"too many requests \(429\): wait a few minutes"),
    # transformers treats refused weights as missing, and requests a conversion.
    "busy-weights": ({"refuses": refusing(429, where="model.safetensors")}, "the weights of model"),
    "down": ({"refuses": refusing(500)}, r"an internal error \(500\): try again later"),
    "forbidden": ({"refuses": refusing(403, "Not from there.")}, r"denies access \(.*\): log in"),
    "no-config": ({}, "model 'bert/no-config'|there is no config.json"),
    "no-tokenizer": ({}, "no tokenizer files|model 'bert/no-tokenizer'"),
    "no-weights": ({}, "the weights of model 'bert/no-weights'.*model.safetensors|the layout"),
    "damaged-config": ({}, "not a valid JSON file"),
    "damaged-weights": ({}, "the weights of model 'bert/damaged-weights'"),
    "damaged-tokenizer": ({}, "model 'bert/damaged-tokenizer'"),
    "nothing": (None, "no model with this name, or it is private"),
    "b--d": (None, "a model on the Hub cannot have this name: check it"),
}


@pytest.fixture(scope="module")
def models(hub):
    whole = {file.name: file.read_bytes() for file in Path(model_path("gpt1-tiny")).iterdir() if file.is_file()}
    parts = {"config": "config.json", "tokenizer": "tokenizer.json", "weights": "model.safetensors"}
    for name, (changes, _) in MODELS.items():
        if changes is None:
            continue
        files, (fault, _, part) = dict(whole), name.partition("-")
        if fault == "no":
            del files[parts[part]]
        elif fault == "damaged":
            files[parts[part]] = b"{"
        hub.repos[f"bert/{name}"] = repo(files, **changes)


@pytest.mark.parametrize("command", ["generate", "evaluate-task", "evaluate-text", "pretrain", "convert"])
def test_a_model_that_cannot_be_loaded_says_why(client, models, tmp_path, command):
    text = tmp_path / "x.txt"
    text.write_text("the old house stood by the garden")
    argv = {
        "generate": ["generate", "hello", "--model", "NAME"],
        "evaluate-task": ["evaluate", "--task", "cola", "--sample", "true", "--model", "NAME"],
        "evaluate-text": ["evaluate", "--text_file", str(text), "--model", "NAME"],
        "pretrain": ["pretrain", "--corpus", str(text), "--use_cpu", "true", "--tokenizer", "NAME"],
        "convert": ["convert", "NAME", "--to", "openai-gpt"],
    }[command]
    if command != "generate":
        argv += ["--output_dir", str(tmp_path / "out")]
    for name, (_, expected) in MODELS.items():
        if command == "pretrain" and ("weights" in name or "config" in name):
            continue  # only the tokenizer is asked for
        if command == "convert" and name == "no-tokenizer":
            continue  # which is not needed
        message = error_of(client(*[f"bert/{name}" if arg == "NAME" else arg for arg in argv]))
        assert re.search(expected, message), message
        assert f"bert/{name}" in message and len(message) < 600, message


def test_a_full_disk_is_reported(client, hub):
    """If the cache cannot be written, `datasets` only says that it could not generate the data."""
    hub.repos["datasets/bert/large"] = repo({"train.jsonl": ROWS * 100_000})
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({}, resource.RLIM_INFINITY))\n"
    code = limit.format(1_000_000) + "try:\n" + re.sub("^", "    ", WHOLE, flags=re.M).replace("NAME", "large")
    code = code.replace("CONFIG", "None") + "\nfinally:\n    " + limit.format("resource.RLIM_INFINITY")
    message = error_of(client(code=code))
    assert "there is not enough space for" in message and "set HF_HOME to a folder on another disk" in message


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_errors_of_the_cache_folder_are_reported(number):
    outer = RuntimeError("An error occurred while generating the dataset")
    outer.__cause__ = OSError(number, "said", "/cache/x")
    reason, remedy = load_failure(outer, "a/b", "data set")
    assert "/cache/x" in reason and "HF_HOME" in remedy


@pytest.mark.slow
@pytest.mark.parametrize(
    "argv",
    [["tokenizer", "train", "--corpus", "bert/fine", "--output_dir", "x"], ["generate", "hello", "--model", "bert/x"]],
)
def test_without_a_network(hub, tmp_path, argv):
    environment = hub_environment(tmp_path, hub) | {
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
    }
    command = [sys.executable, "-c", IMPATIENT, *argv]
    path = {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(command, env=environment | path, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "the Hub at http://127.0.0.1:9 cannot be reached: check the network, or give" in done.stderr


def test_offline_it_says_so(capsys, tmp_path):
    for argv in (
        ["tokenizer", "train", "--corpus", "bert/fine", "--output_dir", str(tmp_path / "x")],
        ["generate", "hello", "--model", "bert/model"],
    ):
        assert main(argv) == 1
        message = capsys.readouterr().err
        assert message.count("\n") == 1 and "HF_HUB_OFFLINE is set" in message and "unset it" in message
    assert "there is no such folder, and HF_HUB_OFFLINE is set" in message


def test_a_bug_keeps_its_traceback(monkeypatch):
    """Only errors of the libraries become one sentence."""

    class Bug(Exception):
        pass

    def broken(**_):
        raise Bug

    monkeypatch.setattr("gpt1_hf.data.loading.load_dataset", broken)
    with pytest.raises(Bug):
        open_dataset("bert/fine", "train")
    assert Exception not in LOAD_ERRORS and BaseException not in LOAD_ERRORS


class TestFolders:
    """Files in a folder of text that are not read are named."""

    def test_suffixes_in_any_case_are_read_and_others_named(self, tmp_path, caplog):
        for name in ("a.TXT", "b.txt", "c.md", "d/e.Txt", ".hidden/f.md", "g.MD", "h", "i.pdf"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(f"text of {Path(name).name}")
        assert list(read_documents(str(tmp_path))) == ["text of a.TXT", "text of b.txt", "text of e.Txt"]
        assert ": only .txt files are read; skipped: c.md, g.MD, h and 1 more" in caplog.text
        assert list(read_documents(str(tmp_path / "a.TXT"))) == ["text of a.TXT"]

    def test_rows_in_any_case_and_texts_beside_them(self, tmp_path, caplog):
        (tmp_path / "train.JSONL").write_bytes(ROWS)
        (tmp_path / "README.md").write_text("x")
        assert list(read_documents(str(tmp_path))) == ["the old house"]
        assert not caplog.text  # a card is not a forgotten text
        (tmp_path / "more.txt").write_text("x")
        assert list(read_documents(str(tmp_path))) == ["the old house"]
        assert ": only files of rows are read; skipped: more.txt" in caplog.text

    @pytest.mark.parametrize("name", ["a.md", "a.pdf", "a"])
    def test_an_unknown_kind_of_folder_or_file_names_the_readable_kinds(self, tmp_path, name):
        (tmp_path / name).write_text("text")
        with pytest.raises(GPT1Error, match=rf"\(it holds {name}\): give a .txt file, a folder of them, or rows"):
            list(read_documents(str(tmp_path)))
        with pytest.raises(GPT1Error, match=rf"{name} has an unknown format: give a .txt file"):
            list(read_documents(str(tmp_path / name)))
