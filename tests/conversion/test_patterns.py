"""The next step follows from the pattern of the names that are missing or unexpected."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from converter import ConverterError, combine, pt2tf
from converter.specs import Framework
from tests.conversion.test_plan import refusal, shapes_of
from tests.tiny import config_of, tensors_of, write_checkpoint

COMPARE = "; compare config.json with the one saved with the weights"
HEAD = (
    "; the towers are whole and what joins them is not; save the whole model with save_pretrained. `convert combine` "
    "draws new projections, which need training"
)
Keep = Callable[[str], bool]
PATTERNS: dict[str, tuple[Keep, str]] = {
    "a tower": (
        lambda name: not name.startswith("text_"),
        "; the text tower is not in the file; save the whole model with save_pretrained, or join the towers: convert "
        "combine VISION TEXT OUT",
    ),
    "logit_scale": (
        lambda name: name != "logit_scale",
        "; it is one number; put in the one that was trained (the state_dict by PyTorch's names): "
        "pt2tf({**state_dict, 'logit_scale': numpy.float32(NUMBER)}, OUT, config=...)",
    ),
    "projections": (lambda name: "projection" not in name, HEAD),
    "a pooler": (
        lambda name: "pooler" not in name,
        "; the tower was saved without its pooler (add_pooling_layer=False), whose output this model takes; put in the "
        "pooler of the checkpoint that the tower began with",
    ),
    "biases": (
        lambda name: not re.search(r"q_proj.bias", name),
        f"; the weights have no such biases{COMPARE}, above all the fields named *bias",
    ),
    "here and there": (lambda name: "LayerNorm" not in name, COMPARE),
    "most": (
        lambda name: name == "logit_scale",
        "; most names are not the model's (the file holds none of them); write the model with save_pretrained of its class",
    ),
}


@pytest.mark.parametrize("side", ["pt", "tf"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_is_missing(pattern: str, side: Framework) -> None:
    keep, way = PATTERNS[pattern]
    config = config_of("clip_vision_model", "bert")
    shapes = {name: shape for name, shape in shapes_of(config, side).items() if keep(name)}
    assert refusal(shapes, config, side=side, target="tf" if side == "pt" else "pt").endswith(f" asks for{way}")


@pytest.mark.parametrize("side", ["pt", "tf"])
def test_a_tower_of_another_kind(side: Framework) -> None:
    config = config_of("clip_vision_model", "bert")
    shapes = {name: shape for name, shape in shapes_of(config, side).items() if not name.startswith("text_model")}
    separator = "." if side == "pt" else "/"
    shapes[separator.join(("text_model", "transformer", "layer"))] = (3,)
    assert refusal(shapes, config, side=side, target="tf" if side == "pt" else "pt").endswith(
        "; the text tower in the file is of another kind than text_config; take the config.json saved with the weights, "
        "with --config FILE (in Python config=)"
    )


@pytest.mark.parametrize("side", ["pt", "tf"])
@pytest.mark.parametrize("towers", ["clip_vision_model+bert", "vit+roberta"])
def test_the_number_of_layers(towers: str, side: Framework) -> None:
    """Of one tower too few in the file, of the other too many; and no such word where anything else is wrong."""
    config = config_of(*towers.split("+"))
    held = shapes_of(config, side)
    fewer = config | {"text_config": config["text_config"] | {"num_hidden_layers": 1}}
    more = fewer | {"vision_config": config["vision_config"] | {"num_hidden_layers": 5}}
    target: Framework = "tf" if side == "pt" else "pt"
    vision = config["vision_config"]["num_hidden_layers"]
    said = refusal(held, more, side=side, target=target)
    assert re.search(
        rf"; config\.json says 5 layers of vision_model\S*, the weights have {vision}; correct num_hidden_layers of "
        r"vision_config if the weights are whole\. config\.json says 1 layers of text_model\S*, the weights have 2; "
        r"correct num_hidden_layers of text_config if the weights are whole$",
        said,
    ), said
    assert "correct num_hidden_layers" not in refusal(held | {"head": (3,)}, more, side=side, target=target)


@pytest.mark.parametrize("side", ["pt", "tf"])
@pytest.mark.parametrize("towers", ["clip_vision_model+bert", "vit+roberta"])
def test_a_layer_in_the_middle(towers: str, side: Framework) -> None:
    config = config_of(*towers.split("+"))
    shapes = {n: s for n, s in shapes_of(config, side).items() if not re.search(r"vision_model.*layers?[._]+1[./]", n)}
    said = refusal(shapes, config, side=side, target="tf" if side == "pt" else "pt")
    assert re.search(
        r"; the file lacks layers before others that it holds \(1 of vision_model\S*\); it is incomplete: save the whole "
        r"model again, or copy or download all of it$",
        said,
    ), said


@pytest.mark.parametrize("side", ["pt", "tf"])
@pytest.mark.parametrize("depths", [[2, 3], [1, 2], [2, 2, 2]], ids=str)
def test_the_stages_of_a_tower(depths: list[int], side: Framework) -> None:
    config = config_of("swin", "bert")
    had = config["vision_config"]["depths"]
    assert had == [2, 2]
    heads = [2, 3, 6][: len(depths)]
    other = config | {"vision_config": config["vision_config"] | {"depths": depths, "num_heads": heads}}
    said = refusal(shapes_of(config, side), other, side=side, target="tf" if side == "pt" else "pt")
    at, count, found = next(
        ((rf"\.{n}\Wblocks", one, two) for n, (one, two) in enumerate(zip(depths, had, strict=False)) if one != two),
        ("", len(depths), len(had)),
    )
    assert re.search(
        rf"; config\.json says {count} layers of vision_model\S*encoder\Wlayers{at}, the weights have {found}; "
        r"correct depths of vision_config if the weights are whole$",
        said,
    ), said


def test_the_corrected_number_converts(tmp_path: Path) -> None:
    config = config_of("clip_vision_model", "bert")
    source = write_checkpoint(tmp_path / "source", config, tensors_of(config))
    wrong = config | {"text_config": config["text_config"] | {"num_hidden_layers": 7}}
    (source / "config.json").write_text(json.dumps(wrong))
    with pytest.raises(ConverterError, match="says 7 layers") as caught:
        pt2tf(source, tmp_path / "out")
    found = re.search(r"the weights have (\d+); correct num_hidden_layers of (\w+)", str(caught.value))
    assert found is not None
    wrong[found[2]]["num_hidden_layers"] = int(found[1])
    (source / "config.json").write_text(json.dumps(wrong))
    assert pt2tf(source, tmp_path / "out").tensors == len(tensors_of(config))


def test_the_layers_of_a_tower_alone(tmp_path: Path) -> None:
    config = config_of("clip_vision_model", "bert")
    for side in ("vision", "text"):
        held = {
            name.removeprefix(f"{side}_model."): array
            for name, array in tensors_of(config).items()
            if name.startswith(f"{side}_model.")
        }
        (tmp_path / side).mkdir()
        (tmp_path / side / "config.json").write_text(json.dumps(config[f"{side}_config"] | {"num_hidden_layers": 9}))
        save_file(held, tmp_path / side / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ConverterError, match=r"config\.json says 9 layers of \S+, the weights have \d; correct num_hid"
    ):
        combine(tmp_path / "vision", tmp_path / "text", tmp_path / "out")
    for side in ("vision", "text"):
        (tmp_path / side / "config.json").write_text(json.dumps(config[f"{side}_config"] | {"num_hidden_layers": 1}))
    with pytest.raises(
        ConverterError,
        match=r"holds more layers of the clip_vision_model tower than its config.json says; unexpected \(\d+\): .*; "
        r"config\.json says 1 layers of \S+, the weights have \d; "
        r"correct num_hidden_layers if the weights are whole$",
    ):
        combine(tmp_path / "vision", tmp_path / "text", tmp_path / "out")
    assert not (tmp_path / "out").exists()
