"""Opening a data set: from a local copy with the Hub repository's layout, else from the Hub."""

import lzma
import re
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from datasets import (
    Dataset,
    IterableDataset,
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    load_dataset,
)
from datasets.data_files import EmptyDatasetError
from datasets.exceptions import (
    ChecksumVerificationError,
    DataFilesNotFoundError,
    DatasetNotFoundError,
    DatasetsError,
    SplitsVerificationError,
)
from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES
from huggingface_hub.errors import HTTPError

from ..errors import GPT1Error, MissingSplitError
from ..hub_errors import gated, load_failure, no_such_revision, not_found, without_tokens
from ..resources import UNREADABLE


BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}
PARQUET = "refs/convert/parquet"  # revision with the Hub's own Parquet copy of a data set
# Everything that `datasets` and its readers raise for a bad name, network, disk or file: errors of the YAML in a card,
# RuntimeError for scripts and from hf_xet, StopIteration for no rows, and one error for each kind of compressed file.
LOAD_ERRORS = (
    *UNREADABLE,
    OSError,
    HTTPError,
    RuntimeError,
    StopIteration,
    EOFError,
    DatasetsError,
    pa.ArrowException,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
)
_ABOUT_FILES = (DataFilesNotFoundError, EmptyDatasetError, ChecksumVerificationError, SplitsVerificationError)


def local_copy(name: str, data_dir: str | None = None) -> Path | None:
    """`data_dir/name` if it exists; for a Hub id `owner/name`, also `data_dir/name` without the owner."""
    if not data_dir:
        return None
    parts = name.split("/")
    names = (name, parts[1]) if len(parts) == 2 and all(parts) else (name,)  # but not for `texts/`
    return next((Path(data_dir) / own for own in names if (Path(data_dir) / own).exists()), None)


def split_files(folder: Path, split: str, suffixes: Collection[str] = BUILDERS) -> list[Path]:
    """Data files of a split in a folder, such as `train.jsonl` or `train-00000-of-00002.parquet`."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in suffixes and split in (file.stem, file.stem.split("-")[0])
    )


def open_dataset(
    name: str,
    split: str,
    config: str | None = None,
    data_dir: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
) -> Dataset | IterableDataset:
    """
    Open one split of a data set.

    Args:
        name (`str`):
            File, folder, or Hub id; `ID@REVISION` selects a revision.
        split (`str`):
            Split, such as `"train"`; in a folder, the files whose names begin with it.
        config (`str`, *optional*):
            Configuration of the Hub repository; in a local copy, a sub-folder.
        data_dir (`str`, *optional*):
            Folder with local copies laid out as on the Hub, searched first.
        revision (`str`, *optional*):
            Revision of the Hub repository.
        streaming (`bool`, *optional*, defaults to `False`):
            Whether to read row by row instead of memory-mapping the whole split.

    Returns:
        `Dataset`, or `IterableDataset` when streaming.

    Raises:
        MissingSplitError: if a local copy has no file of the split.
        GPT1Error: if there is neither a local copy nor an accessible Hub repository with this name, or its split
        cannot be read; the message says why, and what to do.
    """
    path = local_copy(name, data_dir) or Path(name)
    if path.is_dir() and config is not None and (path / config).is_dir():
        path = path / config
    if path.exists():
        if path.is_file() and path.suffix.lower() not in BUILDERS:
            raise GPT1Error(f"{path} has an unknown format: give a file that ends in {', '.join(BUILDERS)}")
        files = [path] if path.is_file() else split_files(path, split)
        if not files:
            raise MissingSplitError(
                f"{path} has no file of the split {split!r}, such as {split}.parquet or {split}-0000.jsonl"
            )
        source = {
            "path": BUILDERS[files[0].suffix.lower()],
            "data_files": [str(file) for file in files],
            "split": "train",
        }
        if source["path"] == "csv":
            source["keep_default_na"] = False  # "NA", "None" and "null" are text
    else:
        hub_id, _, in_name = name.partition("@")
        # For the name of a format, such as "csv", `datasets` would read all such files in the current folder.
        is_file = Path(name).is_absolute() or Path(name).suffix.lower() in (".txt", *BUILDERS)
        if is_file or hub_id in _PACKAGED_DATASETS_MODULES:
            raise GPT1Error(f"there is no file or folder {name!r}")
        source = {"path": hub_id, "name": config, "split": split, "revision": in_name or revision}
    try:
        return load_dataset(**source, streaming=streaming)
    except LOAD_ERRORS as error:
        if path.exists():
            raise unreadable(f"the split {split!r} of {name!r}", error) from error
        reason, remedy = _not_from_the_hub(error, hub_id, config, split)
        kind = MissingSplitError if "Unknown split" in str(error) else GPT1Error
        raise kind(
            f"cannot load {name!r}: it is not in {data_dir or 'the current folder'}, and {reason}: "
            f"{remedy and remedy + ', or '}give --data_dir (or GPT1_DATA_DIR) a folder with a local copy"
        ) from error


def unreadable(what: str, error: BaseException, fault: str = "it is missing, empty or damaged") -> GPT1Error:
    """The error for a data set that exists but cannot be read."""
    if known := load_failure(error, what, "data set"):
        return GPT1Error(f"cannot read {what}: {': '.join(known)}")
    reason = str(error.__cause__ or error).split("\n")[0] or "no rows"
    return GPT1Error(f"cannot read {what}: {fault} ({reason})")


def _not_from_the_hub(error: BaseException, hub_id: str, config: str | None, split: str) -> tuple[str, str]:
    """Why a data set on the Hub cannot be loaded, and remedies other than a local copy."""
    is_about_files = isinstance(error, _ABOUT_FILES)
    if not is_about_files and (known := load_failure(error, hub_id, "data set")):
        return known
    message = without_tokens(" ".join(str(error.__cause__ or error).split()))[:300] or "no rows"
    if isinstance(error, DatasetNotFoundError):  # it does not always keep its cause
        if message.startswith("Revision "):
            return no_such_revision(hub_id, "data set")
        return gated(hub_id, "data set") if "gated" in message else not_found("data set")
    # With a configuration it is a task's data set, whose revision is fixed, too.
    other = "" if config else f"give another revision, {hub_id}@REVISION"
    if "scripts are no longer supported" in message:
        # The Hub keeps a Parquet copy of most of them, on a separate branch.
        parquet = "" if config else f"use its Parquet copy, {hub_id}@{PARQUET}"
        return "its repository is a script, which `datasets` no longer runs", parquet
    if is_about_files:
        return f"its files on the Hub are not as expected ({type(error).__name__}: {message})", other
    if re.search("[Cc]onfig.*vailable", message):  # none was named, or an unknown one
        names = re.sub(r"[^\[]*\[([^\]]*)\].*", r"\1", message).replace("'", "")
        return f"on the Hub it has the configurations {names}", (
            "" if config else "name one of them (--corpus_config, or `config` in a task's YAML)"
        )
    if "split" in message:
        return f"on the Hub it does not have the split {split!r} ({message})", other
    return f"its data on the Hub is damaged or empty ({message})", other


def evenly_spaced(n_rows: int, n: int | None) -> list[int]:
    """Indices of at most `n` evenly spaced rows. Neighbouring rows of a file often share a subject."""
    if n is not None and n < 1:
        raise GPT1Error(f"max_examples must be at least 1, not {n}")
    n = n_rows if n is None else min(n, n_rows)
    return [index * n_rows // n for index in range(n)]


# Encoding fewer rows is too quick for a progress bar.
MANY_ROWS = 20_000


@contextmanager
def reading_bars(n_rows: int = 0) -> Iterator[None]:
    """Show the progress bars of `datasets` only on a terminal, and only for many rows."""
    are_shown = not are_progress_bars_disabled()
    if are_shown and not (n_rows >= MANY_ROWS and sys.stderr.isatty()):
        disable_progress_bars()
    try:
        yield
    finally:
        if are_shown:
            enable_progress_bars()
