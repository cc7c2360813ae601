"""Zip-format pickles: read at any offset and stride, written so that CPython's zipfile agrees. No torch here."""

from __future__ import annotations

import math
import os
import pickletools
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from converter import pt2tf, tf2pt
from converter.checkpoints import strides, torch_zip, zip_directory
from converter.checkpoints.detect import open_source, read_header
from converter.errors import ConverterError, CorruptCheckpoint, UnsupportedContainer
from converter.specs import Shape, StoredTensor
from converter.tensors.casts import DTYPES, numpy_dtype
from tests.archives import Call, Named, dump, ordered, storage, tensor, write_archive
from tests.contents import read_h5, read_tensors

Array = np.ndarray[Any, Any]
NUMBERS = np.random.default_rng(3).standard_normal(600).astype(np.float32)


def read(stored: StoredTensor) -> Array:
    """A tensor's values, by its extent or its reader."""
    if stored.extent is None:
        assert stored.read_rows is not None
        return stored.read_rows(0, stored.shape[0] if stored.shape else 1)
    with stored.extent.path.open("rb") as file:
        file.seek(stored.extent.offset)
        held = np.frombuffer(file.read(stored.extent.nbytes), numpy_dtype(stored.dtype))
    return held.reshape(stored.shape)


def write(path: Path, value: Any, protocol: int = 2, notes: dict[str, bytes] | None = None) -> Path:
    return write_archive(path, dump(value, protocol), {"0": NUMBERS.tobytes()}, notes)


NUMBERS_STORAGE = storage("0", 600)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_views_into_one_storage_have_the_values_at_their_places(protocol: int, tmp_path: Path) -> None:
    views = {
        "whole": tensor(NUMBERS_STORAGE, 0, (20, 30), (30, 1)),
        "later": tensor(NUMBERS_STORAGE, 7, (5, 3), (3, 1)),
        "transposed": tensor(NUMBERS_STORAGE, 0, (30, 20), (1, 30)),
        "every other": tensor(NUMBERS_STORAGE, 1, (9,), (2,)),
        "expanded": tensor(NUMBERS_STORAGE, 4, (3, 4), (0, 1)),
        "scalar": tensor(NUMBERS_STORAGE, 599, (), ()),
        "one row": tensor(NUMBERS_STORAGE, 30, (1, 30), (999, 1)),
        "empty": tensor(NUMBERS_STORAGE, 600, (0, 3), (3, 1)),
    }
    held = torch_zip.read_header(write(tmp_path / "x.bin", ordered(views), protocol)).tensors
    table = NUMBERS.reshape(20, 30)
    expected = {
        "whole": table,
        "later": NUMBERS[7:22].reshape(5, 3),
        "transposed": table.T,
        "every other": NUMBERS[1:19:2],
        "expanded": np.stack([NUMBERS[4:8]] * 3),
        "scalar": NUMBERS[599],
        "one row": table[1:2],
        "empty": np.zeros((0, 3), np.float32),
    }
    assert list(held) == list(expected)
    for name, values in expected.items():
        assert held[name].shape == values.shape
        np.testing.assert_array_equal(read(held[name]), values, err_msg=name)
    by_rows = {name for name, stored in held.items() if stored.extent is None}
    assert by_rows == {"transposed", "every other", "expanded"}


@st.composite
def views(draw: Callable[..., Any]) -> tuple[int, Shape, Shape, int, int]:
    """Offset, shape and stride of a view into 600 elements, and a range of its rows."""
    shape = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    room, stride = 599, []
    for size in shape:
        step = draw(st.integers(0, room // max(size - 1, 1) if size > 1 else 2**40))
        stride.append(step)
        room -= (size - 1) * step
    start = draw(st.integers(0, shape[0]))
    return draw(st.integers(0, room)), tuple(shape), tuple(stride), start, draw(st.integers(start, shape[0]))


@given(view=views(), least=st.sampled_from([4, 40, 65536]), most=st.sampled_from([16, 200, 2**24]))
def test_any_rows_of_any_view_are_those_of_numpy(
    view: tuple[int, Shape, Shape, int, int], least: int, most: int
) -> None:
    offset, shape, stride, start, stop = view
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(strides, "_LEAST_BYTES", least)
        patch.setattr(strides, "_MOST_BYTES", most)
        path = write(Path(folder, "x.bin"), {"x": tensor(NUMBERS_STORAGE, offset, shape, stride)})
        held = torch_zip.read_header(path).tensors["x"]
        steps = [4 * step if size > 1 else 0 for size, step in zip(shape, stride, strict=True)]
        expected = np.lib.stride_tricks.as_strided(NUMBERS[offset:], shape, steps)
        np.testing.assert_array_equal(read(held), expected)
        if held.read_rows is not None:
            np.testing.assert_array_equal(held.read_rows(start, stop), expected[start:stop])


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_read(dtype: str, tmp_path: Path) -> None:
    values = np.arange(6).astype(numpy_dtype(dtype)).reshape(2, 3)
    if dtype in ("uint64", "uint32", "uint16"):
        view = Call(
            Named("torch._utils", "_rebuild_tensor_v3"),
            (storage("a", values.nbytes, dtype), 0, (2, 3), (3, 1), False, ordered(), Named("torch", dtype)),
        )
    else:
        view = tensor(storage("a", 6, dtype, "cuda:1"), 0, (2, 3), (3, 1))
    path = write_archive(tmp_path / "x.bin", dump(ordered({"x": view})), {"a": values.tobytes()})
    held = torch_zip.read_header(path).tensors["x"]
    assert (held.dtype, held.shape) == (dtype, (2, 3))
    np.testing.assert_array_equal(read(held), values)


def test_what_surrounds_the_tensors_is_understood(tmp_path: Path) -> None:
    view = tensor(NUMBERS_STORAGE, 0, (2, 3), (3, 1), {})
    parameters = {
        "plain": Call(Named("torch._utils", "_rebuild_parameter"), (view, True, ordered())),
        "with state": Call(Named("torch._utils", "_rebuild_parameter_with_state"), (view, True, ordered(), {"tag": 1})),
    }
    checkpoint = {
        "epoch": 3,
        "lr": 1e-3,
        "size": Call(Named("torch", "Size"), ((2, 3),)),
        "steps": [2**40, -1, None, True, {"deep": ()}],
        "state_dict": ordered(parameters, {"_metadata": ordered({"": {"version": 1}})}),
    }
    held = torch_zip.read_header(write(tmp_path / "x.ckpt", checkpoint, notes={".format_version": b"1"}))
    assert (held.framework, held.files) == ("pt", (tmp_path / "x.ckpt",))
    assert {name: read(stored).tobytes() for name, stored in held.tensors.items()} == {
        "plain": NUMBERS[:6].tobytes(),
        "with state": NUMBERS[:6].tobytes(),
    }


FULL = [
    ("vision.weight", "float32", (3, 5)),
    ("scalar", "float64", ()),
    ("empty", "float16", (0, 7)),
    ("deep", "bfloat16", (2, 1, 3, 2, 1)),
    *((f"of {dtype}", dtype, (3,)) for dtype in DTYPES),
    *((f"many.{number}", "int8", (2,)) for number in range(1003)),
]


def test_a_written_archive_is_a_sound_zip_file_of_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    noise = np.random.default_rng(5)
    contents = {name: noise.bytes(math.prod(shape) * DTYPES[dtype]) for name, dtype, shape in FULL}
    placed = torch_zip.write_header(path, FULL)
    assert list(placed) == [name for name, _, _ in FULL]
    size = path.stat().st_size
    with path.open("r+b") as file:
        for name, stored in placed.items():
            assert stored.extent is not None
            assert stored.extent.offset % 64 == 0
            file.seek(stored.extent.offset)
            file.write(contents[name])
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is not None  # no checksums yet
    torch_zip.seal(path, threads=2)
    assert path.stat().st_size == size
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.read("pytorch_model/byteorder") == b"little"
        for number, content in enumerate(contents.values()):
            assert archive.read(f"pytorch_model/data/{number}") == content
        opcodes = [opcode.name for opcode, _, _ in pickletools.genops(archive.read("pytorch_model/data.pkl"))]
    assert opcodes.count("BINPERSID") == len(FULL)
    held = torch_zip.read_header(path).tensors
    assert held == placed


def test_the_same_tensors_give_the_same_file(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        torch_zip.write_header(tmp_path / folder / "pytorch_model.bin", FULL)
        torch_zip.seal(tmp_path / folder / "pytorch_model.bin")
    assert (tmp_path / "a/pytorch_model.bin").read_bytes() == (tmp_path / "b/pytorch_model.bin").read_bytes()


def test_no_tensors_are_an_empty_state_dict(tmp_path: Path) -> None:
    torch_zip.write_header(tmp_path / "x.bin", [])
    assert torch_zip.read_header(tmp_path / "x.bin").tensors == {}


def test_tensors_of_more_than_4_gib_and_what_lies_behind_them_are_found(tmp_path: Path) -> None:
    """The file is a hole but for its ends, so this costs no disk."""
    path = tmp_path / "large.bin"
    large, limit = 2**30 + 1, 2**30 - 1
    tensors = [("large", "float32", (large,)), ("at the limit", "float32", (limit,)), ("small", "float32", (2,))]
    placed = torch_zip.write_header(path, tensors)
    extents = {name: stored.extent for name, stored in placed.items()}
    assert torch_zip.read_header(path).tensors == placed
    with zipfile.ZipFile(path) as archive:
        for number, (name, _, (count,)) in enumerate(tensors):
            entry = archive.getinfo(f"large/data/{number}")
            assert entry.file_size == entry.compress_size == 4 * count
            with archive.open(entry) as opened, path.open("rb") as file:
                extent = extents[name]
                assert extent is not None
                assert opened._orig_compress_start == extent.offset  # type: ignore[attr-defined]
                assert file.seek(entry.header_offset) == entry.header_offset
                assert file.read(4) == b"PK\x03\x04"


def test_tf2pt_writes_a_bin_and_pt2tf_reads_it(tiny: Path, tiny_expected: Path, tmp_path: Path) -> None:
    result = tf2pt(tiny_expected, tmp_path / "pt", format="bin")
    assert (result.weights, result.checked) == ("pytorch_model.bin", True)
    expected = read_tensors(tiny / "model.safetensors")
    written = torch_zip.read_header(tmp_path / "pt" / "pytorch_model.bin").tensors
    assert {name: read(stored).tobytes() for name, stored in written.items()} == {
        name: content for name, (_, _, content) in expected.items()
    }
    with zipfile.ZipFile(tmp_path / "pt" / "pytorch_model.bin") as archive:
        assert archive.testzip() is None
    assert pt2tf(tmp_path / "pt", tmp_path / "tf").container == "PyTorch pickle (zip)"
    assert read_h5(tmp_path / "tf" / "tf_model.h5") == read_h5(tiny_expected / "tf_model.h5")


def test_shards_are_bins_each(tiny_expected: Path, tmp_path: Path) -> None:
    result = tf2pt(tiny_expected, tmp_path / "pt", format="bin", max_shard_size="100KB", dtype="bfloat16")
    assert result.weights == "pytorch_model.bin.index.json"
    names = sorted(path.name for path in (tmp_path / "pt").glob("*.bin"))
    assert len(names) == 3
    assert names[0] == "pytorch_model-00001-of-00003.bin"
    for name in names:
        with zipfile.ZipFile(tmp_path / "pt" / name) as archive:
            assert archive.testzip() is None
    checkpoint, _ = open_source(tmp_path / "pt", "pt")
    assert (checkpoint.container, len(checkpoint.tensors)) == ("PyTorch pickle (zip) in 3 shards", 97)
    assert {stored.dtype for stored in checkpoint.tensors.values()} == {"bfloat16"}


def test_transposed_weights_are_converted_like_any(tiny: Path, tiny_expected: Path, tmp_path: Path) -> None:
    """Every matrix lies in the archive column by column, all in one storage."""
    views, storages, position = {}, [], 0
    for name, (_, shape, content) in read_tensors(tiny / "model.safetensors").items():
        values = np.frombuffer(content, np.float32).reshape(shape)
        stride = tuple(np.cumprod((1, *shape))[: len(shape)].tolist())
        views[name] = tensor(storage("0", 113_617), position, shape, stride)
        storages.append(np.ravel(values, "F"))
        position += values.size
    (tmp_path / "pt").mkdir()
    (tmp_path / "pt" / "config.json").write_bytes((tiny / "config.json").read_bytes())
    write_archive(tmp_path / "pt" / "pytorch_model.bin", dump(views), {"0": np.concatenate(storages).tobytes()})
    pt2tf(tmp_path / "pt", tmp_path / "tf")
    assert read_h5(tmp_path / "tf" / "tf_model.h5") == read_h5(tiny_expected / "tf_model.h5")


@pytest.mark.parametrize("length", [0x280, 0x380, 0x480, 0x580])
def test_a_safetensors_header_whose_length_begins_like_a_pickle_is_none(length: int, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"x": np.ones(2, np.float32)}, path, metadata={"format": "pt", "note": ""})
    note = "n" * (length - int.from_bytes(path.read_bytes()[:8], "little"))
    save_file({"x": np.ones(2, np.float32)}, path, metadata={"format": "pt", "note": note})
    assert path.read_bytes()[:2] == length.to_bytes(2, "little")
    assert read_header(path).container == "PyTorch safetensors"


MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")


def refusals() -> dict[str, tuple[bytes | None, type[ConverterError], str]]:
    """What is recognised and not read: first bytes (None for an archive made below), error and message."""
    return {
        "joblib.pt": (
            b"\x80\x04\x95\x00",
            UnsupportedContainer,
            "a pickle that torch.save did not write; save the state_dict with torch.save",
        ),
        "old.bin": (
            MAGIC,
            UnsupportedContainer,
            "a PyTorch pickle from before torch 1.6, which only torch reads; install the extra `torch`, or load and "
            "save it again with a newer torch",
        ),
        "arrays.npz": (
            None,
            UnsupportedContainer,
            "NumPy arrays (.npz), which do not say what they are; in Python pass them by their PyTorch names: "
            "pt2tf(dict(numpy.load(FILE)), OUT, config=...)",
        ),
        "script.pt": (
            None,
            UnsupportedContainer,
            "a TorchScript archive, which holds a program and not only weights; save the state_dict of the module with "
            "torch.save",
        ),
        "big.bin": (
            None,
            UnsupportedContainer,
            "its byte order is b'big', expected little; load and save it on a little-endian machine",
        ),
        "model.bin": (
            None,
            UnsupportedContainer,
            "its pickle asks for transformers.models.bert.BertModel, which a state_dict of plain tensors does not "
            "need. None of it was run. Load the model in its own environment and write it with save_pretrained",
        ),
        "list.bin": (
            None,
            UnsupportedContainer,
            "holds a list, expected a state_dict; save model.state_dict() with torch.save",
        ),
        "wrapped.bin": (
            None,
            UnsupportedContainer,
            "state is a dict, expected a tensor; save the state_dict alone: torch.save(model.state_dict(), FILE)",
        ),
        "negated.bin": (
            None,
            UnsupportedContainer,
            "its pickle asks for a tensor with metadata (conjugated or negated when it is read), which a state_dict "
            "of plain tensors does not need. None of it was run. Load the model in its own environment and write it "
            "with save_pretrained",
        ),
        "float8.bin": (
            None,
            UnsupportedContainer,
            "its pickle asks for torch.float8_e4m3fn, which a state_dict of plain tensors does not need. None of it "
            "was run. Convert its tensors with .to(torch.float32), multiply them by their scales if any, and save them again",
        ),
        "empty.bin": (b"", CorruptCheckpoint, "an empty file; download or save it again"),
    }


@pytest.mark.parametrize("name", refusals())
def test_what_is_not_read_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / name
    content, error, message = refusals()[name]
    if content is not None:
        path.write_bytes(content)
    elif name == "arrays.npz":
        np.savez(path, a=np.ones(2), b=np.ones(3))
    else:
        view = tensor(NUMBERS_STORAGE, 0, (2,), (1,))
        negated = tensor(NUMBERS_STORAGE, 0, (2,), (1,), {"neg": True})
        half = Call(
            Named("torch._utils", "_rebuild_tensor_v3"),
            (storage("0", 4, "float8"), 0, (4,), (1,), False, ordered(), Named("torch", "float8_e4m3fn")),
        )
        values: dict[str, Any] = {
            "script.pt": {"x": view},
            "big.bin": {"x": view},
            "model.bin": Call(Named("transformers.models.bert", "BertModel"), ()),
            "list.bin": [view],
            "wrapped.bin": {"state": {0: {"x": view}}},
            "negated.bin": {"x": negated},
            "float8.bin": {"x": half},
        }
        notes = {"script.pt": {"constants.pkl": b""}, "big.bin": {"byteorder": b"big"}}
        write(path, values[name], notes=notes.get(name))
    with pytest.raises(error) as caught:
        read_header(path)
    assert str(caught.value) == f"{path}: {message}"


def test_shapes_of_ml_dtypes_are_plain(tmp_path: Path) -> None:
    values = np.arange(4).astype(ml_dtypes.bfloat16)
    view = tensor(storage("a", 4, "bfloat16"), 0, (2, 2), (1, 2))
    path = write_archive(tmp_path / "x.bin", dump({"x": view}), {"a": values.tobytes()})
    assert read(torch_zip.read_header(path).tensors["x"]).tolist() == [[0, 2], [1, 3]]


def test_seal_needs_nothing_but_the_file(tmp_path: Path) -> None:
    offsets = zip_directory.write_directory(tmp_path / "x.zip", [("a/b", b"text"), ("a/c", 5)])
    zip_directory.seal(tmp_path / "x.zip")
    assert offsets == {"a/b": 64, "a/c": 128}
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert (archive.testzip(), archive.read("a/b"), archive.read("a/c")) == (None, b"text", bytes(5))


def test_an_archive_that_shrinks_while_it_is_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.zip"
    zip_directory.write_directory(path, [("a/b", 5)])
    monkeypatch.setattr(os, "preadv", lambda *_: 0)  # what is said at the end of a file
    with pytest.raises(CorruptCheckpoint) as caught:
        zip_directory.seal(path)
    assert str(caught.value) == (
        f"{path}: not a valid torch zip archive: it shrank while it was being read; download or save it again"
    )


def test_a_file_that_shrinks_while_its_rows_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.bin", {"x": tensor(NUMBERS_STORAGE, 0, (20, 30), (1, 20))})
    stored = torch_zip.read_header(path).tensors["x"]
    os.truncate(path, 100)
    with pytest.raises(CorruptCheckpoint) as caught:
        read(stored)
    assert str(caught.value) == f"{path}: shrank while it was being read; convert it again"
