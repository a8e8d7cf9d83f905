"""`gpt1 push` with huggingface_hub's own client against a Hub on localhost, and what a user without the package loads
from there."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from helpers.hub_client import OTHER_TOKEN, PACKAGE, READ_TOKEN, TOKEN, TOKENS, error_of, run_without_package
from helpers.hub_server import card_errors
from helpers.models import CODE as CODE_OF
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

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
    GPT1Processor,
)
from gpt1_hf.errors import GPT1Error
from gpt1_hf.hub.upload import card_for, model_files, upload


CODE, LSTM_CODE = CODE_OF["gpt1"], CODE_OF["gpt1_lstm"]
FILES = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "README.md"}
IDS = [[5, 9, 3, 7, 11, 2]]

# Loads the given repositories, in a process without the package.
LOAD = """
import json, sys
import torch, transformers

orders, ids = json.loads(sys.argv[1]), torch.tensor(json.loads(sys.argv[2]))
report = {}
for repo, auto, options in orders:
    thing = getattr(transformers, auto).from_pretrained(repo, **options)
    found = {"class": f"{type(thing).__module__}.{type(thing).__name__}"}
    if auto.startswith("AutoModel"):
        with torch.no_grad():
            found["logits"] = thing.eval()(ids)[0].tolist()
    elif auto == "AutoTokenizer":
        found["ids"] = thing("the old lady spoke gently")["input_ids"]
    elif auto == "AutoProcessor":
        found["ids"] = thing(premise="the young captain smiled", hypothesis="her house wept")["input_ids"]
    report[f"{repo} {auto}"] = found
assert not any(name.split(".")[0] == "gpt1_hf" for name in sys.modules)
print("REPORT" + json.dumps(report))
"""


@pytest.fixture
def model(base_model, tmp_path) -> Path:
    """A new folder with a tiny language model."""
    return Path(shutil.copytree(base_model, tmp_path / "model"))


def save_sharded(folder: Path):
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="40KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    assert (folder / "model.safetensors.index.json").is_file()


def change_weights(folder: Path):
    """New weights, which the server has not seen."""
    fresh = AutoModelForCausalLM.from_pretrained(folder)
    for weight in fresh.parameters():
        weight.data += torch.rand(())
    fresh.save_pretrained(folder)


def test_pushed_and_ignored_files(hub, client, model):
    decoys = ["optimizer.pt", "training_args.bin", "pytorch_model.bin", "predictions.jsonl", "results.json", ".env"]
    for name in [*decoys, "private_notes.py", "rng_state.pth", "model.safetensors.bak"]:
        (model / name).write_text("not for others")
    (model / "checkpoint-5").mkdir()
    shutil.copy(model / "model.safetensors", model / "checkpoint-5")
    before = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}

    answer = client("push", model, "anna/first", "--commit_message", "the first")
    assert answer["status"] == 0, answer
    assert "pushed 11 files" in answer["out"] and f"{hub.endpoint}/anna/first" in answer["out"]
    sent = hub.files("anna/first")
    assert sent.keys() == FILES | CODE | {"model.safetensors", ".gitattributes"}
    for name in sent.keys() - {"README.md", ".gitattributes"}:
        assert sent[name] == before[name]
    repo = hub.repos["anna/first"]
    assert not repo.private
    assert repo.messages[repo.branches["main"]] == "the first"
    assert '"anna/first"' in sent["README.md"].decode()
    assert {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()} == before

    answer = client("push", model, "first", "--include", "results.json", "predictions.jsonl")
    assert answer["status"] == 0, answer
    assert hub.files("anna/first").keys() - sent.keys() == {"results.json", "predictions.jsonl"}
    for name, word in (
        ("optimizer.pt", "safetensors"),
        ("../model/.env", "there is no file"),
        ("no", "there is no file"),
    ):
        assert word in error_of(client("push", model, "anna/first", "--include", name))


def test_a_push_without_changes_makes_no_commit(hub, client, model):
    assert client("push", model, "anna/twice")["status"] == 0
    commits = len(hub.repos["anna/twice"].commits)
    answer = client("push", model, "anna/twice")
    assert answer["status"] == 0 and "is already up to date" in answer["out"]
    assert len(hub.repos["anna/twice"].commits) == commits


def test_a_push_removes_the_files_of_another_model(hub, client, model):
    shards = Path(shutil.copytree(model, model.with_name("shards")))
    save_sharded(shards)
    assert client("push", shards, "anna/changed")["status"] == 0
    head = hub.repos["anna/changed"].branches["main"]
    (hub.repos["anna/changed"].commits[head])["notes/plan.txt"] = hub.repos["anna/changed"].commits[head]["README.md"]
    assert len([name for name in hub.files("anna/changed") if name.endswith(".safetensors")]) > 1
    # `from_pretrained` prefers model.safetensors to an index, so it would read a leftover file.
    for folder in (model, shards):
        assert client("push", folder, "anna/changed")["status"] == 0
        weights = {name for name in hub.files("anna/changed") if name.startswith("model")} - CODE
        assert weights == {path.name for path in folder.glob("model*")} - CODE
        assert "notes/plan.txt" in hub.files("anna/changed")


def test_branches(hub, client, model):
    assert client("push", model, "anna/branches", "--revision", "trial/two")["status"] == 0
    assert hub.files("anna/branches").keys() == {".gitattributes"}
    assert "model.safetensors" in hub.files("anna/branches", "trial/two")
    answer = client("push", model, "anna/branches", "--revision", "trial/two")
    assert "is already up to date" in answer["out"] and "/tree/trial/two" in answer["out"]


def test_private_repositories(hub, client, model):
    assert client("push", model, "anna/hidden", "--private")["status"] == 0
    assert hub.repos["anna/hidden"].private
    assert client("push", model, "anna/hidden")["status"] == 0
    assert hub.repos["anna/hidden"].private
    assert client("push", model, "anna/open")["status"] == 0
    commits = len(hub.repos["anna/open"].commits)
    (model / "README.md").write_text("---\nlanguage: en\n---\nsecret\n")
    assert "anna/open exists and is public" in error_of(client("push", model, "anna/open", "--private"))
    assert len(hub.repos["anna/open"].commits) == commits


def test_a_push_without_permission_is_refused(hub, client, model):
    assert client("push", model, "anna/mine")["status"] == 0
    before = len(hub.repos["anna/mine"].commits), set(hub.repos)
    (model / "README.md").write_text("---\nlanguage: en\n---\nanother\n")
    assert "does not accept the token (401)" in error_of(client("push", model, "anna/mine", token="hf_wrong"))
    assert "hf_wrong" not in client("push", model, "anna/mine", token="hf_wrong")["err"]
    assert "not logged in" in error_of(client("push", model, "anna/mine", token=None))
    assert "has no write access to anna/mine (403)" in error_of(client("push", model, "anna/mine", token=READ_TOKEN))
    assert "has no write access to anna/mine (403)" in error_of(client("push", model, "anna/mine", token=OTHER_TOKEN))
    assert "has no write access to bert/theirs (403)" in error_of(client("push", model, "bert/theirs"))
    assert before == (len(hub.repos["anna/mine"].commits), set(hub.repos))


def test_an_unreachable_hub_is_reported(client, model):
    message = error_of(client("push", model, "anna/nowhere", endpoint="http://127.0.0.1:9"))
    assert "the connection to the Hub at http://127.0.0.1:9 failed" in message and "nothing was sent" in message


@pytest.mark.parametrize("repo", ["../anna", "anna/../bert", "a/b/c", "anna/", "", "anna/x--y", "anna/é", "-x", "a b"])
def test_invalid_repository_names_are_refused(hub, client, model, repo):
    n_requests = len(hub.requests)
    assert "is not a valid repository name" in error_of(client("push", "--", model, repo))
    assert len(hub.requests) == n_requests


def test_incomplete_folders_are_refused(hub, client, model, tmp_path):
    n_requests = len(hub.requests)

    def fails(change, word: str):
        folder = Path(shutil.copytree(model, tmp_path / "broken"))
        change(folder)
        assert word in error_of(client("push", folder, "anna/broken"))
        shutil.rmtree(folder)

    def edit(folder: Path, **values):
        config = json.loads((folder / "config.json").read_text()) | values
        (folder / "config.json").write_text(json.dumps(config))

    assert "there is no folder" in error_of(client("push", tmp_path / "nothing", "anna/broken"))
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        fails(lambda folder, name=name: (folder / name).unlink(), f"has no {name}")
    fails(lambda folder: (folder / "config.json").write_text("{"), "is not JSON")
    fails(lambda folder: edit(folder, model_type="gpt2"), "`gpt2`")
    fails(lambda folder: edit(folder, architectures=["Other"]), "architecture Other")
    fails(lambda folder: edit(folder, vocab_size=20), "belongs to the model")
    fails(lambda folder: edit(folder, num_hidden_layers=3), "lacks the weights")
    fails(lambda folder: edit(folder, num_hidden_layers=1), "do not belong to a")
    fails(lambda folder: (folder / "model.safetensors").write_bytes(b"half"), "cannot load the weights")

    def climb(folder: Path):
        save_sharded(folder)
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        index["weight_map"] = dict.fromkeys(index["weight_map"], "../model/model.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    fails(climb, "which is not a weights file")

    def diverge(folder: Path):
        loaded = AutoModelForCausalLM.from_pretrained(folder)
        loaded.get_input_embeddings().weight.data[3] = float("nan")
        loaded.save_pretrained(folder)

    fails(diverge, "not all finite")
    assert len(hub.requests) == n_requests


def test_a_folder_without_code_or_card_is_completed(hub, client, model):
    for path in model.glob("*.py"):
        path.unlink()
    before = sorted(path.name for path in model.iterdir())
    assert client("push", model, "anna/completed")["status"] == 0
    assert sorted(path.name for path in model.iterdir()) == before
    sent = hub.files("anna/completed")
    assert CODE <= sent.keys()
    for name in CODE:
        assert sent[name] == (PACKAGE / name).read_bytes()
    assert client("push", "gpt1-tiny", "anna/tiny")["status"] == 0
    sent = hub.files("anna/tiny")
    assert FILES | CODE | {"model.safetensors", ".gitattributes"} == sent.keys()
    assert "98 public-domain novels" in sent["README.md"].decode()
    assert json.loads(sent["config.json"])["auto_map"]["AutoConfig"] == "configuration_gpt1.GPT1Config"


def test_a_broken_connection_is_reported(hub, client, model):
    change_weights(model)
    save_sharded(model)
    shards = {path.name for path in model.glob("*.safetensors")}
    assert len(shards) > 2

    def uploads() -> int:
        return len([path for method, path, _ in hub.requests if method == "PUT"])

    # The connection breaks for good after some files have arrived.
    hub.drop_skips, hub.drops = 2, 1000
    message = error_of(client("push", model, "anna/broken"))
    hub.drops = 0
    assert "the connection to the Hub" in message and "Error while uploading 'model-0" in message
    assert "nothing was published" in message
    assert hub.files("anna/broken").keys() == {".gitattributes"}
    # The same command resumes the upload.
    arrived, before = set(hub.large), uploads()
    assert client("push", model, "anna/broken")["status"] == 0
    assert uploads() - before == len(set(hub.large) - arrived) < len(shards)
    assert shards <= hub.files("anna/broken").keys()

    # The connection breaks briefly: the client retries.
    change_weights(model)
    hub.drop_skips, hub.drops = 0, 2
    assert client("push", model, "anna/broken")["status"] == 0
    assert hub.drops == 0

    # The connection breaks during the commit.
    (model / "README.md").write_text("---\nlanguage: en\n---\nnew\n")
    hub.drop_commits = 1
    assert "nothing was published" in error_of(client("push", model, "anna/broken"))
    assert client("push", model, "anna/broken")["status"] == 0
    assert hub.files("anna/broken")["README.md"].endswith(b"new\n")


def test_a_fine_tuning_run_is_pushed(hub, client, base_model, tmp_path):
    run = tmp_path / "tuned"
    settings = ["--task", "sst2", "--sample", "--model", base_model, "--output_dir", run, "--max_train_examples", 8]
    settings += ["--num_train_epochs", 1, "--per_device_train_batch_size", 4, "--push_to_hub"]
    settings += ["--hub_private_repo", "true"]
    answer = client("finetune", *settings, "--hub_model_id", "anna/tuned", "--save_strategy", "epoch")
    assert answer["status"] == 0, answer
    assert "pushed to" in answer["err"]
    repo, sent = hub.repos["anna/tuned"], hub.files("anna/tuned")
    assert repo.private
    assert sent.keys() == FILES - {"generation_config.json"} | CODE | {
        "model.safetensors",
        "processor_config.json",
        ".gitattributes",
    }
    # One commit for the checkpoint and one at the end; the card is that of the run.
    assert list(repo.messages.values())[1].startswith("Training in progress, update 2")
    assert len(repo.commits) == 3
    card = sent["README.md"].decode()
    assert "fine-tuned on the task `sst2`" in card and '"anna/tuned"' in card
    assert sent["model.safetensors"] == (run / "model.safetensors").read_bytes()
    assert "base_model" not in card  # it is a folder, whose name says nothing to others
    assert client("push", base_model, "anna/start")["status"] == 0
    before = (run / "README.md").read_bytes()
    assert client("push", run, "anna/tuned-too", "--base_model", "anna/start")["status"] == 0
    named = hub.files("anna/tuned-too")["README.md"].decode()
    assert card_errors(named) == [] and "base_model: anna/start\n" in named
    assert "The model `anna/start`, fine-tuned on the task `sst2`" in named
    assert (run / "README.md").read_bytes() == before
    assert client("push", "gpt1-tiny", "anna/tiny")["status"] == 0
    other = error_of(client("push", run, "anna/tuned-too", "--base_model", "anna/tiny"))
    assert "anna/tiny is not the model that" in other and "its hidden_size is" in other
    for secret in TOKENS:
        assert not any(secret.encode() in content for content in sent.values())
    seeds = client("finetune", *settings, "--seeds", 2)
    assert "push_to_hub works with one seed only" in error_of(seeds, status=2)
    assert "not a valid repository name" in error_of(client("finetune", *settings, "--hub_model_id", "../tuned"))
    assert "(401)" in error_of(client("finetune", *settings, "--hub_model_id", "anna/tuned", token="hf_wrong"))


TRAIN = """
import sys
from datasets import Dataset
from gpt1_hf import GPT1ForSequenceClassification, GPT1Processor, GPT1Tokenizer, GPT1Trainer, GPT1TrainingArguments

processor = GPT1Processor(GPT1Tokenizer.from_pretrained(BASE), "classification")
model = GPT1ForSequenceClassification.from_pretrained(BASE, num_labels=2)
model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
rows = Dataset.from_list([{"text": "the old lady", "label": 0}, {"text": "her house wept", "label": 1}] * 4)
rows = rows.map(processor, batched=True, remove_columns=["text"])
args = GPT1TrainingArguments(
    OUT, max_steps=2, save_steps=1, save_strategy="steps", per_device_train_batch_size=4, push_to_hub=True,
    hub_model_id="anna/trainer", hub_strategy="checkpoint", report_to="none", disable_tqdm=True,
    hub_token="hf_secretOfAnna",
)
trainer = GPT1Trainer(model, args, processing_class=processor, train_dataset=rows, eval_dataset=rows)
trainer.train()
trainer.evaluate()
sent = trainer.push_to_hub(tags="mine", license="mit", private=True)
assert sent.changed and sent.repo == "anna/trainer", sent
"""


def test_a_trainer_pushes_the_same_files_as_the_command(hub, client, base_model, tmp_path):
    out = tmp_path / "my run"
    code = TRAIN.replace("BASE", repr(base_model)).replace("OUT", repr(str(out)))
    answer = client(code=code.replace("private=True", ""), token=None)
    assert answer["status"] is None, answer
    assert "was not pushed" not in answer["err"]
    sent = {name: content for name, content in hub.files("anna/trainer").items() if "last-checkpoint" not in name}
    assert sent.keys() == FILES - {"generation_config.json"} | CODE | {
        "model.safetensors",
        "processor_config.json",
        ".gitattributes",
    }
    assert any(name.startswith("last-checkpoint/optimizer") for name in hub.files("anna/trainer"))
    card = sent["README.md"].decode()
    assert "More information" not in card and "GPT1Trainer" in card
    assert "2 updates on 8 rows" in card and "| loss |" in card and "- mine" in card and "license: mit" in card
    # A card written by hand stays unchanged.
    (out / "README.md").write_text("---\nlanguage: en\n---\nby hand\n")
    answer = client(
        code=code.replace("private=True", "").replace('hub_strategy="checkpoint"', 'hub_strategy="end"'), token=None
    )
    assert answer["status"] is None, answer
    assert hub.files("anna/trainer")["README.md"].endswith(b"by hand\n")


def test_a_card_that_the_hub_rejects_is_reported(hub, client, model):
    (model / "README.md").write_text("---\nbase_model: /home/anna/models\n---\nmine\n")
    message = error_of(client("push", model, "anna/refused"))
    assert "base_model" in message and "nothing was published" in message
    assert "model.safetensors" not in hub.files("anna/refused")


def test_offline_mode_is_reported(model, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(GPT1Error, match="HF_HUB_OFFLINE is set") as error:
        upload(model, "anna/offline")
    assert TOKEN not in str(error.value)


def test_a_card_names_the_repository_in_place_of_the_folder(tmp_path):
    card = tmp_path / "README.md"
    card.write_text('name = "path/to/a \\"quoted\\" one"\nother = "path/from/x"\n')
    assert card_for(card, "anna/x").decode() == 'name = "anna/x"\nother = "path/from/x"\n'


def test_code_outside_the_folder_is_not_read(base_model, tmp_path):
    folder = Path(shutil.copytree(base_model, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    for reference in ("../../evil.GPT1Config", "/etc/passwd", "other/repo--evil.GPT1Config", "..GPT1Config"):
        (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoConfig": reference}}))
        with pytest.raises(GPT1Error, match="invalid auto_map entry"):
            model_files(folder)


def save_models(root: Path, tokenizer) -> dict[str, tuple]:
    """A folder for each head; name -> Auto class of the head."""
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 64}
    sizes |= {"pad_token_id": 0, "initializer_range": 0.2}
    heads = {
        "lm": (GPT1ForCausalLM, GPT1LSTMForCausalLM),
        "classifier": (GPT1ForSequenceClassification, GPT1LSTMForSequenceClassification),
        "choices": (GPT1ForMultipleChoice, GPT1LSTMForMultipleChoice),
        "tags": (GPT1ForTokenClassification, GPT1LSTMForTokenClassification),
    }
    processor = GPT1Processor(tokenizer, "entailment")
    torch.manual_seed(0)
    for name, (own, lstm) in heads.items():
        n_labels = {} if name == "choices" else {"num_labels": 3}
        for model_class, folder in ((own, root / name), (lstm, root / f"lstm-{name}")):
            if model_class is own:
                config = GPT1Config(num_attention_heads=4, **sizes, **n_labels)
            else:
                config = GPT1LSTMConfig(lstm_size=48, **sizes, **n_labels)
            saved = model_class(config)
            if name == "classifier":
                saved.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
                processor.save_pretrained(folder)
            else:
                tokenizer.save_pretrained(folder)
            saved.save_pretrained(folder)


AUTO_OF = {
    "lm": "AutoModelForCausalLM",
    "classifier": "AutoModelForSequenceClassification",
    "choices": "AutoModelForMultipleChoice",
    "tags": "AutoModelForTokenClassification",
}


@pytest.mark.parametrize("names", [["classifier", "lstm-lm"], pytest.param(None, marks=pytest.mark.slow)])
def test_a_pushed_model_loads_without_the_package(hub, client, tokenizer, tmp_path, names):
    save_models(tmp_path / "models", tokenizer)
    names = names or [f"{family}{head}" for family in ("", "lstm-") for head in AUTO_OF]
    orders, code = [], {"trust_remote_code": True}
    for name in names:
        repo = f"anna/stranger-{name}"
        assert client("push", tmp_path / "models" / name, repo, "--revision", "v1", "--private")["status"] == 0
        sent = hub.files(repo, "v1").keys()
        assert sent >= (LSTM_CODE if name.startswith("lstm") else CODE)
        code["revision"] = "v1"
        orders += [[repo, "AutoTokenizer", {"revision": "v1"}], [repo, AUTO_OF[name.removeprefix("lstm-")], code]]
        if name.endswith("classifier"):
            assert "processor_config.json" in sent
            orders += [[repo, "AutoModel", code], [repo, "AutoProcessor", code]]
    report = run_without_package(LOAD, json.dumps(orders), json.dumps(IDS), home=tmp_path / "home", hub=hub)
    assert len(report) == len(orders)
    for key, found in report.items():
        repo, auto = key.split()
        folder = tmp_path / "models" / repo.removeprefix("anna/stranger-")
        if auto == "AutoTokenizer":
            assert found["class"].startswith("transformers.tokenization_utils")
            continue
        assert found["class"].startswith("transformers_modules.")
        if auto == "AutoProcessor":
            row = {"premise": "the young captain smiled", "hypothesis": "her house wept"}
            assert found["ids"] == GPT1Processor.from_pretrained(folder)(row)["input_ids"]
            continue
        own = getattr(transformers, auto).from_pretrained(folder).eval()
        assert found["class"].endswith(f".{type(own).__name__}")
        with torch.no_grad():
            assert_close(torch.tensor(found["logits"]), own(torch.tensor(IDS))[0], atol=1e-5, rtol=1e-5)
