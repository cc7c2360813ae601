"""Finds a model on the Hub: the commit of its revision, the folder that holds it, and the files beside its config.json."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from converter.checkpoints import modules
from converter.errors import HubError, SourceError, printable
from converter.folder.chat_templates import FOLDER
from converter.folder.files import MAX_CONFIG_BYTES
from converter.folder.licence import checked as checked_licence
from converter.folder.tokenizer_files import CONFIGS
from converter.hub.client import cache_options, hub_api, is_missing_file, is_out_of_reach, offline_error
from converter.hub.explained import explained
from converter.hub.ids import COMMIT, HubId
from converter.hub.snapshots import Snapshot, cached_config, download
from converter.hub.waiting import patiently

_LOG = logging.getLogger("converter.hub")
# Seconds before a retry of the listing, which huggingface_hub does not retry itself.
_WAITS = (1.0, 3.0)


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
        asked_for = isinstance(unreached, offline_error())
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
    download(found, ("config.json",))
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
            held = cached_config(wanted)
            if held is None:
                raise unreached
            return held
        try:
            # By the revision, not its commit, so that the cache learns the commit of the revision.
            first, how = _first(wanted, names), cache_options(wanted.access)
            return Path(
                patiently(str(wanted), lambda: api.hf_hub_download(wanted.id, first, revision=wanted.revision, **how))
            )
        except Exception as error:
            if is_missing_file(error):
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


def _listed(
    api: Any, wanted: HubId, revision: str | None
) -> tuple[dict[str, int], Any, dict[str, str], Exception | None]:
    """Sizes of the files at a revision, its commit and licence; or why the Hub was not reached."""
    if wanted.access.local_files_only:
        return {}, None, {}, offline_error()("local_files_only is set")
    waits = list(_WAITS) if cached_config(wanted) is None else []
    with explained(str(wanted), wanted.revision):
        while True:
            try:
                info = patiently(str(wanted), lambda: api.model_info(wanted.id, revision=revision, files_metadata=True))
                break
            except Exception as error:
                if not is_out_of_reach(error):
                    raise
                if not waits or isinstance(error, offline_error()):
                    return {}, None, {}, error
            time.sleep(waits.pop(0))
    files = {file.rfilename: file.size for file in info.siblings or () if isinstance(file.rfilename, str)}
    sizes = {name: size if isinstance(size, int) else 0 for name, size in files.items()}
    told: Any = getattr(info, "card_data", None)
    return sizes, info.sha, checked_licence(told.to_dict() if hasattr(told, "to_dict") else told), None
