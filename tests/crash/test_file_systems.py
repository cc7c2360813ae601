"""File systems and kernels that cannot do everything: the same output, by other ways, or a refusal."""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from converter import verify
from tests.crash import children
from tests.crash.conftest import Mounted
from tests.crash.preparing import NO_COPIES, NO_RENAMES, failing_copies, failing_renames, without_holes
from tests.crash.sources import CASES, content
from tests.torture import FULL

RENAMES = {f"rename-{errno.errorcode[code]}": partial(failing_renames, code) for code in NO_RENAMES}
COPIES = {f"copy-{code}": partial(failing_copies, code) for code in NO_COPIES}
LACKS: dict[str, Callable[[], None]] = {"no holes": without_holes, **RENAMES, **COPIES}


@pytest.mark.parametrize(
    ("lack", "overwrite"),
    [(lack, False) for lack in LACKS] + [(lack, True) for lack in (LACKS if FULL else RENAMES)],
)
@pytest.mark.parametrize(
    "name", ["safetensors to shards", "h5 to bin", pytest.param("safetensors to h5", marks=pytest.mark.torture)]
)
def test_a_kernel_that_has_not_got_it(
    small: Path, tmp_path: Path, talk: Path, name: str, lack: str, overwrite: bool
) -> None:
    case = CASES[name]
    place = tmp_path / "place"
    place.mkdir()
    arguments = case.words(small, place / "out")
    if lack.startswith("copy"):  # what is checked passes through memory, to be summed
        arguments += ["--no-check"]
    assert children.run(arguments, talk).status == 0
    whole = content(place / "out")
    if overwrite:
        (place / "out" / "more").touch()
        whole = content(place / "out")
        arguments += ["--overwrite"]
    else:
        shutil.rmtree(place / "out")
    ended = children.run(arguments, talk, prepare=LACKS[lack])
    assert (ended.status, ended.err) == (0, "")
    assert content(place / "out") == whole
    assert [path.name for path in place.iterdir()] == ["out"]


def test_an_error_of_the_copy_that_is_none_of_these_is_not_hidden(small: Path, tmp_path: Path, talk: Path) -> None:
    arguments = ["pt2tf", str(small / "pt"), str(tmp_path / "out"), "--format", "safetensors", "--no-check"]
    ended = children.run(arguments, talk, prepare=partial(failing_copies, errno.EIO))
    assert (ended.status, ended.err) == (
        1,
        f"convert: {tmp_path / 'out'}: cannot be written, nothing was left behind: the disk reports a read or write "
        "error; choose another\n",
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["ramfs", "ext2", "overlay"])
def test_other_file_systems(small: Path, tmp_path: Path, talk: Path, mounted: Mounted, kind: str) -> None:
    """ramfs does not know its size, ext2 keeps no extents, overlay renames only what is its own."""
    place = tmp_path / "place"
    place.mkdir()
    disk = mounted_as(kind, tmp_path, mounted)
    for name in ("safetensors to h5", "bin to safetensors", "h5 to bin", "safetensors back to shards"):
        case = CASES[name]
        assert children.run(case.words(small, place / "out"), talk).status == 0
        for overwrite in ([], ["--overwrite"]):
            ended = children.run([*case.words(small, disk / "out"), *overwrite], talk)
            assert (ended.status, ended.err) == (0, "")
            assert differing(disk / "out", place / "out") <= {"conversion.json"}  # it names the source from there
            assert [path.name for path in disk.iterdir() if path.name != "lost+found"] == ["out"]
        shutil.rmtree(disk / "out")
        shutil.rmtree(place / "out")


def mounted_as(kind: str, tmp_path: Path, mounted: Mounted) -> Path:
    if kind == "ramfs":
        return mounted("ramfs", "size=20m")
    if kind == "overlay":
        base = mounted("tmpfs", "size=40m")
        for name in ("lower", "upper", "work"):
            (base / name).mkdir()
        return mounted("overlay", f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work", "overlay")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(30 * 2**20)
    if shutil.which("mkfs.ext2") is None:
        pytest.skip("there is no program to make file systems with (mkfs.ext2)")
    subprocess.run(["mkfs.ext2", "-q", str(image)], check=True, capture_output=True)
    return mounted(kind, "loop", str(image))


def differing(one: Path, other: Path) -> set[str]:
    a, b = content(one), content(other)
    return {name for name in a.keys() | b.keys() if a.get(name) != b.get(name)}


def test_an_output_in_a_lower_layer(small: Path, talk: Path, mounted: Mounted) -> None:
    """As in a container whose image holds OUT: overlayfs refuses to rename such a folder, which nobody asks of it."""
    base = mounted("tmpfs", "size=40m")
    for name in ("lower/out/.git", "upper", "work"):
        (base / name).mkdir(parents=True)
    for name in ("config.json", "README.md", ".git/HEAD"):
        (base / "lower" / "out" / name).write_text("old")
    disk = mounted("overlay", f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work", "overlay")
    ended = children.run(["pt2tf", str(small / "pt"), str(disk / "out"), "--overwrite"], talk)
    assert (ended.status, ended.err) == (0, "")
    assert verify(disk / "out", weights_only=True).passed
    assert [(disk / "out" / name).read_text() for name in ("README.md", ".git/HEAD")] == ["old"] * 2
    assert [path.name for path in disk.iterdir()] == ["out"]
