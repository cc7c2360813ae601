"""Makes an output folder appear whole or not at all: everything is written beside it, then renamed into place.

A run that dies leaves a folder ``.<name>.partial-<random>`` behind, which is locked only while its process lives;
the next run into the same place sweeps it, and puts back what it had put aside. This covers the death of the process,
not of the machine's power.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from converter.errors import TargetError

_MARK = ".partial-"
_ASIDE = "-old"
_NOREPLACE, _EXCHANGE = 1, 2
_AT_FDCWD = -100


def check_out(out: Path, source: Path | None, overwrite: bool) -> None:
    """Refuses an output folder that exists, or that shares files with the source, before anything is read.

    Args:
        out: the folder that is to appear.
        source: where the source lies, None for one in memory.
        overwrite: whether ``out`` may exist.

    Raises:
        TargetError: says what to do instead.
    """
    if out.name in ("", ".."):
        raise TargetError(f"{out}: is not the name of a folder to make; name one, such as out")
    if source is not None and source.exists():
        _check_apart(out, source)
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise TargetError(f"{out}: exists and is not a folder; choose another")
    if not out.exists():
        return
    if not overwrite:
        raise TargetError(f"{out}: exists already; choose another folder, or replace it whole with --overwrite")
    if any(out.iterdir()) and not (out / "config.json").is_file():
        raise TargetError(f"{out}: is not a checkpoint (no config.json), so it is not replaced; remove it yourself")


def _check_apart(out: Path, source: Path) -> None:
    real, origin = out.resolve(), source.resolve()
    home = origin if origin.is_dir() else origin.parent
    if real == home or real.is_relative_to(home) or home.is_relative_to(real):
        where = "is" if real == home else "lies inside" if real.is_relative_to(home) else "holds"
        raise TargetError(f"{out}: {where} the source {home}; choose a folder beside it")


@contextlib.contextmanager
def staged(out: Path, overwrite: bool) -> Iterator[Path]:
    """Gives a fresh folder beside ``out`` to write into, and puts it in place of ``out`` at the end.

    Args:
        out: the folder that shall appear; its parents are made.
        overwrite: whether one that exists is replaced.

    Raises:
        TargetError: it cannot be made, or somebody else made ``out`` in the meantime.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _sweep(out)
        staging, lock = _make_locked(out)
    except OSError as error:
        raise TargetError(f"{out}: cannot be made: {error.strerror}; choose another folder") from error
    try:
        yield staging
        _publish(staging, out, overwrite)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _make_locked(out: Path) -> tuple[Path, int]:
    """Makes a fresh staging folder and locks it; one that a sweeper took in between is made again."""
    while True:
        staging = out.with_name(f".{out.name}{_MARK}{secrets.token_hex(6)}")
        staging.mkdir()
        try:
            lock = os.open(staging, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        if staging.exists():
            return staging, lock
        os.close(lock)


def _sweep(out: Path) -> None:
    """Removes what dead runs into the same place left behind: their folders are no longer locked.

    One that died between two renames had put the old ``out`` aside: it is put back.
    """
    leftovers = [
        path
        for path in sorted(out.parent.glob(f".{_escaped(out.name)}{_MARK}*"), reverse=True)
        if path.is_dir() and not path.is_symlink()
    ]
    for leftover in leftovers:
        staging = leftover.with_name(leftover.name.removesuffix(_ASIDE))
        lock_path = staging if staging.is_dir() else leftover
        with contextlib.suppress(OSError):
            lock = os.open(lock_path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if leftover != staging and not out.exists():
                    leftover.rename(out)
                else:
                    shutil.rmtree(leftover, ignore_errors=True)
            finally:
                os.close(lock)


def _escaped(name: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def _publish(staging: Path, out: Path, overwrite: bool) -> None:
    try:
        if not _rename(staging, out, _NOREPLACE):
            _rename_without_kernel(staging, out)
        return
    except FileExistsError:
        if not overwrite:
            raise TargetError(f"{out}: was made by somebody else meanwhile; choose another folder") from None
    if _rename(staging, out, _EXCHANGE):
        shutil.rmtree(staging, ignore_errors=True)
        return
    aside = out.with_name(f"{staging.name}{_ASIDE}")
    out.rename(aside)
    try:
        staging.rename(out)
    except OSError:
        aside.rename(out)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _rename_without_kernel(staging: Path, out: Path) -> None:
    if out.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(out))
    staging.rename(out)


def _rename(old: Path, new: Path, flags: int) -> bool:
    """renameat2(2). False where the system or the file system does not have it."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    if renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), flags) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(new))
