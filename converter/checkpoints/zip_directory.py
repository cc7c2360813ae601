"""Zip archives with uncompressed entries: finds each entry's bytes, and lays out new ones.

It is stricter than the zip format, because torch's own archives are plain. Nothing may be compressed or encrypted, there are
no comments and no overlaps, names stay inside, and local headers agree with the central directory.
Source: PKWARE APPNOTE.TXT 6.3.10, sections 4.3 to 4.5.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from converter.errors import CorruptCheckpoint, UnsupportedContainer, printable
from converter.system.bytes_at import read_at, write_at

# Far more than the 20,000 tensors of the largest known checkpoints; 100,000 entries with names of 200 characters.
MAX_ENTRIES = 100_000
MAX_DIRECTORY_BYTES = 32 * 2**20

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_FULL = 0xFFFFFFFF  # "see the zip64 field"
_SIZES_FOLLOW, _UTF8 = 0x0008, 0x0800
_ALIGNMENT = 64
_MADE_WITH, _DATE = 45, 0x0021  # zip64; 1 January 1980, so that equal weights give equal files
_CRC_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Entry:
    """One file in an archive.

    Attributes:
        name: as the archive spells it.
        header: where its local header begins.
        data: where its bytes begin.
        nbytes: how many they are.
        record: where its record in the central directory begins.
    """

    name: str
    header: int
    data: int
    nbytes: int
    record: int


def read_directory(path: Path) -> dict[str, Entry]:
    """Finds every entry of an archive, in the order of its central directory.

    Raises:
        CorruptCheckpoint: truncated, contradicts itself, or names and places that leave the archive.
        UnsupportedContainer: compressed or encrypted entries.
    """
    with path.open("rb") as file:
        start, end, count = _find_directory(path, file)
        file.seek(start)
        directory = file.read(end - start)
        entries: dict[str, Entry] = {}
        position = 0
        for _ in range(count):
            entry, position = _read_record(path, file, directory, position, start)
            if entry.name in entries:
                raise _corrupt(path, f"it holds {printable(entry.name)} twice")
            entries[entry.name] = entry
    if position != len(directory):
        raise _corrupt(path, f"its directory has {len(directory) - position:,} bytes more than its {count:,} entries")
    _check_apart(path, entries.values(), start)
    return entries


def entry_names(path: Path) -> list[str]:
    """Names of an archive's entries as its directory spells them, unchecked, up to the first invalid one.

    For saying what an archive is that is stricter judged afterwards.
    """
    names: list[str] = []
    with path.open("rb") as file:
        start, end, count = _find_directory(path, file)
        file.seek(start)
        directory = file.read(end - start)
    position = 0
    while len(names) < count and len(directory) - position >= _CENTRAL.size:
        record = _CENTRAL.unpack_from(directory, position)
        name_at, length = position + _CENTRAL.size, record[10]
        names.append(directory[name_at : name_at + length].decode("utf-8", "replace"))
        position = name_at + length + record[11] + record[12]
    return names


def write_directory(path: Path, contents: Iterable[tuple[str, bytes | int]]) -> dict[str, int]:
    """Creates an archive of its full size: headers and directory written, checksums left to ``seal``.

    Every entry's bytes begin at a multiple of 64, which torch's archives do by the same padding (an extra field FB).

    Args:
        path: must not exist.
        contents: name of each entry, and either its bytes or how many will be written to it later.

    Returns:
        By name, where the entry's bytes begin.
    """
    offsets: dict[str, int] = {}
    records: list[bytes] = []
    with path.open("xb") as file:
        for name, content in contents:
            header, nbytes = file.tell(), content if isinstance(content, int) else len(content)
            file.write(_local_header(name.encode(), nbytes, header))
            offsets[name] = file.tell()
            records.append(_record(name.encode(), nbytes, header))
            if isinstance(content, int):
                file.seek(nbytes, os.SEEK_CUR)
            else:
                file.write(content)
        start = file.tell()
        directory = b"".join(records)
        file.write(directory + _end(len(records), len(directory), start))
    return offsets


def seal(path: Path, threads: int = 1) -> None:
    """Computes the checksum of every entry from its bytes and writes it into the local header and the directory.

    Args:
        path: an archive by ``write_directory``, all entries written.
        threads: how many entries are read at once.
    """
    entries = read_directory(path)
    with path.open("r+b", buffering=0) as file:
        descriptor = file.fileno()

        def seal_entry(entry: Entry) -> None:
            checksum = _checksum(path, descriptor, entry).to_bytes(4, "little")
            write_at(descriptor, checksum, entry.header + 14)
            write_at(descriptor, checksum, entry.record + 16)

        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(seal_entry, entries.values()):
                pass


def _find_directory(path: Path, file: BinaryIO) -> tuple[int, int, int]:
    """Begin and end of the central directory, and how many records it has."""
    size = file.seek(0, os.SEEK_END)
    tail_at = max(0, size - _END.size - _LOCATOR.size - _END64.size)
    file.seek(tail_at)
    tail = file.read()
    if len(tail) < _END.size or not tail[-_END.size :].startswith(b"PK\x05\x06"):
        raise _corrupt(path, "it does not end with a zip directory: it is truncated, or bytes follow the directory")
    _, disk, first_disk, here, count, length, start, comment = _END.unpack(tail[-_END.size :])
    end = size - _END.size
    if disk or first_disk or here != count or comment:
        raise _corrupt(path, "it is one part of several, or has a comment")
    if tail[-_END.size - _LOCATOR.size :].startswith(b"PK\x06\x07") and len(tail) >= _END.size + _LOCATOR.size:
        _, disk, at, disks = _LOCATOR.unpack(tail[-_END.size - _LOCATOR.size : -_END.size])
        end -= _LOCATOR.size + _END64.size
        if disk or disks > 1 or end < 0 or at != end or not tail.startswith(b"PK\x06\x06"):
            raise _corrupt(path, "its zip64 records lie elsewhere than they claim")
        _, _, _, _, disk, first_disk, here, many, long, far = _END64.unpack(tail[: _END64.size])
        short = ((count, many, 0xFFFF), (length, long, _FULL), (start, far, _FULL))
        if disk or first_disk or here != many or any(small not in (large, full) for small, large, full in short):
            raise _corrupt(path, "its zip64 records contradict the others")
        count, length, start = many, long, far
    if start + length != end:
        raise _corrupt(path, f"its directory would be {length:,} bytes at {start:,}, and its end is at {end:,}")
    if count > MAX_ENTRIES or length > MAX_DIRECTORY_BYTES:
        raise _corrupt(
            path, f"its directory has {count:,} entries in {length:,} bytes; accepted are {MAX_ENTRIES:,} in "
            f"{MAX_DIRECTORY_BYTES:,}"
        )  # fmt: skip
    return start, end, count


def _read_record(path: Path, file: BinaryIO, directory: bytes, position: int, start: int) -> tuple[Entry, int]:
    if len(directory) - position < _CENTRAL.size or not directory.startswith(b"PK\x01\x02", position):
        raise _corrupt(path, f"its directory ends early at byte {position:,}")
    record = _CENTRAL.unpack_from(directory, position)
    _, _, _, flags, method, _, _, _, packed, nbytes, name_length, extra_length, comment_length, disk = record[:14]
    name_at = position + _CENTRAL.size
    extra_at = name_at + name_length
    after = extra_at + extra_length + comment_length
    if after > len(directory):
        raise _corrupt(path, f"its directory ends early at byte {position:,}")
    spelled = directory[name_at:extra_at]
    name = _check_name(path, spelled)
    where = printable(name)
    nbytes, packed, header = _zip64(
        path, where, directory[extra_at : extra_at + extra_length], nbytes, packed, record[16]
    )
    if flags & ~(_SIZES_FOLLOW | _UTF8) or disk:
        what = "is encrypted" if flags & 1 else f"has flags {flags:#06x}"
        raise UnsupportedContainer(f"{path}: its entry {where} {what}, which torch never writes; {_RESAVE}")
    if method or packed != nbytes:
        raise UnsupportedContainer(f"{path}: its entry {where} is compressed, which torch never does; {_RESAVE}")
    data = _check_local(path, file, header, spelled, flags, nbytes, start)
    return Entry(name, header, data, nbytes, start + position), after


def _check_name(path: Path, spelled: bytes) -> str:
    try:
        name = spelled.decode("utf-8")
    except UnicodeDecodeError:
        raise _corrupt(path, f"its entry {printable(repr(spelled))} has a name that is not UTF-8") from None
    parts = name.split("/")
    if "" in parts or "." in parts or ".." in parts or "\\" in name or ":" in parts[0] or "\0" in name:
        raise _corrupt(path, f"its entry {printable(name)} has a name that is not a plain path inside the archive")
    return name


def _zip64(path: Path, where: str, extra: bytes, *sizes: int) -> list[int]:
    """Replaces those of size, packed size and offset that are full by what the zip64 field says."""
    found = list(sizes)
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        field = extra[position + 4 : position + 4 + length]
        if kind == 1:
            wide = [index for index, size in enumerate(found) if size == _FULL]
            if len(field) < 8 * len(wide):
                raise _corrupt(path, f"the zip64 field of its entry {where} is too short")
            for number, index in enumerate(wide):
                found[index] = int.from_bytes(field[8 * number : 8 * number + 8], "little")
            break
        position += 4 + length
    return found


def _check_local(path: Path, file: BinaryIO, header: int, spelled: bytes, flags: int, nbytes: int, limit: int) -> int:
    """Compares an entry's local header with the directory; gives where its bytes begin."""
    where = printable(spelled.decode())
    file.seek(header if header <= limit else limit)
    local = file.read(_LOCAL.size)
    if header + _LOCAL.size > limit or not local.startswith(b"PK\x03\x04"):
        raise _corrupt(path, f"its entry {where} would begin at byte {header:,}, where none does")
    _, _, local_flags, method, _, _, _, packed, size, name_length, extra_length = _LOCAL.unpack(local)
    name = file.read(name_length)
    size, packed = _zip64(path, where, file.read(extra_length), size, packed)
    # torch writes sizes after the data; the header then has none.
    told = (packed, size) == (nbytes, nbytes) or ((packed, size) == (0, 0) and bool(flags & _SIZES_FOLLOW))
    if name != spelled or local_flags != flags or method or not told:
        raise _corrupt(path, f"its entry {where} has a header that contradicts the directory")
    data: int = header + _LOCAL.size + name_length + extra_length
    if data + nbytes > limit:
        raise _corrupt(path, f"its entry {where} of {nbytes:,} bytes would reach beyond the directory at {limit:,}")
    return data


def _check_apart(path: Path, entries: Iterable[Entry], limit: int) -> None:
    position = 0
    for entry in sorted(entries, key=lambda entry: entry.header):
        if entry.header < position or entry.data + entry.nbytes > limit:
            raise _corrupt(path, f"its entry {printable(entry.name)} overlaps another")
        position = entry.data + entry.nbytes


def _local_header(name: bytes, nbytes: int, header: int) -> bytes:
    wide = nbytes >= _FULL
    extra = struct.pack("<2H2Q", 1, 16, nbytes, nbytes) if wide else b""
    padding = -(header + _LOCAL.size + len(name) + len(extra) + 4) % _ALIGNMENT
    extra += b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    size = _FULL if wide else nbytes
    return (
        _LOCAL.pack(b"PK\x03\x04", _MADE_WITH, _UTF8, 0, 0, _DATE, 0, size, size, len(name), len(extra)) + name + extra
    )


def _record(name: bytes, nbytes: int, header: int) -> bytes:
    size, place = min(nbytes, _FULL), min(header, _FULL)
    wide = [nbytes, nbytes] * (size == _FULL) + [header] * (place == _FULL)
    extra = struct.pack(f"<2H{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
    fields = (b"PK\x01\x02", _MADE_WITH, _MADE_WITH, _UTF8, 0, 0, _DATE, 0, size, size, len(name), len(extra))
    return _CENTRAL.pack(*fields, 0, 0, 0, 0, place) + name + extra


def _end(count: int, length: int, start: int) -> bytes:
    """The end records, those of zip64 always, as torch has them."""
    end64 = _END64.pack(b"PK\x06\x06", _END64.size - 12, _MADE_WITH, _MADE_WITH, 0, 0, count, count, length, start)
    locator = _LOCATOR.pack(b"PK\x06\x07", 0, start + length, 1)
    few = min(count, 0xFFFF)
    return end64 + locator + _END.pack(b"PK\x05\x06", 0, 0, few, few, min(length, _FULL), min(start, _FULL), 0)


def _checksum(path: Path, descriptor: int, entry: Entry) -> int:
    checksum, done = 0, 0
    buffer = bytearray(min(_CRC_BYTES, max(entry.nbytes, 1)))
    while done < entry.nbytes:
        piece = memoryview(buffer)[: entry.nbytes - done]
        count = read_at(descriptor, piece, entry.data + done)
        if count == 0:
            raise _corrupt(path, "it shrank while it was being read")
        checksum = zlib.crc32(piece[:count], checksum)
        done += count
    return checksum


_RESAVE = "save the checkpoint again with torch.save or save_pretrained"


def _corrupt(path: Path, what: str) -> CorruptCheckpoint:
    return CorruptCheckpoint(f"{path}: not a valid torch zip archive: {what}; download or save it again")
