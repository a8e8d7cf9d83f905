"""Checkpoints in OpenAIGPT's layout and in ours load into sharded and offloaded models with the same logits.

The two processes are CPU processes that communicate through gloo.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.models import CLOSE, random_ids, randomize
from torch.testing import assert_close
from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

from gpt1_hf import GPT1ForCausalLM


# Two processes cannot halve the 61 tokens.
SIZES = {"vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 24}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """The same weights in both layouts."""
    original, own = tmp_path_factory.mktemp("original"), tmp_path_factory.mktemp("own")
    randomize(OpenAIGPTLMHeadModel(OpenAIGPTConfig(**SIZES))).save_pretrained(original)
    GPT1ForCausalLM.from_pretrained(original).save_pretrained(own)
    return {"original": str(original), "own": str(own)}


def run(kind: str, *argv: str):
    """Run a check of `helpers/sharded.py` in two processes, and show their output if it fails."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    file = Path(__file__).parent / "helpers" / "sharded.py"
    finished = subprocess.run(
        [*command, str(file), kind, *argv],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, (finished.stdout + finished.stderr)[-6000:]


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["original", "own"])
@pytest.mark.parametrize("kind", ["tp", "fsdp"])
def test_sharded_models_have_the_logits_gradients_and_files_of_whole_ones(folders, tmp_path, kind, layout):
    run(kind, folders[layout], str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["original", "own"])
def test_one_process_reads_the_checkpoint_for_all_in_fsdp2(folders, layout):
    run("read_by_one", folders[layout])


@pytest.mark.slow
def test_a_checkpoint_of_other_sizes_is_named_by_every_process(folders):
    run("other_sizes", folders["original"])


@pytest.mark.parametrize("layout", ["original", "own"])
@pytest.mark.parametrize("places", ["cpu", "auto", "disk"])
def test_a_device_map_changes_no_logits(folders, tmp_path, layout, places):
    device_map = places
    if places == "disk":
        device_map = {
            "transformer.tokens_embed": "cpu",
            "transformer.positions_embed": "cpu",
            "transformer.drop": "cpu",
        }
        device_map |= {"transformer.h.0": "cpu", "transformer.h.1": "disk", "lm_head": "cpu"}
    ids = random_ids(2, 8)
    expected = GPT1ForCausalLM.from_pretrained(folders[layout])(ids).logits
    loaded = GPT1ForCausalLM.from_pretrained(folders[layout], device_map=device_map, offload_folder=tmp_path)
    with torch.no_grad():
        assert_close(loaded(ids).logits, expected, **CLOSE)
