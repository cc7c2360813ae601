"""Makes an output folder, or a file, appear whole or not at all: it is written beside its place, then renamed into it.

An existing folder stays, and gets the new files in place of the old ones: see ``replacing``. A run that dies leaves a
folder ``.<name>.partial-<random>`` behind, which is locked only while its process lives; the next run into the same
place sweeps it. This covers the death of the process, not of the machine's power.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from converter.errors import SourceError, TargetError, quoted, unreadable
from converter.folder.chat_templates import FOLDER as TEMPLATES
from converter.folder.replacing import check_replaced, outlook, replace_files, settle
from converter.system.locks import FolderLock
from converter.system.renaming import rename_to_fresh

_MARK = ".partial-"
_OURS = re.compile(rf"{_MARK}[0-9a-f]{{12}}")
_ATTEMPTS = 100


def check_out(out: Path, source: Path | None, overwrite: bool) -> None:
    """Refuses an output folder that exists, or that shares files with the source, before anything is read.

    Args:
        out: the folder that is to appear.
        source: the place of the source, None for one in memory.
        overwrite: whether ``out`` may exist. One that a dead run left half replaced is restored first.

    Raises:
        TargetError: says what to do instead.
    """
    if out.name in ("", ".."):
        raise TargetError(f"{out}: not a folder name; choose one, such as out")
    try:
        if source is not None and source.exists():
            _check_apart(out, source)
        _check_place(out, overwrite)
    except (OSError, RuntimeError) as error:  # Python 3.11 and 3.12 say RuntimeError of links that lead in a circle
        where, why = getattr(error, "filename", None) or out, getattr(error, "strerror", None) or "a loop of links"
        raise TargetError(f"{where}: cannot be accessed: {why}; check its permissions, or choose another") from None


def _check_place(out: Path, overwrite: bool) -> None:
    """Refuses what is there; unless it has gone, because other runs may be replacing it right now."""
    for _ in range(_ATTEMPTS):
        before = _what_is_at(out)
        if before is not None and not out.is_symlink():
            settle(out)
        problem = _problem(out, overwrite)
        if problem is None:
            if before is not None:
                check_replaced(out, outlook(out, ())[0])
            return
        if _what_is_at(out) == before:
            raise TargetError(problem)
    raise TargetError(f"{out}: other processes keep replacing it; choose another folder")


def _what_is_at(out: Path) -> tuple[int, int] | None:
    try:
        held = out.lstat()
    except FileNotFoundError:
        return None
    return held.st_dev, held.st_ino


def _problem(out: Path, overwrite: bool) -> str | None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        if out.is_dir():
            return f"{out}: a link to a folder, which is not replaced; name the folder itself, {quoted(out.resolve())}"
        return f"{out}: exists and is not a folder; choose another"
    if not out.exists():
        return None
    if os.path.ismount(out):  # as in a container that has a volume there; found now, not when all is written
        return f"{out}: a mount point, which cannot be replaced; choose a folder in it"
    if not overwrite:
        return f"{out}: exists already; choose another folder, or replace its checkpoint with --overwrite"
    if not os.access(out, os.W_OK | os.X_OK):
        return f"{out}: is read-only, so it is not replaced; make it writable, or choose another folder"
    return None


def _check_apart(out: Path, source: Path) -> None:
    real, origin = out.resolve(), source.resolve()
    home = origin if origin.is_dir() else origin.parent
    if real == home or real.is_relative_to(home) or home.is_relative_to(real):
        where = "is" if real == home else "lies inside" if real.is_relative_to(home) else "holds"
        raise TargetError(f"{out}: {where} the source {home}; choose a folder beside it")


@contextlib.contextmanager
def staged(out: Path, overwrite: bool) -> Iterator[Path]:
    """Yields a new folder beside ``out`` to write into. At the end it becomes ``out``, or its files replace those in ``out``.

    Args:
        out: the folder that shall appear; its parents are made, and taken away again if it does not.
        overwrite: whether files of an existing one are replaced.

    Raises:
        TargetError: it cannot be made, another process made ``out`` in the meantime, or another run writes to it.
    """
    fresh = [parent for parent in out.parents if not parent.exists()]
    staging, claim = _Staging(out), _Claim(out)
    try:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            if overwrite:
                with contextlib.suppress(FileNotFoundError):
                    claim.take()
            sweep(out)
            staging.make()
        except OSError as error:
            raise TargetError(f"{out}: cannot be made: {error.strerror}; choose another folder") from error
        yield staging.path
        _publish(staging.path, out, overwrite, claim)
        staging.unlock()
        claim.give_back()
    except BaseException:
        staging.unlock()
        claim.give_back()
        _remove(staging.path)
        with contextlib.suppress(OSError):  # others may have put something there
            for parent in fresh:
                parent.rmdir()
        raise


def check_place_of_file(path: Path) -> None:
    """Finds out, before what is to be written takes minutes to make, that a file could not be made there.

    Raises:
        OSError: why not.
    """
    folder = path.parent
    code = 0 if stat.S_ISDIR(folder.stat().st_mode) else errno.ENOTDIR
    if code == 0 and not os.access(folder, os.W_OK | os.X_OK):
        code = errno.EACCES
    if code:
        raise OSError(code, os.strerror(code), str(folder))
    # A name may be too long for the file's sake, or for that of the longer one beside it.
    with contextlib.suppress(FileNotFoundError):
        _Staging(path).path.lstat()


@contextlib.contextmanager
def staged_file(path: Path, replace: bool = True) -> Iterator[Path]:
    """Gives the name of a file to write, which takes the place of ``path`` at the end.

    Args:
        path: the file to create, in an existing folder; a link there is replaced, not followed.
        replace: whether one that exists is replaced.

    Raises:
        OSError: it cannot be written there; FileExistsError where ``path`` must not be replaced.
    """
    if os.path.lexists(path):
        if not replace:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        if not path.is_symlink() and not os.access(path, os.W_OK):  # a rename would not ask
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    staging = _Staging(path)
    try:
        sweep(path)
        staging.make()
        fresh = staging.path / path.name
        yield fresh
        if replace:
            fresh.replace(path)
        else:
            rename_to_fresh(fresh, path)
        staging.unlock()
        _remove(staging.path)
    except BaseException:  # also of a signal that comes while it is being removed
        staging.unlock()
        _remove(staging.path)
        raise


@contextlib.contextmanager
def explained(out: Path) -> Iterator[None]:
    """Turns what the system says when it cannot read or write into an error with the next step.

    Errors for files outside the staging folder of ``out`` are about the source.
    """
    try:
        yield
    except OSError as error:
        reason = _OPEN_ELSEWHERE if getattr(error, "winerror", None) in _SHARING else _REASONS.get(error.errno or 0)
        if reason is None:
            raise
        where = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes | os.PathLike) else out
        ours = (
            where == out or out in where.parents or any(part.startswith(f".{out.name}{_MARK}") for part in where.parts)
        )
        if not ours and error.errno in (errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT):
            raise SourceError(f"{unreadable(where, error)} (nothing was left behind)") from error
        raise TargetError(f"{out}: cannot be written, nothing was left behind: {reason}") from error


# Of Windows, which neither renames nor removes what is open: ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION.
_SHARING = (32, 33)
_OPEN_ELSEWHERE = "another program has a file of it open; close it there"
_REASONS = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EFBIG: "the file system does not support files of this size; choose another",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "permission denied; choose another folder",
    errno.EPERM: "operation not permitted; choose another folder",
    errno.ENOENT: "another process removed its folder meanwhile; choose another",
    errno.EIO: "the disk reports a read or write error; choose another",
    errno.EOPNOTSUPP: "the file system lacks a needed operation; choose another",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EXDEV: "the folder belongs to a lower layer of the file system; remove it yourself, or choose another folder",
    errno.EBUSY: "a file system is mounted there; choose a folder in it",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n), or use fewer shards",
    errno.ENFILE: "too many open files on this machine; try again later",
}


class _Staging:
    """A folder beside ``out``. Its name is known before it is made, for a signal may come right after that."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self.path = self._name()
        self._lock = FolderLock()

    def _name(self) -> Path:
        return self._out.with_name(f".{self._out.name}{_MARK}{os.urandom(6).hex()}")

    def make(self) -> None:
        """Makes and locks it; if a sweeper took it in between, another, for it may not be the only sweeper."""
        while True:
            self.path = self._name()
            self.path.mkdir()
            with contextlib.suppress(FileNotFoundError):
                self._lock.take(self.path, wait=True)
                if self.path.exists():
                    return
            self.unlock()

    def unlock(self) -> None:
        """Gives the lock back, once."""
        self._lock.give_back()


class _Claim:
    """The right to replace files in ``out``, which one run at a time has; a lock, which leaves no trace."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._lock = FolderLock()

    def take(self) -> None:
        """Takes the lock of the folder that exists now, unless it is held.

        Raises:
            TargetError: another run has it.
            FileNotFoundError: there is no such folder.
        """
        if self._lock.is_of(self._out):
            return
        self.give_back()
        try:
            self._lock.take(self._out)
        except BlockingIOError:
            raise TargetError(
                f"{self._out}: another run is writing to it; wait until it ends, or choose another folder"
            ) from None

    def give_back(self) -> None:
        """Gives it back, once."""
        self._lock.give_back()


def _remove(staging: Path) -> None:
    """Removes a staging folder. If no more files may be open, one must suffice, and shutil.rmtree needs more."""
    for folder in (staging / TEMPLATES, staging):
        with contextlib.suppress(OSError):
            for path in folder.iterdir():
                if path.is_dir() and not path.is_symlink():
                    path.rmdir()
                else:
                    path.unlink()
    shutil.rmtree(staging, ignore_errors=True)
    with contextlib.suppress(OSError):
        staging.rmdir()


def sweep(out: Path) -> None:
    """Removes what dead runs into the same place left behind: their folders are no longer locked."""
    for leftover in sorted(out.parent.glob(f".{_escaped(out.name)}{_MARK}*")):
        if not _OURS.fullmatch(leftover.name.removeprefix(f".{out.name}")) or leftover.is_symlink():
            continue
        with contextlib.suppress(OSError):
            lock = FolderLock()
            lock.take(leftover)
            try:
                shutil.rmtree(leftover, ignore_errors=True)
            finally:
                lock.give_back()


def _escaped(name: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def _publish(staging: Path, out: Path, overwrite: bool, claim: _Claim) -> None:
    """Renames; again where another run made ``out``, or took it away, between two calls."""
    for _ in range(_ATTEMPTS):
        try:
            rename_to_fresh(staging, out)
            return
        except FileExistsError:
            if not overwrite:
                raise TargetError(f"{out}: another process created it meanwhile; choose another folder") from None
        _check_place(out, overwrite)  # it may be another than was looked at in the beginning
        try:
            claim.take()
            replace_files(out, staging)
            _remove(staging)
            return
        except FileNotFoundError:
            if os.path.lexists(out) or not staging.exists():
                raise
    raise TargetError(f"{out}: other processes keep replacing it; choose another folder")
