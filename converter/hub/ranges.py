"""Files of the Hub whose headers are read without downloading them, by HTTP range requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from converter.checkpoints.remote import RemoteFile
from converter.errors import HubError
from converter.hub.explained import explained
from converter.hub.waiting import patiently

_SECONDS = 30


def remote_file(repository: str, commit: str, name: str, size: int, token: str | bool | None = None) -> RemoteFile:
    """A file of the Hub for the readers of headers.

    Args:
        repository: its id.
        commit: of 40 hexadecimal digits.
        name: of a file, with its folder.
        size: as the Hub lists it.
        token: to send instead of that of the login; False for none.

    Returns:
        A file whose reading raises ``HubError`` where the Hub cannot be read.
    """
    from huggingface_hub import constants, hf_hub_url

    # The current HF_ENDPOINT; the template that hf_hub_url keeps may be older.
    url = hf_hub_url(repository, name, revision=commit, endpoint=constants.ENDPOINT)

    def fetch(start: int, nbytes: int) -> bytes:
        with explained(repository):
            return patiently(repository, lambda: _read_range(f"{repository}/{name}", url, start, nbytes, token))

    return RemoteFile(f"{repository}@{commit[:12]}/{name}", size, fetch)


def _read_range(what: str, url: str, start: int, nbytes: int, token: str | bool | None = None) -> bytes:
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    headers = build_hf_headers(token=token) | {
        "Range": f"bytes={start}-{start + nbytes - 1}",
        "Accept-Encoding": "identity",
    }
    with _streamed(url, headers) as response:
        if response.status_code >= 400:
            _ = response.read() if hasattr(response, "read") else response.content
            hf_raise_for_status(response)
        if response.status_code != 206:
            raise HubError(f"{what}: the Hub does not serve ranges of it; download the model and name its folder")
        pieces = response.iter_bytes() if hasattr(response, "iter_bytes") else response.iter_content(2**16)
        held = b""
        for piece in pieces:
            held += piece
            if len(held) > nbytes:
                break
    if len(held) != nbytes:
        raise HubError(f"{what}: the Hub sent another range than requested; run this again")
    return held


@contextmanager
def _streamed(url: str, headers: dict[str, str]) -> Iterator[Any]:
    """A response whose body is not read yet: of httpx, or of requests in huggingface_hub before 1.0."""
    from huggingface_hub.utils import get_session

    session: Any = get_session()
    if callable(getattr(session, "stream", None)):
        with session.stream("GET", url, headers=headers, timeout=_SECONDS) as response:
            yield response
    else:
        with session.get(url, headers=headers, timeout=_SECONDS, stream=True) as response:
            yield response
