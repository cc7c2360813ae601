"""Exports in buckets: made and verified in a folder of this machine, for as long as that takes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from converter.buckets.folders import check_new, put_folder
from converter.buckets.scratch import Scratch, above, told_as
from converter.buckets.stores import Store
from converter.buckets.transfers import check_room, fetch
from converter.buckets.uploading import overlap
from converter.errors import OptionError, SourceError, TargetError
from converter.exporting.manifest import MAX_EXPORT_BYTES, NAME, read_export
from converter.folder.addresses import Address
from converter.folder.files import expanded


@contextlib.contextmanager
def placed(folder: str | os.PathLike[str], source: object) -> Iterator[Path]:
    """Gives the folder of this machine to make an export in, which is then put into a bucket if it was to lie in one.

    Raises:
        TargetError: something lies there, or it shares a folder with the source.
        BucketError: the bucket refuses, or cannot be reached.
    """
    place = expanded(folder)
    if not isinstance(place, Address):
        yield Path(place)
        return
    if isinstance(source, Address) and overlap(source, place):
        raise TargetError(f"{place}: shares a folder with the source {source}; choose one beside it")
    check_new(place, NAME)
    with contextlib.closing(Scratch()) as scratch, told_as(above(place), scratch.path):
        yield scratch.path / place.name
        put_folder(place, scratch.path / place.name, NAME)


@contextlib.contextmanager
def fetched_export(address: Address) -> Iterator[Path]:
    """Gives a folder of this machine with the files that the ``export.json`` in a bucket names.

    Raises:
        SourceError: there is no export, or its ``export.json`` is not what this program writes.
        BucketError: the bucket refuses, or cannot be reached.
    """
    store = Store(address)
    text = store.small(NAME, MAX_EXPORT_BYTES)
    if text is None:
        raise SourceError(f"{address}: holds no {NAME}; name a folder that `convert export` made")
    with contextlib.closing(Scratch()) as scratch, told_as(above(address), scratch.path):
        folder = scratch.path / address.name
        folder.mkdir()
        (folder / NAME).write_bytes(text)
        there = {file.path: held for file in read_export(folder).files if (held := store.info(file.path)) is not None}
        check_room(store, folder, sum(held.size for held in there.values()))
        for name, held in there.items():  # of one that is missing, verifying tells
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            fetch(store, name, held, folder / name)
        yield folder


@contextlib.contextmanager
def brought(path: str | os.PathLike[str] | None) -> Iterator[Path | None]:
    """Gives a file or a folder of samples as one of this machine: of a folder in a bucket, the objects that lie in it.

    Raises:
        OptionError: nothing is there.
        BucketError: the bucket refuses, or cannot be reached.
    """
    place = None if path is None else expanded(path)
    if not isinstance(place, Address):
        yield None if place is None else Path(place)
        return
    store = Store(place)
    objects = store.list()[0]
    single = None if objects or place.above is None else store.info()
    if single is None and not objects:
        raise OptionError(f"{place}: not found; name a golden reference file or a folder")
    with contextlib.closing(Scratch()) as scratch, told_as(above(place), scratch.path):
        target = scratch.path / place.name
        if single is not None and place.above is not None:
            check_room(store, scratch.path, single.size)
            fetch(Store(place.above), place.name, single, target)
        else:
            target.mkdir()
            check_room(store, target, sum(held.size for held in objects.values()))
            for name, held in objects.items():
                fetch(store, name, held, target / name)
        yield target
