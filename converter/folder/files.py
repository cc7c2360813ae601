"""Single files: their JSON content, and whether they are really where they seem to be."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from converter.errors import ConfigError, CorruptCheckpoint, SourceError, TargetError, printable, unreadable
from converter.folder.addresses import Address, hub_model, place_of
from converter.folder.chat_templates import names_in

# Real ones have some KB; parsing 8 MB built for the purpose takes 250 MB of memory.
MAX_CONFIG_BYTES = 8 * 2**20
MAX_CONFIG_DEPTH = 50
# The values that change if a file is replaced or written to: inode, size and time of change.
Identity = tuple[int, int, int]
AnyPath = TypeVar("AnyPath")


def expanded(path: AnyPath) -> AnyPath | Path:
    """Gives back a path; with the home folder in place of a ``~`` that it begins with, which shells leave in quotes.

    The URL of a bucket becomes an ``Address``, that of a file here its path.

    Args:
        path: or anything else that names a source.

    Raises:
        SourceError: it begins with ``~`` and an unknown user, and no such file exists; or a URL is not valid.
    """
    if isinstance(path, str) and "://" in path and hub_model(path) is None and (place := place_of(path)) is not None:
        return place
    text = str(path) if isinstance(path, str | os.PathLike) else ""
    if not text.startswith("~") or (not re.match(r"~(/|$)", text) and os.path.lexists(text)):
        return path
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise SourceError(f"{text}: no such home folder; write the full path, or put ./ before the name") from None


def named(path: str | os.PathLike[str]) -> Path:
    """What a person named as a path, whatever it stands for; an ``Address`` stays one, a URL of the Hub becomes its id."""
    if isinstance(path, Path):
        return path
    name, revision, _ = hub_model(path) or (os.fspath(path), None, "")
    return Path(name if revision is None else f"{name}@{revision}")


def local(path: str | os.PathLike[str]) -> Path:
    """A path of this machine, as ``expanded`` has it.

    Raises:
        TargetError: it is the address of a bucket.
    """
    place = expanded(path)
    if isinstance(place, Address):
        raise TargetError(f"{place}: in a bucket, which is not taken here; name a path of this machine")
    return Path(place)


def out_folder(out: str | os.PathLike[str]) -> Path:
    """The folder to write, by a path that ends in its name; ``.``, ``..`` and the like are resolved.

    May be asked again: ``./~x``, which as a path is ``~x``, is given back in full.
    """
    if isinstance(place := out if isinstance(out, Address) else place_of(out), Address):
        return place
    path = Path(expanded(out))
    if str(path).startswith("~"):
        return path.absolute()
    return path.resolve() if os.fspath(out) and path.name in ("", "..") else path


def read_json(path: Path, limit: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """Reads a JSON object from a file of at most ``limit`` bytes."""
    value = _read(path, limit)
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a JSON object, found {type(value).__name__}; restore it from the original")
    return value


def read_json_list(path: Path, limit: int) -> list[Any]:
    """Reads a JSON list from a file of at most ``limit`` bytes."""
    value = _read(path, limit)
    if not isinstance(value, list):
        raise ConfigError(f"{path}: expected a JSON list, found {type(value).__name__}; restore it from the original")
    return value


def _read(path: Path, limit: int) -> Any:
    try:
        if path.is_dir():
            inner = path / "config.json"
            way = f"name the file in it, {inner}" if inner.is_file() else "put the original in its place"
            raise ConfigError(f"{path}: a folder, expected a file; {way}")
        if path.exists() and not path.is_file():  # opening a pipe would wait forever
            raise ConfigError(f"{path}: not a file; put the original in its place")
        with path.open("rb") as file:
            text = file.read(limit + 1)
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: not found; save_pretrained writes config.json beside the weights. If it is elsewhere, copy it "
            "there or pass --config FILE (in Python config=)"
        ) from None
    except OSError as error:
        raise ConfigError(unreadable(path, error)) from None
    if len(text) > limit:
        raise ConfigError(f"{path}: larger than {limit:,} bytes, too large for a config; restore it from the original")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if (what := stands_in(text)) is not None:
            raise ConfigError(f"{path}: {what}") from None
        raise ConfigError(f"{path}: not JSON: {printable(str(error))}; restore it from the original") from None
    if _is_nested(value, MAX_CONFIG_DEPTH):
        raise ConfigError(
            f"{path}: nested deeper than {MAX_CONFIG_DEPTH} levels, too deep for a config; restore the original"
        )
    return value


def stands_in(text: bytes) -> str | None:
    """What replaced a small file, by its first bytes; None if it may be the file itself."""
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file; run `git lfs pull` in its repository"
    if text.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return (
            "a web page, not the file; download the file itself (its address has /resolve/ where the page's has /blob/)"
        )
    return None


def _is_nested(value: Any, depth: int) -> bool:
    """Whether lists and objects are nested deeper than ``depth``: writing them would overflow the stack."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(depth):
        inner = itertools.chain.from_iterable(held.values() if isinstance(held, dict) else held for held in level)
        level = [held for held in inner if isinstance(held, dict | list)]
    return bool(level)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes JSON as transformers does: two spaces, a newline at the end, its own order of keys."""
    path.write_bytes(json_bytes(value))


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """What ``write_json`` writes."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    # Half a surrogate pair, which JSON can say and UTF-8 cannot, is written as JSON escapes it.
    return text.encode("utf-8", "backslashreplace")


def inside(path: Path, folder: Path) -> Path:
    """Returns ``path`` if it is really inside ``folder``, links followed.

    A snapshot in the cache of huggingface_hub links to ``blobs`` two levels up, from the folders in it more; that is
    accepted too.

    Raises:
        CorruptCheckpoint: it is a link out of the folder.
    """
    if _leads_in_a_circle(path):
        raise CorruptCheckpoint(f"{path}: a link to itself; copy the file into the folder")
    real, home = path.resolve(), folder.resolve()
    if path.is_symlink() and not path.exists():
        raise CorruptCheckpoint(
            f"{path}: a link to {printable(str(path.readlink()))}, which does not exist; copy the folder with `cp "
            "-rL`, which follows links, or download it again"
        )
    if real.is_relative_to(home):
        return path
    if any(real.parent == outer.parent / "blobs" for outer in home.parents if outer.name == "snapshots"):
        return path
    raise CorruptCheckpoint(f"{path}: a link out of its folder, to {real}; copy the file itself into the folder")


def _leads_in_a_circle(path: Path) -> bool:
    """Whether links lead back to themselves; ``Path.resolve`` treats that differently in each version of Python."""
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def is_link(folder: Path, name: str) -> bool:
    """Whether a file of a folder is a link, or inside one."""
    return any((folder / part).is_symlink() for part in (name, Path(name).parts[0]))


def identity(path: Path) -> Identity:
    """The current identity of a file."""
    held = path.stat()
    return held.st_ino, held.st_size, held.st_mtime_ns


def identities(source: Path) -> Mapping[Path, Identity]:
    """Identities of a folder's files, or of those beside a file, taken before any header is read; chat templates too."""
    folder = source if source.is_dir() else source.parent
    try:
        files = (folder / name for name in names_in(folder, follow=True))
        return {path: identity(path) for path in files if path.is_file()}
    except OSError:  # a folder that may not be listed, or files that come and go
        return {}
