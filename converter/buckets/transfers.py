"""Moves a file from a bucket to this disk by parts, several at a time, and checks that it was one file throughout."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from converter.buckets.stores import Store, Stored
from converter.errors import BucketError, TargetError, printable
from converter.system.bytes_at import open_plain, write_at

_PART_BYTES = 8 * 2**20
_PARTS_AT_A_TIME = 4


def check_room(store: Store, folder: Path, nbytes: int) -> None:
    """Refuses what the disk has no room for, before anything is fetched.

    Raises:
        TargetError: with what it needs.
    """
    total, _, free = shutil.disk_usage(folder)
    if total and nbytes > free:
        raise TargetError(
            f"{store.address}: {nbytes / 1e6:,.0f} MB are needed in {folder.parent}, whose disk has {free / 1e6:,.0f} MB "
            "free; free some space, or set TMPDIR to another disk"
        )


def fetch(store: Store, name: str, stored: Stored, path: Path, known: Stored | None = None) -> None:
    """Fetches an object.

    Args:
        store: where it lies.
        name: of the object.
        stored: what the bucket said of it when it was listed.
        path: of the file to make.
        known: what it was when its header was read; None where that was not.

    Raises:
        BucketError: it is not what was listed, is another at the end, or cannot be read.
    """
    from concurrent.futures import ThreadPoolExecutor

    before = store.info(name)
    if before is None or before.size != stored.size or known not in (None, before):
        raise _changed(store, name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    os.truncate(path, stored.size)
    descriptor = open_plain(path, write=True)

    def move(start: int) -> None:
        data = memoryview(store.read(name, start, min(_PART_BYTES, stored.size - start)))
        done = 0
        while done < len(data):
            done += write_at(descriptor, data[done:], start + done)

    try:
        starts = range(0, stored.size, _PART_BYTES)
        if len(starts) < 2:
            for start in starts:
                move(start)
        else:
            with ThreadPoolExecutor(_PARTS_AT_A_TIME) as pool:
                try:
                    for _ in pool.map(move, starts):
                        pass
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
    finally:
        os.close(descriptor)
    check_unchanged(store, name, before)


def check_unchanged(store: Store, name: str, before: Stored) -> None:
    """Refuses an object that is not the one that was looked at before it was read.

    Raises:
        BucketError: it changed, or is gone.
    """
    if store.info(name) != before:
        raise _changed(store, name)


def _changed(store: Store, name: str) -> BucketError:
    return BucketError(
        f"{store.address}/{printable(name)}: changed in the bucket while it was being read; run this again"
    )
