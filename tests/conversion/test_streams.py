"""Tensors one at a time, as either framework has them, and from memory."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import pt2tf
from converter.conversion.streams import open_tensors
from converter.errors import CorruptCheckpoint, PlanError, SourceError
from converter.tensors.layouts import ALIGNMENT
from tests.compat.towers import FAMILIES
from tests.hdf5_files import read_all, write_h5
from tests.tiny import BFLOAT16, MODELS, Arrays, assert_same, config_of, load, tensors_of, write_checkpoint, write_tiny


@pytest.fixture(params=["swin+bert", *FAMILIES])
def both(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """The same checkpoint, PyTorch's and TensorFlow's, of a pair and of every other family."""
    config = MODELS[request.param]
    write_checkpoint(tmp_path / "pt", config, tensors_of(config))
    pt2tf(tmp_path / "pt", tmp_path / "tf")
    return tmp_path / "pt", tmp_path / "tf"


def read_side(source: Path, side: str) -> Arrays:
    with open_tensors(source, side) as reader:  # type: ignore[arg-type]
        found = {name: reader.read(name) for name in reader.names}
        assert {name: array.shape for name, array in found.items()} == dict(reader.shapes)
        assert {name: array.dtype.name for name, array in found.items()} == dict(reader.dtypes)
        assert all(array.flags.writeable for array in found.values())
    return {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in found.items()}


@pytest.mark.parametrize("source", [0, 1])
def test_either_side_of_either(both: tuple[Path, Path], source: int) -> None:
    in_pytorch = load(both[0] / "model.safetensors")
    in_tensorflow = {n: a for n, a in read_all(both[1] / "tf_model.h5").items() if not n.endswith("position_index")}
    assert_same(read_side(both[source], "pt"), in_pytorch)
    assert_same(read_side(both[source], "tf"), in_tensorflow)


def test_chunked_datasets(both: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "chunked").mkdir()
    (tmp_path / "chunked" / "config.json").write_bytes((both[1] / "config.json").read_bytes())
    write_h5(tmp_path / "chunked" / "tf_model.h5", read_all(both[1] / "tf_model.h5"), compression="gzip")
    assert_same(read_side(tmp_path / "chunked", "pt"), load(both[0] / "model.safetensors"))


def read_in_place(folder: Path) -> tuple[Arrays, dict[str, bool]]:
    """All tensors as TensorFlow has them, and which of them came out of the mapped file."""
    with open_tensors(folder, "tf") as reader:
        found = {name: reader.read(name, in_place=True) for name in reader.names}
    return found, {name: not isinstance(root_of(array), np.ndarray) for name, array in found.items()}


def root_of(array: Any) -> Any:
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array


def test_in_place_a_tensor_is_the_file_itself(both: tuple[Path, Path]) -> None:
    file = both[1] / "tf_model.h5"
    before = file.read_bytes()
    found, mapped = read_in_place(both[1])
    assert_same(found, read_side(both[1], "tf"))
    large = {name for name, array in found.items() if array.nbytes >= 1024}
    assert len(large) > 10
    assert large <= {name for name, there in mapped.items() if there}
    for array in found.values():  # copy on write, and mapped as long as an array is
        array[...] = 7
    assert all((array == 7).all() for array in found.values())
    assert file.read_bytes() == before


def test_in_place_of_a_file_that_is_emptied(both: tuple[Path, Path]) -> None:
    with open_tensors(both[1], "tf") as reader:
        os.truncate(both[1] / "tf_model.h5", 0)
        with pytest.raises(CorruptCheckpoint, match="shrank while it was being read"):
            reader.read(max(reader.shapes, key=lambda name: np.prod(reader.shapes[name])), in_place=True)


def test_in_place_where_files_cannot_be_mapped(both: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr("converter.tensors.files.mmap.mmap", refuse)
    found, mapped = read_in_place(both[1])
    assert_same(found, read_side(both[1], "tf"))
    assert not any(mapped.values())


@pytest.mark.parametrize("container", ["chunked", "anywhere", "pytorch"])
def test_in_place_what_does_not_lie_as_it_is_wanted_is_read(
    both: tuple[Path, Path], tmp_path: Path, container: str
) -> None:
    folder, tensors = tmp_path / container, read_all(both[1] / "tf_model.h5")
    folder.mkdir()
    (folder / "config.json").write_bytes((both[1] / "config.json").read_bytes())
    if container == "pytorch":
        folder = both[0]
    else:
        options = {"compression": "gzip"} if container == "chunked" else {}
        write_h5(folder / "tf_model.h5", tensors, userblock=0 if options else 512, **options)
    found, mapped = read_in_place(folder)
    assert_same({n: np.ascontiguousarray(a).reshape(a.shape) for n, a in found.items()}, read_side(both[1], "tf"))
    assert not all(mapped.values())
    assert not any(mapped.values()) or container != "chunked"
    aligned = {name: array.__array_interface__["data"][0] % ALIGNMENT == 0 for name, array in found.items()}
    assert all(aligned[name] for name, there in mapped.items() if there)


def test_bfloat16(tmp_path: Path) -> None:
    tensors = write_tiny(tmp_path / "pt", dtype=BFLOAT16)
    assert_same(read_side(tmp_path / "pt", "pt"), tensors)


def test_nothing_is_given_of_an_incomplete_checkpoint(tmp_path: Path) -> None:
    tensors = write_tiny(tmp_path / "pt")
    del tensors["logit_scale"]
    write_checkpoint(tmp_path / "pt", config_of(), tensors)
    with pytest.raises(PlanError, match=r"missing \(1\): logit_scale"):
        open_tensors(tmp_path / "pt")


@pytest.mark.parametrize("wrong", [False, True])
def test_buffers_that_hold_something_else(tmp_path: Path, wrong: bool) -> None:
    ids = np.arange(41)[None]
    ids[0, 7] += wrong
    name = "text_model.embeddings.position_ids"
    write_checkpoint(tmp_path / "pt", config_of(), tensors_of(config_of()) | {name: ids})
    with open_tensors(tmp_path / "pt") as reader:
        expected = [f"{name} holds values that config.json does not give"] if wrong else []
        assert reader.wrong_buffers() == expected


@pytest.mark.parametrize("model", ["swin+bert", *FAMILIES])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, BFLOAT16])
def test_a_state_dict_in_memory(tmp_path: Path, dtype: np.dtype, model: str) -> None:
    config, tensors = MODELS[model], tensors_of(MODELS[model], dtype)
    write_checkpoint(tmp_path / "pt", config, tensors)
    pt2tf(tensors, tmp_path / "memory", config=config, format="safetensors")
    pt2tf(tmp_path / "pt", tmp_path / "file", format="safetensors")
    for name in ("model.safetensors", "config.json"):
        same = [(tmp_path / folder / name).read_bytes() for folder in ("memory", "file")]
        assert same[0] == same[1]
    hashes = [json.loads((tmp_path / f / "conversion.json").read_text())["tensors"] for f in ("memory", "file")]
    assert hashes[0] == hashes[1]
    assert hashes[0]


def test_a_state_dict_of_a_view(tmp_path: Path) -> None:
    """Rows are read in C order, however they lie in memory."""
    config, tensors = config_of(), tensors_of(config_of())
    views = {name: np.asfortranarray(array) if array.ndim == 2 else array for name, array in tensors.items()}
    for name, given in (("views", views), ("plain", tensors)):
        pt2tf(given, tmp_path / name, config=config)
    same = [(tmp_path / name / "tf_model.h5").read_bytes() for name in ("views", "plain")]
    assert same[0] == same[1]


@pytest.mark.parametrize("value", [None, "x", [1.0], np.array(["a"]), np.zeros(3, complex)])
def test_a_state_dict_of_something_else(tmp_path: Path, value: object) -> None:
    with pytest.raises(
        SourceError, match=r"^state dict: x\\n is .*, expected a torch tensor or NumPy array of float64"
    ):
        pt2tf({"x\n": value}, tmp_path / "out", config=config_of())
    assert list(tmp_path.iterdir()) == []
