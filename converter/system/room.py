"""How much room there is on a disk."""

from __future__ import annotations

import shutil
from pathlib import Path


def free_disk(place: Path) -> int | None:
    """Free bytes where a file or folder is to appear; None if the system does not report it."""
    for folder in (place, *place.absolute().parents):
        try:
            return shutil.disk_usage(folder).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None
