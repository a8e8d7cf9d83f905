"""Pushing a saved model. Before anything is sent, missing code or a missing card is added, and loading is tested."""

import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from huggingface_hub import ModelCard
from transformers import AutoModel
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME

from ..checkpoints.loading import open_config, open_model, open_tokenizer
from ..checkpoints.lora import adapter_base
from ..errors import GPT1Error
from ..files import write_json
from ..resources import model_path
from ..training_record import SIZES
from .card import write_plain_card
from .upload import (
    BASE_PLACEHOLDER,
    CARD,
    Upload,
    check_repo_name,
    has_code,
    model_files,
    read_json,
    upload,
    with_repo,
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
    Push a saved model or adapter to the Hub: weights, configuration, tokenizer, processor, the code for
    `trust_remote_code=True`, and the model card. Other files of its folder are not sent.

    Before anything is sent, the model is loaded as a user would load it, an adapter with its base model. Missing code
    and a missing card are added to what is sent; the folder itself is not changed. The access token is the one in
    `HF_TOKEN` or from `hf auth login`.

    Args:
        model (`str`):
            Folder of a saved model or adapter, or `gpt1-tiny`.
        repo (`str`):
            `owner/name`, or `name` for a repository of your own; created if it does not exist.
        private (`bool`, *optional*):
            Whether to create the repository as private. If set, an existing public one is an error.
        revision (`str`, *optional*):
            Branch, created if it does not exist; defaults to `main`.
        commit_message (`str`, *optional*):
            Message of the commit.
        include (list of `str`, *optional*):
            Names of further files of the folder to send, such as `results.json`.
        base_model (`str`, *optional*):
            For an adapter or a fine-tuned model whose base model is a local folder: the base model's repository on
            the Hub, for the card.

    Returns:
        [`Upload`].

    Raises:
        GPT1Error: if the model is incomplete or does not load, `base_model` cannot be its base model, or the
        Hub cannot be reached or refuses. In that case, the repository's content is unchanged.
    """
    check_repo_name(repo)
    folder = Path(model_path(model))
    if not folder.is_dir():
        raise GPT1Error(f"there is no folder {model!r}: give the folder of a saved model, or gpt1-tiny")
    read_json(folder / "config.json")
    if base_model is not None:
        check_base_model(folder, base_model)
    with tempfile.TemporaryDirectory() as temporary:
        if base_model is not None or not (has_code(folder) and (folder / CARD).is_file()):
            folder = complete_copy(folder, Path(temporary) / folder.resolve().name, include)
        if base_model is not None:
            set_base_model(folder, base_model)
        model_files(folder)
        check_loads(folder)
        return upload(folder, repo, commit_message, private, revision, include=include)


def complete_copy(folder: Path, copy: Path, include: Sequence[str] = ()) -> Path:
    """Copy the files that a push reads, and add missing code and a missing card."""
    copy.mkdir()
    for file in folder.iterdir():
        if file.is_file() and (file.suffix in (".json", ".md", ".py", ".safetensors") or file.name in include):
            shutil.copy(file, copy)
    if not has_code(copy):
        open_config(str(copy)).save_pretrained(copy)
    if not (copy / CARD).is_file():
        write_plain_card(copy)
    return copy


def check_base_model(folder: Path, base_model: str):
    """
    Raise if `base_model` on the Hub differs from the model that the adapter in a folder was trained on. The weights of
    a whole model have changed in training, so only its sizes are compared.
    """
    check_repo_name(base_model)
    base = adapter_base(str(folder))
    if base is None:
        own, theirs = (open_config(name).to_dict() for name in (str(folder), base_model))
        for size in ("model_type", *SIZES):
            if own.get(size) != theirs.get(size):
                raise GPT1Error(
                    f"{base_model} is not the model that {folder} was trained from: its {size} is {theirs.get(size)}, "
                    f"not {own.get(size)}"
                )
        return
    ours, theirs = (
        open_model(AutoModel, name, open_config(name), dtype="auto").state_dict() for name in (base, base_model)
    )
    if ours.keys() != theirs.keys() or not all(torch.equal(ours[name], theirs[name]) for name in ours):
        raise GPT1Error(
            f"{base_model} is not {base}, the model that the adapter {folder} was trained on: give "
            "the repository of that model"
        )


def set_base_model(folder: Path, base_model: str):
    """Write the base model's repository into a card and an adapter's configuration, in place of its folder."""
    card = ModelCard(with_repo((folder / CARD).read_text(encoding="utf-8"), BASE_PLACEHOLDER, base_model))
    card.data.base_model = base_model
    if (folder / ADAPTER_CONFIG_NAME).is_file():
        config = read_json(folder / ADAPTER_CONFIG_NAME) | {"base_model_name_or_path": base_model}
        write_json(folder / ADAPTER_CONFIG_NAME, config)
        card.data.base_model_relation = "adapter"
    else:  # our own cards begin so
        beginning = re.compile(r"^The model (`+).+?\1, fine-tuned", flags=re.MULTILINE)
        card.text = beginning.sub(f"The model `{base_model}`, fine-tuned", card.text, count=1)
        if "quantization_config" in read_json(folder / "config.json"):
            card.data.base_model_relation = "quantized"
    card.save(folder / CARD)


def check_loads(folder: Path):
    """Raise if the model or tokenizer of a folder does not load, or if they do not fit each other."""
    config, tokenizer = open_config(str(folder)), open_tokenizer(str(folder))
    if len(tokenizer) > config.vocab_size:
        raise GPT1Error(
            f"the tokenizer in {folder} has {len(tokenizer)} tokens, but the model only {config.vocab_size}: save the "
            "tokenizer that belongs to the model"
        )
    own_class = (config.architectures or [None])[0]
    autos = {reference.split(".")[1]: auto for auto, reference in type(config).auto_classes.items()}
    if own_class not in autos:
        raise GPT1Error(
            f"{folder / 'config.json'} names the architecture {own_class}, not one of {', '.join(autos)}: "
            "convert an OpenAIGPT with `gpt1 convert`"
        )
    loaded = open_model(getattr(transformers, autos[own_class]), str(folder), config, dtype="auto", exact=True)
    for name, weight in loaded.named_parameters():
        if not weight.isfinite().all():
            raise GPT1Error(f"the weights {name} in {folder} are not all finite: its training diverged")


__all__ = ["push"]
