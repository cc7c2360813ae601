"""Dtypes kept, widened where a container asks for it, and cast where the user does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from converter import pt2tf, tf2pt
from converter.errors import TargetError
from converter.names.configs import check_config
from converter.names.rules import compile_rules
from tests.hdf5_files import read_all
from tests.tiny import (
    BFLOAT16,
    OF_FAMILIES,
    Arrays,
    assert_same,
    config_of,
    load,
    tensors_of,
    write_checkpoint,
    write_tiny,
)

COUNT = len(tensors_of(config_of()))
COUNTS = {family: len(tensors_of(config)) for family, config in OF_FAMILIES.items()}
WEIGHT = "visual_projection.weight"


@pytest.mark.parametrize("family", OF_FAMILIES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_kept_there_and_back(tmp_path: Path, dtype: Any, family: str) -> None:
    tensors = write_tiny(tmp_path / "pt", dtype=dtype, family=family)
    there = pt2tf(tmp_path / "pt", tmp_path / "tf")
    assert there.casts == {}
    assert read_all(tmp_path / "tf" / "tf_model.h5")[kernel(family)].dtype == dtype
    tf2pt(tmp_path / "tf", tmp_path / "back")
    assert_same(load(tmp_path / "back" / "model.safetensors"), tensors)


@pytest.mark.parametrize("family", OF_FAMILIES)
def test_bfloat16_is_kept_in_safetensors(tmp_path: Path, family: str) -> None:
    tensors = write_tiny(tmp_path / "pt", dtype=BFLOAT16, family=family)
    assert pt2tf(tmp_path / "pt", tmp_path / "tf", format="safetensors").casts == {}
    tf2pt(tmp_path / "tf", tmp_path / "back")
    assert_same(load(tmp_path / "back" / "model.safetensors"), tensors)


@pytest.mark.parametrize("family", OF_FAMILIES)
def test_bfloat16_is_widened_exactly_in_hdf5(tmp_path: Path, family: str) -> None:
    tensors = write_tiny(tmp_path / "pt", dtype=BFLOAT16, family=family)
    there = pt2tf(tmp_path / "pt", tmp_path / "tf")
    assert there.casts == {"bfloat16 -> float32": COUNTS[family]}
    tf2pt(tmp_path / "tf", tmp_path / "wide")
    wide = load(tmp_path / "wide" / "model.safetensors")
    assert_same(wide, {name: array.astype(np.float32) for name, array in tensors.items()})
    tf2pt(tmp_path / "tf", tmp_path / "back", dtype="bfloat16")
    assert_same(load(tmp_path / "back" / "model.safetensors"), tensors)


def test_hdf5_has_no_bfloat16(tmp_path: Path) -> None:
    write_tiny(tmp_path / "pt")
    with pytest.raises(TargetError) as caught:
        pt2tf(tmp_path / "pt", tmp_path / "tf", dtype="bfloat16")
    assert str(caught.value) == "HDF5 has no bfloat16; choose another dtype, or format safetensors"
    assert [path.name for path in tmp_path.iterdir()] == ["pt"]


@pytest.mark.parametrize("family", OF_FAMILIES)
@pytest.mark.parametrize(
    ("dtype", "numpy"), [("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16), ("float32", np.float32)]
)
@pytest.mark.parametrize("source", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_casts_are_those_of_numpy_and_ml_dtypes(
    tmp_path: Path, source: Any, dtype: Any, numpy: Any, family: str
) -> None:
    tensors = write_tiny(tmp_path / "pt", dtype=source, family=family)
    there = pt2tf(tmp_path / "pt", tmp_path / "tf", format="safetensors", dtype=dtype)
    assert there.casts == ({} if source == numpy else {f"{np.dtype(source).name} -> {dtype}": COUNTS[family]})
    assert there.checked
    tf2pt(tmp_path / "tf", tmp_path / "back")
    assert_same(load(tmp_path / "back" / "model.safetensors"), {n: a.astype(numpy) for n, a in tensors.items()})


def kernel(family: str) -> str:
    """What TensorFlow calls the first weight that it keeps transposed."""
    rules = compile_rules(check_config(OF_FAMILIES[family])).tensors
    return next(rule.names["tf"] for rule in rules if rule.layouts["tf"] == "dense")


def odd_values(dtype: Any, family: str) -> Arrays:
    """Infinities, NaNs with a payload, subnormals, -0 and the greatest numbers in every tensor."""
    tensors = tensors_of(OF_FAMILIES[family])
    bits = [0x7F800000, 0xFF800000, 0x7FA00001, 0xFFC12345, 1, 0x80000000, 0x7F7FFFFF, 0x33000001, 0x477FF000]
    odd = np.array(bits, np.uint32).view(np.float32)
    for array in tensors.values():
        flat = array.reshape(-1)
        flat[: min(len(flat), len(odd))] = odd[: len(flat)]
    tensors["logit_scale"] = np.full_like(tensors["logit_scale"], 3.31)
    with np.errstate(all="ignore"):
        return {name: np.asarray(array.astype(dtype)) for name, array in tensors.items()}


@pytest.mark.parametrize("family", OF_FAMILIES)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
@pytest.mark.parametrize("container", ["h5", "safetensors"])
def test_odd_values_there_and_back(tmp_path: Path, dtype: Any, container: Any, family: str) -> None:
    tensors = odd_values(dtype, family)
    write_checkpoint(tmp_path / "pt", OF_FAMILIES[family], tensors)
    pt2tf(tmp_path / "pt", tmp_path / "tf", format=container)
    tf2pt(tmp_path / "tf", tmp_path / "back")
    assert_same(load(tmp_path / "back" / "model.safetensors"), tensors)


@pytest.mark.parametrize("family", OF_FAMILIES)
def test_odd_values_are_cast_without_a_word(tmp_path: Path, family: str) -> None:
    write_checkpoint(tmp_path / "pt", OF_FAMILIES[family], odd_values(np.float32, family))
    there = pt2tf(tmp_path / "pt", tmp_path / "tf", dtype="float16")
    assert there.checked
    found = read_all(tmp_path / "tf" / "tf_model.h5")[kernel(family)].reshape(-1)
    assert np.isinf(found).any()
    assert np.isnan(found).any()


def test_mixed_dtypes(tmp_path: Path) -> None:
    tensors = tensors_of(config_of())
    tensors[WEIGHT] = tensors[WEIGHT].astype(np.float16)
    write_checkpoint(tmp_path / "pt", config_of(fields={"dtype": "float16"}), tensors)
    there = pt2tf(tmp_path / "pt", tmp_path / "tf", dtype="float32")
    assert there.casts == {"float16 -> float32": 1}
    tf2pt(tmp_path / "tf", tmp_path / "back")
    tensors[WEIGHT] = tensors[WEIGHT].astype(np.float32)
    assert_same(load(tmp_path / "back" / "model.safetensors"), tensors)


def test_config_says_the_dtype_of_the_output(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "pt", config_of(fields={"dtype": "bfloat16"}), tensors_of(config_of(), BFLOAT16))
    there = pt2tf(tmp_path / "pt", tmp_path / "tf")
    assert json.loads((tmp_path / "tf" / "config.json").read_text())["dtype"] == "float32"
    assert 'config.json: dtype: "bfloat16" -> "float32"' in there.config_rewritten


@pytest.mark.parametrize(("stored", "asked"), [("float32", "float16"), ("bfloat16", "float16"), ("float64", "float32")])
def test_what_a_cast_makes_infinite_is_counted_and_named(tmp_path: Path, stored: str, asked: str) -> None:
    dtype = BFLOAT16 if stored == "bfloat16" else np.dtype(stored)
    config = config_of("vit", "bert")
    tensors = tensors_of(config, dtype)
    big = 1e300 if stored == "float64" else 1e6
    tensors["text_model.embeddings.word_embeddings.weight"][3:5, 1] = big
    tensors["text_model.encoder.layer.0.intermediate.dense.weight"][2, 7] = -big
    tensors["text_model.pooler.dense.bias"][0] = np.inf  # infinite before: no overflow
    write_checkpoint(tmp_path / "pt", config, tensors)
    done = pt2tf(tmp_path / "pt", tmp_path / "tf", dtype=asked)
    assert done.overflowed == {
        "text_model.embeddings.word_embeddings.weight": 2,
        "text_model.encoder.layer.0.intermediate.dense.weight": 1,
    }
    assert json.loads((tmp_path / "tf" / "conversion.json").read_text())["overflowed"] == done.overflowed
