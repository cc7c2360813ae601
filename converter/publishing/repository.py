"""The repository that a push goes to as it is now: its files, our open pull request, and what must not be replaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.checkpoints.detect import WEIGHTS
from converter.checkpoints.shards import INDEX
from converter.errors import HubError, TargetError
from converter.hub.ids import HubId
from converter.hub.snapshots import Snapshot, framework_of, snapshot_folder
from converter.names.frameworks import FORMATS, framework_name
from converter.names.layout_files import layout_of_weights
from converter.publishing import card
from converter.publishing.evidence import Evidence
from converter.publishing.publication import CARD
from converter.specs import Framework

MAX_CARD_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Target:
    """The current repository: its commit (None if it does not exist), listing, and our pull request."""

    commit: str | None
    files: Mapping[str, Any]
    revision: str
    pull: Any | None


def find_target(
    api: Any, repository: str, revision: str | None, create_pr: bool | None, evidence: Evidence, me: str | None
) -> Target:
    """Asks the Hub for the repository at a branch, or at our open pull request for the same source.

    Raises:
        HubError: it does not exist, and a pull request is wanted.
    """
    from huggingface_hub import utils

    base = revision or "main"
    try:
        info = api.model_info(repository, revision=base, files_metadata=True)
    except utils.GatedRepoError:
        raise
    except utils.RepositoryNotFoundError:
        if revision not in (None, "main"):
            raise
        if create_pr:
            raise HubError(
                f"{repository}: does not exist, or is private. A pull request needs a repository; leave --create-pr "
                "out to create it"
            ) from None
        return Target(None, {}, base, None)
    pull = None if create_pr is False or me is None else _own_pull(api, repository, base, evidence, me)
    if pull is not None:
        base = f"refs/pr/{pull.num}"
        info = api.model_info(repository, revision=base, files_metadata=True)
    return Target(info.sha, {file.rfilename: file for file in info.siblings or ()}, base, pull)


def _own_pull(api: Any, repository: str, base: str, evidence: Evidence, me: str) -> Any | None:
    """The open pull request of ours for the same source, if there is one."""
    for found in api.get_repo_discussions(repository):
        if found.is_pull_request and found.status in ("open", "draft") and found.author == me:
            details = api.get_discussion_details(repository, found.num)
            first = next((event for event in details.events if event.type == "comment"), None)
            same = first is not None and card.marker(evidence) in first.content
            if same and details.target_branch in (f"refs/heads/{base}", base):
                return details
    return None


def refuse_other_framework(repository: str, target: Target, evidence: Evidence) -> None:
    """TensorFlow's safetensors and PyTorch's have the same name, and transformers 5 takes one for the other."""
    ours = evidence.framework
    if not any(name.endswith((".safetensors", ".safetensors" + INDEX)) for name in evidence.files):
        return
    for name in ("model.safetensors", "model.safetensors.index.json"):
        if name not in target.files:
            continue
        theirs = _framework_there(repository, target, name)
        if theirs != ours:
            other = next(format for format, file in FORMATS[ours].items() if file != "model.safetensors")
            raise TargetError(
                f"{repository}: its {name} is {framework_name(theirs)}'s, which {framework_name(ours)}'s would replace; "
                f"convert again with --format {other}, which can lie beside it"
            )


def is_alone(target: Target, evidence: Evidence) -> bool:
    """Whether the repository has no weights of another framework; PyTorch's and TensorFlow's safetensors have one name."""
    names = set(target.files)
    others = {name for key, files in WEIGHTS.items() if key != evidence.framework for name in files}
    return not (names - set(evidence.files)) & others


def refuse_hidden(repository: str, target: Target, evidence: Evidence) -> None:
    """Of several sets of weights the first is loaded, and the card would show the figures of another."""
    ours = evidence.framework
    written = next((name for name in WEIGHTS[ours] if name in evidence.files), None)
    if written is None:
        return
    for name in WEIGHTS[ours][: WEIGHTS[ours].index(written)]:
        if layout_of_weights(name) != layout_of_weights(written):  # each program takes its own
            continue
        if name in target.files and ("safetensors" not in name or _framework_there(repository, target, name) == ours):
            raise TargetError(
                f"{repository}: its {name} would be loaded instead of {written}; convert again so that {name} is written, "
                "which replaces it, delete it on the Hub first, or push to a repository of its own"
            )


def _framework_there(repository: str, target: Target, name: str) -> Framework:
    """Whose safetensors of the repository are, by their header."""
    commit = str(target.commit)
    sizes = {file: held.size or 0 for file, held in target.files.items()}
    snapshot = Snapshot(HubId(repository, commit), commit, snapshot_folder(repository, commit), sizes)
    return framework_of(snapshot, name)


def card_text(api: Any, repository: str, target: Target) -> str:
    """The model card of a repository; empty if it has none.

    Raises:
        TargetError: it is too large, or not text.
    """
    if CARD not in target.files:
        return ""
    if (target.files[CARD].size or 0) > MAX_CARD_BYTES:
        raise TargetError(f"{repository}: its {CARD} is larger than {MAX_CARD_BYTES:,} bytes; shorten it first")
    path = Path(api.hf_hub_download(repository, CARD, revision=target.commit))
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise TargetError(f"{repository}: its {CARD} is not UTF-8; correct it on the Hub first") from None
