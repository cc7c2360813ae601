"""Replaces the files of a checkpoint in an existing folder, all or nothing; everything else in it stays.

Meanwhile the folder holds ``.conversion-journal``: the new files that are not in their places yet, in ``.replaced``
those that were, and ``.journal.json``, which says what is which. Files are only ever renamed, so that no full disk stops
it. The manifest goes first and comes last: with it the new checkpoint is whole. Of a run that died the next command on
the folder puts the old files back, or takes them away if the new manifest is there. This covers the death of the
process, not of the machine's power. No folder is moved. The folder of chat templates is made if new ones come and there is none.
It is removed if it held only old ones.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from converter.errors import ConfigError, TargetError
from converter.folder.chat_templates import FOLDER as TEMPLATES
from converter.folder.chat_templates import is_chat_template, names_in
from converter.folder.files import read_json, write_json
from converter.folder.manifest import NAME as MANIFEST
from converter.folder.tokenizer_files import OF_IMAGES, is_of_tokenizer
from converter.specs import is_file_name
from converter.system.locks import FolderLock, reserved

NAME = ".conversion-journal"
FORMAT = 1
MAX_JOURNAL_BYTES = 8 * 2**20
_REPLACED = ".replaced"
_LIST = ".journal.json"
# Every name that either framework's weights have, in one file, in shards, or as their index.
_WEIGHTS = re.compile(
    r"(model|pytorch_model|tf_model|flax_model|open_clip_model|open_clip_pytorch_model)(-\d{5}-of-\d{5})?\.(safetensors|bin|h5|msgpack)(\.index\.json)?"
)
_ALWAYS = ("config.json", MANIFEST, "parity.json")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Journal:
    """What is replaced by what. ``new`` ends, and ``old`` begins, with the manifest, if there is one.

    Attributes:
        folder: whose files are replaced.
        path: of the journal.
        old: names that are taken out of the folder.
        new: names that are put into it.
        made: whether the folder of chat templates in it is made for new ones.
    """

    folder: Path
    path: Path
    old: tuple[str, ...]
    new: tuple[str, ...]
    made: bool

    @property
    def put_aside(self) -> Path:
        """The folder of the files that were replaced."""
        return self.path / _REPLACED

    @property
    def is_done(self) -> bool:
        """Whether the last of the new files is in its place."""
        return bool(self.new) and not os.path.lexists(self.path / self.new[-1])


def replaced_by(new: Collection[str], present: Collection[str]) -> tuple[str, ...]:
    """Says which files of a folder a conversion into it replaces.

    Args:
        new: names of the files to write. New tokenizer or processor files replace all old ones of that kind, because
            two must not be mixed. If there are no new ones, the old ones stay.
        present: names in the folder, as ``names_in`` gives them.

    Returns:
        Weights of either framework, which would hide new ones or be hidden by them. Also config, manifest, the proof of
        other weights, and any file with the name of a new one. The manifest is first, the others in order.
    """
    names = {*new, *_ALWAYS}
    if names.intersection(OF_IMAGES):
        names.update(OF_IMAGES)
    if any(is_of_tokenizer(name) for name in new):
        names.update(filter(is_of_tokenizer, present))
    found = (name for name in present if name in names or _WEIGHTS.fullmatch(name))
    return tuple(sorted(found, key=lambda name: (name != MANIFEST, name)))


def outlook(folder: Path, new: Collection[str]) -> tuple[tuple[str, ...], int]:
    """Says what a conversion into a folder replaces, and how many files and folders in it stay; nothing for a new one."""
    if not folder.is_dir():
        return (), 0
    present = names_in(folder)
    old = replaced_by(new, present)
    return old, len(present) - len(old)


def check_replaced(folder: Path, names: Collection[str]) -> None:
    """Refuses to replace a folder by a file, or a file or a link by the folder of chat templates.

    Raises:
        TargetError: one of the names is a folder, or is inside something that is not one.
    """
    place = folder / TEMPLATES
    if any(map(is_chat_template, names)) and (place.is_symlink() or (place.exists() and not place.is_dir())):
        raise TargetError(
            f"{place}: not a folder, but new chat templates belong in one; move it, or choose another OUT"
        )
    for name in names:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            raise TargetError(f"{path}: a folder in the place of a file; move it, or choose another OUT")


def replace_files(folder: Path, staging: Path) -> tuple[str, ...]:
    """Puts the files of a staging folder into another, in place of those that they replace.

    Args:
        folder: is there, and no one else writes to it.
        staging: on the same file system, locked; it is gone, or holds what was replaced, at the end.

    Returns:
        Names of the replaced files.

    Raises:
        OSError: nothing was replaced then.
        TargetError: what is there cannot be replaced, or not be put back.
    """
    new = tuple(sorted(names_in(staging), key=lambda name: (name == MANIFEST, name)))
    old = replaced_by(new, names_in(folder))
    check_replaced(folder, (*old, *new))
    made = any(map(is_chat_template, new)) and not (folder / TEMPLATES).is_dir()
    (staging / _REPLACED / (TEMPLATES if any(map(is_chat_template, old)) else "")).mkdir(parents=True)
    raw = {"format": FORMAT, "inode": staging.stat().st_ino, "replaced": list(old), "new": list(new), "made": made}
    write_json(staging / _LIST, raw)
    journal = _Journal(folder, folder / NAME, old, new, made)
    with reserved(journal.path):
        try:
            staging.rename(journal.path)
            for name in old:
                (folder / name).rename(journal.put_aside / name)
            for name in new:
                _move(journal.path / name, folder / name)
            _leave_no_empty(journal)
            journal.path.rename(staging)
        except BaseException as reason:  # a signal that comes after any of these calls, too
            if os.path.lexists(journal.path / _LIST) and not staging.exists():
                try:
                    _end(journal)
                except OSError as error:
                    raise _unmended(folder, error) from reason
            raise
    return old


def settle(folder: Path) -> None:
    """Ends what a run that died has begun: a folder whose files were being replaced gets back what it had.

    Costs one name lookup if there is nothing to do.

    Args:
        folder: the folder of a checkpoint, or any path that a person named.

    Raises:
        TargetError: another run is replacing them at this moment; or it was interrupted and cannot be ended.
    """
    path = folder / NAME
    if not os.path.lexists(path):
        return
    try:
        with _held(path):
            journal = _read(folder, path)
            if journal is None:
                return
            done = journal.is_done
            _end(journal)
    except OSError as error:
        if not os.path.lexists(path):  # the run that was at it has just ended
            return
        raise _unmended(folder, error) from None
    state = "the new ones are in place" if done else "the old ones are restored"
    _log.warning("%s: interrupted while its files were being replaced; %s", folder, state)


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """Locks a journal, as the run that makes it does for as long as it lives."""
    lock = FolderLock()
    try:
        lock.take(path, follow=False)
    except NotADirectoryError:
        raise TargetError(f"{path}: not a folder, so no conversion made it; move it away") from None
    except BlockingIOError:
        raise TargetError(f"{path.parent}: another run is replacing its files; wait until it ends") from None
    try:
        if not lock.is_of(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        yield
    finally:
        lock.give_back()


def _read(folder: Path, path: Path) -> _Journal | None:
    """Reads a journal; None if nothing is left of it. It may come from a stranger, together with its folder."""
    if not os.path.lexists(path / _LIST) and not any(path.iterdir()):
        path.rmdir()
        return None
    strange = TargetError(
        f"{folder}: interrupted while its files were being replaced, and copied from elsewhere, so {NAME} is ignored; "
        f"move the files in {NAME}/{_REPLACED} back by hand, then delete {NAME}"
    )
    if any((path / part).is_symlink() for part in (_LIST, _REPLACED, TEMPLATES, f"{_REPLACED}/{TEMPLATES}")):
        raise strange
    try:
        raw = read_json(path / _LIST, MAX_JOURNAL_BYTES)
    except ConfigError:
        raise strange from None
    names = [raw.get("replaced"), raw.get("new")]
    if raw.get("format") != FORMAT or raw.get("inode") != path.stat().st_ino:
        raise strange
    for held in names:
        if not isinstance(held, list) or not all(_is_replaceable(name) for name in held):
            raise strange
    return _Journal(folder, path, tuple(names[0] or ()), tuple(names[1] or ()), raw.get("made") is True)


def _is_replaceable(name: object) -> bool:
    return is_chat_template(name) or (isinstance(name, str) and is_file_name(name) and not name.startswith("."))


def _end(journal: _Journal) -> None:
    """Puts back what was there, unless all that is new is in its place; takes the journal away. May be done again.

    Raises:
        TargetError: something else is in the place of an old file.
        OSError: the system refuses; the journal stays.
    """
    check_replaced(journal.folder, [name for name in (*journal.old, *journal.new) if is_chat_template(name)])
    if not journal.is_done:
        for name in journal.new:
            if not os.path.lexists(journal.path / name) and os.path.lexists(journal.folder / name):
                check_replaced(journal.folder, [name])
                (journal.folder / name).rename(journal.path / name)
        for name in reversed(journal.old):
            if os.path.lexists(journal.put_aside / name):
                _move(journal.put_aside / name, journal.folder / name)
    _leave_no_empty(journal)
    # The last of the new ones first: a run that dies after that counts as done.
    for name in reversed(journal.new):
        (journal.path / name).unlink(missing_ok=True)
    for name in journal.old:
        (journal.put_aside / name).unlink(missing_ok=True)
    for place in (journal.put_aside / TEMPLATES, journal.put_aside, journal.path / TEMPLATES):
        with contextlib.suppress(FileNotFoundError):
            place.rmdir()
    (journal.path / _LIST).unlink(missing_ok=True)
    journal.path.rmdir()


def _leave_no_empty(journal: _Journal) -> None:
    """Removes the folder of chat templates if it was made in vain, or held only old ones."""
    if journal.made or any(map(is_chat_template, journal.old)):
        with contextlib.suppress(OSError):  # something is in it, or it is not there
            (journal.folder / TEMPLATES).rmdir()


def _move(path: Path, place: Path) -> None:
    """Renames a file to a free name; a file that another process has put there stays."""
    if os.path.lexists(place):
        raise TargetError(f"{place}: another process put it there meanwhile; move it away and run this again")
    place.parent.mkdir(exist_ok=True)
    path.rename(place)


def _unmended(folder: Path, error: OSError) -> TargetError:
    return TargetError(
        f"{folder}: interrupted while its files were being replaced, and cannot be restored: {error.strerror}; fix "
        "that and run this again"
    )
