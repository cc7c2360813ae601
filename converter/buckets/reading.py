"""A checkpoint in a bucket as a source: which objects are fetched, and headers read by range.

As for a model on the Hub, it downloads config.json, tokenizer and processor files and one set of weights. They go into a
temporary folder, because no shared cache of buckets exists.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from converter.buckets.marker import NAME as MARKER
from converter.buckets.scratch import Scratch, above, told_as
from converter.buckets.stores import Store, Stored
from converter.buckets.transfers import check_room, check_unchanged, fetch
from converter.checkpoints import modules, safetensors, shards
from converter.checkpoints.choice import choose_weights
from converter.checkpoints.detect import WEIGHTS, read_remote_header
from converter.checkpoints.remote import RemoteFile
from converter.errors import SourceError, printable
from converter.folder.addresses import Address
from converter.folder.chat_templates import FOLDER, taken_of
from converter.folder.files import MAX_CONFIG_BYTES
from converter.folder.manifest import NAME as MANIFEST
from converter.folder.sidecars import most_bytes
from converter.folder.tokenizer_files import CONFIGS, SIDECARS, TOKENIZER_CONFIG, of_own_name
from converter.names.frameworks import CANONICAL
from converter.specs import Checkpoint, Framework, Wanted, is_file_name


@dataclass(frozen=True)
class Copy:
    """What was fetched.

    Attributes:
        path: of the weights file in the copy; of its folder where headers alone were read.
        beside: names of what lies beside the weights in the bucket.
        close: removes the copy.
        here: a folder of this machine that paths in messages begin with.
        there: what messages show in its place.
    """

    path: Path
    beside: tuple[str, ...]
    close: Callable[[], None]
    here: Path
    there: str


@dataclass(frozen=True)
class _Model:
    """A folder of a bucket that holds a model.

    Attributes:
        store: the folder.
        objects: in it, by name; chat templates by theirs, which have a slash.
        copy: the folder of this machine that is to hold them.
        weights: the file that was named; empty where the folder was.
        there: what the folder above the copy stands for.
        opened: objects whose headers are read, and what each was before.
    """

    store: Store
    objects: Mapping[str, Stored]
    copy: Path
    weights: str = ""
    there: str = ""
    opened: dict[str, tuple[RemoteFile, Stored]] = field(default_factory=dict)

    def open(self, name: str) -> RemoteFile:
        """An object for the readers of headers, the same one each time."""
        if name not in self.opened:
            held = self.store.info(name) or self.objects[name]
            self.opened[name] = self.store.remote_file(name, held), held
        return self.opened[name][0]

    @property
    def beside(self) -> tuple[str, ...]:
        """Names of objects that may be reported as not copied."""
        return tuple(sorted(name for name in self.objects if is_file_name(name) and not name.startswith(".")))


def obtain_from_bucket(address: Address, framework: Wanted) -> Copy:
    """Fetches a checkpoint.

    Args:
        address: of a folder, or of a weights file in one.
        framework: whose weights are wanted; None takes what there is.

    Raises:
        BucketError: the bucket refuses, cannot be reached, or gives what is not to be believed.
        SourceError: no weights that could be used.
    """
    with _chosen(address, framework) as (scratch, model, main):
        names = tuple(dict.fromkeys((*_sidecars(model), *_all_of(model, main))))
        check_room(model.store, scratch.path, sum(model.objects[name].size for name in names))
        _fetch_all(model, names)
    return Copy(model.copy / main, model.beside, scratch.close, scratch.path, model.there)


def open_headers(address: Address, framework: Wanted) -> tuple[Copy, Checkpoint]:
    """Reads the headers of a checkpoint by range, and fetches its config.

    The other small files have their names in the copy, and no content.

    Raises:
        ConverterError: as ``obtain_from_bucket``, or an unsound header.
    """
    with _chosen(address, framework) as (scratch, model, main):
        _fetch_all(model, tuple(name for name in (*CONFIGS, TOKENIZER_CONFIG) if name in model.objects))
        for name in _sidecars(model):
            if not (path := model.copy / name).exists():
                path.parent.mkdir(exist_ok=True)
                path.touch()
        checkpoint = _headers(model, main)
        for name, (_, before) in model.opened.items():
            check_unchanged(model.store, name, before)
    return Copy(model.copy, model.beside, scratch.close, scratch.path, model.there), checkpoint


def identity_of_objects(address: Address) -> str:
    """A sum of names, sizes and versions of the objects in a folder, or beside a file; empty if nothing is there."""
    import blake3

    store, named = Store(address), ""
    objects, folders = store.list()
    if not objects and not folders and address.above is not None:
        store, named = Store(address.above), address.name
        objects, _ = store.list()
    said = sorted(f"{name}\0{held.size}\0{held.version}" for name, held in objects.items())
    return str(blake3.blake3("\n".join([named, *said]).encode()).hexdigest()) if said else ""


@contextlib.contextmanager
def _chosen(address: Address, framework: Wanted) -> Iterator[tuple[Scratch, _Model, str]]:
    """Gives a temporary folder, the model that is fetched into it, and its weights' name; if the body fails, it is removed."""
    scratch = Scratch()
    try:
        with told_as(above(address), scratch.path):
            model = _find(address, scratch.path)
        with told_as(model.there, scratch.path):
            yield scratch, model, _choose(model, framework)
    except BaseException:
        scratch.close()
        raise


def _find(address: Address, scratch: Path) -> _Model:
    """Looks what lies at an address; where modules.json leads elsewhere, there."""
    store, weights = Store(address), ""
    objects, folders = store.list()
    if not objects and not folders:
        if address.above is None or store.info() is None:
            raise SourceError(
                f"{address}: nothing is there; name a folder of a bucket that save_pretrained's files lie in"
            )
        weights, store = address.name, Store(address.above)
        objects, folders = store.list()
    if MARKER in objects and MANIFEST not in objects:
        raise SourceError(
            f"{store.address}: a conversion is being put there, or was interrupted; wait until it ends, or run it again"
        )
    copy = scratch / store.address.name
    copy.mkdir()
    model = _Model(store, objects, copy, weights, above(store.address))
    if not weights and modules.NAME in objects and not {*CONFIGS, *sum(WEIGHTS.values(), ())} & set(objects):
        model = _in_module(model, folders)
        folders = model.store.list()[1]
    if FOLDER in folders:
        inner, _ = model.store.list(FOLDER)
        model = replace(model, objects={**model.objects, **{f"{FOLDER}/{name}": held for name, held in inner.items()}})
    return model


def _in_module(model: _Model, folders: tuple[str, ...]) -> _Model:
    """The model that modules.json leads to."""
    _fetch_all(model, (modules.NAME,))
    held = {name: Store(Address(f"{model.store.address}/{name}")) for name in folders if is_file_name(name)}
    found = modules.first_model(
        model.copy / modules.NAME, lambda name: name in held and held[name].info("config.json") is not None
    )
    copy = model.copy / found
    copy.mkdir()
    return _Model(held[found], held[found].list()[0], copy, there=model.there)


def _choose(model: _Model, framework: Wanted) -> str:
    """Name of the weights file, or of the index of its shards."""
    if model.weights:
        return model.weights
    sizes = {name: held.size for name, held in model.objects.items()}
    return choose_weights(str(model.store.address), sizes, framework, lambda name: _framework_of(model, name))


def _framework_of(model: _Model, name: str) -> Framework:
    """Whose a safetensors file or index is, by the metadata of (the first shard of) it."""
    if name.endswith(shards.INDEX):
        name = next((file for file in _all_of(model, name)[1:]), "")
        if not name:
            return CANONICAL
    return safetensors.read_header(model.open(name)).framework


def _all_of(model: _Model, main: str) -> tuple[str, ...]:
    """The weights file, or an index and its shards, which must be there."""
    if not main.endswith(shards.INDEX):
        return (main,)
    _fetch_all(model, (main,))
    names = sorted(set(shards.read_map(model.copy / main).values()))
    if missing := [name for name in names if name not in model.objects]:
        raise SourceError(
            f"{model.store.address}/{main}: names {printable(missing[0])}, which is not in the bucket; upload it, too"
        )
    return (main, *names)


def _sidecars(model: _Model) -> tuple[str, ...]:
    """Names of config, tokenizer and processor files; what the tokenizer's config names needs that fetched first."""
    if TOKENIZER_CONFIG in model.objects:
        _fetch_all(model, (TOKENIZER_CONFIG,))
    own = of_own_name(tuple(model.objects), model.copy / TOKENIZER_CONFIG)
    names = (*(name for name in (*CONFIGS, *SIDECARS) if name in model.objects), *taken_of(model.objects), *own)
    for name in names:
        _check_size(model, name)
    return names


def _check_size(model: _Model, name: str) -> None:
    most = MAX_CONFIG_BYTES if name in CONFIGS else most_bytes(name)
    if name == modules.NAME:
        most = modules.MAX_MODULES_BYTES
    elif name.endswith(shards.INDEX):
        most = shards.MAX_INDEX_BYTES
    if model.objects[name].size > most:
        raise SourceError(
            f"{model.store.address}/{printable(name)}: {model.objects[name].size:,} bytes, too many for such a file; name "
            "another model"
        )


def _fetch_all(model: _Model, names: tuple[str, ...]) -> None:
    for name in names:
        if name in (*CONFIGS, TOKENIZER_CONFIG, modules.NAME) or name.endswith(shards.INDEX):
            _check_size(model, name)
        if not (model.copy / name).exists():
            known = model.opened[name][1] if name in model.opened else None
            fetch(model.store, name, model.objects[name], model.copy / name, known)


def _headers(model: _Model, main: str) -> Checkpoint:
    if not main.endswith(shards.INDEX):
        return read_remote_header(model.open(main))
    _all_of(model, main)

    def find(file: str) -> Path | None:
        return model.open(file) if file in model.objects else None

    return shards.read_index(model.copy / main, read_remote_header, find)
