"""Files that are summed while they are read for another purpose: the right sum, one reading, and no endless wait."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter import pt2tf, tf2pt
from converter.errors import CheckError, CorruptCheckpoint
from converter.folder.records import hash_file
from converter.specs import Extent, StoredTensor
from converter.tensors import batches, moves, passing
from converter.tensors import check as check_module
from converter.tensors.batches import in_order
from converter.tensors.files import Files
from converter.tensors.layouts import LAYOUTS
from converter.tensors.moves import Move
from converter.tensors.parallel import in_parallel
from converter.tensors.passing import PassingSum, together
from tests.tensors.test_check import LARGE, flip, offsets, spoil
from tests.tiny import assert_same, config_of, load, tensors_of, write_checkpoint, write_tiny

CONTENT = random.Random(3).randbytes(3000)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3000), max_size=12), st.integers(1, 900))
def test_the_sum_is_the_files_whatever_is_read(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], piece: int
) -> None:
    path = tmp_path_factory.mktemp("sums") / "file"
    path.write_bytes(CONTENT)
    cuts = sorted({*cuts})
    parts = list(zip(cuts[::2], cuts[1::2], strict=False))
    into = [np.zeros(end - begin, np.uint8) for begin, end in parts]
    with Files() as files, pytest.MonkeyPatch.context() as patch:
        patch.setattr(passing, "PIECE_BYTES", piece)
        files.open(path)
        taken = PassingSum(path, files, True)

        def task(number: int) -> Any:
            return lambda: taken.read(number, parts[number][0], into[number]) or 1

        in_parallel(together(map(task, range(len(parts))), [taken]), threads=4)
        record = taken.finish()
    assert record == hash_file(path)
    assert [held.tobytes() for held in into] == [CONTENT[begin:end] for begin, end in parts]


def test_a_failure_ends_the_waiting(tmp_path: Path) -> None:
    """The first part is never read; a reader that waits for it gets its error."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    with Files() as files:
        files.open(path)
        taken = PassingSum(path, files, True)

        def fail() -> int:
            raise CorruptCheckpoint("broken")

        def wait() -> int:
            taken.read(1, 100, np.zeros(10, np.uint8))
            return 1

        with pytest.raises(CorruptCheckpoint, match="broken"):
            in_parallel(together([fail, wait], [taken]), threads=2)


def test_a_file_that_shrinks_before_a_part(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT[:50])
    with Files() as files:
        files.open(path)
        with pytest.raises(CorruptCheckpoint, match="shrank while it was being read"):
            PassingSum(path, files, True).read(0, 100, np.zeros(10, np.uint8))


def test_what_overlaps_is_not_summed_on_the_way() -> None:
    """Two names for the same bytes, an end in two runs, and one too large: each in a file of its own."""

    def move(path: str, offset: int, size: int, pieces: Any = (), layout: str = "plain") -> Move:
        shape = (size // 2, 2) if layout == "dense" else (size,)
        source = StoredTensor("t", "float32", shape, Extent(Path(path), offset, 4 * size, pieces))
        target = StoredTensor("t", "float32", shape[::-1], Extent(Path("out"), 0, 4 * size))
        return Move("t", source, target, LAYOUTS[layout], True)

    found = in_order(
        [
            move("tied", 8, 10), move("tied", 8, 10), move("split", 0, 10, ((0, 20), (60, 20))), move("split", 80, 10),
            move("large", 0, moves.BLOCK_BYTES, layout="dense"), move("apart", 90, 10), move("apart", 0, 10),
            move("empty", 0, 0),
        ],
        "source",
        hashed=False,
    )  # fmt: skip
    assert found.in_order == {Path("apart")}
    assert [(str(m.source.extent.path), m.source.size) for m in found.loose if m.source.extent] == [
        ("empty", 0), ("large", moves.BLOCK_BYTES), ("split", 10),
    ]  # fmt: skip
    (apart,) = (batch for batch in found.batches if batch.extent.path == Path("apart"))
    assert (apart.extent.offset, apart.extent.nbytes, apart.number, len(apart.blocks)) == (0, 130, 0, 2)
    assert [batch.number for batch in found.batches if batch.extent.path == Path("tied")] == [0, 1]


@pytest.mark.parametrize("towers", [("vit", "bert"), ("clip_vision_model", "bert")])
@pytest.mark.parametrize("limits", [(64, 64, 2**20), (900, 200, 2**20), (2**19, 2**19, 700)])
def test_any_cut_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, towers: tuple[str, str], limits: tuple[int, int, int]
) -> None:
    """Files and hashes of there and back are those of what is not cut; a flipped byte is found however it is cut."""
    tensors = write_tiny(tmp_path / "pt", *towers)
    pt2tf(tmp_path / "pt", tmp_path / "whole")
    monkeypatch.setattr(batches, "GATHERED_BYTES", limits[0])
    monkeypatch.setattr(moves, "STRIP_BYTES", limits[1])
    monkeypatch.setattr(moves, "SMALL", 0)
    monkeypatch.setattr(moves, "TILE_BYTES", 32)
    monkeypatch.setattr(batches, "BLOCK_BYTES", limits[2])
    pt2tf(tmp_path / "pt", tmp_path / "cut")
    tf2pt(tmp_path / "cut", tmp_path / "back")
    whole, cut = (json.loads((tmp_path / name / "conversion.json").read_text()) for name in ("whole", "cut"))
    assert cut["files"] == whole["files"]
    assert cut["tensors"] == whole["tensors"]
    assert cut["source"]["files"] == whole["source"]["files"]
    assert whole["source"]["files"][0]["blake3"] == hash_file(tmp_path / "pt" / "model.safetensors").blake3
    assert whole["files"][0]["blake3"] == hash_file(tmp_path / "whole" / "tf_model.h5").blake3
    back = load(tmp_path / "back" / "model.safetensors")
    assert_same({name: back[name] for name in tensors}, tensors)
    spoil(monkeypatch, lambda path: flip(path, sum(offsets(path)[LARGE]) - 1))
    with pytest.raises(CheckError, match=f"^{LARGE}: what was written differs from the source, first at element "):
        pt2tf(tmp_path / "pt", tmp_path / "spoilt")


@pytest.mark.parametrize("check", [True, False])
def test_how_often_a_byte_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: bool) -> None:
    """Checked: the source to be moved and summed, and to be compared; the output once. Unchecked: the source once."""
    config = config_of(text_fields={"vocab_size": 20_000})
    write_checkpoint(tmp_path / "pt", config, tensors_of(config))
    read: Counter[int] = Counter()
    copied: Counter[int] = Counter()
    preadv, copy = os.preadv, os.copy_file_range

    def count(descriptor: int, views: Any, offset: int) -> int:
        found = preadv(descriptor, views, offset)
        read[os.fstat(descriptor).st_size] += found
        return found

    def count_copied(reader: int, writer: int, *rest: Any) -> int:
        found = copy(reader, writer, *rest)
        copied[os.fstat(reader).st_size] += found
        return found

    monkeypatch.setattr(os, "preadv", count)
    monkeypatch.setattr(os, "copy_file_range", count_copied)
    monkeypatch.setattr(check_module, "hash_file", lambda *_: pytest.fail("a file is read for its sum alone"))
    pt2tf(tmp_path / "pt", tmp_path / "tf", check=check)
    source, target = (tmp_path / name for name in ("pt/model.safetensors", "tf/tf_model.h5"))
    size = source.stat().st_size
    assert size > 10**6
    assert read[size] + copied[size] <= (2 if check else 1) * size + 20_000
    assert read[target.stat().st_size] <= (target.stat().st_size if check else 0)
