"""Every reader is fed what was found before, what hypothesis makes of sound files, and for seconds what atheris finds.

`make torture` gives atheris half an hour for each reader.
"""

from __future__ import annotations

import ctypes
import json
import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converter.errors import ConverterError, CorruptCheckpoint
from tests.fuzz.__main__ import NAMES
from tests.fuzz.readers import READERS, Reader, feed
from tests.fuzz.watch import Escaped, nothing_else
from tests.torture import rounds

ROOT = Path(__file__).resolve().parents[2]
REGRESSIONS = sorted((Path(__file__).parent / "regressions").glob("*/*"))
SEEDS: dict[str, list[bytes]] = {}


@pytest.fixture(params=NAMES)
def prepared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The name of a reader, and a folder with all that it needs but its file."""
    name: str = request.param
    if name not in SEEDS:
        SEEDS[name] = list(READERS[name].seeds())
    folder = tmp_path_factory.mktemp(name)
    READERS[name].prepare(folder)
    for seed in SEEDS[name]:
        feed(READERS[name], folder, seed)  # so that what is imported late, is imported
    return name, folder


def test_seeds_are_sound(prepared: tuple[str, Path]) -> None:
    name, folder = prepared
    assert feed(READERS[name], folder, SEEDS[name][0]) is None


@given(seed=st.integers(0, 2**16), draw=st.randoms(use_true_random=False), times=st.integers(1, 4))
@settings(max_examples=rounds(40, 2000), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_changed_files_are_refused_or_read_as_sound(
    prepared: tuple[str, Path], seed: int, draw: random.Random, times: int
) -> None:
    name, folder = prepared
    data = SEEDS[name][seed % len(SEEDS[name])]
    for _ in range(times):
        data = READERS[name].mutate(data, draw)
    feed(READERS[name], folder, data)


@given(data=st.binary(max_size=300))
@settings(max_examples=rounds(20, 1000), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_refused(prepared: tuple[str, Path], data: bytes) -> None:
    name, folder = prepared
    assert feed(READERS[name], folder, data) is not None


@pytest.mark.parametrize("file", REGRESSIONS, ids=lambda file: f"{file.parent.name}-{file.name}")
def test_what_was_found_is_refused(file: Path, tmp_path: Path) -> None:
    reader = READERS[file.parent.name]
    reader.prepare(tmp_path)
    message = feed(reader, tmp_path, file.read_bytes())
    assert message is not None or file.name.startswith("source-")


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris, of the extra `dev`, is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_atheris_finds_nothing(name: str, tmp_path: Path) -> None:
    seconds = rounds(2, 1800)
    command = [sys.executable, "-m", "tests.fuzz", name, "--seconds", str(seconds), "--corpus", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout)
    assert figures["found"] == []
    assert figures["executions"] > 0
    assert figures["edges"] > 0


# --- the checks themselves ----------------------------------------------------------------------------------------


def _reads_beside(path: Path) -> None:
    Path("/etc/hostname").read_bytes()


def _writes(path: Path) -> None:
    path.with_name("new").write_bytes(b"")


def _starts(path: Path) -> None:
    subprocess.run(["true"], check=False)


def _takes_memory(path: Path) -> None:
    # Backed by pages only where it is written to.
    held = bytearray(2**30)
    held[:: 2**12] = b"x" * len(held[:: 2**12])


def _lies(path: Path) -> None:
    raise AssertionError("not what was meant")


@pytest.mark.parametrize("deed", [_reads_beside, _writes, _starts, _takes_memory])
def test_a_reader_that_does_more_is_caught(deed: object, tmp_path: Path) -> None:
    reader = Reader("x", list, lambda data, draw: data, deed)  # type: ignore[arg-type]
    with pytest.raises(Escaped):
        feed(reader, tmp_path, b"")


def test_a_reader_that_changes_its_file_is_caught(tmp_path: Path) -> None:
    """As a C library would, which no audit hook sees."""
    file, library = tmp_path / "a", ctypes.CDLL(None)
    file.write_bytes(b"1")
    with pytest.raises(Escaped, match="changed its folder"), nothing_else(tmp_path):
        assert library.truncate(str(file).encode(), 0) == 0


def test_other_errors_and_unprintable_messages_are_caught(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="not what was meant"):
        feed(Reader("x", list, lambda data, draw: data, _lies), tmp_path, b"")

    def escape(path: Path) -> None:
        raise CorruptCheckpoint("\x1b[31m")

    with pytest.raises(AssertionError):
        feed(Reader("x", list, lambda data, draw: data, escape), tmp_path, b"")
    assert issubclass(CorruptCheckpoint, ConverterError)
