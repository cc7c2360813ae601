"""Turns a person's source into local files: a path unchanged, an id of the Hub by downloading what is needed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from converter.checkpoints.detect import model_folder
from converter.folder.files import expanded, inside
from converter.hub.ids import Access, hub_id
from converter.hub.obtained import Obtained
from converter.specs import Wanted


def obtain(
    source: str | os.PathLike[str],
    framework: Wanted,
    revision: str | None = None,
    access: Access = Access(),  # noqa: B008 - frozen
) -> Obtained:
    """Gives a source as files on this disk, downloading what is needed of it.

    Args:
        source: a path, or the id of a model on the Hub, ``id@revision`` too.
        framework: whose weights are wanted; None takes what there is.
        revision: branch, tag or commit of an id.
        access: how the Hub is asked.

    Raises:
        HubError: missing, gated, offline, or not reachable.
        SourceError: no weights that could be used.
    """
    source = expanded(source)
    wanted = hub_id(source, revision)
    if wanted is None:
        path = Path(source)
        return Obtained(model_folder(inside(path / access.within, path) if access.within else path), os.fspath(source))
    from converter.hub.download import obtain_from_hub  # which most conversions do not need

    return obtain_from_hub(replace(wanted, access=access), framework)
