"""flax_model.msgpack: every kind of leaf, single, in shards and in pieces, read by extents and written byte for byte."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.checkpoints import flax, msgpack
from converter.checkpoints.detect import open_source, read_header
from converter.conversion.streams import open_tensors
from converter.errors import ConverterError, PlanError, SourceError
from converter.specs import Extent
from converter.tensors.files import Files
from tests.flax_files import chunked, nest, pack
from tests.tiny import BFLOAT16, FIXTURES

FLAX = FIXTURES / "flax"
NAMES = sorted(path.name for path in FLAX.iterdir() if path.is_dir())
NOISE = np.random.default_rng(5)


def noise(*shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.asarray(NOISE.standard_normal(shape), np.float32).astype(dtype)


def write(path: Path, value: Any) -> Path:
    path.write_bytes(pack(value))
    return path


def values(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Every tensor of a file, read by its extent."""
    found = {}
    with Files() as files:
        for name, tensor in flax.read_header(path).tensors.items():
            assert tensor.extent is not None
            files.open(path)
            array = np.empty(tensor.shape, BFLOAT16 if tensor.dtype == "bfloat16" else tensor.dtype)
            files.read(tensor.extent, 0, array)
            found[name] = array
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_becomes_what_transformers_makes_of_it(name: str) -> None:
    """``load_flax_weights_in_pytorch_model`` of transformers 4.57.6 made the sums, of bfloat16 widened to float32."""
    expected = json.loads((FLAX / name / "pt_sha256.json").read_text("utf-8"))
    with open_tensors(FLAX / name, "pt") as reader:
        assert sorted(reader.names) == sorted(expected)
        for tensor in reader.names:
            value = reader.read(tensor)
            value = value.astype(np.float32) if value.dtype == BFLOAT16 else value
            said = expected[tensor]
            assert (value.dtype.name, list(value.shape)) == (said["dtype"], said["shape"])
            assert hashlib.sha256(value.tobytes()).hexdigest() == said["sha256"], tensor


def test_every_kind_of_leaf(tmp_path: Path) -> None:
    tree = {
        "a": {"kernel": noise(3, 4), "0": {"1": noise(2, dtype=BFLOAT16)}},
        "empty": {},
        "none": None,
        "number": 3,
        "ratio": 0.5,
        "flag": True,
        "scalar": np.float32(3.3),
        "zero": noise(0, 7),
        "table": chunked(noise(5, 9), 40),
        "whole": np.arange(3),
    }
    path = write(tmp_path / "x.msgpack", tree)
    checkpoint = read_header(path)
    assert (checkpoint.framework, checkpoint.container, checkpoint.files) == ("flax", "Flax msgpack", (path,))
    assert checkpoint.beside == {
        "none": "no tensor, but None", "number": "no tensor, but 3", "ratio": "no tensor, but a number",
        "flag": "no tensor, but True",
    }  # fmt: skip
    found = values(path)
    assert sorted(found) == ["a/0/1", "a/kernel", "scalar", "table", "whole", "zero"]
    table = np.concatenate(list(tree["table"]["chunks"].values())).reshape(5, 9)
    for name, value in {
        "a/0/1": tree["a"]["0"]["1"], "a/kernel": tree["a"]["kernel"], "scalar": np.asarray(tree["scalar"]),
        "zero": tree["zero"], "table": table, "whole": tree["whole"],
    }.items():  # fmt: skip
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
        assert found[name].tobytes() == value.tobytes()


@pytest.mark.parametrize("count", [1, 15, 16, 40])
@pytest.mark.parametrize("length", [1, 31, 32, 300])
def test_what_is_written_is_what_flax_packs(tmp_path: Path, count: int, length: int) -> None:
    """Heads of every width, pieces included: the file is the one that another packer makes of the same tree."""
    arrays = {f"{'n' * length}{number:02}/kernel": noise(number % 5, 3) for number in range(count)}
    arrays |= {"s": noise(), "table": noise(50, 7), "half": noise(2, 2, dtype=BFLOAT16), "wide": noise(300, 1)}
    limit, flax_limit = 1000, flax.CHUNK_BYTES
    tree = nest({n: chunked(a, limit) if a.nbytes > limit else a for n, a in arrays.items()})
    path = tmp_path / "flax_model.msgpack"
    try:
        flax.CHUNK_BYTES = limit
        placed = flax.write_header(path, [(n, arrays[n].dtype.name, arrays[n].shape) for n in sorted(arrays)])
    finally:
        flax.CHUNK_BYTES = flax_limit
    with Files() as files:
        files.open(path, write=True)
        for name, tensor in placed.items():
            assert tensor.extent is not None
            files.write(tensor.extent, 0, arrays[name])
    assert path.read_bytes() == pack(tree)
    assert {name: array.tobytes() for name, array in values(path).items()} == {
        n: a.tobytes() for n, a in arrays.items()
    }


@pytest.mark.parametrize("wrap", ["params", "state", "both"])
def test_of_a_training_state_the_weights_are_taken(tmp_path: Path, wrap: str) -> None:
    weights = {"a": {"kernel": noise(2, 3)}, "b": noise(4)}
    state = {"step": 7, "params": weights, "opt_state": {"0": {"mu": {"a": {"kernel": noise(2, 3)}}}}}
    tree = {"params": {"params": weights}, "state": state, "both": state | {"params": {"params": weights}}}[wrap]
    checkpoint = flax.read_header(write(tmp_path / "x.msgpack", tree))
    assert sorted(checkpoint.tensors) == ["a/kernel", "b"]
    reason = "lies beside params, which was converted; save it alone to convert it"
    assert checkpoint.beside == ({} if wrap == "params" else {"opt_state": reason})


def test_one_copy_for_each_device_is_named(tmp_path: Path) -> None:
    """What ``flax.jax_utils.replicate`` made, saved as it is."""
    folder = tmp_path / "clip-bert"
    shutil.copytree(FLAX / "clip-bert", folder)
    arrays = values(folder / "flax_model.msgpack")
    write(folder / "flax_model.msgpack", nest({name: np.stack([array] * 8) for name, array in arrays.items()}))
    with pytest.raises(PlanError) as caught:
        open_tensors(folder)
    assert str(caught.value) == (
        "every tensor has an axis of 8 in front, one copy for each device; take one: flax.jax_utils.unreplicate(params), "
        "and save again"
    )


def test_a_folder_below_is_named(tmp_path: Path) -> None:
    shutil.copytree(FLAX / "clip-bert", tmp_path / "flax")
    with pytest.raises(SourceError) as caught:
        open_source(tmp_path, None)
    assert str(caught.value) == (
        f"{tmp_path}: holds no weights, but its subfolders do; name one of them: {tmp_path / 'flax'}"
    )


def test_text_and_links_are_named(tmp_path: Path) -> None:
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ConverterError, match="a Git LFS pointer"):
        read_header(path)
    path.write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(ConverterError, match="a web page"):
        read_header(path)


def test_runs_of_several_pieces() -> None:
    """Bytes of an extent by their number, in every cut."""
    extent = Extent(Path("x"), 10, 9, ((10, 4), (30, 2), (20, 3)))
    places = [*range(10, 14), *range(30, 32), *range(20, 23)]
    for start, stop in itertools.combinations_with_replacement(range(10), 2):
        runs = [place for offset, nbytes in extent.runs(start, stop) for place in range(offset, offset + nbytes)]
        assert runs == places[start:stop]


def test_more_than_can_be_counted_is_no_head() -> None:
    with pytest.raises(ValueError, match="more than MessagePack can count"):
        msgpack.bytes_head(2**32)
