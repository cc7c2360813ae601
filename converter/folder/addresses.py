"""Decides what a URL stands for: a place in a bucket, a path of this machine (``file://``), or nothing that is taken.

A URL that holds a password or a token is refused, so that none reaches a manifest, a ledger or a message.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from converter.errors import SourceError, printable

# The schemes of buckets, and what is installed for each besides fsspec; fsspec's own memory is for tests and notebooks.
SCHEMES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "hf": "huggingface_hub", "memory": ""}
HUB = "hf"
LOCAL = "file"
# S3's keys have 1,024 bytes; a bucket's name, and room.
MAX_ADDRESS_CHARACTERS = 2048
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_OTHERS_OF_THE_HUB = ("buckets", "datasets", "spaces")
_SECRETS = (
    (re.compile(r"(?<=://)[^\s/'\"<>]*@"), ""),
    (re.compile(r"\?[^\s'\"<>]*"), ""),
)

if TYPE_CHECKING:
    _Path = Path
else:
    _Path = type(Path())


class Address(_Path):
    """A place in a bucket, which is carried and printed as a path is: ``s3://bucket/run-1``. Nothing of this machine is at it."""

    def __str__(self) -> str:
        return super().__str__().replace(os.sep, "/").replace(":/", "://", 1)

    def __fspath__(self) -> str:
        return str(self)

    @property
    def scheme(self) -> str:
        """One of ``SCHEMES``."""
        return str(self).partition(":")[0]

    @property
    def bucket(self) -> str:
        """Name of the bucket, or what the scheme has in its place."""
        return str(self).split("/")[2]

    @property
    def key(self) -> str:
        """What the names of the objects begin with, without a slash at the end; empty for the bucket itself."""
        return "/".join(str(self).split("/")[3:])

    @property
    def above(self) -> Address | None:
        """What holds it; None for the bucket itself."""
        return Address(str(self).rpartition("/")[0]) if self.key else None


def place_of(value: object) -> Address | Path | None:
    """What a URL stands for; None for what is none, and for the schemes of web pages.

    Raises:
        SourceError: it is invalid, or holds a password or a token.
    """
    found = _URL.fullmatch(value) if isinstance(value, str) else None
    if found is None or (scheme := found[1].lower()) not in (*SCHEMES, LOCAL):
        return None
    rest = found[2]
    shown = printable(without_secrets(f"{scheme}://{rest}"))
    if len(rest) > MAX_ADDRESS_CHARACTERS:
        raise SourceError(f"{shown}: longer than {MAX_ADDRESS_CHARACTERS:,} characters; name a folder in a bucket")
    authority = rest.partition("/")[0]
    if "?" in rest or "#" in rest or ("@" in authority and scheme != HUB) or ":" in authority:
        raise SourceError(
            f"{shown}: the URL holds a user name, a password, a token or a port. Remove it, and set the credentials of "
            "the bucket's library instead (docs/buckets.md)"
        )
    if scheme == LOCAL:
        return _local(shown, rest)
    parts = rest.rstrip("/").split("/")
    bucket = parts[0].partition("@")[0] if scheme == HUB else parts[0]
    if not _BUCKET.fullmatch(bucket) or not all(map(is_plain_part, parts)):
        raise SourceError(f"{shown}: not the address of a folder in a bucket; one is written {scheme}://BUCKET/FOLDER")
    return Address(f"{scheme}://{'/'.join(parts)}")


def _local(shown: str, rest: str) -> Path:
    if not rest.startswith("/") or not rest.isprintable():
        raise SourceError(f"{shown}: not the address of a file here; one is written file:///FOLDER, or as a plain path")
    return Path(rest)


def is_plain_part(part: str) -> bool:
    """Whether a part of an object's name leads nowhere else where the name is taken for a path, and can be printed."""
    return part not in ("", ".", "..") and part.isprintable() and "\\" not in part


def hub_model(value: object) -> tuple[str, str | None, str] | None:
    """A model on the Hub that is named by a URL: its id, its revision and the folder in it; None for all else.

    Raises:
        SourceError: the URL is invalid.
    """
    place = place_of(value)
    if not isinstance(place, Address) or place.scheme != HUB or place.bucket in _OTHERS_OF_THE_HUB:
        return None
    owner, _, rest = f"{place.bucket}/{place.key}".partition("/")
    name, _, folder = rest.partition("/")
    name, _, revision = name.partition("@")
    # A branch with a slash is spelled %2F, or comes after refs/pr.
    if revision == "refs" and folder.count("/") >= 1:
        kind, number, *deeper = folder.split("/")
        revision, folder = f"refs/{kind}/{number}", "/".join(deeper)
    return f"{owner}/{name}" if name else owner, revision.replace("%2F", "/") or None, folder


def without_secrets(text: str) -> str:
    """A text from a library, or of a URL, without what URLs in it may hold: names, passwords and queries."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text
