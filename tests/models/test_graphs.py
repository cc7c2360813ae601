"""Everything Keras does with a model: graphs, XLA, predict, fit, mixed precision, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from transformers import AutoConfig

from converter.models import (
    AutoTwoTower,
    DualEncoderOutput,
    TFVisionTextDualEncoderModel,
    build_tower,
    named_variables,
)
from tests.models import reference
from tests.models.conftest import Case
from tests.models.families import Kind, prefix_of
from tests.towers import TOWERS

if keras.backend.backend() != "tensorflow":
    pytest.skip("about TensorFlow's graphs", allow_module_level=True)
import tensorflow as tf

pytestmark = [pytest.mark.torch, pytest.mark.tf]

IDS = tf.TensorSpec((None, None), tf.int32)
FLAGS = {"output_attentions": True, "output_hidden_states": True}


def as_tf(inputs: dict[str, Any]) -> dict[str, Any]:
    return {
        name: tf.constant(value, tf.float32 if value.dtype.kind == "f" else tf.int32) for name, value in inputs.items()
    }


def signature(case: Case) -> dict[str, Any]:
    """Nothing is known of any input but how many axes it has."""
    pixels = tf.TensorSpec((None,) * case.inputs["pixel_values"].ndim, tf.float32)
    return {name: pixels if name == "pixel_values" else IDS for name in case.inputs}


@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
def test_tf_function_with_unknown_batch_and_length(case: Case, xla: bool) -> None:
    @tf.function(input_signature=[signature(case)], jit_compile=xla)
    def run(inputs: dict[str, Any]) -> Any:
        return case.keras(inputs, return_loss=False, **FLAGS)

    for images, texts, length in ((3, 4, 9), (2, 1, 5)):
        inputs = reference.make_inputs(case.config, images, texts, length)
        output = run(as_tf(inputs))
        assert isinstance(output, DualEncoderOutput)
        with torch.no_grad():
            wanted = reference.taps(case.torch(**reference.torch_inputs(inputs), **FLAGS))
        reference.assert_same(reference.taps(output), wanted, 1e-5, inputs["attention_mask"])
    if not xla:
        assert run.experimental_get_tracing_count() == 1


def test_loss_in_a_graph_refuses_unequal_batches(one: Case) -> None:
    @tf.function(input_signature=[signature(one)])
    def run(inputs: dict[str, Any]) -> Any:
        return one.keras(inputs, return_loss=True).loss

    equal = reference.make_inputs(one.config, 4, 4)
    np.testing.assert_allclose(run(as_tf(equal)), one.keras(equal, return_loss=True).loss, atol=1e-6)
    with pytest.raises(tf.errors.InvalidArgumentError):
        run(as_tf(one.inputs))


def test_an_image_of_another_size_fails_in_a_graph(one: Case) -> None:
    @tf.function(input_signature=[signature(one)])
    def run(inputs: dict[str, Any]) -> Any:
        return one.keras(inputs).logits_per_image

    pixels = one.inputs["pixel_values"]
    other = np.zeros((3, 3, 18, 24), np.float32) if pixels.ndim == 4 else pixels[..., :-1]
    with pytest.raises(tf.errors.InvalidArgumentError):
        run(as_tf({**one.inputs, "pixel_values": other}))


def test_predict(one: Case) -> None:
    inputs = reference.make_inputs(one.config, 6, 6)
    found = one.keras.predict(inputs, batch_size=3, verbose=0)
    assert isinstance(found, DualEncoderOutput)
    wanted = one.keras(inputs)
    np.testing.assert_allclose(found.text_embeds, wanted.text_embeds, atol=1e-6)
    np.testing.assert_allclose(found.image_embeds, wanted.image_embeds, atol=1e-6)
    logits = np.asarray(wanted.logits_per_image)
    np.testing.assert_allclose(found.logits_per_image, np.concatenate([logits[:3, :3], logits[3:, 3:]]), atol=1e-5)
    np.testing.assert_allclose(
        found.vision_model_output.pooler_output, wanted.vision_model_output.pooler_output, rtol=1e-5, atol=5e-6
    )


def test_a_keras_file_keeps_everything(case: Case, tmp_path: Path) -> None:
    case.keras.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(case.keras)
    assert loaded.config.to_dict() == case.keras.config.to_dict()
    for name, variable in named_variables(loaded).items():
        np.testing.assert_array_equal(variable.value, named_variables(case.keras)[name].value, err_msg=name)
    np.testing.assert_array_equal(loaded(case.inputs).logits_per_image, case.keras(case.inputs).logits_per_image)


def test_towers_built_alone_keep_their_weights_through_a_keras_file(dual: Case, tmp_path: Path) -> None:
    from converter.models import build_tower

    text = build_tower(dual.config.text_config)
    ids = dual.inputs["input_ids"]
    before = text(ids).pooler_output
    model = TFVisionTextDualEncoderModel(vision_model=build_tower(dual.config.vision_config), text_model=text)
    np.testing.assert_array_equal(model.text_model(ids).pooler_output, before)
    model.build()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.text_model(ids).pooler_output, before)


def test_fit_lowers_the_loss_and_leaves_a_locked_tower(kind: Kind) -> None:
    fit_with_a_locked_tower(kind, xla=False)


def test_fit_with_xla(one_kind: Kind) -> None:
    fit_with_a_locked_tower(one_kind, xla=True)


def fit_with_a_locked_tower(kind: Kind, xla: bool) -> None:
    keras.utils.set_random_seed(11)
    config = kind.make(**kind.text_dropout)
    model = AutoTwoTower.from_config(config)
    model.compile(optimizer=keras.optimizers.Adam(3e-3), jit_compile=xla)
    model.vision_model.trainable = False
    before = {name: np.array(variable.value) for name, variable in named_variables(model).items()}
    inputs = reference.make_inputs(config, 4, 4)
    history = model.fit(inputs, batch_size=4, epochs=25, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert history[-1] < kind.learns * history[0]
    for name, variable in named_variables(model).items():
        changed = not np.array_equal(before[name], variable.value)
        if name.startswith(prefix_of(model, "vision")):
            assert not changed, name
        elif not name.endswith(("key/bias", "k_proj/bias", "token_type_embeddings/embeddings")):
            assert changed, name


@pytest.mark.parametrize("built", [False, True])
def test_a_tower_is_locked_before_it_is_built_and_after(kind: Kind, built: bool) -> None:
    model = AutoTwoTower.from_config(kind.make())
    if built:
        model.build()
    model.vision_model.trainable = False
    model.build()
    by_id = {id(variable): name for name, variable in named_variables(model).items()}
    trained = {by_id[id(variable)] for variable in model.trainable_variables}
    assert trained == {name for name in by_id.values() if not name.startswith(prefix_of(model, "vision"))}
    assert 3 < len(trained) < len(by_id) - 3
    model.vision_model.trainable = True
    assert len(model.trainable_variables) == len(by_id)


@pytest.mark.parametrize("built", [False, True])
def test_every_weight_is_in_the_list_of_layers(kind: Kind, built: bool) -> None:
    """To freeze all and thaw the last is how transfer learning is done with Keras."""
    model = AutoTwoTower.from_config(kind.make())
    if built:
        model.build()
    for layer in model.layers:
        layer.trainable = False
    model.build()
    assert model.trainable_variables == []
    thawed = {layer.name: layer for layer in model.layers}
    for layer in thawed.values():
        layer.trainable = True
        assert {id(v) for v in model.trainable_variables} >= {id(v) for v in layer.weights}
    held = [id(variable) for variable in named_variables(model).values()]
    assert len(model.trainable_variables) == len(held)
    assert {id(model.logit_scale)} == {id(variable) for variable in thawed["logit_scale"].weights}
    assert len(model.weights) - len(held) == sum(v.path.endswith("seed_generator_state") for v in model.weights)


def test_a_projection_is_a_layer(dual: Case) -> None:
    """With its weights, and a lock of its own; that the model has, orders and saves its weights is the business of others."""
    one, model = dual, reference.keras_model(dual.config, dual.tensors)
    for layer in model.layers:
        layer.trainable = False
    projection = model.visual_projection
    assert model.get_layer("visual_projection") is projection
    projection.trainable = True
    assert model.trainable_variables == [projection.kernel] == projection.weights
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    before = {name: np.array(variable.value) for name, variable in named_variables(model).items()}
    model.fit(reference.make_inputs(one.config, 2, 2), verbose=0)
    changed = [name for name, v in named_variables(model).items() if not np.array_equal(before[name], v.value)]
    assert [name.rpartition("visual_projection")[2] for name in changed] == ["/kernel"]
    pooled = model.vision_model(pixel_values=one.inputs["pixel_values"]).pooler_output
    np.testing.assert_array_equal(projection(pooled), model.get_image_features(pixel_values=one.inputs["pixel_values"]))


@pytest.mark.by_turns
@pytest.mark.parametrize("name", TOWERS)
def test_every_weight_of_a_tower_is_in_its_list_of_layers(name: str) -> None:
    tower = build_tower(AutoConfig.for_model(name, **TOWERS[name].config))
    tower.build()
    trained = sum(variable.trainable for variable in named_variables(tower).values())
    assert len(tower.trainable_variables) == trained > 0.2 * len(named_variables(tower))
    for layer in tower.layers:
        layer.trainable = False
    assert tower.trainable_variables == []
    for layer in tower.layers:
        layer.trainable = True
    assert len(tower.trainable_variables) == trained


def test_dropout_is_on_in_training_only(one: Case) -> None:
    config = one.kind.make(**one.kind.vision_dropout)
    model = reference.keras_model(config, one.tensors)
    still = model(one.inputs).logits_per_image
    np.testing.assert_array_equal(still, model(one.inputs, training=False).logits_per_image)
    np.testing.assert_allclose(still, one.keras(one.inputs).logits_per_image, atol=1e-6)
    moved = [np.asarray(model(one.inputs, training=True).logits_per_image) for _ in range(2)]
    assert np.abs(moved[0] - still).max() > 1e-3
    assert np.abs(moved[0] - moved[1]).max() > 1e-3


def test_dropout_keeps_the_mean() -> None:
    config = reference.make_config("vit", "bert", text_attention_probs_dropout_prob=0.0, text_hidden_dropout_prob=0.4)
    model = TFVisionTextDualEncoderModel(config)
    model.build()
    drop = model.text_model.embeddings.drop
    values = np.asarray(drop(keras.ops.ones((400, 500)), True))
    assert set(np.unique(values)) == {0.0, np.float32(1 / 0.6)}
    assert abs(values.mean() - 1) < 0.01


def test_mixed_precision_stays_near(one: Case) -> None:
    model = reference.keras_model(one.config, one.tensors, "mixed_bfloat16")
    output = model(one.inputs)
    assert output.text_embeds.dtype == "bfloat16"
    wanted = np.asarray(one.keras(one.inputs).text_embeds)
    assert np.abs(np.asarray(output.text_embeds, "float32") - wanted).max() < 0.05


def test_saved_model(one: Case, tmp_path: Path) -> None:
    archive = keras.export.ExportArchive()
    archive.track(one.keras)
    archive.add_endpoint("serve", lambda inputs: one.keras(inputs).logits_per_image, input_signature=[signature(one)])
    archive.write_out(str(tmp_path / "saved"), verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(loaded.serve(as_tf(one.inputs)), one.keras(one.inputs).logits_per_image, atol=1e-5)


def test_accumulated_gradients_move_the_weights_once(one_kind: Kind) -> None:
    config = one_kind.make(**one_kind.no_dropout)
    tensors = reference.saved_tensors(reference.torch_model(config))
    model, beside = reference.keras_model(config, tensors), reference.keras_model(config, tensors)
    inputs = reference.make_inputs(config, 4, 4)
    model.compile(keras.optimizers.SGD(0.5, gradient_accumulation_steps=2), jit_compile=False)
    model.fit(inputs, batch_size=2, epochs=1, shuffle=False, verbose=0)
    variables = list(named_variables(beside).values())
    with tf.GradientTape() as tape:
        halves = [{name: value[start : start + 2] for name, value in inputs.items()} for start in (0, 2)]
        loss = sum(beside(half, return_loss=True).loss for half in halves) / 2
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    moved = 0
    for (name, after), variable, gradient in zip(named_variables(model).items(), variables, gradients, strict=True):
        if gradient is None:
            np.testing.assert_array_equal(after.value, variable.value, err_msg=name)
            continue
        wanted = np.asarray(variable.value) - 0.5 * np.asarray(tf.convert_to_tensor(gradient))
        np.testing.assert_allclose(after.value, wanted, atol=2e-6, err_msg=name)
        moved += not np.array_equal(wanted, variable.value)
    assert moved > len(variables) // 2
