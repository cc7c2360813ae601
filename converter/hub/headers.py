"""Reads the headers of a model on the Hub, without downloading its weights, by the readers of local files."""

from __future__ import annotations

from pathlib import Path

from converter.checkpoints import shards
from converter.checkpoints.detect import read_remote_header
from converter.hub.download import choose
from converter.hub.snapshots import Snapshot, index_file, open_header_of
from converter.specs import Checkpoint, Framework


def open_headers(snapshot: Snapshot, framework: Framework | None = None) -> Checkpoint:
    """Reads the headers of one set of weights; files in the cache are read there.

    Args:
        snapshot: of the model.
        framework: whose weights are wanted; None takes what there is.

    Raises:
        ConverterError: no weights, an unsound header, or the Hub cannot be read.
    """
    main = choose(snapshot, framework)
    if not main.endswith(shards.INDEX):
        return read_remote_header(open_header_of(snapshot, main))

    def find(file: str) -> Path | None:
        return open_header_of(snapshot, file) if file in snapshot.names else None

    return shards.read_index(index_file(snapshot, main), read_remote_header, find)
