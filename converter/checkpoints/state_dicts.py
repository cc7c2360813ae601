"""Finds the weights in what torch.save was given: a state dict, or a dict in which a training script put one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from converter.errors import UnsupportedContainer, listed, printable

# Names of the model's weights in training scripts, the unambiguous ones first.
_USUAL = ("state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params")
MAX_DEPTH = 3


def find_state_dict(
    path: Path, value: Any, is_tensor: Callable[[Any], bool]
) -> tuple[Mapping[Any, Any], Mapping[str, str]]:
    """Finds the one dict of tensors in what a file holds.

    Args:
        path: for messages.
        value: what was saved.
        is_tensor: whether a part of it is a tensor.

    Returns:
        The weights by name (of any type: the reader checks them), and what lay beside them that could have been taken
        as well, with the reason.

    Raises:
        UnsupportedContainer: there is none, there are several without a usual name, or it holds more than tensors.
    """
    beside: dict[str, str] = {}
    for _ in range(MAX_DEPTH):
        if not isinstance(value, dict):
            kind = "tensor" if is_tensor(value) else type(value).__name__
            raise UnsupportedContainer(
                f"{path}: holds a {kind}, expected a state_dict; save model.state_dict() with torch.save"
            )
        key = _key(path, value, is_tensor)
        if key is None:
            break
        others = (name for name, held in value.items() if name != key and _tensors(held, is_tensor))
        beside |= {
            str(name): f"lies beside {printable(str(key), 60)}, which was converted; save it alone to convert it"
            for name in others
        }
        value = value[key]
    for name, held in value.items():
        if not is_tensor(held):
            raise UnsupportedContainer(
                f"{path}: {printable(str(name))} is a {type(held).__name__}, expected a tensor; save the state_dict "
                "alone: torch.save(model.state_dict(), FILE)"
            )
    return value, beside


def _key(path: Path, value: Mapping[Any, Any], is_tensor: Callable[[Any], bool]) -> Any:
    """The key of the weights; None if they are the dict itself."""
    holding = [name for name, held in value.items() if _tensors(held, is_tensor)]
    wrapped = [name for name in _USUAL[:2] if isinstance(value.get(name), dict)]
    usual = [name for name in _USUAL if name in holding]
    if usual or len(holding) == 1:
        return usual[0] if usual else holding[0]
    if len(holding) > 1:
        raise UnsupportedContainer(
            f"{path}: holds {len(holding)} dicts of tensors ({listed([str(name) for name in holding])}); save the one "
            "you want alone: torch.save(torch.load(FILE)[KEY], OTHER_FILE)"
        )
    return wrapped[0] if wrapped else None


def _tensors(value: Any, is_tensor: Callable[[Any], bool], depth: int = 0) -> bool:
    """Whether a value is a dict of tensors by name, or one that wraps such a dict under a usual name."""
    if not isinstance(value, dict) or not value:
        return False
    if depth > MAX_DEPTH:  # a pickle can make a dict that holds itself
        return False
    if all(isinstance(name, str) and is_tensor(held) for name, held in value.items()):
        return True
    return any(_tensors(value[name], is_tensor, depth + 1) for name in _USUAL if name in value)
