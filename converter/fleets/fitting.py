"""The disk, memory and Hub requests that a task needs, and whether they fit beside the running tasks.

It is counted before a task starts, so that no disk fills while tasks run. A conversion needs the size of the weights on the
disk of OUTDIR, and 200 MB of memory. A comparison of outputs also needs memory for twice the weights and for the frameworks.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from converter.checkpoints.detect import LIKE_WEIGHTS
from converter.fleets.tasks import Task
from converter.folder.addresses import HUB, Address
from converter.folder.files import expanded

CONVERSION_BYTES = 200 * 10**6
FRAMEWORKS_BYTES = 1_500 * 10**6
# For the Hub, at a time: it counts requests, and answers 429 if there are too many within minutes.
MAX_HUB_TASKS = 8
MAX_FILES_COUNTED = 10_000
_RESERVED_BYTES, _RESERVED_PART = 10**9, 0.02
_WEIGHTS = (*LIKE_WEIGHTS, ".safetensors")
_WIDENING = {"float32": 2}
_ENDLESS = 2**63


@dataclass(frozen=True)
class Need:
    """What a task takes while it runs.

    Attributes:
        disk: bytes where OUT appears; 0 if unknown before it has begun, or if nothing is left to do.
        memory: bytes.
        network: tasks of the Hub's.
        cpus: processors.
    """

    disk: int = 0
    memory: int = CONVERSION_BYTES
    network: int = 0
    cpus: int = 1


def need_of(task: Task, verify: str, known_bytes: int, is_done: bool, is_put: bool = False) -> Need:
    """What a task will take.

    Args:
        task: of a list.
        verify: what is verified.
        known_bytes: size of its weights from an earlier attempt, or 0.
        is_done: whether an earlier run says that it is done.
        is_put: whether OUT is put into a bucket, for which it lies on the disk beside the copy of a source in one.
    """
    place = None if task.hub else expanded(task.source)
    local = None if place is None or isinstance(place, Address) else Path(place)
    in_bucket = isinstance(place, Address) and place.scheme != HUB
    on_hub = not in_bucket and (local is None or not (task.hub is False or local.exists()))
    nbytes = known_bytes or task.nbytes if local is None or on_hub else weights_bytes(local)
    outputs = verify == "outputs"
    memory = 2 * nbytes + FRAMEWORKS_BYTES if outputs else 0
    copies = _WIDENING.get(task.options.get("dtype", ""), 1) + (is_put and in_bucket)
    disk = 0 if is_done else nbytes * copies
    return Need(disk, CONVERSION_BYTES + memory, int(on_hub), 2 if outputs else 1)


def weights_bytes(source: Path) -> int:
    """Size of the weights of a local checkpoint: of the largest set, if it has several."""
    found: dict[str, int] = {}
    try:
        if source.is_file():
            return source.stat().st_size
        with os.scandir(source) as entries:
            for number, entry in enumerate(entries):
                if number > MAX_FILES_COUNTED:
                    break
                if entry.name.endswith(_WEIGHTS) and entry.is_file():
                    found[entry.name] = entry.stat().st_size
    except OSError:
        return 0
    return weights_size(found)


def weights_size(files: Mapping[str, int]) -> int:
    """Size of the largest set of weights among files, whose sizes are given by name."""
    found: Counter[str] = Counter()
    for name, size in files.items():
        if name.endswith(_WEIGHTS):
            found[Path(name).suffix] += size
    return max(found.values(), default=0)


class Room:
    """The disk of a folder and the memory of this machine that tasks can use."""

    def __init__(self, folder: Path | None, memory: int | None) -> None:
        """Takes where OUTs appear.

        Args:
            folder: OUTDIR, or its future place; None where that is a disk of other machines.
            memory: bytes of this machine; None where tasks run elsewhere, or where the system does not say.
        """
        places = () if folder is None else (folder, *folder.absolute().parents)
        self._folder = next((path for path in places if path.exists()), folder)
        self._memory = memory

    @property
    def disk(self) -> int:
        """Bytes that are free now and may be taken; some are left, so that the disk never is full."""
        if self._folder is None:
            return _ENDLESS
        try:
            held = shutil.disk_usage(self._folder)
        except OSError:
            return _ENDLESS
        return max(0, held.free - min(_RESERVED_BYTES, int(held.total * _RESERVED_PART)))

    def fits(self, need: Need, running: Iterable[Need]) -> bool:
        """Whether a task fits beside others, all of which may still have all of their bytes to write."""
        beside = tuple(running)
        if need.disk and need.disk + sum(one.disk for one in beside) > self.disk:
            return False
        if need.network and sum(one.network for one in beside) >= MAX_HUB_TASKS:
            return False
        memory = need.memory + sum(one.memory for one in beside)
        return not beside or self._memory is None or memory <= self._memory
