"""A corpus on the Hub goes straight into the token stream: not stored, in bounded memory, restarted after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pytest
from helpers.hub_client import PACKAGE, error_of, hub_environment
from helpers.hub_server import File, Refused, Repo


N_SHARDS, MEGABYTES = 8, 4  # of each shard
LINE = "the old lady of the house wept in the dark garden by the sea " * 16
CONFIG = "- config_name: {0}\n  data_files:\n  - split: train\n    path: '{0}-*.jsonl'\n"
CARD = f"---\nconfigs:\n{CONFIG.format('big')}{CONFIG.format('small')}---\n"
# Builds the token stream of a run and prints its length and the peak of this process's memory in MB.
BUILD = """
import sys
from pathlib import Path
from gpt1_hf.cli import run_command
from gpt1_hf.cli.parser import parse
from gpt1_hf.checkpoints.loading import open_tokenizer
from gpt1_hf.training.arguments import PretrainArguments
from gpt1_hf.training.pretrain import token_streams

def build():
    args = parse(PretrainArguments, sys.argv[1:], "pretrain", "")
    train, held_out = token_streams(args, open_tokenizer(args.tokenizer))
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print("BUILT", len(train) + len(held_out), int(peak.split()[1]) // 1024)

sys.exit(run_command(build))
"""


def data_set(n_shards: int) -> Repo:
    # Another column makes up most of the data set, since tokenizing takes the most time.
    row = json.dumps({"body": LINE, "notes": "x" * 15 * len(LINE)}) + "\n"
    shard = (row * (MEGABYTES * 2**20 // len(row))).encode()
    files = {f"big-{n:02d}.jsonl": File(shard, True) for n in range(n_shards)}
    files |= {"small-0.jsonl": File(b'{"body": "the lady"}\n', False), "README.md": File(CARD.encode(), False)}
    repo = Repo()
    repo.commit("main", files, "all")
    return repo


@pytest.fixture
def build(hub, tmp_path, tokenizer):
    """Start a process that builds a stream; `home` is its only folder for caches."""
    hub.repos["datasets/bert/one"] = data_set(1)
    hub.repos["datasets/bert/many"] = data_set(N_SHARDS)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "home").mkdir()
    environment = hub_environment(tmp_path / "home", hub) | {"PYTHONPATH": str(PACKAGE.parent)}
    environment |= {"TMPDIR": str(tmp_path / "home"), "HOME": str(tmp_path / "home")}

    def start(name: str, *more: str) -> subprocess.Popen:
        options = ["--corpus", f"bert/{name}", "--corpus_config", "big", "--corpus_column", "body"]
        options += ["--tokenizer", str(tmp_path / "tokenizer"), "--output_dir", str(tmp_path / name), *more]
        return subprocess.Popen(
            [sys.executable, "-c", BUILD, *options, "--use_cpu", "true"],
            env=environment,
            cwd=tmp_path / "home",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def built(process: subprocess.Popen) -> list[int]:
    """Tokens and peak memory of a build that succeeds."""
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-2000:]
    return [int(word) for word in out.split("BUILT")[1].split()]


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc")
def test_it_is_not_stored_and_memory_does_not_grow_with_it(build, tmp_path):
    tokens, peak = built(build("one"))
    many_tokens, many_peak = built(build("many"))
    assert many_tokens == N_SHARDS * tokens
    # Older versions of `datasets` give memory back later.
    assert many_peak < peak + (N_SHARDS - 1) * MEGABYTES * (0.5 if hasattr(datasets, "Json") else 1.5)
    assert size_of(tmp_path / "home") < 2**20
    stream = tmp_path / "many" / "tokens" / "train"
    assert (stream / "tokens.bin").stat().st_size == 2 * many_tokens


def test_a_killed_build_leaves_no_stream_and_starts_again(build, hub, tmp_path):
    folder = tmp_path / "many" / "tokens"
    process = build("many")
    deadline = time.monotonic() + 120
    while not (found := list(folder.glob("train.unfinished/tokens.bin"))) or not found[0].stat().st_size:
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (folder / "train").exists()
    tokens, _ = built(build("many"))
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["train"]
    assert tokens % N_SHARDS == 0 and (folder / "train" / "tokens.bin").stat().st_size == 2 * tokens


def test_a_hub_that_fails_in_the_middle_leaves_no_stream(build, hub, tmp_path):
    hub.repos["datasets/bert/many"].refuses[f"big-{N_SHARDS - 1:02d}.jsonl"] = Refused(403, "Not from there.")
    process = build("many")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1 and "Traceback" not in errors
    assert "cannot read the corpus 'bert/many' to its end" in errors.strip().splitlines()[-1]
    assert [path.name for path in (tmp_path / "many" / "tokens").iterdir()] == ["train.lock"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--corpus_config", "bug"], "on the Hub it has the configurations big, small: give --data_dir"),
        (["--corpus_split", "dev"], "does not have the split 'dev'"),
        (
            ["--corpus_column", "bodies"],
            "no column 'bodies': choose --corpus_column from ['body', 'notes']; did",
        ),
    ],
)
def test_what_a_data_set_on_the_hub_lacks_is_one_sentence(client, hub, more, message):
    hub.repos["datasets/bert/one"] = data_set(1)
    options = ["--corpus", "bert/one", "--corpus_config", "big", "--output_dir", "tokenizer", *more]
    assert message in error_of(client("tokenizer", "train", *options))
