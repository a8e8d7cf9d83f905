"""Saved folders in a process without gpt1_hf: everything loads through trust_remote_code, and can be saved again with
all its files."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.hub_client import PACKAGE, run_without_package
from helpers.models import CODE
from torch.testing import assert_close
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoProcessor,
    AutoTokenizer,
    pipeline,
)

from gpt1_hf import (
    GPT1Config,
    GPT1ForCausalLM,
    GPT1ForMultipleChoice,
    GPT1ForSequenceClassification,
    GPT1ForTokenClassification,
    GPT1LSTMConfig,
    GPT1LSTMForCausalLM,
    GPT1LSTMForMultipleChoice,
    GPT1LSTMForSequenceClassification,
    GPT1LSTMForTokenClassification,
    GPT1LSTMModel,
    GPT1Model,
    GPT1Processor,
)


AUTOS = {
    "AutoModel": AutoModel,
    "AutoModelForCausalLM": AutoModelForCausalLM,
    "AutoModelForMultipleChoice": AutoModelForMultipleChoice,
    "AutoModelForSequenceClassification": AutoModelForSequenceClassification,
    "AutoModelForTokenClassification": AutoModelForTokenClassification,
}
CLASSES = {
    "gpt1": {
        "AutoConfig": GPT1Config,
        "AutoModel": GPT1Model,
        "AutoModelForCausalLM": GPT1ForCausalLM,
        "AutoModelForMultipleChoice": GPT1ForMultipleChoice,
        "AutoModelForSequenceClassification": GPT1ForSequenceClassification,
        "AutoModelForTokenClassification": GPT1ForTokenClassification,
    },
    "gpt1_lstm": {
        "AutoConfig": GPT1LSTMConfig,
        "AutoModel": GPT1LSTMModel,
        "AutoModelForCausalLM": GPT1LSTMForCausalLM,
        "AutoModelForMultipleChoice": GPT1LSTMForMultipleChoice,
        "AutoModelForSequenceClassification": GPT1LSTMForSequenceClassification,
        "AutoModelForTokenClassification": GPT1LSTMForTokenClassification,
    },
}
# Folder -> classes to load from it. Multiple choice has a head of another width than a classifier.
FOLDERS = {
    "base": list(AUTOS),
    "lm": list(AUTOS),
    "classifier": [name for name in AUTOS if name != "AutoModelForMultipleChoice"],
    "choices": ["AutoModelForMultipleChoice"],
    "lstm_lm": list(AUTOS),
    "lstm_classifier": ["AutoModelForSequenceClassification"],
}
# Classes whose weights are all in the folder; for the others, the head is new and random.
WHOLE = [(folder, auto) for folder in ("base", "lm", "lstm_lm") for auto in ("AutoModel", "AutoModelForCausalLM")]
WHOLE += [(folder, auto) for folder in ("classifier", "choices", "lstm_classifier") for auto in FOLDERS[folder]]
ROW = {"premise": "the young captain smiled", "hypothesis": "her house wept"}
TEXT = "the old lady spoke gently"
PAIR = {"text": ROW["premise"], "text_pair": ROW["hypothesis"]}
IDS = [[5, 9, 3, 7, 11, 2]]

# Runs in an interpreter that cannot import the package. Its arguments are the folder of the saved folders, the folder
# to save into, and the package's location. At the end, the script imports the package.
SCRIPT = f"""
import json, sys
from pathlib import Path

try:
    import gpt1_hf
except ModuleNotFoundError:
    pass
else:
    sys.exit("gpt1_hf can be imported")

import torch
import transformers
from transformers import AutoConfig, AutoProcessor, AutoTokenizer

source, target = map(Path, sys.argv[1:3])
ids = torch.tensor({IDS})
report = {{"refused": {{}}, "logits": {{}}, "names": {{}}}}

def name_of(thing):
    return f"{{type(thing).__module__}}.{{type(thing).__name__}}"

autos = [AutoConfig, *(getattr(transformers, name) for name in {list(AUTOS)})]
for auto in autos + [AutoProcessor]:
    folder = source / "classifier"
    try:
        auto.from_pretrained(folder, trust_remote_code=False)
        report["refused"][auto.__name__] = "loaded"
    except ValueError as error:
        report["refused"][auto.__name__] = str(error)

for folder, names in {FOLDERS}.items():
    folder = source / folder
    for auto in [AutoConfig, *(getattr(transformers, name) for name in names)]:
        model = auto.from_pretrained(folder, trust_remote_code=True)
        key = f"{{folder.name}} {{auto.__name__}}"
        report["names"][key] = name_of(model)
        model.save_pretrained(target / key)
        if auto is AutoConfig:
            continue
        with torch.no_grad():
            report["logits"][key] = model.eval()(ids)[0].tolist()

folder = source / "classifier"
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
report["names"]["processor"] = name_of(processor)
report["encoded"] = processor({ROW})["input_ids"]
processor.save_pretrained(target / "processor")
processor.save_pretrained(target / "classifier AutoModelForSequenceClassification")
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
report["names"]["tokenizer"] = name_of(tokenizer)
report["tokenized"] = tokenizer({TEXT!r}, "bad night")["input_ids"]
report["plain tokenizer"] = AutoTokenizer.from_pretrained(source / "lm", trust_remote_code=True)({TEXT!r})["input_ids"]
classify = transformers.pipeline("text-classification", str(folder), trust_remote_code=True, top_k=None)
report["scores"] = {{row["label"]: row["score"] for row in classify([{PAIR}])[0]}}
rate = transformers.pipeline("text-classification", str(source / "scores"), trust_remote_code=True)
report["rating"] = rate({TEXT!r})[0]["score"]
report["generated"] = {{}}
for name in ("lm", "lstm_lm"):
    lm = transformers.AutoModelForCausalLM.from_pretrained(source / name, trust_remote_code=True)
    report["generated"][name] = lm.generate(ids, max_new_tokens=5, do_sample=False).tolist()
report["imported"] = sorted(name for name in sys.modules if name.split(".")[0] == "gpt1_hf")

sys.meta_path.remove(blocker)
sys.path.insert(0, sys.argv[3])
import gpt1_hf

for name in ("lm", "lstm_lm"):
    later = transformers.AutoModelForCausalLM.from_pretrained(source / name)
    report["names"][f"later {{name}}"] = name_of(later)
    with torch.no_grad():
        report["logits"][f"later {{name}}"] = later.eval()(ids)[0].tolist()
    # The LSTM's cache layer exists twice by now.
    report["generated"][f"later {{name}}"] = later.generate(ids, max_new_tokens=5, do_sample=False).tolist()
print("REPORT" + json.dumps(report))
"""


def family(folder: str) -> str:
    return "gpt1_lstm" if folder.startswith("lstm") else "gpt1"


@pytest.fixture(scope="module")
def folders(tokenizer, tmp_path_factory) -> Path:
    """A base model, a language model with its tokenizer, and a classifier with its processor, each in its folder."""
    root = tmp_path_factory.mktemp("saved")
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 64}
    sizes |= {"pad_token_id": 0, "initializer_range": 0.2, "num_labels": 3}
    own_sizes = {"gpt1": {"num_attention_heads": 4}, "gpt1_lstm": {"lstm_size": 48}}
    processor = GPT1Processor(tokenizer, "entailment")
    torch.manual_seed(0)
    for name, model_class in (
        ("base", GPT1Model),
        ("lm", GPT1ForCausalLM),
        ("classifier", GPT1ForSequenceClassification),
        ("choices", GPT1ForMultipleChoice),
        ("lstm_lm", GPT1LSTMForCausalLM),
        ("lstm_classifier", GPT1LSTMForSequenceClassification),
    ):
        model = model_class(CLASSES[family(name)]["AutoConfig"](**sizes, **own_sizes[family(name)]))
        if name.endswith("classifier"):
            model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
            processor.save_pretrained(root / name)
        else:
            tokenizer.save_pretrained(root / name)
        model.save_pretrained(root / name)
    # A model of scores, as `gpt1 finetune` makes it.
    own_sizes["gpt1"] |= {"num_labels": 1, "problem_type": "regression", "regression_bins": 6}
    processor = GPT1Processor(tokenizer)
    model = GPT1ForSequenceClassification(GPT1Config(**{**sizes, **own_sizes["gpt1"]}))
    model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    model.save_pretrained(root / "scores")
    processor.save_pretrained(root / "scores")
    # Somewhere else, as after a download.
    return Path(shutil.copytree(root, tmp_path_factory.mktemp("elsewhere") / "copies"))


@pytest.fixture(scope="module")
def stranger(folders, tmp_path_factory) -> dict:
    """Report of a process without the package on the folders. It saved everything again into `saved`."""
    work, saved = tmp_path_factory.mktemp("stranger"), tmp_path_factory.mktemp("saved_again")
    report = run_without_package(SCRIPT, str(folders), str(saved), str(PACKAGE.parent), home=work)
    assert report["imported"] == []
    return {**report, "saved": saved}


def test_without_trust_the_code_is_refused(stranger):
    assert stranger["refused"].keys() == {"AutoConfig", *AUTOS, "AutoProcessor"}
    for name, message in stranger["refused"].items():
        assert "trust_remote_code=True" in message, name


def test_every_folder_loads_with_every_auto_class(stranger, folders):
    for folder, names in FOLDERS.items():
        for auto in ("AutoConfig", *names):
            own = CLASSES[family(folder)][auto]
            module = own.__module__.rsplit(".", 1)[-1]
            name = stranger["names"][f"{folder} {auto}"]
            assert name.startswith("transformers_modules.")
            assert name.endswith(f".{module}.{own.__name__}")


@pytest.mark.parametrize(("folder", "auto"), WHOLE)
def test_remote_code_computes_what_the_package_does(stranger, folders, folder, auto):
    model = AUTOS[auto].from_pretrained(folders / folder).eval()
    with torch.no_grad():
        expected = model(torch.tensor(IDS))[0]
    assert_close(torch.tensor(stranger["logits"][f"{folder} {auto}"]), expected, atol=1e-5, rtol=1e-5)


def test_remote_processor_tokenizer_pipeline_and_generation_are_the_package_s(stranger, folders):
    processor = GPT1Processor.from_pretrained(folders / "classifier")
    assert processor.input_format == "entailment"
    assert stranger["names"]["processor"].endswith(".processing_gpt1.GPT1Processor")
    assert stranger["encoded"] == processor(ROW)["input_ids"]
    assert len(stranger["encoded"]) > 3
    assert stranger["names"]["tokenizer"].startswith("transformers.")
    tokenizer = AutoTokenizer.from_pretrained(folders / "classifier")
    assert stranger["tokenized"] == tokenizer(TEXT, "bad night")["input_ids"]
    assert stranger["tokenized"] == processor(premise=TEXT, hypothesis="bad night")["input_ids"]
    assert stranger["plain tokenizer"] == AutoTokenizer.from_pretrained(folders / "lm")(TEXT)["input_ids"]
    classify = pipeline("text-classification", str(folders / "classifier"), top_k=None)
    assert stranger["scores"] == pytest.approx({row["label"]: row["score"] for row in classify([PAIR])[0]}, abs=1e-5)
    processor = GPT1Processor.from_pretrained(folders / "scores")
    model = AutoModelForSequenceClassification.from_pretrained(folders / "scores").eval()
    with torch.no_grad():
        score = model(torch.tensor([processor(text=TEXT)["input_ids"]])).logits.item()
    assert stranger["rating"] == pytest.approx(score, abs=1e-5)
    assert pipeline("text-classification", str(folders / "scores"))(TEXT)[0]["score"] == pytest.approx(score, abs=1e-5)
    for name in ("lm", "lstm_lm"):
        model = AutoModelForCausalLM.from_pretrained(folders / name)
        expected = model.generate(torch.tensor(IDS), max_new_tokens=5, do_sample=False).tolist()
        assert stranger["generated"][name] == stranger["generated"][f"later {name}"] == expected


def test_what_remote_code_saves_again_is_complete(stranger, folders):
    for folder, names in FOLDERS.items():
        whole = json.loads((folders / folder / "config.json").read_text())["auto_map"]
        assert whole.keys() == {"AutoConfig", *AUTOS, "AutoProcessor"}
        for auto in ("AutoConfig", *names):
            again = stranger["saved"] / f"{folder} {auto}"
            config = json.loads((again / "config.json").read_text())
            assert config["auto_map"] == whole, again.name
            assert config["model_type"] == family(folder)
            code = CODE[family(folder)]
            assert {path.name for path in again.glob("*.py")} == code, again.name
            for name in code:
                assert (again / name).read_bytes() == (folders / folder / name).read_bytes()
            if auto != "AutoConfig":
                model = AUTOS[auto].from_pretrained(again).eval()
                with torch.no_grad():
                    logits = model(torch.tensor(IDS))[0]
                before = torch.tensor(stranger["logits"][f"{folder} {auto}"])
                assert_close(logits, before, atol=1e-5, rtol=1e-5)
    for name in ("processor", "classifier AutoModelForSequenceClassification"):
        again = stranger["saved"] / name
        assert (again / "processing_gpt1.py").is_file()
        processor_config = json.loads((again / "processor_config.json").read_text())
        assert processor_config["auto_map"] == {"AutoProcessor": "processing_gpt1.GPT1Processor"}
        processor = GPT1Processor.from_pretrained(again)
        assert processor.input_format == "entailment"
        assert stranger["encoded"] == processor(ROW)["input_ids"]


def test_the_package_can_be_imported_after_remote_code(stranger):
    for name in ("lm", "lstm_lm"):
        own = CLASSES[family(name)]["AutoModelForCausalLM"]
        assert stranger["names"][f"later {name}"] == f"{own.__module__}.{own.__name__}"
        before = torch.tensor(stranger["logits"][f"{name} AutoModelForCausalLM"])
        assert_close(torch.tensor(stranger["logits"][f"later {name}"]), before)


@pytest.mark.parametrize("trust", [{}, {"trust_remote_code": False}, {"trust_remote_code": True}])
def test_auto_classes_give_the_imported_packages_classes(folders, trust):
    for folder, names in FOLDERS.items():
        classes = CLASSES[family(folder)]
        assert type(AutoConfig.from_pretrained(folders / folder, **trust)) is classes["AutoConfig"]
        for name in names:
            assert type(AUTOS[name].from_pretrained(folders / folder, **trust)) is classes[name]
    for folder in ("classifier", "lstm_classifier"):
        assert type(AutoProcessor.from_pretrained(folders / folder, **trust)) is GPT1Processor
        assert AutoTokenizer.from_pretrained(folders / folder, **trust)(TEXT)["input_ids"][-1] != 0


def test_auto_classes_build_the_package_s_models_from_a_config():
    sizes = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1}
    for config in (GPT1Config(num_attention_heads=2, **sizes), GPT1LSTMConfig(lstm_size=12, **sizes)):
        for name, auto in AUTOS.items():
            assert type(auto.from_config(config)) is CLASSES[config.model_type][name]
