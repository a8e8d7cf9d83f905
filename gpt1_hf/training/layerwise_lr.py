"""Layer-wise learning rates: lower layers, which hold more general knowledge, learn more slowly."""

import re

import torch


BLOCK = re.compile(r"(?:^|\.)h\.(\d+)\.")
EMBEDDING = re.compile(r"(?:^|\.)(?:tokens|positions)_embed\.")


def layer_scales(names: list[str], decay: float) -> dict[str, float]:
    """
    Share of the learning rate that each parameter gets.

    Args:
        names (`list[str]`):
            Parameter names of a GPT-1 or of its LSTM, with any prefix from a wrapper.
        decay (`float`):
            Factor from one layer to the one below it (Howard and Ruder, 2018, §3.2, where it is 1 / 2.6).

    Returns:
        `dict[str, float]`: 1 for the head and the highest block, `decay ** (n_blocks - 1 - i)` for block `i`, and
        `decay ** n_blocks` for the embeddings, including those of the special tokens.
    """
    blocks = {name: int(match[1]) for name in names if (match := BLOCK.search(name))}
    n_blocks = max(blocks.values(), default=-1) + 1
    depths = {name: -1 for name in names if EMBEDDING.search(name)} | blocks
    return {name: decay ** (n_blocks - 1 - depths.get(name, n_blocks - 1)) for name in names}


def decay_by_layer(optimizer: torch.optim.Optimizer, model: torch.nn.Module, decay: float):
    """
    Split the groups of an optimizer that has not stepped yet, so that each layer has its own learning rate. Everything
    else of a group, such as its weight decay, stays. Schedules scale all groups equally.

    Args:
        optimizer (`torch.optim.Optimizer`):
            Optimizer of the model; its groups are replaced.
        model (`torch.nn.Module`):
            The model, for the names of its parameters.
        decay (`float`):
            See [`layer_scales`].
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    scales = layer_scales(list(names.values()), decay)
    split = []
    for group in optimizer.param_groups:
        by_scale: dict[float, list[torch.nn.Parameter]] = {}
        for parameter in group["params"]:
            by_scale.setdefault(scales[names[id(parameter)]], []).append(parameter)
        split += [
            (scale, {**group, "params": params, "lr": group["lr"] * scale}) for scale, params in by_scale.items()
        ]
    # The head's group comes first: the Trainer logs the rate of the first one.
    optimizer.param_groups[:] = [group for _, group in sorted(split, key=lambda pair: -pair[0])]
