"""What of a model's folder goes to the Hub, and sending it there in one commit, with errors that say what is wrong."""

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

from ..configuration_gpt1 import GPT1Config
from ..configuration_gpt1_lstm import GPT1LSTMConfig
from ..errors import GPT1Error
from ..hub_errors import without_tokens


WEIGHTS, INDEX, CARD = "model.safetensors", "model.safetensors.index.json", "README.md"
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
# What a folder may hold besides weights and code. Nothing else is sent unless it is asked for by name.
NEEDED = ("config.json", "tokenizer.json", "tokenizer_config.json")
OPTIONAL = ("generation_config.json", "processor_config.json", CARD)
# Of older pushes, by any library, that `from_pretrained` would still read.
OUTDATED = ("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "adapter_model.bin")
# Of an adapter, in place of weights. Where there is such a configuration, `from_pretrained` opens the base model.
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# Formats that are unpickled: reading them runs whatever they say.
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
# How a card names its own model in its code, until it is sent to a repository; and the base model of an adapter.
PLACEHOLDER, BASE_PLACEHOLDER = "path/to/", "folder/of/"


@dataclass
class Upload:
    """
    What [`upload`] did.

    Args:
        repo (`str`):
            Full name of the repository.
        url (`str`):
            Its address.
        commit (`str`):
            Id of the commit that it is at now.
        files (`list[str]`):
            Names of the files that were sent, or were there already.
        changed (`bool`):
            Whether anything was new.
    """

    repo: str
    url: str
    commit: str
    files: list[str]
    changed: bool


def is_repo_name(name: str) -> bool:
    """Whether a repository can have this name."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def check_repo_name(repo: str):
    """Raise if a name cannot be a repository's (such as one that climbs folders)."""
    if not is_repo_name(repo):
        raise GPT1Error(
            f"{repo!r} cannot be the name of a repository: give `name` or `owner/name`, of letters, digits and single "
            "`-`, `_` or `.` between them, at most 96 characters"
        )


def is_complete(folder: Path) -> bool:
    """Whether a folder carries its code, so that `trust_remote_code=True` loads it."""
    auto_map = read_json(folder / "config.json").get("auto_map") or {}
    return bool(auto_map) and all(
        isinstance(name, str) and (folder / f"{name.split('.')[0]}.py").is_file() for name in auto_map.values()
    )


def model_files(folder: str | Path) -> dict[str, Path]:
    """
    What a push sends of a folder: weights, or those of an adapter; configuration, tokenizer, processor, code and card.

    Args:
        folder (`str` or `Path`):
            Folder of a saved model or adapter.

    Returns:
        `dict`: name in the repository -> file.

    Raises:
        GPT1Error: if there is no such folder, or something that loading needs is missing in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise GPT1Error(f"there is no folder {str(folder)!r}: give the folder of a saved model, or gpt1-tiny")
    config = read_json(folder / "config.json")
    own = (GPT1Config.model_type, GPT1LSTMConfig.model_type)
    if config.get("model_type") not in own:
        raise GPT1Error(
            f"{folder} holds a `{config.get('model_type')}` model, and this pushes {' and '.join(own)} only: "
            "`gpt1 convert` turns an OpenAIGPT into a GPT-1"
        )
    if (folder / ADAPTER_CONFIG).is_file():
        check_base(str(folder), read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path"))
        weights = [ADAPTER_CONFIG, ADAPTER_WEIGHTS]
    elif (folder / INDEX).is_file() and not (folder / WEIGHTS).is_file():
        weights = [INDEX, *sorted(set(read_json(folder / INDEX).get("weight_map", {}).values()))]
        for name in weights[1:]:
            if not SHARD.fullmatch(str(name)):
                raise GPT1Error(f"{folder / INDEX} names {name!r}, which is no file of weights: save the model again")
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
    """Raise if readers of an adapter on the Hub could not find its base model there."""
    if not base or Path(base).exists() or not is_repo_name(base):
        raise GPT1Error(
            f"{adapter} is an adapter of the model {base!r}, which is no Hub id, so that nobody else could load it: "
            "push that model first, and then the adapter by `gpt1 push` with --base_model and the model's repository"
        )


def code_files(folder: Path, config: dict) -> list[str]:
    """Names of the Python files that `config.json` names, and of those that they import."""
    auto_map = config.get("auto_map") or {}
    if not auto_map:
        raise GPT1Error(
            f"{folder / 'config.json'} has no auto_map, by which the Hub's users find the code: save it again"
        )
    found = set()
    for reference in auto_map.values():
        module = str(reference).split(".")[0]
        if not module.isidentifier():
            raise GPT1Error(f"{folder / 'config.json'} has the auto_map entry {reference!r}, which names no module")
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
    Send what [`model_files`] finds to the Hub, in one commit: readers see the old model or the whole new one.

    A repository that is not there is created, and a branch. Weights of an earlier push that the new one does not have
    are taken away, since `from_pretrained` might prefer them; what else lies in the repository stays. Large files that
    arrived before a broken connection are not sent again.

    Args:
        folder (`str` or `Path`):
            Folder of a saved model.
        repo (`str`):
            `owner/name`, or `name` for a repository of one's own.
        message (`str`, *optional*):
            Message of the commit.
        private (`bool`, *optional*):
            Whether a repository that is created is private. One that is there and public is an error.
        revision (`str`, *optional*):
            Branch; defaults to `main`.
        token (`str`, *optional*):
            Token; defaults to that of `HF_TOKEN` or of `hf auth login`.
        include (list of `str`, *optional*):
            Names of further files in the folder to send.

    Returns:
        [`Upload`].

    Raises:
        GPT1Error: if the folder is not whole, or the Hub cannot be reached or refuses; nothing has changed there then.
    """
    check_repo_name(repo)
    folder = Path(folder)
    files = model_files(folder) | asked_for(folder, include)
    if not (token or get_token()):
        raise GPT1Error(
            "you are not logged in to the Hub: run `hf auth login`, or set HF_TOKEN to a token that may write"
        )
    api = HfApi(token=token)
    with explained(repo, "nothing was sent"):
        repo = api.create_repo(repo, private=private, exist_ok=True).repo_id
    with explained(repo, "nothing was published; the same command goes on with what has not arrived"):
        if private and not api.model_info(repo).private:
            raise GPT1Error(
                f"{repo} exists and is public: make it private in its settings on the Hub, or push elsewhere"
            )
        if revision and revision != "main" and not revision.startswith("refs/"):
            api.create_branch(repo, branch=revision, exist_ok=True)
        before = api.model_info(repo, revision=revision).sha
        stale = [name for name in api.list_repo_files(repo, revision=revision) if is_ours(name) and name not in files]
        done = api.create_commit(
            repo,
            [CommitOperationDelete(name) for name in stale]
            + [
                CommitOperationAdd(name, card_for(path, repo) if name == CARD else path)
                for name, path in files.items()
            ],
            commit_message=message or f"Upload {config_name(folder)} with gpt1_hf",
            revision=revision,
        )
    url = f"{api.endpoint}/{repo}" + (f"/tree/{revision}" if revision else "")
    return Upload(repo, url, done.oid, sorted(files), changed=done.oid != before)


def is_ours(name: str) -> bool:
    """Whether a file of a repository is one that a push writes, or that `from_pretrained` might read in its place."""
    own = (WEIGHTS, INDEX, ADAPTER_CONFIG, ADAPTER_WEIGHTS, *OPTIONAL[:-1], *OUTDATED)
    return name in own or bool(SHARD.fullmatch(name))


def asked_for(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Further files, checked: none that lies elsewhere, none that is unpickled."""
    for name in names:
        if PurePath(name).name != name or not (folder / name).is_file():
            raise GPT1Error(f"there is no file {name!r} in {folder}: name files that lie directly in it")
        if name.endswith(PICKLES):
            raise GPT1Error(f"{name} is not sent: reading such a file can run any code; use safetensors")
    return {name: folder / name for name in names}


def card_for(path: Path, repo: str) -> bytes:
    """A card whose code names the repository in place of the folder that it was written in."""
    return named(path.read_text(encoding="utf-8"), PLACEHOLDER, repo).encode()


def named(card: str, placeholder: str, repo: str) -> str:
    """A card whose code names a repository in place of what begins with a placeholder."""
    return re.sub(rf'"{re.escape(placeholder)}(?:[^"\\\n]|\\.)*"', f'"{repo}"', card)


def config_name(folder: Path) -> str:
    """Class of the model in a folder."""
    return (read_json(folder / "config.json").get("architectures") or ["a model"])[0]


def read_json(path: Path) -> dict:
    """
    A file of a saved model that holds a JSON object.

    Raises:
        GPT1Error: if it is missing, or something else.
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
    """Turn what the Hub's client raises into one sentence."""
    endpoint = HfApi().endpoint
    try:
        yield
    except GPT1Error:
        raise
    except OfflineModeIsEnabled as error:
        raise GPT1Error("HF_HUB_OFFLINE is set, and a push needs the Hub: unset it") from error
    except (HTTPError, OSError, RuntimeError, ValueError) as error:  # all that the client is known to raise
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        if isinstance(cause, HfHubHTTPError):
            raise GPT1Error(_refusal(repo, cause, consequence)) from error
        reason = without_tokens(" ".join(str(cause).split())) or type(cause).__name__
        if cause is error and isinstance(error, ValueError):
            raise GPT1Error(f"the Hub does not take the model for {repo} ({reason}); {consequence}") from error
        where = f" ({without_tokens(str(error))})" if cause is not error else ""
        raise GPT1Error(
            f"the connection to the Hub at {endpoint} failed{where}: {reason}; {consequence}, so check the network "
            "and run it again"
        ) from error


def _refusal(repo: str, error: HfHubHTTPError, consequence: str) -> str:
    """What the Hub means by an HTTP status."""
    status = error.response.status_code
    said = without_tokens(" ".join((error.server_message or "").split()))
    said = f" ({said})" if said else ""
    if status == 401:
        return (
            f"the Hub does not know the token (401){said}: log in anew with `hf auth login`, or correct HF_TOKEN, "
            "which goes before it"
        )
    if status == 403:
        return f"the token may not write to {repo} (403){said}: use one with write access to it, or another name"
    if status == 404:
        return f"there is no repository or branch of {repo} that the token may see (404){said}"
    return f"the Hub answered {status} for {repo}{said}; {consequence}"
