"""Shared fixtures: tiny models, generated texts, a local Hub, and the real data sets if they are available."""

import os


# Set before the libraries are imported: tests never use the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Two threads are several times slower than one for tiny models.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import random
import shutil
import signal
from pathlib import Path

import hypothesis
import pytest
import torch
import yaml
from helpers.data import TINY, WORDS
from helpers.hub_client import TOKENS, started_client
from helpers.hub_server import HubServer

from gpt1_hf import GPT1Config, GPT1ForCausalLM, GPT1Tokenizer
from gpt1_hf.evaluation import results


# A shell's background jobs ignore Ctrl-C, and so would the runs that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# `test_properties.py` runs a few fixed cases, or GPT1_TEST_CASES random ones.
CASES = int(os.environ.get("GPT1_TEST_CASES", 0))
hypothesis.settings.register_profile("few", max_examples=20, derandomize=True, deadline=None, database=None)
hypothesis.settings.register_profile("thorough", max_examples=CASES or 1000, deadline=None, database=None)
hypothesis.settings.load_profile("thorough" if CASES else "few")


@pytest.fixture(scope="session", autouse=True)
def results_keep_their_schema():
    """Validate every `results.json` that a test writes against the schema."""
    try:
        import jsonschema
    except ImportError:
        yield
        return
    schema = json.loads(Path(results.__file__).with_name("results_schema.json").read_text(encoding="utf-8"))
    validator, write_json = jsonschema.Draft202012Validator(schema), results.write_json

    def checked(path, content):
        if Path(path).name == results.RESULTS:
            validator.validate(json.loads(json.dumps(content, allow_nan=False)))
        write_json(path, content)

    results.write_json = checked
    yield
    results.write_json = write_json


@pytest.fixture(scope="session")
def data_dir() -> str:
    """Folder with the real data sets. Tests that need it are skipped without it."""
    folder = os.environ.get("GPT1_DATA_DIR")
    if not folder or not Path(folder).is_dir():
        pytest.skip(
            "needs the real data sets: set GPT1_DATA_DIR to a folder that is laid out like the Hub's repositories"
        )
    return folder


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """A hundred paragraphs of random words, the same in every run."""
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=rng.randint(5, 60))) + "." for _ in range(100)]


@pytest.fixture(scope="session")
def tokenizer(texts) -> GPT1Tokenizer:
    return GPT1Tokenizer.train(texts, vocab_size=160, model_max_length=64, show_progress=False)


@pytest.fixture
def config(tokenizer) -> GPT1Config:
    """Configuration of a two-layer GPT-1 without dropout."""
    return GPT1Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        classifier_dropout=0.0,
        initializer_range=0.2,
        pad_token_id=tokenizer.pad_token_id,
    )


@pytest.fixture(scope="session")
def base_model(tokenizer, tmp_path_factory) -> str:
    """Folder of a tiny untrained language model with its tokenizer."""
    torch.manual_seed(0)
    folder = str(tmp_path_factory.mktemp("base"))
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
    GPT1ForCausalLM(GPT1Config(vocab_size=len(tokenizer), pad_token_id=0, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def hub():
    """A Hub on localhost."""
    with HubServer(TOKENS) as server:
        yield server
        # The token is sent only to the API, never to the storage.
        assert not [path for _, path, token in server.requests if path.startswith("/storage/") and token]


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory):
    """Run `gpt1` commands in a process that uses the local Hub; see `started_client`."""
    home = tmp_path_factory.mktemp("client")
    with started_client(home, hub) as run:
        yield run
    assert "Request" in (home / "log").read_text()  # all requests are logged, and `started_client` looks for secrets


@pytest.fixture
def write_plan(tmp_path, base_model, texts):
    """Write a plan with a transformer, an LSTM and two tasks, with some keys replaced; return its path."""
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(texts), encoding="utf-8")

    def write(**changes) -> str:
        plan = {
            "output_dir": str(tmp_path / "runs"),
            "models_dir": str(tmp_path / "models"),
            "pretrain": {
                **TINY,
                "corpus": str(corpus),
                "tokenizer": base_model,
                "tokens_dir": str(tmp_path / "tokens"),
            },
            "models": {"transformer": {}, "lstm": {"architecture": "lstm", "lstm_size": 24, "num_hidden_layers": 1}},
            "finetune": {
                "sample": True,
                "max_train_examples": 8,
                "max_steps": 1,
                "disable_tqdm": True,
                "use_cpu": True,
            },
            "tasks": {"cola": {"seeds": 2}, "sst2": None},
            "variants": {"full": {"model": "transformer"}, "lstm": {"model": "lstm", "lm_coef": 0.0}},
        }
        path = tmp_path / "plan.yaml"
        path.write_text(yaml.safe_dump({**plan, **changes}, sort_keys=False), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture(scope="module")
def one_thread():
    """Use one thread, as forked processes do: another number of threads rounds differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


CHROMIUM_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1280,900"
)


@pytest.fixture
def browser(tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*CHROMIUM_FLAGS.split(), f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()
