"""Every tensor accounted for before any is read: what is missing, surplus, of another shape or there twice is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.conversion.plan import Plan, make_plan
from converter.errors import ConfigError, PlanError
from converter.names.configs import check_config
from converter.names.rules import compile_rules
from converter.specs import Checkpoint, Extent, Framework, Shape, StoredTensor
from tests.compat.towers import ALL_VISION, FAMILIES
from tests.tiny import MODELS, config_of, tensors_of
from tests.towers import config_of_tower

FILE = Path("model.safetensors")
QUERY = "text_model.encoder.layer.1.attention.self.query.weight"


def shapes_of(config: Mapping[str, Any], side: Framework = "pt") -> dict[str, Shape]:
    """Every name of a config's rules, with the shape on that side."""
    rules = compile_rules(check_config(config))
    if side == "pt":
        return {rule.names["pt"]: rule.shape for rule in rules.tensors}
    axes = {"dense": (1, 0), "conv2d": (2, 3, 1, 0)}
    return {
        rule.names["tf"]: (1,) if rule.layouts["tf"] == "scalar" else tuple(rule.shape[a] for a in axes[rule.layouts["tf"]])
        if rule.layouts["tf"] in axes else rule.shape
        for rule in rules.tensors
    }  # fmt: skip


def checkpoint(shapes: Mapping[str, Shape], side: Framework = "pt", dtype: str = "float32") -> Checkpoint:
    """A checkpoint of the given names and shapes, in a file that nobody opens."""
    tensors = {
        name: StoredTensor(name, dtype, shape, Extent(FILE, 0, math.prod(shape) * 4)) for name, shape in shapes.items()
    }
    return Checkpoint(side, "test", tensors, (FILE,))


def plan(
    shapes: Mapping[str, Shape],
    config: Mapping[str, Any],
    target: Framework = "tf",
    side: Framework = "pt",
    **more: Any,
) -> Plan:
    return make_plan(checkpoint(shapes, side), check_config(config), target, **more)


def refusal(shapes: Mapping[str, Shape], config: Mapping[str, Any], **more: Any) -> str:
    with pytest.raises(PlanError) as caught:
        plan(shapes, config, **more)
    return str(caught.value)


@pytest.mark.parametrize("model", MODELS)
def test_plans_are_bijections(model: str) -> None:
    config = MODELS[model]
    there = plan(shapes_of(config), config)
    assert {tensor.source.name for tensor in there.tensors} == set(shapes_of(config))
    assert {tensor.name: tensor.shape for tensor in there.tensors} == shapes_of(config, "tf")
    back = plan(shapes_of(config, "tf"), config, "pt", "tf")
    assert {tensor.name: tensor.shape for tensor in back.tensors} == shapes_of(config)
    assert {tensor.source.name: tensor.name for tensor in back.tensors} == {
        tensor.name: tensor.source.name for tensor in there.tensors
    }
    assert [tensor.name for tensor in back.tensors] == sorted(shapes_of(config))
    assert there.dropped == back.dropped == ()


def test_missing_and_surplus_are_both_named() -> None:
    config = config_of()
    shapes = shapes_of(config)
    del shapes[QUERY], shapes["logit_scale"]
    shapes["text_model.embeddings.extra\n"] = (3,)
    assert refusal(shapes, config) == (
        "model.safetensors: not the tensors that config.json describes; missing (2): "
        f"{QUERY}, logit_scale, which rename_rules/towers/bert.toml: "
        "encoder.layer.{layer}.attention.self.query asks for; unexpected (1): text_model.embeddings.extra\\n; compare "
        "config.json with the one saved with the weights"
    )


def test_names_are_folded_and_counted() -> None:
    config = config_of()
    shapes = {name: shape for name, shape in shapes_of(config).items() if not name.startswith("text_model")}
    message = refusal(shapes, config)
    assert "missing (39): " in message
    assert " more, which rename_rules/towers/bert.toml: embeddings.word_embeddings asks for; the text" in message
    assert len(message) < 600


@pytest.mark.parametrize(
    ("side", "model"),
    [
        ("pt", "clip_vision_model+albert"),
        ("tf", "swin+roberta"),
        *((side, name) for side in ("pt", "tf") for name in FAMILIES),
    ],
)
def test_no_single_tensor_can_be_missing_or_renamed(side: Framework, model: str) -> None:
    config = MODELS[model] if model in MODELS else config_of(*model.split("+"))
    target: Framework = "tf" if side == "pt" else "pt"
    shapes = shapes_of(config, side)
    for name in shapes:
        without = {other: shape for other, shape in shapes.items() if other != name}
        assert f"missing (1): {name}, which rename_rules/" in refusal(without, config, target=target, side=side)
        renamed = without | {f"{name}x": shapes[name]}
        assert f"(1): {name}x; compare" in refusal(renamed, config, target=target, side=side)


def test_shapes_that_are_not_those_of_the_config() -> None:
    config = config_of()
    shapes = shapes_of(config) | {"visual_projection.weight": (28, 26), "text_projection.weight": (26, 33)}
    assert refusal(shapes, config) == (
        "tensor shapes that differ from config.json (2): visual_projection.weight is (28, 26), config.json says "
        "(26, 28), text_projection.weight is (26, 33), config.json says (26, 32); compare config.json with the one "
        "saved with the weights"
    )


def test_shapes_of_tensorflow_are_those_of_tensorflow() -> None:
    config = config_of()
    shapes = shapes_of(config, "tf") | {"visual_projection/kernel": (26, 28)}
    assert refusal(shapes, config, target="pt", side="tf") == (
        "tensor shapes that differ from config.json (1): visual_projection/kernel is (26, 28), config.json says "
        "(28, 26); compare config.json with the one saved with the weights"
    )


@pytest.mark.parametrize("name", ["visual_projection.weight", "text_model.pooler.dense.bias", "logit_scale"])
def test_one_axis_more_is_another_shape(name: str) -> None:
    config = config_of()
    shapes = shapes_of(config)
    shapes[name] = (*shapes[name], 1, 1)
    assert "tensor shapes that differ from config.json (1): " in refusal(shapes, config)


@pytest.mark.parametrize("stored", [(), (1,)])
@pytest.mark.parametrize(("side", "target", "shape"), [("pt", "tf", (1,)), ("tf", "pt", ())])
def test_logit_scale_may_be_stored_either_way(stored: Shape, side: Framework, target: Framework, shape: Shape) -> None:
    config = config_of()
    made = plan(shapes_of(config, side) | {"logit_scale": stored}, config, target, side)
    assert {tensor.name: tensor.shape for tensor in made.tensors}["logit_scale"] == shape


def test_casts_are_counted() -> None:
    config = config_of()
    source = checkpoint(shapes_of(config), dtype="bfloat16")
    source = Checkpoint("pt", "test", {**source.tensors, QUERY: StoredTensor(QUERY, "float32", (32, 32))}, (FILE,))
    checked = check_config(config)
    count = len(source.tensors) - 1
    assert make_plan(source, checked, "tf").casts == {}
    assert make_plan(source, checked, "tf", widen_bfloat16=True).casts == {"bfloat16 -> float32": count}
    assert make_plan(source, checked, "tf", dtype="float16").casts == {
        "bfloat16 -> float16": count, "float32 -> float16": 1,
    }  # fmt: skip


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "bool"])
def test_whole_numbers_are_no_weights(dtype: str) -> None:
    config = config_of()
    source = checkpoint(shapes_of(config))
    held = {**source.tensors, **{n: StoredTensor(n, dtype, (32, 32)) for n in (QUERY, QUERY.replace("1", "0"))}}
    with pytest.raises(PlanError) as caught:
        make_plan(replace(source, tensors=held), check_config(config), "tf")
    assert str(caught.value) == (
        f"{FILE}: integers where floats belong (2): {QUERY.replace('1', '{0...1}')} ({dtype}). The weights are "
        "quantised; dequantise them with their scales and save again"
    )


def test_a_count_of_batches_keeps_its_dtype_and_is_no_float() -> None:
    tower = {"model_type": "sam3_lite_text_text_model", **config_of_tower("sam3_lite_text_text_model")}
    config = config_of("vit", "bert", fields={"text_config": tower})
    shapes = shapes_of(config)
    counts = [name for name in shapes if name.endswith(".num_batches_tracked")]
    floats = checkpoint(shapes)
    held = {**floats.tensors, **{name: StoredTensor(name, "int64", shapes[name]) for name in counts}}
    made = make_plan(replace(floats, tensors=held), check_config(config), "tf", dtype="float16")
    planned = {tensor.canonical: (tensor.dtype, tensor.shape) for tensor in made.tensors}
    assert {name for name, said in planned.items() if said == ("int64", (1,))} == set(counts)
    assert {dtype for dtype, _ in planned.values()} == {"int64", "float16"}
    with pytest.raises(PlanError) as caught:
        make_plan(floats, check_config(config), "tf")
    message = str(caught.value)
    assert message.startswith(
        f"{FILE}: floats where integers belong (8): text_model.layers.{{0,3}}.token_mixer.reference_"
    )
    assert message.endswith(". They count batches; cast them to int64 and save again")
    assert len(counts) == 8


def test_a_tensor_without_a_name_is_surplus() -> None:
    config = config_of("vit", vision_fields={"qkv_bias": False})
    assert "unexpected (1): ; leave them out: pt2tf(" in refusal(shapes_of(config) | {"": (28,)}, config)
    config = config_of()
    assert "unexpected (1): ; " in refusal(shapes_of(config, "tf") | {"": (1, 41)}, config, target="pt", side="tf")


def test_no_config_makes_buffers_that_exhaust_memory() -> None:
    config = config_of(text_fields={"max_position_embeddings": 2**31 - 1})
    with pytest.raises(ConfigError) as caught:
        plan(shapes_of(config), config)
    assert str(caught.value) == (
        "config.json: a length asks for a buffer of 2,147,483,647 elements, more than any model has; correct the config"
    )
    small = shapes_of(config_of())
    assert "text_model.embeddings.position_embeddings.weight is (41, 32)" in refusal(small, config)


POSITIONS = "text_model.embeddings.position_ids"


def test_position_ids_are_left_out_and_said_so() -> None:
    config = config_of()
    made = plan(shapes_of(config) | {POSITIONS: (1, 41)}, config)
    assert [(item.name, item.reason) for item in made.dropped] == [
        (POSITIONS, "0, 1, 2 ..., which early versions stored; every version computes them")
    ]
    ((stored, value),) = made.expected
    assert stored.name == POSITIONS
    assert value.tolist() == [list(range(41))]


def test_position_ids_of_another_length() -> None:
    config = config_of()
    assert refusal(shapes_of(config) | {POSITIONS: (1, 40)}, config) == (
        f"{POSITIONS} has shape (1, 40), the config says (1, 41); use the config.json saved with these weights"
    )


SWIN_INDEX = "vision_model/swin/encoder/layers.0/blocks.1/attention/self/relative_position_index"


def test_swins_index_is_made_anew_for_tensorflow() -> None:
    config = config_of("swin")
    made = plan(shapes_of(config), config)
    assert len(made.restored) == 4
    assert (made.restored[SWIN_INDEX].shape, made.restored[SWIN_INDEX].dtype) == ((9, 9), np.int32)
    assert (made.dropped, made.expected) == ((), ())


@pytest.mark.parametrize(("names", "count"), [("v4", 4), ("v5", 0)])
def test_swins_index_is_kept_for_pytorch_4(names: Any, count: int) -> None:
    config = config_of("swin")
    stored = dict.fromkeys(plan(shapes_of(config), config).restored, (9, 9))
    made = plan(shapes_of(config, "tf") | stored, config, "pt", "tf", names=names)
    assert (len(made.restored), len(made.expected), len(made.dropped)) == (count, 4, 4 - count)


def test_swinv2_windows_are_those_of_each_stage() -> None:
    """Early versions of 4.x stored an index and a table: of the window that a stage has, as it was trained."""
    fields = {"window_size": 6, "depths": [1, 1], "num_heads": [2, 5], "pretrained_window_sizes": [3, 4]}
    config = {**config_of(), "vision_config": {"model_type": "swinv2", **ALL_VISION["swinv2"], **fields}}
    self = "vision_model.encoder.layers.{}.blocks.0.attention.self."
    sides = {self.format(stage): side for stage, side in enumerate((6, 4))}  # 16 pixels are 8 patches, then 4
    index = {f"{path}relative_position_index": (side**2,) * 2 for path, side in sides.items()}
    tables = {f"{path}relative_coords_table": (1, 2 * side - 1, 2 * side - 1, 2) for path, side in sides.items()}
    made = plan(shapes_of(config) | index | tables, config)
    assert {item.name for item in made.dropped} == {*index, *tables}
    assert made.restored == {}
    values = {stored.name: value for stored, value in made.expected}
    ends = {stage: values[f"{self.format(stage)}relative_coords_table"][0, -1, 0] for stage in (0, 1)}
    np.testing.assert_allclose(ends[0], np.log2(1 + 8 * 5 / 2) / 3 * np.array([1, -1]), atol=1e-6)
    np.testing.assert_allclose(ends[1], np.log2(1 + 8 * 3 / 3) / 3 * np.array([1, -1]), atol=1e-6)
    first, last = index
    assert "config says (36, 36)" in refusal(shapes_of(config) | {first: (16, 16)}, config)
    assert last in {item.name for item in made.dropped}


def test_vit_without_qkv_bias() -> None:
    """transformers' TensorFlow class has the biases all the same."""
    config = config_of("vit", vision_fields={"qkv_bias": False})
    made = plan(shapes_of(config), config)
    assert len(made.restored) == 9
    name = "vision_model/vit/encoder/layer_._1/attention/attention/key/bias"
    assert (made.restored[name].tolist(), made.restored[name].dtype) == ([0] * 28, np.float32)
    back = plan(shapes_of(config, "tf") | dict.fromkeys(made.restored, (28,)), config, "pt", "tf")
    assert back.restored == {}
    assert (len(back.dropped), len(back.expected)) == (9, 9)
    assert {item.reason for item in back.dropped} == {"all zero: the config says that there is no such bias"}


def test_weights_that_are_quantised_are_said_to_be() -> None:
    """A stale field says nothing: where all weights are there, they are no longer quantised."""
    config = config_of(fields={"quantization_config": {"quant_method": "bitsandbytes"}})
    made = {name: array.shape for name, array in tensors_of(config).items()}
    whole = Checkpoint("pt", "made up", {n: StoredTensor(n, "float32", shape) for n, shape in made.items()}, ())
    assert len(make_plan(whole, check_config(config), "tf").tensors) == len(made)
    part = Checkpoint("pt", "made up", dict(list(whole.tensors.items())[1:]), ())
    with pytest.raises(PlanError) as caught:
        make_plan(part, check_config(config), "tf")
    assert str(caught.value) == (
        "made up: the weights are quantised (quantization_config in config.json) and have other names and shapes; "
        "load the model, torch.save(model.dequantize().state_dict(), FILE), and convert FILE with --config of this config.json"
    )


@pytest.mark.parametrize(
    ("surplus", "way"),
    [
        (
            "classifier.weight",
            "leave them out: pt2tf({n: t for n, t in state_dict.items() if n.split('.')[0] not in ['classifier']}, OUT, "
            "config=...)",
        ),
        (
            "text_model.extra.weight",
            "leave them out: delete them from state_dict and convert the rest: pt2tf(state_dict, OUT, config=...)",
        ),
        (
            "text_model.encoder.layer.0.attention.self.query.lora_A.default.weight",
            "these are PEFT adapters beside the model; merge them: model.merge_and_unload().save_pretrained(OTHER), "
            "then convert OTHER",
        ),
        (
            "text_model.encoder.layer.0.attention.self.query.SCB",
            "the weights are quantised; dequantise them and save again",
        ),
    ],
)
def test_the_next_step_follows_from_the_names(surplus: str, way: str) -> None:
    config = config_of()
    assert refusal(shapes_of(config) | {surplus: (3,)}, config) == (
        f"model.safetensors: not the tensors that config.json describes; unexpected (1): {surplus}; {way}"
    )


def test_another_model_is_said_by_where_its_tensors_are() -> None:
    config = config_of()
    shapes = {name.replace("_model.", "_encoder."): shape for name, shape in shapes_of(config).items()}
    assert refusal(shapes, config).endswith(
        "most names are not the model's (the file holds text_encoder, vision_encoder); write the model with "
        "save_pretrained of its class"
    )
