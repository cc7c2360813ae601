"""Puts a checkpoint into a bucket: in place, the manifest last, which is what makes it a checkpoint of ours.

A bucket has no rename. So OUT has no manifest during an upload, and a marker lists the files. After a kill at any moment,
the next run removes those files and starts again. Objects that no manifest or marker of ours names stay.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from converter.buckets import marker as markers
from converter.buckets.marker import Marker, marker_bytes, new_marker, read_marker
from converter.buckets.scratch import Scratch, above, told_as
from converter.buckets.stores import Store, Stored
from converter.errors import SourceError, TargetError, listed, printable
from converter.folder.addresses import Address
from converter.folder.chat_templates import FOLDER as TEMPLATES
from converter.folder.chat_templates import names_in
from converter.folder.manifest import MAX_MANIFEST_BYTES, read_manifest
from converter.folder.manifest import NAME as MANIFEST
from converter.folder.proof import NAME as PROOF
from converter.folder.replacing import replaced_by

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class _Found:
    """What lies in OUT.

    Attributes:
        objects: by name, chat templates by theirs.
        folders: how many others lie in it.
        ours: names that the manifest there lists, itself and the proof included; empty where there is none.
        unfinished: names of what an interrupted upload put, or was to remove.
    """

    objects: Mapping[str, Stored]
    folders: int
    ours: frozenset[str]
    unfinished: frozenset[str]

    @property
    def standing(self) -> tuple[str, ...]:
        """Names of the objects but for the rest of an interrupted upload."""
        return tuple(name for name in self.objects if name not in self.unfinished and name != markers.NAME)


class Upload:
    """A checkpoint that is written into a folder of this machine, and then put into a bucket."""

    def __init__(self, out: Address, overwrite: bool, scratch: Scratch) -> None:
        self.out = out
        self.store = Store(out)
        self.folder = scratch.path / out.name  # which does not exist yet
        self._overwrite = overwrite
        self._old = scratch.path / ".old"

    def check(self) -> None:
        """Refuses an OUT that holds a checkpoint already.

        Raises:
            TargetError: says what to do instead.
        """
        self._refuse(self._look(), ())

    def outlook(self, names: Collection[str]) -> tuple[tuple[str, ...], int]:
        """Names of what files of such names would replace, and how many objects and folders would stay."""
        found = self._look()
        gone = self._gone(found, names)
        return gone, len(set(found.standing) - set(gone)) + found.folders

    def put(self, progress: Progress | None = None) -> tuple[tuple[str, ...], int]:
        """Puts what the folder of this machine holds into the bucket.

        Returns:
            Names of what it replaced, and how many objects and folders there stayed.

        Raises:
            TargetError: a checkpoint is there, or another run puts one there.
            BucketError: the bucket refuses, or cannot be reached; the next run goes on from there.
        """
        names = tuple(sorted(name for name in names_in(self.folder) if name != MANIFEST))
        found = self._look()
        self._refuse(found, names)
        gone = self._gone(found, (*names, MANIFEST))
        kept = len(set(found.standing) - set(gone)) + found.folders
        stale = tuple(name for name in gone if name not in names and name != MANIFEST)
        mine = new_marker(names, stale)
        self._begin(mine)
        if MANIFEST in found.objects:
            self.store.remove(MANIFEST)
        put = self._put_files(mine, names, progress)
        for name in stale:
            self.store.remove(name)
        self._check_still_mine(mine)
        if any(self.store.info(name) != held for name, held in put.items()):
            raise self._taken_over()
        if not self.store.put_new(MANIFEST, (self.folder / MANIFEST).read_bytes()):
            raise self._taken_over()
        self.store.remove(markers.NAME)
        return gone, kept

    def _put_files(self, mine: Marker, names: Collection[str], progress: Progress | None) -> dict[str, Stored]:
        sizes = {name: (self.folder / name).stat().st_size for name in names}
        put: dict[str, Stored] = {}
        done, total = 0, sum(sizes.values())
        for name in names:
            self._check_still_mine(mine)
            self.store.put(name, self.folder / name)
            held = self.store.info(name)
            if held is None or held.size != sizes[name]:
                self._check_still_mine(mine)
                raise TargetError(f"{self.out}/{name}: is not what was put there; run this again")
            put[name] = held
            done += sizes[name]
            if progress is not None:
                progress("upload", done, total)
        return put

    def _begin(self, mine: Marker) -> None:
        """Puts the marker, once what an interrupted run left is removed."""
        old = read_marker(self.store)
        if old is not None:
            if self.store.info(MANIFEST) is None:
                for name in dict.fromkeys((*old.files, *old.stale)):
                    self.store.remove(name)
            self.store.remove(markers.NAME)
        if not self.store.put_new(markers.NAME, marker_bytes(self.store, mine)):
            raise self._taken_over()

    def _check_still_mine(self, mine: Marker) -> None:
        if read_marker(self.store) != mine:
            raise self._taken_over()

    def _taken_over(self) -> TargetError:
        return TargetError(f"{self.out}: another run is writing to it; wait until it ends, or choose another OUT")

    def _look(self) -> _Found:
        objects, folders = self.store.list()
        if not objects and not folders and self.out.key and self.store.info() is not None:
            raise TargetError(f"{self.out}: an object, expected a folder; choose another OUT")
        if TEMPLATES in folders:
            objects |= {f"{TEMPLATES}/{name}": held for name, held in self.store.list(TEMPLATES)[0].items()}
        ours: frozenset[str] = frozenset()
        unfinished: frozenset[str] = frozenset()
        if MANIFEST in objects:
            ours = self._named_by_manifest()
        elif (left := read_marker(self.store)) is not None:
            unfinished = frozenset((*left.files, *left.stale))
        return _Found(objects, len([name for name in folders if name != TEMPLATES]), ours, unfinished)

    def _named_by_manifest(self) -> frozenset[str]:
        data = self.store.small(MANIFEST, MAX_MANIFEST_BYTES)
        self._old.mkdir(exist_ok=True)
        (self._old / MANIFEST).write_bytes(data or b"")
        try:
            held = read_manifest(self._old)
        except SourceError:
            held = None
        if held is None:
            raise TargetError(
                f"{self.out}: holds a {MANIFEST} that is not ours; choose another OUT, or remove that object"
            )
        return frozenset((*held.files, MANIFEST, PROOF))

    def _gone(self, found: _Found, names: Collection[str]) -> tuple[str, ...]:
        """What new files take the place of, and what the manifest there names besides; the manifest first."""
        gone = [name for name in found.standing if name in found.ours or name in names]
        return tuple(sorted(gone, key=lambda name: (name != MANIFEST, name)))

    def _refuse(self, found: _Found, names: Collection[str]) -> None:
        if self._overwrite:
            # Weights that no manifest of ours names would be loaded in place of the new ones.
            known = {*found.ours, *names, "config.json", PROOF}
            weights = [name for name in replaced_by((), found.standing) if name not in known]
            if names and weights:
                raise TargetError(
                    f"{self.out}: holds {listed(weights)}, which no {MANIFEST} names, so they stay, and would be loaded in "
                    "place of the new weights; choose another OUT, or remove them"
                )
            return
        there = replaced_by((), found.standing) or tuple(name for name in found.standing if name in names)
        if there:
            raise TargetError(
                f"{self.out}: exists already ({printable(listed(there, 3))}); choose another OUT, or replace its checkpoint "
                "with --overwrite"
            )


def stands_at(address: Address) -> bool:
    """Whether anything lies in a folder of a bucket, unless it is what an interrupted upload left."""
    store = Store(address)
    objects, folders = store.list()
    return bool(objects or folders) and (MANIFEST in objects or read_marker(store) is None)


@contextlib.contextmanager
def uploading(out: Address, source: object, overwrite: bool, dry_run: bool = False) -> Iterator[Upload]:
    """Gives a folder of this machine to write a checkpoint into, which is then put into a bucket.

    Args:
        out: where.
        source: what it is made of.
        overwrite: whether a checkpoint there is replaced.
        dry_run: whether nothing is going to be put.

    Raises:
        TargetError: a checkpoint is there, or OUT is the source.
    """
    if isinstance(source, Address) and overlap(source, out):
        raise TargetError(f"{out}: shares a folder with the source {source}; choose one beside it")
    scratch = Scratch()
    try:
        with told_as(above(out), scratch.path):
            upload = Upload(out, overwrite, scratch)
            if not dry_run:
                upload.check()
            yield upload
    finally:
        scratch.close()


def overlap(one: Address, other: Address) -> bool:
    """Whether one of two places lies in the other, or is it."""
    first, second = (f"{address}/" for address in (one, other))
    return first.startswith(second) or second.startswith(first)
