"""Which names a file may have here that are plain elsewhere, and how a file gets a second name."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from pathlib import Path

# On Windows, a colon begins a stream within the file, and these names are devices, with any suffix.
_STRANGE = re.compile(r'.*[<>:"|?*\x00-\x1f].*|.*[. ]|(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])\s*(\..*)?', re.I | re.S)


def is_plain(name: str) -> bool:
    """Whether the system takes a name without a separator for that of a file, and for nothing else."""
    return sys.platform != "win32" or not _STRANGE.fullmatch(name)


def name_twice(file: Path, place: Path) -> None:
    """Gives a file a second name: by a link if that is allowed, which is not so on Windows, else by a copy."""
    for link in (os.symlink, os.link):
        with contextlib.suppress(OSError, AttributeError, NotImplementedError):
            link(file, place)
            return
    shutil.copyfile(file, place)
