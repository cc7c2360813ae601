"""tf_model.h5 in and out, against h5py and against a file that transformers 4.57.6 wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.checkpoints import detect
from converter.checkpoints.hdf5 import read_header, strip_scope, write_header
from converter.errors import CorruptCheckpoint
from converter.tensors.casts import DTYPES, numpy_dtype
from converter.tensors.layouts import ALIGNMENT
from tests.hdf5_files import ROOT, read_all, sound_file, value, write_h5
from tests.tiny import EXPECTED

Array = np.ndarray[Any, Any]


def noise(dtype: str, *shape: int) -> Array:
    return np.asarray(np.random.default_rng(2).integers(0, 100, shape)).astype(numpy_dtype(dtype))


IN_HDF5 = [dtype for dtype in DTYPES if dtype != "bfloat16"]
SAMPLES = {
    **{f"vision_model/vit/{dtype}/kernel": noise(dtype, 5, 3) for dtype in IN_HDF5},
    "vision_model/vit/deep/kernel": noise("float32", 2, 3, 5, 4),
    "vision_model/vit/empty": noise("float32", 0, 3),
    "text_model/bert/layer_._0/bias": noise("float32", 7),
    "visual_projection/kernel": noise("float32", 6, 4),
    "logit_scale": noise("float32", 1),
}


def assert_read(path: Path, expected: dict[str, Array], extents: bool | None = None) -> None:
    """Compares what the header says, and the values there, with the arrays; whether plain ones have extents."""
    checkpoint = detect.read_header(path)
    try:
        assert (checkpoint.framework, checkpoint.container) == ("tf", "tf_model.h5")
        assert set(checkpoint.tensors) == set(expected)
        for name, array in expected.items():
            tensor = checkpoint.tensors[name]
            assert (tensor.name, tensor.dtype, tensor.shape) == (name, array.dtype.newbyteorder("<").name, array.shape)
            np.testing.assert_array_equal(value(tensor), array.astype(array.dtype.newbyteorder("<")), strict=True)
            if extents is not None and array.size and array.ndim:
                assert (tensor.extent is not None) == extents
    finally:
        checkpoint.close()


def test_contiguous(tmp_path: Path) -> None:
    write_h5(tmp_path / "tf_model.h5", SAMPLES)
    assert_read(tmp_path / "tf_model.h5", SAMPLES, extents=True)


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": True},
        {"compression": "gzip", "compression_opts": 9},
        {"compression": "lzf"},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"maxshape": None, "chunks": True},
    ],
    ids=["chunked", "gzip", "lzf", "shuffle", "resizable"],
)
def test_chunked_and_compressed(tmp_path: Path, options: dict[str, Any]) -> None:
    write_h5(tmp_path / "tf_model.h5", SAMPLES, **options)
    assert_read(tmp_path / "tf_model.h5", SAMPLES, extents=False)


def test_chunks_that_do_not_divide_the_shape(tmp_path: Path) -> None:
    tensors = {"a/x": noise("float32", 7, 5)}
    write_h5(tmp_path / "tf_model.h5", tensors, chunks=(3, 2), compression="gzip")
    assert_read(tmp_path / "tf_model.h5", tensors, extents=False)


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">f2", ">i8", ">u2"])
def test_big_endian(tmp_path: Path, dtype: str) -> None:
    tensors = {"a/x": np.arange(15, dtype=dtype).reshape(5, 3)}
    write_h5(tmp_path / "tf_model.h5", tensors)
    assert_read(tmp_path / "tf_model.h5", tensors, extents=False)


@pytest.mark.parametrize("userblock", [512, 4096])
def test_user_block(tmp_path: Path, userblock: int) -> None:
    write_h5(tmp_path / "tf_model.h5", SAMPLES, userblock=userblock)
    assert not (tmp_path / "tf_model.h5").read_bytes().startswith(b"\x89HDF")
    assert_read(tmp_path / "tf_model.h5", SAMPLES, extents=True)


@pytest.mark.parametrize("root", [f"{ROOT}_3", "model", "tf_clip"])
def test_any_root_scope(tmp_path: Path, root: str) -> None:
    write_h5(tmp_path / "tf_model.h5", SAMPLES, root=root)
    assert_read(tmp_path / "tf_model.h5", SAMPLES)


def test_lists_of_names_in_parts(tmp_path: Path) -> None:
    write_h5(tmp_path / "tf_model.h5", SAMPLES, attribute_bytes=140)
    with h5py.File(tmp_path / "tf_model.h5") as file:
        assert "layer_names" in file.attrs
        assert {"weight_names0", "weight_names1"} <= set(file["vision_model"].attrs)
    assert_read(tmp_path / "tf_model.h5", SAMPLES)


def test_names_as_text(tmp_path: Path) -> None:
    with sound_file(tmp_path / "tf_model.h5") as (file, layer):
        layer["r/x:0"] = np.ones(3, "f4")
        file.attrs["layer_names"] = ["a"]
        layer.attrs["weight_names"] = ["r/x:0"]
    assert_read(tmp_path / "tf_model.h5", {"x": np.ones(3, "f4")})


def test_a_layer_without_weights(tmp_path: Path) -> None:
    with sound_file(tmp_path / "tf_model.h5"):
        pass
    assert_read(tmp_path / "tf_model.h5", {})


def test_compact_and_never_written_datasets(tmp_path: Path) -> None:
    with sound_file(tmp_path / "tf_model.h5") as (_, layer):
        layer.create_dataset("r/never:0", (3,), "f4", fillvalue=2.5)
        compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        compact.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((2,))
        h5py.Dataset(h5py.h5d.create(layer["r"].id, b"compact:0", h5py.h5t.IEEE_F32LE, space, compact))[...] = [4, 5]
    expected = {"never": np.full(3, 2.5, "f4"), "compact": np.array([4, 5], "f4")}
    assert_read(tmp_path / "tf_model.h5", expected, extents=False)


def test_a_stored_type_that_h5py_calls_float32(tmp_path: Path) -> None:
    """HDF5 can store bfloat16, of 2 bytes; h5py reads it as float32, of 4."""
    stored = h5py.h5t.IEEE_F32LE.copy()
    stored.set_fields(15, 7, 8, 0, 7)
    stored.set_size(2)
    stored.set_ebias(127)
    with sound_file(tmp_path / "tf_model.h5") as (_, layer):
        layer.create_group("r")
        space = h5py.h5s.create_simple((4,))
        h5py.Dataset(h5py.h5d.create(layer["r"].id, b"x:0", stored, space))[...] = [1, 2.5, -3, 4]
    assert_read(tmp_path / "tf_model.h5", {"x": np.array([1, 2.5, -3, 4], "f4")}, extents=False)


def test_file_of_transformers() -> None:
    expected = read_all(EXPECTED / "tf_model.h5")
    assert len(expected) == 97
    assert expected["logit_scale"].tolist() == [np.float32(3.31)]
    assert_read(EXPECTED / "tf_model.h5", expected, extents=True)


def test_h5py_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "tf_model.h5"
    fill(path, SAMPLES)
    found = read_all(path)
    assert set(found) == set(SAMPLES)
    for name, array in SAMPLES.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
    assert_read(path, SAMPLES, extents=True)


def test_tensors_begin_where_frameworks_take_them_from(tmp_path: Path) -> None:
    names = [
        (f"a/{letter}", "float32", (rows, 10)) for letter, rows in zip("bcdefg", (1, 25, 26, 3, 77, 1000), strict=True)
    ]
    for name, placed in {
        "whole": write_header(tmp_path / "tf_model.h5", names, ROOT),
        "shard": write_header(tmp_path / "tf_model-00001-of-00002.h5", names, None),
    }.items():
        offsets = [tensor.extent.offset for tensor in placed.values() if tensor.extent and tensor.extent.nbytes >= 1024]
        assert len(offsets) == 3, name
        assert [offset % ALIGNMENT for offset in offsets] == [0] * 3, name


def fill(path: Path, tensors: dict[str, Array]) -> None:
    placed = write_header(path, [(name, array.dtype.name, array.shape) for name, array in tensors.items()], ROOT)
    with path.open("r+b") as file:
        for name, array in tensors.items():
            extent = placed[name].extent
            assert extent is not None
            assert extent.nbytes == array.nbytes
            file.seek(extent.offset)
            file.write(array.tobytes())


def test_structure_is_that_of_transformers(tmp_path: Path) -> None:
    """Attributes (but the version of Keras), groups, paths, types and the order of names are those of its file."""
    tensors = read_all(EXPECTED / "tf_model.h5")
    with h5py.File(EXPECTED / "tf_model.h5") as file:
        layers = [*text_of(file.attrs["layer_names"]), "top_level_model_weights"]
        names = [name for layer in layers for name in text_of(file[layer].attrs["weight_names"])]
    path = tmp_path / "tf_model.h5"
    fill(path, {name: tensors[name] for name in map(strip_scope, names)})
    assert described(path) == described(EXPECTED / "tf_model.h5")


def text_of(stored: Any) -> list[str]:
    """Keras writes names as text of any length, we as text of one length: the same to every reader."""
    return [name.decode() if isinstance(name, bytes) else str(name) for name in np.atleast_1d(stored)]


def described(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def visit(name: str, held: Any) -> None:
        attributes = {key: text_of(stored) for key, stored in held.attrs.items() if key != "keras_version"}
        content = (held.shape, held.dtype, held[()].tobytes()) if isinstance(held, h5py.Dataset) else None
        found[name] = (attributes, content)

    with h5py.File(path) as file:
        visit("/", file)
        file.visititems(visit)
    return found


def test_long_lists_of_names_are_split(tmp_path: Path) -> None:
    """130 KB of names do not fit into two attributes of 64,512 bytes."""
    names = [f"vision_model/vit/encoder/layer_._{number}/{'x' * 150}" for number in range(600)]
    write_header(tmp_path / "tf_model.h5", [(name, "int8", (1,)) for name in names], ROOT)
    with h5py.File(tmp_path / "tf_model.h5") as file:
        parts = file["vision_model"].attrs
        assert sorted(parts) == ["weight_names0", "weight_names1", "weight_names2"]
        assert all(parts[name].nbytes <= 64_512 for name in parts)
    checkpoint = read_header(tmp_path / "tf_model.h5")
    assert list(checkpoint.tensors) == names


@given(st.lists(st.tuples(st.sampled_from(IN_HDF5), st.lists(st.integers(0, 4), max_size=4).map(tuple)), max_size=8))
def test_header_there_and_back(
    tmp_path_factory: pytest.TempPathFactory, described_as: list[tuple[str, tuple[int, ...]]]
) -> None:
    path = tmp_path_factory.mktemp("h5") / "tf_model.h5"
    tensors = [(f"layer/{number}/kernel", *entry) for number, entry in enumerate(described_as)]
    placed = write_header(path, tensors, ROOT)
    found = read_header(path)
    assert [(name, tensor.dtype, tensor.shape) for name, tensor in found.tensors.items()] == tensors
    for name, _, shape in tensors:
        if 0 not in shape:
            assert found.tensors[name].extent == placed[name].extent


def test_data_that_changed_under_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "tf_model.h5"
    with sound_file(path) as (_, layer):
        data = layer.create_dataset("r/x:0", data=np.arange(64, dtype="f4"), chunks=(64,), fletcher32=True)
        offset = data.id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset + 5] ^= 1
    path.write_bytes(content)
    checkpoint = read_header(path)
    with pytest.raises(CorruptCheckpoint, match="HDF5 cannot read a/r/x:0: .*; download or save it again$"):
        value(checkpoint.tensors["x"])
    checkpoint.close()


@pytest.mark.parametrize(
    ("name", "plain"),
    [(f"{ROOT}/a/b:0", "a/b"), (f"{ROOT}_7/a:0", "a"), ("m/a", "a"), ("m/a:1", "a:1")],
)
def test_strip_scope(name: str, plain: str) -> None:
    assert strip_scope(name) == plain
