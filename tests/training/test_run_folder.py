"""A run's identity: which differences between two runs count, also between versions and with earlier files."""

import re

import pytest

from gpt1_hf.errors import GPT1Error
from gpt1_hf.tasks import load_task
from gpt1_hf.training.arguments import FinetuneArguments, PretrainArguments
from gpt1_hf.training.run_folder import (
    LEFT_OUT_OF_PLAN_HASH,
    NEUTRAL,
    NEUTRAL_IN_TRAINING,
    PRETRAINING_SETTINGS,
    RunFolder,
    finetuning_facts,
)


def finetuning_run(tmp_path, **changes) -> RunFolder:
    args = FinetuneArguments(str(tmp_path), task="cola", sample=True, use_cpu=True, **changes)
    return RunFolder.of_finetuning(args, finetuning_facts(args, load_task("cola")))


@pytest.mark.parametrize(
    ("changes", "differences"),
    [
        ({"lm_coef": 0.1}, "lm_coef was 0.5 and is 0.1 now"),
        ({"per_device_eval_batch_size": 7}, "per_device_eval_batch_size was 64 and is 7 now"),
        ({"logging_steps": 7, "run_name": "again", "save_total_limit": 1, "dataloader_num_workers": 1}, ""),
    ],
)
def test_settings_that_results_depend_on(changes, differences, tmp_path):
    run, earlier = finetuning_run(tmp_path, **changes), finetuning_run(tmp_path)
    assert run.results.differences(earlier.results.content) == differences


def test_training_resumes_with_more_changed_settings(tmp_path):
    changes = {"per_device_eval_batch_size": 7, "per_device_train_batch_size": 16, "gradient_accumulation_steps": 2}
    earlier = finetuning_run(tmp_path).training.content
    assert finetuning_run(tmp_path, **changes).training.differences(earlier) == ""
    changes["gradient_accumulation_steps"] = 4
    assert finetuning_run(tmp_path, **changes).training.differences(earlier) == "rows per update was 32 and is 64 now"


def test_a_setting_that_only_one_version_of_transformers_has(tmp_path):
    run = finetuning_run(tmp_path)
    earlier = {**run.results.content, "setting_of_another_version": 3}
    for name in ("adam_beta1", "debug", "accelerator_config", "weights", "data"):
        del earlier[name]
    assert run.results.differences(earlier) == ""
    changed = finetuning_run(tmp_path, adam_beta1=0.8)
    assert changed.results.differences(earlier) == "adam_beta1 was None and is 0.8 now"


def test_missing_files_are_not_compared(tmp_path):
    run = finetuning_run(tmp_path)
    assert run.results.content["data"] is None and run.results.content["weights"]
    assert run.results.differences({**run.results.content, "data": "0123"}) == ""
    assert run.results.differences({**run.results.content, "weights": "0123"}).startswith("weights was 0123 and is ")


def test_an_earlier_digest_of_the_tokenizer_is_not_compared(tmp_path):
    run = RunFolder.of_pretraining(PretrainArguments(str(tmp_path), use_cpu=True))
    earlier = {**run.training.content, "tokenizer": "0123", "corpus": "4567"}
    run.training.content |= {"tokenizer digest": "89ab", "corpus": "4567"}
    run.training.check(earlier, tmp_path / PRETRAINING_SETTINGS)
    with pytest.raises(GPT1Error, match="run.json belongs to a run with different settings .corpus was 0 and is 4567"):
        run.training.check({**earlier, "corpus": "0"}, tmp_path / PRETRAINING_SETTINGS)


def test_the_groups_of_neutral_settings_contain_each_other():
    assert set(LEFT_OUT_OF_PLAN_HASH) - {"data_dir"} == {n for n in LEFT_OUT_OF_PLAN_HASH if re.fullmatch(NEUTRAL, n)}
    assert NEUTRAL_IN_TRAINING.startswith(NEUTRAL)
