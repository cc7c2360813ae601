"""Decides what a person gave: which files of a folder are its weights, and what kind each is, by its first bytes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from converter.checkpoints import bundle_index, bundles, kinds, modules, shards
from converter.checkpoints.remote import RemoteFile
from converter.errors import (
    ConverterError,
    CorruptCheckpoint,
    SourceError,
    UnsupportedContainer,
    WrongFramework,
    listed,
    quoted,
    reading,
)
from converter.folder.files import inside
from converter.folder.replacing import settle
from converter.folder.tokenizer_files import CONFIGS
from converter.names.frameworks import among, command, framework_name, framework_names
from converter.specs import Checkpoint, Framework, Wanted

# Weights files as transformers names them, in order of preference.
WEIGHTS: dict[Framework, tuple[str, ...]] = {
    "pt": (
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        # OpenCLIP's
        "open_clip_model.safetensors",
        "open_clip_pytorch_model.bin",
    ),
    "tf": ("tf_model.h5", "tf_model.h5.index.json", "model.safetensors", "model.safetensors.index.json"),
    "flax": (
        "flax_model.msgpack",
        "flax_model.msgpack.index.json",
        "model.safetensors",
        "model.safetensors.index.json",
    ),
}


def open_source(source: Path, framework: Wanted) -> tuple[Checkpoint, Path]:
    """Finds and reads the header of the weights that a person means.

    Args:
        source: a folder as ``save_pretrained`` or sentence-transformers writes it, a SavedModel, a folder of TensorFlow
            checkpoints, or a weights file in one.
        framework: whose weights are wanted; None takes what there is.

    Returns:
        The checkpoint, and the folder that holds config.json.

    Raises:
        SourceError: there is nothing, nothing that can be read, or only the other framework's weights.
    """
    with reading(source):
        if source.is_symlink() and not source.exists():
            inside(source, source.parent)
        settle(source if source.is_dir() else source.parent)
        source = bundles.index_of(source)
        if not source.exists():
            raise SourceError(
                f"{source}: not found; name a folder that save_pretrained wrote, or a weights file in one"
            )
        if not source.is_dir() and not source.is_file():
            raise SourceError(f"{source}: neither a file nor a folder; name a folder that save_pretrained wrote")
        source = bundles.outer(model_folder(source))
        folder = source if source.is_dir() else bundles.home(source)
        for name in CONFIGS:
            inside(folder / name, folder)
        if not source.is_dir():
            kinds.refuse_state(source)
            kinds.refuse_shard(source)
        checkpoint = _from_folder(folder, framework) if source.is_dir() else read_header(inside(source, folder))
    if framework is not None and checkpoint.framework not in among(framework):
        checkpoint.close()
        raise wrong_framework(checkpoint.files[0], framework, checkpoint.framework)
    return checkpoint, folder


def held(folder: Path) -> tuple[str, ...]:
    """Names of the weights in a folder, each of them whole by itself: a file, or the index of shards."""
    names = dict.fromkeys(name for side in WEIGHTS.values() for name in side)
    return tuple(name for name in names if (folder / name).is_file())


def model_folder(source: Path) -> Path:
    """The place of a source's model: the source itself, or its folder that modules.json names.

    Args:
        source: a file or a folder. A source without a modules.json, or with its own config.json or weights, is returned
            unchanged.

    Raises:
        ConfigError: modules.json is invalid, or leads out of the folder.
        CorruptCheckpoint: a link leads out of it.
        SourceError: no module has a config.json.
    """
    with reading(source):
        settle(source if source.is_dir() else source.parent)
        path = source / modules.NAME
        if not source.is_dir() or held(source) or (source / "config.json").exists() or not path.exists():
            return source
        found = modules.first_model(inside(path, source), lambda name: (source / name / "config.json").exists())
        return inside(source / found, source)


def read_header(path: Path) -> Checkpoint:
    """Reads the header of one weights file of any kind.

    Raises:
        UnsupportedContainer: of a kind that is not read here; the message names it.
        CorruptCheckpoint: of a known kind, but unsound.
    """
    if shards.is_index(path.name):
        return shards.read_index(path, lambda shard: read_header(inside(shard, path.parent)))
    with reading(path), path.open("rb") as file:
        head = file.read(32)
    if (read := _reader_of(path, head)) is not None:
        return read(path)
    if head.startswith(b"version https://git-lfs"):
        raise CorruptCheckpoint(f"{path}: a Git LFS pointer, not the weights; run `git lfs pull` in its repository")
    if not head:
        raise CorruptCheckpoint(f"{path}: an empty file; download or save it again")
    if (text := kinds.page_or_text(head)) is not None and path.suffix not in _OWN_TEXT:
        like = path.name.lower().endswith((*LIKE_WEIGHTS, ".safetensors"))
        if not like and not isinstance(path, RemoteFile) and held(path.parent):
            raise SourceError(f"{path}: not weights, but a file beside them; name the folder, {quoted(path.parent)}")
        raise CorruptCheckpoint(f"{path}: {text}")
    from converter.checkpoints import foreign

    if (what := foreign.kind_of(path.name, head)) is not None:
        raise UnsupportedContainer(f"{path}: {what}")
    if path.suffix == ".msgpack" and head:
        from converter.checkpoints import flax

        return flax.read_header(path)
    for matches, what in _UNREAD:
        if matches(path, head):
            raise UnsupportedContainer(f"{path}: {what}")
    if path.suffix == ".safetensors":
        from converter.checkpoints import safetensors

        return safetensors.read_header(path)
    raise UnsupportedContainer(f"{path}: an unknown kind of weights file; name one of these: {_KNOWN}")


def read_remote_header(path: Path) -> Checkpoint:
    """``read_header`` of a file that may be remote: what the network said, where a reader made its own error of that."""
    try:
        return read_header(path)
    except ConverterError:
        # HDF5 makes a damaged file of a network that failed.
        if isinstance(path, RemoteFile) and isinstance(path.failure, ConverterError):
            raise path.failure from None
        raise


def _reader_of(path: Path, head: bytes) -> Callable[[Path], Checkpoint] | None:
    """The reader of a file, by its first bytes; imported only then, because h5py by itself takes 20 ms."""
    if head.startswith(b"\x89HDF\r\n\x1a\n") or path.suffix in (".h5", ".hdf5"):
        from converter.checkpoints import hdf5

        if head.startswith(b"\x89HDF\r\n\x1a\n") or hdf5.is_hdf5(path):
            return hdf5.read_header
    # Before the pickles: a header of 640 bytes begins with 80 02, as they do.
    if head[4:9] == b"\0\0\0\0{":
        from converter.checkpoints import safetensors

        return safetensors.read_header
    if head.startswith(b"PK\x03\x04") and path.suffix != ".keras":
        from converter.checkpoints import torch_zip

        return torch_zip.read_header
    if head.startswith(b"\x80"):
        from converter.checkpoints import torch_legacy

        if torch_legacy.MAGIC in head:
            if isinstance(path, RemoteFile):
                raise UnsupportedContainer(
                    f"{path}: a PyTorch pickle from before torch 1.6, whose header cannot be read remotely; download "
                    "it and name its folder"
                )
            return torch_legacy.read_header
    if path.suffix == bundle_index.INDEX and not isinstance(path, RemoteFile) and bundle_index.is_index(path):
        from converter.checkpoints import tensor_bundle

        return tensor_bundle.read_header
    return None


def _from_folder(folder: Path, framework: Wanted) -> Checkpoint:
    unread: Exception | None = None
    for side in among(framework):
        for name in WEIGHTS[side]:
            path = folder / name
            if not path.is_file():
                continue
            try:
                checkpoint = read_header(inside(path, folder))
            except UnsupportedContainer as error:
                unread = unread or error
                continue
            if checkpoint.framework == side:
                return checkpoint
            checkpoint.close()
    if unread is not None:
        raise unread
    if (index := bundles.index_in(folder)) is not None:
        return read_header(index)
    raise _nothing_found(folder, framework)


def _nothing_found(folder: Path, framework: Wanted) -> Exception:
    listing = sorted(folder.iterdir())
    present = [path.name for path in listing]
    if framework is not None and (other := other_framework(held(folder), framework)):
        return wrong_framework(folder, framework, other)
    for path in listing:
        if path.name in sum(WEIGHTS.values(), ()) and path.is_symlink():
            inside(path, folder)  # says where a link leads that leads nowhere
    found = kinds.recognised(folder, levels=0) or _by_another_name(folder, listing, framework)
    found = found or kinds.lone_shards(folder, present) or kinds.with_weights(folder, _holds_weights)
    found = found or kinds.recognised(folder) or bundles.lone_data(listing)
    from converter.checkpoints import foreign

    if found is None and (held_there := foreign.among(listing, kinds.is_state)) is not None:
        found = UnsupportedContainer(f"{held_there[0]}: {held_there[1]}")
    return (
        found
        or _no_file(listing)
        or SourceError(
            f"{folder}: holds no weights ({listed(present) if present else 'it is empty'}); expected "
            f"{' or '.join(WEIGHTS[among(framework)[0]] if framework else dict.fromkeys(sum(WEIGHTS.values(), ())))}"
        )
    )


def _no_file(listing: Sequence[Path]) -> SourceError | None:
    """The error for a folder, or a pipe, with the name of weights."""
    for path in listing:
        if path.name in sum(WEIGHTS.values(), ()) and not path.is_file():
            what = "a folder" if path.is_dir() else "neither a file nor a folder"
            return SourceError(f"{path}: {what}, expected a file of weights; download or save the model again")
    return None


def _holds_weights(folder: Path) -> bool:
    return bool(held(folder)) or bundles.holds_one(folder)


def _by_another_name(folder: Path, listing: Sequence[Path], framework: Wanted) -> Exception | None:
    """Candidates to name: weights with other names, or the reason why a likely file is not read."""
    found: dict[str, str | None] = {}
    refused: Exception | None = None
    indexed = any(shards.is_index(path.name) for path in listing)
    for path in listing:
        like = path.name.lower().endswith((*LIKE_WEIGHTS, ".safetensors")) or shards.is_index(path.name)
        if not like or kinds.is_state(path.name) or kinds.is_shard(path.name, indexed) or not path.is_file():
            continue
        try:
            named = read_header(inside(path, folder))
        except SourceError as error:  # says why, if it is of a kind that is not read
            refused = refused or error
            continue
        named.close()
        found[path.name] = None if framework is None else command(named.framework)
    return kinds.by_another_name(folder, found) if found else refused


def other_framework(names: Collection[str], wanted: Wanted) -> Framework | None:
    """The framework of the weights that file names suggest, if not the wanted one; None if there are no weights."""
    others = (key for key in among(None) if key not in among(wanted))
    return next((key for key in others if set(WEIGHTS[key]).intersection(names)), None)


def wrong_framework(where: Path | str, wanted: Wanted, held: Framework) -> WrongFramework:
    """The error of a checkpoint that holds only another framework's weights."""
    return WrongFramework(
        f"{where}: holds {framework_name(held)} weights, expected {framework_names(wanted)}; use `convert "
        f"{command(held)}`"
    )


LIKE_WEIGHTS = (
    ".keras", ".msgpack", ".weights.h5", ".ckpt", ".bin", ".pt", ".pth", ".h5", ".hdf5", ".ptl", ".pt2", ".jit",
)  # fmt: skip
# Binary formats that may begin with bytes that are text.
_OWN_TEXT = (".ckpt", ".index", ".pb")
_KNOWN = (
    "PyTorch safetensors, pytorch_model.bin, TensorFlow safetensors, tf_model.h5, SavedModel, the .index of a TensorFlow "
    "checkpoint, Flax safetensors and flax_model.msgpack"
)
_Matches = Callable[[Path, bytes], bool]
_UNREAD: tuple[tuple[_Matches, str], ...] = (
    (
        lambda path, head: head.startswith(b"PK\x03\x04") and path.suffix == ".keras",
        kinds.OF_KERAS,
    ),
    (
        lambda _, head: head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
        "a pickle that torch.save did not write; save the state_dict with torch.save",
    ),
    (lambda path, _: path.suffix == ".ckpt", kinds.OF_CKPT),
    (lambda path, _: path.suffix == bundle_index.INDEX, kinds.OF_TF),
    (lambda path, _: path.suffix == ".pb", kinds.SAVED_MODEL),
)
