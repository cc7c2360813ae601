"""PyTorch dialects and spellings: each understood, counted and written on request; no two names for one tensor."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from converter.conversion.plan import Dropped, Plan, make_plan
from converter.errors import PlanError
from converter.names.configs import check_config
from converter.specs import StoredTensor
from tests.conversion.test_plan import checkpoint, shapes_of
from tests.names.tables import pair_fields
from tests.tiny import FIXTURES, config_of
from tests.towers import config_of_tower

TABLES: dict[str, Any] = json.loads((FIXTURES / "names" / "pairs.json").read_text("utf-8"))
CONFIG = config_of("clip_vision_model", "bert")
SHAPES = shapes_of(CONFIG)


def plan_renamed(rename: Callable[[str], str]) -> Plan:
    return make_plan(checkpoint({rename(name): shape for name, shape in SHAPES.items()}), check_config(CONFIG), "tf")


def flat(name: str) -> str:
    return name.replace("vision_model.vision_model.", "vision_model.", 1)


def gamma_beta(name: str) -> str:
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


def between(name: str) -> str:
    """FSDP around every module, DDP around the innermost."""
    *levels, leaf = name.split(".")
    return ".".join([f"_fsdp_wrapped_module.{level}" for level in levels] + ["module", leaf])


@pytest.mark.parametrize(
    ("rename", "dialects"),
    [
        (str, {"v4": 97}),
        (flat, {"v4": 42, "v5": 55}),
        (lambda name: f"module.{name}", {"v4, module.": 97}),
        (lambda name: f"_orig_mod.{flat(name)}", {"v4, _orig_mod.": 42, "v5, _orig_mod.": 55}),
        (lambda name: f"module._orig_mod.{name}", {"v4, module. _orig_mod.": 97}),
        (between, {"v4, _fsdp_wrapped_module. module.": 96, "v4, module.": 1}),
        (lambda name: f"model.{name}", {"v4, model.": 97}),
        (lambda name: f"net.dual.{flat(name)}", {"v4, net.dual.": 42, "v5, net.dual.": 55}),
        (lambda name: f"model.module.{name}", {"v4, model. module.": 97}),
        (gamma_beta, {"v4": 87, "v4, gamma": 5, "v4, beta": 5}),
        (lambda name: f"module.{gamma_beta(name)}", {"v4, module.": 87, "v4, module. gamma": 5, "v4, module. beta": 5}),
    ],
    ids=[
        "nested",
        "flat",
        "module",
        "orig_mod flat",
        "both",
        "between",
        "prefix",
        "long prefix",
        "prefix and wrapper",
        "gamma beta",
        "module gamma beta",
    ],
)
def test_spellings(rename: Callable[[str], str], dialects: dict[str, int]) -> None:
    made, usual = plan_renamed(rename), plan_renamed(str)
    assert made.dialects == dialects
    assert [(tensor.canonical, tensor.name, tensor.source.shape) for tensor in made.tensors] == [
        (tensor.canonical, tensor.name, tensor.source.shape) for tensor in usual.tensors
    ]
    assert {tensor.canonical: tensor.source.name for tensor in made.tensors} == {name: rename(name) for name in SHAPES}


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.replace("layer_norm1.weight", "layer_norm1.gamma"),
        lambda name: name.replace("pooler.dense.bias", "pooler.dense.beta"),
        lambda name: f"model{name}",
        lambda name: name.replace("text_model.", "text_model.bert."),
        lambda name: name.upper(),
    ],
)
def test_nothing_is_guessed(rename: Callable[[str], str]) -> None:
    with pytest.raises(PlanError, match="missing "):
        plan_renamed(rename)


@pytest.mark.parametrize(
    "other", [f"module.{name}" for name in list(SHAPES)[:1]] + ["vision_model.post_layernorm.bias"]
)
def test_two_names_of_one_tensor(other: str) -> None:
    nested = "vision_model.vision_model.post_layernorm.bias" if "post" in other else other.removeprefix("module.")
    with pytest.raises(PlanError) as caught:
        make_plan(checkpoint(SHAPES | {other: SHAPES[nested]}), check_config(CONFIG), "tf")
    assert str(caught.value) == f"{nested} and {other} are two names of one tensor, {nested}; remove one of them"


def test_names_of_fresh_5_are_written_as_asked_for() -> None:
    """What `names="v5"` writes is what transformers 5.24 saves of a new model."""
    config = pair_fields("clip_vision_model+bert")
    source, checked = checkpoint(shapes_of(config, "tf"), "tf"), check_config(config)
    said = TABLES["clip_vision_model+bert"]
    for names in ("v4", "v5"):
        made = make_plan(source, checked, "pt", names=names)
        assert {tensor.name: list(tensor.shape) for tensor in made.tensors} == said[f"pt_{names}"]
    assert said["pt_v4"] != said["pt_v5"]


@pytest.mark.parametrize("dialect", ["pt_v4", "pt_v5", "pt_v5_live"])
@pytest.mark.parametrize("pair", ["clip_vision_model+bert", "vit+bert", "deit+bert", "swin+bert"])
def test_every_writer_is_understood(pair: str, dialect: str) -> None:
    config = pair_fields(pair)
    given = {name: tuple(shape) for name, shape in TABLES[pair][dialect].items()}
    made = make_plan(checkpoint(given), check_config(config), "tf")
    expected = {name.partition("/")[2].removesuffix(":0"): shape for name, shape in TABLES[pair]["tf"].items()}
    found = {tensor.name: list(tensor.shape) for tensor in made.tensors}
    assert found | {name: list(value.shape) for name, value in made.restored.items()} == expected


def test_what_stands_beside_a_prefix_is_surplus() -> None:
    shapes = {f"model.{name}": shape for name, shape in SHAPES.items()} | {"criterion.weight": (3,)}
    with pytest.raises(PlanError, match="criterion.weight"):
        make_plan(checkpoint(shapes), check_config(CONFIG), "tf")


def test_a_prefix_of_few_names_is_none() -> None:
    """A model of which a single name fits is another model."""
    shapes = {f"other.{name}": shape for name, shape in list(SHAPES.items())[:3]}
    with pytest.raises(PlanError, match=f"missing \\({len(SHAPES)}\\)"):
        make_plan(checkpoint(shapes), check_config(CONFIG), "tf")


def test_a_model_that_stands_there_twice() -> None:
    shapes = {f"{prefix}.{name}": shape for name, shape in SHAPES.items() for prefix in ("online", "ema")}
    with pytest.raises(PlanError) as caught:
        make_plan(checkpoint(shapes), check_config(CONFIG), "tf")
    assert str(caught.value) == (
        "found the model 2 times, below ema., online.; pass the one that you want: pt2tf({name.removeprefix('ema.'): "
        "tensor for name, tensor in state_dict.items() if name.startswith('ema.')}, OUT, config=...)"
    )


@pytest.mark.parametrize("wrap", ["", "module.", "ema_model."])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("n_averaged", "how many models torch's AveragedModel has averaged, no weight"),
        ("num_updates", "how often an average was updated, no weight"),
        ("step", "how many steps were trained, no weight"),
        ("global_step", "how many steps were trained, no weight"),
    ],
)
def test_counters_are_left_out_with_the_reason(wrap: str, name: str, reason: str) -> None:
    held = checkpoint({f"module.{name}": shape for name, shape in SHAPES.items()})
    counter = StoredTensor(f"{wrap}{name}", "int64", ())
    held = replace(held, tensors={**held.tensors, counter.name: counter})
    dropped = make_plan(held, check_config(CONFIG), "tf").dropped
    assert dropped == (Dropped(counter.name, reason),)


@pytest.mark.parametrize(("dtype", "shape"), [("float32", ()), ("int64", (2,))])
def test_what_is_no_counter_is_surplus(dtype: str, shape: tuple[int, ...]) -> None:
    held = checkpoint(SHAPES)
    held = replace(held, tensors={**held.tensors, "n_averaged": StoredTensor("n_averaged", dtype, shape)})
    with pytest.raises(PlanError, match="n_averaged"):
        make_plan(held, check_config(CONFIG), "tf")


ESM = config_of(fields={"text_config": {"model_type": "esm", **config_of_tower("esm")}})
FREQUENCIES = "text_model.encoder.layer.{}.attention.self.rotary_embeddings.inv_freq"
KEPT_ONCE = "text_model.rotary_embeddings.inv_freq"


def test_what_a_writer_keeps_once_is_of_every_layer() -> None:
    """transformers 5 has one tensor for the frequencies that 4.x and TensorFlow have in each layer."""
    shapes = shapes_of(ESM)
    several = [FREQUENCIES.format(layer) for layer in range(2)]
    once = {KEPT_ONCE: shapes[several[0]], **{name: shape for name, shape in shapes.items() if name not in several}}
    made = make_plan(checkpoint(once), check_config(ESM), "tf")
    assert made.dialects == {"v4": len(shapes) - 2, "v4, once for all": 2}
    sources = {tensor.canonical: tensor.source.name for tensor in made.tensors}
    assert [sources[name] for name in several] == [KEPT_ONCE] * 2
    assert [tensor.name for tensor in made.tensors if tensor.source.name == KEPT_ONCE] == [
        f"text_model/esm/encoder/layer_._{layer}/attention/self/rotary_embeddings/inv_freq" for layer in range(2)
    ]
    with pytest.raises(PlanError, match=f"{several[0]} and {KEPT_ONCE} are two names of one tensor"):
        make_plan(checkpoint({several[0]: shapes[several[0]], **once}), check_config(ESM), "tf")


def test_a_table_that_no_model_reads_may_hold_anything() -> None:
    table = "text_model.embeddings.position_embeddings.weight"
    config = check_config(ESM)
    made = make_plan(checkpoint(shapes_of(ESM) | {table: (49, 126)}), config, "tf")
    assert made.expected == ()
    assert made.dropped == (Dropped(table, "positions are rotary, so that no model reads it"),)
    ((name, value),) = made.restored.items()
    assert (name, value.shape) == ("text_model/esm/embeddings/position_embeddings/embeddings", (49, 126))
    assert not value.any()
    names = [stored for stored, _, _ in made.named]
    assert names[names.index(name) - 1].endswith("word_embeddings/embeddings")
    assert table not in make_plan(checkpoint(shapes_of(ESM)), config, "pt").restored
