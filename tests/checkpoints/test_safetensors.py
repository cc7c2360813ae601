"""safetensors headers in and out, against the safetensors library and byte by byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from converter.checkpoints import detect
from converter.checkpoints.safetensors import read_header, write_header
from converter.errors import CorruptCheckpoint
from converter.specs import StoredTensor
from converter.tensors.casts import DTYPES, numpy_dtype
from tests.tiny import FIXTURE, safetensors_bytes

Array = np.ndarray[Any, Any]


def value(tensor: StoredTensor) -> Array:
    """Reads a tensor where its extent says."""
    assert tensor.extent is not None
    with tensor.extent.path.open("rb") as file:
        file.seek(tensor.extent.offset)
        content = file.read(tensor.extent.nbytes)
    return np.frombuffer(content, numpy_dtype(tensor.dtype)).reshape(tensor.shape)


def noise(dtype: str, *shape: int) -> Array:
    return np.asarray(np.random.default_rng(2).integers(0, 100, shape)).astype(numpy_dtype(dtype))


SAMPLES = {f"{dtype}.{axes}": noise(dtype, *range(2, 2 + axes)) for dtype in DTYPES for axes in range(3)}


def test_reads_what_the_library_writes(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(SAMPLES, path, metadata={"format": "pt", "note": "perché"})
    checkpoint = read_header(path)
    assert (checkpoint.framework, checkpoint.container) == ("pt", "PyTorch safetensors")
    assert checkpoint.metadata == {"format": "pt", "note": "perché"}
    assert checkpoint.files == (path,)
    assert set(checkpoint.tensors) == set(SAMPLES)
    for name, expected in SAMPLES.items():
        found = checkpoint.tensors[name]
        assert (found.name, found.dtype, found.shape) == (name, expected.dtype.name, expected.shape)
        np.testing.assert_array_equal(value(found), expected, strict=True)


@pytest.mark.parametrize("framework", ["pt", "tf"])
def test_the_library_reads_what_is_written(tmp_path: Path, framework: Any) -> None:
    path = tmp_path / "model.safetensors"
    placed = write_header(path, [(name, array.dtype.name, array.shape) for name, array in SAMPLES.items()], framework)
    with path.open("r+b") as file:
        for name, array in SAMPLES.items():
            extent = placed[name].extent
            assert extent is not None
            assert extent.nbytes == array.nbytes
            file.seek(extent.offset)
            file.write(array.tobytes())
    suffix = ":0" if framework == "tf" else ""
    with safe_open(path, "np") as opened:
        assert opened.metadata() == {"format": framework}
    found = load_file(path)
    assert set(found) == {name + suffix for name in SAMPLES}
    for name, array in SAMPLES.items():
        np.testing.assert_array_equal(found[name + suffix], array, strict=True)


def test_the_same_bytes_as_the_library(tmp_path: Path) -> None:
    """Order, padding and spelling of the header too."""
    save_file(SAMPLES, tmp_path / "theirs", metadata={"format": "pt"})
    placed = write_header(tmp_path / "ours", [(n, a.dtype.name, a.shape) for n, a in reversed(SAMPLES.items())], "pt")
    with (tmp_path / "ours").open("r+b") as file:
        for name, array in SAMPLES.items():
            extent = placed[name].extent
            assert extent is not None
            file.seek(extent.offset)
            file.write(array.tobytes())
    assert (tmp_path / "ours").stat().st_size == (tmp_path / "theirs").stat().st_size
    ours, theirs = (read_header(tmp_path / name) for name in ("ours", "theirs"))
    for name in SAMPLES:
        assert ours.tensors[name].shape == theirs.tensors[name].shape
        np.testing.assert_array_equal(value(ours.tensors[name]), value(theirs.tensors[name]), strict=True)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(
            lambda n: n != "__metadata__"
        ),
        st.tuples(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 5), max_size=4).map(tuple)),
        max_size=12,
    ),
    st.sampled_from(["pt", "tf"]),
)
def test_header_there_and_back(
    tmp_path_factory: pytest.TempPathFactory, described: dict[str, tuple[str, tuple[int, ...]]], framework: Any
) -> None:
    described = {name.removesuffix(":0") or "x": entry for name, entry in described.items()}
    path = tmp_path_factory.mktemp("header") / "model.safetensors"
    placed = write_header(path, [(name, *entry) for name, entry in described.items()], framework)
    found = read_header(path)
    assert found.framework == framework
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in found.tensors.items()} == described
    assert found.tensors == placed
    with safe_open(path, "np") as opened:
        assert len(opened.keys()) == len(described)


def test_extents_are_aligned(tmp_path: Path) -> None:
    described = [("a", "int8", (3,)), ("b", "float64", (1,)), ("c", "bfloat16", (5,)), ("d", "float32", (1,))]
    placed = write_header(tmp_path / "x", described, "pt")
    assert [(name, tensor.extent.offset % DTYPES[tensor.dtype]) for name, tensor in placed.items() if tensor.extent] == [
        ("b", 0), ("d", 0), ("c", 0), ("a", 0),
    ]  # fmt: skip


def test_never_writes_over_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        write_header(tmp_path / "x", [], "pt")
    assert (tmp_path / "x").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("metadata", "name", "framework"),
    [
        ({"format": "pt"}, "a", "pt"),
        ({"format": "pt"}, "a:0", "pt"),
        ({"format": "tf"}, "a:0", "tf"),
        ({"format": "tf"}, "a", "tf"),
        ({}, "a:0", "tf"),
        ({}, "a", "pt"),
        ({"format": "np"}, "a", "pt"),
    ],
)
def test_whose_tensors(tmp_path: Path, metadata: dict[str, str], name: str, framework: str) -> None:
    path = tmp_path / "model.safetensors"
    save_file({name: np.ones(3, np.float32)}, path, metadata=metadata)
    checkpoint = read_header(path)
    assert checkpoint.framework == framework
    assert list(checkpoint.tensors) == [name.removesuffix(":0") if framework == "tf" else name]


def test_two_names_that_become_one(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": np.ones(3), "a:0": np.ones(2)}, path, metadata={"format": "tf"})
    with pytest.raises(CorruptCheckpoint) as caught:
        read_header(path)
    assert str(caught.value) == f"{path}: not a valid safetensors file: it holds a twice; download or save it again"


def test_fixture_of_the_peer() -> None:
    checkpoint = read_header(FIXTURE / "model.safetensors")
    assert len(checkpoint.tensors) == 97
    np.testing.assert_array_equal(value(checkpoint.tensors["logit_scale"]), np.float32(3.31))
    expected = load_file(FIXTURE / "model.safetensors")
    for name, array in expected.items():
        np.testing.assert_array_equal(value(checkpoint.tensors[name]), array, strict=True)


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x0480, 0x4B50, 0x10280])
@pytest.mark.parametrize("name", ["model.safetensors", "model"])
def test_no_header_length_is_taken_for_another_container(tmp_path: Path, length: int, name: str) -> None:
    """640 bytes of header begin with 80 02, as a pickle does."""
    header = json.dumps({"__metadata__": {"format": "pt"}}).encode().ljust(length)
    path = tmp_path / name
    path.write_bytes(safetensors_bytes(header))
    assert detect.read_header(path).container == "PyTorch safetensors"


def test_bfloat16_is_bfloat16(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": np.array([1.5, -2], ml_dtypes.bfloat16)}, path)
    tensor = read_header(path).tensors["a"]
    assert tensor.dtype == "bfloat16"
    assert value(tensor).tolist() == [1.5, -2]
