"""Why something did not come from the Hub, in a few words, and what helps: for data sets, models and tokenizers alike.

`datasets`, `transformers` and `huggingface_hub` wrap what went wrong in errors of many types, some of which say of a
busy Hub that there is no such file. What happened stands in the chain of errors.
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
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ACCESS = (errno.EROFS, errno.EACCES, errno.EPERM)
# LocalEntryNotFoundError is of a cache that was asked since the Hub could not be.
NO_ANSWER = (OfflineModeIsEnabled, ConnectionError, TimeoutError, HTTPError, LocalEntryNotFoundError)


def without_tokens(text: str) -> str:
    """A message of the Hub's client without the secret that it may quote, as of a header that cannot be sent."""
    return re.sub(r"hf_\w+|Bearer [^\s'\"]+", "<token>", text)


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it came from, each once."""
    seen: list[BaseException] = []
    following = [error]
    while following:
        one = following.pop(0)
        if one is not None and not any(one is other for other in seen):
            seen.append(one)
            following += [one.__cause__, one.__context__]
            yield one


def refusal(error: BaseException, name: str, kind: str) -> tuple[str, str] | None:
    """
    What the Hub, the way there, or the disk had against loading something.

    Args:
        error (`BaseException`):
            What the library raised.
        name (`str`):
            Hub id of what was to be loaded.
        kind (`str`):
            `"model"` or `"data set"`.

    Returns:
        `tuple[str, str]`: the reason, and what to do; `None`, if it is none of these.
    """
    errors = list(chain(error))
    for one in errors:
        if not isinstance(one, OSError) or isinstance(one, HTTPError):
            continue
        place = one.filename or constants.HF_HOME
        if one.errno in NO_ROOM or "Not enough disk space" in str(one):  # of `datasets`, which looks before it begins
            return f"there is no room for {place}", "make some, or set HF_HOME to a folder on another disk"
        if one.errno in NO_ACCESS:
            return f"{place} cannot be used ({os.strerror(one.errno)})", "allow it, or set HF_HOME to another folder"
    for one in errors:
        # That a repository lacks a file may be no more than a question that was asked on the way.
        if isinstance(one, HfHubHTTPError) and not isinstance(one, EntryNotFoundError):
            return _answer(one, name, kind)
        if isinstance(one, HFValidationError):
            return f"a {kind} on the Hub cannot have such a name", "check it"
    # What has an answer is no failure to get one.
    no_answer = [one for one in errors if not hasattr(one, "response")]
    if any(isinstance(one, NO_ANSWER) for one in no_answer):
        if constants.HF_HUB_OFFLINE:
            return "HF_HUB_OFFLINE is set and the cache does not have it", "unset it"
        return f"the Hub at {constants.ENDPOINT} cannot be reached", "check the network"
    return None


def gated(name: str, kind: str) -> tuple[str, str]:
    """Reason and remedy of what its owner grants access to."""
    return "it is gated on the Hub", f"ask for access at {page_of(name, kind)} and {LOG_IN}"


def no_such_revision(name: str, kind: str) -> tuple[str, str]:
    """Reason and remedy of a branch, tag or commit that is not there."""
    return "it has no such revision on the Hub", f"take one that {page_of(name, kind)} lists"


def missing(kind: str) -> tuple[str, str]:
    """Reason and remedy of what is not there, or not for everyone to see: the Hub does not say which."""
    return f"the Hub has no {kind} of that name, or it is private", f"check the name, {LOG_IN}"


def page_of(name: str, kind: str) -> str:
    """Address of a model's or a data set's page."""
    return f"{constants.ENDPOINT}/{'datasets/' if kind == 'data set' else ''}{name}"


def _answer(error: HfHubHTTPError, name: str, kind: str) -> tuple[str, str]:
    """What the Hub's answer means."""
    status = error.response.status_code
    said = without_tokens(" ".join((error.server_message or "").split())).rstrip(".")
    quoted = f" ({said})" if said else ""
    page = page_of(name, kind)
    if isinstance(error, GatedRepoError):
        return gated(name, kind)
    if isinstance(error, DisabledRepoError) or status == 451:
        return f"the Hub has shut it off{quoted}", f"take another {kind}"
    if isinstance(error, RevisionNotFoundError):
        return no_such_revision(name, kind)
    if status == 401 and said.startswith("Invalid credentials"):
        return "the Hub does not know the token", "log in anew with `hf auth login`, or correct HF_TOKEN"
    if isinstance(error, RepositoryNotFoundError) or status == 401:
        return missing(kind)
    if status == 403:
        return f"the Hub forbids it{quoted}", f"{LOG_IN}, with a token that may read it"
    if status == 429:
        return "the Hub has had too many requests (429)", f"wait a few minutes; {LOG_IN} for a higher limit"
    if status >= 500:
        return f"the Hub has a fault of its own ({status})", "try again later"
    return f"the Hub answers {status}{quoted}", f"see {page}"


__all__ = ["chain", "gated", "missing", "refusal", "without_tokens"]
