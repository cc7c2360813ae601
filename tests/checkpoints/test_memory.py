"""A state dict in memory is a source: NumPy arrays of any dtype and spelling, nothing copied, nothing changed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import pt2tf, tf2pt
from converter.errors import ConfigError, PlanError, SourceError
from tests.tiny import BFLOAT16, PAIRS, assert_same, config_of, load, tensors_of, write_checkpoint


@pytest.mark.parametrize(("vision", "text"), PAIRS[::3], ids=["+".join(pair) for pair in PAIRS[::3]])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, BFLOAT16, np.float64], ids=str)
def test_it_gives_what_the_same_in_a_file_gives(tmp_path: Path, vision: str, text: str, dtype: Any) -> None:
    config, tensors = config_of(vision, text), tensors_of(config_of(vision, text), dtype)
    write_checkpoint(tmp_path / "pt", config, tensors)
    before = {name: value.copy() for name, value in tensors.items()}
    made = pt2tf(tensors, tmp_path / "ours", config=config, format="safetensors")
    assert made.container == "state dict in memory"
    assert made.checked
    pt2tf(tmp_path / "pt", tmp_path / "theirs", format="safetensors")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()
    assert_same(tensors, before)
    tf2pt(tmp_path / "ours", tmp_path / "back", names="v4")
    back = load(tmp_path / "back" / "model.safetensors")
    assert_same({name: back[name] for name in tensors}, tensors)


def test_strides_scalars_and_spellings(tmp_path: Path) -> None:
    config, tensors = config_of(), tensors_of(config_of())
    given = {
        f"_orig_mod.module.{name}": np.asfortranarray(value) if value.ndim > 1 else value[...]
        for name, value in tensors.items()
        if name != "logit_scale"
    }
    every_other = np.repeat(tensors["visual_projection.weight"], 2, axis=1)
    given["_orig_mod.module.visual_projection.weight"] = every_other[:, ::2]
    made = pt2tf(given | {"logit_scale": np.float32(3.31)}, tmp_path / "tf", config=config)
    assert set(made.dialects) == {"v4", "v4, _orig_mod. module."}
    tf2pt(tmp_path / "tf", tmp_path / "back")
    assert_same(load(tmp_path / "back" / "model.safetensors"), tensors)
    written = json.loads((tmp_path / "tf" / "config.json").read_text("utf-8"))
    assert written["logit_scale_init_value"] == float(np.float32(3.31))


def test_a_config_by_path(tmp_path: Path) -> None:
    config, tensors = config_of(), tensors_of(config_of())
    (tmp_path / "my.json").write_text(json.dumps(config), "utf-8")
    assert pt2tf(tensors, tmp_path / "tf", config=tmp_path / "my.json").tensors == len(tensors)


VALUES = "expected a torch tensor or NumPy array of "


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"epoch": 3}, f"state dict: epoch is int , {VALUES}"),
        (
            {"optimizer": {"lr": 1}},
            "state dict: optimizer is a dict; if it is the state dict, pass it alone: pt2tf(checkpoint['optimizer'], OUT",
        ),
        ({"x": np.array(["a"])}, f"state dict: x is ndarray <U1, {VALUES}"),
        ({"x": np.zeros(2, ">f4")}, f"state dict: x is ndarray >f4, {VALUES}"),
        ({"x": np.zeros(2, np.complex64)}, f"state dict: x is ndarray complex64, {VALUES}"),
        ({7: np.zeros(2)}, "state dict: a name is 7 (int), expected a text"),
    ],
)
def test_what_is_no_weight_is_refused(tmp_path: Path, extra: dict[Any, Any], said: str) -> None:
    with pytest.raises(SourceError, match=f"^{re.escape(said)}"):
        pt2tf(tensors_of(config_of()) | extra, tmp_path / "tf", config=config_of())
    assert not (tmp_path / "tf").exists()


def test_a_lost_tensor_is_named(tmp_path: Path) -> None:
    tensors = tensors_of(config_of())
    del tensors["visual_projection.weight"]
    with pytest.raises(PlanError, match=r"^state dict in memory: .*missing \(1\): visual_projection\.weight"):
        pt2tf(tensors, tmp_path / "tf", config=config_of())


def test_it_has_no_config_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        pt2tf(tensors_of(config_of()), tmp_path / "tf")
    assert str(caught.value) == "a state dict has no config; pass config=model.config.to_dict()"


def test_it_is_pytorchs(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        tf2pt(tensors_of(config_of()), tmp_path / "pt", config=config_of())  # type: ignore[arg-type]
    assert str(caught.value) == "a state dict in memory is PyTorch's; use pt2tf"
