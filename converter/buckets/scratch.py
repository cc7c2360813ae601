"""A folder of this machine for what is on its way from a bucket, or to one. That of a run that was killed goes with the next.

It lies where the system keeps temporary files, which ``TMPDIR`` moves to a larger disk. A lock tells whose run lives.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from converter.errors import ConverterError, TargetError
from converter.folder.addresses import Address
from converter.system.locks import FolderLock

PREFIX = "dual-encoder-converter-"
_OURS = re.compile(rf"{PREFIX}[a-z0-9_]{{8}}")  # as mkdtemp names them; a folder of the sources has another name


class Scratch:
    """A folder, locked until it is closed; at the end of the program at the latest."""

    def __init__(self) -> None:
        """Makes it, and removes those of runs that were killed.

        Raises:
            TargetError: it cannot be made.
        """
        import tempfile  # which most conversions do not need

        self._lock = FolderLock()
        try:
            _sweep(Path(tempfile.gettempdir()))
            while True:
                self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
                with contextlib.suppress(FileNotFoundError):  # another run has just swept it
                    self._lock.take(self.path, wait=True)
                    if self.path.exists():
                        break
                self._lock.give_back()
        except OSError as error:
            raise TargetError(
                f"no temporary folder can be made ({error.strerror}); set TMPDIR to a folder that you may write to"
            ) from error
        atexit.register(self.close)

    def close(self) -> None:
        """Removes it, once."""
        atexit.unregister(self.close)
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.give_back()


def _sweep(folder: Path) -> None:
    for leftover in folder.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if not _OURS.fullmatch(leftover.name) or leftover.is_symlink():
                continue
            if hasattr(os, "getuid") and leftover.stat().st_uid != os.getuid():
                continue
            lock = FolderLock()
            lock.take(leftover, follow=False)
            try:
                shutil.rmtree(leftover, ignore_errors=True)
            finally:
                lock.give_back()


@contextlib.contextmanager
def told_as(there: str, here: Path) -> Iterator[None]:
    """Has errors speak of a place in a bucket where they speak of the folder of this machine that stands for it."""
    try:
        yield
    except ConverterError as error:
        words = str(error)
        if str(here) not in words:
            raise
        raise type(error)(words.replace(str(here), there)) from error


def above(address: Address) -> str:
    """What an address begins with, without its name and the slash before that: of a bucket, ``s3:/``."""
    return str(address).rpartition("/")[0]
