"""What SigLIP 2 of any resolution has that no other family has: images as patches, a mask of them, positions for each shape."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from converter.errors import ModelError, UnsupportedOption
from converter.models import TFSiglip2Model
from converter.models.resize import resize_each
from tests.models import reference
from tests.models.conftest import Case, make_case
from tests.models.families import make_siglip2

pytestmark = [pytest.mark.torch, pytest.mark.tf]

FLAGS = ["output_attentions", "output_hidden_states", "return_dict", "training"]


@pytest.fixture(scope="module")
def naflex() -> Case:
    return make_case(make_siglip2())


def test_arguments_are_those_of_pytorch() -> None:
    for name in ("forward", "get_image_features", "get_text_features"):
        theirs = inspect.signature(getattr(transformers.Siglip2Model, name)).parameters
        ours = inspect.signature(getattr(TFSiglip2Model, name.replace("forward", "call"))).parameters
        assert [field for field in ours if field not in FLAGS] == [field for field in theirs if field != "kwargs"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("side", [1, 2, 7, 16])
def test_positions_are_resized_as_torch_does(side: int, dtype: str) -> None:
    grid = np.random.default_rng(side).standard_normal((side, side, 3)).astype(dtype)
    shapes = [(side, side), (1, 1), (3, 5), (16, 16), (29, 2), (1, 40), (13, 19), (40, 1)]
    length = 16 * 16 + 4
    found = np.asarray(resize_each(grid, np.array(shapes, np.int32), length))
    assert (found.dtype, found.shape) == (np.dtype(dtype), (len(shapes), length, 3))
    for got, shape in zip(found, shapes, strict=True):
        rows = reference.interpolated(torch.tensor(grid), shape).numpy()
        atol = 1e-5 if dtype == "float32" else 1e-12
        np.testing.assert_allclose(got[: len(rows)], rows, rtol=0, atol=atol, err_msg=str(shape))
        np.testing.assert_allclose(got[len(rows) :], rows[:1].repeat(length - len(rows), 0), rtol=0, atol=atol)


def test_masked_patches_do_not_matter(naflex: Case) -> None:
    images = naflex.images
    before = np.asarray(naflex.keras.get_image_features(images))
    masked = images["pixel_attention_mask"] == 0
    assert masked.any()
    pixels = np.where(masked[..., None], 7.5, images["pixel_values"])
    np.testing.assert_allclose(naflex.keras.get_image_features({**images, "pixel_values": pixels}), before, atol=1e-6)
    counted = {**images, "pixel_attention_mask": np.ones_like(masked, int)}
    assert np.abs(np.asarray(naflex.keras.get_image_features(counted)) - before)[masked.any(axis=1)].max() > 1e-3


def test_the_shape_of_an_image_matters(naflex: Case) -> None:
    images = naflex.images
    turned = {**images, "spatial_shapes": images["spatial_shapes"][:, ::-1]}
    before, after = (np.asarray(naflex.keras.get_image_features(given)) for given in (images, turned))
    square = images["spatial_shapes"][:, 0] == images["spatial_shapes"][:, 1]
    assert square.any()
    np.testing.assert_array_equal(after[square], before[square])
    assert np.abs(after - before)[~square].max(axis=1).min() > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spatial_shapes": None}, "spatial_shapes missing. Pass what Siglip2ImageProcessor makes: pixel_values "),
        ({"pixel_values": np.zeros((3, 3, 30, 30))}, "pixel_values has shape (3, 3, 30, 30); expected (batch, patches, 108), "),
        ({"pixel_values": np.zeros((3, 30, 107))}, "pixel_values has shape (3, 30, 107); expected (batch, patches, 108), "),
        ({"pixel_attention_mask": np.ones((3, 29), int)}, "pixel_attention_mask has shape (3, 29); expected (3, 30), "),
        ({"spatial_shapes": np.ones((2, 2), int)}, "spatial_shapes has shape (2, 2); expected (3, 2), "),
        ({"spatial_shapes": np.ones((3, 3), int)}, "spatial_shapes has shape (3, 3); expected (3, 2), "),
        ({"spatial_shapes": [[5, 5], [5, 7], [1, 1]]}, "spatial_shapes[1] is 5 x 7; expected at least one row and one "),
        ({"spatial_shapes": [[5, 5], [1, 1], [0, 4]]}, "spatial_shapes[2] is 0 x 4; expected at least one row and one "),
        ({"spatial_shapes": [[5, 5], [-2, -3], [1, 4]]}, "spatial_shapes[1] is -2 x -3; expected at least one row "),
        ({"spatial_shapes": [[70000, 70000], [1, 1], [1, 4]]}, "spatial_shapes[0] is 70000 x 70000; expected at least "),
    ],
)  # fmt: skip
def test_images_that_do_not_fit(naflex: Case, change: dict[str, Any], message: str) -> None:
    for call, given in ((naflex.keras, naflex.inputs), (naflex.keras.get_image_features, naflex.images)):
        with pytest.raises(ModelError) as caught:
            call({**given, **change})
        assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_num_patches": 24}, "vision_config.num_patches is 24, supported is a square such as 256: the positions "),
        ({"vision_num_patches": 0}, "vision_config.num_patches is 0, supported is a square such as 256: the positions "),
        ({"vision_patch_size": [6, 6]}, "vision_config.patch_size is [6, 6], supported is one integer: a patch is a "),
        ({"vision_vision_use_head": False}, "vision_config.vision_use_head is False, supported is True: without its "),
    ],
)  # fmt: skip
def test_configs_of_which_there_is_no_model(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedOption) as caught:
        TFSiglip2Model(make_siglip2(**change))
    assert str(caught.value).startswith(message)


def test_what_the_image_processor_makes_is_what_the_model_takes(naflex: Case) -> None:
    from PIL import Image
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    noise = np.random.default_rng(2)
    pictures = [
        Image.fromarray(noise.integers(0, 255, (*size, 3), np.uint8)) for size in ((40, 40), (20, 90), (70, 33))
    ]
    made = dict(Siglip2ImageProcessorPil(patch_size=6, max_num_patches=40)(pictures, return_tensors="np"))
    assert len(set(map(tuple, made["spatial_shapes"]))) == 3
    assert not made["pixel_attention_mask"].all()
    with torch.no_grad():
        wanted = naflex.torch.get_image_features(**reference.torch_inputs(made)).pooler_output
    np.testing.assert_allclose(naflex.keras.get_image_features(made), wanted, rtol=0, atol=1e-5)
