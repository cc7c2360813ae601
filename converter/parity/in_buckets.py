"""Verifies where a side lies in a bucket: both are folders of this machine for as long as it takes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from converter.buckets.outputs import fetched, put_proof
from converter.buckets.scratch import Scratch, above, told_as
from converter.buckets.stores import Store
from converter.errors import ParityError
from converter.folder.addresses import Address
from converter.folder.files import named
from converter.folder.manifest import read_manifest
from converter.folder.proof import NAME as PROOF
from converter.hub.obtaining import obtained

Found = TypeVar("Found", bound=Any)


def fetch_sides(verify: Callable[[Path, Any], Found], folder: Any, reference: Any, record: bool) -> Found:
    """Fetches what lies in a bucket, verifies, and has the result speak of addresses.

    Args:
        verify: given the folder of the checkpoint and the reference, both of this machine.
        folder: the path of the checkpoint, or its address.
        reference: the source or golden file, or its address; None for the one that the manifest names.
        record: whether what was found is kept beside the checkpoint.

    Raises:
        BucketError: the bucket refuses, or cannot be reached.
        SourceError: there is nothing to verify.
    """
    told: dict[str, str] = {}
    with ExitStack() as stack:
        folder = copy = named(folder)
        if isinstance(folder, Address):
            copy = stack.enter_context(fetched(folder))
            told[str(copy)] = str(folder)
        before = _proof(copy)
        if isinstance(reference, Address):
            recorded = read_manifest(copy) if copy.is_dir() else None
            held = stack.enter_context(obtained(reference, None if recorded is None else recorded.source_framework))
            told[str(held.here)] = held.there
            reference = held.path
        found = verify(copy, reference)
        if isinstance(folder, Address) and record and _proof(copy) != before:
            put_proof(folder, copy)
    findings = tuple(
        replace(one, against=_told(told, one.against), problems=tuple(_told(told, words) for words in one.problems))
        for one in found.findings
    )
    return replace(found, folder=folder, findings=findings)


def record_into(out: Address, record: Callable[[Path], Found]) -> Found:
    """Records a reference into a file of this machine, which is then put into a bucket.

    Args:
        out: address of the file, which must not exist.
        record: given the path of the file to make.

    Raises:
        ParityError: it exists, or the reference cannot be recorded.
        BucketError: the bucket refuses, or cannot be reached.
    """
    exists = ParityError(f"{out}: exists already; choose another name")
    if out.above is None:
        raise ParityError(f"{out}: a bucket; name a file in it that ends in .safetensors")
    store = Store(out.above)
    if store.info(out.name) is not None:
        raise exists
    with contextlib.closing(Scratch()) as scratch, told_as(above(out), scratch.path):
        found = record(scratch.path / out.name)
        if not store.put_new(out.name, (scratch.path / out.name).read_bytes()):
            raise exists
    return found


def _told(told: Mapping[str, str], words: str) -> str:
    """A text that speaks of addresses in place of the folders that stand for them."""
    for here, there in told.items():
        words = words.replace(here, there)
    return words


def _proof(folder: Path) -> bytes | None:
    path = folder / PROOF
    return path.read_bytes() if path.is_file() else None
