"""What commands write beside checkpoints, reports and golden reference files: whole, or as it was before."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from converter.parity.runners.golden import read_recording
from tests.crash import children
from tests.crash.conftest import Mounted
from tests.crash.preparing import with_small_files, without_powers, without_torch, writing_slowly
from tests.crash.sources import content
from tests.torture import rounds

LEFTOVER = re.compile(r"\.(golden\.safetensors|report\.(html|json))\.partial-[0-9a-f]{12}")
DATE = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d")
MEGABYTES = 16
Words = list[str]


def verify(checkpoint: Path, place: Path) -> Words:
    """Two reports of one verification."""
    reports = [word for kind in ("html", "json") for word in ("--report", str(place / f"report.{kind}"))]
    return ["verify", str(checkpoint), "--weights-only", *reports]


def reference(checkpoint: Path, place: Path) -> Words:
    """A golden reference file of the checkpoint's source, which must be new."""
    return ["reference", str(checkpoint.parent / "pt"), "-o", str(place / "golden.safetensors")]


def written(place: Path) -> dict[str, str]:
    """The content of every file; of a golden reference file, whose metadata come in any order, that it is whole.

    A page states when it was made: any time will do.
    """
    found = content(place)
    for page in place.glob("report.html"):
        found[page.name] = sha256(DATE.sub("", page.read_text("utf-8")).encode()).hexdigest()
    if "golden.safetensors" in found:
        path = place / "golden.safetensors"
        found[path.name] = f"{path.stat().st_size} bytes, {len(read_recording(path).batches)} batches"
    return found


def large_recording() -> None:
    without_torch(MEGABYTES)


COMMANDS: dict[Callable[[Path, Path], Words], Callable[[], None]] = {
    verify: writing_slowly,
    reference: large_recording,
}
ENDS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}


@pytest.mark.parametrize("number", ENDS, ids=lambda number: number.name)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_killed(
    checkpoint: Path, tmp_path: Path, talk: Path, command: Callable[[Path, Path], Words], number: signal.Signals
) -> None:
    """Reports replace those of before, golden reference files do not."""
    place, prepare = tmp_path / "place", COMMANDS[command]
    place.mkdir()
    words = command(checkpoint, place)
    whole = children.run(words, talk, prepare=prepare)
    assert (whole.status, whole.err) == (0, "")
    new = written(place)
    noise, seen = random.Random(f"{command.__name__} {number}"), Counter[str]()
    for turn in range(rounds(sample=2, full=100)):
        shutil.rmtree(place)
        place.mkdir()
        if command is verify and turn % 2:
            for name in new:
                (place / name).write_text("old")
        old = written(place)
        ended = children.run(words, talk, number, noise.uniform(0, 1.1) * whole.seconds, prepare)
        left = sorted(path.name for path in place.iterdir() if path.name not in new)
        assert all(LEFTOVER.fullmatch(name) for name in left), left
        assert not left or number == signal.SIGKILL, (left, ended)
        found = {name: kept for name, kept in written(place).items() if name in new}
        for name, kept in new.items():
            assert found.get(name) in (kept, old.get(name)), name
        assert ended.status in (ENDS[number], 0), ended
        assert ended.status != 0 or found == new
        seen["complete" if found == new else "old" if found == old and old else "some" if found else "absent"] += 1
        seen["with leftovers"] += bool(left)
        if command is reference:
            (place / "golden.safetensors").unlink(missing_ok=True)
        assert children.run(words, talk, prepare=prepare).status == 0
        assert written(place) == new
    print(f"{command.__name__} {number.name}: {dict(seen)}")  # noqa: T201


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_a_disk_that_is_full(
    checkpoint: Path, talk: Path, mounted: Mounted, command: Callable[[Path, Path], Words]
) -> None:
    disk = mounted("tmpfs", "size=12k")
    (disk / "ballast").write_bytes(b"\0" * 3 * 4096)
    if command is verify:
        (disk / "report.html").touch()
    before = content(disk)
    ended = children.run(command(checkpoint, disk), talk, prepare=COMMANDS[command])
    assert ended.status == (3 if command is verify else 1)
    assert re.fullmatch(
        r"convert: \S+: cannot (be written|write the report): (No space left|the disk is full).*\n", ended.err
    )
    assert content(disk) == before


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_no_file_may_grow_beyond_a_limit(
    checkpoint: Path, tmp_path: Path, talk: Path, command: Callable[[Path, Path], Words]
) -> None:
    """The same where nothing may be mounted; the verdict is printed all the same."""
    place = tmp_path / "place"
    place.mkdir()
    if command is verify:
        (place / "report.html").write_text("old")
    before = content(place)
    ended = children.run(command(checkpoint, place), talk, prepare=partial(limited, COMMANDS[command]))
    assert ended.status == (3 if command is verify else 1)
    assert re.fullmatch(r"convert: \S+: .*cannot (be written|write the report): .*File too large.*\n", ended.err), (
        ended.err
    )
    assert command is reference or ended.out.startswith(f"{checkpoint}: matches its source")
    assert content(place) == before


def limited(prepare: Callable[[], None]) -> None:
    prepare()
    with_small_files(1000)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
@pytest.mark.parametrize("mode", [0o555, None], ids=["read-only", "not there"])
def test_a_place_where_nothing_can_be_made_is_found_at_once(
    checkpoint: Path, tmp_path: Path, talk: Path, command: Callable[[Path, Path], Words], mode: int | None
) -> None:
    """Not after both models ran for minutes: nothing is printed yet, and no model is made up here."""
    place = tmp_path / "place"
    if mode is not None:
        place.mkdir()
        place.chmod(mode)
    ended = children.run(command(checkpoint, place), talk, prepare=without_powers)
    why = "(No such file or directory|Permission denied)"
    assert ended.out == ""
    assert ended.status in ((2, 3) if command is verify else (1,))
    assert re.fullmatch(
        rf"convert: \S+: (cannot write the report: {why}|cannot be written: {why}|a folder, or in a folder that).*\n",
        ended.err,
    )


def test_what_is_no_plain_file(checkpoint: Path, tmp_path: Path, talk: Path) -> None:
    """A link is kept and what it leads to replaced; a file that may not be written is not; a pipe is written to."""
    place = tmp_path / "place"
    (place / "elsewhere").mkdir(parents=True)
    (place / "elsewhere" / "kept.txt").write_text("old")
    (place / "link.txt").symlink_to("elsewhere/kept.txt")
    os.mkfifo(place / "pipe.txt")
    (place / "locked.txt").write_text("old")
    (place / "locked.txt").chmod(0o444)
    words = ["verify", str(checkpoint), "--weights-only", "--report"]
    reader = os.open(place / "pipe.txt", os.O_RDONLY | os.O_NONBLOCK)
    for name in ("link.txt", "pipe.txt"):
        assert children.run([*words, str(place / name)], talk).status == 0
    report = (place / "elsewhere" / "kept.txt").read_bytes()
    assert (place / "link.txt").is_symlink()
    assert os.read(reader, 2**16) == report
    os.close(reader)
    ended = children.run([*words, str(place / "locked.txt")], talk, prepare=without_powers)
    assert (ended.status, ended.err) == (
        3, f"convert: {place / 'locked.txt'}: cannot write the report: Permission denied; choose another place\n"
    )  # fmt: skip
    assert (place / "locked.txt").read_text() == "old"


@pytest.mark.parametrize("name", ["config.json", "conversion.json", "parity.json", "tokenizer.json"])
def test_no_report_replaces_a_file_of_the_checkpoint(checkpoint: Path, talk: Path, name: str) -> None:
    before = content(checkpoint)
    path = checkpoint / ".." / checkpoint.name / name
    ended = children.run(["verify", str(checkpoint), "--weights-only", "--report", str(path)], talk)
    assert (ended.status, ended.err) == (
        2, f"convert: {path}: this file belongs to a checkpoint; choose another name for the report\n"
    )  # fmt: skip
    assert content(checkpoint) == before


def test_no_report_replaces_a_file_of_the_source(checkpoint: Path, small: Path, tmp_path: Path, talk: Path) -> None:
    """Nor through a link that looks harmless."""
    shutil.copytree(small / "pt", tmp_path / "src")
    (tmp_path / "link.json").symlink_to("src/config.json")
    before = content(tmp_path / "src")
    for path in (tmp_path / "src" / "config.json", tmp_path / "src" / "vocab.txt", tmp_path / "link.json"):
        ended = children.run(["verify", str(checkpoint), "--weights-only", "--report", str(path)], talk)
        assert (ended.status, ended.err) == (
            2, f"convert: {path}: this file belongs to a checkpoint; choose another name for the report\n"
        )  # fmt: skip
    assert content(tmp_path / "src") == before


def test_a_name_too_long_is_found_at_once(checkpoint: Path, tmp_path: Path, talk: Path) -> None:
    """As is one that would be fine, were there none beside it while it is written."""
    for length in (240, 300):
        path = tmp_path / ("n" * length + ".safetensors")
        ended = children.run(["reference", str(checkpoint), "-o", str(path)], talk)
        assert (ended.status, ended.err) == (
            1, f"convert: {path}: cannot be written: File name too long; choose another place\n"
        )  # fmt: skip
        assert ended.seconds < 2


def test_paths_that_are_not_utf_8(small: Path, tmp_path: Path, talk: Path) -> None:
    """As a file system has them; Python keeps the bytes as half surrogates, which UTF-8 cannot say."""
    names = [os.fsdecode(f"{name}-".encode() + b"\xff\xfe\n") for name in ("source", "tf", "report")]
    source, out, report = (tmp_path / name for name in names)
    shutil.copytree(small / "pt", source)
    reports = [word for kind in ("json", "md", "html", "xml", "txt") for word in ("--report", f"{report}.{kind}")]
    for words in (
        ["pt2tf", str(source), str(out), "--json"],
        ["inspect", str(out)],
        ["tf2pt", str(out), f"{out}-back"],
        ["verify", str(out), "--weights-only", *reports],
    ):
        ended = children.run(words, talk)
        assert (ended.status, ended.err) == (0, ""), ended
    assert len(list(tmp_path.glob("report-*"))) == 5


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("command", ["pt2tf", "inspect"])
def test_standard_output_on_a_full_disk(small: Path, tmp_path: Path, command: str) -> None:
    words = [command, str(small / "pt"), *([str(tmp_path / "out")] if command == "pt2tf" else [])]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "converter", *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (ended.returncode, ended.stderr) == (
        1, "convert: cannot write to standard output: No space left on device; write it elsewhere\n"
    )  # fmt: skip
    assert (tmp_path / "out" / "conversion.json").exists() == (command == "pt2tf")
