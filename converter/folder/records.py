"""Facts about a file: its size, and the sums that identify it.

The default is BLAKE3, as the program ``b3sum`` computes it. It is four times as fast as sha256, which the Hub uses and
version 0.1 used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Their names in a manifest and in output.
SUMS = {"blake3": "BLAKE3", "sha256": "sha256"}
USUAL = ("blake3",)
_HASH_BYTES = 2**18  # so that what was read is still in the cache when it is summed


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file as it was read or written. ``blake3`` and ``sha256`` are None if they were not computed."""

    name: str
    size: int
    sha256: str | None = None
    blake3: str | None = None

    @property
    def sums(self) -> dict[str, str]:
        """The sums that were taken, by kind."""
        held = {kind: getattr(self, kind) for kind in SUMS}
        return {kind: value for kind, value in held.items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """The form in the manifest."""
        return {"name": self.name, "size": self.size, **self.sums}


def hash_file(path: Path, kinds: Iterable[str] = USUAL) -> FileRecord:
    """Takes size and sums of a file, which is read once.

    Args:
        path: the file.
        kinds: of ``SUMS``.
    """
    digests, size = {kind: _digest(kind) for kind in kinds}, 0
    buffer = bytearray(_HASH_BYTES)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            for digest in digests.values():
                digest.update(memoryview(buffer)[:count])
            size += count
    return FileRecord(path.name, size, **{kind: digest.hexdigest() for kind, digest in digests.items()})


def _digest(kind: str) -> Any:
    # Neither if no sum is needed: hashlib loads OpenSSL, and an interpreter that only runs the reference has no BLAKE3.
    if kind == "blake3":
        import blake3

        return blake3.blake3()
    import hashlib

    return hashlib.sha256()


def file_record(path: Path) -> FileRecord:
    """Takes the size of a file only."""
    return FileRecord(path.name, path.stat().st_size)


def differing_sum(path: Path, recorded: FileRecord) -> str | None:
    """Which sum of a file is another one than was recorded, of ``SUMS``; None where all that were recorded are equal."""
    if not recorded.sums:
        return None
    found = hash_file(path, recorded.sums).sums
    return next((kind for kind, value in recorded.sums.items() if found[kind] != value), None)
