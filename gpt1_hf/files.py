"""Writing files and folders: whole or not at all, with one sentence where they cannot be written."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from safetensors import SafetensorError

from .errors import GPT1Error


def default_folder(command: str, what: str | None, model: str, *parts: str | None) -> str:
    """
    Where a command's results go unless it is told: a folder for each thing that is measured, so that no result takes
    the place of another's.

    Args:
        command (`str`):
            Name of the command's folder below `runs`.
        what (`str`, *optional*):
            Task, or text.
        model (`str`):
            Folder, Hub id, or embedded model.
        parts (`str`, *optional*):
            What else tells results apart; `None` is left out.

    Returns:
        `str`: such as `runs/evaluate/cola/gpt1-tiny/test`.
    """
    names = [what, model, *parts] if what else [model, *parts]
    return str(Path("runs", command, *(_folder_name(name) for name in names if name)))


def _folder_name(name: str) -> str:
    """A path or Hub id as the name of one folder, another for each."""
    plain = re.sub(r"[^\w.+=,@-]+", "--", name).strip("-.")[-80:]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}".lstrip("-")


def check_writable(folder: str | Path, size: int = 0):
    """
    See that files can be written into a folder, or, if it is not there yet, where it would be made. It is not made.

    Args:
        folder (`str` or `Path`):
            The folder.
        size (`int`, *optional*, defaults to 0):
            Bytes that have to fit into it.

    Raises:
        GPT1Error: if not.
    """
    place = Path(folder).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    with writing(folder, "give another --output_dir"):
        TemporaryFile(dir=place).close()
        free = shutil.disk_usage(place).free
    if free < size:
        raise GPT1Error(
            f"{folder} has room for {free / 1e6:,.1f} MB, and the trained weights take {size / 1e6:,.1f} MB: make "
            "room, or give another --output_dir"
        )


def check_new(folder: str | Path):
    """Raise if a folder is there already and holds something."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise GPT1Error(f"{folder} exists and is not an empty folder: give another one, or remove it first")


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """
    A folder to write into, which takes its place when the block ends; if it ends in an error, nothing is left.

    Args:
        folder (`str` or `Path`):
            Folder to make, new or empty.

    Raises:
        GPT1Error: if it is there already and holds something.
    """
    output = Path(folder)
    check_new(output)
    check_writable(output.parent)
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as workplace:
        unfinished = Path(workplace) / output.name
        unfinished.mkdir()  # with the usual permissions, unlike the folder around it
        yield unfinished
        if output.exists():
            output.rmdir()  # not everywhere does one folder take the place of another
        unfinished.rename(output)


@contextmanager
def writing(path: str | Path, consequence: str = "make room, or choose another folder") -> Iterator[None]:
    """
    Turn what is raised where a file cannot be written (full disk, read-only folder) into one sentence.

    Args:
        path (`str` or `Path`):
            What is being written.
        consequence (`str`, *optional*):
            What is left, and what to do.

    Raises:
        GPT1Error: if it could not be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise GPT1Error(f"cannot write {path} ({os.strerror(error.errno)}): {consequence}") from error
    except SafetensorError as error:
        raise GPT1Error(f"cannot write {path} ({str(error).split(': ')[-1]}): {consequence}") from error
    except RuntimeError as error:
        # torch.save does not say why; this is its C++ writer's file, in the message of a write that was cut short.
        if "inline_container" not in str(error) and "PytorchStreamWriter" not in str(error):
            raise
        raise GPT1Error(f"cannot write {path} (a write was cut short; is the disk full?): {consequence}") from error
    except Exception as error:
        # The library tokenizers has no type of its own for a file that it cannot write.
        if type(error) is not Exception or "(os error " not in str(error):
            raise
        raise GPT1Error(f"cannot write {path} ({str(error).split(' (os error')[0]}): {consequence}") from error


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """
    A path to write a file or a folder to. It takes the place of `path` when the block ends, so that a reader finds the
    old one or the whole new one; if the block ends in an error, the old one stays.

    Args:
        path (`str` or `Path`):
            File or folder to replace, or to make. Its parent folder is made where it is missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    _remove(unfinished)
    try:
        yield unfinished
        if unfinished.is_dir():  # which cannot replace a folder that holds something
            _remove(path)
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
    """Write JSON in one step, see [`replacing`]."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
