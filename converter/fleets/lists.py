"""Reads LIST: text, CSV or JSON Lines, a folder of checkpoints, here or in a bucket, an author of the Hub, or standard input.

Nothing in it is trusted: bytes, lines and texts have limits, and columns and words must be known.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from converter.checkpoints.detect import held
from converter.errors import OptionError, printable, reading
from converter.fleets.authors import models_of
from converter.fleets.tasks import Task, task_of
from converter.folder.addresses import Address
from converter.folder.files import expanded, local
from converter.folder.tokenizer_files import CONFIGS
from converter.specs import Framework

MAX_LIST_BYTES = 64 * 2**20
MAX_TASKS = 100_000
MAX_FOLDER_LEVELS = 3
_AUTHOR = "hub:"
# Of folders that hold no weights by the usual names: sentence-transformers, SavedModels and TensorFlow's checkpoints.
_SIGNS = (*CONFIGS, "modules.json", "saved_model.pb", "checkpoint")


def read_tasks(sources: str | os.PathLike[str], to: Framework, out: Path) -> tuple[Task, ...]:
    """Reads a list.

    Args:
        sources: path or address of a list or of a folder of checkpoints, ``"hub:author"``, or ``"-"`` for standard input.
        to: the framework to convert to.
        out: OUTDIR, which is no source.

    Raises:
        OptionError: the list does not exist, or something in it makes no sense; the message names the line.
        HubError: the Hub refuses, or cannot be reached.
        BucketError: a bucket refuses, or cannot be reached.
    """
    if isinstance(sources, str) and sources.startswith(_AUTHOR):
        author = sources.removeprefix(_AUTHOR)
        found = [Task(name, name, name, hub=True) for name in models_of(author, MAX_TASKS + 1)]
        return _counted(found, f"{printable(author)} has no models on the Hub; correct the name")
    if sources == "-":
        return _counted(_of_lines(sys.stdin.buffer, "standard input", to, strict=False))
    if isinstance(address := expanded(sources), Address):
        return _in_bucket(address, to, out)
    path = local(sources)
    with reading(path):
        if path.is_dir():
            found = [Task(os.fspath(path / name), name, name, hub=False) for name in _folders(path, out)]
            return _counted(found, f"{path}: holds no checkpoints; name their folder, or a list of them")
        if not path.exists():
            raise OptionError(f"{path}: not found; name a list, a folder of checkpoints, hub:AUTHOR or -")
        if not path.is_file():
            raise OptionError(f"{path}: neither a file nor a folder; name a list, or - for standard input")
        with path.open("rb") as file:
            return _of_file(file, path, to)


def _of_file(file: IO[bytes], path: Path, to: Framework) -> tuple[Task, ...]:
    """What a list says, by the ending of its name."""
    if path.suffix.lower() == ".csv":
        return _counted(_of_csv(file, to))
    strict = path.suffix.lower() in (".jsonl", ".ndjson")
    return _counted(_of_lines(file, str(path), to, strict))


def _in_bucket(address: Address, to: Framework, out: Path) -> tuple[Task, ...]:
    from converter.fleets.bucket_lists import list_in, tasks_below

    if (text := list_in(address, MAX_LIST_BYTES)) is not None:
        return _of_file(io.BytesIO(text), address, to)
    found = tasks_below(address, out, _SIGNS, MAX_FOLDER_LEVELS)
    return _counted(found, f"{address}: holds no checkpoints; name their folder, or a list of them")


def _counted(tasks: Any, none: str = "the list names no source; give one a line") -> tuple[Task, ...]:
    found = []
    for task in tasks:
        found.append(task)
        if len(found) > MAX_TASKS:
            raise OptionError(f"the list names more than {MAX_TASKS:,} checkpoints; divide it")
    if not found:
        raise OptionError(none)
    return tuple(found)


def _text(file: IO[bytes], what: str) -> str:
    held_bytes = file.read(MAX_LIST_BYTES + 1)
    if len(held_bytes) > MAX_LIST_BYTES:
        raise OptionError(f"{what}: larger than {MAX_LIST_BYTES:,} bytes, too large for a list; divide it")
    try:
        return held_bytes.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise OptionError(f"{what}: not a text in UTF-8; name a list of sources") from None


def _of_lines(file: IO[bytes], what: str, to: Framework, strict: bool) -> Iterator[Task]:
    """A source or a JSON object a line; a line that begins with ``#`` is a comment."""
    for number, line in enumerate(_text(file, what).split("\n"), 1):
        line, where = line.strip(), f"line {number}"
        if not line or (line.startswith("#") and not strict):
            continue
        yield task_of(_object(line, where) if strict or line.startswith("{") else {"source": line}, to, where)


def _object(line: str, where: str) -> dict[str, object]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise OptionError(f"{where}: not JSON ({printable(str(error), 80)}); write one object a line") from None
    if not isinstance(value, dict):
        raise OptionError(f'{where}: a {type(value).__name__}; write an object such as {{"source": "clip-italian"}}')
    return value


def _of_csv(file: IO[bytes], to: Framework) -> Iterator[Task]:
    rows = csv.reader(_text(file, "the list").splitlines(), strict=True)
    try:
        columns = [name.strip() for name in next(rows, [])]
        if "source" not in columns or len(set(columns)) != len(columns):
            raise OptionError("the first line of a CSV names its columns, once each; one of them is source")
        for row in rows:
            where = f"line {rows.line_num}"
            if not any(row) or row[0].startswith("#"):
                continue
            if len(row) != len(columns):
                raise OptionError(f"{where}: has {len(row)} fields, the first line {len(columns)}; write as many")
            yield task_of(dict(zip(columns, map(str.strip, row), strict=True)), to, where)
    except csv.Error as error:
        raise OptionError(f"line {rows.line_num}: not CSV ({printable(str(error), 80)}); correct it") from None


def _folders(home: Path, out: Path, level: int = 1, before: str = "") -> Iterator[str]:
    """Folders that hold a checkpoint, by their path from ``home``; none is looked for in another, in links, or in OUTDIR."""
    with os.scandir(home) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    for name in names:
        folder = home / name
        if name.startswith(".") or folder.resolve() == out.resolve():
            continue
        if held(folder) or any((folder / sign).is_file() for sign in _SIGNS):
            yield f"{before}{name}"
        elif level < MAX_FOLDER_LEVELS:
            yield from _folders(folder, out, level + 1, f"{before}{name}/")
