"""Faults that a conversion could have, one kind each, in a checkpoint whose manifest describes it truthfully.

A fault of weights is a conversion of an altered source. Its manifest is then changed to name the true source. A fault of the
config is written into the output. Its manifest then gets the new file's size and sha256.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blake3
import numpy as np

from converter import pt2tf
from converter.names.configs import check_config
from converter.names.rule_files import Side
from converter.names.spelling import branch_ends
from tests.tiny import Arrays, config_of, tensors_of, write_checkpoint
from tests.towers import config_of_tower

SIDES: tuple[Side, Side] = ("vision", "text")
LOGIT_SCALE = 1.6
_QUERY = re.compile(r"^(.*\.)(q_proj|query|q)\.(weight|bias)$")
_KEYS = {"q_proj": "k_proj", "query": "key", "q": "k"}
_POSITIONS = re.compile(r"\.((char_)?position_embeddings?(\.weight)?|relative_position_bias_table)$")
# A norm of the config's epsilon before the first tap, in the embeddings; elsewhere the first is in the first layer. Swin's
# there has an epsilon of its own.
_NORM_IN_EMBEDDINGS = re.compile(r"\.((char_)?embeddings\.(LayerNorm|layer_norm)|pre_layrnorm|emb_ln)\.weight$")
# Query, key and value in one, a third each.
_JOINT = re.compile(r"\.(Wqkv\.weight|qkv\.weight|in_proj_weight)$")


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        title: what is wrong.
        weights: the altered PyTorch tensors, from the true ones; None if the fault is in the config.
        config: what is changed in the output's ``<side>_config``.
        tensor: the name, or a part of it, that the comparison of weights has to give; None where the tower has none such.
        place: the expected beginning of the first layer output over tolerance.
        inside: how it has to end, where the fault is in one of a layer's branches.
    """

    title: str
    place: str
    weights: Callable[[Arrays], Arrays] | None = None
    config: Mapping[str, Any] | None = None
    tensor: str | None = ""
    inside: str = ""


def model_config(*model: str) -> dict[str, Any]:
    """A tiny model with at least two layers in each tower, or groups of layers, so that two can be swapped.

    Args:
        *model: the two towers of a dual encoder, or the model type of another family.
    """
    if len(model) == 1:
        return config_of(family=model[0])
    towers = zip(SIDES, model, strict=True)
    return config_of(
        "vit", "bert", fields={f"{side}_config": {"model_type": t, **config_of_tower(t)} for side, t in towers}
    )


def pair_tensors(config: Mapping[str, Any], seed: int) -> Arrays:
    """Weights of the size that trained ones have, random everywhere."""
    made = {}
    for name, array in tensors_of(config, seed=seed).items():
        scale = name.endswith((".weight", "lambda1", "running_var")) and array.ndim == 1
        made[name] = array if array.dtype.kind == "i" else np.asarray(0.2 * array + (1.0 if scale else 0.0), np.float32)
    made["logit_scale"] = np.full(made["logit_scale"].shape, LOGIT_SCALE, np.float32)
    return made


def write_pair(folder: Path, config: Mapping[str, Any], seed: int = 11) -> Path:
    """A PyTorch checkpoint and what it is converted to: ``folder/pt`` and ``folder/tf``."""
    write_checkpoint(folder / "pt", config, pair_tensors(config, seed))
    pt2tf(folder / "pt", folder / "tf", format="safetensors")
    return folder


def faults_of(config: Mapping[str, Any], side: Side) -> list[Fault]:
    """Every fault that one tower of a pair can have, and those of the whole where the side is ``"text"``."""
    names = [name for name in pair_tensors(config, 0) if name.startswith(f"{side}_model.")]
    tower = check_config(config).tower(side)
    mlp_end = branch_ends(side, tower.model_type)["mlp_output"]
    layers = _layers(names, tower.rules["taps"]["mlp_output"][0])
    first, second = layers[:2]
    last = [name for name in names if name.startswith(second)]
    mlp = {
        kind: _one(last, lambda n, k=kind: mlp_end.fullmatch(n.removesuffix(f".{k}"))) for kind in ("weight", "bias")
    }
    attention_end = branch_ends(side, tower.model_type).get("attention_output", re.compile("(?!)"))
    shapes = {name: array.shape for name, array in pair_tensors(config, 0).items()}
    query = _one(last, lambda n: _JOINT.search(n) or shapes.get(_key_of(n)) == shapes[n])
    square = _one(
        last,
        lambda n: (
            (_QUERY.match(n) or attention_end.fullmatch(n.removesuffix(".weight")))
            and len(shapes[n]) == len({*shapes[n]}) + 1 == 2
        ),
    )
    variance = _one(names, lambda n: n.endswith(".running_var"))
    positions = _one(names, lambda n: _POSITIONS.search(n) is not None)
    at = f"{side} tower, layer {_tap_of(config, side, layers, 1)}"
    start, embeddings = f"{side} tower, layer 0", f"{side} tower, embeddings"
    attention, inner = "attention output", "MLP output"
    found = [
        Fault(
            "one weight perturbed by 1e-3",
            at,
            _at(mlp["weight"], lambda a: _put(a, a.flat[0] + 1e-3)),
            tensor=mlp["weight"],
            inside=inner,
        ),
        Fault("query and key swapped", at, _swap_query_and_key(query), tensor=query, inside=attention),
        Fault("a square kernel transposed", at, _at(square, lambda a: a.T.copy()), tensor=square, inside=attention),
        Fault("a bias dropped", at, _at(mlp["bias"], np.zeros_like), tensor=mlp["bias"], inside=inner),
        Fault(
            "two layers swapped",
            f"{side} tower, layer {_tap_of(config, side, layers, 0)}",
            _swap_layers(first, second),
            tensor=first,
        ),
        Fault(
            "positions shifted by one",
            start if str(positions).endswith("relative_position_bias_table") else embeddings,
            _at(positions, lambda a: np.roll(a, 1, axis=-2)),
            tensor=positions,
        ),
        Fault("a NaN", at, _at(mlp["weight"], lambda a: _put(a, np.nan)), tensor=mlp["weight"], inside=inner),
        Fault(
            "layer_norm_eps changed",
            embeddings if any(map(_NORM_IN_EMBEDDINGS.search, names)) else start,
            config={"layer_norm_eps": 0.01},
        ),
        Fault(
            "hidden_act changed",
            embeddings if tower.fields.get("use_repmixer_blocks") else start,
            config={"hidden_act": "gelu" if tower.fields.get("hidden_act") == "relu" else "relu"},
            inside="" if tower.fields.get("use_repmixer_blocks") else inner,
        ),
        Fault("a variance of a batch norm left at 1", embeddings, _at(variance, np.ones_like), tensor=variance),
    ]
    if side == "text":
        reset = _at("logit_scale", lambda a: np.full(a.shape, 2.6592, np.float32))
        found.append(Fault("logit_scale reset to the default", "logits per image", reset, tensor="logit_scale"))
    return [fault for fault in found if fault.tensor is not None and set(fault.config or ()) <= set(tower.fields)]


def write_faulty(folder: Path, pair: Path, config: Mapping[str, Any], side: str, fault: Fault, seed: int = 11) -> Path:
    """Writes the output that has a fault, with a manifest that describes it and names the true source."""
    out = folder / "tf"
    if fault.weights is not None:
        altered = write_checkpoint(folder / "altered", config, fault.weights(pair_tensors(config, seed)))
        pt2tf(altered, out, format="safetensors")
        shutil.rmtree(altered)
    else:
        shutil.copytree(pair / "tf", out)
        changed = json.loads((out / "config.json").read_text("utf-8"))
        changed[f"{side}_config"] |= dict(fault.config or {})
        (out / "config.json").write_text(json.dumps(changed, indent=2), "utf-8")
    rewrite_manifest(out, pair / "pt")
    return out


def rewrite_manifest(out: Path, source: Path) -> None:
    """Makes a manifest name a source, and have sizes and sums of the files as they are."""
    path = out / "conversion.json"
    manifest = json.loads(path.read_text("utf-8"))
    manifest["source"]["path"] = os.path.relpath(source, out)
    for item in manifest["files"]:
        data = (out / item["name"]).read_bytes()
        item |= {"size": len(data), "blake3": blake3.blake3(data).hexdigest()}
    path.write_text(json.dumps(manifest, indent=2), "utf-8")


def _layers(names: list[str], branch: str) -> list[str]:
    """What the names of each layer begin with, in the order of the model.

    Args:
        names: of its tensors.
        branch: the path that ends a branch of each layer, as the rules have it: all up to the last number is the layer's.
            Layers without such a branch are none.
    """
    of_layer, ends = re.findall(r"^(.*\})(.*)$", branch)[0]
    levels = f"{of_layer}.".split(".")
    path = r"\.".join(r"\d+" if level.startswith("{") else level for level in levels)
    layer = re.compile(rf".*?\b{path}(?={re.escape(ends[1:])}\.)")
    return list(dict.fromkeys(match[0] for name in names if (match := layer.match(name))))


def _tap_of(config: Mapping[str, Any], side: Side, layers: list[str], which: int) -> int:
    """The number of the first tap that a layer's tensors act on: of its stage in Swin, of its group in ALBERT."""
    first, number = (int(re.findall(r"\.(\d+)\.", layers[k])[0]) for k in (0, which))
    fields = config[f"{side}_config"]
    if "num_hidden_groups" in fields:
        return int(number * fields["num_hidden_layers"] // fields["num_hidden_groups"])
    around = check_config(config).tower(side).rules.get("around", {})
    return len(around.get("before", ())) + number - first  # Taps count from the first layer that gives any.


def _one(names: list[str], wanted: Callable[[str], Any]) -> str | None:
    """The first name of that kind, if there is any."""
    return next((name for name in names if wanted(name)), None)


def _put(array: np.ndarray[Any, Any], value: float) -> np.ndarray[Any, Any]:
    changed = array.copy()
    changed.flat[0] = value
    return changed


def _at(name: str | None, change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> Callable[[Arrays], Arrays]:
    return lambda tensors: {**tensors, str(name): np.ascontiguousarray(change(tensors[str(name)]))}


def _key_of(query: str) -> str:
    """The name of the key's tensor beside a query's; of any other tensor nothing."""
    match = _QUERY.match(query)
    return f"{match[1]}{_KEYS[match[2]]}.{match[3]}" if match else ""


def _swap_query_and_key(query: str | None) -> Callable[[Arrays], Arrays] | None:
    if _JOINT.search(query or ""):
        return _at(query, lambda a: np.concatenate([*np.split(a, 3)[1::-1], np.split(a, 3)[2]]))
    match = _QUERY.match(query or "")
    if match is None:
        return None
    stem, here = match[1], match[2]

    def swap(tensors: Arrays) -> Arrays:
        changed = dict(tensors)
        for leaf in ("weight", "bias"):
            one, other = f"{stem}{here}.{leaf}", f"{stem}{_KEYS[here]}.{leaf}"
            if one in tensors and other in tensors and tensors[one].shape == tensors[other].shape:
                changed |= {one: tensors[other], other: tensors[one]}
        return changed

    return swap


def _swap_layers(first: str, second: str) -> Callable[[Arrays], Arrays]:
    def swap(tensors: Arrays) -> Arrays:
        changed = dict(tensors)
        for name in tensors:
            if name.startswith(first):
                other = second + name.removeprefix(first)
                changed |= {name: tensors[other], other: tensors[name]}
        return changed

    return swap
