"""One transformers installation as a server: reads a request per line, answers with a line, both JSON.

Runs under any interpreter with torch and transformers, and TensorFlow for the TF requests. It knows nothing of the converter.
It starts once per test session, because its imports take ten seconds. Arrays travel as .npz files.

    $ python -m tests.compat.peer
    {"do": "make", "vision": "vit", "text": "bert", "out": "/tmp/x"}  ->  {"ok": {...}}  or  {"error": "..."}
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch  # before TensorFlow, which crashes a later import of torch's GPU builds
import transformers

from tests.compat.towers import ALL_TEXT, ALL_VISION, LOGIT_SCALE, PROJECTION

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()


def make(
    out: str,
    vision: str,
    text: str,
    seed: int = 0,
    vision_options: dict[str, Any] | None = None,
    text_options: dict[str, Any] | None = None,
    projection: int = PROJECTION,
    logit_scale: float = LOGIT_SCALE,
) -> dict[str, Any]:
    """Makes a tiny dual encoder with random weights everywhere and saves it as this version does.

    Returns:
        ``tensors``: the shape of every parameter and buffer by its name in the live model.
    """
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
        transformers.AutoConfig.for_model(vision, **(ALL_VISION.get(vision, {}) | (vision_options or {}))),
        transformers.AutoConfig.for_model(text, **(ALL_TEXT.get(text, {}) | (text_options or {}))),
        projection_dim=projection,
    )
    model = transformers.VisionTextDualEncoderModel(config)
    randomise(model, seed, logit_scale)
    model.save_pretrained(out)
    return {"tensors": {name: list(tensor.shape) for name, tensor in model.state_dict().items()}}


def make_family(
    out: str, config: dict[str, Any], seed: int = 0, logit_scale: float = LOGIT_SCALE, dtype: str = "float32"
) -> dict[str, Any]:
    """Makes a tiny model of another family from its config.json, as ``make`` does, and saves it in a dtype."""
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**config))
    randomise(model, seed, logit_scale)
    model.to(getattr(torch, dtype)).save_pretrained(out)
    return {"tensors": {name: list(tensor.shape) for name, tensor in model.state_dict().items()}}


def class_of(source: str, prefix: str = "") -> Any:
    """The class of the model in a folder, by the model type in its config.json; ``"TF"`` gives TensorFlow's."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    model_type = json.loads((Path(source) / "config.json").read_text("utf-8"))["model_type"]
    return getattr(transformers, prefix + MODEL_MAPPING_NAMES[model_type])


def randomise(model: torch.nn.Module, seed: int, logit_scale: float) -> None:
    """Gives every floating-point tensor of a model values of a trained one's size, the same ones on every machine."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name == "logit_scale":
                tensor.fill_(logit_scale)
            elif tensor.is_floating_point():
                digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
                noise = np.random.default_rng(list(digest)).standard_normal(tuple(tensor.shape), dtype=np.float32)
                tensor.copy_(torch.from_numpy(np.asarray(trained_looking(name, noise))))


def trained_looking(name: str, noise: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Scales standard normal noise to what a trained tensor of that name and shape looks like."""
    if "norm" in name.lower() or "layrnorm" in name or ".ln_" in f".{name}":
        return noise * np.float32(0.2) + np.float32(name.endswith(("weight", "running_var")))
    if noise.ndim > 1 and "embedding" not in name and "token" not in name and "bias_table" not in name:
        return noise * np.float32(1.2 / np.sqrt(noise[0].size))
    return noise * np.float32(0.3)


def save_tf(source: str, out: str, shard: str) -> dict[str, Any]:
    """Converts a local PyTorch checkpoint with this version's own ``from_pt``, and saves it in every way it knows.

    Into ``out``: the folders ``h5``, ``h5-shards``, ``safetensors`` and ``safetensors-shards``, and what Keras 2 makes
    of ``save_weights``, ``weights.h5`` and ``keras.weights.h5``.
    """
    model = class_of(source, "TF").from_pretrained(source, from_pt=True)
    for container, safetensors in {"h5": False, "safetensors": True}.items():
        model.save_pretrained(f"{out}/{container}", safe_serialization=safetensors)
        model.save_pretrained(f"{out}/{container}-shards", safe_serialization=safetensors, max_shard_size=shard)
    model.save_weights(f"{out}/weights.h5")
    model.save_weights(f"{out}/keras.weights.h5")
    return {}


def save_pt(source: str, out: str, shard: str) -> dict[str, Any]:
    """Saves a PyTorch checkpoint again in every way 4.x knows: ``safetensors``, ``bin``, and both in shards."""
    model = class_of(source).from_pretrained(source)
    for container, safetensors in {"safetensors": True, "bin": False}.items():
        model.save_pretrained(f"{out}/{container}", safe_serialization=safetensors)
        model.save_pretrained(f"{out}/{container}-shards", safe_serialization=safetensors, max_shard_size=shard)
    return {}


def save_bin(source: str, out: str, shard: str | None = None) -> dict[str, Any]:
    """Saves a PyTorch checkpoint as 4.x did before safetensors, by torch.save."""
    model = class_of(source).from_pretrained(source)
    options = {} if shard is None else {"max_shard_size": shard}
    model.save_pretrained(out, safe_serialization=False, **options)
    return {"files": sorted(path.name for path in Path(out).iterdir())}


def save_flax(source: str, out: str, shard: str) -> dict[str, Any]:
    """Converts a local PyTorch checkpoint with this version's own ``from_pt``, and saves it in every way it knows.

    Into ``out``: the folders ``msgpack``, ``msgpack-shards`` and ``safetensors``.
    """
    model = class_of(source, "Flax").from_pretrained(source, from_pt=True)
    model.save_pretrained(f"{out}/msgpack")
    model.save_pretrained(f"{out}/msgpack-shards", max_shard_size=shard)
    model.save_pretrained(f"{out}/safetensors", safe_serialization=True)
    return {}


def run_flax(source: str, inputs: str, out: str, again: str) -> dict[str, Any]:
    """Loads a Flax checkpoint, writes the outputs for given inputs, and saves it again: what was missing shows there."""
    model = class_of(source, "Flax").from_pretrained(source)
    with np.load(inputs) as arrays:
        outputs = model(**{name: arrays[name] for name in arrays.files})
    np.savez(out, **{name: np.asarray(outputs[name]) for name in OUTPUTS})
    model.save_pretrained(again)
    return {}


def from_flax(source: str, out: str) -> dict[str, Any]:
    """Loads a Flax checkpoint by transformers' own ``from_flax``, which works up to 4.50.3, and saves it."""
    class_of(source).from_pretrained(source, from_flax=True).save_pretrained(out)
    return {}


def run_tf(source: str, inputs: str, out: str) -> dict[str, Any]:
    """Loads a TensorFlow checkpoint, reports what did not match, and writes the outputs for given inputs."""
    import tensorflow as tf

    model, info = class_of(source, "TF").from_pretrained(source, output_loading_info=True)
    with np.load(inputs) as arrays:
        outputs = model(**{name: tf.constant(arrays[name]) for name in arrays.files}, training=False)
    np.savez(out, **{name: outputs[name].numpy() for name in OUTPUTS})
    scale = next(variable for variable in model.weights if "logit_scale" in variable.name)
    return loading(info) | {"logit_scale": np.ravel(scale.numpy()).tolist()}


def run_pt(source: str, inputs: str, out: str) -> dict[str, Any]:
    """Loads a PyTorch checkpoint, reports what did not match, and writes the outputs for given inputs."""
    model, info = class_of(source).from_pretrained(source, output_loading_info=True)
    model.eval()
    _run_without_token_types(model)
    with np.load(inputs) as arrays, torch.no_grad():
        outputs = model(**{name: torch.from_numpy(arrays[name]) for name in arrays.files})
    np.savez(out, **{name: outputs[name].numpy() for name in OUTPUTS})
    return loading(info) | {"logit_scale": [model.logit_scale.item()]}


def load_pt(source: str) -> dict[str, Any]:
    """Loads a PyTorch checkpoint that this version cannot run, and reports what did not match."""
    model, info = class_of(source).from_pretrained(source, output_loading_info=True)
    return loading(info) | {"logit_scale": [model.logit_scale.item()]}


def load_as_stored(source: str) -> dict[str, Any]:
    """Loads a PyTorch checkpoint in the dtype that it has, and reports what did not match, and the dtypes of parameters."""
    model, info = class_of(source).from_pretrained(source, output_loading_info=True, dtype="auto")
    return loading(info) | {"dtypes": sorted({str(parameter.dtype) for parameter in model.parameters()})}


def _run_without_token_types(model: Any) -> None:
    """Keeps token types from a text tower that takes none."""
    if (
        model.config.model_type == "vision-text-dual-encoder"
        and model.config.text_config.model_type == "clip_text_model"
    ):
        # 4.x gives token_type_ids to every text tower, which CLIP's refuses: such pairs load there, but do not run.
        forward = model.text_model.forward
        model.text_model.forward = lambda token_type_ids=None, **given: forward(**given)


def from_tf(source: str) -> dict[str, Any]:
    """Loads a TensorFlow checkpoint by transformers' own ``from_tf``: how many parameters there are, and have a value."""
    model = class_of(source).from_pretrained(source, from_tf=True)
    parameters = list(model.parameters())
    return {"parameters": len(parameters), "on_meta": sum(parameter.is_meta for parameter in parameters)}


OUTPUTS = ("logits_per_image", "logits_per_text", "image_embeds", "text_embeds")


def loading(info: dict[str, Any]) -> dict[str, Any]:
    """Puts the loading report of either version into JSON's types."""
    return {
        name: sorted(str(item) for item in info.get(name, ()))
        for name in ("missing_keys", "unexpected_keys", "mismatched_keys")
    }


def open_files(source: str, pictures: list[str], texts: list[str], out: str) -> dict[str, Any]:
    """Opens config, tokenizer and processor from a folder and puts pictures and texts through them.

    ``how`` names the class that each of transformers' usual ways ended in, or the error it raised.
    """
    from PIL import Image

    how: dict[str, str] = {}
    for name, opener in {
        "AutoConfig": transformers.AutoConfig,
        "AutoTokenizer": transformers.AutoTokenizer,
        "AutoImageProcessor": transformers.AutoImageProcessor,
        "AutoProcessor": transformers.AutoProcessor,
        "VisionTextDualEncoderConfig": transformers.VisionTextDualEncoderConfig,
        "VisionTextDualEncoderProcessor": transformers.VisionTextDualEncoderProcessor,
    }.items():
        try:
            how[name] = type(opener.from_pretrained(source)).__name__
        except Exception as error:
            how[name] = f"{type(error).__name__}: {error}"
    config = transformers.AutoConfig.from_pretrained(source).to_dict()
    processor = transformers.VisionTextDualEncoderProcessor.from_pretrained(source)
    images = [Image.open(path).convert("RGB") for path in pictures]
    np.savez(out, **processor(text=texts, images=images, return_tensors="np", padding=True))
    return {"how": how, "config": config, "templates": transformers.AutoTokenizer.from_pretrained(source).chat_template}


def save_fresh(source: str, out: str) -> dict[str, Any]:
    """Saves a checkpoint's weights from a model built from its config: 5.6 and later then write flat names.

    ``flat`` in ``out`` is what it saved, ``live`` the same under the names of the running model.
    """
    from safetensors.torch import save_file

    loaded = class_of(source).from_pretrained(source)
    model = transformers.VisionTextDualEncoderModel(loaded.config)
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(Path(out) / "flat")
    loaded.config.save_pretrained(Path(out) / "live")
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, Path(out) / "live" / "model.safetensors", metadata={"format": "pt"})
    return {}


def save_processor(out: str, tokenizer: str, image: str, size: int, apart: bool) -> dict[str, Any]:
    """Saves tokenizer and image processor files; see tests/compat/processors.py."""
    from tests.compat import processors

    processors.save(out, tokenizer, image, size, apart)
    return {"files": sorted(path.name for path in Path(out).iterdir())}


def quantise(source: str, out: str, bits: int) -> dict[str, Any]:
    """Saves a checkpoint as bitsandbytes quantises it; it needs no accelerator."""
    quantised = transformers.BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
    class_of(source).from_pretrained(source, quantization_config=quantised, device_map="cpu").save_pretrained(out)
    return {}


def take(source: str, step: str, file: str) -> dict[str, Any]:
    """Loads a checkpoint and executes a statement in which ``model`` is the model and ``FILE`` the file to write."""
    model = class_of(source).from_pretrained(source, device_map="cpu")
    exec(step, {"torch": torch, "model": model, "FILE": file})
    return {}


def dequantisers() -> dict[str, Any]:
    """Which methods of quantising this version has, and which of them it can undo."""
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING as METHODS
    from transformers.quantizers.base import HfQuantizer

    undone = [name for name, one in METHODS.items() if one._dequantize is not HfQuantizer._dequantize]
    return {"all": sorted(METHODS), "undone": sorted(undone)}


def versions() -> dict[str, Any]:
    """Says who answers."""
    return {"transformers": transformers.__version__, "torch": torch.__version__, "numpy": np.__version__}


REQUESTS: dict[str, Callable[..., dict[str, Any]]] = {
    "make": make,
    "make_family": make_family,
    "save_tf": save_tf,
    "save_pt": save_pt,
    "save_bin": save_bin,
    "save_flax": save_flax,
    "run_flax": run_flax,
    "from_flax": from_flax,
    "run_tf": run_tf,
    "run_pt": run_pt,
    "load_pt": load_pt,
    "load_as_stored": load_as_stored,
    "from_tf": from_tf,
    "open_files": open_files,
    "save_fresh": save_fresh,
    "save_processor": save_processor,
    "quantise": quantise,
    "take": take,
    "dequantisers": dequantisers,
    "versions": versions,
}


def main(requests: Mapping[str, Callable[..., dict[str, Any]]] = REQUESTS) -> None:
    """Answers requests until standard input ends; whatever a library prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer: dict[str, Any] = {"ok": requests[request.pop("do")](**request)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer, default=str), file=answers, flush=True)


if __name__ == "__main__":
    main()
