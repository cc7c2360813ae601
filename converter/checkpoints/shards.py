"""Checkpoints in shards: reads and writes the index, ``weight_map: name -> file``, and joins what the files hold.

Source: transformers 4.x. TensorFlow's indices name tensors with the root scope and ``:0``; the shards themselves leave
the root scope out. Files are named ``model-00001-of-00003.safetensors``, ``tf_model-00001-of-00003.h5`` and so on.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from converter.errors import ConfigError, CorruptCheckpoint, TargetError, listed, printable
from converter.folder.files import read_json
from converter.names.frameworks import frameworks
from converter.specs import Checkpoint, Framework, Shape, StoredTensor, is_file_name
from converter.tensors.casts import DTYPES

INDEX = ".index.json"
MAX_INDEX_BYTES = 8 * 2**20
MAX_SHARDS = 10_000
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
# transformers puts a variant between: model.safetensors.index.fp16.json.
_INDEX = re.compile(r".*\.index(\.[\w-]+)*\.json", re.DOTALL)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Z]*)")

Named = tuple[str, str, Shape]


def is_index(name: str) -> bool:
    """Whether a file is the index of shards, by its name."""
    return _INDEX.fullmatch(name) is not None


def read_index(
    path: Path, read_shard: Callable[[Path], Checkpoint], find: Callable[[str], Path | None] | None = None
) -> Checkpoint:
    """Reads an index and the headers of all its shards.

    Args:
        path: for example ``model.safetensors.index.json``.
        read_shard: reads the header of one file, and refuses one outside the folder.
        find: returns the file for a name, or None; by default it is beside the index.

    Raises:
        CorruptCheckpoint: the index is invalid, or index and shards contradict each other.
    """
    weight_map = read_map(path)
    by_file: dict[str, set[str]] = {}
    for name, file in weight_map.items():
        by_file.setdefault(file, set()).add(name)
    shards: list[Checkpoint] = []
    tensors: dict[str, StoredTensor] = {}
    try:
        for file, names in sorted(by_file.items()):
            shard = (find or _beside(path))(file)
            if shard is None:
                raise _corrupt(path, f"it names {printable(file)}, which is not there")
            shards.append(read_shard(shard))
            _join(path, file, names, shards[-1], tensors)
        if len({shard.framework for shard in shards}) != 1:
            raise _corrupt(path, "its shards come from different frameworks")
    except BaseException:
        _close(shards)
        raise
    files = tuple(file for shard in shards for file in shard.files)
    container = f"{shards[0].container} in {len(shards)} shard{'s' if len(shards) > 1 else ''}"
    return Checkpoint(shards[0].framework, container, tensors, files, shards[0].metadata, lambda: _close(shards))


def write_index(path: Path, shards: Mapping[str, Sequence[Named]], framework: Framework, root: str) -> None:
    """Writes the index of shards that hold the given tensors, by file name.

    Args:
        path: must not exist.
        shards: name, dtype and shape of the tensors of each file.
        framework: whose names they have.
        root: root scope of the model, which some frameworks' indices put before every name.
    """
    rules = frameworks()[framework]
    before = f"{root}{rules.separator}" if rules.scoped else ""
    total = sum(math.prod(shape) * DTYPES[dtype] for tensors in shards.values() for _, dtype, shape in tensors)
    weight_map = {f"{before}{name}{rules.suffix}": file for file, tensors in shards.items() for name, _, _ in tensors}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    path.write_text(json.dumps(index, indent=2, ensure_ascii=False) + "\n", "utf-8")


def split(tensors: Iterable[Named], weights: str, max_bytes: int | None) -> dict[str, tuple[Named, ...]]:
    """Distributes tensors over files of at most ``max_bytes`` of data, in their order.

    Args:
        tensors: name, dtype and shape of each; one larger than ``max_bytes`` gets its own file.
        weights: name of the file if there is one only, for example ``"tf_model.h5"``.
        max_bytes: None for one file.

    Returns:
        Tensors by file name: ``weights`` itself, or ``tf_model-00001-of-00003.h5`` and so on.
    """
    parts: list[list[Named]] = [[]]
    held = 0
    for tensor in tensors:
        nbytes = math.prod(tensor[2]) * DTYPES[tensor[1]]
        if max_bytes is not None and parts[-1] and held + nbytes > max_bytes:
            parts.append([])
            held = 0
        parts[-1].append(tensor)
        held += nbytes
    if len(parts) == 1:
        return {weights: tuple(parts[0])}
    stem, _, suffix = weights.rpartition(".")
    names = (f"{stem}-{number:05}-of-{len(parts):05}.{suffix}" for number in range(1, len(parts) + 1))
    return {name: tuple(part) for name, part in zip(names, parts, strict=True)}


def parse_size(text: str | int | None) -> int | None:
    """Reads a size such as ``"5GB"`` (10**9 each, as transformers counts), ``"200MiB"`` or a number of bytes.

    Raises:
        TargetError: it is not one, or not more than 0.
    """
    if text is None:
        return None
    match = _SIZE.fullmatch(str(text).strip().upper())
    unit = _UNITS.get(match[2]) if match else None
    size = 0 if match is None or unit is None else int(float(match[1]) * unit)
    if size <= 0:
        raise TargetError(f"a shard size looks like 5GB, 200MB or 1GiB, found {printable(repr(text), 60)}")
    return size


def read_map(path: Path) -> Mapping[str, str]:
    """Reads and checks which file of the index's folder holds which tensor.

    Raises:
        CorruptCheckpoint: the index is invalid, or names anything but plain files.
    """
    try:
        index = read_json(path, MAX_INDEX_BYTES)
    except ConfigError as error:
        raise CorruptCheckpoint(str(error)) from None
    weight_map: Any = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise _corrupt(path, "it has no weight_map")
    if len(files := set(map(str, weight_map.values()))) > MAX_SHARDS:
        raise _corrupt(path, f"it names {len(files):,} files")
    for file in weight_map.values():
        if not is_file_name(file) or is_index(file):
            raise _corrupt(path, f"it names {printable(repr(file), 80)}, which is not a file in its folder")
    return weight_map


def _beside(path: Path) -> Callable[[str], Path | None]:
    def find(file: str) -> Path | None:
        shard = path.parent / file
        return shard if shard.is_file() or shard.is_symlink() else None  # for a link, its reader names the target

    return find


def _join(path: Path, file: str, names: set[str], shard: Checkpoint, tensors: dict[str, StoredTensor]) -> None:
    """Adds a shard's tensors; they must be exactly those that the index lists for it."""
    listed_names = {_plain(name, shard) for name in names}
    missing, foreign = (
        sorted(listed_names - set(shard.tensors)),
        sorted(set(shard.tensors) - listed_names - set(shard.metadata)),
    )
    if missing or foreign:
        raise _corrupt(
            path, f"{printable(file)} lacks {listed(missing)} of what it lists, and holds {listed(foreign)} besides"
        )
    if repeated := sorted(set(tensors).intersection(shard.tensors)):
        raise _corrupt(path, f"{listed(repeated)} stands in {printable(file)} and in another shard")
    tensors.update(shard.tensors)


def _plain(name: str, shard: Checkpoint) -> str:
    rules = frameworks()[shard.framework]
    plain = name.removesuffix(rules.suffix)
    if plain not in shard.tensors and plain.replace(rules.in_safetensors, rules.separator) in shard.tensors:
        return plain.replace(rules.in_safetensors, rules.separator)
    return plain if plain in shard.tensors or not rules.scoped else plain.partition(rules.separator)[2]


def _close(shards: Iterable[Checkpoint]) -> None:
    for shard in shards:
        shard.close()


def _corrupt(path: Path, what: str) -> CorruptCheckpoint:
    return CorruptCheckpoint(f"{path}: not a valid index of shards: {what}; download or save the checkpoint again")
