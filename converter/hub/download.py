"""Turns an id into local files, through the cache of huggingface_hub.

Fetched are config.json (with OpenCLIP's weights its own), tokenizer and processor files, and one set of weights, of the
top level or of the folder that modules.json leads to.
"""

from __future__ import annotations

import re

from converter.checkpoints import shards
from converter.checkpoints.choice import choose_weights
from converter.errors import SourceError, printable
from converter.folder.chat_templates import taken_of
from converter.folder.sidecars import most_bytes
from converter.folder.tokenizer_files import SIDECARS, TOKENIZER_CONFIG, of_own_name
from converter.hub.finding import find_snapshot
from converter.hub.ids import HubId
from converter.hub.obtained import Obtained
from converter.hub.snapshots import Snapshot, download, framework_of, raise_unreached, shards_of
from converter.names.layout_files import layout_file, layout_of_weights
from converter.specs import Wanted

_SHA256 = re.compile(r"[0-9a-f]{64}")


def obtain_from_hub(wanted: HubId, framework: Wanted) -> Obtained:
    """Gives a model on the Hub as files on this disk, downloading what is needed of it.

    Args:
        wanted: the model, and the settings for requests to the Hub.
        framework: whose weights are wanted; None takes what there is.

    Raises:
        HubError: missing, gated, offline, or not reachable.
        SourceError: no weights that could be used.
    """
    snapshot = find_snapshot(wanted)
    main = choose(snapshot, framework)
    weights = (main, *shards_of(snapshot, main)) if main.endswith(shards.INDEX) else (main,)
    if missing := [name for name in weights if name not in snapshot.names]:
        raise_unreached(snapshot)
        raise SourceError(
            f"{wanted}: {main} names {printable(missing[0])}, which is not on the Hub; tell the model's owner"
        )
    download(snapshot, (*_sidecars(snapshot), *weights))
    sums = {name: (snapshot.folder / name).resolve().name for name in weights}
    recorded = {name: digest for name, digest in sums.items() if _SHA256.fullmatch(digest)}
    beside = tuple(sorted(name for name in snapshot.names if not name.startswith(".")))
    return Obtained(snapshot.folder / main, str(wanted), wanted.id, snapshot.commit, recorded, beside, snapshot.licence)


def _sidecars(snapshot: Snapshot) -> tuple[str, ...]:
    """Names of the tokenizer and processor files of a snapshot; what the tokenizer's config names needs that fetched first."""
    usual = (*(name for name in SIDECARS if name in snapshot.names), *taken_of(snapshot.names))
    _check_sizes(snapshot, usual)
    if TOKENIZER_CONFIG in usual:
        download(snapshot, (TOKENIZER_CONFIG,))
    own = of_own_name(snapshot.names, snapshot.folder / TOKENIZER_CONFIG)
    _check_sizes(snapshot, own)
    return (*usual, *own)


def _check_sizes(snapshot: Snapshot, names: tuple[str, ...]) -> None:
    for name in names:
        if snapshot.names[name] > most_bytes(name):
            raise SourceError(
                f"{snapshot.hub}: {name} has {snapshot.names[name]:,} bytes, too many for such a file; name another model"
            )


def choose(snapshot: Snapshot, framework: Wanted) -> str:
    """Chooses the weights file or index of a snapshot, and fetches the config of another program's that goes with it.

    Raises:
        SourceError: there are no usable ones.
        HubError: the cache has none, and the Hub could not be reached.
    """
    try:
        main = choose_weights(str(snapshot.hub), snapshot.names, framework, lambda name: framework_of(snapshot, name))
    except SourceError:
        raise_unreached(snapshot)
        raise
    layout = layout_of_weights(main)
    if layout is not None and (config := str(layout_file(layout)["config"])) in snapshot.names:
        download(snapshot, (config,))
    return main
