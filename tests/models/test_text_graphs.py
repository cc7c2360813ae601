"""The text towers other than BERT and RoBERTa in graphs, in files, and from checkpoints of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
import transformers

from converter.models import build_tower, load_tower, named_variables
from converter.names.towers import tower_rules
from tests.models import reference
from tests.models.conftest import FURTHER_TEXT
from tests.towers import TOWERS

if keras.backend.backend() != "tensorflow":
    pytest.skip("about TensorFlow's graphs", allow_module_level=True)
import tensorflow as tf

pytestmark = [pytest.mark.tf, pytest.mark.torch, pytest.mark.by_turns]

HEADS = {kind: TOWERS[kind].head for kind in FURTHER_TEXT if TOWERS[kind].head}
FLAGS = {"output_attentions": True, "output_hidden_states": True}
SIGNATURE = {name: tf.TensorSpec((None, None), tf.int32) for name in ("input_ids", "attention_mask")}


def make_config(kind: str, **changes: Any) -> Any:
    return reference.make_config("vit", kind, **{f"text_{name}": value for name, value in changes.items()})


def rules_of(kind: str) -> Mapping[str, Any]:
    return tower_rules("text", kind) or {}


def make_texts(config: Any, texts: int = 4, length: int = 9) -> dict[str, Any]:
    inputs = reference.make_inputs(config, texts=texts, length=length)
    return {name: inputs[name] for name in SIGNATURE}


def assert_equal(found: Any, wanted: Any, mask: np.ndarray) -> None:
    """A tower's output is PyTorch's where a token is; the pooled output all over."""
    pairs = [(found.last_hidden_state, wanted.last_hidden_state)]
    pairs += list(zip(found.hidden_states or (), wanted.hidden_states or (), strict=True))
    for got, want in pairs:
        there = mask == 1 if want.shape[:2] == mask.shape else ...  # molecules of characters have no mask
        np.testing.assert_allclose(np.asarray(got)[there], want.numpy()[there], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.pooler_output, wanted.pooler_output, rtol=0, atol=1e-5)


# A graph that is a relative's is compiled under `make torture` only.
@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.torture] * (TOWERS[k].like is not None)) for k in FURTHER_TEXT]
)
def test_a_graph_and_xla_with_unknown_batch_and_length(kind: str) -> None:
    config = make_config(kind)
    model = reference.torch_model(config)
    tower = reference.keras_model(config, reference.saved_tensors(model)).text_model

    def run(texts: dict[str, Any]) -> Any:
        return tower(texts, **FLAGS)

    graph = tf.function(run, input_signature=[SIGNATURE])
    for texts, length in ((4, 9), (1, 5)):
        inputs = make_texts(config, texts, length)
        given = {name: tf.constant(value, tf.int32) for name, value in inputs.items()}
        with torch.no_grad():
            wanted = model.text_model(**reference.torch_inputs(inputs), **FLAGS)
        assert_equal(graph(given), wanted, inputs["attention_mask"])
        if length == 9:
            xla = tf.function(run, input_signature=[SIGNATURE], jit_compile=True)
            assert_equal(xla(given), wanted, inputs["attention_mask"])
    assert graph.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("kind", FURTHER_TEXT)
def test_a_keras_file(kind: str, tmp_path: Path) -> None:
    """ALBERT's blocks stand in its list more than once, in groups whose layers have the same name."""
    config = make_config(kind, **({"inner_group_num": 2} if kind == "albert" else {}))
    tower = build_tower(config.text_config)
    tower.build()
    inputs = make_texts(config)
    before = tower(inputs)
    tower.save(tmp_path / "tower.keras")
    loaded = keras.models.load_model(tmp_path / "tower.keras")
    assert list(named_variables(loaded)) == list(named_variables(tower))
    np.testing.assert_array_equal(loaded(inputs).pooler_output, before.pooler_output)


@pytest.mark.parametrize("kind", sorted(HEADS))
def test_bare_and_inside_a_model_with_a_head(kind: str, tmp_path: Path) -> None:
    config = make_config(kind)
    inputs = make_texts(config)
    head = reference.randomise(getattr(transformers, str(HEADS[kind]))(config.text_config), seed=3)
    tower = getattr(head, "text_model", head.base_model)
    bare = reference.randomise(transformers.AutoModel.from_config(config.text_config), seed=4)
    for name, model, wanted in (("head", head, tower), ("bare", bare, bare)):
        model.save_pretrained(tmp_path / name)
        found = load_tower(tmp_path / name, "text")
        assert found.config.model_type == kind
        assert bool(found.loading_report.left_out) == (name == "head")
        with torch.no_grad():
            last = wanted(**reference.torch_inputs(inputs))
        there = inputs["attention_mask"] == 1
        np.testing.assert_allclose(
            np.asarray(found(inputs).last_hidden_state)[there], last.last_hidden_state.numpy()[there], rtol=0, atol=1e-5
        )
        if last.pooler_output is not None:
            np.testing.assert_allclose(found(inputs).pooler_output, last.pooler_output, rtol=0, atol=1e-5)


def test_a_full_clip_gives_its_text_tower(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    config = make_config("clip_text_model")
    vision = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 20, "patch_size": 10}
    clip = reference.randomise(CLIPModel(CLIPConfig(text_config=config.text_config.to_dict(), vision_config=vision)))
    clip.save_pretrained(tmp_path)
    tower = load_tower(tmp_path, "text")
    assert tower.config.model_type == "clip_text_model"
    inputs = make_texts(config)
    with torch.no_grad():
        wanted = clip.text_model(**reference.torch_inputs(inputs)).pooler_output
    np.testing.assert_allclose(tower(inputs).pooler_output, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [k for k in FURTHER_TEXT if "pooler." in rules_of(k).get("new_if_missing", ())])
def test_without_pooler(kind: str) -> None:
    config = make_config(kind)
    model = transformers.AutoModel.from_config(config.text_config)
    tower = build_tower(config.text_config, add_pooling_layer=False)
    tower.build()
    held = {reference.pt_name(f"text_model/{name}", config) for name in named_variables(tower)}
    assert len(held) == sum(not name.startswith("pooler.") for name in reference.saved_tensors(model))
    assert tower(make_texts(config)).pooler_output is None


@pytest.mark.parametrize("kind", FURTHER_TEXT)
def test_half_precision_stays_near(kind: str) -> None:
    config = make_config(kind)
    tensors = reference.saved_tensors(reference.torch_model(config))
    inputs = make_texts(config)
    wanted = np.asarray(reference.keras_model(config, tensors).text_model(inputs).pooler_output)
    for policy in ("mixed_bfloat16", "mixed_float16"):
        found = np.asarray(reference.keras_model(config, tensors, policy).text_model(inputs).pooler_output, np.float32)
        assert np.isfinite(found).all()
        assert np.abs(found - wanted).max() < 0.1
