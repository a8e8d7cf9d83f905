"""Runs of a plan notice that the model they start from has changed under the same name."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from gpt1_hf import GPT1Config, GPT1LSTMConfig
from gpt1_hf.analysis.plan import fingerprints
from gpt1_hf.analysis.plan import run as run_module
from gpt1_hf.analysis.plan.fingerprints import model_fingerprint
from gpt1_hf.analysis.plan.plan import Plan, carry_out
from gpt1_hf.analysis.plan.tuned import Tuned, write_tuned
from gpt1_hf.analysis.report.groups import differing, grouped
from gpt1_hf.analysis.report.runs import CollectedRun
from gpt1_hf.checkpoints.loading import open_config
from gpt1_hf.errors import GPT1Error
from gpt1_hf.evaluation.results import Result
from gpt1_hf.training.arguments import FinetuneArguments
from gpt1_hf.training.finetune import finetune
from gpt1_hf.training.run_folder import PLAN_RECORD
from gpt1_hf.training_record import architecture_digest


@pytest.fixture
def model(base_model, tmp_path) -> Path:
    """A copy of a model, which a test may change."""
    return Path(shutil.copytree(base_model, tmp_path / "model"))


@pytest.fixture
def plan(write_plan, model, monkeypatch):
    """Write a plan with a pre-trained arm and one from scratch, whose training is replaced; return it."""

    def function(args):
        folder = Path(args.output_dir)
        (folder / "results.json").write_text("[]")
        if hasattr(args, "corpus"):  # a pre-trained model
            shutil.copytree(args.tokenizer, folder, dirs_exist_ok=True)

    kinds = {kind: (arguments, function) for kind, (arguments, _) in run_module.KINDS.items()}
    monkeypatch.setattr(run_module, "KINDS", kinds)

    def write(**changes) -> Plan:
        content = {
            "models": {},
            "finetune": {"model": str(model), "sample": True, "use_cpu": True},
            "variants": {"full": {}, "no_pretraining": {"from_scratch": True}},
            "tasks": {"cola": None},
        }
        return Plan.read(write_plan(**{**content, **changes}))

    return write


def states(plan: Plan) -> list[str]:
    return [run.state for run in plan.runs()]


def change_weights(folder: Path):
    file = folder / "model.safetensors"
    weights = load_file(file)
    first = next(iter(weights))
    save_file({**weights, first: weights[first] + 1}, file, metadata={"format": "pt"})


def change_config(folder: Path, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def change_tokenizer(folder: Path):
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["merges"] = content["model"]["merges"][:-1]
    (folder / "tokenizer.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (change_weights, ["to do", "finished"]),  # from scratch, weights do not count
        (lambda folder: change_config(folder, initializer_range=0.5), ["to do", "to do"]),
        (lambda folder: change_config(folder, num_hidden_layers=1), ["to do", "to do"]),
        (change_tokenizer, ["to do", "to do"]),
        (lambda folder: change_config(folder, transformers_version="9", resid_pdrop=0.3), ["finished", "finished"]),
        (lambda folder: (folder / "model.safetensors").unlink(), ["finished", "finished"]),  # unknown now
        (shutil.rmtree, ["finished", "finished"]),
    ],
)
def test_runs_from_a_changed_model_are_done_again(plan, model, change, expected):
    assert carry_out(plan().runs()) == {} and states(plan()) == ["finished", "finished"]
    change(model)
    assert states(plan()) == expected
    if "to do" in expected:
        leftover = plan().runs()[0].folder / "checkpoint-1"
        leftover.mkdir()
        assert carry_out(plan().runs()) == {} and states(plan()) == ["finished", "finished"]
        assert not leftover.exists()


def test_an_embedded_model_may_change(plan, model, monkeypatch):
    """Its name stays the same in another version of the package."""
    runs = plan(finetune={"sample": True}).runs()
    assert carry_out(runs) == {} and runs[0].model == "gpt1-tiny"
    monkeypatch.setattr(fingerprints, "model_path", lambda name: str(model))
    assert [run.state for run in runs] == ["to do", "to do"]


def test_a_run_without_fingerprint_is_finished(plan, model):
    """Earlier versions did not record one."""
    runs = plan().runs()
    carry_out(runs)
    for run in runs:
        record = json.loads((run.folder / PLAN_RECORD).read_text())
        expected = {"architecture", "tokenizer"} | ({"weights"} if run.variant == "full" else set())
        assert record.pop("starts_from").keys() == expected
        (run.folder / PLAN_RECORD).write_text(json.dumps(record))
    change_weights(model)
    assert states(plan()) == ["finished", "finished"]


def test_models_of_the_plan_and_their_tokenizer_count(plan, model, base_model, tmp_path):
    pretrain = {"corpus": "c", "tokenizer": str(model), "max_steps": 1}
    variants = {"full": {"model": "m"}, "no_pretraining": {"model": "m", "from_scratch": True}}
    changes = {"models": {"m": {}}, "pretrain": pretrain, "variants": variants}
    assert carry_out(plan(**changes).runs()) == {} and states(plan(**changes)) == ["finished"] * 3
    change_weights(tmp_path / "models" / "m")
    assert states(plan(**changes)) == ["finished", "to do", "finished"]
    carry_out(plan(**changes).runs())
    change_tokenizer(model)
    assert states(plan(**changes)) == ["to do"] * 3
    # One that is trained further starts from a model of its own.
    further = {**changes, "pretrain": {"corpus": "c", "tokenizer": base_model, "model": str(model)}}
    further["models_dir"] = str(tmp_path / "further")
    carry_out(plan(**further).runs())
    change_weights(model)
    assert states(plan(**further))[:2] == ["to do"] * 2


def test_a_choice_for_other_weights_is_refused(plan, model, tmp_path):
    tune = {"tune": {"learning_rate": [1e-3], "held_out_share": 0.5}}
    file = tmp_path / "runs" / "tuned.yaml"

    def write(identity):
        arms = {arm: {"": {"learning_rate": 1e-3}} for arm in ("full", "no_pretraining")}
        tuned = Tuned()
        tuned.update(arms)
        write_tuned(file, tuned, identity, [])

    identity = plan(**tune).identity()
    assert identity["starts_from"] == {str(model): model_fingerprint(str(model))}
    write(identity)
    assert plan(**tune).tuned("").settings("full", "cola") == {"learning_rate": 1e-3}
    change_weights(model)
    with pytest.raises(GPT1Error, match=rf"another plan \(different: the weights of {model}\): run `again`"):
        plan(**tune).tuned("again")
    change_config(model, hidden_act="relu")
    with pytest.raises(GPT1Error, match=rf"\(different: the (architecture|weights) of {model}\)"):
        plan(**tune).tuned("")
    # Earlier versions did not record it.
    write({key: value for key, value in identity.items() if key != "starts_from"})
    assert "starts_from" not in yaml.safe_load(file.read_text())["holds_for"]
    assert plan(**tune).tuned("").settings("full", "cola") == {"learning_rate": 1e-3}


def test_what_cannot_be_read_is_unknown(tmp_path):
    assert model_fingerprint("openai-community/openai-gpt") == {} == model_fingerprint(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "tokenizer.json").write_text("no JSON")
    assert model_fingerprint(str(tmp_path)) == {}


def test_the_architecture_is_what_new_weights_depend_on():
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 99}
    same = architecture_digest(GPT1Config(**sizes))
    also = {"embd_pdrop": 0.3, "lm_coef": 0.0, "trained_on": {"seed": 1}, "num_labels": 3, "pad_token_id": 4}
    assert architecture_digest(GPT1Config(**sizes, **also, position_initializer_range=0.02)) == same
    others = [{"num_hidden_layers": 3}, {"position_initializer_range": 0.1}, {"position_embedding_type": "none"}]
    digests = {same, *(architecture_digest(GPT1Config(**{**sizes, **other})) for other in others)}
    lstm = {key: sizes[key] for key in ("hidden_size", "vocab_size")}
    digests |= {architecture_digest(GPT1LSTMConfig(**lstm, lstm_size=size)) for size in (8, 16)}
    assert len(digests) == 6


def test_results_name_the_architecture(base_model, tmp_path):
    expected = architecture_digest(open_config(base_model))
    common = {"task": "cola", "sample": True, "max_train_examples": 4, "max_steps": 1, "use_cpu": True}
    for from_scratch in (False, True):
        folder = str(tmp_path / str(from_scratch))
        results = finetune(FinetuneArguments(**common, model=base_model, from_scratch=from_scratch, output_dir=folder))
        assert {result.details["architecture_digest"] for result in results} == {expected}


def test_seeds_of_two_architectures_are_not_averaged():
    def group_of(seed, digest):
        details = {"from_scratch": True, "base_weights": None, "architecture_digest": digest}
        result = Result("cola", "validation", "matthews_correlation", float(seed), 9, None, "gpt1-tiny", seed, details)
        return CollectedRun(f"full/seed-{seed}", [result]), result

    groups = grouped([group_of(42, "old"), group_of(43, "new"), group_of(44, "new")])
    assert [sorted(group.values) for group in groups] == [[42], [43, 44]]
    assert differing(groups) == ["architecture_digest"]
