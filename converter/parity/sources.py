"""Which checkpoint a converted one is compared with: the one that was named, or the one that its manifest names."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from converter.checkpoints.detect import held, read_header
from converter.errors import ConverterError
from converter.folder.files import inside
from converter.folder.manifest import Manifest
from converter.hub.download import cached


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
    try:
        path = (folder / recorded.source).resolve()
        return _converted(path, recorded) if path.exists() else None
    except (OSError, RuntimeError, ValueError):  # a path that no file system would have, or links in a circle
        return None


def _converted(source: Path, recorded: Manifest | None) -> Path:
    """Of a folder that holds several weights, PyTorch's beside TensorFlow's, say, those that were converted."""
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
