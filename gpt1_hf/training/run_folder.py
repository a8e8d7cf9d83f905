"""Fine-tuning runs that have finished: what they were made with, so that the same one is not done twice."""

import hashlib
import json
import logging
import re
from pathlib import Path
from typing import Any

from ..data.loading import BUILDERS, local_copy
from ..evaluation.results import Result
from ..resources import model_path
from ..tasks import Task
from .arguments import FinetuneArguments
from .resume import changed_settings, run_settings


logger = logging.getLogger(__name__)

# What a finished run was made with, beside its results.
SETTINGS_FILE = "settings.json"
# Settings that say nothing of what a run finds: where it writes, what it shows, and which others go with it.
NEUTRAL_SETTINGS = re.compile(
    "disable_tqdm|local_rank|log_.*|logging_.*|output_dir|project|push_to_hub|hub_.*|report_to|resume_from_checkpoint|"
    "run_name|save_only_model|save_total_limit|seeds|trackio_.*|dataloader_(?!drop_last).*"
)


def settings(args: FinetuneArguments, task: Task) -> dict[str, Any]:
    """What a run is made with, as JSON has it, so that a later one can tell whether it would be the same."""
    more = {"world_size": args.world_size, "task_version": task.version, "data": data_digest(args, task)}
    return run_settings(args, NEUTRAL_SETTINGS, weights=weights_digest(args.model), **more)


def weights_digest(model: str) -> str | None:
    """Digest of the weights of a model in a folder, which may be trained again; `None` of a Hub id."""
    files = sorted(Path(model_path(model)).glob("*.safetensors"))
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16] if files else None


def data_digest(args: FinetuneArguments, task: Task) -> str | None:
    """Digest of a task's files in a local copy; `None` of the Hub's, which have a fixed revision, and the sample."""
    folder = None if args.sample else local_copy(task.dataset, args.data_dir)
    if folder is None:
        return None
    if task.config and (folder / task.config).is_dir():
        folder = folder / task.config
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in BUILDERS):
        digest.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def finished_results(args: FinetuneArguments, task: Task) -> list[Result] | None:
    """The results of a run that has finished in `output_dir` with the same settings, if there is one."""
    folder = Path(args.output_dir)
    if not (folder / "results.json").is_file() or not (folder / SETTINGS_FILE).is_file():
        return None
    before, now = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8")), settings(args, task)
    for name in ("data", "weights"):
        if now[name] is None or name not in before:  # it is not there to compare with, or was not noted
            before[name] = now[name]
    changed = sorted(changed_settings(now, before))
    if changed:
        logger.warning(f"{folder} holds a run with other settings ({', '.join(changed)}): it is made anew")
        return None
    return [Result(**row) for row in json.loads((folder / "results.json").read_text(encoding="utf-8"))]
