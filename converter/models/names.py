"""The checkpoint name of every variable, from walking our own layers.

``variable.path`` is not used, because it is frozen when a variable is made. A tower that was built alone and then joined
would keep its own path, and Keras numbers second models. Names are without root scope and ``:0``.
"""

from __future__ import annotations

from typing import Any

from converter.errors import ModelError
from converter.models.parts import Composite


def named_variables(layer: Any) -> dict[str, Any]:
    """Names every variable that a checkpoint holds.

    Args:
        layer: a model with two towers, a tower, or a layer of ours.

    Returns:
        Keras variables by name, in the order in which transformers 4.x creates them: from a dual encoder
        ``vision_model/clip/...``, from a CLIP ``clip/vision_model/...``, from a tower
        ``bert/embeddings/word_embeddings/weight``. State that no checkpoint holds, such as dropout's, is not among them.

    Raises:
        ModelError: the layer is not built.
    """
    if not isinstance(layer, Composite):
        raise ModelError(
            f"the layer is a {type(layer).__name__}; give a model of this package, or a tower or layer of one"
        )
    if not layer.built:
        raise ModelError(f"{layer.name} has no variables yet. Call its build() first.")
    found: dict[str, Any] = {}
    for path, held in layer.held.items():
        inner = named_variables(held) if isinstance(held, Composite) else held.weights
        found.update({layer.named(path, name): variable for name, variable in inner.items()})
    return found
