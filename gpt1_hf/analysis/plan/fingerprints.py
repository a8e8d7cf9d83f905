"""What a run starts from: digests of a model's weights, architecture and tokenizer. One name may get other content."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...checkpoints.loading import open_config, open_tokenizer
from ...resources import model_path
from ...training.run_folder import files_digest
from ...training_record import architecture_digest, tokenizer_digest


# Files of a model's folder that hold its tokenizer.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.*", "merges.txt", "encoder.json")


def model_fingerprint(model: str, has_weights: bool = True) -> dict[str, str]:
    """
    Digests of a model.

    Args:
        model (`str`):
            Folder, Hub id, or embedded model.
        has_weights (`bool`, *optional*, defaults to `True`):
            Whether a run uses its weights, not only its architecture.

    Returns:
        `dict`: `weights`, `architecture` and `tokenizer` -> digest. What cannot be read is left out: a model on the
        Hub is not downloaded for this, and a run of a broken one fails by itself.
    """
    found = {"architecture": _digest(_architecture, model, "config.json"), "tokenizer": _tokenizer_of(model)}
    if has_weights:
        found["weights"] = _digest(_weights, model, "*.safetensors")
    return {name: digest for name, digest in found.items() if digest}


def tokenizer_fingerprint(model: str) -> dict[str, str]:
    """Digest of a model's tokenizer, in the form of [`model_fingerprint`]."""
    digest = _tokenizer_of(model)
    return {"tokenizer": digest} if digest else {}


def changed(earlier: Mapping[str, Any], now: Mapping[str, str]) -> list[str]:
    """Names of the digests that differ. One that is only in one of the fingerprints is unknown, and not compared."""
    return [name for name, digest in now.items() if earlier.get(name, digest) != digest]


def _tokenizer_of(model: str) -> str | None:
    return _digest(_tokenizer, model, *TOKENIZER_FILES)


def _digest(read: Callable[[str], str], model: str, *patterns: str) -> str | None:
    """The digest that a function reads from some files of a model; `None` if there are none."""
    folder = Path(model_path(model))
    files = sorted(file for pattern in patterns for file in folder.glob(pattern))
    stamps = tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    return _read(read, str(folder), stamps) if files else None


@functools.cache
def _read(read: Callable[[str], str], folder: str, stamps: tuple) -> str | None:
    """A digest is read again when its files have changed."""
    try:
        return read(folder)
    except (ValueError, OSError):
        return None


def _weights(folder: str) -> str:
    return files_digest(sorted(Path(folder).glob("*.safetensors")))


def _architecture(folder: str) -> str:
    return architecture_digest(open_config(folder))


def _tokenizer(folder: str) -> str:
    return tokenizer_digest(open_tokenizer(folder))
