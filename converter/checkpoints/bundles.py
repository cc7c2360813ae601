"""Finds the index of a TensorFlow checkpoint: in a SavedModel, in a folder of several, or from the name of any of its files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from converter.checkpoints.bundle_index import INDEX, SAVED_MODEL, is_index
from converter.errors import SourceError, UnsupportedContainer, listed, printable, quoted
from converter.folder.files import inside
from converter.specs import is_file_name

_DATA = re.compile(r"(.+)\.data-\d{5}-of-\d{5}", re.DOTALL)
# The latest checkpoint in a folder, according to tf.train.CheckpointManager and save_weights.
_STATE = "checkpoint"
_LATEST = re.compile(rb'^model_checkpoint_path: "([^"\\\n]+)"', re.MULTILINE)
MAX_STATE_BYTES = 2**20


def index_in(folder: Path) -> Path | None:
    """The index of the checkpoint in a folder, or None.

    Raises:
        SourceError: there are several, and nothing says which is the last.
    """
    if (folder / SAVED_MODEL).is_file():
        held = folder / "variables" / f"variables{INDEX}"
        return inside(held, folder) if held.is_file() else None
    found = sorted(path for path in folder.glob(f"*{INDEX}") if path.is_file() and is_index(inside(path, folder)))
    if len(found) < 2:
        return found[0] if found else None
    latest = _latest(folder)
    if latest not in found:
        raise SourceError(
            f"{folder}: holds {len(found)} TensorFlow checkpoints ({listed([path.name for path in found], 3)}), and no "
            f"file `{_STATE}` that says which is the last; name one: {quoted(found[-1])}"
        )
    return latest


def holds_one(folder: Path) -> bool:
    """Whether there is a checkpoint in a folder, or more of them."""
    if (folder / SAVED_MODEL).is_file():
        return (folder / "variables" / f"variables{INDEX}").is_file()
    return any(path.is_file() and not path.is_symlink() and is_index(path) for path in folder.glob(f"*{INDEX}"))


def index_of(path: Path) -> Path:
    """The index that a file or a prefix of a checkpoint belongs to; otherwise the path itself.

    Raises:
        UnsupportedContainer: it belongs to one that is not there.
    """
    if not path.exists():
        index = path.with_name(path.name + INDEX) if path.name else path
        return index if index.is_file() else path
    if not path.is_file():
        return path
    if path.name == SAVED_MODEL or path.name == _STATE:
        return index_in(path.parent) or path
    if found := _DATA.fullmatch(path.name):
        index = path.with_name(found[1] + INDEX)
        if not index.is_file():
            raise _without_index(path, index.name)
        return index
    return path


def lone_data(listing: Iterable[Path]) -> UnsupportedContainer | None:
    """The error of a folder that holds data of a checkpoint whose index is not there."""
    found = ((path, _DATA.fullmatch(path.name)) for path in listing)
    return next((_without_index(path, data[1] + INDEX) for path, data in found if data), None)


def _without_index(path: Path, index: str) -> UnsupportedContainer:
    return UnsupportedContainer(
        f"{path}: data of a TensorFlow checkpoint without its index; put {printable(index)} beside it"
    )


def outer(source: Path) -> Path:
    """The folder of a SavedModel, where its folder ``variables`` is named; else what is named."""
    within = source.name == "variables" and source.is_dir() and (source.parent / SAVED_MODEL).is_file()
    return source.parent if within else source


def home(path: Path) -> Path:
    """The folder that a checkpoint's config.json is in: beside the index, or beside the folder `variables` of a SavedModel."""
    outer = path.parent.parent
    return outer if path.name.endswith(INDEX) and (outer / SAVED_MODEL).is_file() else path.parent


def _latest(folder: Path) -> Path | None:
    path = folder / _STATE
    if not path.is_file():
        return None
    with inside(path, folder).open("rb") as file:
        said = _LATEST.search(file.read(MAX_STATE_BYTES))
    # An absolute path belongs to the machine that saved it.
    name = said[1].decode(errors="replace").rpartition("/")[2] + INDEX if said else ""
    return folder / name if is_file_name(name) else None
