"""Both towers of one model become a dual encoder with its trained projections and scale; PyTorch answers the same."""

from __future__ import annotations

import filecmp
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import combine, convert, pt2tf, tf2pt
from converter.errors import UnsupportedTower
from converter.names.configs import check_tower_config
from tests.compat.towers import FAMILIES
from tests.conversion.test_open_clip import source as open_clip_source
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


# --- other families ---------------------------------------------------------------------------------------------------

INSIDE = "transformers makes it inside {} only, AutoModel does not know it"
# By family, for each side: the tower that a dual encoder has it as, or why it cannot have it.
TOWERS_OF = {
    "metaclip_2": ("clip_vision_model", "its eos_token_id is 2, by which it means that very id"),
    "altclip": ("clip_vision_model", INSIDE.format("AltCLIPModel")),
    "chinese_clip": ("chinese_clip_vision_model", "bert"),
    "siglip": ("siglip_vision_model", INSIDE.format("SiglipModel")),
    "siglip2": ("it needs a mask and the shape of each image", INSIDE.format("Siglip2Model")),
}
ENDS_AT = 7  # which is not 2


def whole(folder: Path, family: str, **text: Any) -> Arrays:
    """A model of a family; fields of its text tower may be others."""
    tensors = write_tiny(folder, family=family)
    raw = json.loads((folder / "config.json").read_text("utf-8"))
    raw["text_config"] |= text
    (folder / "config.json").write_text(json.dumps(raw), "utf-8")
    return tensors


@pytest.mark.parametrize("side", ["vision", "text"])
@pytest.mark.parametrize("family", TOWERS_OF)
def test_towers_of_every_family(tmp_path: Path, family: str, side: str) -> None:
    """Each becomes a tower of a dual encoder, or is refused by name with the reason."""
    assert set(TOWERS_OF) == set(OF_FAMILIES) - {"clip", "vision-text-dual-encoder"}
    tensors = whole(tmp_path / "whole", family)
    write_tiny(tmp_path / "clip", family="clip")
    said = TOWERS_OF[family][side == "text"]
    parts = {"vision": tmp_path / "clip", "text": tmp_path / "clip", side: tmp_path / "whole"}
    if " " in said:
        with pytest.raises(UnsupportedTower) as error:
            combine(parts["vision"], parts["text"], tmp_path / "out")
        assert f"{tmp_path / 'whole'}: a dual encoder cannot have a {family}_{side}_model: {said}" in str(error.value)
        assert not (tmp_path / "out").exists()
        return
    made = combine(parts["vision"], parts["text"], tmp_path / "out")
    assert made.towers[side == "text"] == said
    pooler = ("text_model/bert/pooler/dense/kernel", "text_model/bert/pooler/dense/bias") if said == "bert" else ()
    assert made.made_new == (*pooler, *NEW_TF)
    found = load(tmp_path / "out" / "model.safetensors")
    # Names of CLIP's kind keep their level.
    held = {n.rpartition(f"{side}_model.")[2]: a for n, a in found.items() if n.startswith(f"{side}_model.")}
    kept = {n.rpartition(f"{side}_model.")[2]: a for n, a in tensors.items() if n.startswith(f"{side}_model.")}
    assert_same({name: array for name, array in held.items() if not name.startswith("pooler.")}, kept)


def test_what_silence_meant_is_said(tmp_path: Path) -> None:
    """AltCLIP's vision tower is as wide as CLIP's by default, but cuts pictures into other patches."""
    tower = check_tower_config("vision", {"model_type": "altclip_vision_model"})
    whole(tmp_path / "altclip", "altclip")
    write_tiny(tmp_path / "clip", family="clip")
    combine(tmp_path / "altclip", tmp_path / "clip", tmp_path / "out")
    out = check_tower_config("vision", json.loads((tmp_path / "out/config.json").read_text("utf-8")))
    raw = json.loads((tmp_path / "altclip/config.json").read_text("utf-8"))["vision_config"]
    assert out.model_type == "clip_vision_model"
    assert out.fields == {**tower.fields, **{name: raw[name] for name in raw if name in tower.fields}}


def test_metaclip_2_that_ends_elsewhere_is_clip(tmp_path: Path) -> None:
    tensors = whole(tmp_path / "whole", "metaclip_2", eos_token_id=ENDS_AT)
    made = combine(tmp_path / "whole", tmp_path / "whole", tmp_path / "out")
    assert (made.towers, made.made_new) == (("clip_vision_model", "clip_text_model"), ())
    assert_same(load(tmp_path / "out" / "model.safetensors"), nested(tensors))


def test_chinese_clips_projections_are_of_another_place(tmp_path: Path) -> None:
    """They fit its first token, not the pooler that is new."""
    whole(tmp_path / "whole", "chinese_clip")
    made = combine(tmp_path / "whole", tmp_path / "whole", tmp_path / "out")
    assert set(NEW_TF) < set(made.made_new)


@pytest.mark.parametrize("side", ["vision", "text", "both"])
def test_towers_in_open_clips_layout(tmp_path: Path, side: str) -> None:
    """As those of the folder that it is converted to."""
    open_clip_source(tmp_path / "theirs")
    convert(tmp_path / "theirs", tmp_path / "ours", "pt")
    write_tiny(tmp_path / "clip", family="clip")
    for name in ("theirs", "ours"):
        parts = {one: tmp_path / (name if side in (one, "both") else "clip") for one in ("vision", "text")}
        made = combine(parts["vision"], parts["text"], tmp_path / f"from-{name}")
        assert made.made_new == (() if side == "both" else NEW_TF)
    assert_same(load(tmp_path / "from-theirs/model.safetensors"), load(tmp_path / "from-ours/model.safetensors"))
    processors = [tmp_path / name / "preprocessor_config.json" for name in ("from-theirs", "from-ours")]
    assert [path.exists() for path in processors] == [side != "text"] * 2
    assert side == "text" or filecmp.cmp(*processors, shallow=False)


# --- in PyTorch -------------------------------------------------------------------------------------------------------


def answers_of(
    folder: Path, kind: str, end: int = OF_FAMILIES["clip"]["text_config"]["eos_token_id"]
) -> dict[str, Any]:
    """What the PyTorch model of a folder answers to some pictures and ragged texts, and what its projections give; in float64."""
    import torch
    import transformers

    model, info = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    assert {name: set(info[name]) for name in ("missing_keys", "unexpected_keys", "mismatched_keys")} == {
        "missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set(),
    }  # fmt: skip
    text = OF_FAMILIES["clip"]["text_config"]
    noise = np.random.default_rng(5)
    ids = noise.integers(5, OF_FAMILIES["clip"]["text_config"]["eos_token_id"] - 1, (4, 12))
    mask = np.ones_like(ids)
    for row, length in enumerate((12, 7, 3, 9)):
        ids[row, length - 1] = end
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


@pytest.mark.torch
def test_metaclip_2s_answers_are_those_of_the_original(tmp_path: Path) -> None:
    whole(tmp_path / "whole", "metaclip_2", eos_token_id=ENDS_AT)
    combine(tmp_path / "whole", tmp_path / "whole", tmp_path / "out")
    expected = answers_of(tmp_path / "whole", "MetaClip2Model", ENDS_AT)
    found = answers_of(tmp_path / "out", "VisionTextDualEncoderModel", ENDS_AT)
    for name in ("visual_projection", "text_projection"):
        assert np.abs(expected[name]).max() > 1
        assert np.abs(found[name] - expected[name]).max() == 0.0


@pytest.mark.torch
@pytest.mark.parametrize("family", [family for family, said in TOWERS_OF.items() if " " not in said[0]])
def test_pytorch_runs_every_vision_tower_taken_out(tmp_path: Path, family: str) -> None:
    """And returns what the whole model projects, bit for bit."""
    import torch
    import transformers

    whole(tmp_path / "whole", family)
    write_tiny(tmp_path / "clip", family="clip")
    combine(tmp_path / "whole", tmp_path / "clip", tmp_path / "out")
    pooled = []
    for folder in ("whole", "out"):
        raw = json.loads((tmp_path / folder / "config.json").read_text("utf-8"))
        model = transformers.AutoModel.from_pretrained(tmp_path / folder)
        size = raw["vision_config"]["image_size"]
        pixels = torch.from_numpy(np.random.default_rng(5).standard_normal((2, 3, size, size), dtype=np.float32))
        with torch.no_grad():
            pooled.append(model.eval().vision_model(pixel_values=pixels).pooler_output)
    assert pooled[0].abs().max() > 0.1
    assert torch.equal(*pooled)
