"""A source as files on this disk, whether a path or a model on the Hub was named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Obtained:
    """A source on this disk.

    Attributes:
        path: the path that was given, of a folder with a modules.json the one that it leads to; or the weights file of
            a snapshot in the cache.
        label: what messages and results call it: the path, or ``id@revision`` as it was given.
        hub: the id; None for a path.
        commit: of the Hub; None for a path.
        sha256: by name of a file, the sum that the Hub has recorded of it; empty for a path.
        beside: names of the files that the Hub lists beside the weights; empty for a path.
        licence: as the Hub has it from the model card; empty for a path.
    """

    path: Path
    label: str
    hub: str | None = None
    commit: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    licence: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The place of config.json."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def pinned(self) -> str:
        """The source by what does not change: ``id@commit``, or the path."""
        return self.label if self.hub is None else f"{self.hub}@{self.commit}"
