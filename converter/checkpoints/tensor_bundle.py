"""TensorFlow's checkpoints, which a SavedModel keeps its variables in, too: ``.index`` and ``.data-00000-of-00001``.

The object graph, which is one of the tensors, holds the names of the variables. A checkpoint of TensorFlow 1 has none:
its keys are the names. Nothing of a SavedModel's program is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from converter.checkpoints import object_graph
from converter.checkpoints.bundle_index import SAVED_MODEL, Entry, check_sum, read_index, read_text
from converter.checkpoints.hdf5 import strip_scope
from converter.checkpoints.wire import UnsoundMessage
from converter.errors import CorruptCheckpoint, UnsupportedContainer, printable
from converter.specs import MAX_NAME_CHARACTERS, Checkpoint
from converter.tensors.casts import DTYPES, FLOATS

# Keras' name for the state of a layer with randomness, such as dropout.
_SEEDS = "seed_generator_state"


def read_header(path: Path) -> Checkpoint:
    """Reads the index of a checkpoint, and finds every variable's bytes.

    Args:
        path: for example ``variables/variables.index``.

    Raises:
        UnsupportedContainer: variables are cut in slices, there are two models, or it is big-endian.
        CorruptCheckpoint: the index is invalid, or contradicts the data files.
    """
    beside: dict[str, str] = {}
    try:
        entries, files = read_index(path)
        graph = entries.pop(object_graph.KEY, None)
        if graph is None:
            names = {key: key for key in entries}
        else:
            names, beside = object_graph.variables(read_text(graph))
            names = _of_weights(names, entries, beside)
        found = _by_name(path, names, entries)
    except UnsoundMessage as error:
        raise CorruptCheckpoint(
            f"{path}: not a valid TensorFlow checkpoint: it {error}; download or save it again"
        ) from None
    container = "SavedModel" if (path.parent.parent / SAVED_MODEL).is_file() else "TensorFlow checkpoint"
    tensors = {name: entry.stored(name) for name, entry in found.items()}

    def check() -> None:
        for entry in found.values():
            check_sum(entry)

    return Checkpoint("tf", container, tensors, (path, *files), beside=beside, check=check)


def _of_weights(names: Mapping[str, str], entries: Mapping[str, Entry], beside: dict[str, str]) -> dict[str, str]:
    """Those of the full names, by key, that weights can have; puts the others among those that are left out."""
    found = {}
    for key, full in names.items():
        if key not in entries:
            raise UnsoundMessage(f"has an object graph that names {printable(key)}, which does not exist")
        entry = entries[key]
        if full.endswith(_SEEDS):
            beside[full] = "state of a random generator, not a weight"
        elif not entry.shape and entry.dtype not in FLOATS:
            beside[full or key] = "a single number or text, not a weight"
        else:
            found[key] = full
    return found


def _by_name(path: Path, names: Mapping[str, str], entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Tensors by their name, without the root scope that most of them have. If a name occurs twice, both must be the same."""
    counts = Counter(_scope(full) for full in names.values())
    root = max(counts, key=lambda scope: counts[scope], default="")
    found: dict[str, Entry] = {}
    for key, full in sorted(names.items(), key=lambda item: (_scope(item[1]) != root, item)):
        entry, plain = entries[key], strip_scope(full) if "/" in full else full.removesuffix(":0")
        _check_weight(path, key, full, entry)
        again = found.get(plain)
        if again is not None and not entry.is_like(again):
            raise UnsupportedContainer(
                f"{path}: holds {printable(plain)} twice with different values, below {printable(root)} and "
                f"{printable(_scope(full))}: two models, or a model and its average; write the one you want with save_pretrained"
            )
        if again is None:
            found[plain if _scope(full) == root else full.removesuffix(":0")] = entry
    return found


def _check_weight(path: Path, key: str, full: str, entry: Entry) -> None:
    if entry.dtype not in DTYPES:
        raise UnsoundMessage(f"has {printable(key)} with dtype {entry.dtype}, which no weight has")
    if entry.sliced:
        raise UnsupportedContainer(
            f"{path}: {printable(full)} is cut into slices, as parameter servers store it; load the model in its own "
            "environment and write it with save_pretrained"
        )
    if not full or len(full) > MAX_NAME_CHARACTERS:
        raise UnsoundMessage(f"has {printable(key)} with a name of {len(full):,} characters")


def _scope(full: str) -> str:
    return full.partition("/")[0]
