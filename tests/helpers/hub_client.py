"""Clients of the Hub on localhost (`hub_server.py`), each in its own process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.hub_server import HubServer

import gpt1_hf


PACKAGE = Path(gpt1_hf.__file__).parent
TOKEN, READ_TOKEN, OTHER_TOKEN = "hf_secretOfAnna", "hf_secretToRead", "hf_secretOfBert"
TOKENS = {
    TOKEN: {"name": "anna", "can_write": True},
    READ_TOKEN: {"name": "anna", "can_write": False},
    OTHER_TOKEN: {"name": "bert", "can_write": True},
}

# Runs commands one after another, without huggingface_hub's waits between attempts.
CLIENT = """
import contextlib, io, json, os, sys, time
import huggingface_hub
from gpt1_hf.cli import main

sleep = time.sleep
time.sleep = lambda seconds: sleep(min(seconds, 0.01))
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for line in sys.stdin:
    order = json.loads(line)
    os.environ.pop("HF_TOKEN", None)
    os.environ.update(order["environment"])
    huggingface_hub.constants.ENDPOINT = order["endpoint"]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = exec(order["code"], {}) if order["code"] else main(order["argv"])
        except SystemExit as stop:
            status = stop.code
    answers.write(json.dumps({"status": status, "out": out.getvalue(), "err": err.getvalue()}) + "\\n")
    answers.flush()
"""

# Start of the code of a process without the package.
BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "gpt1_hf":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

blocker = Blocker()
sys.meta_path.insert(0, blocker)
"""


def hub_environment(home: Path, hub: HubServer) -> dict[str, str]:
    """Environment of a process with its Hub on localhost; huggingface_hub reads the address on import."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    # The server does not speak hf_xet's protocol.
    environment |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "localhost,127.0.0.1", "OMP_NUM_THREADS": "1"}
    return environment | {"TOKENIZERS_PARALLELISM": "false"}


@contextmanager
def started_client(home: Path, hub: HubServer) -> Iterator[Callable[..., dict]]:
    """Run `gpt1` commands, or code, in another process: `client(*argv, token=...)` -> status, output and errors."""
    log = home / "log"
    environment = hub_environment(home, hub) | {"PYTHONPATH": str(PACKAGE.parent), "HF_HUB_VERBOSITY": "debug"}
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", CLIENT],
            env=environment,
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )

        def run(*argv, code: str = "", token: str | None = TOKEN, endpoint: str = hub.endpoint) -> dict:
            order = {"argv": [str(arg) for arg in argv], "code": code, "endpoint": endpoint}
            order["environment"] = {"HF_TOKEN": token} if token else {}
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            assert answer, log.read_text()[-4000:]
            answer = json.loads(answer)
            assert not any(secret in answer["out"] + answer["err"] for secret in TOKENS)
            assert "Traceback" not in answer["err"], answer["err"]
            return answer

        yield run
        process.stdin.close()
        assert process.wait(120) == 0, log.read_text()[-4000:]
    assert not any(secret in log.read_text() for secret in TOKENS)


def run_without_package(
    code: str, *argv: str, home: Path, hub: HubServer | None = None, python: str = sys.executable
) -> dict:
    """Run code in a process without the package, with access to the given Hub only; returns the JSON after REPORT."""
    done = process_without_package(code, *argv, home=home, hub=hub, python=python)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.rsplit("REPORT", 1)[1])


def process_without_package(
    code: str, *argv: str, home: Path, hub: HubServer | None = None, python: str = sys.executable
) -> subprocess.CompletedProcess:
    """Run code in a process without the package and without input, with access to the given Hub only."""
    home.mkdir(exist_ok=True)
    if hub is None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    else:
        environment = hub_environment(home, hub) | {"HF_TOKEN": TOKEN}
    return subprocess.run(
        [python, "-I", "-c", BLOCKER + code, *argv],
        env={name: value for name, value in environment.items() if not name.startswith("PYTHON")},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=900,
        stdin=subprocess.DEVNULL,
    )


def error_of(answer: dict, status: int = 1) -> str:
    """The one-sentence error of a command. Status 1 is a failure, 2 is wrong usage."""
    assert answer["status"] == status, answer
    line = answer["err"].strip().splitlines()[-1]
    assert line.startswith("gpt1: error: "), answer
    return line
