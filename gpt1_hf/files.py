"""Writing files and folders: whole or not at all, with a one-sentence error where they cannot be written."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from safetensors import SafetensorError

from .errors import GPT1Error


def default_folder(command: str, what: str | None, model: str, *parts: str | None) -> str:
    """
    Default `output_dir` of a command. Each combination of command, task and model has its own folder, so that no
    result overwrites another.

    Args:
        command (`str`):
            Name of the command's folder below `runs`.
        what (`str`, *optional*):
            Task or text file.
        model (`str`):
            Folder, Hub id, or embedded model.
        parts (`str`, *optional*):
            Further settings that the results depend on; `None` is skipped.

    Returns:
        `str`: such as `runs/evaluate/cola/gpt1-tiny/test`.
    """
    names = [what, model, *parts] if what else [model, *parts]
    return str(Path("runs", command, *(_folder_name(name) for name in names if name)))


def _folder_name(name: str) -> str:
    """Turn a path or Hub id into a folder name, a different one for each."""
    plain = re.sub(r"[^\w.+=,@-]+", "--", name).strip("-.")[-80:]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}".lstrip("-")


def check_writable(folder: str | Path, size: int = 0):
    """
    Raise if a folder cannot be created, or files cannot be written into it. The folder is not created.

    Args:
        folder (`str` or `Path`):
            The folder.
        size (`int`, *optional*, defaults to 0):
            Bytes that must fit.

    Raises:
        GPT1Error: names the folder and the reason.
    """
    place = Path(folder).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    with writing(folder, "choose another --output_dir"):
        TemporaryFile(dir=place).close()
        free = shutil.disk_usage(place).free
    if free < size:
        raise GPT1Error(
            f"{folder} has {free / 1e6:,.1f} MB of free space, but the trained weights need {size / 1e6:,.1f} MB: "
            "free some space, or choose another --output_dir"
        )


def check_new(folder: str | Path):
    """Raise if a folder exists and is not empty."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise GPT1Error(f"{folder} exists and is not an empty folder: choose another one, or remove it first")


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """
    Like [`replacing`], for a folder that must be new or empty. The block writes into an existing, empty folder.

    Raises:
        GPT1Error: if the folder exists and is not empty, or cannot be written.
    """
    check_new(folder)
    check_writable(Path(folder).parent)
    with replacing(folder) as unfinished:
        unfinished.mkdir()
        yield unfinished


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """
    Yield a temporary path to write a file or a folder to. It replaces `path` when the block ends, so that a reader
    finds the old content or all of the new. If the block raises, the old content stays.

    Args:
        path (`str` or `Path`):
            File or folder to replace or create. Missing parent folders are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    _remove(unfinished)  # left by a process that was killed
    try:
        yield unfinished
        if unfinished.is_dir():
            _remove(path)  # os.replace does not replace a folder that is not empty
        os.replace(unfinished, path)
    finally:
        _remove(unfinished)


def _remove(path: Path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str):
    """Write a text file in one step, see [`replacing`]."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any):
    """Write a JSON file in one step, see [`replacing`]."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def writing(path: str | Path, advice: str = "free some space, or choose another folder") -> Iterator[None]:
    """
    Turn the errors of a failed write (full disk, read-only folder) into one sentence.

    Args:
        path (`str` or `Path`):
            What is being written.
        advice (`str`, *optional*):
            What is left on disk, and what to do.

    Raises:
        GPT1Error: if it could not be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise GPT1Error(f"cannot write {path} ({os.strerror(error.errno)}): {advice}") from error
    except SafetensorError as error:
        raise GPT1Error(f"cannot write {path} ({str(error).split(': ')[-1]}): {advice}") from error
    except RuntimeError as error:
        # torch.save gives no reason; these words name the C++ writer of the file.
        if "inline_container" not in str(error) and "PytorchStreamWriter" not in str(error):
            raise
        raise GPT1Error(f"cannot write {path} (the write was incomplete; is the disk full?): {advice}") from error
    except Exception as error:
        # The library tokenizers raises plain `Exception` for a file that it cannot write.
        if type(error) is not Exception or "(os error " not in str(error):
            raise
        raise GPT1Error(f"cannot write {path} ({str(error).split(' (os error')[0]}): {advice}") from error
