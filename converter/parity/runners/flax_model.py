"""Loads and runs transformers 4's Flax model in the reference's process. Decides that one with a weight missing never runs.

flax itself or safetensors reads the weights, so that no code of ours is between the file and the model.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
import transformers
from flax.serialization import msgpack_restore
from flax.traverse_util import flatten_dict, unflatten_dict

from converter.errors import ParityError, WorkerError, listed
from converter.folder.files import read_json
from converter.parity.batches import Batch
from converter.parity.inputs import image_shape
from converter.parity.runners.golden import Recording, config_of, config_sha256, read_recording, write_recording
from converter.parity.runners.options import FlaxOptions
from converter.parity.taps import TOWERS, Array, collect_taps


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Runs one model: request and recording as ``asking.write_request`` has them."""
    options = FlaxOptions(**request["options"])
    source = Path(request["source"])
    jax.config.update("jax_enable_x64", options.dtype == "float64")
    jax.config.update("jax_default_matmul_precision", "highest")
    device = choose_device(options.device)
    batches = read_recording(Path(request["inputs"]), taps=False).batches
    with jax.default_device(device):
        model = load_model(source, options)
        ran = tuple(_run(model, batch, options.dtype) for batch in batches)
    metadata = describe_run(source, options, device)
    write_recording(Recording(metadata, ran), Path(request["out"]))
    return {"device": metadata["device"]}


def choose_device(device: str) -> Any:
    """The requested device.

    Raises:
        WorkerError: it is a GPU that JAX does not see.
    """
    if device == "auto":
        return jax.devices()[0]
    platform_name, _, number = device.partition(":")
    try:
        return jax.devices(platform_name)[int(number or 0)]
    except (RuntimeError, IndexError):
        raise WorkerError(
            f"device {device} was requested, but jax {jax.__version__} does not see it; choose cpu, or an environment "
            "whose jax has CUDA"
        ) from None


def load_model(source: Path, options: FlaxOptions) -> Any:
    """Loads a model with two towers, every weight from its files.

    Raises:
        ParityError: a weight is missing.
        WorkerError: this transformers has no such Flax class.
    """
    name, raw = options.class_name, read_json(config_of(source))
    kind = getattr(transformers, name, None)
    if kind is None:
        raise WorkerError(f"{source}: transformers {transformers.__version__} has no {name}; name another environment")
    channels, height, width = image_shape(raw)
    config = kind.config_class.from_dict(raw)
    model = kind(config, input_shape=((1, 1), (1, height, width, channels)), dtype=np.dtype(options.dtype))
    weights = flatten_dict(read_weights(options.files))
    missing = sorted("/".join(name) for name in model.required_params - weights.keys())
    if missing:
        raise ParityError(
            f"{source}: {len(missing)} weights of {name} are missing from the files: {listed(missing)}. Check that "
            "they and config.json belong together"
        )
    kept = {name: np.asarray(weights[name]).astype(options.dtype) for name in model.required_params}
    model.params = unflatten_dict(kept)
    return model


def read_weights(files: Sequence[str]) -> dict[str, Any]:
    """The tree of parameters that files hold together: whole, in shards, or beneath ``params``."""
    found: dict[tuple[str, ...], Any] = {}
    for file in files:
        if file.endswith(".safetensors"):
            from safetensors.flax import load_file

            found.update({tuple(name.split(".")): array for name, array in load_file(file).items()})
        else:
            tree = msgpack_restore(Path(file).read_bytes())
            # shards are trees or, joined by "/", flat
            named = flatten_dict(tree.get("params", tree), sep="/")
            found.update({tuple(name.split("/")): array for name, array in named.items()})
    return dict(unflatten_dict(found))


def _run(model: Any, batch: Batch, dtype: str) -> Batch:
    given = dict(batch.inputs)
    output = model(**given, output_hidden_states=True, return_dict=True)
    pixels = given.pop("pixel_values")
    if not isinstance(model, transformers.FlaxCLIPModel):
        # FlaxVisionTextDualEncoderModel makes them channels-last when it is called, so not here (4.50, 4.57)
        pixels = pixels.transpose(0, 2, 3, 1)
    projected = {"vision": model.get_image_features(pixels), "text": model.get_text_features(**given)}
    pooled = {tower: getattr(output, f"{tower}_model_output").pooler_output for tower in TOWERS}

    def to_numpy(array: Any) -> Array:
        return np.asarray(array, np.dtype(dtype))

    return Batch(batch.title, batch.inputs, collect_taps(output, pooled, projected, (), to_numpy))


def describe_run(source: Path, options: FlaxOptions, device: Any) -> dict[str, str]:
    """The metadata of a run: what ran, where, in which precision."""
    versions = {
        "python": platform.python_version(),
        "flax": flax.__version__,
        "jax": jax.__version__,
        "transformers": transformers.__version__,
    }
    return {
        "framework": "Flax",
        "inner": "",
        "source": source.name,
        "config_sha256": config_sha256(source),
        "versions": json.dumps(versions, sort_keys=True),
        "device": str(device),
        "attention": json.dumps(dict.fromkeys(TOWERS, "eager")),
        "dtype": options.dtype,
        "precision": json.dumps({"matmul": "highest"}),
    }
