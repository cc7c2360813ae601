"""``conversion.json``: a checkpoint's origin and options, so that it can be verified without the source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.errors import ConfigError, SourceError, printable
from converter.folder.chat_templates import is_chat_template
from converter.folder.files import inside, read_json
from converter.folder.records import SUMS, FileRecord
from converter.specs import FRAMEWORKS, Framework, is_file_name

NAME = "conversion.json"
VERSION = "0.2.0"  # as in pyproject.toml; importlib.metadata, which knows it as well, takes 10 ms
FORMAT = 2
# Format 1, of version 0.1, has sha256 as the sum of a file. Format 2 has BLAKE3, and sha256 if requested.
READABLE = (1, 2)
MAX_MANIFEST_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """A tensor's canonical hash: BLAKE3 of its bytes in PyTorch's layout, little-endian, in the dtype as written."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    blake3: str

    def to_json(self) -> dict[str, Any]:
        """The form in the manifest."""
        return {"dtype": self.dtype, "shape": list(self.shape), "blake3": self.blake3}


def make_manifest(
    *,
    direction: str,
    source: Path,
    hub: str | None = None,
    commit: str | None = None,
    licence: Mapping[str, str],
    source_files: tuple[FileRecord, ...],
    options: Mapping[str, Any],
    files: tuple[FileRecord, ...],
    tensors: tuple[TensorRecord, ...],
    account: Mapping[str, Any],
) -> dict[str, Any]:
    """Makes the content of ``conversion.json``.

    Args:
        direction: ``"pt2tf"`` or ``"tf2pt"``.
        source: path of the source from the output folder; for a model on the Hub ``id@commit``.
        hub: id of the source on the Hub.
        commit: of the source on the Hub; never a branch, which moves.
        licence: of the source, as ``converter.folder.licence`` gives it.
        source_files: the weights files of the source.
        options: as they were given.
        files: what was written, the manifest itself left out.
        tensors: canonical hashes; empty if nothing was checked.
        account: what was dropped, restored, cast and rewritten.
    """
    return {
        "format": FORMAT,
        "made_by": f"dual-encoder-converter {VERSION}",
        "direction": direction,
        "source": {
            "path": source.as_posix(),
            **({} if hub is None else {"hub": hub, "commit": commit}),
            **({"license": dict(licence)} if licence else {}),
            "files": [record.to_json() for record in source_files],
        },
        "options": dict(options),
        **account,
        "checked": bool(tensors),
        "files": [record.to_json() for record in files],
        "tensors": {record.name: record.to_json() for record in tensors},
    }


@dataclass(frozen=True)
class Manifest:
    """The needed parts of ``conversion.json``, checked.

    Attributes:
        direction: for example ``"pt2tf"``.
        source_framework: whose checkpoint was converted.
        target_framework: whose checkpoint was made.
        source: former path of the source from the folder; for a model on the Hub only informative.
        source_files: names of its weights files.
        source_sums: what was recorded of each of these, by name.
        hub: id of the source on the Hub; None for others.
        commit: of the source on the Hub.
        dtype: what floats were asked to become.
        positions: ``"flax"`` where a table of positions was moved; ``"keep"`` otherwise.
        files: what was recorded of each file, by name.
        tensors: dtype and canonical hash of each tensor, by nested PyTorch name.
    """

    direction: str
    source_framework: Framework
    target_framework: Framework
    source: str
    source_files: tuple[str, ...]
    hub: str | None
    commit: str | None
    dtype: str
    files: Mapping[str, FileRecord]
    tensors: Mapping[str, tuple[str, str]]
    source_sums: Mapping[str, FileRecord]
    positions: str = "keep"


def read_manifest(folder: Path) -> Manifest | None:
    """Reads and checks ``conversion.json``, or returns None.

    Raises:
        SourceError: it is not what this program writes.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        raw = read_json(inside(path, folder), MAX_MANIFEST_BYTES)
    except ConfigError as error:
        raise SourceError(str(error)) from None
    try:
        if raw["format"] not in READABLE:
            raise ValueError(f"format {raw['format']!r}")
        ends = str(raw["direction"]).split("2")
        if len(ends) != 2 or not set(ends) <= set(FRAMEWORKS):
            raise ValueError(f"direction {raw['direction']!r}")
        files = {item["name"]: _file_record(item, _own_file_name) for item in raw["files"]}
        tensors = {
            str(name): (str(item["dtype"]), _hash(item["blake3"]) or "") for name, item in raw["tensors"].items()
        }
        source = raw["source"]
        return Manifest(
            direction=str(raw["direction"]),
            source_framework=ends[0],
            target_framework=ends[1],
            source=str(source["path"]),
            source_files=tuple(_file_name(item["name"]) for item in source["files"]),
            hub=None if source.get("hub") is None else str(source["hub"]),
            commit=None if source.get("commit") is None else str(source["commit"]),
            dtype=str(raw["options"]["dtype"]),
            positions="flax" if raw["options"].get("positions") == "flax" else "keep",
            files=files,
            tensors=tensors,
            source_sums={item["name"]: _file_record(item, _file_name) for item in source["files"] if "size" in item},
        )
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise SourceError(
            f"{path}: not a manifest of this version ({printable(str(error), 80)}); convert again"
        ) from None


def _file_record(item: Mapping[str, Any], name_of: Callable[[Any], str]) -> FileRecord:
    sums = {kind: _hash(item.get(kind)) for kind in SUMS}
    return FileRecord(name_of(item["name"]), int(item["size"]), **sums)


def _file_name(name: Any) -> str:
    if not is_file_name(name):
        raise ValueError(f"file name {name!r}")
    return str(name)


def _own_file_name(name: Any) -> str:
    return str(name) if is_chat_template(name) else _file_name(name)


def _hash(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or len(value) != 64):
        raise ValueError("a hash of another length")
    return value
