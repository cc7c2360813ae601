"""config.json: what is accepted, what is filled in, and every refusal with its message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.errors import ConfigError, ConverterError, UnsupportedOption, UnsupportedTower, listed
from converter.names.configs import check_config, check_tower_config, read_config, read_given
from converter.names.families import families
from converter.names.rule_files import rule_file, supported
from converter.names.towers import tower_defaults
from tests.tiny import FIXTURE, PAIRS, config_of

EXPECTED_DUAL = f"config.json: expected a model with two towers ({listed(tuple(families()))}), found "


def refusal(config: dict[str, Any], error: type[ConfigError] = ConfigError) -> str:
    with pytest.raises(error) as caught:
        check_config(config)
    assert type(caught.value) is error
    return str(caught.value)


@pytest.mark.parametrize(("vision", "text"), PAIRS)
def test_pairs_are_accepted(vision: str, text: str) -> None:
    config = check_config(config_of(vision, text))
    assert (config.vision.model_type, config.text.model_type) == (vision, text)
    assert config.unknown_fields == ()
    assert config.rewritten == ()


def test_fixture() -> None:
    config = read_config(FIXTURE / "config.json")
    assert config.unknown_fields == ()
    assert config.fields == {
        "projection_dim": 28, "logit_scale_init_value": 2.6592, "vision_width": 48, "text_width": 40,
    }  # fmt: skip
    assert config.tower("vision").fields["intermediate_size"] == 112
    assert config.tower("text").stem == "bert"


def test_defaults_are_filled_in() -> None:
    towers = {"vision_config": {"model_type": "swin"}, "text_config": {"model_type": "camembert"}}
    config = check_config({"model_type": "vision-text-dual-encoder", **towers})
    assert config.vision.fields["depths"] == [2, 2, 6, 2]
    assert config.fields["vision_width"] == 768
    assert config.text.fields["vocab_size"] == 30522
    assert config.fields["projection_dim"] == 512


def test_a_config_without_model_type_is_taken_by_its_towers() -> None:
    config = config_of()
    del config["model_type"]
    assert check_config(config).vision.model_type == "vit"


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (
            {"model_type": "vision-encoder-decoder"},
            "an image-to-text model; load it with transformers' VisionEncoderDecoderModel",
        ),
        (
            {"model_type": "bert", "hidden_size": 8},
            "a single bert tower; join two into a dual encoder with `convert combine VISION TEXT OUT` (in Python combine)",
        ),
        (
            {"model_type": "swin"},
            "a single swin tower; join two into a dual encoder with `convert combine VISION TEXT OUT` (in Python combine)",
        ),
        (
            {"model_type": "vision-text-dual-encoder", "vision_config": {"model_type": "vit"}},
            "a vision-text-dual-encoder without a vision_config and a text_config; restore both from the original",
        ),
        (
            {"model_type": "vision-text-dual-encoder", "vision_config": [], "text_config": "bert"},
            "a vision-text-dual-encoder without a vision_config and a text_config; restore both from the original",
        ),
        (
            {"model_type": "gpt2"},
            "model_type 'gpt2'; convert a folder that save_pretrained of such a model wrote",
        ),
        (
            {},
            "no model_type; add that of the original to config.json, or take its own config.json with --config FILE",
        ),
        (
            {"model_type": ["\x1b[31m"]},
            r"model_type ['\x1b[31m']; convert a folder that save_pretrained of such a model wrote",
        ),
    ],
)
def test_other_models_are_named(config: dict[str, Any], found: str) -> None:
    assert refusal(config) == EXPECTED_DUAL + found


@pytest.mark.parametrize("model_type", ["no-tower", 3, ["vit"], {"a": 1}])
def test_unsupported_vision_towers(model_type: Any) -> None:
    message = refusal(config_of(vision_fields={"model_type": model_type}), UnsupportedTower)
    assert message == (
        f"config.json: vision_config.model_type {model_type!r} has no rules; supported are "
        f"{', '.join(supported('vision'))}; other towers can be added as described in docs/towers.md"
    )


@pytest.mark.parametrize(
    ("side", "said", "right"),
    [
        ("vision", "VIT", "vit"),
        ("vision", "CLIPVisionModel", "clip_vision_model"),
        ("text", "BertModel", "bert"),
        ("text", "xlm_roberta", "xlm-roberta"),
        ("text", "clip", "clip_text_model"),
    ],
)
def test_a_tower_spelled_in_another_way(side: str, said: str, right: str) -> None:
    message = refusal(config_of(**{f"{side}_fields": {"model_type": said}}), UnsupportedTower)
    assert message == f"config.json: {side}_config.model_type {said!r} has no rules; write {right!r} if you mean that"


@pytest.mark.parametrize("said", ["hybrid_clip", "VisionTextDualEncoderModel", "vision_text_dual_encoder"])
def test_a_family_spelled_in_another_way(said: str) -> None:
    message = refusal(config_of(fields={"model_type": said}))
    assert message == EXPECTED_DUAL + f"model_type {said!r}; write 'vision-text-dual-encoder' if you mean that"


def test_a_config_that_a_person_names(tmp_path: Path) -> None:
    for named, said in (
        (
            tmp_path / "nosuch",
            f"{tmp_path / 'nosuch'}: not found; --config (in Python config=) takes the path of a config.json here",
        ),
        (
            '{"model_type": 1}',
            "config is the text of a config.json, expected its path or a dict; pass json.loads(TEXT)",
        ),
    ):
        with pytest.raises(ConfigError) as caught:
            read_given(named)
        assert str(caught.value) == said


def test_unsupported_text_tower() -> None:
    message = refusal(config_of(text_fields={"model_type": "distilbert"}), UnsupportedTower)
    assert message == (
        "config.json: text_config.model_type 'distilbert' has no pooled output, which a dual encoder projects; supported are "
        f"{', '.join(supported('text'))}"
    )


def test_supported_towers_are_at_least_those_of_the_pairs() -> None:
    assert {vision for vision, _ in PAIRS} <= set(supported("vision"))
    assert {text for _, text in PAIRS} <= set(supported("text"))


@pytest.mark.parametrize(("where", "place"), [("text_fields", "text_config.auto_map"), ("fields", "auto_map")])
def test_code_of_its_own_is_refused(where: str, place: str) -> None:
    config = config_of(**{where: {"auto_map": {"AutoModel": "modeling_evil.Evil"}}})
    assert refusal(config, UnsupportedOption) == (
        f"config.json: {place} asks for code of its own, which is never run; remove the field"
    )


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        (
            {"is_decoder": True},
            "is_decoder is True, supported is False: a causal tower is another graph, and has no pooled output to "
            "project",
        ),
        (
            {"position_embedding_type": "relative_key"},
            "position_embedding_type is 'relative_key', supported is 'absolute': relative positions were read only by "
            "transformers 4.x in PyTorch, and are ignored since 5.0",
        ),
        (
            {"pruned_heads": {"0": [1]}},
            "pruned_heads is {'0': [1]}, supported is {}: pruned heads change the shapes of single layers; prune after "
            "conversion, or save without pruning",
        ),
    ],
)
def test_refused_options(fields: dict[str, Any], shown: str) -> None:
    assert refusal(config_of(text_fields=fields), UnsupportedOption) == f"config.json: text_config.{shown}"


@pytest.mark.parametrize(
    ("place", "field", "value", "like"),
    [
        ("vision_fields", "hidden_size", "28", 768),
        ("vision_fields", "hidden_size", True, 768),
        ("vision_fields", "hidden_size", 28.0, 768),
        ("vision_fields", "hidden_size", None, 768),
        ("vision_fields", "hidden_size", 2**31, 768),
        ("vision_fields", "hidden_size", 10**400, 768),
        ("vision_fields", "image_size", [1, 2, 3, 4], 224),
        ("vision_fields", "qkv_bias", 1, True),
        ("vision_fields", "layer_norm_eps", float("nan"), 1e-12),
        ("vision_fields", "layer_norm_eps", float("inf"), 1e-12),
        ("vision_fields", "layer_norm_eps", "small", 1e-12),
        ("text_fields", "hidden_act", 3, "gelu"),
        ("text_fields", "vocab_size", {}, 30522),
    ],
)
def test_wrong_types_and_sizes(place: str, field: str, value: Any, like: Any) -> None:
    side = place.removesuffix("_fields")
    shown = repr(value) if len(repr(value)) < 60 else f"1{'0' * 29}...{'0' * 30}"
    assert refusal(config_of(**{place: {field: value}})) == (
        f"config.json: {side}_config.{field} is {shown}, expected a value like {like!r}; correct the config"
    )


def test_wrong_type_at_the_top() -> None:
    assert refusal(config_of(fields={"projection_dim": [512]})) == (
        "config.json: projection_dim is [512], expected a value like 512; correct the config"
    )


def test_unknown_fields_are_kept_and_named() -> None:
    config = check_config(config_of(fields={"zeta": 1}, vision_fields={"b": 1, "a": 2}, text_fields={"c": None}))
    assert config.unknown_fields == ("zeta", "vision_config.a", "vision_config.b", "text_config.c")
    assert config.raw["vision_config"]["a"] == 2


def test_vision_part_of_a_full_clip_config() -> None:
    inner = config_of("clip_vision_model")["vision_config"]
    full = {"model_type": "clip", "vision_config": dict(inner), "text_config": {"hidden_size": 99}}
    given = config_of(fields={"vision_config": full})
    config = check_config(given)
    assert config.vision.model_type == "clip_vision_model"
    assert config.raw["vision_config"] == inner
    assert config.rewritten == (
        "config.json: vision_config: a full CLIP config replaced by its vision part, as transformers 4.x reads it",
    )
    assert given["vision_config"] == full


def test_full_clip_config_with_a_wrong_vision_part() -> None:
    full = {"model_type": "clip", "vision_config": [1]}
    assert refusal(config_of(fields={"vision_config": full})) == (
        "config.json: vision_config is a CLIP config whose own vision_config is not an object; correct the config"
    )


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


@given(
    st.sampled_from(PAIRS),
    st.sampled_from(["vision", "text"]),
    st.sampled_from(["clip_vision", "bert", "swin"]),
    values,
)
def test_any_value_of_a_field_is_taken_or_refused(pair: tuple[str, str], side: str, family: str, value: Any) -> None:
    for field in rule_file(f"towers/{family}")["config"]["honoured"]:
        try:
            check_config(config_of(*pair, **{f"{side}_fields": {field: value}}))
        except ConverterError as error:
            assert str(error).isprintable()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not JSON: Expecting value: line 1 column 1 (char 0); restore it from the original"),
        ("{", "not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1); restore it from "
              "the original"),
        ("[]", "expected a JSON object, found list; restore it from the original"),
        ("3", "expected a JSON object, found int; restore it from the original"),
    ],
)  # fmt: skip
def test_not_json(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert str(caught.value) == f"{path}: {problem}"


def test_no_config(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert str(caught.value) == (
        f"{path}: not found; save_pretrained writes config.json beside the weights. If it is elsewhere, copy it "
        "there or pass --config FILE (in Python config=)"
    )


def test_messages_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config_of(vision_fields={"hidden_size": "wide"})))
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert str(caught.value) == (
        f"{path}: vision_config.hidden_size is 'wide', expected a value like 768; correct the config"
    )


def test_a_tower_without_model_type() -> None:
    config = config_of()
    del config["text_config"]["model_type"]
    assert refusal(config, UnsupportedTower) == (
        "config.json: text_config has no model_type, which says what tower it is; add the one of the original, one of "
        f"{', '.join(supported('text'))}"
    )


def test_towers_in_each_others_place() -> None:
    config = config_of()
    config["text_config"], config["vision_config"] = config["vision_config"], config["text_config"]
    assert refusal(config, UnsupportedTower) == (
        f"config.json: vision_config: {config['vision_config']['model_type']} is a text tower where the vision tower "
        "belongs; the vision tower comes first, then the text tower"
    )


def test_hybrid_clip_is_the_dual_encoder() -> None:
    """What transformers' examples called it, which 4.57 and 5.x load as well."""
    config = config_of()
    read = check_config(config | {"model_type": "hybrid-clip"})
    assert read.family.model_type == read.raw["model_type"] == "vision-text-dual-encoder"
    assert read.rewritten == ('config.json: model_type: "hybrid-clip" -> "vision-text-dual-encoder"',)
    assert config["model_type"] == "vision-text-dual-encoder"


def test_a_timm_model() -> None:
    assert refusal({"architecture": "vit_tiny", "pretrained_cfg": {}}, ConfigError).endswith(
        "found a timm model, whose tensors have other names; take the same model in transformers' format"
    )


def test_a_number_that_may_be_one_for_each_layer() -> None:
    """As transformers saves it; and only where the rules say so."""
    tower = {"model_type": "longformer", "attention_window": [6, 4]}
    assert check_tower_config("text", tower).fields["attention_window"] == [6, 4]
    for wrong in ({"attention_window": "wide"}, {"attention_window": [4] * 5000}, {"num_hidden_layers": [2]}):
        with pytest.raises(ConfigError, match=r"expected a value like "):
            check_tower_config("text", {**tower, **wrong})


def test_a_number_that_may_be_null() -> None:
    """And only where the rules say so."""
    tower = {"model_type": "dinov3_vit", "pos_embed_rescale": None}
    assert check_tower_config("vision", tower).fields["pos_embed_rescale"] is None
    with pytest.raises(ConfigError, match=r"rope_theta is None, expected a value like 100\.0"):
        check_tower_config("vision", {**tower, "rope_theta": None})


def test_a_field_that_may_be_one_of_several_words() -> None:
    """Expressions compare it, as an honoured one; any other word is refused."""
    said = {"position_embedding_type": "rotary"}
    assert check_tower_config("text", {"model_type": "esm", **said}).fields.items() >= said.items()
    silent = check_tower_config("text", {"model_type": "esm"})
    assert silent.fields == tower_defaults("text", "esm")
    assert silent.fields["position_embedding_type"] == "absolute"
    with pytest.raises(UnsupportedOption) as caught:
        check_tower_config("text", {"model_type": "esm", "position_embedding_type": "relative_key"})
    assert str(caught.value) == (
        "config.json.position_embedding_type is 'relative_key', supported is 'absolute' or 'rotary': relative positions were "
        "read by transformers 4.x in PyTorch alone, and are ignored since 5.0"
    )


@pytest.mark.parametrize("given", [{}, {"default_language": None}, {"default_language": "fr_XX"}])
def test_a_field_that_may_have_one_of_several_names(given: dict[str, Any]) -> None:
    """PyTorch's dual encoder fails without: it passes no ``lang_ids``, which a tower alone can be given."""
    tower = {"model_type": "xmod", "languages": ["en_XX", "de_DE"], **given}
    assert check_tower_config("text", tower).fields["default_language"] == given.get("default_language")
    whole = {"model_type": "vision-text-dual-encoder", "vision_config": {"model_type": "vit"}, "text_config": tower}
    with pytest.raises(ConfigError) as caught:
        check_config(whole)
    assert str(caught.value) == (
        f"config.json: text_config.default_language is {given.get('default_language')!r}, expected one of en_XX, de_DE: a dual "
        "encoder passes no lang_ids, so that PyTorch runs the adapter of this language, and none without it; set it"
    )
    whole["text_config"] = {**tower, "default_language": "de_DE"}
    assert check_config(whole).text.fields["default_language"] == "de_DE"


@pytest.mark.parametrize("given", [{}, {"hidden_size": 96}])
def test_a_field_that_the_whole_asks_of_a_tower(given: dict[str, int]) -> None:
    """PyTorch's dual encoder cannot be made without; the tower alone has no such field."""
    tower = {"model_type": "convnext", "hidden_sizes": [8, 16, 24, 40], **given}
    assert check_tower_config("vision", tower).fields["hidden_sizes"] == [8, 16, 24, 40]
    whole = {"model_type": "vision-text-dual-encoder", "vision_config": tower, "text_config": {"model_type": "bert"}}
    with pytest.raises(ConfigError) as caught:
        check_config(whole)
    assert str(caught.value) == (
        f"config.json: vision_config.hidden_size is {given.get('hidden_size')}, expected 40: the config class of this tower "
        "has no such field, and PyTorch's dual encoder takes the projection's width from it; set it"
    )
    whole["vision_config"] = {**tower, "hidden_size": 40}
    assert check_config(whole).fields["vision_width"] == 40
    assert check_config(whole).vision.unknown == ()
