"""A bucket by fsspec: what is listed, read, written and removed of it. What comes from there is checked here."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from converter.buckets.systems import file_system, told
from converter.checkpoints.remote import RemoteFile
from converter.errors import BucketError, ConverterError, printable
from converter.folder.addresses import Address, is_plain_part

# What lies in one folder of a bucket: a checkpoint has 10,000 shards at most.
MAX_OBJECTS = 20_000
# What tells one state of an object from another, as the libraries call it: the first that there is.
_VERSIONS = (
    "ETag",
    "etag",
    "generation",
    "blob_id",
    "oid",
    "xet_hash",
    "mtime",
    "created",
    "LastModified",
    "last_modified",
)


@dataclass(frozen=True, slots=True)
class Stored:
    """An object.

    Attributes:
        size: in bytes, as the bucket says.
        version: changes when the object does: its ETag, or what the library has in its place.
    """

    size: int
    version: str


class Store:
    """A folder of a bucket. Names are those of objects in it, and hold slashes where they lie deeper."""

    def __init__(self, address: Address) -> None:
        """Opens it; the network is not asked yet.

        Args:
            address: of the folder.

        Raises:
            BucketError: the scheme's library is not installed, or cannot be set up.
        """
        self.address = address
        self._system = file_system(address)
        self._root = str(self._system._strip_protocol(str(address))).rstrip("/")

    def list(self, folder: str = "") -> tuple[dict[str, Stored], tuple[str, ...]]:
        """What lies in a folder, not deeper: its objects by name, and names of the folders in it.

        Raises:
            BucketError: the bucket refuses, or lists what is not to be believed.
        """
        root = self._path(folder)
        with self.explained():
            try:
                entries = self._system.ls(root, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return {}, ()
        if len(entries) > MAX_OBJECTS:
            raise BucketError(
                f"{self.address}: holds more than {MAX_OBJECTS:,} objects, more than any checkpoint; name the folder of one"
            )
        found: dict[str, Stored] = {}
        folders: list[str] = []
        for entry in entries:
            whole = str(entry["name"]).rstrip("/")
            if whole == root:  # an object that stands for the folder, or a file that is no folder
                continue
            name = self._checked_name(root, whole)
            if entry.get("type") == "directory":
                folders.append(name)
            else:
                found[name] = self._stored(name, entry)
        return found, tuple(folders)

    def find(self, folder: str, most: int) -> dict[str, Stored]:
        """All objects below a folder, by their names from there.

        Raises:
            BucketError: the bucket refuses, holds more than ``most``, or lists what is not to be believed.
        """
        root = self._path(folder)
        with self.explained():
            try:
                entries: Mapping[str, Mapping[str, Any]] = self._system.find(root, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return {}
        if len(entries) > most:
            raise BucketError(
                f"{self.address}{'/' if folder else ''}{folder}: holds more than {most:,} objects; name a smaller folder"
            )
        found: dict[str, Stored] = {}
        for entry in entries.values():
            whole = str(entry["name"])
            if whole.endswith("/") or whole == root or entry.get("type") == "directory":  # they stand for a folder
                continue
            name = self._checked_name(root, whole, deeper=True)
            found[name] = self._stored(name, entry)
        return found

    def modified(self, name: str) -> float | None:
        """When an object was written, in seconds since 1970 by the store's own clock; None if the store does not tell."""
        with self.explained():
            self._system.invalidate_cache()
            try:
                when = self._system.modified(self._path(name))
            except (FileNotFoundError, NotImplementedError, KeyError):
                return None
        if not isinstance(when, datetime):
            return None
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()

    def info(self, name: str = "") -> Stored | None:
        """An object as it is now; None where there is none."""
        with self.explained():
            self._system.invalidate_cache()
            try:
                entry = self._system.info(self._path(name))
            except (FileNotFoundError, NotADirectoryError):
                return None
        return None if entry.get("type") == "directory" else self._stored(name, entry)

    def read(self, name: str, start: int, nbytes: int) -> bytes:
        """A range of an object.

        Raises:
            BucketError: another range came: the object is shorter than was said, or the connection broke off.
        """
        with self.explained():
            data = bytes(self._system.cat_file(self._path(name), start=start, end=start + nbytes))
        if len(data) != nbytes:
            raise BucketError(
                f"{self.address}/{printable(name)}: {len(data):,} bytes came instead of {nbytes:,}; run this again"
            )
        return data

    def small(self, name: str, most: int) -> bytes | None:
        """A small object as a whole; None where there is none.

        Raises:
            BucketError: it is larger than ``most`` bytes.
        """
        held = self.info(name)
        if held is None:
            return None
        if held.size > most:
            raise BucketError(
                f"{self.address}/{printable(name)}: {held.size:,} bytes, too many for such an object; remove it"
            )
        return self.read(name, 0, held.size) if held.size else b""

    def put(self, name: str, data: bytes | Path) -> None:
        """Writes an object, in place of one that is there."""
        with self.explained():
            if isinstance(data, Path):
                self._system.put_file(str(data), self._path(name))
            else:
                self._system.pipe_file(self._path(name), data)

    def put_new(self, name: str, data: bytes) -> bool:
        """Writes an object unless there is one; says whether it did. On one condition where the store has conditions."""
        path = self._path(name)
        with self.explained():
            try:
                if not self.has_conditions and self._system.exists(path):
                    return False
                self._system.pipe_file(path, data, **self._condition)
            except FileExistsError:
                return False
            except Exception as error:
                if type(error).__name__ == "ResourceExistsError":  # of Azure, as adlfs lets it through until 2026
                    return False
                raise
        return True

    def remove(self, name: str) -> None:
        """Removes an object; nothing where there is none."""
        with self.explained(), contextlib.suppress(FileNotFoundError):
            self._system.rm_file(self._path(name))

    def remote_file(self, name: str, stored: Stored) -> RemoteFile:
        """An object for the readers of headers."""
        return RemoteFile(f"{self.address}/{name}", stored.size, lambda start, nbytes: self.read(name, start, nbytes))

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turns what fsspec and the scheme's library raise into a ``BucketError``, without what a URL in it may hold.

        What they said is no cause of it: that could hold a token, and would be printed with a traceback.
        """
        try:
            yield
        except (ConverterError, MemoryError, FileNotFoundError, FileExistsError, NotADirectoryError):
            raise
        except Exception as error:
            raise BucketError(told(self.address, error)) from None

    @property
    def has_conditions(self) -> bool:
        """Whether an object can be written on the condition that it does not exist yet."""
        return bool(self._condition)

    @property
    def _condition(self) -> Mapping[str, Any]:
        """What a library is told so that it does not write over an object; empty where it has no word for that."""
        for name in ("_pipe_file", "pipe_file"):
            method = getattr(self._system, name, None)
            if method is not None:
                words = inspect.signature(method).parameters
                return {"mode": "create"} if "mode" in words else {"overwrite": False} if "overwrite" in words else {}
        return {}

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _checked_name(self, root: str, whole: str, deeper: bool = False) -> str:
        name = whole.removeprefix(f"{root}/")
        parts: Iterable[str] = name.split("/") if deeper else (name,)
        if name == whole or not all(map(_is_plain_name, parts)):
            raise BucketError(
                f"{self.address}: lists {printable(whole)!r}, which is not a plain name in it; rename or remove that object"
            )
        return name

    def _stored(self, name: str, entry: Mapping[str, Any]) -> Stored:
        size = entry.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise BucketError(
                f"{self.address}/{printable(name)}: its size is {printable(repr(size), 40)}; write it again"
            )
        version = next((entry[key] for key in _VERSIONS if entry.get(key) is not None), "")
        return Stored(size, str(version).strip('"'))


def _is_plain_name(part: str) -> bool:
    return "/" not in part and is_plain_part(part)
