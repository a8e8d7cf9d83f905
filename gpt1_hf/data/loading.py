"""Opening a data set: a local copy laid out as the Hub repository first, then the Hub."""

import os
from pathlib import Path

from datasets import Dataset, IterableDataset, load_dataset
from datasets.exceptions import DatasetGenerationError
from huggingface_hub.errors import HfHubHTTPError

from ..errors import GPT1Error, MissingSplitError


BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}


def default_data_dir() -> str | None:
    """Folder of local copies, from the environment variable `GPT1_DATA_DIR`."""
    return os.environ.get("GPT1_DATA_DIR") or None


def local_copy(name: str, data_dir: str | None = None) -> Path | None:
    """`data_dir/name`, if there is such a file or folder; of a Hub id, also one without the owner's name."""
    if not data_dir:
        return None
    parts = name.split("/")
    names = (name, parts[1]) if len(parts) == 2 and all(parts) else (name,)  # not of the folder `texts/`
    return next((Path(data_dir) / own for own in names if (Path(data_dir) / own).exists()), None)


def split_files(folder: Path, split: str) -> list[Path]:
    """Data files of a split in a folder, by name: `train.jsonl`, `train-00000-of-00002.parquet`."""
    return sorted(
        file for file in folder.iterdir() if file.suffix in BUILDERS and split in (file.stem, file.stem.split("-")[0])
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
            File, folder, or Hub id.
        split (`str`):
            Split, such as `"train"`; in a folder it is the files whose names begin with it.
        config (`str`, *optional*):
            Configuration of the Hub repository, which is the sub-folder of a local copy.
        data_dir (`str`, *optional*):
            Folder with local copies laid out as on the Hub, searched before it.
        revision (`str`, *optional*):
            Revision of the Hub repository.
        streaming (`bool`, *optional*, defaults to `False`):
            Whether to read as one goes instead of mapping the whole split.

    Returns:
        `Dataset`, or `IterableDataset` when streaming.

    Raises:
        MissingSplitError: if a local copy has no file of the split.
        GPT1Error: if there is neither a local copy nor a reachable Hub repository of that name, or the split in it
        cannot be read.
    """
    path = local_copy(name, data_dir) or Path(name)
    if path.is_dir() and config is not None and (path / config).is_dir():
        path = path / config
    if path.exists():
        if path.is_file() and path.suffix not in BUILDERS:
            raise GPT1Error(f"{path} is of no known format; give a file that ends in {', '.join(BUILDERS)}")
        files = [path] if path.is_file() else split_files(path, split)
        if not files:
            raise MissingSplitError(
                f"{path} has no file of the split {split!r}, such as {split}.parquet or {split}-0000.jsonl"
            )
        source = {"path": BUILDERS[files[0].suffix], "data_files": [str(file) for file in files], "split": "train"}
        if source["path"] == "csv":
            source["keep_default_na"] = False  # "NA", "None" and "null" are words
    else:
        source = {"path": name, "name": config, "split": split, "revision": revision}
    try:
        return load_dataset(**source, streaming=streaming)
    except (OSError, HfHubHTTPError) as error:  # not found here, not found there, or no way there
        if Path(name).is_absolute() or Path(name).suffix in (".txt", *BUILDERS):
            raise GPT1Error(f"there is no file or folder {name!r}") from error
        raise GPT1Error(
            f"cannot load {name!r}: it is not in {data_dir or 'the current folder'}, and the Hub did not give it "
            f"({type(error).__name__}); give --data_dir (or GPT1_DATA_DIR) a folder with a local copy, or check the "
            "name and the network"
        ) from error
    except (StopIteration, ValueError, DatasetGenerationError) as error:  # what the readers make of an odd file
        reason = str(error.__cause__ or error).split("\n")[0] or "no rows"
        raise GPT1Error(
            f"cannot read the split {split!r} of {name!r}: it is missing, empty or damaged ({reason})"
        ) from error
