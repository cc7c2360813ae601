"""Conversions on a pretended Mac and a pretended Windows: the same bytes and words, nothing lost, nothing left behind.

`macos` and `windows` beside this file take away what these systems lack before Python imports anything else. Neither
is the real thing: what depends on their file systems, their terminals or their builds of HDF5 is not seen here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from converter import pt2tf
from tests.systems.acts import NOTES

ROOT = Path(__file__).resolve().parents[2]
REGRESSIONS = ROOT / "tests" / "fuzz" / "regressions" / "hdf5"
PRETENDED = ["macos", "windows"]
WEAKER = "this system cannot limit a process's memory: a damaged HDF5 file can use up all of it (see SECURITY.md)\n"
Run = subprocess.CompletedProcess[str]


def run(system: str, folder: Path, *words: str) -> Run:
    """Runs Python in a folder on a system; `linux` is the one that there is."""
    site = [] if system == "linux" else [str(ROOT / "tests" / "systems" / system)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*site, str(ROOT)]), "PYTHONSAFEPATH": "1"}
    if system == "windows":
        environment |= {"PYTHONIOENCODING": "cp1252", "PYTHONWARNDEFAULTENCODING": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False
    )


def act(system: str, folder: Path, *words: str) -> Run:
    """Does one of `acts` on a system."""
    done = run(system, folder, "-m", "tests.systems.acts", *words)
    assert done.returncode in (0, 9), done.stderr
    return done


@pytest.fixture(scope="module")
def converted(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, str]]:
    """The folder in which every command ran on a system, and what the process said besides; made once."""
    made: dict[str, tuple[Path, str]] = {}

    def convert(system: str) -> tuple[Path, str]:
        if system not in made:
            folder = tmp_path_factory.mktemp(system)
            shutil.copytree(tiny, folder / "tiny")
            made[system] = folder, act(system, folder, "convert").stderr
        return made[system]

    return convert


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("system", PRETENDED)
def test_the_same_bytes_and_words(converted: Callable[[str], tuple[Path, str]], system: str) -> None:
    (real, _), (folder, _) = converted("linux"), converted(system)
    expected, found = contents(real), contents(folder)
    ours, theirs = expected.pop("said.txt").decode(), found.pop("said.txt").decode()
    assert theirs.replace(WEAKER, "") == ours
    assert ours.count("matches its source") >= 2
    assert ours.count("\n[0]") == ours.count("$ convert ") == 21
    assert sorted(found) == sorted(expected)
    elsewhere, here = folder.name.encode(), real.name.encode()  # a report says where the source is
    assert [name for name in found if found[name].replace(elsewhere, here) != expected[name]] == []
    assert expected["half/notes.txt"].decode() == NOTES


@pytest.mark.parametrize("system", PRETENDED)
def test_a_weaker_guard_is_told_once(converted: Callable[[str], tuple[Path, str]], system: str) -> None:
    """In all of 21 commands of one process; each of which tells it where it runs alone."""
    folder, said = converted(system)
    assert ((folder / "said.txt").read_text("utf-8") + said).count(WEAKER) == 1
    folder, said = converted("linux")
    assert WEAKER not in (folder / "said.txt").read_text("utf-8") + said


@pytest.mark.parametrize("system", PRETENDED)
@pytest.mark.parametrize(("number", "is_new"), [(1, False), (5, False), (13, False), (14, True)])
def test_a_run_that_dies_is_recovered_from(system: str, number: int, is_new: bool, tiny: Path, tmp_path: Path) -> None:
    """Of 14 renames the first hides the folder's manifest, the last but one puts the new manifest in its place."""
    shutil.copytree(tiny, tmp_path / "tiny")
    out = tmp_path / "out"
    pt2tf(tmp_path / "tiny", out)
    (out / "notes.txt").write_text(NOTES)
    before = contents(out)
    assert act(system, tmp_path, "die", str(number)).returncode == 9
    found = act(system, tmp_path, "recover").stdout.split()
    names = {name.replace("tf_model.h5", "model.safetensors") if is_new else name for name in before}
    assert found == [*(["TensorFlow", "safetensors"] if is_new else ["tf_model.h5"]), *sorted(names)]
    assert contents(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tiny"]
    assert sorted(path.name for path in out.iterdir()) == sorted(before)


@pytest.mark.parametrize("system", PRETENDED)
def test_who_is_in_the_way_is_told(system: str, tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "tiny")
    pt2tf(tmp_path / "tiny", tmp_path / "out", dtype="float16")
    before = contents(tmp_path / "out")
    second, while_open = act(system, tmp_path, "two_writers").stdout.splitlines()
    assert second == "out: another run is writing to it; wait until it ends, or choose another folder"
    if system == "windows":
        assert while_open == (
            "out: cannot be written, nothing was left behind: another program has a file of it open; close it there"
        )
        assert contents(tmp_path / "out") == before
    else:
        assert while_open == "done"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tiny"]


@pytest.mark.parametrize("system", PRETENDED)
def test_damaged_hdf5_ends_a_child_that_is_started(system: str, tmp_path: Path) -> None:
    """On Windows, where nothing limits the processor, by the clock."""
    done = act(system, tmp_path, "hostile", str(REGRESSIONS / "heap-object-of-no-size"))
    seconds = {"macos": 1, "windows": 6}[system]
    refusal = (
        f"x.h5: not a valid file: the library that reads it takes more than {seconds} s; download or save it again"
    )
    assert done.stdout.splitlines() == [refusal] * 2
    assert done.stderr == WEAKER


IMPORT = """
import importlib, pkgutil, re, sys
import converter
for module in pkgutil.walk_packages(converter.__path__, "converter."):
    if not re.match(  # what runs in a process of its own
        r"converter\\.(models|exporting|parity\\.runners\\.(torch_masks|(torch|keras|flax)_model))\\b|converter.__main__",
        module.name,
    ):
        importlib.import_module(module.name)
print({"torch", "tensorflow", "keras", "transformers"} & sys.modules.keys(), converter.pt2tf.__name__)
"""


@pytest.mark.parametrize("system", ["linux", *PRETENDED])
def test_help_and_import(system: str, tmp_path: Path) -> None:
    done = run(system, tmp_path, "-c", IMPORT)
    assert (done.stdout, done.stderr) == ("set() pt2tf\n", "")
    done = run(system, tmp_path, "-m", "converter", "pt2tf", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: convert pt2tf ")


def test_letters_that_a_pipe_lacks(tiny: Path, tmp_path: Path) -> None:
    """Russian in cp1252, which is what Python writes to a pipe in most of Europe."""
    shutil.copytree(tiny, tmp_path / "модель")
    done = run("windows", tmp_path, "-m", "converter", "pt2tf", "модель", "out", "--no-check")
    assert (done.returncode, done.stderr) == (0, "")
    assert "модель".encode("ascii", "backslashreplace").decode() in done.stdout


LACKING = {
    "macos": [
        "open('/proc/self/statm')", "os.listdir('/proc')", "os.preadv", "os.copy_file_range", "os.posix_fadvise",
        "os.sched_getaffinity", "os.O_TMPFILE", "os.fork()", "ctypes.CDLL(None).renameat2",
        "resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))",
    ],
    "windows": [
        "open('/proc/self/statm')", "import fcntl", "import resource", "os.fork", "os.pread", "os.pwrite", "os.geteuid",
        "os.statvfs", "os.O_DIRECTORY", "os.O_NOFOLLOW", "signal.SIGHUP", "signal.SIGKILL", "signal.pthread_sigmask",
        "os.open('.', os.O_RDONLY)", "os.symlink('held', 'link')", "os.rename('held', 'new')", "os.unlink('held')",
        "os.rename('folder', 'new')", "os.rename('free', 'other')", "os.replace('free', 'held')", "os.unlink('mapped')",
        "ctypes.CDLL(None)",
    ],
}  # fmt: skip
TRY = """
import ctypes, mmap, os, signal, sys
if sys.platform != "win32":
    import resource
os.mkdir("folder")
for name in ("held", "folder/held", "free", "other", "mapped"):
    with open(name, "wb") as file:
        file.write(b"bytes")
held = open("held", "rb"), open("folder/held", "rb")
with open("mapped", "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
for line in sys.argv[1:]:
    try:
        exec(line)
        print(line)
    except (OSError, ImportError, AttributeError, AssertionError, ValueError, TypeError):
        pass
print(sys.platform, sorted(os.listdir(".")))
"""


def test_what_is_pretended_is_there_on_linux(tmp_path: Path) -> None:
    """What changes files is not tried here."""
    changing = re.compile(r"os\.(fork|unlink|rename|replace|symlink)\(")
    lines = [line for lines in LACKING.values() for line in lines if not changing.match(line)]
    assert run("linux", tmp_path, "-c", TRY, *lines).stdout.splitlines()[:-1] == lines


@pytest.mark.parametrize("system", PRETENDED)
def test_what_is_pretended(system: str, tmp_path: Path) -> None:
    """Nothing above would say anything if these were there."""
    done = run(system, tmp_path, "-c", TRY, *LACKING[system])
    platform = {"macos": "darwin", "windows": "win32"}[system]
    assert done.stdout == f"{platform} ['folder', 'free', 'held', 'mapped', 'other']\n", done.stderr
