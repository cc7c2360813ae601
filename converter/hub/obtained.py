"""A source as files on this disk, whether a path, a model on the Hub or a bucket was named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from converter.folder.addresses import Address


@dataclass(frozen=True)
class Obtained:
    """A source on this disk.

    Attributes:
        path: the path that was given, or the folder that its modules.json names. Of a model on the Hub or in a bucket,
            the weights file in the cache or in the local copy.
        label: what messages and results call it: the path, or ``id@revision`` as it was given.
        hub: the id; None for a path.
        commit: of the Hub; None for a path.
        sha256: by name of a file, the sum that the Hub has recorded of it; empty for a path.
        beside: names of the files that the Hub, or the bucket, lists beside the weights; empty for a path.
        licence: as the Hub has it from the model card; empty for a path.
        address: of a source in a bucket; None for others.
        close: removes the local copy of a source in a bucket, which otherwise goes when the program ends.
        here: of a source in a bucket, the folder that paths of the copy begin with; None for others.
        there: what messages show in its place.
    """

    path: Path
    label: str
    hub: str | None = None
    commit: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    licence: Mapping[str, str] = field(default_factory=dict)
    address: Address | None = None
    close: Callable[[], None] = lambda: None
    here: Path | None = None
    there: str = ""

    @property
    def is_remote(self) -> bool:
        """Whether it is on the Hub or in a bucket."""
        return self.hub is not None or self.address is not None

    @property
    def folder(self) -> Path:
        """The place of config.json."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def pinned(self) -> str:
        """The source by what does not change: ``id@commit``, or the path."""
        return self.label if self.hub is None else f"{self.hub}@{self.commit}"
