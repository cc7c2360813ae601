"""Turns a person's source into local files: a path unchanged, a model on the Hub or in a bucket by downloading it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from converter.checkpoints.detect import model_folder
from converter.folder.addresses import Address
from converter.folder.files import expanded, inside
from converter.hub.ids import Access, hub_id
from converter.hub.obtained import Obtained
from converter.specs import Checkpoint, Wanted

if TYPE_CHECKING:
    from converter.buckets.reading import Copy


def obtain(
    source: str | os.PathLike[str],
    framework: Wanted,
    revision: str | None = None,
    access: Access = Access(),  # noqa: B008 - frozen
) -> Obtained:
    """Gives a source as files on this disk, downloading what is needed of it.

    Args:
        source: a path, the id of a model on the Hub, ``id@revision`` too, or the address of a bucket.
        framework: whose weights are wanted; None takes what there is.
        revision: branch, tag or commit of an id.
        access: how the Hub is asked.

    Raises:
        HubError: missing, gated, offline, or not reachable.
        BucketError: the bucket refuses, or cannot be reached.
        SourceError: no weights that could be used.
    """
    source = expanded(source)
    wanted = hub_id(source, revision)
    if isinstance(source, Address):
        from converter.buckets.reading import obtain_from_bucket

        return _of_bucket(obtain_from_bucket(source, framework), source)
    if wanted is None:
        path = Path(source)
        return Obtained(model_folder(inside(path / access.within, path) if access.within else path), os.fspath(source))
    from converter.hub.download import obtain_from_hub  # which most conversions do not need

    within = wanted.access.subfolder or access.subfolder
    return obtain_from_hub(replace(wanted, access=replace(access, subfolder=within)), framework)


def obtain_headers(address: Address, framework: Wanted) -> tuple[Obtained, Checkpoint]:
    """Gives of a source in a bucket the headers, read by range, and its config; nothing else is downloaded.

    Raises:
        BucketError: the bucket refuses, or cannot be reached.
        SourceError: no weights that could be used.
    """
    from converter.buckets.reading import open_headers

    model, checkpoint = open_headers(address, framework)
    return _of_bucket(model, address), checkpoint


def _of_bucket(model: Copy, address: Address) -> Obtained:
    return Obtained(
        model.path,
        str(address),
        beside=model.beside,
        address=address,
        close=model.close,
        here=model.here,
        there=model.there,
    )


@contextlib.contextmanager
def obtained(
    source: str | os.PathLike[str], framework: Wanted = None, revision: str | None = None
) -> Iterator[Obtained]:
    """As ``obtain``, for as long as the context lasts: then the copy of a source in a bucket is removed."""
    with contextlib.closing(obtain(source, framework, revision)) as held, told_as_named(held):
        yield held


@contextlib.contextmanager
def told_as_named(held: Obtained) -> Iterator[None]:
    """Has errors of a source in a bucket speak of its address, not of the copy on this disk."""
    if held.here is None:
        yield
        return
    from converter.buckets.scratch import told_as

    with told_as(held.there, held.here):
        yield
