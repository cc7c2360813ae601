"""Makes a dual encoder from two tower checkpoints, as ``from_vision_text_pretrained`` does, without a framework."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np

from converter.conversion.engine import Conversion, write_tensors
from converter.conversion.streams import TensorReader, open_tower
from converter.conversion.writing import Progress, identities, identity, small_files
from converter.folder.staging import check_out, explained
from converter.hub.download import obtain
from converter.names.configs import DualEncoderConfig, Side, check_config
from converter.names.rules import TensorRule, compile_rules
from converter.specs import Framework, StoredTensor
from converter.tensors.layouts import LAYOUTS

Array = np.ndarray[Any, Any]
_SIDES: tuple[Side, Side] = ("vision", "text")


def combine(
    vision: str | os.PathLike[str],
    text: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    target: Framework = "pt",
    format: Literal["safetensors", "h5"] = "safetensors",
    projection_dim: int = 512,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Joins two towers into a dual encoder whose projections are new.

    Args:
        vision: checkpoint of the vision tower, of a model with a head on it, or of a full CLIP or SigLIP: a folder, a
            weights file, or the id of a model on the Hub (``id@revision`` too).
        text: checkpoint of the text tower, likewise.
        out: folder to make; the tokenizer comes from ``text``, the image processor from ``vision``.
        target: whose checkpoint to write.
        format: container; ``"h5"`` for TensorFlow only.
        projection_dim: width of the common space.
        seed: of what is drawn: the projections, and a pooler that a tower lacks. Each dense weight is uniform in
            ``+-1 / sqrt(in)``, as PyTorch draws it; biases are 0, scales of norms 1; ``logit_scale`` is 2.6592.
        overwrite: replace ``out`` if it exists.
        progress: called with a stage's name, bytes done and bytes in all.

    Returns:
        What was done; ``dropped`` lists what belonged to other parts, ``made_new`` what was drawn.

    Raises:
        ConverterError: a tower is not supported, or its checkpoint does not hold it; nothing was written then.
    """
    check_out(Path(out), None, overwrite)  # before anything is downloaded
    with explained(Path(out)), ExitStack() as stack:
        held = {side: obtain(source, None) for side, source in zip(_SIDES, (vision, text), strict=True)}
        seen = {file: known for one in held.values() for file, known in identities(one.path).items()}
        towers = {side: stack.enter_context(open_tower(held[side].path, side)) for side in _SIDES}
        raw = {
            "architectures": ["VisionTextDualEncoderModel"],
            "logit_scale_init_value": 2.6592,
            "model_type": "vision-text-dual-encoder",
            "projection_dim": projection_dim,
            "text_config": dict(towers["text"].config),
            "vision_config": dict(towers["vision"].config),
        }
        config = check_config(raw)
        files = [file for tower in towers.values() for file in tower.files]
        found = {f"{side}_model/{name}": (tower, name) for side, tower in towers.items() for name in tower.names}
        drawn = tuple(rule.tf for rule in compile_rules(config).tensors if rule.tf not in found)
        return write_tensors(
            raw,
            _tensors(config, found, np.random.default_rng(seed)),
            out,
            framework="tf",
            target=target,
            format=format,
            overwrite=overwrite,
            label=f"{held['vision'].pinned} + {held['text'].pinned}",
            sidecars=(held["text"].folder, held["vision"].folder),
            seed=seed,
            made_new=drawn,
            dropped=tuple(item for tower in towers.values() for item in tower.dropped),
            before={file: seen.get(file) or identity(file) for file in files} | dict(small_files(seen)),
            progress=progress,
        )


def _tensors(
    config: DualEncoderConfig, held: Mapping[str, tuple[TensorReader, str]], random: np.random.Generator
) -> Iterator[StoredTensor]:
    for rule in compile_rules(config).tensors:
        if rule.tf in held:
            tower, name = held[rule.tf]
            yield tower.stored(name, rule.tf)
        else:
            yield _new(rule, config, random)


def _new(rule: TensorRule, config: DualEncoderConfig, random: np.random.Generator) -> StoredTensor:
    """A tensor that no tower has: a projection, a pooler's weight or bias, the scale."""
    shape = LAYOUTS[rule.layout].to_tf_shape(rule.shape)
    if rule.layout == "scalar":
        value: Array = np.full(shape, config.fields["logit_scale_init_value"], np.float32)
    elif len(shape) > 1:
        bound = 1 / np.sqrt(shape[0])
        value = random.uniform(-bound, bound, shape).astype(np.float32)
    else:
        value = np.full(shape, rule.tf.endswith("/gamma"), np.float32)
    return StoredTensor(rule.tf, "float32", shape, None, lambda start, stop: value[start:stop])
