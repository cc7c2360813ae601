"""A source that shrinks, changes, is replaced or vanishes while it is read: detected, nothing written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from converter import combine, pt2tf, tf2pt
from converter.conversion import sources
from converter.errors import ConverterError, CorruptCheckpoint

KINDS = ("pt", "pt-bin", "pt-shards", "tf", "tf-shards", "tf-safetensors", "tf-chunked")
Change = Callable[[Path], object]


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def write_into(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(os.urandom(64))


def replace(path: Path) -> None:
    shutil.copyfile(path, path.with_name("new"))
    path.with_name("new").replace(path)


CHANGES: dict[str, Change] = {
    "cut": cut,
    "cut to nothing": lambda path: os.truncate(path, 0),
    "grown": grow,
    "written into": write_into,
    "replaced": replace,
    "removed": Path.unlink,
}


@pytest.fixture(params=KINDS)
def source(small: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of its own of a small checkpoint in some container."""
    folder = tmp_path / "src"
    shutil.copytree(small / str(request.param), folder)
    return folder


def weights(folder: Path) -> Path:
    return max(
        (path for path in folder.iterdir() if path.name != "tokenizer.json"), key=lambda path: path.stat().st_size
    )


def convert(source: Path, out: Path, **options: object) -> None:
    (tf2pt if any(source.glob("tf_*.h5")) or is_tf(source) else pt2tf)(source, out, **options)  # type: ignore[operator]


def is_tf(source: Path) -> bool:
    file = source / "model.safetensors"
    return file.exists() and b'"format":"tf"' in file.read_bytes()[:1000]


@pytest.mark.parametrize(
    ("stage", "check"),
    [("convert", True), ("check", True), pytest.param("convert", False, marks=pytest.mark.torture)],
)
@pytest.mark.parametrize("name", CHANGES)
def test_changed_while_it_is_read(source: Path, tmp_path: Path, name: str, stage: str, check: bool) -> None:
    file = weights(source)
    changed: list[str] = []

    def progress(now: str, *_: int) -> None:
        if now == stage and not changed:
            changed.append(now)
            CHANGES[name](file)

    with pytest.raises(CorruptCheckpoint) as caught:
        convert(source, tmp_path / "out", progress=progress, check=check)
    assert changed == [stage]
    assert str(caught.value) == f"{source}: changed while it was being read; convert it again"
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


def test_without_a_change_it_is_converted(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "out")


@pytest.mark.parametrize("name", [name for name in CHANGES if name not in ("grown", "written into")])
def test_changed_between_header_and_plan(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    file, real = weights(source), sources.open_source

    def opened(*arguments: object) -> object:
        found = real(*arguments)  # type: ignore[arg-type]
        CHANGES[name](file)
        return found

    monkeypatch.setattr(sources, "open_source", opened)
    with pytest.raises(ConverterError) as caught:
        convert(source, tmp_path / "out")
    gone = f"{file}: cannot be read: No such file or directory; check its permissions (nothing was left behind)"
    assert str(caught.value) == (
        gone if name == "removed" else f"{source}: changed while it was being read; convert it again"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


@pytest.mark.parametrize("file", ["config.json", "vocab.txt", "a.tiktoken", "model.safetensors.index.json"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_small_file_changed_while_it_is_read(small: Path, tmp_path: Path, name: str, file: str) -> None:
    """Of a tokenizer half of which is new nothing would tell: it is copied, and summed as it was copied."""
    source = tmp_path / "src"
    shutil.copytree(small / "pt-shards", source)
    (source / "a.tiktoken").write_text("YQ== 0")
    changed: list[str] = []

    def progress(now: str, *_: int) -> None:
        if now == "check" and not changed:
            changed.append(now)
            CHANGES[name](source / file)

    with pytest.raises(CorruptCheckpoint) as caught:
        pt2tf(source, tmp_path / "out", progress=progress)
    assert str(caught.value) == f"{source}: changed while it was being read; convert it again"
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


@pytest.mark.parametrize("side", ["pt", "tf-chunked"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_tower_changed_while_it_is_read(small: Path, tmp_path: Path, side: str, name: str) -> None:
    """Towers are joined without comparing afterwards: nothing else would tell."""
    for kind in ("pt", "tf-chunked"):
        shutil.copytree(small / kind, tmp_path / "src" / kind)
    changed: list[str] = []

    def progress(now: str, *_: int) -> None:
        if not changed:
            changed.append(now)
            CHANGES[name](weights(tmp_path / "src" / side))

    with pytest.raises(CorruptCheckpoint) as caught:
        combine(tmp_path / "src" / "pt", tmp_path / "src" / "tf-chunked", tmp_path / "out", progress=progress)
    assert changed == ["convert"]
    assert str(caught.value).endswith("changed while it was being read; convert it again")
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


def test_a_tokenizer_that_vanishes(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "src"
    shutil.copytree(small / "pt", source)
    real = shutil.copyfile

    def copy(path: Path, target: Path) -> object:
        path.unlink()
        return real(path, target)

    monkeypatch.setattr(shutil, "copyfile", copy)
    with pytest.raises(ConverterError) as caught:
        pt2tf(source, tmp_path / "out")
    assert str(caught.value) == f"{source}: changed while it was being read; convert it again"
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


def test_the_folder_of_the_output_vanishes(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "place" / "out"

    def progress(*_: object) -> None:
        shutil.rmtree(out.parent, ignore_errors=True)

    with pytest.raises(ConverterError) as caught:
        pt2tf(small / "pt", out, progress=progress)
    assert str(caught.value) == (
        f"{out}: cannot be written, nothing was left behind: another process removed its folder meanwhile; choose another"
    )
