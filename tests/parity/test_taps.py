"""Names of taps: their order, their words, their masks, and how they are collected from an output."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from converter.errors import ParityError
from converter.parity.taps import (
    TOWERS,
    InnerTaps,
    attending,
    collect_taps,
    in_words,
    is_inner,
    is_state,
    is_tap,
    masked_axes,
    model_order,
    tower_of,
)
from tests.parity.samples import SHAPES


def test_taps_sort_as_data_flows() -> None:
    inner = ["vision.layers.1.0.attention_output", "vision.layers.1.0.mlp_output", "vision.layers.1.1.attention_output"]
    inner += ["vision.layers.1.10.mlp_output"]
    names = [*SHAPES, "text.layers.2", "text.layers.10", "text.attentions.10", "text.layers.10.mlp_output", *inner]
    random.Random(3).shuffle(names)
    ordered = sorted(names, key=model_order)
    assert ordered == [
        "vision.embeddings", "vision.attentions.0", "vision.layers.0", *inner, "vision.layers.1",
        "vision.last_hidden_state", "vision.pooled",
        "text.embeddings", "text.attentions.0", "text.layers.0", "text.layers.2",
        "text.attentions.10", "text.layers.10.mlp_output", "text.layers.10",
        "text.last_hidden_state", "text.pooled",
        *[name for name in SHAPES if "." not in name],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("text.layers.3", "text tower, layer 3"),
        ("text.layers.3.attention_output", "text tower, layer 3, attention output"),
        ("vision.layers.1.0.mlp_output", "vision tower, layer 1, block 0, MLP output"),
        ("vision.attentions.0", "vision tower, attention map of layer 0"),
        ("vision.embeddings", "vision tower, embeddings"),
        ("text.pooled", "text tower, pooled output"),
        ("text.last_hidden_state", "text tower, last hidden state"),
        ("image_features", "projected image features"),
        ("logits_per_text", "logits per text"),
        ("loss", "loss"),
    ],
)
def test_taps_have_names_for_people(name: str, words: str) -> None:
    assert in_words(name) == words


@pytest.mark.parametrize(
    "name", ["", "text", "text.layers", "text.layers.", "text.layers.01", "text.layers.-1", "audio.pooled", "Loss",
             "text.embeddings.0", "text.layers.0.x", "text.layers.0\n", "text.layers.99999", "text.layers.٣",
             "text.layers.0.mlp", "text.attentions.0.mlp_output", "text.layers.0.0", "text.layers.0.0.0.mlp_output"]
)  # fmt: skip
def test_other_names_are_no_taps(name: str) -> None:
    assert not is_tap(name)
    with pytest.raises(ParityError, match="is not a layer output"):
        model_order(name)


@pytest.mark.parametrize("name", SHAPES)
def test_masked_axes_are_those_of_text_positions(name: str) -> None:
    assert is_tap(name)
    expected = {"text.attentions.0": (2, 3), "text.embeddings": (1,), "text.layers.0": (1,)}
    expected["text.last_hidden_state"] = (1,)
    assert masked_axes(name) == expected.get(name, ())
    assert tower_of(name) == (name.split(".")[0] if "." in name else None)


def test_inner_taps_are_told_apart_by_their_order() -> None:
    inner = InnerTaps()
    for number in range(3):
        for tower in ("vision", "text"):
            inner.keep(tower, "attention_output", number)
            inner.keep(tower, "mlp_output", 10 + number)
    assert inner.named({"vision": [2, 1]}) == {
        "vision.layers.0.0.attention_output": 0, "vision.layers.0.1.attention_output": 1,
        "vision.layers.1.0.attention_output": 2, "vision.layers.0.0.mlp_output": 10,
        "vision.layers.0.1.mlp_output": 11, "vision.layers.1.0.mlp_output": 12,
        "text.layers.0.attention_output": 0, "text.layers.1.attention_output": 1, "text.layers.2.attention_output": 2,
        "text.layers.0.mlp_output": 10, "text.layers.1.mlp_output": 11, "text.layers.2.mlp_output": 12,
    }  # fmt: skip
    assert all(is_inner(name) and not is_state(name) for name in inner.named({}))
    assert masked_axes("text.layers.0.mlp_output") == (1,)
    assert masked_axes("vision.layers.0.mlp_output") == ()
    assert is_state("text.layers.0")
    assert not is_state("text.attentions.0")


def output(**changes: Any) -> Any:
    def tower(start: int) -> Any:
        hidden = tuple(np.full((1, 2, 3), start + n) for n in range(3))
        maps = (np.zeros((1, 1, 2, 2)),) * 2
        return SimpleNamespace(hidden_states=hidden, last_hidden_state=hidden[-1] + 0.5, attentions=maps)

    fields = {"image_embeds": 1, "text_embeds": 2, "logits_per_image": 3, "logits_per_text": 4, "loss": None}
    made = SimpleNamespace(vision_model_output=tower(10), text_model_output=tower(20), **fields)
    for name, value in changes.items():
        setattr(made.text_model_output, name, value)
    return made


POOLED, PROJECTED = {"vision": 7, "text": 8}, {"vision": 5, "text": 6}


def test_layers_are_the_hidden_states_after_the_first() -> None:
    found = collect_taps(output(), POOLED, PROJECTED, attentions=TOWERS, to_numpy=np.asarray)
    assert list(found) == sorted(found, key=model_order)
    hidden = [float(found[f"text.{name}"][0, 0, 0]) for name in ("embeddings", "layers.0", "layers.1")]
    assert hidden == [20, 21, 22]
    assert found["text.last_hidden_state"][0, 0, 0] == 22.5
    assert [int(found[name]) for name in ("image_features", "text_features", "image_embeds")] == [5, 6, 1]
    assert [int(found[name]) for name in ("vision.pooled", "text.pooled")] == [7, 8]
    assert "text.layers.2" not in found
    assert "text.attentions.1" in found
    assert "loss" not in found
    assert "text.attentions.1" not in collect_taps(output(), POOLED, PROJECTED, attentions=(), to_numpy=np.asarray)


def test_a_layer_of_several_states_is_the_last() -> None:
    states = tuple(np.full((1, 2, 3), number) for number in range(4))
    found = collect_taps(
        output(hidden_states=(states[0], states[1:3], states[3:])),
        POOLED,
        PROJECTED,
        attentions=(),
        to_numpy=np.asarray,
    )
    assert [int(found[f"text.{name}"][0, 0, 0]) for name in ("embeddings", "layers.0", "layers.1")] == [0, 2, 3]
    assert "text.layers.2" not in found


def test_towers_whose_attention_maps_can_be_compared() -> None:
    def of(vision: str, text: str) -> tuple[str, ...]:
        towers = (SimpleNamespace(model_type=name) for name in (vision, text))
        return attending(
            SimpleNamespace(**dict(zip(("vision_config", "text_config"), towers, strict=True))), wanted=True
        )

    assert of("swin", "bert") == ("vision", "text")
    assert of("convnext", "longformer") == ()
    assert of("maskformer-swin", "bert") == ("text",)


@pytest.mark.parametrize(
    "changes",
    [{"hidden_states": None}, {"hidden_states": ()}, {"hidden_states": (1,)},
     {"last_hidden_state": None}, {"attentions": None}, {"attentions": ()}, {"attentions": (None, None)}],
)  # fmt: skip
def test_an_output_without_what_was_asked_for_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ParityError, match="text"):
        collect_taps(output(**changes), POOLED, PROJECTED, attentions=TOWERS, to_numpy=np.asarray)


@pytest.mark.parametrize("pooled", [{}, {"vision": 7}, {"vision": 7, "text": None}])
def test_a_projection_that_was_given_nothing_is_refused(pooled: dict[str, Any]) -> None:
    with pytest.raises(ParityError, match="tower: the model returned no pooled output"):
        collect_taps(output(), pooled, PROJECTED, attentions=TOWERS, to_numpy=np.asarray)
