"""Says how a checkpoint's tensors differ from those that its config describes, and what to do, by the pattern of the names."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from converter.conversion.patterns import COMPARE, way_of_missing
from converter.conversion.quantised import QUANTISED, is_quantised
from converter.errors import PlanError, listed
from converter.folding import folded
from converter.names.frameworks import CANONICAL, frameworks
from converter.names.rules import TensorRule
from converter.specs import Checkpoint

_ADAPTED = re.compile(r"(^|\.)(base_layer|lora_\w+|modules_to_save|original_module)(\.|$)")
# Parameters that a weight is computed from while the model runs, what made them, and what ends it, as torch 2 has it.
_COMPUTED = {
    r"\.parametrizations\.weight\.": (
        "a weight is computed from others (torch.nn.utils.parametrize)",
        "[torch.nn.utils.parametrize.remove_parametrizations(m, 'weight') for m in model.modules() if "
        "torch.nn.utils.parametrize.is_parametrized(m, 'weight')]",
    ),
    r"\.weight_mask$": (
        "a weight is pruned (torch.nn.utils.prune)",
        "import torch.nn.utils.prune; "
        "[torch.nn.utils.prune.remove(m, 'weight') for m in model.modules() if hasattr(m, 'weight_mask')]",
    ),
    r"\.weight_u$": (
        "a weight is computed from others (spectral_norm)",
        "[torch.nn.utils.remove_spectral_norm(m) for m in model.modules() if hasattr(m, 'weight_u')]",
    ),
    r"\.weight_g$": (
        "a weight is computed from others (weight_norm)",
        "[torch.nn.utils.remove_weight_norm(m) for m in model.modules() if hasattr(m, 'weight_g')]",
    ),
}
_SHOWN_ROOTS = 4
_FEW = 6


def mismatch(checkpoint: Checkpoint, found: Collection[str], expected: Mapping[str, TensorRule]) -> PlanError | None:
    """The error for a checkpoint with missing or additional tensors, or None.

    Args:
        checkpoint: the source.
        found: its names, with the model's names where they match.
        expected: by the name that the source's framework has for it, the rule that asks for a tensor.
    """
    missing = [name for name in expected if name not in found]
    surplus = [name for name in found if name not in expected]
    if not missing and not surplus:
        return None
    parts = []
    shown = 1 if missing and surplus and len(missing) + len(surplus) > _FEW else 3
    if missing:
        parts.append(f"missing ({len(missing)}): {folded(missing, shown)}, which {expected[missing[0]].cite} asks for")
    if surplus:
        parts.append(f"unexpected ({len(surplus)}): {folded(surplus, shown)}")
    where = checkpoint.files[0] if checkpoint.files else checkpoint.container
    way = _way_out(checkpoint, missing, surplus, expected)
    return PlanError(f"{where}: not the tensors that config.json describes; {'; '.join(parts)}; {way}")


def _way_out(
    checkpoint: Checkpoint, missing: Collection[str], surplus: Collection[str], expected: Mapping[str, TensorRule]
) -> str:
    if any(_ADAPTED.search(name) for name in surplus):
        return (
            "these are PEFT adapters beside the model; merge them: "
            "model.merge_and_unload().save_pretrained(OTHER), then convert OTHER"
        )
    if is_quantised(surplus):
        return QUANTISED
    for marks, (what, call) in _COMPUTED.items():
        if any(re.search(marks, name) for name in surplus):
            return f"{what}; put the result in its place and save again: {call}"
    if (way := way_of_missing(missing, surplus, expected)) is not None:
        return way
    separator = frameworks()[checkpoint.framework].separator
    if 2 * len(missing) > len(expected):
        roots = sorted({name.split(separator)[0] for name in surplus})
        held = f"the file holds {listed(roots, _SHOWN_ROOTS)}" if surplus else "the file holds none of them"
        return f"most names are not the model's ({held}); write the model with save_pretrained of its class"
    if missing:
        return COMPARE
    if checkpoint.framework != CANONICAL:
        return "the file holds more than the model; write the model inside it with save_pretrained"
    return f"leave them out: {_without(surplus, expected)}"


def _without(surplus: Collection[str], expected: Collection[str]) -> str:
    """Python that converts all but such tensors."""
    own = {name.split(".")[0] for name in expected}
    roots = sorted({name.split(".")[0] for name in surplus})
    if not own.intersection(roots) and len(roots) <= _SHOWN_ROOTS:
        return f"pt2tf({{n: t for n, t in state_dict.items() if n.split('.')[0] not in {roots!r}}}, OUT, config=...)"
    return "delete them from state_dict and convert the rest: pt2tf(state_dict, OUT, config=...)"
