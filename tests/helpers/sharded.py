"""One of two processes that load a checkpoint into a sharded model; `test_tensor_parallel.py` starts them."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from helpers.models import CLOSE, random_ids
from safetensors.torch import load_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.testing import assert_close
from transformers.distributed.configuration_utils import DistributedConfig

from gpt1_hf import GPT1Config, GPT1ForCausalLM, GPT1ForSequenceClassification, GPT1Model


IDS = random_ids(2, 8)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


@torch.no_grad()
def copy_head(source: torch.nn.Module, target: torch.nn.Module):
    """Copy the classifier, because a sharded one is drawn part by part, with other random numbers."""
    for name, weight in target.classifier.named_parameters():
        whole_weight = source.classifier.get_parameter(name)
        if isinstance(weight, DTensor):
            weight.copy_(distribute_tensor(whole_weight, weight.device_mesh, weight.placements))
        else:
            weight.copy_(whole_weight)


def same_as_whole(folder: str, out: str, **sizes):
    for model_class in (GPT1ForCausalLM, GPT1Model, GPT1ForSequenceClassification):
        models = []
        for options in ({}, {"distributed_config": DistributedConfig(**sizes)}):
            torch.manual_seed(0)  # the checkpoint has no classifier, and both processes draw the same
            models.append(model_class.from_pretrained(folder, **options).eval())
        plain, sharded = models
        if model_class is GPT1ForSequenceClassification:
            copy_head(plain, sharded)
        assert any(hasattr(parameter, "device_mesh") for parameter in sharded.parameters())
        assert_close(whole(sharded(IDS)[0]), plain(IDS)[0], **CLOSE)
        if model_class is not GPT1ForCausalLM:
            continue
        for model in models:
            model(IDS, labels=IDS).loss.backward()
        for (name, one), (_, other) in zip(plain.named_parameters(), sharded.named_parameters(), strict=True):
            assert_close(
                whole(other.grad), one.grad, atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
            )
        for original_layout in (False, True):
            files = []
            for name, model in (("plain", plain), ("sharded", sharded)):
                saved = Path(out, f"{name} {original_layout}")
                model.save_pretrained(saved, save_original_format=original_layout)
                dist.barrier()
                files.append(load_file(saved / "model.safetensors"))
            for name, tensor in files[0].items():
                assert torch.equal(files[1][name], tensor), name


def read_by_one(folder: str):
    """With `fsdp_cpu_ram_efficient_loading`, the first process broadcasts the weights to the others' shards."""
    plain = GPT1ForCausalLM.from_pretrained(folder).eval()
    # What `accelerate launch` sets, and then does. On CPUs, accelerate itself knows no FSDP.
    os.environ.update(ACCELERATE_USE_FSDP="true", FSDP_CPU_RAM_EFFICIENT_LOADING="true")
    model = GPT1ForCausalLM.from_pretrained(folder).eval()
    state = model.state_dict() if dist.get_rank() == 0 else {}
    model.to("meta")
    for block in model.transformer.h:
        fully_shard(block)
    fully_shard(model)
    model.to_empty(device="cpu")
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, state, options=options)
    assert torch.equal(model(IDS).logits, plain(IDS).logits)


def other_sizes(folder: str):
    config = GPT1Config.from_pretrained(folder)
    config.hidden_size, config.intermediate_size = 40, 160
    try:
        GPT1ForCausalLM.from_pretrained(folder, config=config, distributed_config=DistributedConfig(tp_size=2))
    except RuntimeError as error:
        assert "mismatch" in str(error).lower(), error
    else:
        raise AssertionError("weights of other sizes were loaded")


if __name__ == "__main__":
    kind, *argv = sys.argv[1:]
    dist.init_process_group("gloo")
    if kind in ("tp", "fsdp"):
        same_as_whole(*argv, **{f"{kind}_size": 2})
    else:
        {"read_by_one": read_by_one, "other_sizes": other_sizes}[kind](*argv)
    dist.destroy_process_group()
