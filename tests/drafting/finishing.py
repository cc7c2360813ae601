"""What a draft takes from TensorFlow's variables, from a relative, and from the ends of a layer's branches."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tests.drafting.templates import Place, Templates

LEAVES = {"kernel": "weight", "gamma": "weight", "beta": "bias", "embeddings": "weight"}


def with_tensorflow(
    modules: Sequence[dict[str, Any]],
    order: Mapping[str, list[int]] | None,
    templates: Templates,
    leaves: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Modules with their paths in TensorFlow, in the order of its variables where it has the tower.

    Args:
        modules: by their canonical paths.
        order: TensorFlow's variables; None: our own names, spelled as transformers spells lists.
        templates: of the canonical names.
        leaves: what the entry says of levels that no other tower has.
    """
    if order is None:
        last = {ours: theirs for theirs, ours in leaves.items()}
        paths = (spelled(module["pt"], templates.fields).rpartition("/") for module in modules)
        return [
            _placed(module, before + slash + last.get(leaf, leaf))
            for module, (before, slash, leaf) in zip(modules, paths, strict=True)
        ]
    found: dict[str, tuple[str, str]] = {}
    seen: list[tuple[str, Place]] = []
    for name in order:
        path = name.split("/", 2)[2]
        *levels, leaf = path.replace("_._", "/").replace("layers.", "layers/").replace("blocks.", "blocks/").split("/")
        tensor = ".".join([*levels, {**LEAVES, **leaves}.get(leaf, leaf)])
        module, _, last = path.rpartition("/")
        for whole, place in ((tensor, path), (tensor.rpartition(".")[0], module)):
            template, numbers = templates.split(whole)
            found.setdefault(template, (_with_places(place, template, numbers), last))
            seen.append((template, numbers[:1]))
    numbered = {template: number for number, template in enumerate(merged(seen))}
    end = len(numbered)
    placed = []
    for after, module in enumerate(modules):
        path, leaf = found.get(module["pt"], (spelled(module["pt"], templates.fields), ""))
        kind = {"embedding": "word_embedding"} if leaf == "weight" else {}
        kept = {**module, "is": kind.get(module["is"], module["is"])}
        placed.append((numbered.get(module["pt"], end + after), _placed(kept, path)))
    return [module for _, module in sorted(placed, key=lambda item: item[0])]


def merged(seen: Sequence[tuple[str, Place]]) -> list[str]:
    """Every template once, in the order that it has in each layer: what only later layers have stands where it stands there.

    Args:
        seen: the template of each variable, in order, and which layer it is of.
    """
    found: list[str] = []
    for _, layer in itertools.groupby(seen, key=lambda variable: variable[1]):
        templates = list(dict.fromkeys(template for template, _ in layer))
        for at, template in enumerate(templates):
            if template not in found:
                behind = (found.index(other) for other in templates[at + 1 :] if other in found)
                before = (found.index(other) + 1 for other in reversed(templates[:at]) if other in found)
                found.insert(next(behind, next(before, len(found))), template)
    return found


def _placed(module: Mapping[str, Any], path: str) -> dict[str, Any]:
    kind = (
        "word_embedding" if module["is"] == "embedding" and module["pt"].endswith("word_embeddings") else module["is"]
    )
    return {"pt": module["pt"], "tf": path, **{key: value for key, value in module.items() if key != "pt"}, "is": kind}


def spelled(path: str, named: Collection[str] = ()) -> str:
    """A canonical path as transformers spells it in TensorFlow: ``layer_._{layer}/output``.

    Args:
        path: for example ``layer.{layer}.output``.
        named: placeholders that stand for names, which are a level like any other.
    """
    path = path.replace(".", "/").replace("/{", "_._{")
    for word in named:
        path = path.replace(f"_._{{{word}}}", f"/{{{word}}}")
    return path


def _with_places(path: str, template: str, numbers: Sequence[int | str]) -> str:
    """A path with placeholders for the numbers that count layers."""
    words = re.findall(r"\{(\w+)\}", template)
    for word, number in zip(words, numbers, strict=True):
        path = re.sub(rf"(?<=[._]){number}(?=[./]|$)", f"{{{word}}}", path, count=1)
    return path


def as_in(relative: Mapping[str, Any] | None, modules: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Modules in a relative's order, with its paths, where it has them; others stay behind those before them."""
    if relative is None:
        return list(modules)
    known = {_bare(module["pt"]): (number, module) for number, module in enumerate(relative["module"])}
    last, placed = -1, []
    for module in modules:
        number, theirs = known.get(_bare(module["pt"]), (last, None))
        last = number
        path = module["tf"] if theirs is None else _renamed(theirs.get("tf", module["tf"]), theirs["pt"], module["pt"])
        placed.append((number, {**module, "tf": path, "is": module["is"] if theirs is None else theirs["is"]}))
    return [module for _, module in sorted(placed, key=lambda item: item[0])]


def _bare(path: str) -> str:
    return re.sub(r"\{\w+\}", "{}", path)


def _renamed(path: str, theirs: str, ours: str) -> str:
    """A relative's path with our placeholders."""
    for old, new in zip(re.findall(r"\{\w+\}", theirs), re.findall(r"\{\w+\}", ours), strict=True):
        path = path.replace(old, new)
    return path


def taps(modules: Sequence[Mapping[str, Any]], named: Collection[str] = ()) -> dict[str, list[str]]:
    """The modules that end the branches of a layer: the last of the attention, and the last that comes back to its width.

    Args:
        modules: in order.
        named: placeholders that stand for names, of which a layer has modules beside its own.
    """
    beside = re.compile("|".join(rf"\{{{word}\}}" for word in named) or r"(?!)")
    modules = [module for module in modules if not beside.search(module["pt"])]
    deepest = max((module["pt"].count("{") for module in modules), default=0)
    layer = [m for m in modules if m["pt"].count("{") == deepest > 0 and m["is"] in ("dense", "conv1d")]
    attention = [m for m in layer if re.search(r"att", m["pt"].rpartition("}")[2])]
    ends: dict[str, list[str]] = {}
    if attention:
        ends["attention_output"] = [attention[-1]["pt"]]
    widths = {m["shape"][0] for m in attention[-1:]}
    others = [m["pt"] for m in layer if m not in attention and (m["shape"][0] in widths or not widths)]
    if others:
        ends["mlp_output"] = others if attention else others[-1:]
    return ends
