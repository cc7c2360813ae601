"""All twenty pairs and every other family there and back, bit for bit, and NumPy's word for what TensorFlow gets."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import pt2tf, tf2pt
from converter.conversion.plan import make_plan
from converter.conversion.streams import open_tensors
from converter.names.configs import check_config
from converter.names.families import families
from converter.names.rules import compile_rules
from converter.specs import Checkpoint, StoredTensor
from tests.compat.towers import LOGIT_SCALE
from tests.hdf5_files import read_all, write_h5
from tests.tiny import (
    MODELS,
    OF_FAMILIES,
    Arrays,
    assert_same,
    in_tensorflow,
    load,
    tensors_of,
    write_checkpoint,
    write_tiny,
)

SOME = ["clip_vision_model+bert", "swin+bert", *(name for name in MODELS if "+" not in name)]


def restored(config: dict[str, Any]) -> Arrays:
    """Buffers that the target gets besides."""
    checked = check_config(config)
    held = {rule.names["pt"]: rule.shape for rule in compile_rules(checked).tensors}
    source = Checkpoint("pt", "t", {name: StoredTensor(name, "float32", shape) for name, shape in held.items()}, ())
    return dict(make_plan(source, checked, "tf").restored)


def written(folder: Path, config: dict[str, Any], **options: Any) -> Arrays:
    """Writes a PyTorch checkpoint of a config and gives its tensors."""
    tensors = tensors_of(config, **options)
    write_checkpoint(folder, config, tensors)
    return tensors


@pytest.mark.parametrize("model", MODELS)
def test_there_and_back(tmp_path: Path, model: str) -> None:
    config = MODELS[model]
    tensors = written(tmp_path / "pt", config)
    there = pt2tf(tmp_path / "pt", tmp_path / "tf")
    assert there.checked
    assert there.tensors == len(tensors)
    found = read_all(tmp_path / "tf" / "tf_model.h5")
    assert_same({name: np.ascontiguousarray(array) for name, array in found.items()}, {
        name: np.ascontiguousarray(array) for name, array in (in_tensorflow(config, tensors) | restored(config)).items()
    })  # fmt: skip
    tf2pt(tmp_path / "tf", tmp_path / "back", names="v5")
    assert_same(nested(load(tmp_path / "back" / "model.safetensors"), config), tensors)


def nested(tensors: Arrays, config: dict[str, Any]) -> Arrays:
    """A fresh 5.x saves other names of CLIP's towers in a dual encoder, which are flat, and of AltCLIP's vision tower."""
    if config["model_type"] == "altclip":
        return {
            name.replace("vision_model.encoder.layer.", "vision_model.encoder.layers."): tensors[name]
            for name in tensors
        }
    levels = {side: config[f"{side}_config"].get("model_type") == f"clip_{side}_model" for side in ("vision", "text")}
    return {
        f"{side}_model.{name}" if levels.get(side := name.partition("_model.")[0]) else name: array
        for name, array in tensors.items()
    }


@pytest.mark.parametrize("model", SOME)
def test_through_tensorflows_safetensors(tmp_path: Path, model: str) -> None:
    config = MODELS[model]
    tensors = written(tmp_path / "pt", config)
    pt2tf(tmp_path / "pt", tmp_path / "tf", format="safetensors")
    expected = {f"{name}:0": array for name, array in (in_tensorflow(config, tensors) | restored(config)).items()}
    found = load(tmp_path / "tf" / "model.safetensors")
    assert_same(found, {name: np.ascontiguousarray(array) for name, array in expected.items()})
    tf2pt(tmp_path / "tf", tmp_path / "back", names="v5")
    assert_same(nested(load(tmp_path / "back" / "model.safetensors"), config), tensors)


@pytest.mark.parametrize("options", [{}, {"format": "bin"}], ids=["safetensors", "bin"])
@pytest.mark.parametrize("sizes", [(None, None), ("40KB", None), (None, "40KB"), ("40KB", "40KB")], ids=str)
@pytest.mark.parametrize("middle", ["h5", "safetensors"])
@pytest.mark.parametrize("model", SOME)
def test_through_every_container(
    tmp_path: Path, model: str, middle: Any, sizes: tuple[str | None, str | None], options: dict[str, Any]
) -> None:
    tensors = written(tmp_path / "pt", MODELS[model])
    pt2tf(tmp_path / "pt", tmp_path / "tf", format=middle, max_shard_size=sizes[0])
    tf2pt(tmp_path / "tf", tmp_path / "back", max_shard_size=sizes[1], **options)
    for folder, size in (("tf", sizes[0]), ("back", sizes[1])):
        weights = [path for path in (tmp_path / folder).iterdir() if path.suffix in (".h5", ".safetensors", ".bin")]
        assert len(weights) == 1 if size is None else len(weights) > 2
    with open_tensors(tmp_path / "back", "pt") as reader:
        assert_same({name: reader.read(name) for name in reader.names}, tensors)


@pytest.mark.parametrize("model", SOME)
def test_a_state_dict_without_a_check(tmp_path: Path, model: str) -> None:
    """From memory, of which nothing is read twice: the same file as from a folder, checked."""
    config = MODELS[model]
    tensors = written(tmp_path / "pt", config)
    there = pt2tf(tmp_path / "pt", tmp_path / "tf")
    unchecked = pt2tf(tensors, tmp_path / "memory", config=config, check=False)
    assert (there.checked, unchecked.checked) == (True, False)
    same = [(tmp_path / folder / "tf_model.h5").read_bytes() for folder in ("tf", "memory")]
    assert same[0] == same[1]
    assert (there.family, there.tensors, there.dropped) == (config["model_type"], len(tensors), ())


@pytest.mark.parametrize("model", SOME)
def test_a_dry_run_writes_nothing(tmp_path: Path, model: str) -> None:
    tensors = written(tmp_path / "pt", MODELS[model])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    result = pt2tf(tmp_path / "pt", tmp_path / "tf", dry_run=True)
    assert (result.dry_run, result.checked, result.files, result.nbytes) == (True, False, (), 0)
    assert result.tensors == len(tensors)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("model", SOME)
def test_config_of_the_output(tmp_path: Path, model: str) -> None:
    """The trained scale stands in it where transformers 4 takes it from there; else it is the source's, to the letter."""
    config = MODELS[model]
    written(tmp_path / "pt", config)
    there = pt2tf(tmp_path / "pt", tmp_path / "tf")
    field = check_config(config).family.init_scale
    expected = config if field is None else {**config, field: float(np.float32(LOGIT_SCALE))}
    assert json.loads((tmp_path / "tf" / "config.json").read_text("utf-8")) == expected
    assert there.config_rewritten == (
        () if field is None else (f"config.json: {field}: {config[field]} -> {expected[field]}",)
    )


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
@pytest.mark.parametrize("model", ["swin+albert", *SOME[2:]])
def test_from_compressed_datasets(tmp_path: Path, options: dict[str, Any], model: str) -> None:
    config = MODELS[model]
    tensors = tensors_of(config)
    (tmp_path / "tf").mkdir()
    (tmp_path / "tf" / "config.json").write_text(json.dumps(config))
    write_h5(tmp_path / "tf" / "tf_model.h5", in_tensorflow(config, tensors), **options)
    tf2pt(tmp_path / "tf", tmp_path / "pt", names="v5")
    assert_same(nested(load(tmp_path / "pt" / "model.safetensors"), config), tensors)
    assert sorted(path.name for path in (tmp_path / "pt").iterdir()) == [
        "config.json", "conversion.json", "model.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize("model", ["vit+roberta", *SOME[2:]])
def test_from_big_endian_datasets_of_another_root(tmp_path: Path, model: str) -> None:
    config = MODELS[model]
    tensors = tensors_of(config)
    (tmp_path / "tf").mkdir()
    (tmp_path / "tf" / "config.json").write_text(json.dumps(config))
    big = {name: array.astype(">f4") for name, array in in_tensorflow(config, tensors).items()}
    write_h5(
        tmp_path / "tf" / "tf_model.h5", big, root=f"{check_config(config).family.root_scope}_3", attribute_bytes=4000
    )
    tf2pt(tmp_path / "tf", tmp_path / "pt")
    assert_same(load(tmp_path / "pt" / "model.safetensors"), tensors)


@pytest.mark.parametrize("model", SOME)
def test_query_and_key_exchanged_are_found(tmp_path: Path, model: str) -> None:
    """The comparison of this file fails where it must: shapes and names are those of a right answer."""
    config = MODELS[model]
    tensors = tensors_of(config)
    query = next(
        name for name in tensors if name.startswith("text_model") and re.search(r"q(uery|_proj)\.weight$", name)
    )
    key = query.replace("query", "key").replace("q_proj", "k_proj")
    write_checkpoint(tmp_path / "wrong", config, tensors | {query: tensors[key], key: tensors[query]})
    pt2tf(tmp_path / "wrong", tmp_path / "tf")
    found, expected = read_all(tmp_path / "tf" / "tf_model.h5"), in_tensorflow(config, tensors) | restored(config)
    with pytest.raises(AssertionError, match="query/kernel|key/kernel|q_proj/kernel|k_proj/kernel"):
        assert_same(
            {name: np.ascontiguousarray(array) for name, array in found.items()},
            {name: np.ascontiguousarray(array) for name, array in expected.items()},
        )


def test_every_family_has_a_tiny_config() -> None:
    assert set(families()) == set(OF_FAMILIES)
