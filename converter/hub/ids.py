"""Decides whether a source that a person names is a path or the id of a model on the Hub."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from converter.errors import SourceError, printable
from converter.folder.addresses import HUB, hub_model, place_of, without_secrets
from converter.specs import is_file_name

# As huggingface_hub's validate_repo_id has it: one slash at most, no part that begins or ends with a dot or a dash.
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_ID = re.compile(rf"(?:{_PART}/)?{_PART}")
MAX_ID_CHARACTERS = 96
# Branches, tags, commits and refs/pr/1: no part of them may lead out of the cache's folder refs.
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*")
MAX_REVISION_CHARACTERS = 200
_OF_FILES = (
    ".bin",
    ".ckpt",
    ".h5",
    ".hdf5",
    ".json",
    ".keras",
    ".msgpack",
    ".npz",
    ".pb",
    ".pt",
    ".pth",
    ".safetensors",
)
# Addresses that people copy from a browser: the model's page, or a file of it.
_ADDRESS = re.compile(rf"https?://[^/]+/(?:models/)?({_PART}/{_PART})(?:/(?:tree|blob|resolve)/([^/?#]+))?(?:[/?#].*)?")
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Access:
    """How the Hub is asked, as the arguments of transformers' from_pretrained say it; by default as huggingface_hub is set.

    Attributes:
        token: to send; False for none, True or None for that of the login.
        cache_dir: of downloads.
        local_files_only: the Hub is not asked; what is in the cache is used.
        force_download: download again what is in the cache.
        subfolder: the model's folder in the repository, or in the source folder.
    """

    token: str | bool | None = field(default=None, repr=False)
    cache_dir: str | None = None
    local_files_only: bool = False
    force_download: bool = False
    subfolder: str = ""

    @property
    def within(self) -> str:
        """The prefix of the names of the model's files in the repository.

        Raises:
            SourceError: the subfolder leads elsewhere.
        """
        parts = [part for part in self.subfolder.split("/") if part not in ("", ".")]
        if not all(is_file_name(part) for part in parts):
            raise SourceError(
                f"subfolder {printable(repr(self.subfolder), 80)} leads out of the model; name a folder in it"
            )
        return "".join(f"{part}/" for part in parts)


@dataclass(frozen=True, slots=True)
class HubId:
    """A model on the Hub.

    Attributes:
        id: for example ``"clip-italian/clip-italian"``.
        revision: branch, tag or commit; None for the main branch.
        access: settings for requests to the Hub.
    """

    id: str
    revision: str | None = None
    access: Access = field(default=Access(), compare=False, repr=False)

    def __str__(self) -> str:
        return self.id if self.revision is None else f"{self.id}@{self.revision}"


def hub_id(source: str | os.PathLike[str], revision: str | None = None) -> HubId | None:
    """Takes a source for the id of a model on the Hub, if it can be nothing else.

    Args:
        source: as a person gave it. An existing path is a path, and so is anything spelled like one. That means an
            absolute path, ``./x``, ``../x``, ``x/``, more than one slash, the name of a weights file, and every ``Path``.
        revision: given beside the source; ``id@revision`` says the same.

    Returns:
        The id, or None for a path.

    Raises:
        SourceError: a revision of a path, two revisions, an invalid one, or the address of a page.
    """
    if (model := hub_model(source)) is not None:
        return _of_url(*model, revision)
    if isinstance(source, str) and place_of(source) is None:
        _refuse_address(source)
    name, at, inline = os.fspath(source).partition("@") if isinstance(source, str) else ("", "", "")
    if not is_id(name) or os.path.lexists(source):
        if revision is not None:
            raise SourceError(f"{source}: a path, which has no revision; leave --revision out, or name a Hub id")
        return None
    if at and revision is not None and revision != inline:
        raise SourceError(f"{source}: --revision says {printable(revision, 60)}; give one of the two")
    wanted = inline if at else revision
    if wanted is not None:
        check_revision(wanted)
    return HubId(name, wanted)


def _of_url(name: str, inline: str | None, folder: str, revision: str | None) -> HubId:
    """The model of an ``hf://`` URL, which says the same as its id; what follows the id is a folder in it."""
    if not is_id(name):
        raise SourceError(
            f"{HUB}://{printable(name, 120)}: not a model on the Hub; one is written {HUB}://NAMESPACE/NAME"
        )
    if folder.endswith(_OF_FILES):
        raise SourceError(
            f"{HUB}://{name}/{printable(folder, 120)}: a file of a model; name the model by its id, {name}"
        )
    if inline is not None and revision is not None and revision != inline:
        raise SourceError(f"{HUB}://{name}@{inline}: --revision says {printable(revision, 60)}; give one of the two")
    wanted = inline if inline is not None else revision
    return HubId(name, None if wanted is None else check_revision(wanted), Access(subfolder=folder))


def _refuse_address(source: str) -> None:
    if not source:
        raise SourceError("the source has an empty name; name a folder, a weights file in one, or a model on the Hub")
    if re.match(r"[a-z][a-z0-9+.-]*://", source):
        found = _ADDRESS.fullmatch(source)
        example = "a model on the Hub by its id, NAMESPACE/NAME"
        if found:
            example = f"the model by its id, {found[1]}{'' if found[2] in (None, 'main') else f'@{found[2]}'}"
        raise SourceError(f"{printable(without_secrets(source), 200)}: a URL; name {example}")


def check_revision(revision: str) -> str:
    """Gives back a revision that is spelled like a branch, a tag, a commit or ``refs/pr/1``.

    Raises:
        SourceError: it is not.
    """
    if not _REVISION.fullmatch(revision) or ".." in revision or len(revision) > MAX_REVISION_CHARACTERS:
        raise SourceError(f"{printable(revision, 60)!r} is not a revision; name a branch, a tag or a commit")
    return revision


def check_repository(name: str) -> str:
    """Gives back the id of a repository that may be written to.

    Raises:
        SourceError: it is not an id.
    """
    if not is_id(name) or "/" not in name:
        raise SourceError(f"{printable(name, 120)}: not the id of a repository; one is written NAMESPACE/NAME")
    return name


def is_id(name: str) -> bool:
    """Whether a name is spelled like the id of a model, even if it exists as a path."""
    sound = _ID.fullmatch(name) is not None and len(name) <= MAX_ID_CHARACTERS and "--" not in name and ".." not in name
    return sound and not name.endswith(".git") and not (name.endswith(_OF_FILES) and "/" not in name)
