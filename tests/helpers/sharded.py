"""One of two processes that load a checkpoint into a sharded model; `test_tensor_parallel.py` starts them."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from helpers.models import CLOSE, random_ids
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import AutoConfig
from transformers.distributed.configuration_utils import DistributedConfig

import gpt1_hf  # noqa: F401 (registers the classes)
from gpt1_hf import GPT1Config, GPT1ForCausalLM, GPT1ForSequenceClassification, GPT1Model


IDS = random_ids(2, 8)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def same_as_whole(folder: str, out: str, **sizes):
    for model_class in (GPT1ForCausalLM, GPT1Model, GPT1ForSequenceClassification):
        models = []
        for options in ({}, {"distributed_config": DistributedConfig(**sizes)}):
            torch.manual_seed(0)  # of the classifier's weights
            models.append(model_class.from_pretrained(folder, **options).eval())
        plain, sharded = models
        assert any(hasattr(parameter, "device_mesh") for parameter in sharded.parameters())
        if model_class is GPT1ForSequenceClassification:  # its head is new
            continue
        assert_close(whole(sharded(IDS)[0]), plain(IDS)[0], **CLOSE)
        if model_class is not GPT1ForCausalLM:
            continue
        for model in models:
            model(IDS, labels=IDS).loss.backward()
        for (name, one), (_, other) in zip(plain.named_parameters(), sharded.named_parameters(), strict=True):
            assert_close(whole(other.grad), one.grad, atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")
        for original_layout in (False, True):
            files = []
            for name, model in (("plain", plain), ("sharded", sharded)):
                saved = Path(out, f"{name} {original_layout}")
                model.save_pretrained(saved, save_original_format=original_layout)
                dist.barrier()
                files.append(load_file(saved / "model.safetensors"))
            for name, tensor in files[0].items():
                assert torch.equal(files[1][name], tensor), name


def accelerate(folder: str):
    from accelerate import Accelerator, FullyShardedDataParallelPlugin

    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["GPT1Block"],
        cpu_ram_efficient_loading=True,
        state_dict_type="FULL_STATE_DICT",
    )
    accelerator = Accelerator(cpu=True, fsdp_plugin=plugin)
    model = accelerator.prepare(GPT1ForCausalLM.from_pretrained(folder).eval())
    state = {name: whole(tensor) for name, tensor in model.state_dict().items()}
    files = load_file(Path(folder, "model.safetensors"))
    print({n: float(t.abs().sum()) for n, t in state.items()}, model.config.hidden_size, len(files))
    assert_close(model(IDS).logits, load_plain(folder)(IDS).logits, **CLOSE)


def load_plain(folder):
    import os

    os.environ["ACCELERATE_USE_FSDP"] = "false"
    return GPT1ForCausalLM.from_pretrained(folder).eval()


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
    if kind == "accelerate":
        accelerate(*argv)
    else:
        dist.init_process_group("gloo")
        if kind == "other_sizes":
            other_sizes(*argv)
        else:
            same_as_whole(*argv, **{f"{kind}_size": 2})
    dist.destroy_process_group()
