"""What is done on every system, real or pretended, in a process of its own: ``python -m tests.systems.acts ACT [WORD ...]``.

The working folder holds the shipped checkpoint, ``tiny``. What a command says is kept in a file, without its times.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from pathlib import Path

from converter import cli, inspect, pt2tf, verify
from converter.checkpoints import hdf5, rehearsal
from converter.errors import ConverterError
from converter.folder.staging import staged

COMMANDS = """
pt2tf tiny h5
pt2tf tiny h5-unchecked --no-check
pt2tf tiny h5-shards --max-shard-size 100KB
pt2tf tiny tf --format safetensors
pt2tf tiny half --dtype float16 --json --overwrite
tf2pt h5 pt
tf2pt h5 bin --format bin
tf2pt h5-shards bin-shards --format bin --max-shard-size 100KB
tf2pt tf v5 --names v5 --no-check
pt2tf bin again
pt2tf bin-shards again-shards --no-check
combine tiny pt joined
combine tiny tf joined-tf --projection-dim 7
inspect h5 --json
inspect bin-shards
pt2tf bin half --overwrite --dry-run
pt2tf bin half --overwrite
pt2tf pt again --overwrite --format safetensors
verify h5 --weights-only
verify bin --weights-only --report bin/report.md
verify again --weights-only --json
"""
NOTES = "what is not ours stays"


def convert() -> None:
    """Runs every command, and keeps what each says beside what it makes."""
    Path("half").mkdir()
    Path("half", "notes.txt").write_text(NOTES, "utf-8")
    said = []
    for line in COMMANDS.strip().splitlines():
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = cli.cli.main(line.split(), prog_name="convert", standalone_mode=False)
            except SystemExit as ended:
                status = ended.code
        said += [f"$ convert {line}", out.getvalue(), err.getvalue(), f"[{status or 0}]"]
    text = re.sub(r"\b\d+\.\d+ s\b|(?<=\"seconds\": )[\d.e-]+", "0 s", "\n".join(said)).replace(
        f"{Path.cwd()}{os.sep}", ""
    )
    Path("said.txt").write_text(text, "utf-8")


def die(number: str) -> None:
    """Ends silently right before one of the renames that replace the files of a folder."""
    real, seen = Path.rename, 0

    def rename(path: Path, place: Path) -> Path:
        nonlocal seen
        seen += 1
        if seen == int(number):
            os._exit(9)
        return real(path, place)

    Path.rename = rename  # type: ignore[method-assign, assignment]
    pt2tf("tiny", "out", format="safetensors", overwrite=True)


def recover() -> None:
    """Says what the next command finds, and replaces it."""
    assert verify("out", weights_only=True).passed
    print(inspect("out").container, *sorted(os.listdir("out")))  # noqa: PTH208 - names
    pt2tf("tiny", "out", overwrite=True)


def two_writers() -> None:
    """Says what the second is told, and what is told while a program has a file of the folder open."""
    with contextlib.suppress(KeyError), staged(Path("out"), True) as staging:
        (staging / "config.json").touch()
        _refused()
        raise KeyError
    with Path("out", "config.json").open("rb"):
        _refused()


def _refused() -> None:
    try:
        pt2tf("tiny", "out", overwrite=True)
        print("done")
    except ConverterError as error:
        print(error)


def hostile(path: str) -> None:
    """Says of a damaged HDF5 file what a child that is given little time finds; twice."""
    # By the clock long enough for a busy machine, and where the processor's time has a limit, that comes first.
    rehearsal.MAX_SECONDS, rehearsal.MAX_SECONDS_IN_ALL = 1, 6 if sys.platform == "win32" else 60
    for _ in range(2):
        try:
            hdf5.read_header(Path(path))
        except ConverterError as error:
            print(str(error).replace(path, "x.h5"))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
