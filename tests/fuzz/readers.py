"""Every reader with what must be true of what it reads: a sound result, or a ConverterError that may be printed."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import safetensors

from converter.checkpoints import flax, hdf5, object_graph, tensor_bundle, torch_zip
from converter.checkpoints import safetensors as ours
from converter.checkpoints.detect import model_folder, read_header
from converter.checkpoints.wire import UnsoundMessage
from converter.conversion.other_layouts import theirs_of
from converter.conversion.plan import make_plan
from converter.errors import ConverterError, CorruptCheckpoint
from converter.exporting.onnx_file import read_onnx
from converter.folder.files import json_bytes
from converter.folder.manifest import read_manifest
from converter.names.configs import TwoTowerConfig, check_config, read_config
from converter.names.frameworks import frameworks
from converter.names.rules import MAX_TENSORS, RuleSet, compile_rules
from converter.parity.files_and_weights import verify_files, verify_weights
from converter.parity.runners.golden import read_recording
from converter.parity.sources import find_source
from converter.specs import Checkpoint, StoredTensor
from converter.tensors.casts import DTYPES
from tests.fuzz import mutators, seeds
from tests.fuzz.flaxs_own import check_same, flaxs_reader
from tests.fuzz.mutators import Mutator
from tests.fuzz.watch import nothing_else

_MOST_ROWS = 1 << 16


@dataclass(frozen=True)
class Reader:
    """One reader, ready to be fed.

    Attributes:
        file: what the file is called that it reads.
        seeds: sound files to begin from.
        mutate: changes a file, keeping most of it.
        read: reads the file and checks what came out; raises ConverterError where it is refused.
        prepare: writes what else the folder holds.
        unprotected: reads it likewise, but may be ended by it: quicker, and the fuzzer sees what it covers. What ended
            it is given to ``read``, which must survive.
    """

    file: str
    seeds: Callable[[], Iterable[bytes]]
    mutate: Mutator
    read: Callable[[Path], None]
    prepare: Callable[[Path], None] = lambda folder: None
    unprotected: Callable[[Path], None] | None = None


def feed(reader: Reader, folder: Path, data: bytes, factor: float = 1.0) -> str | None:
    """Has a file read, and sees to it that nothing else happens.

    Args:
        reader: which.
        folder: prepared; gets the file.
        data: what is in the file.
        factor: as ``watch.nothing_else`` has it.

    Returns:
        The message of the refusal; None where the file was read.
    """
    path = folder / reader.file
    path.write_bytes(data)
    with nothing_else(folder, factor):
        try:
            reader.read(path)
        except ConverterError as error:
            message = str(error)
        else:
            return None
    assert message.isprintable(), ascii(message)
    assert len(message) < 5000, len(message)
    return message


def _read_safetensors(path: Path) -> None:
    checkpoint = ours.read_header(path)
    _check_extents(checkpoint, path)
    _check_disjoint(checkpoint)
    # What we read, the library must read in the same way.
    with safetensors.safe_open(path, framework="numpy") as file:
        names = {name.removesuffix(":0") if checkpoint.framework == "tf" else name: name for name in file.keys()}  # noqa: SIM118 - not a dict
        assert set(names) == set(checkpoint.tensors)
        for plain, name in names.items():
            held = checkpoint.tensors[plain]
            assert tuple(file.get_slice(name).get_shape()) == held.shape


def _read_archive(path: Path) -> None:
    checkpoint = torch_zip.read_header(path)
    _check_extents(checkpoint, path)
    _read_rows(checkpoint)


def _read_hdf5(path: Path) -> None:
    _check_hdf5(hdf5.read_header(path), path)


def _read_hdf5_unprotected(path: Path) -> None:
    _check_hdf5(hdf5.read_here(path), path)


def _check_hdf5(checkpoint: Checkpoint, path: Path) -> None:
    try:
        _check_extents(checkpoint, path)
        _check_disjoint(checkpoint)
        _read_rows(checkpoint)
    finally:
        checkpoint.close()


def _read_bundle(path: Path) -> None:
    checkpoint = tensor_bundle.read_header(path)
    assert checkpoint.files[0] == path
    for tensor in checkpoint.tensors.values():
        assert tensor.extent is not None
        assert tensor.extent.path in checkpoint.files[1:]
    for data in checkpoint.files[1:]:
        held = {name: tensor for name, tensor in checkpoint.tensors.items() if _file_of(tensor) == data}
        _check_extents(replace(checkpoint, tensors=held), data)
        _check_disjoint(replace(checkpoint, tensors=held))
    checkpoint.check()


def _file_of(tensor: StoredTensor) -> Path | None:
    return tensor.extent.path if tensor.extent else None


def _prepare_bundle(folder: Path) -> None:
    """Data as the seeds have it, and of a checkpoint in two files."""
    _, data = seeds.bundle_parts()
    for name in ("w.data-00000-of-00001", "w.data-00000-of-00002"):
        (folder / name).write_bytes(data)
    (folder / "w.data-00001-of-00002").write_bytes(b"more")


def _read_graph(path: Path) -> None:
    try:
        weights, aside = object_graph.variables(path.read_bytes())
    except UnsoundMessage as error:
        raise CorruptCheckpoint(f"it {error}") from None
    assert all(isinstance(text, str) for text in (*weights, *weights.values(), *aside, *aside.values()))
    if not weights and not aside:
        raise CorruptCheckpoint("it names nothing")


def _read_flax(path: Path) -> None:
    checkpoint = flax.read_header(path)
    assert checkpoint.tensors
    _check_extents(checkpoint, path)
    _check_disjoint(checkpoint)
    if (restore := flaxs_reader()) is not None:
        check_same(checkpoint, path, restore)


def _prepare_flax(folder: Path) -> None:
    flaxs_reader()  # imported before anything is watched


def _read_index(path: Path) -> None:
    checkpoint = read_header(path)
    try:
        assert checkpoint.tensors
        for file in checkpoint.files:
            assert file.parent == path.parent
            assert file.resolve().parent == path.parent.resolve()
        for tensor in checkpoint.tensors.values():
            assert tensor.extent is None or tensor.extent.path in checkpoint.files
    finally:
        checkpoint.close()


def _prepare_index(folder: Path) -> None:
    """Shards of three kinds beside the index, a folder, and a link that leads out."""
    for number, name in enumerate("ab", 1):
        data = seeds.save({name: np.ones((2, number), np.float32)}, {"format": "pt"})
        (folder / f"model-0000{number}-of-00002.safetensors").write_bytes(data)
    with h5py.File(folder / "tf_model-00001-of-00001.h5", "w") as file:
        file.attrs["layer_names"] = np.array([b"c:0", b"d/e:0"])
        file["c:0"], file["d/e:0"] = np.ones(2, "f4"), np.ones((1, 3), "f4")
    (folder / "archive.bin").write_bytes(seeds.small_archive())
    (folder / "x.index.json").write_bytes(b"{}")
    (folder / "folder").mkdir()
    (folder / "link.safetensors").symlink_to("model-00001-of-00002.safetensors")
    (folder / "out.safetensors").symlink_to("/etc/passwd")


def _read_config(path: Path) -> None:
    config = read_config(path)
    rules = compile_rules(config)
    assert len(rules.tensors) <= 2 * MAX_TENSORS + 10
    for side in frameworks():
        names = [rule.names[side] for rule in rules.tensors]
        assert len(set(names)) == len(names) > 0
    assert all(type(size) is int and size >= 0 for rule in rules.tensors for size in rule.shape)
    if len(rules.tensors) <= 300:
        _plan_both_ways(config, rules)


def _plan_both_ways(config: TwoTowerConfig, rules: RuleSet) -> None:
    """Plans for a checkpoint that holds what the config asks for, and all of it must arrive."""
    for source, target in itertools.permutations(frameworks(), 2):
        held = {rule.names[source]: rule.shape_in(source) for rule in rules.tensors}
        tensors = {name: StoredTensor(name, "float32", shape) for name, shape in held.items()}
        plan = make_plan(Checkpoint(source, "made up", tensors, ()), config, target)
        assert len(plan.tensors) == len(tensors)
        assert all(math.prod(tensor.shape) == tensor.source.size for tensor in plan.tensors)


def _read_open_clip(path: Path) -> None:
    """As config.json, and its model, planned from and to OpenCLIP's own tensors, with a config that is read again."""
    config = read_config(path)
    if config.layout is None:
        _read_config(path)
        return
    rules = compile_rules(config)
    assert rules.table is not None
    assert 0 < len(rules.tensors) <= 2 * MAX_TENSORS + 10
    if len(rules.tensors) <= 300:
        tensors = {name: StoredTensor(name, "float32", shape) for name, shape in rules.table.shapes.items()}
        checkpoint = Checkpoint("pt", "made up", tensors, ())
        for target, layout in (("pt", None), ("tf", None), ("pt", config.layout)):
            plan = make_plan(checkpoint, config, target, layout=layout)
            assert len(plan.tensors) == len(rules.tensors)
            assert all(math.prod(tensor.shape) == tensor.source.size for tensor in plan.tensors)
    again = json.loads(json_bytes(theirs_of(config, config.layout, config.processor or {})))
    assert check_config(again).family == config.family


def _read_modules(path: Path) -> None:
    folder = path.parent
    found = model_folder(folder)
    assert found.parent == folder
    assert found.resolve().parent == folder.resolve()
    assert (found / "config.json").is_file()


def _prepare_modules(folder: Path) -> None:
    """A model, a folder without one, a file, a link beside and one that leads out."""
    for name in ("0_CLIPModel", "1_Pooling"):
        (folder / name).mkdir()
    (folder / "0_CLIPModel" / "config.json").write_bytes(b"{}")
    (folder / "file").write_bytes(b"x")
    (folder / "link").symlink_to("0_CLIPModel")
    (folder / "out").symlink_to("/usr")


def _read_manifest(path: Path) -> None:
    folder = path.parent
    recorded = read_manifest(folder)
    assert recorded is not None
    assert all((folder / name).parent == folder for name in recorded.files)
    findings = [verify_files(folder, recorded), verify_weights(folder, recorded, None)]
    find_source(folder, recorded, [None])
    for finding in findings:
        assert finding.status in ("passed", "failed", "not checked")
        assert all(problem.isprintable() for problem in finding.problems), finding
        json.dumps(finding.to_json())
    # A manifest that lies is found out: only what it was written with may pass.
    if findings[0].status == "passed":
        assert recorded.files.keys() <= {file.name for file in folder.iterdir()}


def _prepare_manifest(folder: Path) -> None:
    made = seeds.write_converted(folder / "made")
    for file in made.iterdir():
        shutil.move(file, folder / file.name)
    shutil.rmtree(folder / "made")


def _read_golden(path: Path) -> None:
    read = read_recording(path)
    assert read.batches
    for batch in read.batches:
        assert batch.taps
        assert batch.title.isprintable()
        assert batch.mask.any(axis=1).all()
        assert np.isfinite(batch.inputs["pixel_values"]).all()


def _read_onnx(path: Path) -> None:
    found = read_onnx(path)
    beside = path.with_name("weights.safetensors")
    for value in (*found.inputs, *found.outputs):
        assert all(isinstance(axis, str) or axis >= 0 for axis in value.axes)
    assert all(count > 0 for count in found.operators.values())
    _check_extents(Checkpoint("tf", "weights", found.weights, (beside,)), beside)


def _prepare_onnx(folder: Path) -> None:
    """Weights as the seeds have them, and a link that leads out."""
    (folder / "weights.safetensors").write_bytes(bytes(64))
    (folder / "out").symlink_to("/etc/passwd")


def _check_extents(checkpoint: Checkpoint, path: Path) -> None:
    """Every tensor has a dtype and sizes, and as many bytes as these ask for, inside its file."""
    size = path.stat().st_size
    for name, tensor in checkpoint.tensors.items():
        assert isinstance(name, str)
        assert tensor.name == name
        assert tensor.dtype in DTYPES
        assert all(type(number) is int and number >= 0 for number in tensor.shape)
        assert (tensor.extent is None) != (tensor.read_rows is None)
        if tensor.extent is not None:
            assert tensor.extent.path == path
            assert tensor.extent.nbytes == tensor.size * DTYPES[tensor.dtype]
            runs = list(tensor.extent.runs(0, tensor.extent.nbytes)) or [(tensor.extent.offset, 0)]
            assert sum(nbytes for _, nbytes in runs) == tensor.extent.nbytes
            assert all(0 <= offset <= offset + nbytes <= size for offset, nbytes in runs)


def _check_disjoint(checkpoint: Checkpoint) -> None:
    """No byte belongs to two tensors, except where two names are for one dataset."""
    held = (t.extent for t in checkpoint.tensors.values() if t.extent and t.extent.nbytes)
    extents = {run for extent in held for run in extent.runs(0, extent.nbytes)}
    for (offset, nbytes), (after, _) in itertools.pairwise(sorted(extents)):
        assert offset + nbytes <= after, (offset, nbytes, after)


def _read_rows(checkpoint: Checkpoint) -> None:
    """Reads the first and last rows of what has no extent."""
    for tensor in _without_extent(checkpoint.tensors):
        assert tensor.read_rows is not None
        rows = tensor.shape[0] if tensor.shape else 1
        width = math.prod(tensor.shape[1:])
        if rows and width <= _MOST_ROWS:
            first, last = tensor.read_rows(0, 1), tensor.read_rows(rows - 1, rows)
            assert first.size == last.size == width
            assert first.dtype.itemsize == DTYPES[tensor.dtype]


def _without_extent(tensors: Mapping[str, StoredTensor]) -> Iterator[StoredTensor]:
    return (tensor for tensor in tensors.values() if tensor.extent is None)


READERS: dict[str, Reader] = {
    "safetensors": Reader("model.safetensors", seeds.safetensors_files, mutators.mutate_safetensors, _read_safetensors),
    "archive": Reader("pytorch_model.bin", seeds.archives, mutators.mutate_archive, _read_archive),
    "hdf5": Reader(
        "tf_model.h5", seeds.hdf5_files, mutators.mutate_bytes, _read_hdf5, unprotected=_read_hdf5_unprotected
    ),
    "bundle": Reader("w.index", seeds.bundle_indices, mutators.mutate_table, _read_bundle, _prepare_bundle),
    "graph": Reader("graph", seeds.graphs, mutators.mutate_bytes, _read_graph),
    "flax": Reader("flax_model.msgpack", seeds.flax_files, mutators.mutate_bytes, _read_flax, _prepare_flax),
    "index": Reader("model.safetensors.index.json", seeds.indices, mutators.mutate_json, _read_index, _prepare_index),
    "modules": Reader("modules.json", seeds.modules, mutators.mutate_json, _read_modules, _prepare_modules),
    "config": Reader("config.json", seeds.configs, mutators.mutate_json, _read_config),
    "open_clip": Reader("open_clip_config.json", seeds.open_clip_configs, mutators.mutate_json, _read_open_clip),
    "manifest": Reader("conversion.json", seeds.manifests, mutators.mutate_json, _read_manifest, _prepare_manifest),
    "golden": Reader("golden.safetensors", seeds.golden_files, mutators.mutate_safetensors, _read_golden),
    "onnx": Reader("model.onnx", seeds.onnx_files, mutators.mutate_bytes, _read_onnx, _prepare_onnx),
}
