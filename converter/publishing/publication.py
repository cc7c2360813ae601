"""What a push does, or would do: every file's change, and the words of its commit or pull request."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from converter.specs import JSON_FORMAT

CARD = "README.md"
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
