"""Compares the files of a checkpoint with those of a repository, by the sums that the Hub lists."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from typing import Any, BinaryIO

from converter.folder.records import hash_file
from converter.publishing.evidence import Evidence
from converter.publishing.publication import CARD, Change


def compared(evidence: Evidence, name: str, there: Any) -> Change:
    """What a push does with a file, given how the Hub lists it; None if it is not there."""
    path, instead = evidence.folder / name, evidence.rewritten.get(name)
    size = path.stat().st_size if instead is None else len(instead)
    if there is None:
        return Change(name, "add", size)
    lfs = getattr(there, "lfs", None)
    if lfs is not None:
        digest = lfs["sha256"] if isinstance(lfs, Mapping) else lfs.sha256
        same = (
            hash_file(path, ("sha256",)).sha256 if instead is None else hashlib.sha256(instead).hexdigest()
        ) == digest
    else:
        with path.open("rb") if instead is None else io.BytesIO(instead) as file:
            same = there.blob_id is not None and _git_name(file, size) == there.blob_id
    return Change(name, "same" if same else "replace", size)


def _git_name(file: BinaryIO, size: int) -> str:
    """The sha1 by which git knows a file's content."""
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    while piece := file.read(2**20):
        digest.update(piece)
    return digest.hexdigest()


def is_there(evidence: Evidence, change: Change, there: Mapping[str, Any]) -> bool:
    """Whether a repository shows a change as it was sent, by its listing."""
    if change.action == "delete":
        return change.name not in there
    if change.name == CARD:
        return CARD in there and there[CARD].size == change.size
    return compared(evidence, change.name, there.get(change.name)).action == "same"
