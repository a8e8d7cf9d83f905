"""Pushing a saved model: it is completed and tried out here, so that what arrives on the Hub loads there."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from huggingface_hub import ModelCard
from transformers import AutoModel

from ..checkpoints.loading import open_config, open_model, open_tokenizer
from ..checkpoints.lora import adapter_base
from ..errors import GPT1Error
from ..resources import model_path
from .card import write_plain_card
from .upload import (
    ADAPTER_CONFIG,
    BASE_PLACEHOLDER,
    CARD,
    Upload,
    check_repo_name,
    is_complete,
    model_files,
    named,
    read_json,
    upload,
)


def push(
    model: str,
    repo: str,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    include: Sequence[str] = (),
    base_model: str | None = None,
) -> Upload:
    """
    Push a saved model or adapter to the Hub: weights, configuration, tokenizer, processor, the code that
    `trust_remote_code=True` reads, and the model card; nothing else of its folder.

    Before anything is sent, the model is loaded as a reader would, an adapter onto the base model that it names. A
    folder without the code gets this package's, and one without a card a short one; the folder itself is not changed.
    The token is that of `HF_TOKEN` or of `hf auth login`.

    Args:
        model (`str`):
            Folder of a saved model or adapter, or `gpt1-tiny`.
        repo (`str`):
            `owner/name`, or `name` for a repository of one's own. It is created if it is not there.
        private (`bool`, *optional*):
            Whether a repository that is created is private. One that is there and public is an error.
        revision (`str`, *optional*):
            Branch, created if it is not there; defaults to `main`.
        commit_message (`str`, *optional*):
            Message of the commit.
        include (list of `str`, *optional*):
            Names of further files in the folder to send, such as `results.json`.
        base_model (`str`, *optional*):
            For an adapter of a model in a folder: the repository of that model on the Hub.

    Returns:
        [`Upload`].

    Raises:
        GPT1Error: if the model is not whole or does not load, `base_model` is another model than the adapter's, or the
        Hub cannot be reached or refuses; nothing has changed there then.
    """
    check_repo_name(repo)
    folder = Path(model_path(model))
    if not folder.is_dir():
        raise GPT1Error(f"there is no folder {model!r}: give the folder of a saved model, or gpt1-tiny")
    read_json(folder / "config.json")
    if base_model is not None:
        check_same_base(folder, base_model)
    with tempfile.TemporaryDirectory() as temporary:
        if base_model is not None or not (is_complete(folder) and (folder / CARD).is_file()):
            folder = completed(folder, Path(temporary) / folder.resolve().name, include)
        if base_model is not None:
            name_base(folder, base_model)
        model_files(folder)
        check_loads(folder)
        return upload(folder, repo, commit_message, private, revision, include=include)


def completed(folder: Path, copy: Path, include: Sequence[str] = ()) -> Path:
    """Copy what a push reads of a model's folder, and add the code and the card that it lacks."""
    copy.mkdir()
    for file in folder.iterdir():
        if file.is_file() and (file.suffix in (".json", ".md", ".py", ".safetensors") or file.name in include):
            shutil.copy(file, copy)
    if not is_complete(copy):
        open_config(str(copy)).save_pretrained(copy)
    if not (copy / CARD).is_file():
        write_plain_card(copy)
    return copy


def check_same_base(folder: Path, base_model: str):
    """Raise if a model on the Hub is not the one that an adapter was trained on."""
    base = adapter_base(str(folder))
    if base is None:
        raise GPT1Error(f"{folder} is a whole model: base_model is for adapters")
    check_repo_name(base_model)
    ours, theirs = (
        open_model(AutoModel, name, open_config(name), dtype="auto").state_dict() for name in (base, base_model)
    )
    if ours.keys() != theirs.keys() or not all(torch.equal(ours[name], theirs[name]) for name in ours):
        raise GPT1Error(f"{base_model} is not the model that the adapter {folder} was trained on, {base}")


def name_base(folder: Path, base_model: str):
    """Write the base model's repository into an adapter's configuration and card, in the place of a folder."""
    config = read_json(folder / ADAPTER_CONFIG) | {"base_model_name_or_path": base_model}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
    card = ModelCard(named((folder / CARD).read_text(encoding="utf-8"), BASE_PLACEHOLDER, base_model))
    card.data.base_model, card.data.base_model_relation = base_model, "adapter"
    card.save(folder / CARD)


def check_loads(folder: Path):
    """Raise if a folder's model and tokenizer do not load, or do not belong together."""
    config, tokenizer = open_config(str(folder)), open_tokenizer(str(folder))
    if len(tokenizer) > config.vocab_size:
        raise GPT1Error(
            f"the tokenizer in {folder} has {len(tokenizer)} tokens, but the model only {config.vocab_size}: the two "
            "do not belong together"
        )
    own_class = (config.architectures or [None])[0]
    autos = {reference.split(".")[1]: auto for auto, reference in type(config).auto_classes.items()}
    if own_class not in autos:
        raise GPT1Error(
            f"{folder / 'config.json'} names the architecture {own_class}, which is none of {', '.join(autos)}: "
            "`gpt1 convert` turns an OpenAIGPT into a GPT-1"
        )
    loaded = open_model(getattr(transformers, autos[own_class]), str(folder), config, dtype="auto", exact=True)
    for name, weight in loaded.named_parameters():
        if not weight.isfinite().all():
            raise GPT1Error(f"the weights {name} in {folder} are not all finite: the training of this model diverged")


__all__ = ["push"]
