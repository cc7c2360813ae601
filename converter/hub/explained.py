"""Exceptions of huggingface_hub as one line with the next step; unexpected ones stay a bug's traceback."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from converter.errors import HubError, printable

# The HTTP clients that huggingface_hub has had: requests up to 0.36, httpx since 1.0, httpx2 since 2.0.
_CLIENTS = ("requests", "urllib3", "httpx", "httpx2", "httpcore", "httpcore2")
DOWNLOADED = "downloads resume"
UPLOADED = "uploads resume"


@contextmanager
def explained(what: str, revision: str | None = None, kept: str = DOWNLOADED) -> Iterator[None]:
    """Turns what huggingface_hub raises into a ``HubError``.

    Args:
        what: the id, for messages.
        revision: the requested revision.
        kept: what running it again does not repeat.

    Raises:
        HubError: missing, private, gated, offline, not reachable, broken off, or refused.
    """
    try:
        yield
    except Exception as error:
        said = _said(what, revision, kept, error)
        if said is None:
            raise
        raise HubError(said) from error


def is_transport_error(error: BaseException) -> bool:
    """Whether a connection failed or broke off; an answer of the Hub does not count."""
    if getattr(error, "response", None) is not None:
        return False
    return type(error).__module__.partition(".")[0] in _CLIENTS or isinstance(error, ConnectionError | TimeoutError)


def status_of(error: BaseException) -> int:
    """The status of the Hub's answer; 0 without an answer."""
    return int(getattr(getattr(error, "response", None), "status_code", 0))


def _said(what: str, revision: str | None, kept: str, error: BaseException) -> str | None:
    from huggingface_hub import utils

    if isinstance(error, utils.GatedRepoError):
        return (
            f"{what}: a gated model, to which its owner grants access; ask for access on its page, then log in "
            "with `hf auth login` or set HF_TOKEN"
        )
    if isinstance(error, utils.RepositoryNotFoundError):
        return (
            f"{what}: not a file or folder here, nor a public model on the Hub; correct the name, or "
            "log in with `hf auth login` or set HF_TOKEN"
        )
    if isinstance(error, utils.RevisionNotFoundError):
        asked = "main" if revision is None else printable(revision, 60)
        return f"{what}: has no revision {asked} on the Hub; name a branch, a tag or a commit of it"
    if isinstance(error, utils.LocalEntryNotFoundError):
        cause = error.__cause__ or error.__context__
        if cause is not None and not isinstance(cause, utils.OfflineModeIsEnabled):
            return _said(what, revision, kept, cause) or _unreachable(what, kept, cause)
        return _offline(what, error)
    if isinstance(error, utils.OfflineModeIsEnabled):
        return _offline(what, error)
    if isinstance(error, utils.EntryNotFoundError):
        return f"{what}: one of its files no longer exists; name a folder or a model that save_pretrained wrote"
    if status_of(error):
        return _refused(what, kept, error)
    return _broken(what, kept, error)


def _refused(what: str, kept: str, error: BaseException) -> str:
    status = status_of(error)
    reason = getattr(error, "server_message", None) or f"status {status}"
    if status == 429:
        return (
            f"{what}: the Hub's rate limit is reached (429); wait some minutes and run this again, or log "
            f"in with `hf auth login`; {kept}"
        )
    if status >= 500:
        return f"{what}: the Hub reports an error ({status}); run this again later; {kept}"
    if status in (401, 403):
        return (
            f"{what}: the Hub refuses ({status}: {printable(str(reason), 200)}); check that your token may do this "
            "(`hf auth whoami`, HF_TOKEN)"
        )
    if status in (409, 412):
        return f"{what}: changed on the Hub meanwhile ({status}); run this again"
    return f"{what}: the Hub refuses ({status}: {printable(str(reason), 200)}); correct that and run this again"


def _broken(what: str, kept: str, error: BaseException) -> str | None:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{what}: the cache's disk is full; free some space, or set HF_HOME to another disk"
    if isinstance(error, OSError) and (
        error.errno in (errno.EACCES, errno.EROFS, errno.EPERM) or _is_in_the_cache(error.filename)
    ):
        return f"{what}: cannot write to the cache ({printable(str(error), 200)}); set HF_HOME to a folder that you may write to"
    if str(error).startswith("Consistency check failed"):
        return f"{what}: the download was interrupted; run this again; {kept}"
    if _passed_through(error, _is_of_xet):  # hf_xet raises Python's own exceptions
        return (
            f"{what}: cannot reach the Hub's Xet storage ({type(error).__name__}: "
            f"{printable(str(error), 200)}); run this again, or set HF_HUB_DISABLE_XET=1 to do without it; {kept}"
        )
    if is_transport_error(error):
        return _unreachable(what, kept, error)
    # Exceptions that huggingface_hub wraps: a part of an upload, or answers that are not the Hub's.
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        return _said(what, None, kept, error.__cause__)
    if isinstance(error, ValueError | OSError) and _passed_through(error, _is_of_a_client):
        return (
            f"{what}: cannot set up the network ({type(error).__name__}: {printable(str(error), 200)}); check "
            "HTTPS_PROXY and SSL_CERT_FILE"
        )
    if isinstance(error, ValueError) and "HF_HUB_ENABLE_HF_TRANSFER" in str(error):
        return f"{what}: HF_HUB_ENABLE_HF_TRANSFER is set, but hf_transfer is not installed; install it, or unset the variable"
    return None


def _is_in_the_cache(path: object) -> bool:
    from huggingface_hub import constants

    if not isinstance(path, str | os.PathLike):
        return False
    named, folders = Path(path), (Path(constants.HF_HOME), Path(constants.HF_HUB_CACHE))
    return any(named.is_relative_to(folder) or folder.is_relative_to(named) for folder in folders)


def _is_of_a_client(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] in _CLIENTS


def _is_of_xet(frame: FrameType) -> bool:
    return "xet" in frame.f_code.co_name and "huggingface_hub" in str(frame.f_globals.get("__name__"))


def _passed_through(error: BaseException, is_meant: Callable[[FrameType], bool]) -> bool:
    """Whether an exception was raised below such a frame."""
    step = error.__traceback__
    while step is not None:
        if is_meant(step.tb_frame):
            return True
        step = step.tb_next
    return False


def _unreachable(what: str, kept: str, error: BaseException) -> str:
    here = "" if kept != DOWNLOADED else "no file or folder here, and "
    return (
        f"{what}: {here}cannot reach the Hub ({type(error).__name__}: {printable(str(error), 200)}); check the "
        f"network or HTTPS_PROXY and run this again; {kept}"
    )


def _offline(what: str, error: BaseException) -> str:
    said = "local_files_only" if "local_files_only" in str(error) else "HF_HUB_OFFLINE"
    return (
        f"{what}: not a file or folder here, nor complete in the Hub's cache, and {said} is set; correct the name, "
        f"or unset {said} once to download it"
    )
