"""Moves between extents, cut into tiny blocks, so that every stride and remainder occurs; NumPy says what is right."""

from __future__ import annotations

import errno
import itertools
import os
import threading
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.errors import CorruptCheckpoint
from converter.specs import Extent, StoredTensor
from converter.tensors import moves
from converter.tensors.casts import numpy_dtype
from converter.tensors.files import Files
from converter.tensors.layouts import LAYOUTS
from converter.tensors.moves import Move, blocks, read_turned, write_block
from converter.tensors.parallel import THREADS, in_parallel

Array = np.ndarray[Any, Any]
GAP = 13  # bytes before an extent: neither file begins with it, and nothing is aligned
GUARD = b"\xa5" * 11


def stored(path: Path, array: Array, dtype: str) -> StoredTensor:
    return StoredTensor("t", dtype, array.shape, Extent(path, GAP, array.nbytes))


def moved(
    tmp_path: Path,
    pt: Array,
    layout: str,
    *,
    from_pt: bool,
    limit: int,
    copy_limit: int = 64,
    dtype: str | None = None,
    reverse: bool = False,
) -> Array:
    """Moves an array by blocks from file to file; checks that nothing beside the target's extent was written."""
    tf = pt.reshape(LAYOUTS[layout].shape_from_pt(pt.shape)) if LAYOUTS[layout].axes is None else None
    tf = np.ascontiguousarray(pt.transpose(LAYOUTS[layout].axes)) if tf is None else tf
    before, after = (pt, tf) if from_pt else (tf, pt)
    wanted = dtype or before.dtype.name
    expected = after if dtype is None else after.astype(numpy_dtype(dtype))
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(GUARD[:GAP].ljust(GAP, b"x") + before.tobytes() + GUARD)
    target.write_bytes(b"y" * GAP + b"\xee" * expected.nbytes + GUARD)
    move = Move(
        "t", stored(source, before, before.dtype.name), stored(target, expected, wanted), LAYOUTS[layout], from_pt
    )
    cut = list(blocks([move], limit, copy_limit))
    with Files() as files:
        files.open(source)
        files.open(target, write=True)
        for block in reversed(cut) if reverse else cut:
            write_block(files, block)
    content = target.read_bytes()
    assert content[:GAP] == b"y" * GAP
    assert content[-len(GUARD) :] == GUARD
    found = np.frombuffer(content[GAP : -len(GUARD)], numpy_dtype(wanted)).reshape(expected.shape)
    assert found.tobytes() == expected.tobytes()
    return found


def noise(*shape: int, dtype: Any = np.float32) -> Array:
    return np.asarray(np.random.default_rng(5).standard_normal(shape) * 9, np.float32).astype(dtype)


@pytest.mark.parametrize("from_pt", [True, False])
@pytest.mark.parametrize("limit", [1, 50, 120, 1000, 10**6])
@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        ("dense", (11, 7)),
        ("dense", (1, 9)),
        ("dense", (9, 1)),
        ("conv1d", (7, 3, 5)),
        ("conv2d", (7, 3, 5, 2)),
        ("conv2d", (1, 1, 1, 1)),
    ],
)
def test_transposed_by_blocks(tmp_path: Path, layout: str, shape: tuple[int, ...], limit: int, from_pt: bool) -> None:
    moved(tmp_path, noise(*shape), layout, from_pt=from_pt, limit=limit)


@pytest.mark.parametrize("from_pt", [True, False])
@pytest.mark.parametrize("copy_limit", [1, 5, 64, 10**6])
@pytest.mark.parametrize(("layout", "shape"), [("plain", (11, 7)), ("plain", (5,)), ("scalar", ())])
def test_copied_by_blocks(tmp_path: Path, layout: str, shape: tuple[int, ...], copy_limit: int, from_pt: bool) -> None:
    moved(tmp_path, noise(*shape), layout, from_pt=from_pt, limit=64, copy_limit=copy_limit)


@settings(max_examples=40)
@given(
    st.sampled_from(["dense", "conv1d", "conv2d", "plain"]),
    st.lists(st.integers(1, 9), min_size=4, max_size=4),
    st.integers(1, 700),
    st.booleans(),
    st.sampled_from([None, "float16", "bfloat16", "float32", "float64"]),
    st.sampled_from([np.float32, np.float16, ml_dtypes.bfloat16]),
)
def test_any_shape_limit_and_cast(
    tmp_path_factory: pytest.TempPathFactory,
    layout: str,
    sizes: list[int],
    limit: int,
    from_pt: bool,
    dtype: str | None,
    source: Any,
) -> None:
    shape = sizes[: {"dense": 2, "conv1d": 3, "conv2d": 4, "plain": 3}[layout]]
    folder = tmp_path_factory.mktemp("moves")
    moved(folder, noise(*shape, dtype=source), layout, from_pt=from_pt, limit=limit, dtype=dtype)


@pytest.mark.parametrize("dtype", ["int64", "int8", "uint16", "bool"])
def test_integers(tmp_path: Path, dtype: str) -> None:
    data = np.arange(77).reshape(11, 7).astype(dtype)
    moved(tmp_path, data, "dense", from_pt=True, limit=40)
    moved(tmp_path, data, "plain", from_pt=False, limit=40)


def test_order_of_blocks_does_not_matter(tmp_path: Path) -> None:
    moved(tmp_path, noise(12, 5), "dense", from_pt=True, limit=60, reverse=True)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
def test_nothing_to_move(tmp_path: Path, shape: tuple[int, int]) -> None:
    moved(tmp_path, noise(*shape), "dense", from_pt=True, limit=60)


@pytest.mark.parametrize("limit", [1, 100, 10**6])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_blocks_cover_every_row_once(limit: int, dtype: str) -> None:
    tensor = StoredTensor("t", "float32", (13, 7), Extent(Path("a"), 0, 364))
    target = StoredTensor("t", dtype, (7, 13), Extent(Path("b"), 0, 364))
    cut = list(blocks([Move("t", tensor, target, LAYOUTS["dense"], True)], limit))
    assert [block.start for block in cut] == [0, *(block.stop for block in cut[:-1])]
    assert cut[-1].stop == 13
    width = 7 * (8 if dtype == "float64" else 4)
    assert all((block.stop - block.start) * width <= max(limit, width) for block in cut)


@pytest.mark.parametrize("code", ["ENOSYS", "EXDEV", "EOPNOTSUPP", "EINVAL", "EPERM", "EBADF", "ETXTBSY", "absent"])
def test_copies_without_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(getattr(errno, code), "no")

    if code == "absent":
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    else:
        monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    moved(tmp_path, noise(11, 7), "plain", from_pt=True, limit=64, copy_limit=40)


def test_a_copy_that_stops_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.copy_file_range
    monkeypatch.setattr(os, "copy_file_range", lambda a, b, count, *rest: real(a, b, min(count, 7), *rest))
    moved(tmp_path, noise(11, 7), "plain", from_pt=True, limit=64, copy_limit=100)


def test_reads_and_writes_that_stop_short_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preadv, pwrite = os.preadv, os.pwrite
    monkeypatch.setattr(os, "preadv", lambda fd, views, offset, *flags: preadv(fd, [views[0][:5]], offset))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:3], offset))
    moved(tmp_path, noise(11, 7), "dense", from_pt=True, limit=64)
    moved(tmp_path, noise(11, 7), "dense", from_pt=False, limit=64)


def test_other_failures_of_a_copy_are_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> int:
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(os, "copy_file_range", fail, raising=False)
    with pytest.raises(OSError, match="I/O error"):
        moved(tmp_path, noise(11, 7), "plain", from_pt=True, limit=64)


@pytest.mark.parametrize("layout", ["plain", "dense"])
def test_a_source_that_shrinks(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "source"
    path.write_bytes(b"x" * 100)
    (tmp_path / "target").write_bytes(b"y" * 400)
    source = StoredTensor("t", "float32", (10, 10), Extent(path, 0, 400))
    target = StoredTensor("t", "float32", (10, 10), Extent(tmp_path / "target", 0, 400))
    with Files() as files:
        files.open(path)
        files.open(tmp_path / "target", write=True)
        with pytest.raises(CorruptCheckpoint) as caught:
            for block in blocks([Move("t", source, target, LAYOUTS[layout], True)]):
                write_block(files, block)
    assert str(caught.value) == f"{path}: shrank while it was being read; convert it again"


def test_a_file_that_is_too_short_is_not_mapped(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    with Files() as files:
        files.open(path)
        assert files.mapped(Extent(path, 90, 10), np.uint8).tolist() == list(range(90, 100))
        assert files.mapped(Extent(path, 0, 0), np.float32).tolist() == []
        with pytest.raises(CorruptCheckpoint, match="shrank while it was being read"):
            files.mapped(Extent(path, 91, 10), np.uint8)


def test_a_tensor_without_extent_is_a_mistake_of_ours() -> None:
    move = Move("t", StoredTensor("t", "float32", (2, 2)), StoredTensor("t", "float32", (2, 2)), LAYOUTS["dense"], True)
    with Files() as files, pytest.raises(ValueError, match="t has no extent"):
        write_block(files, next(blocks([move])))


def test_files_are_closed() -> None:
    with Files() as files:
        descriptor = files.open(Path(__file__))
        assert files.open(Path(__file__)) == descriptor
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_tasks_run_and_report() -> None:
    told: list[int] = []
    in_parallel([lambda number=number: number for number in range(20)], told.append, threads=3)  # type: ignore[misc]
    assert sorted(told) == list(range(20))


def test_the_first_error_stops_the_rest() -> None:
    ran = itertools.count()
    gate = threading.Event()

    def fail() -> int:
        gate.set()
        raise CorruptCheckpoint("broken")

    def wait() -> int:
        gate.wait(5)
        return next(ran)

    with pytest.raises(CorruptCheckpoint, match="broken"):
        in_parallel([fail, *[wait] * 500], threads=1)
    assert next(ran) < 500


def test_limits_of_memory_and_threads() -> None:
    assert 1 <= THREADS <= 4
    assert 2 * moves.BLOCK_BYTES * THREADS <= 100 * 2**20


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (300, 7), (130, 65), (5, 0), (0, 5)])
@pytest.mark.parametrize("strip", [1, 1000, 10**6])
def test_a_matrix_is_turned_as_it_is_read(
    tmp_path: Path, shape: tuple[int, int], strip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moves, "STRIP_BYTES", strip)
    matrix = np.random.default_rng(3).standard_normal(shape, np.float32)
    (tmp_path / "source").write_bytes(b"x" * GAP + matrix.tobytes())
    with Files() as files:
        files.open(tmp_path / "source")
        found = np.full(shape[::-1], np.nan, np.float32)
        read_turned(files, stored(tmp_path / "source", matrix, "float32"), found)
    np.testing.assert_array_equal(found, matrix.T)
