"""What is refused as a tower: each type once, with its reason; and in PyTorch itself a sample has no vector to project."""

from __future__ import annotations

import re
from typing import Any

import pytest

from converter.conversion.formats import weights_file
from converter.errors import UnsupportedTower
from converter.names.configs import check_config, check_tower_config
from converter.names.frameworks import CANONICAL, FORMATS
from converter.names.listing import towers
from converter.names.refused import refusals
from converter.names.rule_files import SIDES, rule_file, supported, tower_files

GROUPS = rule_file("refused")
TEXT = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 40}
IMAGE = {"image_size": 32, "patch_size": 16, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
# Of each reason that a model can be asked about, tiny models: group, side, model type, config.
SAMPLE: list[tuple[str, str, str, dict[str, Any]]] = [
    ("no_pooled_output", "text", "distilbert", {"vocab_size": 50, "dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 40}),
    ("no_pooled_output", "text", "electra", {**TEXT, "embedding_size": 16}),
    ("no_pooled_output", "text", "deberta", {**TEXT, "pooler_hidden_size": 32}),
    ("no_pooled_output", "text", "deberta-v2", TEXT),
    ("no_pooled_output", "text", "modernbert", {**TEXT, "pad_token_id": 0}),
    ("no_pooled_output", "vision", "vit_msn", IMAGE),
    ("no_vector", "vision", "resnet", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}),
    ("something_else", "text", "gpt2", {"vocab_size": 50, "n_embd": 32, "n_layer": 1, "n_head": 2}),
]  # fmt: skip


def test_a_type_has_one_reason() -> None:
    for side in SIDES:
        listed = [name for group in GROUPS.values() for name in group[side]]
        assert len(set(listed)) == len(listed)
        assert set(refusals(side)) == set(listed) - set(supported(side))
        assert all(list(group[side]) == sorted(group[side]) for group in GROUPS.values())
    unasked = {"further_input", "random_mask", "by_a_width", "of_timm", "of_documents", "not_yet"}
    assert set(GROUPS) == {group for group, *_ in SAMPLE} | unasked
    # Each of these names what to use in its place.
    for group in ("by_a_width", "of_timm", "of_documents"):
        named = GROUPS[group]["why"].partition("; use ")[2]
        assert set(re.findall(r"\w+", named)) & set(supported("vision")), group


@pytest.mark.parametrize("side", SIDES)
def test_a_config_is_refused_with_the_reason(side: Any) -> None:
    whole = {
        name for name in refusals(side) if f"{name}_{side}_model" in supported(side)
    }  # its tower is taken, as CLIP's
    for name in set(refusals(side)) - set(tower_files(side)) - whole:
        with pytest.raises(UnsupportedTower) as raised:
            check_tower_config(side, {"model_type": name})
        assert str(raised.value) == (
            f"config.json.model_type {name!r} {refusals(side)[name]}; supported are {', '.join(supported(side))}"
        )


def test_a_dual_encoder_is_refused_what_a_family_has_alone() -> None:
    towers = {"vision_config": {"model_type": "siglip2_vision_model"}, "text_config": {"model_type": "bert"}}
    with pytest.raises(UnsupportedTower) as raised:
        check_config({"model_type": "vision-text-dual-encoder", **towers})
    assert str(raised.value) == (
        "config.json: vision_config: a VisionTextDualEncoder cannot have a siglip2_vision_model, which needs inputs that a "
        f"dual encoder does not pass on; supported are {', '.join(supported('vision'))}"
    )
    towers |= {"vision_config": {"model_type": "vit"}, "text_config": {"model_type": "siglip_text_model"}}
    with pytest.raises(
        UnsupportedTower, match="a siglip_text_model, which transformers has inside its own family only; "
    ):
        check_config({"model_type": "vision-text-dual-encoder", **towers})


def test_the_list_has_every_tower_and_every_refusal() -> None:
    found = towers()
    assert [(tower.side, tower.model_type) for tower in found.towers] == [
        (side, t) for side in SIDES for t in supported(side)
    ]
    assert found.refused == {side: refusals(side) for side in SIDES}
    assert {"clip", "vision-text-dual-encoder"} <= set(found.families)
    assert "| bert | text | PyTorch, TensorFlow" in found.to_markdown()
    assert "| mpnet | text |" in found.to_markdown()


def test_the_list_has_models_layouts_and_formats() -> None:
    """Whatever ``--format`` and ``--layout`` take, and the file that they write."""
    found = towers()
    assert {model.model_type: model.classes[CANONICAL] for model in found.models} == found.families
    layouts = {model.model_type: model.layouts for model in found.models}
    assert layouts["siglip"] == ("transformers", "open_clip")
    assert layouts["altclip"] == ("transformers",)
    written = [format for format in found.formats if format.written]
    assert {(format.framework, format.format) for format in written} == {
        (framework, format) for framework, files in FORMATS.items() for format in files
    }
    for format in written:
        assert weights_file(format.framework, format.format, format.layout) == format.file
    assert "| bin | PyTorch | `open_clip_pytorch_model.bin` | open_clip | in and out |" in found.to_markdown()
    assert "| SavedModel | TensorFlow | `saved_model.pb` | transformers | in |" in found.to_markdown()


@pytest.mark.torch
@pytest.mark.parametrize(("group", "side", "model_type", "config"), SAMPLE, ids=[name for _, _, name, _ in SAMPLE])
def test_pytorch_has_nothing_to_project(group: str, side: Any, model_type: str, config: dict[str, Any]) -> None:
    import torch
    from transformers import CONFIG_MAPPING, AutoModel

    assert model_type in GROUPS[group][side]
    model = AutoModel.from_config(CONFIG_MAPPING[model_type](**config)).eval()
    given = (
        {"pixel_values": torch.zeros(2, 3, 32, 32)}
        if side == "vision"
        else {"input_ids": torch.ones(2, 5, dtype=torch.long)}
    )
    with torch.no_grad():
        found = model(**given).to_tuple()
    if group == "no_pooled_output":
        assert len(found) == 1
    elif group == "no_vector":
        assert found[1].ndim != 2
    else:
        assert not isinstance(found[1], torch.Tensor)
