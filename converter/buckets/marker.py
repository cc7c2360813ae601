"""The object that marks an upload into OUT: it lists the files that are uploaded, and those that will be removed.

OUT without ``conversion.json`` is no checkpoint of ours. If only the marker is there, an upload was interrupted or still
runs. The next upload removes its files, and the earlier one detects that it no longer owns the marker.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from converter.buckets.stores import Store
from converter.errors import TargetError
from converter.folder.chat_templates import is_chat_template
from converter.folder.files import json_bytes
from converter.specs import is_file_name

NAME = ".conversion-upload.json"
FORMAT = 1
# Names of 10,000 shards, and of as many that they replace.
MAX_MARKER_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Marker:
    """What is uploaded.

    Attributes:
        owner: a random word of the run.
        files: names of what it uploads, but for the manifest.
        stale: names of what it removes, of the checkpoint that was there.
    """

    owner: str
    files: tuple[str, ...]
    stale: tuple[str, ...]


def new_marker(files: Iterable[str], stale: Iterable[str]) -> Marker:
    """One of a run that is about to begin."""
    return Marker(os.urandom(12).hex(), tuple(files), tuple(stale))


def marker_bytes(store: Store, marker: Marker) -> bytes:
    """What lies in the bucket. It holds where, for a copy of it elsewhere says nothing of what lies there."""
    held = {"format": FORMAT, "address": str(store.address), "owner": marker.owner}
    return json_bytes({**held, "files": list(marker.files), "stale": list(marker.stale)})


def read_marker(store: Store, is_uploaded: Callable[[object], bool] | None = None) -> Marker | None:
    """The marker in a folder of a bucket; None where there is none.

    Args:
        store: the folder.
        is_uploaded: tells names that an upload may put; None for those of a checkpoint.

    Raises:
        TargetError: it is not what this program wrote there.
    """
    data = store.small(NAME, MAX_MARKER_BYTES)
    if data is None:
        return None
    strange = TargetError(
        f"{store.address}: holds a {NAME} that no upload wrote there; look what it is, and remove it or choose another OUT"
    )
    try:
        raw = json.loads(data)
        held = (raw["format"], raw["address"], raw["owner"], raw["files"], raw["stale"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise strange from None
    if held[:2] != (FORMAT, str(store.address)) or not isinstance(held[2], str):
        raise strange
    if not all(isinstance(names, list) and all(map(is_uploaded or _is_uploaded, names)) for names in held[3:]):
        raise strange
    return Marker(held[2], tuple(held[3]), tuple(held[4]))


def _is_uploaded(name: object) -> bool:
    return is_chat_template(name) or (isinstance(name, str) and is_file_name(name) and not name.startswith("."))
