"""The three signatures: what they are called and take, and that bytes give what the image processor's numbers make of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

from converter.errors import ArgumentError, ModelError
from converter.exporting.normalisation import Normalisation
from converter.exporting.signatures import ExportOptions, Input, Signature, signatures_of, tensor_specs
from tests.models import reference
from tests.models.conftest import Case, make_case
from tests.models.families import config_of

pytestmark = [pytest.mark.torch, pytest.mark.tf]

if keras.backend.backend() != "tensorflow":
    pytest.skip("about TensorFlow's graphs", allow_module_level=True)

NUMBERS = Normalisation(1 / 255, (0.48, 0.45, 0.40), (0.27, 0.26, 0.21))
IDS, MASK = (Input(name, (None, None), "int64", ("texts", "length")) for name in ("input_ids", "attention_mask"))
STATIC = ExportOptions(batch=2, length=9)


@pytest.fixture(scope="module", params=["clip", "siglip2"])
def case(request: pytest.FixtureRequest) -> Case:
    made = make_case(config_of(request.param))
    made.keras.build()
    return made


def by_name(signatures: tuple[Signature, ...]) -> dict[str, Signature]:
    return {signature.name: signature for signature in signatures}


def asked(signature: Signature, given: dict[str, Any]) -> dict[str, Any]:
    """What a signature answers when it is traced as the writers trace it."""
    import tensorflow as tf

    call = tf.function(signature.function, input_signature=tensor_specs(signature.inputs), autograph=False)
    return {name: value.numpy() for name, value in call(*(given[one.name] for one in signature.inputs)).items()}


def check_outputs(signature: Signature, found: dict[str, Any], images: int, texts: int) -> None:
    sizes = {"images": images, "texts": texts}
    assert {output.name for output in signature.outputs} == found.keys()
    for output in signature.outputs:
        assert found[output.name].shape == tuple(sizes.get(axis, axis) for axis in output.axes)
        assert found[output.name].dtype == np.float32


def test_names_and_axes(case: Case) -> None:
    found = by_name(signatures_of(case.keras))
    assert list(found) == ["similarity", "encode_image", "encode_text"]
    image, text = found["encode_image"].inputs, found["encode_text"].inputs
    assert found["similarity"].inputs == (*text, *image)
    if case.kind.make().model_type == "siglip2":
        assert text == (IDS,)
        assert [(one.name, one.axes[:2]) for one in image] == [
            ("pixel_values", ("images", "patches")), ("pixel_attention_mask", ("images", "patches")),
            ("spatial_shapes", ("images", 2)),
        ]  # fmt: skip
    else:
        height = case.config.vision_config.image_size
        assert text == (IDS, MASK)
        assert image == (Input("pixel_values", (None, 3, height, height), "float32", ("images", 3, height, height)),)


@pytest.mark.parametrize("options", [ExportOptions(), STATIC], ids=["free", "static"])
def test_what_is_answered(case: Case, options: ExportOptions) -> None:
    inputs = reference.make_inputs(case.config, 2, 2, 9)
    wanted = case.keras({name: value for name, value in inputs.items() if name in taken(case)})
    for signature in signatures_of(case.keras, options):
        found = asked(signature, inputs)
        check_outputs(signature, found, 2, 2)
        for name, value in found.items():
            np.testing.assert_allclose(value, wanted[name], atol=1e-5, rtol=0, err_msg=f"{signature.name} {name}")


def taken(case: Case) -> tuple[str, ...]:
    return (*case.keras.serving_fields, *case.keras.vision_model.served)


def test_a_size_that_the_tower_does_not_take_is_refused(case: Case) -> None:
    if "patches" in by_name(signatures_of(case.keras))["encode_image"].inputs[0].axes:
        pytest.skip("takes pictures of any shape, cut up")
    with pytest.raises(ModelError, match="pixel_values is 24 x 36; image_size is"):
        signatures_of(case.keras, ExportOptions(image=(24, 36)))
    with pytest.raises(ArgumentError, match="image is 0"):
        ExportOptions(image=(24, 0))


def test_static_shapes_stand_in_the_inputs(case: Case) -> None:
    for signature in signatures_of(case.keras, STATIC):
        for given in signature.inputs:
            assert given.shape[0] == given.axes[0] == 2
            assert given.name not in ("input_ids", "attention_mask") or given.shape == given.axes == (2, 9)


def test_bytes_are_normalised_inside(case: Case) -> None:
    """Against the plain signature, given what two separate steps in float64 make of the same bytes."""
    plain = by_name(signatures_of(case.keras))["encode_image"]
    signature = by_name(signatures_of(case.keras, ExportOptions(pixels="uint8"), NUMBERS))["encode_image"]
    inputs = dict(reference.make_inputs(case.config, 2, 2, 9))
    last = np.moveaxis(inputs["pixel_values"], 1, -1) if inputs["pixel_values"].ndim == 4 else inputs["pixel_values"]
    inputs["pixels"] = np.random.default_rng(3).integers(0, 256, last.shape, np.uint8)
    # SigLIP 2 has channels last within each patch, so that these are the last axis of both.
    colours = inputs["pixels"].reshape(*last.shape[:-1], -1, 3).astype(np.float64)
    normalised = ((colours / 255 - NUMBERS.mean) / NUMBERS.std).reshape(last.shape).astype(np.float32)
    inputs["pixel_values"] = np.moveaxis(normalised, -1, 1) if last.ndim == 4 else normalised
    assert signature.inputs[0].dtype == "uint8" and signature.inputs[0].name == "pixels"
    assert signature.inputs[0].shape[1:] == (last.shape[1:] if last.ndim == 4 else (None, last.shape[-1]))
    wanted = asked(plain, inputs)["image_embeds"]
    np.testing.assert_allclose(asked(signature, inputs)["image_embeds"], wanted, atol=2e-6, rtol=0)
    other = replace(NUMBERS, mean=NUMBERS.mean[::-1])
    swapped = by_name(signatures_of(case.keras, ExportOptions(pixels="uint8"), other))["encode_image"]
    assert np.abs(asked(swapped, inputs)["image_embeds"] - wanted).max() > 1e-3


def test_bytes_need_the_numbers(case: Case) -> None:
    with pytest.raises(ModelError, match=r"^pixels='uint8' needs the numbers of the image processor\. Put "):
        signatures_of(case.keras, ExportOptions(pixels="uint8"))


@pytest.mark.parametrize("name", ["batch", "length"])
def test_a_static_size_of_nothing(name: str) -> None:
    with pytest.raises(ArgumentError, match=f"^{name} is 0; expected 1 or more$"):
        ExportOptions(**{name: 0})
