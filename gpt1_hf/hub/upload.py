"""Which files of a model's folder go to the Hub, and uploading them in one commit."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id
from transformers.dynamic_module_utils import get_relative_import_files
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME as WEIGHTS_INDEX
from transformers.utils import SAFE_WEIGHTS_NAME as WEIGHTS
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME as ADAPTER_CONFIG
from transformers.utils.peft_utils import ADAPTER_SAFE_WEIGHTS_NAME as ADAPTER_WEIGHTS

from ..configuration_gpt1 import GPT1Config
from ..configuration_gpt1_lstm import GPT1LSTMConfig
from ..errors import GPT1Error
from ..hub_errors import without_tokens
from ..processing_gpt1 import LOCATION


CARD = "README.md"
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
# Files besides weights and code. Other files are sent only if they are named.
NEEDED = ("config.json", "tokenizer.json", "tokenizer_config.json")
OPTIONAL = ("generation_config.json", "processor_config.json", CARD)
# Files of earlier pushes, by any library, that `from_pretrained` would still read.
OUTDATED = ("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "adapter_model.bin")
# Pickled formats: reading such a file can run arbitrary code.
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
# In a card's code, they begin the paths of the model and of an adapter's base model. A push inserts the repositories.
PLACEHOLDER, BASE_PLACEHOLDER = "path/to/", "folder/of/"


@dataclass
class Upload:
    """Result of [`upload`]."""

    repo: str  # full name
    url: str
    commit: str  # id of the branch's last commit
    files: list[str]  # sent, or unchanged in the repository
    changed: bool  # whether there was anything new


def is_repo_name(name: str) -> bool:
    """Whether a name is valid for a repository on the Hub."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def check_repo_name(repo: str):
    """Raise if a name is not valid for a repository."""
    if not is_repo_name(repo):
        raise GPT1Error(
            f"{repo!r} is not a valid repository name: give `name` or `owner/name`, with letters, digits and single "
            "`-`, `_` or `.` between them, at most 96 characters"
        )


def has_code(folder: Path) -> bool:
    """Whether a folder contains the code that its `auto_map` names, for `trust_remote_code=True`."""
    auto_map = read_json(folder / "config.json").get("auto_map") or {}
    return bool(auto_map) and all(
        isinstance(name, str) and (folder / f"{name.split('.')[0]}.py").is_file() for name in auto_map.values()
    )


def model_files(folder: str | Path) -> dict[str, Path]:
    """
    Files that a push sends: weights (of the model or adapter), configuration, tokenizer, processor, code and card.

    Args:
        folder (`str` or `Path`):
            Folder of a saved model or adapter.

    Returns:
        `dict`: name in the repository -> file.

    Raises:
        GPT1Error: if the folder does not exist, or a file that loading needs is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise GPT1Error(f"there is no folder {str(folder)!r}: give the folder of a saved model, or gpt1-tiny")
    config = read_json(folder / "config.json")
    own = (GPT1Config.model_type, GPT1LSTMConfig.model_type)
    if config.get("model_type") not in own:
        raise GPT1Error(
            f"{folder} holds a `{config.get('model_type')}` model, but only {' and '.join(own)} models can be pushed: "
            "convert an OpenAIGPT with `gpt1 convert`"
        )
    if (folder / ADAPTER_CONFIG).is_file():
        check_base(str(folder), read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path"))
        weights = [ADAPTER_CONFIG, ADAPTER_WEIGHTS]
    elif (folder / WEIGHTS_INDEX).is_file() and not (folder / WEIGHTS).is_file():
        weights = [
            WEIGHTS_INDEX,
            *sorted(set(read_json(folder / WEIGHTS_INDEX).get("weight_map", {}).values())),
        ]
        for name in weights[1:]:
            if not SHARD.fullmatch(str(name)):
                raise GPT1Error(
                    f"{folder / WEIGHTS_INDEX} names {name!r}, which is not a weights file: save the model again"
                )
    else:
        weights = [WEIGHTS]
    names = [*NEEDED, *weights]
    for name in names:
        if not (folder / name).is_file():
            hint = "save the tokenizer there too" if name.startswith("tokenizer") else "save the model again"
            raise GPT1Error(f"{folder} has no {name}: {hint}, with save_pretrained")
    names += [name for name in OPTIONAL if (folder / name).is_file()]
    return {name: folder / name for name in [*names, *code_files(folder, config)]}


def check_base(adapter: str, base: str | None):
    """Raise if the base model of an adapter is not on the Hub, so that nobody else could load the adapter."""
    if not base or Path(base).exists() or not is_repo_name(base):
        raise GPT1Error(
            f"{adapter} is an adapter of the model {base!r}, which is not a Hub id, so nobody else could load it: "
            "push that model first, then push the adapter with `gpt1 push --base_model` and the model's repository"
        )


def code_files(folder: Path, config: dict) -> list[str]:
    """Names of the Python files that `config.json` refers to, and of those that they import."""
    auto_map = config.get("auto_map") or {}
    if not auto_map:
        raise GPT1Error(
            f"{folder / 'config.json'} has no auto_map, which says where the code is: save the model again"
        )
    found = set()
    for reference in auto_map.values():
        module = str(reference).split(".")[0]
        if not module.isidentifier():
            raise GPT1Error(
                f"{folder / 'config.json'} has the invalid auto_map entry {reference!r}: save the model again"
            )
        source = folder / f"{module}.py"
        if not source.is_file():
            raise GPT1Error(f"{folder} has no {source.name}, which its auto_map names: save the model again")
        found |= {source.name, *(Path(file).name for file in get_relative_import_files(source))}
    return sorted(found)


def upload(
    folder: str | Path,
    repo: str,
    message: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    token: str | None = None,
    include: Sequence[str] = (),
) -> Upload:
    """
    Upload the files of [`model_files`] in one commit, so that readers see the old model or the complete new one.

    A missing repository or branch is created. Weights of an earlier push that the new one lacks are deleted, since
    `from_pretrained` might prefer them. Other files of the repository stay. After a broken connection, large files
    that have arrived are not sent again.

    Args:
        folder (`str` or `Path`):
            Folder of a saved model.
        repo (`str`):
            `owner/name`, or `name` for a repository of your own.
        message (`str`, *optional*):
            Message of the commit.
        private (`bool`, *optional*):
            Whether to create the repository as private. If set, an existing public one is an error.
        revision (`str`, *optional*):
            Branch; defaults to `main`.
        token (`str`, *optional*):
            Access token; defaults to the one in `HF_TOKEN` or from `hf auth login`.
        include (list of `str`, *optional*):
            Names of further files of the folder to send.

    Returns:
        [`Upload`].

    Raises:
        GPT1Error: if the folder is incomplete, or the Hub cannot be reached or refuses. In that case, the
        repository's content is unchanged.
    """
    check_repo_name(repo)
    folder = Path(folder)
    files = model_files(folder) | named_files(folder, include)
    if not (token or get_token()):
        raise GPT1Error(
            "you are not logged in to the Hub: run `hf auth login`, or set HF_TOKEN to a token with write access"
        )
    api = HfApi(token=token)
    with explained(repo, "nothing was sent"):
        repo = api.create_repo(repo, private=private, exist_ok=True).repo_id
    with explained(repo, "nothing was published; run the same command again to send the rest"):
        if private and not api.model_info(repo).private:
            raise GPT1Error(
                f"{repo} exists and is public: make it private in its settings on the Hub, or choose another name"
            )
        if revision and revision != "main" and not revision.startswith("refs/"):
            api.create_branch(repo, branch=revision, exist_ok=True)
        before = api.model_info(repo, revision=revision).sha
        stale = [
            name for name in api.list_repo_files(repo, revision=revision) if is_pushed_file(name) and name not in files
        ]
        done = api.create_commit(
            repo,
            [CommitOperationDelete(name) for name in stale]
            + [CommitOperationAdd(name, content_for(name, path, repo)) for name, path in files.items()],
            commit_message=message or f"Upload {config_name(folder)} with gpt1_hf",
            revision=revision,
        )
    url = f"{api.endpoint}/{repo}" + (f"/tree/{revision}" if revision else "")
    return Upload(repo, url, done.oid, sorted(files), changed=done.oid != before)


def is_pushed_file(name: str) -> bool:
    """Whether a file of a repository is one that a push writes, or that `from_pretrained` might read instead."""
    weights = (WEIGHTS, WEIGHTS_INDEX, ADAPTER_CONFIG, ADAPTER_WEIGHTS)
    return name in (*weights, *OPTIONAL[:-1], *OUTDATED) or bool(SHARD.fullmatch(name))


def named_files(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Further files of a folder. Files elsewhere and pickles are refused."""
    for name in names:
        if PurePath(name).name != name or not (folder / name).is_file():
            raise GPT1Error(f"there is no file {name!r} in {folder}: name files directly in that folder")
        if name.endswith(PICKLES):
            raise GPT1Error(f"{name} is not sent: reading such a file can run arbitrary code; use safetensors")
    return {name: folder / name for name in names}


def content_for(name: str, path: Path, repo: str) -> Path | bytes:
    """What to send: the file itself, or its content where that depends on the folder."""
    if name == CARD:
        return card_for(path, repo)
    if name == "tokenizer_config.json" and (config := read_json(path)).keys() & set(LOCATION):
        kept = {key: value for key, value in config.items() if key not in LOCATION}
        return (json.dumps(kept, indent=2, ensure_ascii=False) + "\n").encode()
    return path


def card_for(path: Path, repo: str) -> bytes:
    """The card with the repository in its code, in place of the model's folder."""
    return with_repo(path.read_text(encoding="utf-8"), PLACEHOLDER, repo).encode()


def with_repo(card: str, placeholder: str, repo: str) -> str:
    """A card with the repository in its code, in place of strings that begin with a placeholder."""
    return re.sub(rf'"{re.escape(placeholder)}(?:[^"\\\n]|\\.)*"', f'"{repo}"', card)


def config_name(folder: Path) -> str:
    """Class of the model in a folder."""
    return (read_json(folder / "config.json").get("architectures") or ["a model"])[0]


def read_json(path: Path) -> dict:
    """
    Read a JSON object from a file of a saved model.

    Raises:
        GPT1Error: if the file is missing, or is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GPT1Error(f"{path.parent} has no {path.name}: save the model there with save_pretrained") from error
    except ValueError as error:
        raise GPT1Error(f"{path} is not JSON ({error}): save the model again") from error
    if not isinstance(content, dict):
        raise GPT1Error(f"{path} does not hold a JSON object: save the model again")
    return content


@contextmanager
def explained(repo: str, consequence: str) -> Iterator[None]:
    """Turn errors of the Hub's client into one sentence that includes the consequence for the caller."""
    endpoint = HfApi().endpoint
    try:
        yield
    except GPT1Error:
        raise
    except OfflineModeIsEnabled as error:
        raise GPT1Error("HF_HUB_OFFLINE is set, but a push needs the Hub: unset it") from error
    except (HTTPError, OSError, RuntimeError, ValueError) as error:  # everything the client is known to raise
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        if isinstance(cause, HfHubHTTPError):
            raise GPT1Error(_http_error(repo, cause, consequence)) from error
        reason = without_tokens(" ".join(str(cause).split())) or type(cause).__name__
        if cause is error and isinstance(error, ValueError):
            raise GPT1Error(f"the Hub rejects the model for {repo} ({reason}); {consequence}") from error
        where = f" ({without_tokens(str(error))})" if cause is not error else ""
        raise GPT1Error(
            f"the connection to the Hub at {endpoint} failed{where}: {reason}; {consequence}; check the network "
            "and try again"
        ) from error


def _http_error(repo: str, error: HfHubHTTPError, consequence: str) -> str:
    """One sentence for an HTTP error."""
    status = error.response.status_code
    message = without_tokens(" ".join((error.server_message or "").split()))
    quoted = f" ({message})" if message else ""
    if status == 401:
        return (
            f"the Hub does not accept the token (401){quoted}: log in again with `hf auth login`, or correct "
            "HF_TOKEN, which has precedence"
        )
    if status == 403:
        return f"the token has no write access to {repo} (403){quoted}: use another token, or another name"
    if status == 404:
        return f"the repository {repo} or its branch does not exist, or the token cannot see it (404){quoted}"
    return f"the Hub answered {status} for {repo}{quoted}; {consequence}"
