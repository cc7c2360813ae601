"""Both towers of one model become a dual encoder with its trained projections and scale; PyTorch answers the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import combine, pt2tf, tf2pt
from tests.compat.towers import FAMILIES
from tests.tiny import OF_FAMILIES, Arrays, assert_same, config_of, load, tensors_of, write_checkpoint, write_tiny

OUTSIDE = ("visual_projection.weight", "text_projection.weight", "logit_scale")
NEW_TF = ("visual_projection/kernel", "text_projection/kernel", "logit_scale")


def nested(tensors: Arrays) -> Arrays:
    """A CLIP's tensors as a dual encoder of CLIP's two towers names them."""
    return {name if name in OUTSIDE else f"{name.partition('.')[0]}.{name}": array for name, array in tensors.items()}


@pytest.mark.parametrize("target", ["pt", "tf"])
@pytest.mark.parametrize("source", ["pt", "h5", "safetensors"])
def test_trained_projections_and_scale_are_kept(tmp_path: Path, source: str, target: Any) -> None:
    tensors = write_tiny(tmp_path / "pt", family="clip")
    if source != "pt":
        pt2tf(tmp_path / "pt", tmp_path / source, format=source)  # type: ignore[arg-type]
    made = combine(tmp_path / source, tmp_path / source, tmp_path / "out", target=target)
    assert (made.made_new, made.dropped) == ((), ())
    assert (made.family, made.towers) == ("vision-text-dual-encoder", ("clip_vision_model", "clip_text_model"))
    config = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
    assert config["projection_dim"] == FAMILIES["clip"]["projection_dim"]
    assert np.float32(config["logit_scale_init_value"]) == tensors["logit_scale"]
    if target == "tf":
        tf2pt(tmp_path / "out", tmp_path / "back")
    assert_same(load(tmp_path / ("back" if target == "tf" else "out") / "model.safetensors"), nested(tensors))


def test_the_same_width_may_be_said(tmp_path: Path) -> None:
    write_tiny(tmp_path / "pt", family="clip")
    width = FAMILIES["clip"]["projection_dim"]
    assert combine(tmp_path / "pt", tmp_path / "pt", tmp_path / "out", projection_dim=width).made_new == ()


def test_of_another_width_they_are_new(tmp_path: Path) -> None:
    tensors = write_tiny(tmp_path / "pt", family="clip")
    made = combine(tmp_path / "pt", tmp_path / "pt", tmp_path / "out", projection_dim=11)
    assert made.made_new == NEW_TF
    assert {item.name for item in made.dropped} >= set(OUTSIDE)
    found = load(tmp_path / "out" / "model.safetensors")
    widths = [OF_FAMILIES["clip"][f"{side}_config"]["hidden_size"] for side in ("vision", "text")]
    assert [found[name].shape for name in OUTSIDE] == [(11, widths[0]), (11, widths[1]), ()]
    towers = {name: array for name, array in nested(tensors).items() if name not in OUTSIDE}
    assert_same({name: array for name, array in found.items() if name not in OUTSIDE}, towers)


def test_of_two_models_they_are_new(tmp_path: Path) -> None:
    """Equal or not: two places are two models."""
    write_tiny(tmp_path / "one", family="clip")
    write_tiny(tmp_path / "two", family="clip")
    made = combine(tmp_path / "one", tmp_path / "two", tmp_path / "out")
    assert made.made_new == NEW_TF
    assert json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))["projection_dim"] == 512


@pytest.mark.parametrize("clip_is", ["vision", "text"])
def test_beside_another_tower_they_are_new(tmp_path: Path, clip_is: str) -> None:
    tensors = write_tiny(tmp_path / "clip", family="clip")
    other = "text" if clip_is == "vision" else "vision"
    config = config_of()
    scope = f"{other}_model."
    tower = {n.removeprefix(scope): array for n, array in tensors_of(config).items() if n.startswith(scope)}
    write_checkpoint(tmp_path / "other", config[f"{other}_config"], tower)
    parts = {clip_is: tmp_path / "clip", other: tmp_path / "other"}
    made = combine(parts["vision"], parts["text"], tmp_path / "out")
    assert made.made_new == NEW_TF
    kept = {name for name in tensors if name.startswith(f"{clip_is}_model.")}
    assert {item.name for item in made.dropped} == set(tensors) - kept
    found = load(tmp_path / "out" / "model.safetensors")
    assert_same(
        {name: array for name, array in found.items() if name.startswith(f"{clip_is}_model.")},
        {f"{clip_is}_model.{name}": tensors[name] for name in kept},
    )
    assert_same({name.removeprefix(scope): array for name, array in found.items() if name.startswith(scope)}, tower)


# --- in PyTorch -------------------------------------------------------------------------------------------------------


def answers_of(folder: Path, kind: str) -> dict[str, Any]:
    """What the PyTorch model of a folder answers to some pictures and ragged texts, and what its projections give; in float64."""
    import torch
    import transformers

    model, info = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    assert {name: set(info[name]) for name in ("missing_keys", "unexpected_keys", "mismatched_keys")} == {
        "missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set(),
    }  # fmt: skip
    text = OF_FAMILIES["clip"]["text_config"]
    noise = np.random.default_rng(5)
    ids = noise.integers(5, text["eos_token_id"] - 1, (4, 12))
    mask = np.ones_like(ids)
    for row, length in enumerate((12, 7, 3, 9)):
        ids[row, length - 1] = text["eos_token_id"]
        ids[row, length:], mask[row, length:] = text.get("pad_token_id", 1), 0
    size = OF_FAMILIES["clip"]["vision_config"]["image_size"]
    pixels = noise.standard_normal((3, 3, size, size))
    answers: dict[str, Any] = {}
    for name in ("visual_projection", "text_projection"):
        model.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: answers.update({name: out.numpy()})
        )
    with torch.no_grad():
        given = {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}
        outputs = model.eval().double()(**{name: torch.from_numpy(value) for name, value in given.items()})
    return answers | {"logits": outputs.logits_per_image.numpy()}


@pytest.mark.torch
def test_the_answers_are_those_of_the_original(tmp_path: Path) -> None:
    write_tiny(tmp_path / "clip", family="clip")
    combine(tmp_path / "clip", tmp_path / "clip", tmp_path / "out")
    expected = answers_of(tmp_path / "clip", "CLIPModel")
    found = answers_of(tmp_path / "out", "VisionTextDualEncoderModel")
    for name in ("visual_projection", "text_projection"):
        assert np.abs(expected[name]).max() > 1
        assert np.abs(found[name] - expected[name]).max() == 0.0
    # The two classes of transformers sum in another order where they take the norm, in float64.
    assert np.abs(expected["logits"]).max() > 1
    assert np.abs(found["logits"] - expected["logits"]).max() < 1e-12
    # With new projections they are others, though the towers are the same.
    combine(tmp_path / "clip", tmp_path / "clip", tmp_path / "new", projection_dim=11)
    other = answers_of(tmp_path / "new", "VisionTextDualEncoderModel")
    assert np.abs(other["logits"] - expected["logits"]).max() > 1
