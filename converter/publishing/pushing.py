"""``push``: puts a converted checkpoint on the Hub, in a pull request or a commit; only what is not there yet."""

from __future__ import annotations

import difflib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from converter.arguments import checked
from converter.buckets.outputs import fetched
from converter.errors import HubError, TargetError, listed, reading
from converter.folder import proof
from converter.folder.addresses import Address
from converter.folder.files import expanded
from converter.hub.client import hub_api, token
from converter.hub.explained import UPLOADED, explained
from converter.hub.ids import Access, check_repository, check_revision
from converter.publishing import card
from converter.publishing.changes import compared, is_there
from converter.publishing.evidence import Evidence, gather
from converter.publishing.publication import CARD, Action, Change, Publication
from converter.publishing.repository import (
    Target,
    card_text,
    find_target,
    is_alone,
    refuse_hidden,
    refuse_other_framework,
)

_LOG = logging.getLogger("converter.publishing")
# What the Hub puts into a repository that it makes.
_INITIAL = {".gitattributes"}
# huggingface_hub has one switch for the whole process: pushes of several threads that want no bars hold it together.
_SWITCH, _SILENT = threading.Lock(), list[object]()


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
        target = find_target(api, repository, revision, create_pr, evidence, me)
        refuse_other_framework(repository, target, evidence)
        refuse_hidden(repository, target, evidence)
        before = card_text(api, repository, target)
        after = card.edited(before, evidence, repository, is_alone(target, evidence))
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
    target: Target,
    create_pr: bool | None,
    message: str | None,
    before: str,
    after: str,
) -> Publication:
    changes = tuple(compared(evidence, name, target.files.get(name)) for name in evidence.files)
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


def _carry_out(
    api: Any,
    planned: Publication,
    target: Target,
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
    lost = [change.name for change in sent if not is_there(evidence, change, there)]
    if lost:
        raise HubError(
            f"{done.repository}: not at {done.revision} as sent: {listed(lost)}; check whether its .gitignore lists "
            "it, and run this again"
        )


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
