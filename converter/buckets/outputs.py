"""What a conversion put into a bucket, as a folder of this machine: the files that its manifest names, and its proof."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from converter.buckets.reading import obtain_from_bucket
from converter.buckets.scratch import Scratch, above, told_as
from converter.buckets.stores import Store
from converter.buckets.transfers import check_room, fetch
from converter.errors import SourceError, listed
from converter.folder.addresses import Address
from converter.folder.chat_templates import FOLDER as TEMPLATES
from converter.folder.manifest import MAX_MANIFEST_BYTES, read_manifest
from converter.folder.manifest import NAME as MANIFEST
from converter.folder.proof import MAX_BYTES as MAX_PROOF_BYTES
from converter.folder.proof import NAME as PROOF


@contextlib.contextmanager
def fetched(address: Address) -> Iterator[Path]:
    """Gives a folder with the checkpoint that lies in a bucket, for as long as the context lasts.

    Args:
        address: of its folder. Of a checkpoint without a manifest, what a conversion of it would read is fetched.

    Raises:
        SourceError: there is none, or not all of it.
        BucketError: the bucket refuses, cannot be reached, or gives what is not to be believed.
    """
    store = Store(address)
    if store.info(MANIFEST) is None:
        copy = obtain_from_bucket(address, None)
        with contextlib.closing(copy), told_as(copy.there, copy.here):
            yield copy.path.parent
        return
    scratch = Scratch()
    try:
        with told_as(above(address), scratch.path):
            folder = scratch.path / address.name
            folder.mkdir()
            _fetch(store, folder)
            yield folder
    finally:
        scratch.close()


def put_proof(address: Address, folder: Path) -> None:
    """Puts the proof that lies in a folder of this machine beside the checkpoint in the bucket.

    Raises:
        BucketError: the bucket refuses, or cannot be reached.
    """
    Store(address).put(PROOF, (folder / PROOF).read_bytes())


def _fetch(store: Store, folder: Path) -> None:
    manifest = store.small(MANIFEST, MAX_MANIFEST_BYTES)
    (folder / MANIFEST).write_bytes(manifest or b"")
    recorded = read_manifest(folder)
    objects, folders = store.list()
    if TEMPLATES in folders:
        objects |= {f"{TEMPLATES}/{name}": held for name, held in store.list(TEMPLATES)[0].items()}
    names = () if recorded is None else tuple(recorded.files)
    if missing := [name for name in names if name not in objects]:
        raise SourceError(
            f"{store.address}: {MANIFEST} names {listed(missing, 3)}, which the bucket does not hold; convert again"
        )
    check_room(store, folder, sum(objects[name].size for name in names))
    for name in names:
        fetch(store, name, objects[name], folder / name)
    if (proof := store.small(PROOF, MAX_PROOF_BYTES)) is not None:
        (folder / PROOF).write_bytes(proof)
