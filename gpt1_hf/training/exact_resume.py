"""Checkpoints to rely on: which one is whole, whether it is of this run, and where a run goes on.

A checkpoint is whole when it has a list of its files with their digests, which is written last. Until then, and when a
file is not what the list says, it is passed over for the one before.
"""

import functools
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout
from transformers import PreTrainedTokenizerBase, TrainingArguments

from ..console import note
from ..data.token_stream import TokenStream
from ..errors import GPT1Error
from ..files import check_writable, write_json


logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"  # in every checkpoint, written last: its files and the settings it was trained with
TRAINED = "trained.json"  # in the output folder of a run whose model is saved, until all that follows is done
RUN = "run.json"  # in the output folder of a finished run, written last: its settings
LOCK = "run.lock"  # in the output folder of every run, locked as long as the run lasts
# Seconds to wait for a lock: a killed run's data loaders, which have inherited it, notice within five.
PATIENCE = 10

# Settings that may change between two sittings of one run: where things are, what is shown, measured and kept, and how
# the work is spread. Everything else changes what is learnt. (Of corpus and tokenizer the content is compared.)
FREE = re.compile(
    "corpus.*|validation_corpus|data_dir|tokens_dir|tokenizer|output_dir|seeds|save_.*|checkpoints_per_decade|eval_.*|"
    "do_(train|eval|predict)|per_device_.*|gradient_accumulation_steps|batch_eval_metrics|(bf|fp)16_full_eval|"
    "prediction_loss_only|include_.*|skip_memory_metrics|load_best_model_at_end|metric_for_best_model|"
    "greater_is_better|log.*|disable_tqdm|report_to|run_name|project|trackio_.*|hub_.*|push_to_hub|debug|local_rank|"
    "resume_from_checkpoint|restore_callback_states.*|enable_jit_checkpoint|dataloader_(?!drop_last).*|use_c.*|tf32|"
    "torch_.*|(use_)?liger_.*|(gradient|activation)_checkpointing.*|deepspeed|fsdp.*|ddp_.*|parallelism_config|"
    "accelerator_config|auto_find_batch_size"
)


def run_settings(args: TrainingArguments, passed_over: re.Pattern, **more: Any) -> dict[str, Any]:
    """The settings of a run but those whose names match, and others, as JSON has them."""
    kept = {name: value for name, value in args.to_dict().items() if not passed_over.fullmatch(name)}
    return json.loads(json.dumps({**kept, **more}, default=str))


def changed_settings(settings: dict[str, Any], earlier: dict[str, Any]) -> list[str]:
    """Names of the settings that differ, or that only one of two runs has."""
    return [name for name in {**settings, **earlier} if settings.get(name) != earlier.get(name)]


def training_settings(args: TrainingArguments) -> dict[str, Any]:
    """The settings of a run that decide what is learnt."""
    rows_per_update = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return run_settings(args, FREE, **{"rows per update": rows_per_update})


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Digest of a tokenizer's whole definition."""
    definition = tokenizer.backend_tokenizer.to_str() + ("fix_text" if getattr(tokenizer, "fix_text", False) else "")
    return hashlib.sha256(definition.encode()).hexdigest()[:16]


def stream_digest(stream: TokenStream) -> str:
    """Digest of a token stream: its tokens and where its documents end, wherever its text came from."""
    digest = hashlib.sha256(stream.tokens)
    digest.update(json.dumps(stream.document_ends).encode())
    return digest.hexdigest()[:16]


def check_settings(settings: dict[str, Any], earlier: dict[str, Any], where: str | Path):
    """
    Refuse to go on with another run's checkpoint.

    Raises:
        GPT1Error: if a setting that both name differs.
    """
    changed = [name for name in changed_settings(settings, earlier) if name in settings and name in earlier]
    if changed:
        differences = ", ".join(f"{name} was {earlier[name]} and is {settings[name]} now" for name in changed[:4])
        raise GPT1Error(
            f"{where} is of a run with other settings ({differences}): give it the same ones, or another --output_dir"
        )


@contextmanager
def hold(folder: str | Path, name: str = LOCK) -> Iterator[None]:
    """
    Keep an output folder to oneself. The system lets go of it when the process ends, however it ends.

    Args:
        folder (`str` or `Path`):
            Folder; it is made if it is not there.
        name (`str`, *optional*, defaults to `"run.lock"`):
            Name of the file that is locked.

    Raises:
        GPT1Error: if another process holds it, or it cannot be written.
    """
    check_writable(folder)
    os.makedirs(folder, exist_ok=True)
    lock = FileLock(Path(folder) / name, timeout=PATIENCE)
    try:
        lock.acquire()
    except Timeout as error:
        raise GPT1Error(
            f"another process is at work in {folder}: wait until it has ended, or give another --output_dir"
        ) from error
    try:
        yield
    finally:
        lock.release()


def alone(run: Callable) -> Callable:
    """Decorator of a function of settings, for one run at a time in their `output_dir`. One process locks for all."""

    @functools.wraps(run)
    def locked(args: TrainingArguments, *more, **named):
        if args.process_index:
            return run(args, *more, **named)
        with hold(args.output_dir):
            return run(args, *more, **named)

    return locked


def note_trained(args: TrainingArguments, settings: dict[str, Any], found: dict[str, Any]):
    """Note in a run's folder, whose model is saved, with what settings it was trained, and what training found."""
    write_json(Path(args.output_dir) / TRAINED, {"settings": settings, "found": found})


def found_in_training(args: TrainingArguments, settings: dict[str, Any]) -> dict[str, Any] | None:
    """
    What the training of a run found whose model is saved, but that ended before its scores, card and push were done;
    `None` if there is something to train. Every process has to call this; one looks, for all.
    """
    file, found = Path(args.output_dir) / TRAINED, None
    if args.process_index == 0 and file.is_file() and str(args.resume_from_checkpoint).lower() in ("none", "true"):
        trained = json.loads(file.read_text(encoding="utf-8"))
        if not changed_settings(settings, trained["settings"]):
            found = trained["found"]
            note(f"the model in {args.output_dir} is trained already; it is scored")
    return broadcast_object_list([found])[0] if args.world_size > 1 else found


def forget_trained(args: TrainingArguments):
    """All of a run is done, or its training begins anew."""
    if args.process_index == 0:
        (Path(args.output_dir) / TRAINED).unlink(missing_ok=True)


def what_is_saved(args: TrainingArguments) -> str:
    """What to say when a run ends after its training."""
    return f"the model is saved in {args.output_dir}, and the same command scores it"


def how_to_go_on(args: TrainingArguments) -> str:
    """The command that takes up a run's last checkpoint."""
    is_asked = str(args.resume_from_checkpoint).lower() == "true"
    return "the same command" if is_asked else "the same command with --resume_from_checkpoint true"


def write_manifest(folder: Path, settings: dict[str, Any], has_state: bool):
    """List a checkpoint's files, once all are on the disk; `has_state`: whether training can go on from it."""
    files = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST):
        with file.open("rb") as content:
            os.fsync(content.fileno())
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        files[file.relative_to(folder).as_posix()] = {"size": file.stat().st_size, "sha256": digest}
    write_json(folder / MANIFEST, {"has_state": has_state, "settings": settings, "files": files})


def read_manifest(folder: str | Path) -> dict[str, Any] | None:
    """Manifest of a checkpoint, or `None` where there is none that can be read."""
    try:
        manifest = json.loads((Path(folder) / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and {"has_state", "settings", "files"} <= manifest.keys() else None


def damage(folder: str | Path) -> str | None:
    """What is wrong with a checkpoint, in a few words; `None` if it is whole."""
    manifest = read_manifest(folder)
    if manifest is None:
        return f"its saving was not finished (there is no {MANIFEST} that can be read)"
    for name, expected in manifest["files"].items():
        file = Path(folder) / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != expected["size"]:
            return f"{name} has {file.stat().st_size} of {expected['size']} bytes"
        with file.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != expected["sha256"]:
                return f"{name} is damaged (its SHA-256 is another)"
    return None if manifest["has_state"] else "it has weights only (save_only_model)"


def checkpoints(output_dir: str | Path) -> list[Path]:
    """Checkpoints of a run, whole or not, the latest first."""
    found = [path for path in Path(output_dir).glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    return sorted(found, key=update_of, reverse=True)


def remove_checkpoints(output_dir: str | Path):
    """Delete all checkpoints of a run."""
    for checkpoint in checkpoints(output_dir):
        shutil.rmtree(checkpoint)


def update_of(checkpoint: Path) -> int:
    """Number of updates after which a checkpoint was saved."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def last_whole_checkpoint(output_dir: str | Path) -> Path | None:
    """The latest checkpoint that is whole; warns of each one after it."""
    for checkpoint in checkpoints(output_dir):
        wrong = damage(checkpoint)
        if wrong is None:
            return checkpoint
        logger.warning(f"{checkpoint} is passed over: {wrong}")
    return None


def rotate(current: Path, limit: int | None, best: str | None):
    """
    Delete the oldest checkpoints beside one that was just saved, which stays.

    What is not whole, or of later updates than the current one (it was passed over, or the run was sent back), goes
    first and does not count.

    Args:
        current (`Path`):
            The checkpoint that was just saved, and is whole.
        limit (`int`, *optional*):
            How many to keep; all, if there is no limit.
        best (`str`, *optional*):
            Another one that stays.
    """
    if not limit or limit < 1:
        return
    # By its name: the path is the one that output_dir had when it was noted.
    stays = {current, current.parent / Path(best).name} if best else {current}
    kept = len(stays)
    for checkpoint in checkpoints(current.parent):
        if checkpoint in stays:
            continue
        usable = update_of(checkpoint) < update_of(current) and (checkpoint / MANIFEST).is_file()
        if usable and kept < limit:
            kept += 1
        else:
            shutil.rmtree(checkpoint, ignore_errors=True)


def resume_point(args: TrainingArguments, settings: dict[str, Any] | None = None) -> str | None:
    """
    The checkpoint that a run goes on from. Every process has to call this; one looks, for all.

    Args:
        args (`TrainingArguments`):
            `resume_from_checkpoint` is a checkpoint, or `true` for the last whole one in `output_dir`, if there is
            one; without it, or with `false`, training begins anew.
        settings (`dict`, *optional*):
            Settings of the run; defaults to its [`training_settings`].

    Raises:
        GPT1Error: if the checkpoint is of other settings, if one that is named is not whole, or if training is to
        begin anew among the checkpoints of an earlier run.
    """
    found = [find_resume_point(args, settings or training_settings(args)) if args.process_index == 0 else None]
    return broadcast_object_list(found)[0] if args.world_size > 1 else found[0]


def find_resume_point(args: TrainingArguments, settings: dict[str, Any]) -> str | None:
    """See [`resume_point`]."""
    wish = args.resume_from_checkpoint
    choice = str(wish).lower()
    if choice == "none":
        return None
    if choice == "false":
        if found := checkpoints(args.output_dir):
            raise GPT1Error(
                f"training is to begin anew (resume_from_checkpoint: false), but {found[0]} is of an earlier run: "
                "delete the checkpoints there, or give another --output_dir"
            )
        return None
    if choice == "true":
        checkpoint = last_whole_checkpoint(args.output_dir)
        if checkpoint is None:
            return None
    else:
        checkpoint = Path(wish)
        if not checkpoint.is_dir():
            raise GPT1Error(f"there is no checkpoint {wish} (resume_from_checkpoint)")
        if not (checkpoint / MANIFEST).is_file():
            logger.warning(f"{wish} has no {MANIFEST}: whether it is whole, and of this run, cannot be told")
            return str(wish)
        if wrong := damage(checkpoint):
            raise GPT1Error(f"training cannot go on from {wish}: {wrong}")
    check_settings(settings, read_manifest(checkpoint)["settings"], checkpoint)
    return str(checkpoint)
