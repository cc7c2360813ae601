"""Checkpoints in shards, in and out: the safetensors library, h5py and plain JSON are the other side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from converter import pt2tf, tf2pt
from converter.checkpoints.shards import parse_size, split
from converter.errors import TargetError
from tests.tiny import Arrays, assert_same, config_of, load, tensors_of, write_tiny

ROOT = "tf_vision_text_dual_encoder_model"


def index(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.index.json").read_text())


def write_shards(folder: Path, config: dict[str, Any], tensors: Arrays, count: int) -> None:
    """As transformers does: files, an index, nothing else."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    weight_map: dict[str, str] = {}
    for number in range(count):
        file = f"model-{number + 1:05}-of-{count:05}.safetensors"
        part = dict(list(tensors.items())[number::count])
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total = sum(array.nbytes for array in tensors.values())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map})
    )


def test_reads_what_others_write(tmp_path: Path) -> None:
    config = config_of("swin", "albert")
    tensors = tensors_of(config)
    write_shards(tmp_path / "pt", config, tensors, 4)
    result = pt2tf(tmp_path / "pt", tmp_path / "tf")
    assert result.container == "PyTorch safetensors in 4 shards"
    tf2pt(tmp_path / "tf", tmp_path / "back", names="v5")
    assert_same(load(tmp_path / "back" / "model.safetensors"), tensors)


@pytest.mark.parametrize("size", [1, "20KB", "100KiB"])
def test_pytorch_in_shards_there_and_back(tmp_path: Path, size: str | int) -> None:
    tensors = write_tiny(tmp_path / "pt")
    pt2tf(tmp_path / "pt", tmp_path / "tf")
    result = tf2pt(tmp_path / "tf", tmp_path / "shards", max_shard_size=size)
    assert result.weights == "model.safetensors.index.json"
    found = index(tmp_path / "shards", "model.safetensors")
    assert found["metadata"] == {"total_size": sum(array.nbytes for array in tensors.values())}
    parts = {file: load(tmp_path / "shards" / file) for file in set(found["weight_map"].values())}
    assert found["weight_map"] == {name: file for file, part in parts.items() for name in part}
    assert_same({name: array for part in parts.values() for name, array in part.items()}, tensors)
    limit = parse_size(size)
    assert limit is not None
    assert all(len(part) == 1 or sum(a.nbytes for a in part.values()) <= limit for part in parts.values())
    pt2tf(tmp_path / "shards", tmp_path / "again")
    same = [(tmp_path / name / "tf_model.h5").read_bytes() for name in ("tf", "again")]
    assert same[0] == same[1]


@pytest.mark.parametrize("container", ["h5", "safetensors"])
def test_tensorflow_in_shards_there_and_back(tmp_path: Path, container: Any) -> None:
    tensors = write_tiny(tmp_path / "pt", "swin")
    pt2tf(tmp_path / "pt", tmp_path / "tf", format=container, max_shard_size="30KB")
    name = {"h5": "tf_model.h5", "safetensors": "model.safetensors"}[container]
    found = index(tmp_path / "tf", name)["weight_map"]
    assert all(key.startswith(f"{ROOT}/") and key.endswith(":0") for key in found)
    assert len(set(found.values())) > 3
    tf2pt(tmp_path / "tf", tmp_path / "back", names="v5")
    assert_same(load(tmp_path / "back" / "model.safetensors"), tensors)


def test_shards_of_h5_are_flat(tmp_path: Path) -> None:
    """Names without root scope, at those paths, as transformers writes them."""
    tensors = write_tiny(tmp_path / "pt")
    pt2tf(tmp_path / "pt", tmp_path / "tf", max_shard_size="30KB")
    found = index(tmp_path / "tf", "tf_model.h5")["weight_map"]
    kernel = f"{ROOT}/visual_projection/kernel:0"
    with h5py.File(tmp_path / "tf" / found[kernel]) as file:
        assert "visual_projection/kernel:0" in [
            name.decode() if isinstance(name, bytes) else name for name in file.attrs["layer_names"]
        ]
        np.testing.assert_array_equal(
            file["visual_projection/kernel:0"][()], tensors["visual_projection.weight"].T, strict=True
        )


@pytest.mark.parametrize(
    ("text", "size"),
    [(None, None), (7, 7), ("7", 7), ("5GB", 5 * 10**9), ("1.5 mb", 1_500_000), ("2GiB", 2**31), (" 3kb ", 3000)],
)
def test_sizes(text: Any, size: int | None) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", 0, "0GB", "5PB", "5 G B", "1e9", "٣MB x", "0.0000001KB"])
def test_wrong_sizes(text: Any) -> None:
    with pytest.raises(TargetError) as caught:
        parse_size(text)
    assert str(caught.value) == f"a shard size looks like 5GB, 200MB or 1GiB, found {text!r}"


def test_split_keeps_order_and_size() -> None:
    tensors = [("a", "int8", (6,)), ("b", "int8", (4,)), ("c", "int8", (1,)), ("d", "int8", (50,)), ("e", "int8", (9,))]
    assert {name: [tensor[0] for tensor in part] for name, part in split(tensors, "model.safetensors", 10).items()} == {
        "model-00001-of-00004.safetensors": ["a", "b"],
        "model-00002-of-00004.safetensors": ["c"],
        "model-00003-of-00004.safetensors": ["d"],
        "model-00004-of-00004.safetensors": ["e"],
    }
    assert list(split(tensors, "model.safetensors", None)) == ["model.safetensors"]
    assert list(split(tensors, "model.safetensors", 1000)) == ["model.safetensors"]
