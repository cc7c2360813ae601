"""LIST in a bucket: an object that is a list, or a folder below which every checkpoint is a source.

One listing gives the names of all objects, by which folders are told from checkpoints as on a disk. No object is read.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from converter.buckets.stores import Store
from converter.checkpoints.detect import WEIGHTS
from converter.errors import OptionError
from converter.fleets.fitting import weights_size
from converter.fleets.tasks import Task
from converter.folder.addresses import Address

MAX_LISTED_OBJECTS = 2_000_000
_USUAL = frozenset(name for names in WEIGHTS.values() for name in names)


def list_in(address: Address, most: int) -> bytes | None:
    """The content of a list that is an object; None where the address is a folder's.

    Raises:
        OptionError: it is larger than ``most`` bytes.
        BucketError: the bucket refuses, or cannot be reached.
    """
    if address.above is None or (held := Store(address).info()) is None:
        return None
    if held.size > most:
        raise OptionError(f"{address}: larger than {most:,} bytes, too large for a list; divide it")
    return Store(address.above).small(address.name, most)


def tasks_below(address: Address, out: Path, signs: tuple[str, ...], levels: int) -> list[Task]:
    """The checkpoints below a folder of a bucket; none is looked for in another, in what is hidden, or in OUTDIR.

    Args:
        address: of the folder.
        out: OUTDIR.
        signs: names of files that tell a checkpoint, beside the usual names of weights.
        levels: how deep they may lie.

    Raises:
        BucketError: the bucket refuses, or holds more objects than are listed.
    """
    folders: dict[str, dict[str, int]] = {}
    for name, held in Store(address).find("", MAX_LISTED_OBJECTS).items():
        folder, _, file = name.rpartition("/")
        folders.setdefault(folder, {})[file] = held.size
    own = str(out).removeprefix(f"{address}/") if isinstance(out, Address) else None
    found: dict[str, int] = {}
    for folder, files in sorted(folders.items(), key=lambda item: item[0].split("/")):
        parts = PurePosixPath(folder).parts
        above = {"/".join(parts[:number]) for number in range(1, len(parts) + 1)}
        if not 0 < len(parts) <= levels or own in above or above & found.keys():
            continue
        if not any(part.startswith(".") for part in parts) and files.keys() & {*_USUAL, *signs}:
            found[folder] = weights_size(files)
    return [Task(f"{address}/{name}", name, name, nbytes=size) for name, size in found.items()]
