"""Config fields that change the computation, each at an unusual value, against PyTorch in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from converter.models import build_tower
from converter.models.activations import ACTIVATIONS
from tests.models import reference

pytestmark = [pytest.mark.torch, pytest.mark.tf]

OPTIONS: list[tuple[str, str, dict[str, Any]]] = [
    ("clip_vision_model", "roberta", {"vision_hidden_act": "gelu", "text_hidden_act": "gelu_new"}),
    ("vit", "bert", {"vision_hidden_act": "quick_gelu", "text_hidden_act": "relu"}),
    ("clip_vision_model", "bert", {"vision_layer_norm_eps": 0.3, "text_layer_norm_eps": 0.02}),
    ("vit", "roberta", {"vision_layer_norm_eps": 0.1, "text_layer_norm_eps": 0.2}),
    ("vit", "bert", {"vision_qkv_bias": False}),
    ("vit", "bert", {"vision_pooler_output_size": 28, "vision_pooler_act": "gelu"}),
    ("vit", "bert", {"vision_image_size": [12, 30], "vision_patch_size": [4, 5]}),
    ("vit", "bert", {"vision_image_size": 20, "vision_patch_size": 6}),
    ("clip_vision_model", "bert", {"vision_image_size": 22, "vision_patch_size": 4}),
    ("vit", "bert", {"vision_num_channels": 1, "text_type_vocab_size": 5}),
    ("clip_vision_model", "bert", {"vision_num_channels": 5, "vision_num_attention_heads": 8}),
    ("vit", "roberta", {"text_pad_token_id": 0}),
    ("vit", "roberta", {"text_pad_token_id": 7, "text_type_vocab_size": 1}),
    ("vit", "bert", {"text_pad_token_id": None, "text_num_hidden_layers": 1}),
    ("vit", "bert", {"text_pad_token_id": 9, "projection_dim": 11, "logit_scale_init_value": 0.1}),
    ("vit", "bert", {"text_chunk_size_feed_forward": 3}),
    ("deit", "bert", {"vision_qkv_bias": False, "vision_hidden_act": "gelu_fast", "vision_image_size": [14, 28]}),
    ("dinov2", "bert", {"vision_use_swiglu_ffn": True, "vision_mlp_ratio": 3}),
    ("dinov2", "bert", {"vision_qkv_bias": False, "vision_use_mask_token": False, "vision_layerscale_value": 0.3}),
    ("dinov2_with_registers", "ernie", {"vision_use_swiglu_ffn": True, "text_use_task_id": False}),
    ("siglip_vision_model", "bert", {"vision_hidden_act": "gelu", "vision_layer_norm_eps": 0.2}),
    ("siglip_vision_model", "bert", {"size": (22, 27)}),
    ("beit", "bert", {"vision_use_relative_position_bias": False}),
    (
        "beit",
        "bert",
        {
            "vision_use_shared_relative_position_bias": True,
            "vision_use_relative_position_bias": False,
            "vision_use_mask_token": True,
        },
    ),
    ("beit", "bert", {"vision_use_shared_relative_position_bias": True, "vision_layer_scale_init_value": 0.0}),
    ("beit", "bert", {"vision_use_absolute_position_embeddings": True, "vision_use_mean_pooling": False}),
    ("beit", "bert", {"vision_use_absolute_position_embeddings": True, "size": (25, 35)}),
    ("beit", "bert", {"vision_use_shared_relative_position_bias": True, "size": (15, 31)}),
    ("beit", "bert", {"vision_image_size": [15, 25]}),
    ("swin", "bert", {"vision_qkv_bias": False, "vision_use_absolute_embeddings": True}),
    ("swin", "bert", {"vision_layer_norm_eps": 0.3, "vision_window_size": 2, "vision_depths": [2, 3]}),
    ("swin", "bert", {"size": (27, 45)}),
    ("swin", "bert", {"size": (24, 24)}),
    ("swin", "bert", {"vision_depths": [2, 2, 2], "vision_num_heads": [2, 3, 4], "size": (51, 60)}),
    ("vit", "albert", {"text_inner_group_num": 2, "text_hidden_act": "relu", "text_num_hidden_groups": 1}),
    ("vit", "albert", {"text_num_hidden_layers": 5, "text_num_hidden_groups": 3}),
    ("vit", "clip_text_model", {"text_eos_token_id": 2, "text_hidden_act": "gelu"}),
    ("vit", "clip_text_model", {"text_eos_token_id": 500}),
    ("vit", "mpnet", {"text_max_position_embeddings": 400, "length": 300}),
    ("vit", "mpnet", {"text_pad_token_id": 0}),
    ("vit", "xlm-roberta-xl", {"text_pad_token_id": 4, "text_layer_norm_eps": 0.2, "text_type_vocab_size": 2}),
]


@pytest.mark.by_turns
@pytest.mark.parametrize(("vision", "text", "changes"), OPTIONS, ids=lambda value: str(value))
def test_option_equals_pytorch(vision: str, text: str, changes: dict[str, Any]) -> None:
    given = {name: changes[name] for name in ("size", "length") if name in changes}
    config = reference.make_config(vision, text, **{n: value for n, value in changes.items() if n not in given})
    model = reference.torch_model(config, "sdpa", torch.float64)
    ours = reference.keras_model(config, reference.saved_tensors(model), "float64")
    inputs = reference.make_inputs(config, **given)
    inputs["pixel_values"] = inputs["pixel_values"].astype(np.float64)
    if changes.get("text_type_vocab_size", 1) > 1:
        inputs["token_type_ids"] = np.arange(36).reshape(4, 9) % changes["text_type_vocab_size"]
    with torch.no_grad():
        wanted = model(**reference.torch_inputs(inputs, torch.float64), output_hidden_states=True)
    found = ours(inputs, output_hidden_states=True)
    reference.assert_same(reference.taps(found), reference.taps(wanted), 1e-10, inputs["attention_mask"])


@pytest.mark.parametrize("size", [(20, 35), (40, 15), (23, 23)])
def test_dinov2_at_other_image_sizes(size: tuple[int, int]) -> None:
    config = reference.make_config("dinov2", "bert")
    model = reference.torch_model(config)
    ours = reference.keras_model(config, reference.saved_tensors(model))
    inputs = reference.make_inputs(config, size=size)
    with torch.no_grad():
        wanted = reference.taps(model(**reference.torch_inputs(inputs), output_hidden_states=True))
    found = reference.taps(ours(inputs, output_hidden_states=True))
    reference.assert_same(found, wanted, 1e-5, inputs["attention_mask"])


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activation_equals_pytorch(name: str) -> None:
    from transformers.activations import ACT2FN

    x = np.concatenate([np.linspace(-12, 12, 1001), [0.0, 25.0, -25.0]])
    wanted = ACT2FN[name](torch.as_tensor(x)).numpy()
    import keras

    found = keras.ops.convert_to_numpy(ACTIVATIONS[name](keras.ops.convert_to_tensor(x, dtype="float64")))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-8 if name == "mish" else 1e-13)


def test_every_activation_of_transformers_is_there_or_has_weights() -> None:
    from transformers.activations import ACT2CLS

    missing = set(ACT2CLS) - set(ACTIVATIONS)
    assert missing <= {"prelu", "xielu", "sqrtsoftplus"}


@pytest.mark.parametrize("side", ["vision", "text"])
def test_a_tower_without_pooler(side: str) -> None:
    from transformers import BertModel, ViTModel

    config = getattr(reference.make_config("vit", "bert"), f"{side}_config")
    model = reference.randomise({"vision": ViTModel, "text": BertModel}[side](config, add_pooling_layer=False))
    tower = build_tower(config, add_pooling_layer=False)
    tower.build()
    assert not [name for name in tower.held if "pooler" in name]
    inputs = reference.make_inputs(reference.make_config("vit", "bert"))
    keys = ("pixel_values",) if side == "vision" else ("input_ids", "attention_mask")
    output = tower({key: inputs[key] for key in keys})
    with torch.no_grad():
        wanted = model(**reference.torch_inputs({key: inputs[key] for key in keys}))
    assert output.pooler_output is None
    assert wanted.pooler_output is None
    assert output.last_hidden_state.shape == tuple(wanted.last_hidden_state.shape)
