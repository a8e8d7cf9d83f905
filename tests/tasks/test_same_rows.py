"""The rows of every task, and their encoding, stay what they were: `same_rows.json` holds their digests.

A digest that changes moves the numbers of a task: raise its `version`, and write the file again by
`python tests/tasks/test_same_rows.py` (with `GPT1_DATA_DIR` for the digests of the real data).
"""

import hashlib
import json
import os
from pathlib import Path

import pytest

from gpt1_hf import GPT1Processor
from gpt1_hf.checkpoints.loading import open_tokenizer
from gpt1_hf.errors import GPT1Error, MissingSplitError
from gpt1_hf.tasks import all_tasks, load_task


DIGESTS = Path(__file__).with_name("same_rows.json")
TASKS = sorted(all_tasks(zero_shot=True))
ENCODED = 64  # rows of each split


def digests_of(task_id: str, data_dir: str | None, sample: bool) -> dict[str, str]:
    """Digests of the canonical rows of each split, and of the ids that gpt1-tiny reads of the first ones."""
    task, found = load_task(task_id), {}
    for split in ("train", *task.scored_splits):
        try:
            rows = task.load(split, data_dir, sample)
        except MissingSplitError:
            continue
        content = [json.dumps(row, sort_keys=True) for row in rows]
        if task.input_format:
            processor = GPT1Processor(open_tokenizer("gpt1-tiny"), task.input_format)
            columns = rows.select(range(min(ENCODED, len(rows))))[:]
            content.append(json.dumps(processor(columns, max_length=128)["input_ids"]))
        found[split] = hashlib.sha256("\n".join(content).encode()).hexdigest()[:16]
    return found


@pytest.mark.parametrize("task_id", TASKS)
def test_the_rows_of_the_sample_are_the_same(task_id):
    assert digests_of(task_id, None, sample=True) == json.loads(DIGESTS.read_text())["sample"][task_id]


@pytest.mark.parametrize("task_id", sorted(json.loads(DIGESTS.read_text())["data"] if DIGESTS.exists() else ()))
def test_the_rows_of_the_data_are_the_same(task_id, data_dir):
    assert digests_of(task_id, data_dir, sample=False) == json.loads(DIGESTS.read_text())["data"][task_id]


def write():
    found: dict[str, dict] = {"sample": {task_id: digests_of(task_id, None, sample=True) for task_id in TASKS}}
    found["data"] = json.loads(DIGESTS.read_text())["data"] if DIGESTS.exists() else {}
    for task_id in TASKS if "GPT1_DATA_DIR" in os.environ else ():
        try:
            found["data"][task_id] = digests_of(task_id, os.environ["GPT1_DATA_DIR"], sample=False)
        except GPT1Error as error:
            print(f"{task_id}: {error}")
    DIGESTS.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    write()
