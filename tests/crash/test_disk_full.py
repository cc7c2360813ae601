"""The disk fills at any stage: refused in one line, nothing left, an old OUT as it was."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from converter import tf2pt, verify
from converter.errors import TargetError
from tests.crash import children
from tests.crash.conftest import Mounted
from tests.crash.preparing import a_disk_full_for_a_rename, with_small_files, without_looking_at_the_disk
from tests.crash.sources import CASES, content, foreign, put_foreign
from tests.hdf5_files import read_all, write_h5
from tests.torture import FULL, rounds

PAGE = 4096
DISK = 4 * 2**20
IS_FULL = r"cannot be written(, nothing was left behind: the disk is full|: it needs 0 MB, .*); free some space"


@pytest.mark.parametrize("late", [True, pytest.param(False, marks=pytest.mark.torture)], ids=["fills later", "is full"])
@pytest.mark.parametrize("name", CASES)
def test_a_disk_that_is_full(small: Path, talk: Path, mounted: Mounted, name: str, late: bool) -> None:
    """A tmpfs with room for more and more pages, until the conversion fits."""
    case, disk = CASES[name], mounted("tmpfs", f"size={DISK}")
    arguments = case.words(small, disk / "out")
    prepare = without_looking_at_the_disk if late else None
    assert children.run(arguments, talk, prepare=prepare).status == 0
    pages = (DISK - shutil.disk_usage(disk).free) // PAGE
    shutil.rmtree(disk / "out")
    ballast = disk / "ballast"
    refused = 0
    turns = rounds(sample=3, full=60)
    for free in [pages * turn // turns for turn in range(turns)] + [pages - 2, pages - 1, pages]:
        ballast.unlink(missing_ok=True)
        ballast.write_bytes(b"\0" * (shutil.disk_usage(disk).free - free * PAGE))
        ended = children.run(arguments, talk, prepare=prepare)
        if ended.status == 0:
            assert ended.err == ""
            shutil.rmtree(disk / "out")
            continue
        refused += 1
        assert ended.status == 1, ended
        assert re.fullmatch(rf"convert: {disk / 'out'}: {IS_FULL}\n", ended.err) or re.fullmatch(
            rf"convert: {disk / 'out'}: cannot be made: No space left on device; choose another folder\n", ended.err
        ), ended.err
        assert sorted(path.name for path in disk.iterdir()) == ["ballast"]
    assert refused >= turns


@pytest.mark.parametrize("name", CASES)
def test_no_file_may_grow_beyond_a_limit(small: Path, tmp_path: Path, talk: Path, name: str) -> None:
    """Whatever grows fails where the limit is, as on a full disk, also where nothing may be mounted."""
    case, place = CASES[name], tmp_path / "place"
    place.mkdir()
    arguments = case.words(small, place / "out")
    assert children.run(arguments, talk).status == 0
    put_foreign(place / "out")
    others = foreign(place / "out")
    largest = max(path.stat().st_size for path in (place / "out").iterdir() if path.is_file())
    old = content(place / "out")
    turns = rounds(sample=3, full=60)
    for turn in range(turns):
        limit = PAGE + (largest - PAGE) * turn // turns
        ended = children.run([*arguments, "--overwrite"], talk, prepare=partial(with_small_files, limit))
        assert (ended.status, ended.out, ended.err) == (
            1, "", f"convert: {place / 'out'}: cannot be written, nothing was left behind: the file system does not "
                   "support files of this size; choose another\n",
        )  # fmt: skip
        assert content(place / "out") == old
        assert [path.name for path in place.iterdir()] == ["out"]
    prepare = partial(with_small_files, 2 * largest + 2**20)  # a spool may be larger than what comes of it
    assert children.run([*arguments, "--overwrite"], talk, prepare=prepare).status == 0
    assert foreign(place / "out") == others


@pytest.mark.parametrize("name", ["safetensors to h5", "shards to h5 shards", "h5 to bin"])
def test_a_disk_that_has_no_room_for_a_name(small: Path, tmp_path: Path, talk: Path, name: str) -> None:
    """Whichever rename it is that fails: all is put back, and what is not ours was never touched."""
    out = tmp_path / "place" / "out"
    assert children.run(CASES["safetensors to shards"].words(small, out), talk).status == 0
    put_foreign(out)
    before, old = foreign(out), content(out)
    for number in range(1, 100):
        line = [*CASES[name].words(small, out), "--overwrite"]
        ended = children.run(line, talk, prepare=partial(a_disk_full_for_a_rename, number))
        assert foreign(out) == before
        assert [path.name for path in out.parent.iterdir()] == ["out"]
        if ended.status == 0:
            break
        full = "cannot be written, nothing was left behind: the disk is full; free some space"
        assert (ended.status, ended.err) == (1, f"convert: {out}: {full}\n")
        if "tf_model.h5" in content(out) or content(out) != old:  # it was the last of them: all was in its place
            assert verify(out, weights_only=True).passed
    assert number > 8


# Where bytes leave this process for the disk, and files are made.
CALLS: list[tuple[Any, str]] = [
    (os, "pwrite"), (os, "copy_file_range"), (shutil, "copyfile"), (Path, "write_bytes"), (Path, "write_text"),
    (Path, "mkdir"), (Path, "open"), (h5py, "File"),
]  # fmt: skip
CODES = {"ENOSPC": errno.ENOSPC, "EDQUOT": errno.EDQUOT, "EIO": errno.EIO}
NAMES = ("shards to h5 shards", "h5 to bin", "safetensors to shards", "chunked h5 to safetensors", "towers to h5")
IN_FULL = [(name, code) for name in NAMES for code in CODES]
SAMPLE = [*zip(NAMES, [*CODES, "ENOSPC", "EDQUOT"], strict=True)]


@pytest.mark.parametrize(("name", "code"), IN_FULL if FULL else SAMPLE)
def test_every_call_that_writes_may_fail(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str
) -> None:
    case = CASES[name]
    out = tmp_path / "place" / "out"
    shards = {"max_shard_size": "40KB"} if "--max-shard-size" in case.options else {}
    convert = partial(case.convert, small, out, overwrite=True, **shards)
    convert()
    put_foreign(out)
    old, others = content(out), foreign(out)
    tried = 0
    for owner, attribute in CALLS:
        for chosen in (0, 0.5, 1) if FULL else (0, 1):
            tried += fails(convert, out, owner, attribute, chosen, CODES[code], monkeypatch)
            assert (content(out), foreign(out)) == (old, others)
            assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert tried >= (12 if FULL else 8)


def fails(
    convert: Callable[[], object],
    out: Path,
    owner: Any,
    attribute: str,
    chosen: float,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
) -> bool:
    """Lets one call fail, chosen from all those to the output by its place from 0 (first) to 1 (last)."""
    real = getattr(owner, attribute)
    counted = 0
    failing = -1

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal counted
        mode = options.get("mode", arguments[1] if len(arguments) > 1 else "r")
        if attribute not in ("open", "File") or set(mode) & set("wxa+"):  # not files that are read
            counted += 1
            if counted - 1 == failing:
                raise OSError(code, os.strerror(code))
        return real(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(owner, attribute, call)
        convert()
        if counted == 0:
            return False
        failing, counted = int(chosen * (counted - 1)), 0
        with pytest.raises(TargetError) as caught:
            convert()
    assert str(caught.value).startswith(f"{out}: cannot be ")
    return True


def test_room_for_what_is_read_by_rows_is_asked_for(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunked HDF5 is first written as one run of bytes, beside the output."""
    source = tmp_path / "src"
    source.mkdir()
    shutil.copyfile(small / "tf" / "config.json", source / "config.json")
    tensors = read_all(small / "tf" / "tf_model.h5")
    write_h5(source / "tf_model.h5", tensors, chunks=True)
    nbytes = sum(array.nbytes for array in tensors.values())
    chunked = sum(array.nbytes for array in tensors.values() if array.size and array.ndim)
    real = shutil.disk_usage
    free = nbytes + chunked - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=free))
    with pytest.raises(TargetError, match="it needs 0 MB, the disk has 0 MB free; free some space"):
        tf2pt(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    free += 1
    assert tf2pt(source, tmp_path / "out").checked
    assert np.isclose(nbytes, chunked, rtol=0.1)
