"""Which checkpoint a converted one is compared with: the one that was named, or the one that its manifest names."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from converter.checkpoints.detect import held, read_header
from converter.errors import ConverterError
from converter.folder.files import inside
from converter.folder.manifest import Manifest
from converter.folder.records import differing_sum
from converter.hub.snapshots import cached
from converter.names.configs import config_beside

# How much of a source's path its new place may keep: a file of a snapshot is two folders below the named one.
_LEVELS = 3


def find_source(folder: Path, recorded: Manifest | None, given: Sequence[Path | None]) -> Path | None:
    """The source to compare with: the one that was named, else the one of the manifest, if it is still there."""
    for path in given:
        if path is not None:
            return _converted(path, recorded)
    if recorded is None:
        return None
    if recorded.hub is not None:
        # A manifest may come from anywhere, so it does not make anything be downloaded.
        snapshot = cached(recorded.hub, recorded.commit or "")
        if snapshot is None or not all((snapshot / name).is_file() for name in recorded.source_files):
            return None
        return snapshot / recorded.source_files[0] if len(recorded.source_files) == 1 else snapshot
    for path in places(folder, recorded):
        # At its recorded place it is the source even if it changed; elsewhere only if it is the same.
        if path.exists() and (path == recorded_place(folder, recorded) or _is_same(path, recorded)):
            return _converted(path, recorded)
    return None


def config_of_source(source: Path) -> Path:
    """The config of a source: config.json, or another program's where its weights are in that program's layout."""
    if not source.is_dir():
        return config_beside(source.parent, (source,))
    names = held(source)
    return config_beside(source, [source / name for name in names] if len(names) == 1 else ())


def recorded_place(folder: Path, recorded: Manifest) -> Path | None:
    """The source's path in the manifest; None if no file system could have it."""
    try:
        path = (folder / recorded.source).resolve()
        path.exists()
    except (OSError, RuntimeError, ValueError):  # such as a loop of links
        return None
    return path


def places(folder: Path, recorded: Manifest) -> tuple[Path, ...]:
    """Where a source on this machine is looked for: where the manifest says, then beside the folder and here, by its name.

    A folder and its source may have been moved, together to one place or only one of them.
    """
    found = recorded_place(folder, recorded)
    if found is None:
        return ()
    parts = [part for part in Path(recorded.source).parts if part not in ("..", "/")][-_LEVELS:]
    tails = [Path(*parts[start:]) for start in range(len(parts))]
    homes = (folder.resolve().parent, Path.cwd())
    return tuple(dict.fromkeys((found, *(home / tail for home in homes for tail in tails))))


def _is_same(path: Path, recorded: Manifest) -> bool:
    """Whether a place has the weights files that were converted, byte for byte if their sums are known."""
    home = path if path.is_dir() else path.parent
    if not recorded.source_sums or set(recorded.source_sums) != set(recorded.source_files):
        return False
    for name, record in recorded.source_sums.items():
        file = home / name
        if not file.is_file() or file.stat().st_size != record.size:
            return False
        if differing_sum(file, record) is not None:
            return False
    return True


def _converted(source: Path, recorded: Manifest | None) -> Path:
    """Of a folder with several weights, such as PyTorch's beside TensorFlow's, those that were converted."""
    names = held(source) if source.is_dir() else ()
    if recorded is None or len(names) < 2:
        return source
    for name in names:
        with contextlib.suppress(ConverterError):
            checkpoint = read_header(inside(source / name, source))
            checkpoint.close()
            if {file.name for file in checkpoint.files} == set(recorded.source_files):
                return source / name
    return source
