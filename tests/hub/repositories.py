"""What the loopback Hub holds: repositories with commits, branches, pull requests, and large files by their sha256."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

LARGE = (".safetensors", ".bin", ".h5", ".msgpack", ".onnx")
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"


def blob_sha(content: bytes) -> str:
    """The name that git gives to a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    """The name that LFS gives to a file."""
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class File:
    """A file at a commit."""

    content: bytes
    large: bool

    @property
    def sha256(self) -> str:
        """Of its content."""
        return sha256(self.content)

    @property
    def oid(self) -> str:
        """Git's name for what is in the tree: the file, or its LFS pointer."""
        return blob_sha(POINTER.format(self.sha256, len(self.content)).encode() if self.large else self.content)

    @property
    def etag(self) -> str:
        """As resolve says it."""
        return self.sha256 if self.large else self.oid


@dataclass
class PullRequest:
    """A pull request, its branch being ``refs/pr/<num>``."""

    num: int
    title: str
    body: str
    author: str
    status: str = "open"
    is_pull_request: bool = True


@dataclass
class Repository:
    """A model.

    Attributes:
        commits: files by name, by commit.
        refs: commits by branch.
        pulls: discussions and pull requests.
        gated: whether its files are refused.
        private: whether it is hidden from who has no token.
        siblings: replaces the listing of model info, to lie.
        resolved: replaces the commit that resolve names, to lie.
    """

    id: str
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    pulls: list[PullRequest] = field(default_factory=list)
    messages: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    siblings: list[dict[str, Any]] | None = None
    resolved: str | None = None

    def commit(self, files: dict[str, bytes], branch: str = "main", message: str = "upload") -> str:
        """Adds files to a branch; gives the commit."""
        tree = {name: File(content, name.endswith(LARGE)) for name, content in files.items()}
        return self.commit_tree(tree, branch, message)

    def commit_tree(self, files: dict[str, File], branch: str, message: str, gone: Collection[str] = ()) -> str:
        """Adds files, large ones among them, to a branch, and takes others away; gives the commit."""
        parent = self.refs.get(branch, self.refs.get("main"))
        tree = {**(self.commits[parent] if parent else {}), **files}
        tree = {name: file for name, file in tree.items() if name not in gone}
        text = f"{self.id} {parent} {branch} {message} {sorted((n, f.oid) for n, f in tree.items())}"
        commit = hashlib.sha1(text.encode()).hexdigest()
        self.commits[commit], self.refs[branch], self.messages[commit] = tree, commit, message
        return commit

    def at(self, revision: str) -> str | None:
        """The commit that a revision stands for."""
        if revision in self.commits:
            return revision
        return self.refs.get(revision)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """What is there at a revision."""
        commit = self.at(revision)
        return {} if commit is None else {name: file.content for name, file in self.commits[commit].items()}
