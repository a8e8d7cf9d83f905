"""Pushing a saved model: it is completed and tried out here, so that what arrives on the Hub loads there."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import transformers

from ..checkpoints import open_config, open_model, open_tokenizer
from ..errors import GPT1Error
from ..resources import model_path
from ..training.card import write_plain_card
from ..upload import CARD, Upload, check_repo_name, is_complete, model_files, read_json, upload


def push(
    model: str,
    repo: str,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    include: Sequence[str] = (),
) -> Upload:
    """
    Push a saved model to the Hub: weights, configuration, tokenizer, processor, the code that `trust_remote_code=True`
    reads, and the model card; nothing else of its folder.

    Before anything is sent, the model is loaded as a reader would. A folder without the code gets this package's, and
    one without a card a short one; the folder itself is not changed. The token is that of `HF_TOKEN` or of
    `hf auth login`.

    Args:
        model (`str`):
            Folder of a saved model, or `gpt1-tiny`.
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

    Returns:
        [`Upload`].

    Raises:
        GPT1Error: if the model is not whole or does not load, or the Hub cannot be reached or refuses; nothing has
        changed there then.
    """
    check_repo_name(repo)
    folder = Path(model_path(model))
    if not folder.is_dir():
        raise GPT1Error(f"there is no folder {model!r}: give the folder of a saved model, or gpt1-tiny")
    read_json(folder / "config.json")
    with tempfile.TemporaryDirectory() as temporary:
        if not (is_complete(folder) and (folder / CARD).is_file()):
            folder = completed(folder, Path(temporary) / folder.resolve().name, include)
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


def check_loads(folder: Path):
    """Raise if a folder's model and tokenizer do not load, or do not belong together."""
    config, tokenizer = open_config(str(folder)), open_tokenizer(str(folder))
    if len(tokenizer) > config.vocab_size:
        raise GPT1Error(
            f"the tokenizer in {folder} has {len(tokenizer)} tokens, but the model only {config.vocab_size}: the two "
            "do not belong together"
        )
    own_class = (config.architectures or [None])[0]
    autos = {model_class.__name__: auto for auto, model_class in type(config).auto_classes().items()}
    if own_class not in autos:
        raise GPT1Error(
            f"{folder / 'config.json'} names the architecture {own_class}, which is none of {', '.join(autos)}"
        )
    loaded = open_model(getattr(transformers, autos[own_class]), str(folder), config, dtype="auto", exact=True)
    for name, weight in loaded.named_parameters():
        if not weight.isfinite().all():
            raise GPT1Error(f"the weights {name} in {folder} are not all finite: the training of this model diverged")


__all__ = ["push"]
