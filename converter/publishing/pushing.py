"""``push``: puts a converted checkpoint on the Hub, in a pull request or a commit; only what is not there yet."""

from __future__ import annotations

import difflib
import hashlib
import io
import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

from converter.arguments import checked
from converter.buckets.outputs import fetched
from converter.checkpoints.detect import WEIGHTS
from converter.checkpoints.shards import INDEX
from converter.errors import HubError, TargetError, listed, reading
from converter.folder import proof
from converter.folder.addresses import Address
from converter.folder.files import expanded
from converter.folder.records import hash_file
from converter.hub.download import Snapshot, framework_of, hub_api, snapshot_folder, token
from converter.hub.explained import UPLOADED, explained
from converter.hub.ids import Access, HubId, check_repository, check_revision
from converter.names.frameworks import FORMATS, framework_name
from converter.names.layout_files import layout_of_weights
from converter.publishing import card
from converter.publishing.evidence import Evidence, gather
from converter.specs import JSON_FORMAT, Framework

_LOG = logging.getLogger("converter.publishing")
CARD = "README.md"
# What the Hub puts into a repository that it makes.
_INITIAL = {".gitattributes"}
MAX_CARD_BYTES = 8 * 2**20
# huggingface_hub has one switch for the whole process: pushes of several threads that want no bars hold it together.
_SWITCH, _SILENT = threading.Lock(), list[object]()
Action = Literal["pull request", "update", "commit", "nothing"]


@dataclass(frozen=True)
class Change:
    """A file as it would be.

    Attributes:
        name: of the file.
        action: ``"add"``, ``"replace"``, ``"same"``, which is not uploaded, or ``"delete"``: the parity.json of other weights.
        size: in bytes.
    """

    name: str
    action: Literal["add", "replace", "same", "delete"]
    size: int


@dataclass(frozen=True)
class Publication:
    """What a push did, or with ``dry_run`` would do.

    Attributes:
        repository: its id.
        action: a new pull request, an update of an open one, a commit to a branch, or nothing to do.
        revision: the branch, ``refs/pr/<number>`` of a pull request; empty if it does not exist yet.
        creates: whether the repository is created.
        changes: every file, the model card too.
        title: of the pull request or commit.
        description: of the pull request.
        card_diff: what changes in the model card, as a unified diff.
        verified: whether it includes a passing verification.
        url: of the pull request or commit, or empty.
        commit: the new commit, or None.
        dry_run: whether nothing was written.
        out: the checkpoint that is published.
    """

    repository: str
    action: Action
    revision: str
    creates: bool
    changes: tuple[Change, ...]
    title: str
    description: str
    card_diff: str
    verified: bool
    url: str = ""
    commit: str | None = None
    dry_run: bool = False
    out: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dumps``: ``docs/publication.schema.json`` describes it."""
        out = None if self.out is None else str(self.out)
        return {"format": JSON_FORMAT} | vars(self) | {"changes": [vars(change) for change in self.changes], "out": out}


@dataclass(frozen=True)
class _Target:
    """The current repository: its commit (None if it does not exist), listing, and our pull request."""

    commit: str | None
    files: Mapping[str, Any]
    revision: str
    pull: Any | None


@checked()
def push(
    folder: str | os.PathLike[str],
    repository: str,
    *,
    create_pr: bool | None = None,
    revision: str | None = None,
    private: bool = False,
    message: str | None = None,
    allow_unverified: bool = False,
    dry_run: bool = False,
    token: str | None = None,
) -> Publication:
    """Publishes a converted checkpoint that ``verify`` found equal to its source.

    Args:
        folder: the checkpoint.
        repository: id of the model to publish it in; created if it does not exist.
        create_pr: whether to open a pull request; None does so if the repository exists and holds something.
            An open one for the same source is updated instead.
        revision: branch to commit to, or to open the pull request against; None for the main branch. ``refs/pr/1`` commits
            to a pull request.
        private: whether a new repository is private.
        message: title of the pull request or commit.
        allow_unverified: publish it even if its files do not match its manifest, or it was not verified; the text says so.
        dry_run: report what would change, and write nothing.
        token: Hub token; None uses the one you are logged in with.

    Returns:
        What was done.

    Raises:
        SourceError: the folder is not what a conversion made, or the model card cannot be added to.
        TargetError: the checkpoint is not verified, would replace weights of the other framework, or lie beside weights that
            are loaded instead.
        HubError: the Hub refuses, or cannot be reached.
    """
    check_repository(repository)
    if revision is not None:
        check_revision(revision)
    if revision is not None and revision.startswith("refs/pr/"):
        if create_pr:
            raise TargetError(f"{revision} is a pull request already; leave --create-pr out to commit to it")
        create_pr = False
    place = expanded(folder)
    with fetched(place) if isinstance(place, Address) else nullcontext(Path(place)) as here:
        with reading(os.fspath(here)):
            evidence = gather(here, allow_unverified)
        return _publish(evidence, repository, create_pr, revision, private, message, dry_run, token)


def _publish(
    evidence: Evidence,
    repository: str,
    create_pr: bool | None,
    revision: str | None,
    private: bool,
    message: str | None,
    dry_run: bool,
    token: str | None,
) -> Publication:
    api = hub_api(Access(token=token))
    with explained(repository, revision, UPLOADED):
        me = _who_am_i(api, dry_run)
        target = _find_target(api, repository, revision, create_pr, evidence, me)
        _refuse_other_framework(repository, target, evidence)
        _refuse_hidden(repository, target, evidence)
        before = _card_text(api, repository, target)
        after = card.edited(before, evidence, repository, _alone(target, evidence))
        planned = _plan(evidence, repository, target, create_pr, message, before, after)
        if dry_run or planned.action == "nothing":
            return replace(planned, dry_run=dry_run)
        with _bars_on_terminals():
            done = _carry_out(api, planned, target, evidence, after, private, revision)
        _confirm(api, done, evidence)
        return done


def _plan(
    evidence: Evidence,
    repository: str,
    target: _Target,
    create_pr: bool | None,
    message: str | None,
    before: str,
    after: str,
) -> Publication:
    changes = tuple(_compare(evidence, name, target.files.get(name)) for name in evidence.files)
    kind: Literal["add", "replace", "same"] = "same" if after == before else "replace" if before else "add"
    changes = (*changes, Change(CARD, kind, len(after.encode())))
    stale = target.files.get(proof.NAME) if evidence.proof is None else None
    if stale is not None:  # it says of other weights that they passed
        changes = (*changes, Change(proof.NAME, "delete", stale.size or 0))
    # A repository without anything is one that was just made, by a push that was interrupted maybe.
    asks = create_pr if create_pr is not None else not _INITIAL.issuperset(target.files)
    action: Action = "pull request" if asks else "commit"
    if target.pull is not None:
        action = "update"
    if all(change.action == "same" for change in changes):
        action = "nothing"
    description = f"{card.section(evidence, repository)}\n\n{card.marker(evidence)}\n"
    diff = difflib.unified_diff(before.splitlines(), after.splitlines(), CARD, CARD, lineterm="")
    return Publication(
        repository=repository,
        action=action,
        revision="" if action == "pull request" else target.revision,
        creates=target.commit is None,
        changes=changes,
        title=message or card.title(evidence),
        description=description,
        card_diff="\n".join(diff),
        verified=evidence.proof is not None,
        url=getattr(target.pull, "url", "") or "",
        out=evidence.folder,
    )


def _who_am_i(api: Any, dry_run: bool) -> str | None:
    """The name of the user whose token is in force; None in a dry run without one."""
    if not token():
        if dry_run:
            _LOG.warning("without a token, private models and your open pull requests are invisible; log in first")
            return None
        raise HubError("publishing needs a token with write access; log in with `hf auth login`, or set HF_TOKEN")
    return str(api.whoami()["name"])


def _find_target(
    api: Any, repository: str, revision: str | None, create_pr: bool | None, evidence: Evidence, me: str | None
) -> _Target:
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
        return _Target(None, {}, base, None)
    pull = None if create_pr is False or me is None else _own_pull(api, repository, base, evidence, me)
    if pull is not None:
        base = f"refs/pr/{pull.num}"
        info = api.model_info(repository, revision=base, files_metadata=True)
    return _Target(info.sha, {file.rfilename: file for file in info.siblings or ()}, base, pull)


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


def _refuse_other_framework(repository: str, target: _Target, evidence: Evidence) -> None:
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


def _alone(target: _Target, evidence: Evidence) -> bool:
    """Whether the repository has no weights of another framework; PyTorch's and TensorFlow's safetensors have one name."""
    names = set(target.files)
    others = {name for key, files in WEIGHTS.items() if key != evidence.framework for name in files}
    return not (names - set(evidence.files)) & others


def _refuse_hidden(repository: str, target: _Target, evidence: Evidence) -> None:
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


def _framework_there(repository: str, target: _Target, name: str) -> Framework:
    """Whose safetensors of the repository are, by their header."""
    commit = str(target.commit)
    sizes = {file: held.size or 0 for file, held in target.files.items()}
    snapshot = Snapshot(HubId(repository, commit), commit, snapshot_folder(repository, commit), sizes)
    return framework_of(snapshot, name)


def _compare(evidence: Evidence, name: str, there: Any) -> Change:
    path, instead = evidence.folder / name, evidence.rewritten.get(name)
    size = path.stat().st_size if instead is None else len(instead)
    if there is None:
        return Change(name, "add", size)
    lfs = getattr(there, "lfs", None)
    if lfs is not None:
        digest = lfs["sha256"] if isinstance(lfs, Mapping) else lfs.sha256
        same = (
            hash_file(path, ("sha256",)).sha256 if instead is None else hashlib.sha256(instead).hexdigest()
        ) == digest
    else:
        with path.open("rb") if instead is None else io.BytesIO(instead) as file:
            same = there.blob_id is not None and _git_name(file, size) == there.blob_id
    return Change(name, "same" if same else "replace", size)


def _git_name(file: BinaryIO, size: int) -> str:
    """The sha1 by which git knows a file's content."""
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    while piece := file.read(2**20):
        digest.update(piece)
    return digest.hexdigest()


def _card_text(api: Any, repository: str, target: _Target) -> str:
    if CARD not in target.files:
        return ""
    if (target.files[CARD].size or 0) > MAX_CARD_BYTES:
        raise TargetError(f"{repository}: its {CARD} is larger than {MAX_CARD_BYTES:,} bytes; shorten it first")
    path = Path(api.hf_hub_download(repository, CARD, revision=target.commit))
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise TargetError(f"{repository}: its {CARD} is not UTF-8; correct it on the Hub first") from None


def _carry_out(
    api: Any,
    planned: Publication,
    target: _Target,
    evidence: Evidence,
    after: str,
    private: bool,
    revision: str | None,
) -> Publication:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    if planned.creates:
        api.create_repo(planned.repository, private=private)
    changed = [change.name for change in planned.changes if change.action in ("add", "replace")]
    gone = [CommitOperationDelete(change.name) for change in planned.changes if change.action == "delete"]
    ours = {**evidence.rewritten, CARD: after.encode()}
    contents = {name: ours.get(name, str(evidence.folder / name)) for name in changed}
    in_new_pull = planned.action == "pull request"
    made = api.create_commit(
        planned.repository,
        [*(CommitOperationAdd(name, content) for name, content in contents.items()), *gone],
        commit_message=planned.title,
        commit_description=planned.description if in_new_pull else "",
        revision=revision if in_new_pull or planned.creates else target.revision,
        create_pr=in_new_pull,
        parent_commit=target.commit,
    )
    if target.pull is not None:
        first = next(event for event in target.pull.events if event.type == "comment")
        if first.content != planned.description:
            api.edit_discussion_comment(planned.repository, target.pull.num, first.id, planned.description)
    url = (made.pr_url if in_new_pull else planned.url) or made.commit_url
    at = f"refs/pr/{made.pr_num}" if in_new_pull else planned.revision
    return replace(planned, url=url, commit=made.oid, revision=at)


def _confirm(api: Any, done: Publication, evidence: Evidence) -> None:
    """Checks that everything is there: huggingface_hub silently leaves out what a .gitignore names."""
    info = api.model_info(done.repository, revision=done.commit, files_metadata=True)
    there = {file.rfilename: file for file in info.siblings or ()}
    sent = [change for change in done.changes if change.action != "same"]
    lost = [change.name for change in sent if not _is_there(evidence, change, there)]
    if lost:
        raise HubError(
            f"{done.repository}: not at {done.revision} as sent: {listed(lost)}; check whether its .gitignore lists "
            "it, and run this again"
        )


def _is_there(evidence: Evidence, change: Change, there: Mapping[str, Any]) -> bool:
    if change.action == "delete":
        return change.name not in there
    if change.name == CARD:
        return CARD in there and there[CARD].size == change.size
    return _compare(evidence, change.name, there.get(change.name)).action == "same"


@contextmanager
def _bars_on_terminals() -> Iterator[None]:
    """No progress bars of huggingface_hub's where stderr is no terminal: a library prints nothing."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    this = object()
    with _SWITCH:
        ours = not (sys.stderr is not None and sys.stderr.isatty()) and (_SILENT or not are_progress_bars_disabled())
        if ours:
            _SILENT.append(this)
            disable_progress_bars()
    try:
        yield
    finally:
        if ours:
            with _SWITCH:
                _SILENT.remove(this)
                if not _SILENT:
                    enable_progress_bars()
