"""A Keras layer for a part that a model holds itself, such as a projection."""

from __future__ import annotations

from typing import Any

import keras

Tensor = Any


class PartLayer(keras.layers.Layer):
    """A layer for a part that a model has itself, which can be frozen, called and inspected.

    The variables are the model's, which names, orders and saves them; here they are only shared.

    Args:
        part: the part.
        **kwargs: ``name`` and ``dtype``.
    """

    def __init__(self, part: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.part = part

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "part" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.part, name)

    def build(self, input_shape: Any = None) -> None:
        """Takes over the variables of the part, once the model has made them."""
        del input_shape
        self.shared = list(self.part.weights.values())
        self.built = True
        if not self.trainable:
            for variable in self.shared:
                variable.trainable = False

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """The part's output for a tensor, without what Keras does around a layer; symbolic tensors need a layer."""
        if args and keras.backend.is_keras_tensor(args[0]):
            return self._in_graphs()(*args, **kwargs)
        return self.part(*args, **kwargs)

    def _in_graphs(self) -> PartInGraph:
        """The layer for the part in functional models; kept where Keras does not look for parts to save."""
        if "_hidden" not in vars(self):
            made = PartInGraph(self.part, name=self.name, dtype=self.dtype_policy)
            object.__setattr__(self, "_hidden", lambda: made)
        found: PartInGraph = vars(self)["_hidden"]()
        return found

    def save_own_variables(self, store: Any) -> None:
        """Saves nothing: the model does."""

    def load_own_variables(self, store: Any) -> None:
        """Loads nothing either."""


class PartInGraph(keras.layers.Layer):
    """A part as a layer of a functional model that does not hold the part's own model, and so saves its variables.

    Args:
        part: the part, built.
        **kwargs: ``name`` and ``dtype``.
    """

    def __init__(self, part: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.part = part
        self.shared = list(part.weights.values())
        self.built = True

    def call(self, x: Tensor) -> Tensor:
        """The part's output for a tensor."""
        return self.part(x)
