"""Small and large checkpoints in every container, and file systems of their own where the system lets us mount some."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.crash import children
from tests.crash.sources import write_sources

Mounted = Callable[..., Path]


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One checkpoint of 33 MB in every container."""
    folder = tmp_path_factory.mktemp("sources")
    yield write_sources(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same containers with 300 KB."""
    return write_sources(tmp_path_factory.mktemp("small"), large=False)


@pytest.fixture(scope="module")
def checkpoint(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted checkpoint, beside its source."""
    folder = tmp_path_factory.mktemp("converted")
    talk = folder / "talk"
    talk.mkdir()
    shutil.copytree(small / "pt", folder / "pt")
    assert children.run(["pt2tf", str(folder / "pt"), str(folder / "tf")], talk).status == 0
    return folder / "tf"


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    """Where children write what they say."""
    folder = tmp_path / "talk"
    folder.mkdir()
    return folder


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mounted]:
    """Mounts a file system: ``mounted("tmpfs", "size=1m")``; the test is skipped where that is not permitted."""
    points: list[Path] = []

    def mount(kind: str, options: str, device: str = "none") -> Path:
        point = tmp_path / f"mounted-{len(points)}"
        point.mkdir()
        command = ["mount", "-t", kind, "-o", options, device, str(point)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no program to mount file systems with")
        if done.returncode:
            pytest.skip(f"{kind} cannot be mounted here: {done.stderr.strip()}")
        points.append(point)
        return point

    yield mount
    for point in reversed(points):
        subprocess.run(["umount", "-l", str(point)], check=True)
