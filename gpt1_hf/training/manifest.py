"""The checkpoints of a run: which of them are complete, and which one training resumes from.

A checkpoint is complete when it has a manifest: a list of its files and their digests, which is written last. A
checkpoint without a manifest, or whose files differ from it, is skipped in favour of the previous one.
"""

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import TrainingArguments

from ..errors import GPT1Error
from ..files import write_json
from .run_folder import Identity, resumes


logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"


def write_manifest(folder: Path, settings: dict[str, Any], has_state: bool):
    """
    List a checkpoint's files once all of them are on disk.

    Args:
        folder (`Path`):
            The checkpoint.
        settings (`dict`):
            Content of the run's [`training_identity`].
        has_state (`bool`):
            Whether training can resume from it.
    """
    files = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST):
        with file.open("rb") as content:
            os.fsync(content.fileno())
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        files[file.relative_to(folder).as_posix()] = {"size": file.stat().st_size, "sha256": digest}
    write_json(folder / MANIFEST, {"has_state": has_state, "settings": settings, "files": files})


def read_manifest(folder: str | Path) -> dict[str, Any] | None:
    """Manifest of a checkpoint, or `None` if it is missing or unreadable."""
    try:
        manifest = json.loads((Path(folder) / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and {"has_state", "settings", "files"} <= manifest.keys() else None


def find_damage(folder: str | Path) -> str | None:
    """The fault of a checkpoint, in a few words; `None` if it is complete."""
    manifest = read_manifest(folder)
    if manifest is None:
        return f"it was not saved completely ({MANIFEST} is missing or unreadable)"
    for name, expected in manifest["files"].items():
        file = Path(folder) / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != expected["size"]:
            return f"{name} has {file.stat().st_size} of {expected['size']} bytes"
        with file.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != expected["sha256"]:
                return f"{name} is damaged (its SHA-256 differs)"
    return None if manifest["has_state"] else "it has weights only (save_only_model)"


def update_of(checkpoint: Path) -> int:
    """Number of updates after which a checkpoint was saved."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def checkpoints(output_dir: str | Path) -> list[Path]:
    """Checkpoints of a run, complete or not, the latest first."""
    found = [path for path in Path(output_dir).glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    return sorted(found, key=update_of, reverse=True)


def remove_checkpoints(output_dir: str | Path):
    """Delete all checkpoints of a run."""
    for checkpoint in checkpoints(output_dir):
        shutil.rmtree(checkpoint)


def last_complete_checkpoint(output_dir: str | Path) -> Path | None:
    """The latest complete checkpoint. Warns about each later one."""
    for checkpoint in checkpoints(output_dir):
        if (wrong := find_damage(checkpoint)) is None:
            return checkpoint
        logger.warning(f"{checkpoint} is skipped: {wrong}")
    return None


def rotate(current: Path, limit: int | None, best: str | None):
    """
    Delete the oldest checkpoints.

    Incomplete checkpoints are deleted first and do not count. So are checkpoints later than the current one,
    which remain if training resumed from an earlier one.

    Args:
        current (`Path`):
            The checkpoint that was just saved. It is complete, and is kept.
        limit (`int`, *optional*):
            How many to keep. Default: all.
        best (`str`, *optional*):
            Another checkpoint to keep.
    """
    if not limit or limit < 1:
        return
    # Compared by name, since the folder may have been moved after the path was recorded.
    keep = {current, current.parent / Path(best).name} if best else {current}
    n_kept = len(keep)
    for checkpoint in checkpoints(current.parent):
        if checkpoint in keep:
            continue
        is_usable = update_of(checkpoint) < update_of(current) and (checkpoint / MANIFEST).is_file()
        if is_usable and n_kept < limit:
            n_kept += 1
        else:
            shutil.rmtree(checkpoint, ignore_errors=True)


def resume_point(args: TrainingArguments, identity: Identity) -> str | None:
    """
    The checkpoint that a run resumes from. Every process must call this; only the main one reads the folder.

    Args:
        args (`TrainingArguments`):
            `resume_from_checkpoint` is a checkpoint, or `true` for the last complete one in `output_dir`, if any.
            Without it, or with `false`, training starts from the beginning.
        identity ([`Identity`]):
            Identity of the run's training.

    Raises:
        GPT1Error: if the checkpoint belongs to a run with different settings, if a named checkpoint is incomplete, or
            if training should start from the beginning in a folder that contains checkpoints.
    """
    found = [find_resume_point(args, identity) if args.process_index == 0 else None]
    return broadcast_object_list(found)[0] if args.world_size > 1 else found[0]


def find_resume_point(args: TrainingArguments, identity: Identity) -> str | None:
    """See [`resume_point`]."""
    wanted = args.resume_from_checkpoint
    if str(wanted).lower() == "none":
        return None
    if str(wanted).lower() == "false":
        if found := checkpoints(args.output_dir):
            raise GPT1Error(
                f"resume_from_checkpoint is false, but {found[0]} belongs to an earlier run: delete its checkpoints, "
                "or use another --output_dir"
            )
        return None
    if resumes(args):
        checkpoint = last_complete_checkpoint(args.output_dir)
        if checkpoint is None:
            return None
    else:
        checkpoint = Path(wanted)
        if not checkpoint.is_dir():
            raise GPT1Error(f"resume_from_checkpoint: there is no checkpoint {wanted}")
        if not (checkpoint / MANIFEST).is_file():
            logger.warning(f"{wanted} has no {MANIFEST}: it may be damaged, or belong to another run")
            return str(wanted)
        if wrong := find_damage(checkpoint):
            raise GPT1Error(f"training cannot resume from {wanted}: {wrong}")
    identity.check(read_manifest(checkpoint)["settings"], checkpoint)
    return str(checkpoint)
