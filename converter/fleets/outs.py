"""The OUT of a task, a folder of this machine or of a bucket: what lies there, and whether it was made before."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import blake3

from converter.conversion.formats import default_format
from converter.folder import manifest
from converter.folder.addresses import Address, place_of
from converter.folder.files import read_json
from converter.folder.manifest import MAX_MANIFEST_BYTES, Manifest, read_manifest
from converter.folder.records import differing_sum
from converter.hub.finding import find_snapshot
from converter.hub.ids import HubId
from converter.hub.obtaining import obtained
from converter.names.frameworks import CANONICAL
from converter.parity.files_and_weights import verify_files
from converter.parity.reports.files import write_report
from converter.parity.verify import Verification

# Defaults for what a manifest does not say.
_SILENT = (("positions", "keep"), ("layout", "transformers"))


def place(path: str) -> Path:
    """What a question names as a path: an ``Address`` if it is one."""
    found = place_of(path)
    return found if isinstance(found, Address) else Path(path)


def manifest_sum(out: Path) -> str:
    """BLAKE3 of the manifest of a folder; empty if there is none that could be ours."""
    if isinstance(out, Address):
        held = _manifest_in_bucket(out)
        return "" if held is None else blake3.blake3(held).hexdigest()
    path = out / manifest.NAME
    try:
        if out.is_symlink() or path.is_symlink() or path.stat().st_size > MAX_MANIFEST_BYTES:
            return ""
        return blake3.blake3(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def stands(out: Path) -> bool:
    """Whether anything is there, but for the rest of an upload that was interrupted."""
    if not isinstance(out, Address):
        return os.path.lexists(out)
    from converter.buckets.uploading import stands_at

    return stands_at(out)


def made_before(
    out: Path, source: str | Path, wanted: HubId | None, commit: str, asked: Mapping[str, Any]
) -> Manifest | None:
    """The manifest of an OUT that was made from this very source with these options, by a run that was killed afterwards."""
    with _manifest_alone(out) as folder:
        recorded = read_manifest(folder)
        if recorded is None or recorded.target_framework != asked["to"] or not recorded.tensors:
            return None
        said = read_json(folder / manifest.NAME, MAX_MANIFEST_BYTES)["options"]
    given = {"format": default_format(asked["to"]), "dtype": "keep", **asked["options"]}
    if asked["to"] == CANONICAL:
        given.setdefault("names", "v4")
    plain = {name: value for name, value in said.items() if value is not None}
    if {k: str(v) for k, v in plain.items()} != {k: v for k, v in given.items() if (k, v) not in _SILENT}:
        return None
    if wanted is not None:
        same = recorded.hub == wanted.id and recorded.commit == (commit or find_snapshot(wanted).commit)
        return recorded if same else None
    if recorded.hub is not None or not recorded.source_sums or not _is_of(recorded, source):
        return None
    with _whole(out) as folder:
        return recorded if verify_files(folder, recorded).status == "passed" else None


def end_upload(out: Path) -> None:
    """Removes the object that marks an upload into OUT, which is whole, if that ended just before its last step."""
    if isinstance(out, Address):
        from converter.buckets.marker import NAME
        from converter.buckets.stores import Store

        Store(out).remove(NAME)


def put_report(found: Verification, path: Path) -> None:
    """Writes the report of a verification beside the ledger."""
    if not isinstance(path, Address):
        path.parent.mkdir(exist_ok=True)
        write_report(found, path)
        return
    from converter.buckets.scratch import Scratch
    from converter.buckets.stores import Store

    with contextlib.closing(Scratch()) as scratch:
        write_report(found, scratch.path / path.name)
        Store(Address(path.parent)).put(path.name, scratch.path / path.name)


def _is_of(recorded: Manifest, source: str | Path) -> bool:
    """Whether a manifest was made from the files that a source has now."""
    if isinstance(source, Address):
        with obtained(source, recorded.source_framework) as held:
            return _has_sums(recorded, held.folder)
    return _has_sums(recorded, Path(source) if Path(source).is_dir() else Path(source).parent)


def _has_sums(recorded: Manifest, home: Path) -> bool:
    """Whether a folder has the weights that a manifest names, and of files that are copied, such as a tokenizer's, the same."""
    copied = {name: held for name, held in recorded.files.items() if name != "config.json" and (home / name).is_file()}
    for name, record in {**copied, **recorded.source_sums}.items():
        file = home / name
        if not record.sums or not file.is_file() or file.stat().st_size != record.size or differing_sum(file, record):
            return False
    return True


def _manifest_in_bucket(out: Address) -> bytes | None:
    from converter.buckets.stores import Store

    return Store(out).small(manifest.NAME, MAX_MANIFEST_BYTES)


@contextlib.contextmanager
def _manifest_alone(out: Path) -> Iterator[Path]:
    """A folder of this machine that holds the manifest of an OUT."""
    if not isinstance(out, Address):
        yield out
        return
    from converter.buckets.scratch import Scratch, told_as

    with contextlib.closing(Scratch()) as scratch, told_as(str(out), scratch.path):
        if (held := _manifest_in_bucket(out)) is not None:
            (scratch.path / manifest.NAME).write_bytes(held)
        yield scratch.path


@contextlib.contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A folder of this machine that holds the files of an OUT."""
    if not isinstance(out, Address):
        yield out
        return
    from converter.buckets.outputs import fetched

    with fetched(out) as folder:
        yield folder
