"""Makes a dual encoder from two tower checkpoints, as ``from_vision_text_pretrained`` does, without a framework."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from converter.arguments import check_least, checked
from converter.conversion.formats import default_format, weights_file
from converter.conversion.into_buckets import into_bucket
from converter.conversion.job import Progress
from converter.conversion.of_tensors import write_tensors
from converter.conversion.plan import Dropped
from converter.conversion.positions import Positions, check_positions, tell_positions
from converter.conversion.result import Conversion
from converter.conversion.sources import small_files
from converter.conversion.streams import TensorReader, open_tensors, open_tower
from converter.errors import ConfigError, UnsupportedTower
from converter.folder.addresses import Address
from converter.folder.files import expanded, identities, identity, out_folder
from converter.folder.staging import check_out, explained
from converter.hub.obtained import Obtained
from converter.hub.obtaining import obtained
from converter.names.configs import TwoTowerConfig, check_config, check_tower_config, required_fields
from converter.names.expressions import truth
from converter.names.families import joined
from converter.names.frameworks import CANONICAL, KERAS
from converter.names.rule_files import SIDES, Side
from converter.names.rules import TensorRule, compile_rules
from converter.specs import Framework, StoredTensor

Array = np.ndarray[Any, Any]


@checked()
def combine(
    vision: str | os.PathLike[str],
    text: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    target: Framework = CANONICAL,
    format: str | None = None,
    projection_dim: int | None = None,
    positions: Positions = "keep",
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Joins two towers into a dual encoder.

    Its projections are new, unless both towers come from one model. Then that model's trained projections and scale are kept.

    Args:
        vision: checkpoint of the vision tower, of a model with a head on it, or of a model with two towers. It may be a
            folder, a weights file, or the id of a model on the Hub (``id@revision`` too).
        text: the same for the text tower.
        out: the folder to create; the tokenizer comes from ``text``, the image processor from ``vision``.
        target: the framework to write for.
        format: container, for example ``"h5"`` for TensorFlow; None for the usual one.
        projection_dim: width of the common space. None takes that of the model that both towers come from, or else 512.
        positions: for RoBERTa-like towers, if one of ``text`` and ``target`` is Flax. ``"keep"`` leaves the position table
            as it is, ``"flax"`` moves it so that both give the same outputs.
        seed: for new weights: the projections, and a pooler that a tower lacks. Each dense weight is uniform in
            ``+-1 / sqrt(in)``, as PyTorch draws it; biases are 0, scales of norms 1; ``logit_scale`` is 2.6592.
        overwrite: replace the checkpoint in ``out`` if it exists; other files in it stay.
        progress: called with the stage, bytes done and total bytes.

    Returns:
        What was done. ``dropped`` lists tensors of other parts, ``made_new`` those with random values.

    Raises:
        ConverterError: a tower is not supported, or its checkpoint lacks it; nothing is written then.
    """
    check_least("projection_dim", projection_dim, 1)
    check_least("seed", seed, 0)
    vision, text, out = expanded(vision), expanded(text), out_folder(out)
    weights_file(target, format or default_format(target))
    if isinstance(out, Address):
        told: dict[str, Any] = {
            "target": target,
            "format": format,
            "projection_dim": projection_dim,
            "positions": positions,
        }
        run = partial(combine, vision, text, **told, seed=seed, progress=progress)
        return into_bucket(out, None, overwrite, False, progress, lambda out, **_: run(out=out))
    check_out(out, None, overwrite)  # before anything is downloaded
    family = joined()
    with explained(out), ExitStack() as stack:
        # What lies in a bucket is fetched once where both towers are of one model.
        first = stack.enter_context(obtained(vision))
        same = isinstance(text, Address) and text == vision
        held: dict[Side, Obtained] = {"vision": first, "text": first if same else stack.enter_context(obtained(text))}
        seen = {file: known for one in held.values() for file, known in identities(one.path).items()}
        serves = {"vision": None, "text": target if positions == "flax" else None}
        towers = {side: stack.enter_context(open_tower(held[side].path, side, serves[side])) for side in SIDES}
        check_positions(positions, towers["text"].framework, target)
        joined_as = {side: _joined_as(side, towers[side].config, held[side].label) for side in SIDES}
        fit = all(said.fits for said in joined_as.values())
        whole = _whole(held, projection_dim) if fit else None
        whole = None if whole is None else stack.enter_context(whole)
        width = whole.config.get("projection_dim", 512) if whole is not None else projection_dim or 512
        raw = {
            "architectures": [family.classes[CANONICAL]],
            "logit_scale_init_value": float(np.float32(2.6592)),
            "model_type": family.model_type,
            "projection_dim": width,
            **{f"{side}_config": said.section for side, said in joined_as.items()},
        }
        config = check_config(raw)
        tell_positions(positions, config.text, towers["text"].framework, target)
        files = [file for tower in towers.values() for file in tower.files]
        found = {f"{side}_model/{name}": (tower, name) for side, tower in towers.items() for name in tower.names}
        rules = compile_rules(config).tensors
        if whole is not None:
            by_name = {canonical: name for name, canonical in whole.canonical.items()}
            found |= {r.names[KERAS]: (whole, by_name[r.name]) for r in rules if r.name in by_name and _outside(r)}
        return write_tensors(
            raw,
            _tensors(config, rules, found, np.random.default_rng(seed)),
            out,
            framework=KERAS,
            target=target,
            format=format or default_format(target),
            overwrite=overwrite,
            label=f"{held['vision'].pinned} + {held['text'].pinned}",
            sidecars=(held["text"].folder, held["vision"].folder),
            seed=seed,
            made_new=tuple(rule.names[KERAS] for rule in rules if rule.names[KERAS] not in found),
            dropped=_left_out(towers, found, same=whole is not None),
            before={file: seen.get(file) or identity(file) for file in files} | dict(small_files(seen)),
            processor=towers["vision"].processor,
            progress=progress,
        )


def _whole(held: Mapping[Side, Obtained], projection_dim: int | None) -> TensorReader | None:
    """The common model of both towers, whose trained projections fit them, or None."""
    if held["vision"].path.resolve() != held["text"].path.resolve():
        return None
    try:
        whole = open_tensors(held["vision"].path, KERAS)
    except ConfigError:  # a model with rules for its towers only
        return None
    if projection_dim is not None and projection_dim != whole.config.get("projection_dim", 512):
        with whole:  # and closed
            return None
    return whole


@dataclass(frozen=True)
class _Joined:
    """A tower's config as part of a dual encoder, and whether what stood behind the tower in its model fits there."""

    section: Mapping[str, Any]
    fits: bool


def _joined_as(side: Side, config: Mapping[str, Any], where: str) -> _Joined:
    """A tower's config as part of a whole, which knows some under another name and asks for fields that some have not.

    Raises:
        UnsupportedTower: a dual encoder cannot have it.
    """
    tower = check_tower_config(side, config, where)
    said = tower.rules.get("dual_encoder", {}).get(tower.model_type, {})
    if said:
        if "as" not in said or truth(said.get("unless", "false"), tower.fields):
            raise UnsupportedTower(
                f"{where}: a dual encoder cannot have a {tower.model_type}: {said['why']}; name a tower of another model"
            )
        config = {**config, "model_type": said["as"]}
        silent = check_tower_config(side, config, where).fields
        config |= {name: value for name, value in tower.fields.items() if silent.get(name) != value}
        tower = check_tower_config(side, config, where)
    return _Joined({**config, **required_fields(tower)}, not said.get("anew", False))


def _outside(rule: TensorRule) -> bool:
    return not rule.name.startswith(tuple(f"{side}_model." for side in SIDES))


def _left_out(
    towers: Mapping[Side, TensorReader], found: Mapping[str, tuple[TensorReader, str]], same: bool
) -> tuple[Dropped, ...]:
    """What no part of the new model uses; in one checkpoint, one tower uses what the other leaves."""
    left = (item for tower in towers.values() for item in tower.dropped)
    if not same:
        return tuple(left)
    used = {reader.sources[name] for reader, name in found.values()}
    return tuple(dict.fromkeys(item for item in left if item.name not in used))


def _tensors(
    config: TwoTowerConfig,
    rules: Sequence[TensorRule],
    found: Mapping[str, tuple[TensorReader, str]],
    random: np.random.Generator,
) -> Iterator[StoredTensor]:
    for rule in rules:
        name = rule.names[KERAS]
        if name in found:
            reader, of_reader = found[name]
            yield reader.stored(of_reader, name)
        else:
            yield _new(rule, config, random)


def _new(rule: TensorRule, config: TwoTowerConfig, random: np.random.Generator) -> StoredTensor:
    """A tensor that no tower has: a projection, a pooler's weight or bias, the scale."""
    name, shape = rule.names[KERAS], rule.shape_in(KERAS)
    if rule.name == config.family.scale:
        value: Array = np.full(shape, config.fields["logit_scale_init_value"], np.float32)
    elif len(shape) > 1:
        bound = 1 / np.sqrt(shape[0])
        value = random.uniform(-bound, bound, shape).astype(np.float32)
    else:
        value = np.full(shape, name.endswith("/gamma"), np.float32)
    return StoredTensor(name, "float32", shape, None, lambda start, stop: value[start:stop])
