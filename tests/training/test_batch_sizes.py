"""The rows of an update are the same on any number of devices, and everything that names them agrees."""

import copy
import dataclasses
import json
import pickle
from functools import partial

import pytest
import torch
from transformers import Trainer, TrainingArguments

import gpt1_hf.training.pretrain
from gpt1_hf import GPT1Config, GPT1ForCausalLM, GPT1ForSequenceClassification, GPT1Trainer
from gpt1_hf.analysis.plan import cost
from gpt1_hf.analysis.plan.run import Run
from gpt1_hf.cli import main
from gpt1_hf.cli.parser import parse
from gpt1_hf.errors import UsageError
from gpt1_hf.resources import recipes_dir
from gpt1_hf.tasks import load_task
from gpt1_hf.training.arguments import FinetuneArguments, GPT1TrainingArguments, PretrainArguments
from gpt1_hf.training.batch_sizes import derive_batch_sizes, rows_per_update
from gpt1_hf.training.run_folder import RunFolder, finetuning_facts, training_identity


CLASSES = {GPT1TrainingArguments: 32, FinetuneArguments: 32, PretrainArguments: 64}
RECIPES = sorted(path for kind in ("pretrain", "finetune") for path in (recipes_dir() / kind).glob("*.yaml"))


@pytest.fixture
def devices(monkeypatch):
    """Sets the number of processes that the settings see."""
    return lambda number: monkeypatch.setattr(TrainingArguments, "world_size", number)


def sizes(args) -> tuple[int, int, int]:
    return args.global_batch_size, args.per_device_train_batch_size, args.gradient_accumulation_steps


@pytest.mark.parametrize(
    ("given", "n_devices", "expected"),
    [
        # the global size only
        ((64, None, None), 1, (64, 64, 1)),
        ((64, None, None), 8, (64, 8, 1)),
        ((64, None, None), 64, (64, 1, 1)),
        # with accumulation
        ((64, None, 4), 1, (64, 16, 4)),
        ((64, None, 4), 2, (64, 8, 4)),
        # with a size per device, which only decides memory
        ((64, 8, None), 1, (64, 8, 8)),
        ((64, 8, None), 2, (64, 8, 4)),
        ((64, 8, None), 8, (64, 8, 1)),
        # all three
        ((64, 8, 4), 2, (64, 8, 4)),
        # none: the default
        ((None, None, None), 1, (40, 40, 1)),
        ((None, None, None), 4, (40, 10, 1)),
        # transformers' meaning
        ((None, 4, None), 1, (4, 4, 1)),
        ((None, 4, None), 3, (12, 4, 1)),
        ((None, 4, 2), 3, (24, 4, 2)),
        ((None, None, 2), 3, (240, 40, 2)),
    ],
)
def test_sizes_that_are_not_given_follow(given, n_devices, expected):
    assert derive_batch_sizes(*given, n_devices, default=40) == expected


@pytest.mark.parametrize(
    ("given", "n_devices", "message"),
    [
        ((64, None, None), 3, "64 is not a multiple of 3 devices: use global_batch_size 63 or 66, or 2 or 4 devices"),
        (
            (None, None, None),
            16,
            "40 is not a multiple of 16 devices: use global_batch_size 32 or 48, or 10 or 20 devi",
        ),
        ((8, None, None), 16, "8 is not a multiple of 16 devices: use global_batch_size 16, or 8 devices"),
        (
            (64, 5, None),
            2,
            "64 is not a multiple of per_device_train_batch_size 5 × 2 devices = 10: use global_batch_size 60 or 70, "
            "or per_device_train_batch_size 4 or 8",
        ),
        (
            (64, 65, None),
            1,
            "64 is not a multiple of per_device_train_batch_size 65: use global_batch_size 65, or "
            "per_device_train_batch_size 64",
        ),
        (
            (64, None, 3),
            1,
            "64 is not a multiple of gradient_accumulation_steps 3: use global_batch_size 63 or 66, or "
            "gradient_accumulation_steps 2 or 4",
        ),
        ((64, 8, None), 3, "per_device_train_batch_size 8 × 3 devices = 24: use global_batch_size 48 or 72"),
        (
            (64, 8, 4),
            1,
            "64 is not per_device_train_batch_size 8 × gradient_accumulation_steps 4 = 32: leave out one of these "
            "settings, or use global_batch_size 32",
        ),
        ((64, 8, 8), 2, "gradient_accumulation_steps 8 × 2 devices = 128: leave out one of these settings, or use "),
    ],
)
def test_sizes_that_do_not_fit_name_the_nearest_that_do(given, n_devices, message):
    with pytest.raises(UsageError) as caught:
        derive_batch_sizes(*given, n_devices, default=40)
    assert str(caught.value).startswith("global_batch_size ") and message in str(caught.value)


@pytest.mark.parametrize("arguments", CLASSES)
@pytest.mark.parametrize("n_devices", [1, 2, 16])
def test_the_default_is_the_papers_batch_on_any_number_of_devices(arguments, n_devices, devices, tmp_path):
    devices(n_devices)
    rows = CLASSES[arguments]
    args = arguments(str(tmp_path), use_cpu=True)
    assert sizes(args) == (rows, rows // n_devices, 1) and rows_per_update(args) == rows
    assert args.train_batch_size == rows // n_devices
    own = arguments(str(tmp_path), use_cpu=True, per_device_train_batch_size=4)
    assert own.train_batch_size == 4 and rows_per_update(own) == own.global_batch_size == 4 * n_devices
    json.dumps(own.to_dict(), default=str)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize("n_devices", [1, 2, 4])
def test_a_recipe_states_the_rows_of_an_update(path, n_devices, devices):
    """Also where the command line says how many of them fit into the memory of a device."""
    kind = path.parent.name
    text = path.read_text(encoding="utf-8")
    assert "global_batch_size: " in text and "per_device_train_batch_size" not in text
    devices(n_devices)
    read = partial(parse, {"pretrain": PretrainArguments, "finetune": FinetuneArguments}[kind], command=kind)
    plain = read(argv=["--config", str(path)], description="")
    small = read(argv=["--config", str(path), "--per_device_train_batch_size", "1"], description="")
    changed = read(argv=["--config", str(path), "--global_batch_size", "12"], description="")
    total = int(text.split("\nglobal_batch_size: ")[1].split()[0])
    assert sizes(plain) == (total, total // n_devices, 1)
    assert sizes(small) == (total, 1, total // n_devices)
    assert rows_per_update(plain) == rows_per_update(small) == total and rows_per_update(changed) == 12


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--per_device_train_batch_size", "5"],
            "global_batch_size 32 is not a multiple of per_device_train_batch_siz",
        ),
        (
            ["--gradient_accumulation_steps", "3"],
            "global_batch_size 32 is not a multiple of gradient_accumulation_step",
        ),
        (["--global_batch_size", "0"], "global_batch_size must be at least 1, not 0"),
        (
            ["--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "2"],
            "global_batch_size 32 is not per_device_train_batch_size 4 × gradient_accumulation_steps 2 = 8",
        ),
        (
            ["--accelerator_config", '{"gradient_accumulation_kwargs": {"num_steps": 2}}'],
            "accelerator_config: num_steps is not supported: set gradient_accumulation_steps",
        ),
    ],
)
def test_a_command_that_does_not_fit_writes_nothing(flags, message, tmp_path, capsys):
    argv = ["finetune", "--config", "finetune/cola", "--sample", "--use_cpu", "--output_dir", str(tmp_path / "run")]
    assert main([*argv, *flags]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(f"gpt1: error: {message}")
    assert not (tmp_path / "run").exists()


def test_a_batch_that_processes_split_is_not_multiplied(devices, tmp_path):
    devices(2)
    args = GPT1TrainingArguments(str(tmp_path), use_cpu=True, accelerator_config={"split_batches": True})
    assert sizes(args) == (32, 32, 1) and rows_per_update(args) == 32


REPLACED = {"global_batch_size": 16, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}


@pytest.mark.parametrize("arguments", CLASSES)
@pytest.mark.parametrize("given", [{}, *({name: size} for name, size in REPLACED.items())], ids=str)
def test_settings_survive_a_round_trip_and_one_size_can_be_replaced(arguments, given, tmp_path):
    args = arguments(str(tmp_path), use_cpu=True, **given)
    as_json = json.loads(args.to_json_string())
    copies = [dataclasses.replace(args, seed=3), copy.deepcopy(args), pickle.loads(pickle.dumps(args))]
    copies += [arguments(**args.to_dict()), arguments(**as_json)]
    assert [sizes(other) for other in copies] == [sizes(args)] * 5
    assert {type(value) for name, value in args.to_sanitized_dict().items() if name in REPLACED} == {int}
    for name, size in REPLACED.items():
        expected = sizes(arguments(str(tmp_path), use_cpu=True, **given | {name: size}))
        for replaced in (
            *(dataclasses.replace(other, **{name: size}) for other in (args, *copies[:4])),
            arguments(**args.to_dict() | {name: size}),
        ):
            assert sizes(replaced) == expected


def test_replacing_one_size_keeps_those_that_were_given(tmp_path):
    args = FinetuneArguments(str(tmp_path), use_cpu=True, global_batch_size=64, per_device_train_batch_size=8)
    assert sizes(dataclasses.replace(args, per_device_train_batch_size=4)) == (64, 4, 16)
    assert sizes(dataclasses.replace(args, global_batch_size=16)) == (16, 8, 2)
    with pytest.raises(UsageError, match="global_batch_size 64 is not per_device_train_batch_size 8 × gradient_accu"):
        dataclasses.replace(args, gradient_accumulation_steps=2)


def with_gpus(monkeypatch, number: int):
    """One process sees several GPUs (and computes on the CPU)."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)


@pytest.mark.parametrize("arguments", CLASSES)
def test_several_gpus_in_one_process(arguments, monkeypatch, tmp_path):
    """Plain `Trainer` divides a batch over them by torch's DataParallel; `GPT1Trainer` uses one."""
    with_gpus(monkeypatch, 2)
    total = CLASSES[arguments]
    has_data_parallel = arguments is GPT1TrainingArguments
    args = arguments(str(tmp_path))
    assert sizes(args) == (total, total // (2 if has_data_parallel else 1), 1)
    assert args.n_gpu == (2 if has_data_parallel else 1)
    assert args.train_batch_size == rows_per_update(args) == total
    small = arguments(str(tmp_path), global_batch_size=total, per_device_train_batch_size=4)
    assert small.gradient_accumulation_steps == total // (8 if has_data_parallel else 4)
    model = GPT1ForCausalLM(GPT1Config(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2))
    GPT1Trainer(model, small)
    assert small.n_gpu == 1 and sizes(small) == (total, 4, total // 4) and rows_per_update(small) == total
    plain = arguments(str(tmp_path), per_device_train_batch_size=4)
    GPT1Trainer(model, plain)
    assert sizes(plain) == (4, 4, 1)


def test_a_number_of_gpus_that_does_not_divide_the_batch_is_no_obstacle_to_using_one(monkeypatch, tmp_path):
    with_gpus(monkeypatch, 3)
    assert sizes(FinetuneArguments(str(tmp_path))) == (32, 32, 1)
    with pytest.raises(UsageError, match="32 is not a multiple of 3 devices: use global_batch_size 30 or 33, or 2 or"):
        GPT1TrainingArguments(str(tmp_path))


def test_plain_trainer_takes_the_same_rows(tmp_path):
    generator = torch.Generator().manual_seed(0)
    rows = [
        {"input_ids": ids, "labels": int(ids[0]) % 2} for ids in torch.randint(1, 20, (24, 5), generator=generator)
    ]
    seen = {}
    for trainer_class in (Trainer, GPT1Trainer):
        for given in ({"global_batch_size": 8}, {"global_batch_size": 8, "per_device_train_batch_size": 2}):
            sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
            dropout = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop", "classifier_dropout"), 0.0)
            torch.manual_seed(0)
            model = GPT1ForSequenceClassification(GPT1Config(vocab_size=20, **sizes, **dropout))
            args = GPT1TrainingArguments(
                str(tmp_path), num_train_epochs=1, logging_steps=1, use_cpu=True, disable_tqdm=True, **given
            )
            args.train_sampling_strategy = "sequential"
            trainer = trainer_class(model, args, train_dataset=rows)
            (batch, *_) = trainer.get_train_dataloader()
            assert len(batch["labels"]) == given.get("per_device_train_batch_size", 8)
            trainer.train()
            seen[trainer_class, len(given)] = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    first, *others = seen.values()
    assert len(first) == 3
    assert all(other == pytest.approx(first, rel=1e-3) for other in others)


def finetuning_run(tmp_path, **changes) -> RunFolder:
    args = FinetuneArguments(str(tmp_path), task="cola", sample=True, use_cpu=True, **changes)
    return RunFolder.of_finetuning(args, finetuning_facts(args, load_task("cola")))


def test_what_may_resume_depends_on_the_rows_of_an_update(devices, tmp_path):
    earlier = finetuning_run(tmp_path, per_device_train_batch_size=32)
    stated = finetuning_run(tmp_path, global_batch_size=32)
    without = {key: value for key, value in earlier.results.content.items() if key != "global_batch_size"}
    for content in (earlier.results.content, without):  # with the new setting, and as an earlier version wrote it
        assert stated.results.differences(content) == ""
    assert stated.training.differences(earlier.training.content) == ""
    devices(2)
    two = finetuning_run(tmp_path, global_batch_size=32)
    # As before: training may continue on other devices; finished results belong to a number of processes.
    assert two.training.differences(stated.training.content) == ""
    assert "world_size was 1 and is 2 now" in two.results.differences(stated.results.content)
    more = finetuning_run(tmp_path, per_device_train_batch_size=32)
    assert more.training.differences(stated.training.content) == "rows per update was 32 and is 64 now"
    # A setting that only one run has is compared with its default, also where the default batch does not fit.
    devices(3)
    odd = finetuning_run(tmp_path, global_batch_size=30)
    del odd.training.content["lm_coef"]
    assert odd.training.differences({**odd.training.content, "lm_coef": 0.5}) == ""


def test_pretraining_in_other_batches_resumes(devices, tmp_path):
    one = training_identity(PretrainArguments(str(tmp_path), use_cpu=True))
    devices(8)
    eight = training_identity(PretrainArguments(str(tmp_path), use_cpu=True, global_batch_size=64))
    small = training_identity(
        PretrainArguments(str(tmp_path), use_cpu=True, global_batch_size=64, per_device_train_batch_size=2)
    )
    assert eight.differences(one.content) == small.differences(one.content) == ""


def test_results_cards_and_costs_name_the_rows_of_an_update(base_model, texts, tmp_path, monkeypatch):
    monkeypatch.setattr(gpt1_hf.training.pretrain, "matmul_peak", lambda *_: 1e12)
    common = "--sample --max_train_examples 24 --max_steps 2 --disable_tqdm true --use_cpu true".split()
    sizes = "--global_batch_size 12 --per_device_train_batch_size 3".split()
    argv = ["finetune", "--task", "cola", "--model", base_model, "--output_dir", str(tmp_path / "task"), *common]
    assert main([*argv, *sizes]) == 0
    (result,) = json.loads((tmp_path / "task" / "results.json").read_text())
    assert result["details"]["batch_size"] == 12
    card = (tmp_path / "task" / "README.md").read_text()
    for line in (
        "| global_batch_size | 12 |",
        "| per_device_train_batch_size | 3 |",
        "| gradient_accumulation_steps | 4 |",
    ):
        assert line in card
    settings = json.loads((tmp_path / "task" / "settings.json").read_text())
    assert settings["per_device_train_batch_size"] == 3 and settings["gradient_accumulation_steps"] == 4

    (tmp_path / "corpus.txt").write_text("\n\n".join(texts), encoding="utf-8")
    model = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32}
    settings = {
        "corpus": str(tmp_path / "corpus.txt"),
        "tokenizer": base_model,
        "max_steps": 2,
        "use_cpu": True,
        **model,
    }
    settings |= {"warmup_steps": 1, "disable_tqdm": True, "global_batch_size": 12, "per_device_train_batch_size": 3}
    run = Run("pretrain", "pretrain/small", settings, tmp_path / "model", "small")
    assert cost.estimate(run, 10).tokens == 2 * 12 * 32
    assert main(["pretrain", *run.flags]) == 0
    details = json.loads((tmp_path / "model" / "results.json").read_text())[0]["details"]
    assert details["tokens_seen"] == 2 * 12 * 32
    assert "| global_batch_size | 12 |" in (tmp_path / "model" / "README.md").read_text()


def test_a_plans_run_is_the_same_under_both_names_of_its_batch(tmp_path):
    """Earlier recipes stated the rows of the one device that trains a plan's run."""
    run = Run("pretrain", "pretrain/small", {"per_device_train_batch_size": 4}, tmp_path, "small")
    stated = dataclasses.replace(run, settings={"global_batch_size": 4})
    both = dataclasses.replace(run, settings={"global_batch_size": 4, "per_device_train_batch_size": 2})
    assert stated.hash == run.hash and both.hash != run.hash
    assert dataclasses.replace(run, settings={"global_batch_size": 8}).hash != run.hash
