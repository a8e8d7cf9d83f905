"""OpenAI's release of the weights, in any size."""

import json
from pathlib import Path

import numpy as np


def release_shapes(n_positions, vocab_size, width, n_layer) -> list[list[int]]:
    """As in the release (openai/finetune-transformer-lm, model/params_shapes.json): sizes 512, 40478, 768, 12."""
    attention = [[1, width, 3 * width], [3 * width], [1, width, width], [width]]
    mlp = [[1, width, 4 * width], [4 * width], [1, 4 * width, width], [width]]
    norm = [[width], [width]]
    return [[n_positions, width], [vocab_size, width], *(n_layer * [*attention, *norm, *mlp, *norm])]


def write_release(folder: Path, shapes) -> list[np.ndarray]:
    """Write arrays of these shapes as OpenAI did: end to end, split into ten files anywhere. Return them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape, dtype=np.float32) * np.float32(0.1) for shape in shapes]
    for norm in (6, 12):
        for scale in arrays[norm::12]:
            scale += 1
    for index, part in enumerate(np.array_split(np.concatenate([array.ravel() for array in arrays]), 10)):
        np.save(folder / f"params_{index}.npy", part)
    (folder / "params_shapes.json").write_text(json.dumps(shapes))
    return arrays
