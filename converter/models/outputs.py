"""The models' outputs: ordered dictionaries with access by attribute, key or index, which are trees to Keras.

The fields are those of transformers' ``TFCLIPOutput`` and ``TFBaseModelOutputWithPooling``. A field that was not
computed is not in the dictionary and reads as None by attribute, so no None ever reaches a graph boundary.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import Any, ClassVar, TypeVar

import keras
import optree

Tensor = Any
Output = TypeVar("Output", bound="ModelOutput")


class ModelOutput(OrderedDict[str, Any]):
    """Base of the outputs; ``fields`` names all that may be in one, in order."""

    fields: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def of(cls: type[Output], **values: Any) -> Output:
        """An output of the values that are not None, in the order of ``fields``."""
        return cls((name, values[name]) for name in cls.fields if values.get(name) is not None)

    def __getattr__(self, name: str) -> Any:
        if name in type(self).fields:
            return self.get(name)
        raise AttributeError(f"{type(self).__name__} has no field {name!r}; its fields are {', '.join(self.fields)}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in type(self).fields:
            self[name] = value
        else:
            super().__setattr__(name, value)

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def to_tuple(self) -> tuple[Any, ...]:
        """The values that exist, in order; outputs within become tuples too."""
        return tuple(value.to_tuple() if isinstance(value, ModelOutput) else value for value in self.values())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (tuple(self.items()),)


class TowerOutput(ModelOutput):
    """For a tower: index 0 is the last hidden state, index 1 the pooled output if there is one."""

    fields = ("last_hidden_state", "pooler_output", "hidden_states", "attentions")


class DualEncoderOutput(ModelOutput):
    """Of the dual encoder.

    loss ``(1,)`` with ``return_loss``; logits_per_image ``(images, texts)``; logits_per_text ``(texts, images)``;
    text_embeds ``(texts, projection)`` and image_embeds ``(images, projection)`` of length 1; the towers' outputs.
    """

    fields = (
        "loss",
        "logits_per_image",
        "logits_per_text",
        "text_embeds",
        "image_embeds",
        "text_model_output",
        "vision_model_output",
    )


def _register(cls: type[ModelOutput]) -> None:
    def flatten(output: ModelOutput) -> tuple[tuple[Any, ...], tuple[str, ...]]:
        return tuple(output.values()), tuple(output.keys())

    def unflatten(keys: tuple[str, ...], values: Any) -> ModelOutput:
        return cls(zip(keys, values, strict=True))

    optree.register_pytree_node(cls, flatten, unflatten, namespace="keras")  # type: ignore[arg-type]
    if keras.backend.backend() == "jax":
        sys.modules["jax"].tree_util.register_pytree_node(cls, flatten, unflatten)


for _cls in (TowerOutput, DualEncoderOutput):
    _register(_cls)
