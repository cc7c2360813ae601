"""A repository at one commit in the cache of huggingface_hub: its files, fetched as they are needed.

The cache is huggingface_hub's own, at its place and under its rules, so that every other program shares it.
"""

from __future__ import annotations

import contextlib
import glob
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from converter.checkpoints import modules, safetensors, shards
from converter.checkpoints.detect import model_folder
from converter.errors import ConverterError, HubError, SourceError, printable
from converter.folder.tokenizer_files import CONFIGS
from converter.hub.client import bars_on_terminals, cache_options, hub_api
from converter.hub.explained import explained, is_transport_error
from converter.hub.ids import COMMIT, HubId, is_id
from converter.hub.ranges import remote_file
from converter.hub.waiting import patiently
from converter.names.frameworks import CANONICAL
from converter.specs import Framework

_LOG = logging.getLogger("converter.hub")
_ATTEMPTS = 3


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit.

    Attributes:
        hub: the id as it was given.
        commit: the commit of its revision.
        folder: of the model in the snapshot in the cache; config.json is there.
        names: sizes of the files beside it; of those that are in the cache where the Hub is not reached.
        unreached: why the Hub could not be reached, or None.
        licence: from the model card on the Hub; empty if the Hub was not reached.
        within: the folder of the model in the repository, for example ``"0_CLIPModel/"``; empty for the top level.
    """

    hub: HubId
    commit: str
    folder: Path
    names: Mapping[str, int]
    unreached: Exception | None = None
    within: str = ""
    licence: Mapping[str, str] = field(default_factory=dict)

    @property
    def local(self) -> bool:
        """Whether the Hub could not be reached, so that only the cache is available."""
        return self.unreached is not None


def raise_unreached(snapshot: Snapshot) -> None:
    """Raises why the Hub could not be reached, if it could not."""
    if snapshot.unreached is not None:
        with explained(str(snapshot.hub), snapshot.hub.revision):
            raise snapshot.unreached


def cached_config(wanted: HubId) -> Path | None:
    """config.json in the cache, or what is in its place."""
    from huggingface_hub import constants, try_to_load_from_cache

    access = wanted.access
    first, *theirs = (f"{access.within}{name}" for name in CONFIGS)
    for name in (first, *([] if access.within else [modules.NAME]), *theirs):
        held = try_to_load_from_cache(
            wanted.id, name, cache_dir=access.cache_dir or constants.HF_HUB_CACHE, revision=wanted.revision or "main"
        )
        if isinstance(held, str):
            return Path(held)
    return None


def cached(repository: str, commit: str) -> Path | None:
    """The model's folder in a commit's snapshot in the cache, however complete; without a request to the Hub."""
    if not is_id(repository) or not COMMIT.fullmatch(commit):
        return None
    path = cached_config(HubId(repository, commit))
    with contextlib.suppress(ConverterError):  # of a modules.json that leads nowhere
        return None if path is None else model_folder(path.parent)
    return None


def snapshot_folder(repository: str, commit: str) -> Path:
    """Where the cache keeps a commit, whether it is there or not."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    name = str(repo_folder_name(repo_id=repository, repo_type="model"))
    return Path(constants.HF_HUB_CACHE) / name / "snapshots" / commit


def open_header_of(snapshot: Snapshot, name: str) -> Path:
    """A weights file for the readers of headers: the one in the cache, or a remote one."""
    path = snapshot.folder / name
    if (path.is_file() and not snapshot.hub.access.force_download) or snapshot.local:
        return path
    within, token = f"{snapshot.within}{name}", snapshot.hub.access.token
    return remote_file(snapshot.hub.id, snapshot.commit, within, snapshot.names[name], token)


def index_file(snapshot: Snapshot, name: str) -> Path:
    """Fetches the index of some shards, which is small."""
    if snapshot.names[name] > shards.MAX_INDEX_BYTES:
        raise SourceError(
            f"{snapshot.hub}: {name} has {snapshot.names[name]:,} bytes, too many for an index; name another model"
        )
    download(snapshot, (name,))
    return snapshot.folder / name


def framework_of(snapshot: Snapshot, name: str) -> Framework:
    """Whose a safetensors file or index is, by the metadata of (the first shard of) it."""
    if name.endswith(shards.INDEX):
        name = next((file for file in shards_of(snapshot, name) if file in snapshot.names), "")
        if not name:
            return CANONICAL
    return safetensors.read_header(open_header_of(snapshot, name)).framework


def shards_of(snapshot: Snapshot, index: str) -> tuple[str, ...]:
    """Names of the shards that an index lists; fetches the index."""
    return tuple(sorted(set(shards.read_map(index_file(snapshot, index)).values())))


def download(snapshot: Snapshot, names: tuple[str, ...]) -> None:
    """Fetches files of a snapshot that are not in the cache yet; a connection that broke off goes on where it ended.

    Raises:
        HubError: gated, offline, not reachable, or not there afterwards.
    """
    access = snapshot.hub.access
    again = access.force_download and not snapshot.local
    missing = [name for name in names if again or not (snapshot.folder / name).is_file()]
    if not missing:
        return
    within = [f"{snapshot.within}{name}" for name in missing]
    patterns = [glob.escape(name) for name in within]
    with explained(str(snapshot.hub), snapshot.hub.revision):
        for attempt in range(_ATTEMPTS):
            try:
                patiently(
                    str(snapshot.hub),
                    lambda: hub_api(access).snapshot_download(
                        snapshot.hub.id,
                        revision=snapshot.commit,
                        allow_patterns=patterns,
                        tqdm_class=bars_on_terminals(),
                        **cache_options(access),
                    ),
                )
                break
            except Exception as error:
                # Of a connection that broke off, the next attempt asks for the rest.
                if attempt + 1 == _ATTEMPTS or not is_transport_error(error):
                    raise
                _LOG.warning("%s: the download was interrupted; resuming it", snapshot.hub)
    if lost := [name for name in missing if not (snapshot.folder / name).is_file()]:
        raise HubError(f"{snapshot.hub}: {printable(lost[0])} was not downloaded; run this again")
