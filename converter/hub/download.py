"""Turns a source into local files: a path unchanged, an id through the cache of huggingface_hub.

Fetched are config.json (with OpenCLIP's weights its own), tokenizer and processor files, and one set of weights, of the
top level or of the folder that modules.json leads to. The cache is huggingface_hub's own, at its place and under its
rules, so that every other program shares it.
"""

from __future__ import annotations

import contextlib
import glob
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from converter.checkpoints import modules, safetensors, shards
from converter.checkpoints.choice import choose_weights
from converter.checkpoints.detect import model_folder
from converter.errors import ConverterError, HubError, SourceError, printable
from converter.folder.chat_templates import FOLDER, taken_of
from converter.folder.files import MAX_CONFIG_BYTES
from converter.folder.licence import checked as checked_licence
from converter.folder.manifest import VERSION
from converter.folder.sidecars import most_bytes
from converter.folder.tokenizer_files import CONFIGS, SIDECARS, TOKENIZER_CONFIG, of_own_name
from converter.hub.explained import explained, is_transport_error, status_of
from converter.hub.ids import COMMIT, Access, HubId, is_id
from converter.hub.obtained import Obtained
from converter.hub.ranges import remote_file
from converter.hub.waiting import patiently
from converter.names.frameworks import CANONICAL
from converter.names.layout_files import layout_file, layout_of_weights
from converter.specs import Framework, Wanted

_LOG = logging.getLogger("converter.hub")
_ATTEMPTS = 3
# Seconds before a retry of the listing, which huggingface_hub does not retry itself.
_WAITS = (1.0, 3.0)
# Characters that an HTTP header can hold; clients complain about others by printing the token.
_TOKEN = re.compile(r"[\x21-\x7e]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")


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
    weights = (main, *_shards(snapshot, main)) if main.endswith(shards.INDEX) else (main,)
    if missing := [name for name in weights if name not in snapshot.names]:
        _raise_unreached(snapshot)
        raise SourceError(
            f"{wanted}: {main} names {printable(missing[0])}, which is not on the Hub; tell the model's owner"
        )
    _download(snapshot, (*_sidecars(snapshot), *weights))
    sums = {name: (snapshot.folder / name).resolve().name for name in weights}
    recorded = {name: digest for name, digest in sums.items() if _SHA256.fullmatch(digest)}
    beside = tuple(sorted(name for name in snapshot.names if not name.startswith(".")))
    return Obtained(snapshot.folder / main, str(wanted), wanted.id, snapshot.commit, recorded, beside, snapshot.licence)


def _sidecars(snapshot: Snapshot) -> tuple[str, ...]:
    """Names of the tokenizer and processor files of a snapshot; what the tokenizer's config names needs that fetched first."""
    usual = (*(name for name in SIDECARS if name in snapshot.names), *taken_of(snapshot.names))
    _check_sizes(snapshot, usual)
    if TOKENIZER_CONFIG in usual:
        _download(snapshot, (TOKENIZER_CONFIG,))
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
        _raise_unreached(snapshot)
        raise
    layout = layout_of_weights(main)
    if layout is not None and (config := str(layout_file(layout)["config"])) in snapshot.names:
        _download(snapshot, (config,))
    return main


def _raise_unreached(snapshot: Snapshot) -> None:
    if snapshot.unreached is not None:
        with explained(str(snapshot.hub), snapshot.hub.revision):
            raise snapshot.unreached


def find_snapshot(wanted: HubId) -> Snapshot:
    """Resolves a revision to a commit, downloads what tells where the model is, and lists the files beside that.

    Raises:
        HubError: missing, gated, offline, or not reachable.
        SourceError: there is no config.json, or one that no model has.
    """
    api, within = hub_api(wanted.access), wanted.access.within
    names, listed_at, licence, unreached = _listed(api, wanted, wanted.revision)
    path = _config_or_modules(api, wanted, names, unreached)
    folder = path.parents[within.count("/")]
    commit = folder.name
    if not COMMIT.fullmatch(commit):
        raise HubError(
            f"{wanted}: the Hub calls its commit {printable(commit, 60)}, which is not a commit; check HF_ENDPOINT"
        )
    if unreached is None and listed_at != commit:  # the branch moved in between
        names, _, licence, unreached = _listed(api, wanted, commit)
    if unreached is not None:
        asked_for = isinstance(unreached, _offline_error())
        level = logging.INFO if asked_for else logging.WARNING
        _LOG.log(level, "%s: cannot reach the Hub; using the cache", wanted)
        names = _files_in(folder, within)
    root = Snapshot(wanted, commit, path.parent, _within(names, within), unreached, within, licence)
    return root if path.name != modules.NAME else _in_module(root, names, path)


def _in_module(root: Snapshot, names: Mapping[str, int], path: Path) -> Snapshot:
    """The model that modules.json leads to, its config.json fetched.

    Args:
        root: the repository's top level.
        names: sizes of all files of the repository.
        path: of modules.json.
    """
    where = f"{root.hub}/{modules.NAME}"
    within = f"{modules.first_model(path, lambda name: f'{name}/config.json' in names, where)}/"
    found = replace(root, folder=root.folder / within, names=_within(names, within), within=within)
    _check_config(root.hub, found.names)
    _download(found, ("config.json",))
    return found


def _within(names: Mapping[str, int], folder: str) -> dict[str, int]:
    """The files of a repository in one of its folders, by their names there; of deeper folders only chat templates."""
    inner = {name.removeprefix(folder): size for name, size in names.items() if name.startswith(folder)}
    return {name: size for name, size in inner.items() if "/" not in name.removeprefix(f"{FOLDER}/")}


def _files_in(folder: Path, within: str) -> dict[str, int]:
    """Sizes of the files of (a folder of) a snapshot in the cache, and of those in models' folders, as the Hub lists them."""
    inner = folder / within
    below = ("*", "*/*", f"*/{FOLDER}/*")
    found = (path for pattern in below for path in inner.glob(pattern) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in found}


def _config_or_modules(api: Any, wanted: HubId, names: Mapping[str, int], unreached: Exception | None) -> Path:
    """config.json in the cache, or what is in its place, fetched where the Hub is reached."""
    with explained(str(wanted), wanted.revision):
        if unreached is not None:
            held = _cached(wanted)
            if held is None:
                raise unreached
            return held
        try:
            # By the revision, not its commit, so that the cache learns the commit of the revision.
            first, how = _first(wanted, names), _how(wanted.access)
            return Path(
                patiently(str(wanted), lambda: api.hf_hub_download(wanted.id, first, revision=wanted.revision, **how))
            )
        except Exception as error:
            if _is_missing_file(error):
                raise SourceError(
                    f"{wanted}: has no {printable(wanted.access.within)}config.json, so it is not a model that "
                    "save_pretrained wrote; name one that is"
                ) from None
            raise


def _first(wanted: HubId, names: Mapping[str, int]) -> str:
    """The file that tells where the model is, if not too large: config.json, or else modules.json or OpenCLIP's config."""
    within = wanted.access.within
    held = _within(names, within)
    _check_config(wanted, held)
    if "config.json" in held:
        return f"{within}config.json"
    if not within and modules.NAME in names:
        if names[modules.NAME] > modules.MAX_MODULES_BYTES:
            raise SourceError(
                f"{wanted}: {modules.NAME} has {names[modules.NAME]:,} bytes, too many for such a file; name another model"
            )
        return modules.NAME
    return within + next((name for name in CONFIGS if name in held), "config.json")


def _check_config(wanted: HubId, names: Mapping[str, int]) -> None:
    for name in CONFIGS:
        if names.get(name, 0) > MAX_CONFIG_BYTES:
            raise SourceError(f"{wanted}: {name} has {names[name]:,} bytes, too many for a config; name another model")


def _cached(wanted: HubId) -> Path | None:
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
    path = _cached(HubId(repository, commit))
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
    _download(snapshot, (name,))
    return snapshot.folder / name


def framework_of(snapshot: Snapshot, name: str) -> Framework:
    """Whose a safetensors file or index is, by the metadata of (the first shard of) it."""
    if name.endswith(shards.INDEX):
        name = next((file for file in _shards(snapshot, name) if file in snapshot.names), "")
        if not name:
            return CANONICAL
    return safetensors.read_header(open_header_of(snapshot, name)).framework


def _shards(snapshot: Snapshot, index: str) -> tuple[str, ...]:
    return tuple(sorted(set(shards.read_map(index_file(snapshot, index)).values())))


def _download(snapshot: Snapshot, names: tuple[str, ...]) -> None:
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
                        tqdm_class=_bars(),
                        **_how(access),
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


def _how(access: Access) -> dict[str, Any]:
    return {"cache_dir": access.cache_dir, "force_download": access.force_download}


def _bars() -> Any:
    """huggingface_hub's progress bars, on terminals only: a library that is used by another prints nothing."""
    from huggingface_hub.utils import tqdm

    class OnTerminals(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            if not kwargs.get("disable"):
                kwargs["disable"] = None  # by tqdm, where stderr is no terminal
            super().__init__(*args, **kwargs)

    return OnTerminals


def _listed(
    api: Any, wanted: HubId, revision: str | None
) -> tuple[dict[str, int], Any, dict[str, str], Exception | None]:
    """Sizes of the files at a revision, its commit and licence; or why the Hub was not reached."""
    if wanted.access.local_files_only:
        return {}, None, {}, _offline_error()("local_files_only is set")
    waits = list(_WAITS) if _cached(wanted) is None else []
    with explained(str(wanted), wanted.revision):
        while True:
            try:
                info = patiently(str(wanted), lambda: api.model_info(wanted.id, revision=revision, files_metadata=True))
                break
            except Exception as error:
                if not _is_out_of_reach(error):
                    raise
                if not waits or isinstance(error, _offline_error()):
                    return {}, None, {}, error
            time.sleep(waits.pop(0))
    files = {file.rfilename: file.size for file in info.siblings or () if isinstance(file.rfilename, str)}
    sizes = {name: size if isinstance(size, int) else 0 for name, size in files.items()}
    told: Any = getattr(info, "card_data", None)
    return sizes, info.sha, checked_licence(told.to_dict() if hasattr(told, "to_dict") else told), None


def _is_out_of_reach(error: Exception) -> bool:
    if status_of(error):
        return status_of(error) >= 500
    return isinstance(error, _offline_error()) or is_transport_error(error)


def _offline_error() -> type[Exception]:
    """The exceptions of huggingface_hub with HF_HUB_OFFLINE."""
    from huggingface_hub.utils import OfflineModeIsEnabled

    kind: type[Exception] = OfflineModeIsEnabled
    return kind


def _is_missing_file(error: Exception) -> bool:
    from huggingface_hub import utils

    return isinstance(error, utils.EntryNotFoundError) and not isinstance(error, utils.LocalEntryNotFoundError)


def hub_api(access: Access = Access()) -> Any:  # noqa: B008 - frozen
    """huggingface_hub's client, with its own endpoint, proxies and, unless another was given, token.

    Raises:
        HubError: its token cannot be used.
    """
    from huggingface_hub import HfApi

    if not isinstance(access.token, str):
        token()
    elif not _TOKEN.fullmatch(access.token):
        raise HubError("token= holds characters that no token has; copy it again, or leave it out and set HF_TOKEN")
    return HfApi(token=access.token, library_name="dual-encoder-converter", library_version=VERSION)


def token() -> str | None:
    """The token that huggingface_hub sends; None if nobody is logged in.

    Raises:
        HubError: it cannot be read, or is not a token.
    """
    from huggingface_hub.utils import get_token

    try:
        found: str | None = get_token()
    except (OSError, UnicodeDecodeError) as error:
        raise HubError(
            f"cannot read the Hub token ({printable(str(error), 200)}); set HF_HOME to a folder that you may write to"
        ) from None
    if found and not _TOKEN.fullmatch(found):
        raise HubError(
            "the Hub token holds characters that no token has; copy it into HF_TOKEN again, or log in with `hf "
            "auth login`"
        )
    return found
