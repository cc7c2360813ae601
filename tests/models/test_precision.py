"""Half precision is off by no more than PyTorch's at the same precision, against the truth in float64."""

from __future__ import annotations

import copy
from typing import Any

import keras
import numpy as np
import pytest
import torch

from converter.models.parts import Dense
from tests.models import reference
from tests.models.families import Kind, config_of
from tests.torture import rounds

pytestmark = [pytest.mark.torch, pytest.mark.tf]

POLICIES = ("mixed_bfloat16", "mixed_float16", "bfloat16", "float16")
CONFIGS = [
    "clip_vision_model+bert",
    "vit+roberta",
    "clip",
    "swin+mpnet",
    "dinov2+albert",
    "beit+clip_text_model",
    "siglip_vision_model+xlm-roberta-xl",
    "siglip2",
][: rounds(3, 8)]
TAPS = ("image_embeds", "text_embeds", "logits_per_image")


def errors(found: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> dict[str, float]:
    """Root mean square error of each output; refuses what is not finite."""
    assert all(np.isfinite(found[name]).all() for name in TAPS)
    return {name: float(np.sqrt(np.mean((found[name] - truth[name]) ** 2))) for name in TAPS}


def torch_taps(model: Any, inputs: dict[str, Any], dtype: Any, mixed: Any = None) -> dict[str, np.ndarray]:
    with torch.no_grad(), torch.autocast("cpu", dtype=mixed or torch.bfloat16, enabled=mixed is not None):
        output = model(**reference.torch_inputs(inputs, dtype))
    return {name: output[name].double().numpy() for name in TAPS}


def keras_taps(model: Any, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
    output = model(inputs)
    return {name: np.asarray(keras.ops.cast(output[name], "float32")).astype(np.float64) for name in TAPS}


def products(tower: Any, inputs: dict[str, Any]) -> set[str]:
    """The dtypes that a tower's dense parts give."""
    seen: list[Any] = []
    dense = Dense.__call__

    def spied(part: Any, x: Any) -> Any:
        seen.append(dense(part, x))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dense, "__call__", spied)
        tower({name: value for name, value in inputs.items() if name in tower.input_fields})
    assert len(seen) > 6
    return {keras.backend.standardize_dtype(found.dtype) for found in seen}


@pytest.mark.parametrize("config_name", CONFIGS)
def test_no_worse_than_pytorch(config_name: str) -> None:
    config = config_of(config_name)
    ours_of = reference.torch_model(config, "sdpa")
    tensors, inputs = reference.saved_tensors(ours_of), reference.make_inputs(config, 32, 8)
    truth = torch_taps(copy.deepcopy(ours_of).double(), inputs, torch.float64)
    for policy in POLICIES:
        half = getattr(torch, policy.removeprefix("mixed_"))
        if policy.startswith("mixed"):
            theirs = torch_taps(ours_of, inputs, torch.float32, half)
        else:
            theirs = torch_taps(copy.deepcopy(ours_of).to(half), inputs, half)
        model = reference.keras_model(config, tensors, policy)
        ours = keras_taps(model, inputs)
        allowed, found = errors(theirs, truth), errors(ours, truth)
        assert all(found[name] <= 2 * allowed[name] for name in TAPS), (policy, found, allowed)
        assert all(found[name] > 1e-6 for name in TAPS), "not half precision at all"
        for tower in (model.vision_model, model.text_model):
            assert products(tower, inputs) == {policy.removeprefix("mixed_")}


def test_one_weight_off_by_a_sixteenth_shows(kind: Kind) -> None:
    config = kind.make()
    model = reference.torch_model(config, "sdpa")
    tensors, inputs = reference.saved_tensors(model), reference.make_inputs(config, 32, 8)
    truth = torch_taps(copy.deepcopy(model).double(), inputs, torch.float64)
    allowed = errors(torch_taps(copy.deepcopy(model).to(torch.float16), inputs, torch.float16), truth)
    name = next(name for name in tensors if name.endswith(("text_projection.weight", "text_model.head.weight")))
    tensors[name] = tensors[name] * (1 + np.eye(*tensors[name].shape, dtype=np.float32) / 16)
    found = errors(keras_taps(reference.keras_model(config, tensors, "float16"), inputs), truth)
    assert found["text_embeds"] > 2 * allowed["text_embeds"]


@pytest.mark.parametrize("policy", POLICIES)
def test_ids_are_never_floats(policy: str) -> None:
    # bfloat16 has 8 bits: 30522 would become 30464. Weights differ by row only, so an id that moved would show.
    config = reference.make_config("vit", "bert", text_vocab_size=30600)
    model = reference.keras_model(config, reference.saved_tensors(reference.torch_model(config)), policy)
    words = model.text_model.embeddings.words
    ids = np.array([[30522, 30464, 2049, 2050, 257, 7]], np.int64)
    seen: list[Any] = []
    words_called = type(words).__call__

    class Spied(type(words)):  # type: ignore[misc]
        def __call__(self, given: Any) -> Any:
            seen.append(given)
            return words_called(self, given)

    words.__class__ = Spied
    model({"input_ids": ids, "pixel_values": reference.make_inputs(config, 1, 1)["pixel_values"]})
    model.get_text_features(ids.astype(np.float32))
    model.text_model(keras.ops.convert_to_tensor(ids))
    assert [str(keras.backend.standardize_dtype(given.dtype)) for given in seen] == ["int32"] * 3
    for given in seen:
        np.testing.assert_array_equal(given, ids)
