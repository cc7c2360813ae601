"""Checks chunks of an HDF5 dataset before HDF5 unpacks them, as it takes their stored sizes on trust.

HDF5 1.14 reads beyond a chunk that claims 3 bytes and a checksum. It allocates a gigabyte if a chunk claims one. It
unpacks a compressed chunk completely, however small the chunk should be.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

import h5py

MAX_CHUNK_BYTES = 128 * 2**20
# LZF unpacks to 88 times its size at most, and h5py makes chunks of up to 1 MiB.
MAX_LZF_BYTES = 2 * 2**20
_SHUFFLE, _DEFLATE, _FLETCHER, _LZF = (
    h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF,
)  # fmt: skip
# In the order in which they are applied; h5py and h5repack know no other.
_ORDER = {_SHUFFLE: 0, _DEFLATE: 1, _LZF: 1, _FLETCHER: 2}
_CHECKSUM_BYTES = 4


class UnsoundChunks(ValueError):
    """Chunks that HDF5 must not read; without the dataset's name."""


def check_filters(codes: list[int]) -> None:
    """Checks what chunks went through when they were written.

    Args:
        codes: HDF5's numbers of the filters, in order.

    Raises:
        UnsoundChunks: a filter that needs a plugin, or filters in an unknown order.
    """
    if unknown := [code for code in codes if code not in _ORDER]:
        raise UnsoundChunks(f"is compressed by filter {min(unknown)}, which needs a plugin")
    places = [_ORDER[code] for code in codes]
    if places != sorted(set(places)):
        raise UnsoundChunks("applies its filters in an unknown order")


def check_chunks(dataset: h5py.Dataset, codes: list[int], size: int) -> None:
    """Checks that every chunk is inside the file and that its size is possible.

    Args:
        dataset: a chunked one.
        codes: its filters.
        size: of the file, in bytes.

    Raises:
        UnsoundChunks: a chunk gives false sizes.
    """
    most = _chunk_bytes(dataset)
    if most > (limit := MAX_LZF_BYTES if _LZF in codes else MAX_CHUNK_BYTES):
        raise UnsoundChunks(f"has chunks of more than {limit:,} bytes; rewrite it with h5repack -l CONTI")
    lies: list[str] = []

    def visit(chunk: Any) -> bool | None:
        """Returning True ends the walk; an exception would be h5py's to report."""
        # Data that does not compress is stored with a few bytes more; the mask shows a filter that was left out.
        slack = most // 100 + 1000 if codes else 0
        least = most if not codes else _CHECKSUM_BYTES + 1 if _FLETCHER in codes else 1
        if not least <= chunk.size <= most + slack or chunk.byte_offset + chunk.size > size:
            lies.append(f"has a chunk of {chunk.size:,} bytes at byte {chunk.byte_offset:,}, which cannot be")
            return True
        return None

    dataset.id.chunk_iter(visit)
    if lies:
        raise UnsoundChunks(lies[0])


def check_packed(dataset: h5py.Dataset, codes: list[int], start: int, stop: int) -> None:
    """Checks that the chunks of some rows do not unpack to more than a chunk.

    Args:
        dataset: a chunked one.
        codes: its filters.
        start: first row.
        stop: the row after the last.

    Raises:
        UnsoundChunks: a chunk unpacks to more, or not at all.
    """
    if _DEFLATE not in codes:
        return
    rows, most = dataset.chunks[0], _chunk_bytes(dataset)
    places: list[tuple[int, ...]] = []

    def visit(chunk: Any) -> None:
        if chunk.chunk_offset[0] < stop and chunk.chunk_offset[0] + rows > start:
            places.append(chunk.chunk_offset)

    dataset.id.chunk_iter(visit)
    for place in places:
        mask, packed = dataset.id.read_direct_chunk(place)
        if mask & (1 << codes.index(_DEFLATE)):
            continue
        stream = zlib.decompressobj()
        try:
            unpacked = len(stream.decompress(packed, most + 1))
        except zlib.error as error:
            raise UnsoundChunks(f"has a chunk that does not decompress: {error}") from None
        if unpacked > most:
            raise UnsoundChunks(f"has a chunk that decompresses to more than its {most:,} bytes")


def _chunk_bytes(dataset: h5py.Dataset) -> int:
    nbytes: int = math.prod(dataset.chunks) * dataset.id.get_type().get_size()
    return nbytes
