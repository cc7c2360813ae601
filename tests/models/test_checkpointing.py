"""Gradient checkpointing through ``keras.RematScope``: the same gradients, of the same dropout, by running layers twice."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from converter.models import AutoTwoTower, named_variables
from converter.models.blocks import Block
from converter.models.remat import Seeds
from tests.models import reference
from tests.models.families import Kind, make_clip

pytestmark = [pytest.mark.torch, pytest.mark.tf]

if keras.backend.backend() != "tensorflow":
    pytest.skip("test_jax.py has its own", allow_module_level=True)
import tensorflow as tf  # noqa: E402

SCOPES: list[dict[str, Any]] = [
    {"mode": "full"},
    {"mode": "list_of_layers", "layer_names": ["layer_._0", "layer_._1", "blocks.0", "layers_._0"]},
]
CONFIGS = {
    # Blocks that know a grid and give attention weights (Swin), and blocks that serve twice (ALBERT).
    "swin+albert": reference.make_config("swin", "albert", text_hidden_dropout_prob=0.2, vision_drop_path_rate=0.3),
    "clip": make_clip(text_attention_dropout=0.2, vision_attention_dropout=0.3),
}
of_each = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def model_in(config: Any, scope: dict[str, Any] | None) -> Any:
    tensors = reference.saved_tensors(reference.torch_model(config))
    with keras.RematScope(**scope) if scope else contextlib.nullcontext():
        return reference.keras_model(config, tensors, "float64")


def gradients_and_loss(model: Any, training: bool) -> tuple[list[np.ndarray], Callable[[], float]]:
    """Gradients by every variable, and a function that computes the loss again with the same dropout."""
    seeds = [tower.seeds for tower in (model.vision_model, model.text_model)]
    states = [np.asarray(seed.state.value) for seed in seeds]
    inputs = reference.make_inputs(model.config, 4, 4)

    def loss() -> Any:
        for seed, state in zip(seeds, states, strict=True):
            seed.state.assign(state)
        return model(inputs, return_loss=True, training=training).loss[0]

    variables = [variable.value for variable in named_variables(model).values()]
    with tf.GradientTape() as tape:
        value = loss()
    found = tape.gradient(value, variables, unconnected_gradients="zero")
    return [np.asarray(tf.convert_to_tensor(gradient)) for gradient in found], lambda: float(loss())


@pytest.mark.parametrize("scope", SCOPES, ids=lambda scope: scope["mode"])
@of_each
def test_gradients_are_those_without(config: Any, scope: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []
    mlp = Block.mlp
    monkeypatch.setattr(Block, "mlp", lambda block, x: (runs.append(block.name), mlp(block, x))[1])
    wanted = gradients_and_loss(model_in(config, None), False)[0]
    once = len(runs)
    found = gradients_and_loss(model_in(config, scope), False)[0]
    listed = scope.get("layer_names", runs)
    assert len(runs) - once == once + sum(name in listed for name in runs[:once]) > once
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


def slope_error(model: Any) -> float:
    """How far the gradient is from the slope of the loss in some direction, in parts of it."""
    gradients, loss = gradients_and_loss(model, True)
    variables = list(named_variables(model).values())
    noise = np.random.default_rng(3)
    steps = [1e-6 * noise.standard_normal(tuple(variable.shape)) for variable in variables]
    values = []
    for sign in (1, -2):
        for variable, step in zip(variables, steps, strict=True):
            variable.assign_add(sign * step)
        values.append(loss())
    slope = sum(float(np.sum(gradient * step)) for gradient, step in zip(gradients, steps, strict=True))
    return abs((values[0] - values[1]) / 2 - slope) / abs(slope)


@of_each
def test_a_second_run_drops_the_same(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert slope_error(model_in(config, SCOPES[0])) < 1e-6
    monkeypatch.setattr(Seeds, "following", lambda seeds, first: contextlib.nullcontext())
    assert slope_error(model_in(config, SCOPES[0])) > 1e-3


def test_fit_with_checkpointing_and_dropout(kind: Kind) -> None:
    keras.utils.set_random_seed(3)
    small = {"vision_num_hidden_layers": 1, "text_num_hidden_layers": 1, **kind.text_dropout}
    with keras.RematScope("full"):
        model = AutoTwoTower.from_config(kind.make(**small))
    model.compile(keras.optimizers.Adam(3e-3), jit_compile=False)
    losses = model.fit(reference.make_inputs(model.config, 4, 4), batch_size=4, epochs=20, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < kind.learns * losses[0]
