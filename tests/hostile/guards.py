"""Takes guards out of the safety code, one at a time and in a copy of it, and sees whether the test named for each fails.

    python -m tests.hostile.guards             # removes every guard: some minutes
    python -m tests.hostile.guards TEXT ...    # those whose file or description holds one of the texts
    python -m tests.hostile.guards --table     # writes the table in README.md

`guards.toml` says what the guards are.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- guards: begin -->", "<!-- guards: end -->"
_COPIED = ("converter", "rename_rules", "tests", "fixtures", "docs", "examples")
_MOST_BYTES = 8 * 2**30  # of addresses; the tests themselves allow their children less
_SECONDS = 120
_SECONDS_TO_BEGIN = 300  # what a machine with much to do may take to start Python
_NOT_BEGUN = 125
_POLL = 0.02
_FAILURES = ("AssertionError", "Failed")  # the second is pytest's own: nothing was raised
TIMEOUT, CRASH = "a timeout", "a crash"
# What a mutant fails with that was not made well.
_MISTAKES = {"SyntaxError", "NameError", "UnboundLocalError", "ImportError", "ModuleNotFoundError", "fixture"}


@dataclass(frozen=True)
class Guard:
    """A piece of the safety code that some test must miss.

    Attributes:
        part: of the code, a heading of the table.
        stops: a description of what it stops.
        file: where it stands.
        text: its source; stands there exactly once.
        without: what stands there once it is removed.
        test: node id of a test that then fails.
        by: how it fails: of what, if not of an assertion; ``TIMEOUT`` or ``CRASH`` where it does not end by itself.
        seconds: that the test may take, from when it begins.
        needs: a package without which the test does not run.
    """

    part: str
    stops: str
    file: str
    text: str
    without: str
    test: str
    by: tuple[str, ...]
    seconds: int
    needs: str | None

    @property
    def module(self) -> str:
        """The module that it stands in."""
        return self.file.removesuffix(".py").replace("/", ".")


@functools.cache
def guards() -> tuple[Guard, ...]:
    """All guards, in the order of ``guards.toml``."""
    parts = tomllib.loads(Path(__file__).with_name("guards.toml").read_text("utf-8"))
    return tuple(_guard(part, held, entry) for part, held in parts.items() for entry in held["guard"])


def _guard(part: str, held: dict[str, str], entry: dict[str, str | int]) -> Guard:
    known = {"stops", "file", "text", "without", "test", "by", "seconds", "needs"}
    assert set(entry) <= known, set(entry) - known
    text, by = str(entry["text"]), entry.get("by", _FAILURES)
    return Guard(
        part=part,
        stops=str(entry["stops"]),
        file=str(entry.get("file", held.get("file"))),
        text=text,
        without=str(entry["without"]) if "without" in entry else _never(text),
        test=str(entry["test"]),
        by=(by,) if isinstance(by, str) else tuple(by),  # type: ignore[arg-type]
        seconds=int(entry.get("seconds", _SECONDS)),
        needs=str(entry["needs"]) if "needs" in entry else None,
    )


def _never(text: str) -> str:
    """A condition that never holds, in place of one line or more that say when a guard does."""
    word, _, rest = text.partition(" ")
    assert word in ("if", "elif"), text
    assert rest.endswith(":"), text
    return f"{word} False:"


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of what the tests need, which is removed again."""
    with tempfile.TemporaryDirectory(prefix="guards-") as folder:
        tree = Path(folder).resolve()
        for name in _COPIED:
            ignored = shutil.ignore_patterns("__pycache__", ".hypothesis")
            shutil.copytree(ROOT / name, tree / name, ignore=ignored, symlinks=True)
        for path in ("pyproject.toml", "README.md", "SECURITY.md", "Makefile"):
            shutil.copyfile(ROOT / path, tree / path)
        yield tree


def complaint(tree: Path, guard: Guard) -> str | None:
    """Removes a guard from a copy, and puts it back.

    Returns:
        None if its test fails as it shall; else what is wrong.
    """
    file = tree / guard.file
    sound = file.read_text("utf-8")
    if sound.count(guard.text) != 1:
        return f"stands {sound.count(guard.text)} times in {guard.file}"
    mutant = sound.replace(guard.text, guard.without)
    compile(mutant, str(file), "exec")
    if mutant == sound:
        return "nothing is removed"
    file.write_text(mutant, "utf-8")
    try:
        return _unnoticed(guard, *run_tests(tree, guard.module, [guard.test], guard.seconds))
    finally:
        file.write_text(sound, "utf-8")


def run_tests(
    tree: Path, module: str, tests: list[str], seconds: int
) -> tuple[int | None, dict[str, object] | None, str]:
    """Runs tests in a copy, with little memory, and little time once the first of them has begun.

    Returns:
        The status, None after a timeout; what the plugin noted, None if it came to nothing; the output.
    """
    notes, began, output = (tree / name for name in ("notes.json", "began", "output.txt"))
    for path in (notes, began):
        path.unlink(missing_ok=True)
    environment = os.environ | {
        "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "TORTURE": "",
        "GUARDS_MODULE": module, "GUARDS_NOTES": str(notes), "GUARDS_BEGAN": str(began),
    }  # fmt: skip
    command = [
        sys.executable, "-P", "-m", "pytest", "-q", "-x", "--tb=short", "-p", "no:cacheprovider",
        "-p", "tests.hostile.noticing", "--rootdir", str(tree), *tests,
    ]  # fmt: skip
    with (
        output.open("wb") as held,
        subprocess.Popen(
            command, cwd=tree, env=environment, stdin=subprocess.DEVNULL, stdout=held, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=_limited,
        ) as process,
    ):  # fmt: skip
        deadline, has_begun = time.monotonic() + _SECONDS_TO_BEGIN, False
        while process.poll() is None and time.monotonic() < deadline:
            if not has_begun and began.exists():
                deadline, has_begun = time.monotonic() + seconds, True
            time.sleep(_POLL)
        status = process.poll()
        if status is None:
            os.killpg(process.pid, signal.SIGKILL)
    if status is None and not has_begun:
        status = _NOT_BEGUN
    noted = json.loads(notes.read_text("utf-8")) if notes.exists() else None
    return status, noted, output.read_text("utf-8", "replace")


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _unnoticed(guard: Guard, status: int | None, noted: dict[str, object] | None, said: str) -> str | None:
    if status is None:
        return None if TIMEOUT in guard.by else f"{guard.test} does not end within {guard.seconds} s"
    if status < 0:
        return None if CRASH in guard.by else f"{guard.test} ends by signal {-status}"
    if status == 0:
        return f"{guard.test} passes all the same"
    if status != 1 or noted is None:
        return f"{guard.test} does not run:\n{said[-3000:]}"
    raised: list[dict[str, str]] = noted["raised"]  # type: ignore[assignment]
    failed = [note for note in raised if note["outcome"] == "failed"]
    if not failed or any(note["when"] != "call" or note["raised"] not in guard.by for note in failed):
        return f"{guard.test} fails of {failed}, expected {' or '.join(guard.by)}:\n{said[-3000:]}"
    return None


def mistakes(guard: Guard) -> list[str]:
    """What is wrong with the statement of a guard, as far as that can be seen without a run."""
    found = []
    if (count := (ROOT / guard.file).read_text("utf-8").count(guard.text)) != 1:
        found.append(f"{guard.file} holds {guard.text!r} {count} times")
    if guard.text == guard.without:
        found.append(f"nothing is removed of {guard.text!r}")
    if _MISTAKES.intersection(guard.by):
        found.append(f"{guard.text!r}: a mutant that is not sound Python proves nothing")
    return found


def table() -> str:
    """The table of all guards for README.md."""
    lines = []
    for part in dict.fromkeys(guard.part for guard in guards()):
        lines += ["", f"### {part}", "", "| what it stops | guard | the test that notices |", "|---|---|---|"]
        lines += [_row(guard) for guard in guards() if guard.part == part]
    return "\n".join([*lines, ""])


def _row(guard: Guard) -> str:
    first = next(line.strip() for line in guard.text.splitlines() if line.strip())
    shown = first if len(first) <= 60 else f"{first[:57]}..."
    cells = (
        guard.stops,
        f"{_code(shown)} in {_code(guard.file.removeprefix('converter/'))}",
        _code(_named(guard.test)),
    )
    how = "" if guard.by == _FAILURES else f", by {' or '.join(guard.by)}"
    return f"| {' | '.join(cells)}{how} |"


def _named(test: str) -> str:
    path, _, name = test.partition("::")
    shown = name if len(name) <= 70 else f"{name[:67]}..."
    return f"{path.removeprefix('tests/')}::{shown}"


def _code(text: str) -> str:
    quoted = text.replace("|", "\\|")
    return f"``{quoted}``" if "`" in quoted else f"`{quoted}`"


def with_table(text: str) -> str:
    """README.md with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


def main(arguments: list[str]) -> int:
    """Removes the guards that are named, or all; gives how many nobody missed."""
    if arguments == ["--table"]:
        README.write_text(with_table(README.read_text("utf-8")), "utf-8")
        return 0
    asked = [
        guard for guard in guards() if not arguments or any(text in f"{guard.file} {guard.stops}" for text in arguments)
    ]
    wrong = 0
    with copied() as tree:
        for number, guard in enumerate(asked, 1):
            found = complaint(tree, guard)
            wrong += found is not None
            print(f"{number}/{len(asked)} {guard.file}: {guard.stops}: {found or 'noticed'}", flush=True)
    print(f"{len(asked) - wrong} of {len(asked)} were noticed")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
