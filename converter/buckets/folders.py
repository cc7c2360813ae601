"""A folder with folders in it, such as an export, into a bucket: the file that makes it whole is put last.

As with a checkpoint, a marker lists the files meanwhile. The next run into OUT removes what an interrupted one left.
"""

from __future__ import annotations

from pathlib import Path

from converter.buckets import marker as markers
from converter.buckets.marker import Marker, marker_bytes, new_marker, read_marker
from converter.buckets.stores import MAX_OBJECTS, Store
from converter.errors import TargetError, listed, printable
from converter.folder.addresses import Address
from converter.specs import is_file_name

MAX_UPLOADED_LEVELS = 8


def check_new(out: Address, last: str) -> None:
    """Refuses an OUT that holds anything but what an interrupted upload left.

    Args:
        out: its address.
        last: name of the file that makes it whole.

    Raises:
        TargetError: says what is there.
        BucketError: the bucket refuses, or cannot be reached.
    """
    _unfinished(Store(out), last)


def put_folder(out: Address, folder: Path, last: str) -> None:
    """Puts all files of a folder of this machine into a new folder of a bucket.

    Args:
        out: its address.
        folder: of this machine.
        last: name of the file that makes it whole, which is put last.

    Raises:
        TargetError: something is there, or another run puts something there.
        BucketError: the bucket refuses, or cannot be reached.
    """
    store = Store(out)
    old = _unfinished(store, last)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    mine = new_marker([name for name in files if name != last], ())
    if old is not None:
        for name in old.files:
            store.remove(name)
        store.remove(markers.NAME)
    if not store.put_new(markers.NAME, marker_bytes(store, mine)):
        raise _taken_over(store)
    for name in mine.files:
        _check_still_mine(store, mine)
        store.put(name, folder / name)
        held = store.info(name)
        if held is None or held.size != (folder / name).stat().st_size:
            raise TargetError(f"{out}/{name}: is not what was put there; run this again")
    _check_still_mine(store, mine)
    if not store.put_new(last, (folder / last).read_bytes()):
        raise _taken_over(store)
    store.remove(markers.NAME)


def _unfinished(store: Store, last: str) -> Marker | None:
    """The marker of an interrupted upload, if nothing else is there."""
    objects = store.find("", MAX_OBJECTS)
    if not objects and store.address.key and store.info() is not None:
        raise TargetError(f"{store.address}: an object, expected a folder; choose another OUT")
    left = read_marker(store, _is_uploaded) if markers.NAME in objects and last not in objects else None
    own = {markers.NAME, *left.files} if left is not None else set()
    if standing := [name for name in objects if name not in own]:
        raise TargetError(f"{store.address}: exists already ({printable(listed(standing, 3))}); choose another folder")
    return left


def _is_uploaded(name: object) -> bool:
    parts = name.split("/") if isinstance(name, str) else []
    return 0 < len(parts) <= MAX_UPLOADED_LEVELS and all(
        is_file_name(part) and not part.startswith(".") for part in parts
    )


def _check_still_mine(store: Store, mine: Marker) -> None:
    if read_marker(store, _is_uploaded) != mine:
        raise _taken_over(store)


def _taken_over(store: Store) -> TargetError:
    return TargetError(f"{store.address}: another run is writing to it; wait until it ends, or choose another OUT")
