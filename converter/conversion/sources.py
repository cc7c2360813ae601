"""Opens a conversion's source: downloads it if needed, records its files' identities, and reads its headers."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from converter.checkpoints.detect import open_source
from converter.checkpoints.memory import read_state_dict
from converter.checkpoints.shards import INDEX
from converter.errors import SourceError
from converter.folder.addresses import Address
from converter.folder.files import Identity, expanded, identities, identity, named
from converter.folder.sidecars import lies_beside
from converter.folder.tokenizer_files import CONFIGS, SIDECARS, sidecars_in
from converter.hub.obtained import Obtained
from converter.hub.obtaining import obtain, obtain_headers, told_as_named
from converter.names.frameworks import CANONICAL, among, command, framework_name
from converter.specs import Checkpoint, Wanted

Source = Annotated[
    str | os.PathLike[str] | Mapping[str, Any],
    "the source is a {}, expected a path, a Hub id or a state dict; for a model in memory pass model.state_dict()",
]


@dataclass(frozen=True)
class Opened:
    """A source whose headers have been read.

    Attributes:
        path: as it was given; ``memory`` for tensors in memory.
        checkpoint: what it holds.
        folder: where config.json and the small files are; None for tensors in memory.
        origin: what is known of a source on the Hub or in a bucket; None for others.
        beside: names of files beside its weights.
        before: identity of each weights file before its header was read, and of the small ones beside them.
        began: ``time.perf_counter()`` when reading began: a download is not the conversion's time.
    """

    path: Path
    checkpoint: Checkpoint
    folder: Path | None
    origin: Obtained | None
    beside: tuple[str, ...]
    before: Mapping[Path, Identity]
    began: float


@contextmanager
def opened(
    source: Source, framework: Wanted, revision: str | None = None, headers_only: bool = False
) -> Iterator[Opened]:
    """Opens a source, and closes it.

    Args:
        source: a folder, a weights file in one, the id of a model on the Hub, the address of a bucket, or tensors in
            memory by name.
        framework: whose weights are wanted; None takes what there is.
        revision: branch, tag or commit of an id.
        headers_only: whether no tensor is going to be read: of a bucket, none is fetched then.

    Raises:
        SourceError: there is nothing that can be read, or only another framework's weights.
        HubError: the Hub refuses, or cannot be reached.
        BucketError: the bucket does.
    """
    began = time.perf_counter()
    if isinstance(source, Mapping):
        if CANONICAL not in among(framework):
            raise SourceError(f"a state dict in memory is {framework_name(CANONICAL)}'s; use {command(CANONICAL)}")
        checkpoint = read_state_dict(source)
        yield Opened(Path("memory"), checkpoint, None, None, (), {}, began)
        return
    read: Checkpoint | None = None
    place = expanded(source)
    if headers_only and isinstance(place, Address):
        held, read = obtain_headers(place, framework)
    else:
        held = obtain(source, framework, revision)
    began = time.perf_counter() if held.is_remote else began
    with contextlib.closing(held), told_as_named(held):
        seen = identities(held.path)
        checkpoint, folder = (read, held.folder) if read is not None else open_source(held.path, framework)
        try:
            now = {file: identity(file) for file in checkpoint.files}
            before = {file: seen.get(file, held_now) for file, held_now in now.items()}
            origin = held if held.is_remote else None
            beside = held.beside if held.is_remote else lies_beside(held.path)
            yield Opened(named(place), checkpoint, folder, origin, beside, {**before, **small_files(seen)}, began)
        finally:
            checkpoint.close()


def small_files(seen: Mapping[Path, Identity]) -> Mapping[Path, Identity]:
    """Of a folder's files, what is read beside the weights: config.json, tokenizer and processor files, an index."""
    folders = {path.parent for path in seen}
    named = {folder / name for folder in folders for name in sidecars_in(folder)}
    read = {*CONFIGS, *SIDECARS}
    return {
        path: known for path, known in seen.items() if path in named or path.name in read or path.name.endswith(INDEX)
    }
