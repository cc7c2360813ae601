"""``conversion.json``: what made a checkpoint from what, so that it can be verified when the source is gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from converter.folder.files import FileRecord

NAME = "conversion.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """A tensor's canonical hash: BLAKE3 of its bytes in PyTorch's layout, little-endian, in the dtype as written."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    blake3: str

    def to_json(self) -> dict[str, Any]:
        """As it stands in the manifest."""
        return {"dtype": self.dtype, "shape": list(self.shape), "blake3": self.blake3}


def make_manifest(
    *,
    direction: str,
    source: Path,
    hub: str | None = None,
    commit: str | None = None,
    source_files: tuple[FileRecord, ...],
    options: Mapping[str, Any],
    files: tuple[FileRecord, ...],
    tensors: tuple[TensorRecord, ...],
    account: Mapping[str, Any],
) -> dict[str, Any]:
    """Makes the content of ``conversion.json``.

    Args:
        direction: ``"pt2tf"`` or ``"tf2pt"``.
        source: where the source lies, as seen from the output folder; of a model on the Hub ``id@commit``.
        hub: id of the source on the Hub.
        commit: of the source on the Hub; never a branch, which moves.
        source_files: the weights files of the source.
        options: as they were given.
        files: what was written, the manifest itself left out.
        tensors: canonical hashes; empty where nothing was checked.
        account: what was dropped, restored, cast and rewritten.
    """
    return {
        "format": FORMAT,
        "made_by": f"dual-encoder-converter {version()}",
        "direction": direction,
        "source": {
            "path": source.as_posix(),
            **({} if hub is None else {"hub": hub, "commit": commit}),
            "files": [record.to_json() for record in source_files],
        },
        "options": dict(options),
        **account,
        "checked": bool(tensors),
        "files": [record.to_json() for record in files],
        "tensors": {record.name: record.to_json() for record in tensors},
    }


def version() -> str:
    """Version of the installed distribution."""
    try:
        return metadata.version("dual-encoder-converter")
    except metadata.PackageNotFoundError:
        return "unknown"
