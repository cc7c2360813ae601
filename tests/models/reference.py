"""PyTorch beside the Keras model: the configs of fixtures/towers.toml, random weights everywhere, names mapped here only.

The mapping here is written apart from the rules on purpose, so that the two check each other.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file
from transformers import VisionTextDualEncoderConfig, VisionTextDualEncoderModel

from tests.images import make_images
from tests.towers import SIDES, TOWERS

PROJECTION = 23
LEAVES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "embeddings": "weight",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}

# What 5.x has once for all layers, and how it names that.
FREQUENCIES = "attention/self/rotary_embeddings/inv_freq"
ONCE_IN_5 = "encoder.layer.*.attention.self.rotary_embeddings.inv_freq"
# Of families that keep everything in one layer.
MAIN_LAYERS = {
    family: f"{family}/" for family in ("altclip", "chinese_clip", "clip", "metaclip_2", "siglip", "siglip2")
}
# Of those, what 5.x saves by another name.
SAVED_IN_5 = {"altclip": ("vision_model.encoder.layers.", "vision_model.encoder.layer.")}

VISION, TEXT = ({t: dict(tower.config) for t, tower in TOWERS.items() if tower.side == side} for side in SIDES)


def make_config(vision: str, text: str, **changes: Any) -> Any:
    """A dual encoder config; ``vision_x=`` and ``text_x=`` change the towers' fields, others its own."""

    def tower(side: str, kind: str, fields: dict[str, Any]) -> Any:
        own = {name.removeprefix(f"{side}_"): value for name, value in changes.items() if name.startswith(f"{side}_")}
        return transformers.AutoConfig.for_model(kind, **{**fields, **own})

    rest = {name: value for name, value in changes.items() if not name.startswith(("vision_", "text_"))}
    return VisionTextDualEncoderConfig.from_vision_text_configs(
        tower("vision", vision, VISION[vision]),
        tower("text", text, TEXT[text]),
        **{"projection_dim": PROJECTION, "logit_scale_init_value": 1.7, **rest},
    )


def randomise(model: Any, seed: int = 0) -> Any:
    """Fills every tensor with numbers that no initialiser would give."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            own = name.removeprefix(f"{model.base_model_prefix}.")  # a model may be called "roberta_prelayernorm"
            norm = "norm" in own.lower() and name.endswith("weight")
            scale = "layer_scale" in name or "lambda" in name or name.endswith(".gamma")
            if name == "logit_scale":
                value = torch.full(parameter.shape, 1.3, dtype=torch.float64)
            elif norm or scale:
                value = 1.0 + 0.2 * noise
            else:
                value = 0.15 * noise
            parameter.copy_(value)
        stored = model.state_dict()
        for name, buffer in model.named_buffers():
            if name.endswith("inv_freq") and name in stored:  # as published: no longer what follows from the config
                buffer.copy_(buffer.half())
            elif name.endswith(("running_mean", "running_var")):
                noise = torch.randn(buffer.shape, generator=generator, dtype=torch.float64)
                buffer.copy_(0.15 * noise if name.endswith("mean") else 0.7 + 0.3 * noise.abs())
            elif name.endswith("num_batches_tracked"):
                buffer.fill_(71)
    return model.eval()


def torch_model(config: Any, attention: str = "eager", dtype: Any = torch.float32, seed: int = 0) -> Any:
    """The PyTorch model of a config with random weights."""
    config = type(config).from_dict(config.to_dict())
    if config.model_type != "vision-text-dual-encoder":
        model = transformers.AutoModel.from_config(config, attn_implementation=attention)
        return in_dtype(randomise(keeping_pooled(model), seed), dtype)
    towers = {}
    for side in ("vision", "text"):
        own = getattr(config, f"{side}_config")
        known = transformers.MODEL_MAPPING[type(own)]._supports_sdpa  # MPNet has eager attention only
        kind = attention if known else "eager"
        towers[f"{side}_model"] = transformers.AutoModel.from_config(own, attn_implementation=kind)
    return in_dtype(randomise(VisionTextDualEncoderModel(config, **towers), seed), dtype)


def in_dtype(model: Any, dtype: Any) -> Any:
    """A model in a dtype as ``from_pretrained`` makes it, which leaves the frequencies of rotary positions in float32."""
    frequencies = {name: buffer for name, buffer in model.named_buffers() if name.endswith("inv_freq")}
    model = model.to(dtype)
    for name, buffer in frequencies.items():
        module, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(module), leaf, buffer)
    return model


def keeping_pooled(model: Any) -> Any:
    """A model whose towers' outputs keep what is projected, where transformers 5 puts the projection."""
    pooled: dict[str, Any] = {}

    def keep(side: str) -> Any:
        return lambda module, given: pooled.update({side: given[0]})

    def restore(module: Any, given: Any, output: Any) -> Any:
        for side, value in pooled.items():
            output[f"{side}_model_output"].pooler_output = value
        return output

    for side, name in (("vision", "visual_projection"), ("text", "text_projection")):
        if hasattr(model, name):
            getattr(model, name).register_forward_pre_hook(keep(side))
    model.register_forward_hook(restore)
    return model


def saved_tensors(model: Any) -> dict[str, np.ndarray]:
    """Tensors by the names that transformers gives them in a file; without what follows from the config alone."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, max_shard_size="10GB")
        found = load_file(Path(folder) / "model.safetensors")
    # 5.x writes norms of ESM as TensorFlow 1 called them.
    found = {name.replace("LayerNorm.gamma", "LayerNorm.weight"): tensor for name, tensor in found.items()}
    found = {name.replace("LayerNorm.beta", "LayerNorm.bias"): tensor for name, tensor in found.items()}
    return {name: tensor for name, tensor in found.items() if not name.endswith(".relative_position_index")}


def gradients(model: Any) -> dict[str, np.ndarray]:
    """Gradients by the names that transformers gives their weights in a file; overwrites the weights."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
        for buffer in model.buffers():  # Some are stored, and none is trained.
            buffer.zero_()
    return saved_tensors(model)


def pt_name(tf_name: str, config: Any) -> str:
    """The PyTorch name, as 5.x saves it, of a TensorFlow checkpoint name."""
    if (prefix := MAIN_LAYERS.get(getattr(config, "model_type", None))) is not None:
        *path, leaf = tf_name.removeprefix(prefix).replace("_._", "/").split("/")
        return ".".join([*path, LEAVES.get(leaf, leaf)]).replace(*SAVED_IN_5.get(config.model_type, ("", "")))
    side, _, rest = tf_name.partition("/")
    if side not in ("vision_model", "text_model"):
        return {"logit_scale": "logit_scale"}.get(tf_name, tf_name.replace("/kernel", ".weight"))
    rest = rest.partition("/")[2]
    if tf_name.endswith(FREQUENCIES):
        return f"{side}.{ONCE_IN_5}"
    tower = TOWERS[getattr(config, side.replace("model", "config")).model_type]
    if tower.flat_in_5:
        rest = rest.partition("/")[2]
    *path, leaf = rest.replace("_._", "/").split("/")
    return ".".join([side, *path, {**LEAVES, **tower.leaves}.get(leaf, leaf)])


def to_tf(array: np.ndarray, tf_name: str) -> np.ndarray:
    """A PyTorch tensor in TensorFlow's layout."""
    if array.ndim == 0:
        return array.reshape(1)
    if tf_name.endswith("/kernel"):
        return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    return array


def assign(model: Any, tensors: dict[str, np.ndarray]) -> None:
    """Gives a Keras model the tensors of a PyTorch file; every tensor and every variable exactly once."""
    from converter.models import named_variables

    model.build()
    used = []
    for name, variable in named_variables(model).items():
        used.append(pt_name(name, model.config))
        value = to_tf(tensors[used[-1]], name)
        assert tuple(value.shape) == tuple(variable.shape), name
        variable.assign(value)
    assert set(used) == set(tensors), sorted(set(tensors).difference(used))
    several = {name for name in used if used.count(name) > 1}
    assert all(name.endswith(ONCE_IN_5) for name in several), several


def keras_model(config: Any, tensors: dict[str, np.ndarray], dtype: str = "float32") -> Any:
    """The Keras model of a config with the tensors of a PyTorch file."""
    from converter.models import AutoTwoTower

    copied = type(config).from_dict(config.to_dict())
    model = AutoTwoTower.from_config(copied, initial="zeros", dtype=dtype)
    assign(model, tensors)
    return model


def make_inputs(
    config: Any, images: int = 3, texts: int = 4, length: int = 9, seed: int = 0, size: Any = None
) -> dict[str, np.ndarray]:
    """Random images, and texts padded to ragged lengths with their attention mask."""
    rng = np.random.default_rng(seed)
    text = config.text_config
    pad = getattr(text, "pad_token_id", None) or 0
    words = getattr(text, "vocab_size", 0x110000)  # or characters
    ids = rng.integers(3, words - 1, (texts, length))
    mask = np.ones((texts, length), np.int64)
    for row in range(1, texts):
        mask[row, length - row :] = 0
    ids[mask == 0] = pad
    end = getattr(text, "eos_token_id", None)
    if isinstance(end, int) and end < words:
        ids[np.arange(texts), mask.sum(1) - 1] = end
    return {
        "input_ids": ids,
        "attention_mask": mask,
        **make_images(config.vision_config.to_dict(), images, rng, size),
    }


def interpolated(grid: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """A grid ``(height, width, channels)`` resized bilinearly with antialiasing, as rows ``(height * width, channels)``.

    Of results one column wide torch 2.13 gives a wrong one on a CPU, of those one row high a right one.
    """
    turned = shape[1] == 1
    made = torch.nn.functional.interpolate(
        grid.permute(2, 1, 0)[None] if turned else grid.permute(2, 0, 1)[None],
        size=shape[::-1] if turned else shape,
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )
    return made[0].flatten(1).T  # a column is as long as a row


def torch_inputs(inputs: dict[str, Any], dtype: Any = torch.float32) -> dict[str, Any]:
    """The same inputs as torch tensors."""
    return {
        name: torch.as_tensor(value).to(dtype) if name == "pixel_values" else torch.as_tensor(value)
        for name, value in inputs.items()
    }


def taps(output: Any) -> dict[str, np.ndarray]:
    """Every intermediate of an output of either side, by name."""
    found: dict[str, Any] = {}
    for side in ("vision", "text"):
        tower = output[f"{side}_model_output"]
        states = tower["hidden_states"]
        found[f"{side}.embeddings"] = states[0]
        found |= by_place(f"{side}.layers", states[1:])
        found[f"{side}.last_hidden_state"] = tower["last_hidden_state"]
        found[f"{side}.pooled"] = tower["pooler_output"]
        found |= {f"{side}.attentions.{i}": a for i, a in enumerate(tower.get("attentions") or ()) if a is not None}
    for name in ("image_embeds", "text_embeds", "logits_per_image", "logits_per_text", "loss"):
        if output.get(name) is not None:
            found[name] = output[name]
    return {name: as_numpy(value) for name, value in found.items()}


def by_place(series: str, states: Any) -> dict[str, Any]:
    """Hidden states by number; those of each block where a stage gives out all of them."""
    found: dict[str, Any] = {}
    for i, state in enumerate(states):
        found |= by_place(f"{series}.{i}", state) if isinstance(state, tuple) else {f"{series}.{i}": state}
    return found


def as_numpy(value: Any) -> np.ndarray:
    """A tensor of any framework as an array."""
    return np.asarray(value.detach().numpy() if hasattr(value, "detach") else value)


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], atol: float, mask: Any = None) -> None:
    """Every tap is there, finite, of the same shape and within ``atol`` where ``mask`` is 1."""
    assert sorted(found) == sorted(wanted)
    compared = 0
    for name, want in wanted.items():
        got = found[name].reshape(()) if name == "loss" else found[name]
        assert got.shape == want.shape, (name, got.shape, want.shape)
        # Molecules of several characters have no mask; what stands at padding is as defined as elsewhere.
        characters = name.startswith("text.") and want.shape[-2:-1] == (mask.shape[1] if mask is not None else 0,)
        if characters and mask is not None and want.ndim == 3:
            got, want = got[mask == 1], want[mask == 1]
        if characters and mask is not None and name.startswith("text.attentions"):
            rows = np.broadcast_to(mask[:, None, :, None] == 1, want.shape)
            got, want = got[rows], want[rows]
        assert np.isfinite(got).all(), name
        assert np.isfinite(want).all(), name
        difference = np.abs(got.astype(np.float64) - want.astype(np.float64)).max()
        assert difference <= atol, (name, difference)
        compared += want.size
    assert compared > 0
