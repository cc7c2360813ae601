"""All twenty pairs there and back, bit for bit, and NumPy's word for what TensorFlow gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import pt2tf, tf2pt
from converter.conversion.plan import make_plan
from converter.names.configs import check_config
from converter.names.rules import compile_rules
from converter.specs import Checkpoint, StoredTensor
from tests.hdf5_files import read_all, write_h5
from tests.tiny import PAIRS, Array, Arrays, assert_same, config_of, load, tensors_of, write_checkpoint, write_tiny


def in_tensorflow(config: dict[str, Any], tensors: Arrays) -> Arrays:
    """What TensorFlow must get, moved by NumPy alone."""
    axes = {"dense": (1, 0), "conv2d": (2, 3, 1, 0)}
    found: Arrays = {}
    for rule in compile_rules(check_config(config)).tensors:
        array: Array = tensors[rule.names["pt"]]
        name, layout = rule.names["tf"], rule.layouts["tf"]
        found[name] = array.reshape(1) if layout == "scalar" else array.transpose(axes.get(layout))
        if layout not in axes and layout != "scalar":
            found[name] = array
    return found


def restored(config: dict[str, Any]) -> Arrays:
    """Buffers that the target gets besides."""
    checked = check_config(config)
    held = {rule.names["pt"]: rule.shape for rule in compile_rules(checked).tensors}
    source = Checkpoint("pt", "t", {name: StoredTensor(name, "float32", shape) for name, shape in held.items()}, ())
    return dict(make_plan(source, checked, "tf").restored)


@pytest.mark.parametrize(("vision", "text"), PAIRS, ids=["+".join(pair) for pair in PAIRS])
def test_there_and_back(tmp_path: Path, vision: str, text: str) -> None:
    tensors = write_tiny(tmp_path / "pt", vision, text)
    config = config_of(vision, text)
    there = pt2tf(tmp_path / "pt", tmp_path / "tf")
    assert there.checked
    assert there.tensors == len(tensors)
    found = read_all(tmp_path / "tf" / "tf_model.h5")
    assert_same({name: np.ascontiguousarray(array) for name, array in found.items()}, {
        name: np.ascontiguousarray(array) for name, array in (in_tensorflow(config, tensors) | restored(config)).items()
    })  # fmt: skip
    tf2pt(tmp_path / "tf", tmp_path / "back", names="v5")
    assert_same(nested(load(tmp_path / "back" / "model.safetensors"), vision, text), tensors)


def nested(tensors: Arrays, vision: str, text: str) -> Arrays:
    """Only CLIP's names are flat in what a fresh 5.x saves."""
    levels = {"vision": vision == "clip_vision_model", "text": text == "clip_text_model"}
    return {
        f"{side}_model.{name}" if levels.get(side := name.partition("_model.")[0]) else name: array
        for name, array in tensors.items()
    }


@pytest.mark.parametrize("vision", ["clip_vision_model", "swin"])
def test_through_tensorflows_safetensors(tmp_path: Path, vision: str) -> None:
    tensors = write_tiny(tmp_path / "pt", vision)
    pt2tf(tmp_path / "pt", tmp_path / "tf", format="safetensors")
    config = config_of(vision)
    expected = {f"{name}:0": array for name, array in (in_tensorflow(config, tensors) | restored(config)).items()}
    found = load(tmp_path / "tf" / "model.safetensors")
    assert_same(found, {name: np.ascontiguousarray(array) for name, array in expected.items()})
    tf2pt(tmp_path / "tf", tmp_path / "back", names="v5")
    assert_same(nested(load(tmp_path / "back" / "model.safetensors"), vision, "bert"), tensors)


def test_v4_names_are_the_default(tmp_path: Path) -> None:
    tensors = write_tiny(tmp_path / "pt", "clip_vision_model")
    pt2tf(tmp_path / "pt", tmp_path / "tf")
    tf2pt(tmp_path / "tf", tmp_path / "back")
    assert_same(load(tmp_path / "back" / "model.safetensors"), tensors)


@pytest.mark.parametrize(
    "options",
    [{"compression": "gzip", "shuffle": True}, {"chunks": True}, {"compression": "lzf"}],
    ids=["gzip", "chunks", "lzf"],
)
def test_from_compressed_datasets(tmp_path: Path, options: dict[str, Any]) -> None:
    config = config_of("swin", "albert")
    tensors = tensors_of(config)
    (tmp_path / "tf").mkdir()
    (tmp_path / "tf" / "config.json").write_text(json.dumps(config))
    write_h5(tmp_path / "tf" / "tf_model.h5", in_tensorflow(config, tensors), **options)
    tf2pt(tmp_path / "tf", tmp_path / "pt", names="v5")
    assert_same(load(tmp_path / "pt" / "model.safetensors"), tensors)
    assert sorted(path.name for path in (tmp_path / "pt").iterdir()) == [
        "config.json", "conversion.json", "model.safetensors",
    ]  # fmt: skip


def test_from_big_endian_datasets_of_another_root(tmp_path: Path) -> None:
    config = config_of("vit", "roberta")
    tensors = tensors_of(config)
    (tmp_path / "tf").mkdir()
    (tmp_path / "tf" / "config.json").write_text(json.dumps(config))
    big = {name: array.astype(">f4") for name, array in in_tensorflow(config, tensors).items()}
    write_h5(tmp_path / "tf" / "tf_model.h5", big, root="tf_vision_text_dual_encoder_model_3", attribute_bytes=4000)
    tf2pt(tmp_path / "tf", tmp_path / "pt")
    assert_same(load(tmp_path / "pt" / "model.safetensors"), tensors)


def test_query_and_key_exchanged_are_found(tmp_path: Path) -> None:
    """The comparison of this file fails where it must: shapes and names are those of a right answer."""
    tensors = write_tiny(tmp_path / "pt")
    swapped = dict(tensors)
    query, key = (f"text_model.encoder.layer.0.attention.self.{name}.weight" for name in ("query", "key"))
    swapped[query], swapped[key] = tensors[key], tensors[query]
    write_checkpoint(tmp_path / "wrong", config_of(), swapped)
    pt2tf(tmp_path / "wrong", tmp_path / "tf")
    with pytest.raises(AssertionError, match="query/kernel|key/kernel"):
        assert_same(
            {name: np.ascontiguousarray(array) for name, array in read_all(tmp_path / "tf" / "tf_model.h5").items()},
            {name: np.ascontiguousarray(array) for name, array in in_tensorflow(config_of(), tensors).items()},
        )
