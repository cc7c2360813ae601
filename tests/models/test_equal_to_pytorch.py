"""The Keras models compute what PyTorch computes: every tap, the loss and every gradient."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch

from converter.models import named_variables
from converter.names.towers import tower_rules
from tests.models import reference
from tests.models.conftest import FURTHER_TEXT, FURTHER_VISION, PAIRS, Case, make_case
from tests.models.families import FAMILIES, WHOLES, config_of
from tests.sampling import changed_files, in_full
from tests.torture import FULL
from tests.towers import TOWERS, each_once

pytestmark = [pytest.mark.torch, pytest.mark.tf]

FURTHER = ["+".join(pair) for pair in each_once(FURTHER_VISION, FURTHER_TEXT)]
if (
    keras.backend.backend() == "jax" and not FULL
):  # compiling costs most there: the towers that are checked in full today
    TODAY = in_full(changed_files())
    FURTHER = [name for name in FURTHER if TODAY.intersection(name.split("+"))]
ODD_WHOLES = [name for name in WHOLES if name not in FAMILIES]  # which the fixture `case` has
FLAGS = {"output_attentions": True, "output_hidden_states": True}


def run_torch(model: Any, inputs: dict[str, Any], dtype: Any = torch.float32, **flags: Any) -> dict[str, Any]:
    with torch.no_grad():
        return reference.taps(model(**reference.torch_inputs(inputs, dtype), **flags))


def test_every_tap_in_float32(case: Case) -> None:
    found = reference.taps(case.keras(case.inputs, **FLAGS))
    wanted = run_torch(case.torch, case.inputs, **FLAGS)
    layers = case.config.vision_config.num_hidden_layers + case.config.text_config.num_hidden_layers
    assert len([name for name in wanted if "attentions" in name]) == layers
    reference.assert_same(found, wanted, 1e-5, case.inputs["attention_mask"])


def test_a_wrong_weight_shows(case: Case) -> None:
    swapped = dict(case.tensors)
    query, key = case.kind.query
    name = next(n for n in swapped if n.startswith("text_model") and n.endswith(query))
    other = name.replace(query, key)
    swapped[name], swapped[other] = swapped[other], swapped[name]
    model = reference.keras_model(case.config, swapped)
    wanted = run_torch(case.torch, case.inputs, **FLAGS)
    with pytest.raises(AssertionError, match=r"text\.layers\.0"):
        reference.assert_same(reference.taps(model(case.inputs, **FLAGS)), wanted, 1e-5, case.inputs["attention_mask"])


@pytest.mark.parametrize("name", [*FURTHER, *ODD_WHOLES])
def test_every_tap_of_further_towers_in_float32(name: str) -> None:
    case = make_case(config_of(name))
    found = reference.taps(case.keras(case.inputs, **FLAGS))
    wanted = run_torch(case.torch, case.inputs, **FLAGS)
    attends = "attention_output" in (tower_rules("vision", case.config.vision_config.model_type) or {}).get("taps", ())
    assert attends == bool([name for name in wanted if "vision.attentions" in name])
    attends = "attention_output" in (tower_rules("text", case.config.text_config.model_type) or {}).get("taps", ())
    assert attends == bool([name for name in wanted if "text.attentions" in name])
    reference.assert_same(found, wanted, 1e-5, case.inputs["attention_mask"])


@pytest.mark.skipif(
    keras.backend.backend() == "jax" and not FULL, reason="float32 shows where, and gradients show that it is exact"
)
@pytest.mark.parametrize("name", [*PAIRS, *FURTHER, *WHOLES])
def test_every_tap_in_float64(name: str) -> None:
    config = config_of(name)
    model = reference.torch_model(config, "sdpa", torch.float64)
    ours = reference.keras_model(config, reference.saved_tensors(model), "float64")
    inputs = reference.make_inputs(config)
    inputs["pixel_values"] = inputs["pixel_values"].astype(np.float64)
    found = reference.taps(ours(inputs, output_hidden_states=True))
    wanted = run_torch(model, inputs, torch.float64, output_hidden_states=True)
    assert all(value.dtype == np.float64 for value in found.values())
    reference.assert_same(found, wanted, 1e-10, inputs["attention_mask"])


def test_explicit_positions_and_types_and_no_mask(case: Case) -> None:
    rng = np.random.default_rng(5)
    shape = case.inputs["input_ids"].shape
    text = case.config.text_config
    inputs = {
        "input_ids": rng.integers(3, getattr(text, "vocab_size", 0x110000), shape),
        **{name: value for name, value in case.images.items() if name != "pixel_attention_mask"},
        "position_ids": rng.integers(0, text.max_position_embeddings, shape),
    }
    assert ("token_type_ids" in case.keras.fields) == hasattr(text, "type_vocab_size")
    if "token_type_ids" in case.keras.fields:
        inputs["token_type_ids"] = rng.integers(0, text.type_vocab_size, shape)
    reference.assert_same(reference.taps(case.keras(inputs, **FLAGS)), run_torch(case.torch, inputs, **FLAGS), 1e-5)


def test_loss(case: Case) -> None:
    inputs = reference.make_inputs(case.config, images=4, texts=4)
    output = case.keras(inputs, return_loss=True)
    with torch.no_grad():
        wanted = case.torch(**reference.torch_inputs(inputs), return_loss=True).loss
    assert tuple(output.loss.shape) == (1,)
    np.testing.assert_allclose(np.asarray(output.loss)[0], wanted.numpy(), rtol=0, atol=1e-6)


def gradients_of(model: Any, inputs: dict[str, Any]) -> list[np.ndarray | None]:
    """Gradient of the loss by every checkpoint variable, on whatever backend Keras has."""
    variables = list(named_variables(model).values())
    if keras.backend.backend() == "jax":
        import jax

        tensors = model._tensors(dict(inputs, return_loss=True))
        fixed = [variable.value for variable in model.non_trainable_variables]

        def loss_of(values: list[Any]) -> Any:
            return model.stateless_call(values, fixed, **tensors)[0]["loss"][0]

        found = jax.grad(loss_of)([variable.value for variable in model.trainable_variables])
        by_id = {id(v): np.asarray(g) for v, g in zip(model.trainable_variables, found, strict=True)}
        return [by_id.get(id(variable)) for variable in variables]
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = model(inputs, return_loss=True).loss[0]
    found = tape.gradient(loss, [variable.value for variable in variables])
    return [None if gradient is None else np.asarray(tf.convert_to_tensor(gradient)) for gradient in found]


@pytest.mark.parametrize("config_name", [*PAIRS, *FURTHER, *WHOLES])
def test_gradient_of_every_weight(config_name: str) -> None:
    config = config_of(config_name)
    model = reference.torch_model(config, "sdpa", torch.float64)
    ours = reference.keras_model(config, reference.saved_tensors(model), "float64")
    inputs = reference.make_inputs(config, images=4, texts=4)
    found = gradients_of(ours, inputs)
    loss = model(**reference.torch_inputs(inputs, torch.float64), return_loss=True).loss
    np.testing.assert_allclose(ours(inputs, return_loss=True).loss[0], loss.detach(), rtol=0, atol=1e-10)
    loss.backward()
    idle = sum(parameter.grad is None for parameter in model.parameters())  # LUKE keeps what no text reaches
    wanted = reference.gradients(model)
    towers = (config.vision_config.model_type, config.text_config.model_type)
    unreached = tuple(part for tower in towers if tower in TOWERS for part in TOWERS[tower].idle)
    seen = 0
    for (name, variable), gradient in zip(named_variables(ours).items(), found, strict=True):
        want = reference.to_tf(wanted[reference.pt_name(name, config)], name)
        got = np.zeros_like(want) if gradient is None else gradient
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-10, err_msg=name)
        seen += bool(np.abs(want).max() > 0)
        idle += not variable.trainable or any(part in name for part in unreached)
    assert seen > 0.9 * (len(found) - idle)
