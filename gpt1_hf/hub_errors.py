"""Why something could not be loaded from the Hub, and what to do about it: for data sets, models and tokenizers.

`datasets`, `transformers` and `huggingface_hub` wrap the cause in errors of many types. Some of them report a busy Hub
as a missing file. The cause itself is in the chain of errors.
"""

import errno
import os
import re
from collections.abc import Iterator

from huggingface_hub import constants
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


LOG_IN = "log in with `hf auth login` (or set HF_TOKEN)"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ACCESS = (errno.EROFS, errno.EACCES, errno.EPERM)
# LocalEntryNotFoundError means that the Hub did not answer and the cache does not have the file either.
NO_ANSWER = (OfflineModeIsEnabled, ConnectionError, TimeoutError, HTTPError, LocalEntryNotFoundError)


def without_tokens(text: str) -> str:
    """A message of the Hub's client without the access token that it may quote."""
    return re.sub(r"hf_\w+|Bearer [^\s'\"]+", "<token>", text)


def error_chain(error: BaseException) -> Iterator[BaseException]:
    """An error and all its causes and contexts, each once."""
    seen: list[BaseException] = []
    following = [error]
    while following:
        one = following.pop(0)
        if one is not None and not any(one is other for other in seen):
            seen.append(one)
            following += [one.__cause__, one.__context__]
            yield one


def load_failure(error: BaseException, name: str, kind: str) -> tuple[str, str] | None:
    """
    Explain why loading from the Hub failed, if the Hub, the network or the disk is the cause.

    Args:
        error (`BaseException`):
            What the library raised.
        name (`str`):
            Hub id.
        kind (`str`):
            `"model"` or `"data set"`.

    Returns:
        `tuple[str, str]`: the reason, and what to do; `None` if the cause is something else.
    """
    errors = list(error_chain(error))
    for one in errors:
        if not isinstance(one, OSError) or isinstance(one, HTTPError):
            continue
        place = one.filename or constants.HF_HOME
        if one.errno in NO_SPACE or "Not enough disk space" in str(one):  # `datasets` checks before it downloads
            return f"there is not enough space for {place}", "free some, or set HF_HOME to a folder on another disk"
        if one.errno in NO_ACCESS:
            return (
                f"{place} cannot be used ({os.strerror(one.errno)})",
                "allow it, or set HF_HOME to another folder",
            )
    for one in errors:
        # A missing file may be an optional one that the library only looked for.
        if isinstance(one, HfHubHTTPError) and not isinstance(one, EntryNotFoundError):
            return _http_failure(one, name, kind)
        if isinstance(one, HFValidationError):
            return f"a {kind} on the Hub cannot have this name", "check it"
    without_response = [one for one in errors if not hasattr(one, "response")]
    if any(isinstance(one, NO_ANSWER) for one in without_response):
        if constants.HF_HUB_OFFLINE:
            return "HF_HUB_OFFLINE is set and the cache does not have it", "unset it"
        return f"the Hub at {constants.ENDPOINT} cannot be reached", "check the network"
    return None


def gated(name: str, kind: str) -> tuple[str, str]:
    """Reason and remedy for a gated repository."""
    return "it is gated on the Hub", f"ask for access at {page_url(name, kind)} and {LOG_IN}"


def no_such_revision(name: str, kind: str) -> tuple[str, str]:
    """Reason and remedy for a missing branch, tag or commit."""
    return "it has no such revision on the Hub", f"choose one that {page_url(name, kind)} lists"


def not_found(kind: str) -> tuple[str, str]:
    """Reason and remedy for a missing or private repository. The Hub does not say which it is."""
    return f"the Hub has no {kind} with this name, or it is private", f"check the name, {LOG_IN}"


def page_url(name: str, kind: str) -> str:
    """Address of a model's or a data set's page."""
    return f"{constants.ENDPOINT}/{'datasets/' if kind == 'data set' else ''}{name}"


def _http_failure(error: HfHubHTTPError, name: str, kind: str) -> tuple[str, str]:
    """Reason and remedy for an HTTP error."""
    status = error.response.status_code
    message = without_tokens(" ".join((error.server_message or "").split())).rstrip(".")
    quoted = f" ({message})" if message else ""
    if isinstance(error, GatedRepoError):
        return gated(name, kind)
    if isinstance(error, DisabledRepoError) or status == 451:
        return f"the Hub has disabled it{quoted}", f"choose another {kind}"
    if isinstance(error, RevisionNotFoundError):
        return no_such_revision(name, kind)
    if status == 401 and message.startswith("Invalid credentials"):
        return "the Hub does not accept the token", "log in again with `hf auth login`, or correct HF_TOKEN"
    if isinstance(error, RepositoryNotFoundError) or status == 401:
        return not_found(kind)
    if status == 403:
        return f"the Hub denies access{quoted}", f"{LOG_IN}, with a token that can read it"
    if status == 429:
        return "the Hub received too many requests (429)", f"wait a few minutes; {LOG_IN} for a higher limit"
    if status >= 500:
        return f"the Hub has an internal error ({status})", "try again later"
    return f"the Hub answers {status}{quoted}", f"see {page_url(name, kind)}"


__all__ = ["error_chain", "gated", "load_failure", "no_such_revision", "not_found", "without_tokens"]
