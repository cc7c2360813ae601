"""The layers inside a tower by the attributes that transformers 4 gave them: ``text_model.bert.encoder.layer[0]``.

A tower here keeps its layers by their place in a checkpoint. That place spells the same path, so no list of names is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

# Attributes of transformers 4 whose layers have another name; any that ends with ``_output`` is named ``output``.
_OTHER_NAMES = {"self_attention": "self"}
NOT_HERE = object()


class InnerLayer:
    """A group of layers below one path of a tower, such as the encoder.

    It is a view: freezing it freezes the layers. Attributes lead further inside.

    Args:
        owner: the tower or layer that holds the parts.
        path: where the group is, for example ``"bert/encoder"``.
    """

    def __init__(self, owner: Any, path: str) -> None:
        self._owner, self._path = owner, path

    def __getattr__(self, name: str) -> Any:
        found = NOT_HERE if name.startswith("_") else inner_layer(self._owner, self._path, name)
        if found is NOT_HERE:
            found = getattr(self._owner.held.get(self._path), name, NOT_HERE)  # `kernel` and `bias` of a dense part
        if found is NOT_HERE:
            raise AttributeError(f"{self._path} of {self._owner.name!r} has no attribute {name!r}")
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The tower's outputs, if this is its main layer; else the part's."""
        if self._path == getattr(self._owner, "main_layer", None):
            return self._owner(*args, **kwargs)
        part = self._owner.held.get(self._path)
        if part is None:
            raise TypeError(f"{self._path} is a group of layers; call the layers in it, or the whole tower.")
        return part(*args, **kwargs)

    def _inside(self) -> Iterator[Any]:
        for path, held in self._owner.held.items():
            if path == self._path or path.startswith(f"{self._path}/"):
                yield held

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self._path.rpartition("/")[2]

    @property
    def weights(self) -> list[Any]:
        """All variables inside."""
        if not self._owner.built:
            self._owner.build()
        return [
            weight for held in self._inside() for weight in (held.weights.values() if _is_part(held) else held.weights)
        ]

    variables = weights

    @property
    def trainable_weights(self) -> list[Any]:
        """The variables inside that training changes."""
        return [weight for weight in self.weights if weight.trainable]

    trainable_variables = trainable_weights

    @property
    def non_trainable_weights(self) -> list[Any]:
        """The variables inside that training does not change."""
        return [weight for weight in self.weights if not weight.trainable]

    non_trainable_variables = non_trainable_weights

    @property
    def trainable(self) -> bool:
        """Whether training changes anything inside; setting it freezes or releases all of it."""
        return any(weight.trainable for weight in self.weights)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        weights = self.weights
        for held in self._inside():
            if not _is_part(held):
                held.trainable = value
        for weight in weights:
            weight.trainable = value

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("_owner", "_path", "trainable"):
            raise AttributeError(f"{self._path} is a view of layers; set {name!r} on the tower instead.")
        super().__setattr__(name, value)

    def count_params(self) -> int:
        """How many numbers the variables inside hold."""
        return sum(math.prod(weight.shape) for weight in self.weights)


def inner_layer(owner: Any, path: str, name: str) -> Any:
    """A layer, a numbered list of layers, or a group of them, one step below a path.

    Args:
        owner: the tower or layer that holds the parts.
        path: where to look; empty for the top.
        name: an attribute of transformers 4.

    Returns:
        What is there, or ``NOT_HERE``.
    """
    for spelled in (name, _OTHER_NAMES.get(name), "output" if name.endswith("_output") else None):
        full = f"{path}/{spelled}".lstrip("/")
        if spelled is None:
            continue
        if full in owner.held:
            held = owner.held[full]
            return InnerLayer(owner, full) if _is_part(held) else held
        if any(key.startswith(f"{full}/") for key in owner.held):
            return InnerLayer(owner, full)
        if found := list(_numbered(owner, f"{full}_._")):
            return found
    return NOT_HERE


def _is_part(held: Any) -> bool:
    """Whether it is a part, which keeps its weights by name; a layer's Keras would have to collect, from all layers inside."""
    return "weights" in vars(held)


def _numbered(owner: Any, stem: str) -> Iterator[Any]:
    """The layers ``stem0``, ``stem1`` and so on."""
    numbers = {key[len(stem) :].partition("/")[0] for key in owner.held if key.startswith(stem)}
    for number in sorted(numbers, key=int):
        path = f"{stem}{number}"
        yield owner.held[path] if path in owner.held else InnerLayer(owner, path)


def found_inside(owner: Any, name: str) -> Any:
    """Looks for an attribute at the top of a tower, and below levels with a single child (``clip``, ``clip/vision_model``).

    Returns:
        What is there, or ``NOT_HERE``.
    """
    path = ""
    while True:
        found = inner_layer(owner, path, name)
        if found is not NOT_HERE:
            return found
        start = f"{path}/" if path else ""
        below = {key[len(start) :].partition("/")[0] for key in owner.held if key.startswith(start)}
        if len(below) != 1 or f"{start}{next(iter(below))}" in owner.held:
            return NOT_HERE
        path = f"{start}{next(iter(below))}"
