"""
Every setting of `TrainingArguments` works in the commands, is refused before training, or is irrelevant.

A new setting of transformers fails a test here until it is classified.
"""

import dataclasses
import json

import pytest
import torch
from transformers import TrainingArguments

import gpt1_hf.training.pretrain
from gpt1_hf.cli import main
from gpt1_hf.errors import GPT1Error
from gpt1_hf.evaluation.evaluate import EvaluateArguments, evaluate
from gpt1_hf.training.arguments import REFUSED, FinetuneArguments, PretrainArguments
from gpt1_hf.training.finetune import finetune
from gpt1_hf.training.pretrain import pretrain
from gpt1_hf.training.run_folder import TRAINED


# Settings that work, in runs with several at once: none of them may lose the trained model, or change its scores.
WORKS = {
    "data": {
        "accelerator_config": {"split_batches": True, "even_batches": False},
        "average_tokens_across_devices": False,
        "data_seed": 3,
        "dataloader_drop_last": True,
        "dataloader_in_order": False,
        "dataloader_multiprocessing_context": "fork",
        "dataloader_num_workers": 1,
        "dataloader_persistent_workers": True,
        "dataloader_pin_memory": False,
        "dataloader_prefetch_factor": 2,
        "gradient_accumulation_steps": 2,
        "ignore_data_skip": True,
        "per_device_eval_batch_size": 8,
        "remove_unused_columns": False,
        "seed": 5,
        "train_sampling_strategy": "random",
    },
    "evaluation": {
        "bf16_full_eval": True,
        "eval_accumulation_steps": 1,
        "eval_delay": 1,
        "eval_on_start": True,
        "eval_steps": 1,
        "eval_strategy": "steps",
        "include_num_input_tokens_seen": "non_padding",
        "label_names": ["labels"],
        "logging_first_step": True,
        "logging_nan_inf_filter": True,
        "logging_steps": 1,
        "logging_strategy": "steps",
        "prediction_loss_only": True,
        "skip_memory_metrics": False,
    },
    "best": {
        "eval_strategy": "steps",
        "eval_steps": 1,
        "fp16_full_eval": True,
        "greater_is_better": False,
        "label_smoothing_factor": 0.1,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "neftune_noise_alpha": 5.0,
        "save_only_model": True,
        "save_steps": 1,
        "save_strategy": "steps",
        "save_total_limit": 1,
        "use_cache": True,
    },
    "optimizer": {
        "activation_checkpointing": True,
        "activation_checkpointing_kwargs": {"use_reentrant": False},
        "adam_beta1": 0.8,
        "adam_beta2": 0.9,
        "adam_epsilon": 1e-6,
        "debug": "underflow_overflow",
        "learning_rate": 1e-3,
        "lr_scheduler_kwargs": {"min_lr": 1e-5},
        "lr_scheduler_type": "cosine_with_min_lr",
        "max_grad_norm": 0.0,
        "max_steps": 2,
        "optim": "rmsprop",
        "optim_args": "eps=1e-6",
        "per_device_train_batch_size": 4,
        "restore_callback_states_from_checkpoint": True,
        "tf32": False,
        "torch_empty_cache_steps": 1,
        "warmup_steps": 1,
        "weight_decay": 0.1,
    },
    "compiled": {"torch_compile": True, "torch_compile_backend": "aot_eager", "torch_compile_mode": None},
    "deterministic": {"full_determinism": True, "num_train_epochs": 1.0},
    "bf16": {"bf16": True},
    "fp16": {"fp16": True},
}
# Settings that another file tests, or that need several processes or a Hub.
TESTED_ELSEWHERE = {
    "ddp_bucket_cap_mb": "test_processes.py",
    "ddp_broadcast_buffers": "test_processes.py",
    "ddp_find_unused_parameters": "test_processes.py",
    "ddp_static_graph": "test_processes.py",
    "ddp_timeout": "test_processes.py",
    "deepspeed": "the library's; a missing library is reported before training",
    "disable_tqdm": "test_progress.py",
    "fsdp": "test_resume_processes.py; refused by the library for one process",
    "fsdp_config": "test_resume_processes.py",
    "gradient_checkpointing": "the old name of activation_checkpointing",
    "gradient_checkpointing_kwargs": "the old name of activation_checkpointing_kwargs",
    "hub_always_push": "test_push.py",
    "hub_model_id": "test_push.py",
    "hub_private_repo": "test_push.py",
    "hub_revision": "test_push.py",
    "hub_strategy": "test_push.py",
    "hub_token": "test_push.py",
    "output_dir": "every test",
    "project": "test_trackers.py",
    "push_to_hub": "test_push.py",
    "report_to": "test_trackers.py",
    "resume_from_checkpoint": "test_resume.py",
    "run_name": "test_trackers.py",
    "trackio_bucket_id": "test_trackers.py",
    "trackio_space_id": "test_trackers.py",
    "trackio_static_space_id": "test_trackers.py",
    "use_cpu": "every test",
}
# Settings without an effect here.
IRRELEVANT = {
    "do_eval": "the Trainer does not read it",
    "do_predict": "the Trainer does not read it",
    "do_train": "the Trainer does not read it",
    "length_column_name": "rows are as long as their tokens",
    "liger_kernel_config": "of use_liger_kernel, which is refused",
    "local_rank": "the launcher says it",
    "log_level": "how much is printed",
    "log_level_replica": "how much is printed",
    "log_on_each_node": "how much is printed",
    "optim_target_modules": "of optimizers that are not installed",
    "save_on_each_node": "of several machines",
}
# Values that are refused before training: by REFUSED, by the library or by a range.
REFUSALS = {
    "auto_find_batch_size": True,
    "batch_eval_metrics": True,
    "dataloader_multiprocessing_context": "spawn",
    "dataloader_persistent_workers": True,
    "dataloader_prefetch_factor": 2,
    "ddp_backend": "gloo",
    "debug": "tpu_metrics_debug",
    "enable_jit_checkpoint": True,
    "eval_do_concat_batches": False,
    "eval_use_gather_object": True,
    "include_for_metrics": ["loss"],
    "label_names": ["label"],
    "parallelism_config": "file.json",
    "use_liger_kernel": True,
}


def test_every_setting_is_classified():
    works = {name for settings in WORKS.values() for name in settings}
    judged = [works, set(TESTED_ELSEWHERE), set(IRRELEVANT), set(REFUSALS) - works]
    names = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    assert names - set().union(*judged) == set(), "new settings: do they work, are they refused, or irrelevant?"
    assert set().union(*judged) - names == set(), "settings that are gone"
    assert sum(map(len, judged)) == len(names), "settings that are classified twice"
    assert set(REFUSED) == set(REFUSALS)


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("arguments", [FinetuneArguments, PretrainArguments])
def test_settings_that_cannot_work_are_refused_by_name(arguments, name, tmp_path):
    with pytest.raises(GPT1Error, match=f"^{name} .*(leave it out|use `accelerate launch|set per_device)"):
        arguments(**{"output_dir": str(tmp_path / "run"), "use_cpu": True, name: REFUSALS[name]})
    assert not (tmp_path / "run").exists()


@pytest.fixture
def undone():
    """Undoes what full_determinism and torch.compile set for the whole process."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.compiler.reset()


def common(tmp_path, settings) -> dict:
    defaults = {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 0}
    return {"output_dir": str(tmp_path / "run"), "use_cpu": True, "disable_tqdm": True, **defaults, **settings}


GROUPS = [
    pytest.param(
        group,
        # torch.compile makes an instance of the class that the chunked loss derives from.
        marks=[pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*should not be instantiated")]
        if group == "compiled"
        else [],
    )
    for group in WORKS
]


@pytest.mark.parametrize("group", GROUPS)
def test_scores_of_finetuning_are_those_of_the_saved_model(group, base_model, tmp_path, undone):
    settings = common(tmp_path, WORKS[group])
    results = finetune(
        FinetuneArguments(task="cola", model=base_model, sample=True, max_train_examples=21, **settings)
    )
    batch_size = settings.get("per_device_eval_batch_size", 64)
    again = evaluate(
        EvaluateArguments(
            model=str(tmp_path / "run"),
            task="cola",
            sample=True,
            batch_size=batch_size,
            max_length=None,
            output_dir=str(tmp_path / "again"),
        )
    )
    assert [result.value for result in again] == [result.value for result in results]
    found, expected = (
        [json.loads(line)["scores"] for line in (tmp_path / folder / "predictions.jsonl").read_text().splitlines()]
        for folder in ("run", "again")
    )
    assert torch.allclose(torch.tensor(found), torch.tensor(expected), atol=1e-6)
    assert not (tmp_path / "run" / TRAINED).exists()


@pytest.mark.parametrize("group", GROUPS)
def test_scores_of_pre_training_are_those_of_the_saved_model(group, base_model, texts, tmp_path, undone, monkeypatch):
    monkeypatch.setattr(gpt1_hf.training.pretrain, "matmul_peak", lambda *_: 1e12)
    for name, part in (("train", texts[10:]), ("held-out", texts[:10])):
        (tmp_path / f"{name}.txt").write_text("\n\n".join(part), encoding="utf-8")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32}
    held_out = str(tmp_path / "held-out.txt")
    settings = {**common(tmp_path, WORKS[group]), **sizes, "corpus": str(tmp_path / "train.txt")}
    results = pretrain(PretrainArguments(validation_corpus=held_out, tokenizer=base_model, **settings))
    again = evaluate(
        EvaluateArguments(model=str(tmp_path / "run"), text_file=held_out, output_dir=str(tmp_path / "again"))
    )
    assert [result.value for result in again] == pytest.approx([result.value for result in results], rel=1e-4)
    assert not (tmp_path / "run" / TRAINED).exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--optim", "lomo"], "optim lomo with optim_args None cannot be created: "),
        (["--optim", "rmsprop", "--optim_args", "eps"], "optim rmsprop with optim_args eps cannot be created: "),
        (["--lr_scheduler_type", "warmup_stable_decay"], "lr_scheduler_type warmup_stable_decay with "),
        (["--lr_scheduler_kwargs", '{"foo": 1}'], "lr_scheduler_type linear with lr_scheduler_kwargs {'foo': 1} "),
        (
            ["--metric_for_best_model", "acuracy"],
            "metric_for_best_model must be loss or matthews_correlation here",
        ),
        (
            ["--metric_for_best_model", "matthews_correlation", "--prediction_loss_only", "true"],
            "metric_for_best_model must be loss here, not 'matthews_correlation'",
        ),
    ],
)
def test_settings_that_do_not_fit_give_one_sentence(flags, message, base_model, tmp_path, capsys):
    run = ["finetune", "--task", "cola", "--sample", "--model", base_model, "--max_steps", "1", "--use_cpu", "true"]
    assert main([*run, "--output_dir", str(tmp_path / "run"), *flags]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("gpt1: error: ") and message in last
    assert not list((tmp_path / "run").glob("*.safetensors"))


def test_the_best_perplexity_is_the_lowest(base_model, tmp_path, capsys):
    args = PretrainArguments(str(tmp_path), metric_for_best_model="eval_perplexity", use_cpu=True)
    assert args.greater_is_better is False
    argv = ["pretrain", "--corpus", "x.txt", "--tokenizer", base_model, "--metric_for_best_model", "accuracy"]
    assert main([*argv, "--output_dir", str(tmp_path / "run")]) == 2
    assert "metric_for_best_model must be loss or perplexity here, not 'accuracy'" in capsys.readouterr().err
