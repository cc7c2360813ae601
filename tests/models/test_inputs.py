"""Whatever a person may hand over gives the same answer: arrays, tensors, lists, a dictionary, by position or name."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import keras
import numpy as np
import pytest
import torch

from tests.models.conftest import Case

pytestmark = [pytest.mark.torch, pytest.mark.tf]


@pytest.fixture(scope="module")
def wanted(one: Case) -> np.ndarray:
    return np.asarray(one.keras(**one.inputs).logits_per_image)


def forms(inputs: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        "tensors": {name: keras.ops.convert_to_tensor(value) for name, value in inputs.items()},
        "torch": {name: torch.as_tensor(value) for name, value in inputs.items()},
        "lists": {name: value.tolist() for name, value in inputs.items()},
        "int32": {name: value.astype("int32") if value.dtype.kind == "i" else value for name, value in inputs.items()},
        "float ids": {name: value.astype("float32") for name, value in inputs.items()},
        "float64 pixels": {
            n: value.astype("float64") if value.dtype.kind == "f" else value for n, value in inputs.items()
        },
        "boolean mask": {**inputs, "attention_mask": inputs["attention_mask"].astype(bool)},
        "None left in": {**inputs, "token_type_ids": None, "position_ids": None},
    }


@pytest.mark.parametrize("form", [
    "tensors", "torch", "lists", "int32", "float ids", "float64 pixels", "boolean mask", "None left in",
])  # fmt: skip
def test_every_form_by_name_and_as_a_dictionary(one: Case, wanted: np.ndarray, form: str) -> None:
    given = forms(one.inputs)[form]
    np.testing.assert_array_equal(one.keras(**given).logits_per_image, wanted)
    np.testing.assert_array_equal(one.keras(given).logits_per_image, wanted)
    np.testing.assert_array_equal(one.keras(UserDict(given)).logits_per_image, wanted)


def test_by_position(one: Case, wanted: np.ndarray) -> None:
    given = [one.inputs.get(field) for field in one.keras.fields]
    found = one.keras(*given[: len(one.inputs)])
    np.testing.assert_array_equal(found.logits_per_image, wanted)


def test_dictionary_and_names_together(one: Case, wanted: np.ndarray) -> None:
    given = {name: value for name, value in one.inputs.items() if name != "attention_mask"}
    found = one.keras(given, attention_mask=one.inputs["attention_mask"], return_loss=False)
    np.testing.assert_array_equal(found.logits_per_image, wanted)


def test_towers_alone(one: Case) -> None:
    output = one.keras(one.inputs)
    text = one.keras.text_model(one.inputs["input_ids"], one.inputs["attention_mask"])
    vision = one.keras.vision_model({name: value.tolist() for name, value in one.images.items()})
    given = [one.images[field] for field in one.keras.vision_model.input_fields]
    np.testing.assert_array_equal(one.keras.vision_model(*given)[0], vision[0])
    np.testing.assert_array_equal(text.pooler_output, output.text_model_output.pooler_output)
    np.testing.assert_array_equal(vision[0], output.vision_model_output.last_hidden_state)


def test_padding_does_not_matter(one: Case) -> None:
    ids, mask = one.inputs["input_ids"].copy(), one.inputs["attention_mask"]
    before = one.keras.get_text_features(ids, mask)
    ids[mask == 0] = 42
    if one.kind.pools_the_last:
        ids[:, -1] = one.inputs["input_ids"][:, -1]
        np.testing.assert_allclose(one.keras.get_text_features(ids, mask), before, atol=1e-6)
        ids[:, -1] = 42
        assert not np.isclose(one.keras.get_text_features(ids, mask)[1:], before[1:], atol=1e-2).all(axis=1).any()
        return
    np.testing.assert_allclose(one.keras.get_text_features(ids, mask), before, atol=1e-6)
    alone = one.keras.get_text_features(one.inputs["input_ids"][3:, :6])
    np.testing.assert_allclose(alone, before[3:], atol=1e-5)


def test_large_ids_survive_half_precision() -> None:
    from converter.models import TFVisionTextDualEncoderModel
    from tests.models import reference

    config = reference.make_config("vit", "bert", text_vocab_size=600)
    model = TFVisionTextDualEncoderModel(config, dtype="mixed_bfloat16")
    model.build()
    table = model.text_model.embeddings.words.table
    table.assign(np.arange(600, dtype="float32")[:, None] * np.ones((1, 32), "float32"))
    rows = model.text_model.embeddings.words(keras.ops.convert_to_tensor([[517]]))
    assert float(np.asarray(rows, "float32")[0, 0, 0]) == 517
    inputs = reference.make_inputs(config)
    inputs["input_ids"] = np.full((4, 9), 517.0, "float32")
    assert model(inputs).text_embeds.dtype == "bfloat16"
