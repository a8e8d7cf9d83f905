"""The demo: its folder runs as a Space, and its tabs work in a browser, offline.

The browser test needs gradio (extra `demo`), selenium, chromium and chromedriver. With `SPACE_SCREENSHOTS=FOLDER` it
leaves a picture of each tab, light and dark.
"""

import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from gpt1_hf import GPT1ForCausalLM
from gpt1_hf.cli import main
from gpt1_hf.errors import GPT1Error
from gpt1_hf.inside.explorer import Explorer
from gpt1_hf.inside.space import load_app, write_space
from gpt1_hf.resources import space_dir


# Runs the command line in a process that cannot connect to anything but itself, and prints what it tried.
OFFLINE = """
import socket, sys
connect, getaddrinfo = socket.socket.connect, socket.getaddrinfo
def only_here(self, address):
    if isinstance(address, tuple) and not address[0].startswith("127."):
        print("OUTSIDE", address, flush=True)
        raise OSError("offline")
    return connect(self, address)
def no_names(host, *args, **kwargs):
    if host not in (None, "127.0.0.1", "localhost"):
        print("OUTSIDE", host, flush=True)
        raise OSError("offline")
    return getaddrinfo(host, *args, **kwargs)
socket.socket.connect, socket.getaddrinfo = only_here, no_names
from gpt1_hf.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_the_space_requires_what_the_package_requires():
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    lines = (space_dir() / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == project["dependencies"]


def test_the_written_folder_is_a_space(tmp_path):
    assert main(["space", "--output_dir", str(tmp_path / "space")]) == 0
    folder = tmp_path / "space"
    front = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert front["sdk"] == "gradio" and (folder / front["app_file"]).is_file()
    assert len(front["short_description"]) <= 60 and front["license"] == "mit"
    assert not list(folder.rglob("__pycache__"))
    assert (folder / "gpt1_hf" / "assets" / "gpt1-tiny" / "model.safetensors").is_file()
    with pytest.raises(GPT1Error, match="empty folder"):
        write_space(folder)


@pytest.mark.slow
def test_the_written_folder_needs_no_installed_package(tmp_path):
    folder = write_space(tmp_path / "space")
    code = """
import sys
from pathlib import Path
import gpt1_hf
assert Path(gpt1_hf.__file__).is_relative_to(Path.cwd()), gpt1_hf.__file__
from importlib.metadata import distribution
assert Path(str(distribution("gpt1_hf").locate_file("."))).resolve() == Path.cwd()
from gpt1_hf.inside.explorer import Explorer
assert Explorer().sentiment("A fine day").answers == ["negative", "positive"]
"""
    (folder / "try.py").write_text(code, encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([sys.executable, "try.py"], cwd=folder, env=environment, check=True)


def test_missing_gradio_is_reported(monkeypatch, capsys):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gradio" else find_spec(name))
    with pytest.raises(GPT1Error, match=re.escape("pip install 'gpt1_hf[demo]'")):
        load_app()
    assert main(["space"]) == 1
    assert "pip install" in capsys.readouterr().err


@pytest.fixture(scope="module")
def app():
    pytest.importorskip("gradio", reason="needs gradio: the extra `demo`")
    return load_app()


def values(page) -> dict[str, str]:
    """Initial values of a page's named or labelled parts."""
    parts = {getattr(block, "elem_id", None) or getattr(block, "label", None): block for block in page.blocks.values()}
    return {name: str(getattr(block, "value", "")) for name, block in parts.items() if name}


def test_the_page_opens_with_its_examples_answered(app):
    shown = values(app.build(Explorer()))
    assert "gpt1-tiny" in shown["about"] and "4.3 million parameters" in shown["about"]
    assert "gets 50 right, which is what guessing gives" in shown["sentiment-worth"]
    assert "calls 100 of them positive" in shown["sentiment-worth"]
    for name in ("generate", "sentiment", "acceptability", "pronoun", "choice"):
        assert "%" in shown[f"{name}-table"], name
    for name in ("sentiment", "acceptability", "pronoun", "choice"):
        assert "confidence" in shown[f"{name}-bars"], name
    assert "'dark '" in shown["generate-text"] and "</w>" in shown["tokenizer-pieces"]


def test_a_model_opens_even_if_the_examples_are_too_long_for_it(app, config, tokenizer, tmp_path):
    """Errors are shown when the user presses a button, and a name is text, whatever it looks like."""
    config.max_position_embeddings = 24
    folder = tmp_path / "<b>x*y*"
    GPT1ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    shown = values(app.build(Explorer(str(folder))))
    assert "&lt;b&gt;x*y*" in shown["about"] and "<b>" not in shown["about"]
    assert "token" not in shown["generate-text"] and "%" not in shown["generate-table"]


@pytest.mark.parametrize(("n_right", "is_chance"), [(50, True), (59, True), (61, False), (90, False)])
def test_sentiment_is_compared_with_guessing_within_its_error(app, n_right, is_chance):
    explorer = SimpleNamespace(sample_sentiment=(100, n_right, 40))
    text = app.how_good(explorer)
    assert f"gets {n_right} right" in text and ("what guessing gives" in text) == is_chance
    assert ("guessing gives 50" in text) != is_chance


@pytest.fixture
def served(tmp_path):
    """Address of the served demo. Afterwards, checks that it made no outside connection and ends on Ctrl-C."""
    pytest.importorskip("gradio", reason="needs gradio: the extra `demo`")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path / "log"
    command = [sys.executable, "-c", OFFLINE, "space", "--port", str(port)]
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as server:
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(lambda: address in log.read_text() or server.poll() is not None)
            assert server.poll() is None, log.read_text()
            yield address
            server.send_signal(signal.SIGINT)
            server.wait(60)
        finally:
            server.kill()
    assert "OUTSIDE" not in log.read_text() and "Traceback" not in log.read_text(), log.read_text()


def wait_for(condition, seconds: float = 600):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "timed out"
        time.sleep(0.2)
    return found


class Page:
    """A reader's actions on the demo."""

    def __init__(self, browser):
        self.browser = browser

    def text(self, name: str) -> str:
        return self.browser.execute_script(
            "const found = document.getElementById(arguments[0]); return found ? found.innerText : ''", name
        )

    def tab(self, title: str):
        def button():
            tabs = self.browser.find_elements("css selector", "button[role=tab]")
            return next((tab for tab in tabs if tab.is_displayed() and tab.text == title), None)

        wait_for(button).click()

    def write(self, name: str, text: str):
        # Typing would not take characters outside the Basic Multilingual Plane.
        wait_for(lambda: self.browser.find_elements("css selector", f"#{name} textarea, #{name} input"))
        self.browser.execute_script(
            "const box = document.querySelector(`#${arguments[0]} textarea, #${arguments[0]} input`);"
            "box.value = arguments[1]; box.dispatchEvent(new Event('input', {bubbles: true}))",
            name,
            text,
        )

    def run(self, name: str, output: str, expected: str):
        """Press a button, and wait until an output has a text, possibly in pieces."""
        self.browser.find_element("id", f"{name}-run").click()
        wait_for(lambda: expected in "".join(self.text(f"{name}-{output}").split()))

    def refused(self, name: str, message: str):
        self.browser.find_element("id", f"{name}-run").click()
        wait_for(lambda: message in self.browser.find_element("tag name", "body").text)
        wait_for(lambda: self.browser.find_elements("css selector", ".toast-close"))
        for close in self.browser.find_elements("css selector", ".toast-close"):
            self.browser.execute_script("arguments[0].click()", close)
        wait_for(lambda: not self.browser.find_elements("css selector", ".toast-close"))

    def picture(self, name: str):
        if folder := os.environ.get("SPACE_SCREENSHOTS"):
            height = self.browser.execute_script("return document.body.scrollHeight")
            self.browser.set_window_size(1280, max(900, height + 150))
            self.browser.save_screenshot(str(Path(folder) / f"{name}.png"))
            self.browser.set_window_size(1280, 900)


@pytest.mark.slow
def test_the_demo_works_in_a_browser(served, browser):
    page = Page(browser)
    markup = '<img src=x onerror="document.title=1"> the <b>old</b> house'
    for theme in ("light", "dark"):
        browser.get(f"{served}/?__theme={theme}")
        wait_for(lambda: page.text("generate-run"))
        # Filled before any button is pressed.
        wait_for(lambda: "itwasadarkandstormynight" in "".join(page.text("generate-text").split()))
        assert "%" in page.text("generate-table") and "gpt1-tiny" in page.text("about")
        before = page.text("generate-text")
        browser.find_element("id", "generate-another").click()
        wait_for(lambda before=before: page.text("generate-text") not in ("", before))
        seed = browser.find_element("css selector", "#generate-seed input")
        assert seed.get_property("value") == "1"
        page.run("generate", "table", "%")
        assert "itwasadarkandstormynight" in "".join(page.text("generate-text").split())
        page.picture(f"generate_{theme}")
        page.tab("Zero-shot")
        wait_for(lambda: "what guessing gives" in page.text("sentiment-worth"))
        page.run("sentiment", "table", "%")
        assert "positive" in page.text("sentiment-bars") and "negative" in page.text("sentiment-bars")
        page.picture(f"sentiment_{theme}")
        page.tab("Acceptability")
        page.run("acceptability", "table", "%")
        page.picture(f"acceptability_{theme}")
        page.tab("Pronoun")
        page.run("pronoun", "table", "thelock")
        page.picture(f"pronoun_{theme}")
        page.tab("Multiple choice")
        page.run("choice", "table", "greenstripes")
        assert page.text("choice-bars").count("%") == 2
        page.picture(f"choice_{theme}")
        page.tab("Tokenizer")
        page.run("tokenizer", "table", "o'clock</w>")
        page.picture(f"tokenizer_{theme}")

    # Markup is text everywhere: in tokens, tables, bars and messages.
    page.write("tokenizer-input", f"\U0001f600\u202e {markup}")
    page.run("tokenizer", "table", "U+202E")
    assert "\U0001f600" in page.text("tokenizer-table") and "<unk>" in page.text("tokenizer-pieces")
    page.write("tokenizer-input", "")
    page.refused("tokenizer", "the text is empty")
    page.tab("Generate")
    page.write("generate-input", markup)
    page.run("generate", "text", "onerror")
    page.write("generate-input", "house " * 2000)
    page.refused("generate", "more than the model's context of 512")
    page.tab("Multiple choice")
    page.write("choice-input", f"{markup}\n{markup}")
    page.run("choice", "bars", "onerror")
    assert "onerror" in page.text("choice-table")
    page.write("choice-input", "only one")
    page.refused("choice", "give 2 to 10 choices, not 1")
    page.tab("Zero-shot")
    page.write("pronoun-input", markup)
    page.tab("Pronoun")
    page.refused("pronoun", f"the pronoun 'it' is not in the sentence '{markup}'")
    page.tab("Sentiment")
    page.write("sentiment-input", "house " * 2000)
    page.refused("sentiment", "longer than the model's context")
    assert browser.title == "GPT-1" and not browser.find_elements("css selector", "img[src=x]")

    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    own = tuple(f"{scheme}:" for scheme in ("data", "blob", "chrome"))
    assert urls and not [url for url in urls if not url.startswith((served, *own))]
    problems = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not problems
