"""CLIP: two towers of its own, two projections without bias, and a learned temperature (arXiv 2103.00020).

The interface is that of transformers 4's ``TFCLIPModel``.
"""

from __future__ import annotations

from typing import Any, ClassVar

from converter.models.two_towers import TwoTowers


class DrawnAsCLIP:
    """Mixin of families whose new projections CLIP's rule draws."""

    config: Any

    def spread(self, inputs: int) -> float:
        """Standard deviation of a new projection, as CLIP draws it."""
        return float(inputs**-0.5 * self.config.initializer_factor)


class TFCLIPModel(DrawnAsCLIP, TwoTowers, model_type="clip"):
    """Embeds images and texts into one space and scores every pair: transformers' ``CLIPModel`` on Keras.

    Args:
        config: a ``CLIPConfig`` of transformers.
        initial: ``"random"``, ``"zeros"``, or ``"empty"`` for a model that is about to be loaded.
        **kwargs: ``name``, ``dtype`` and ``trainable``, as for every Keras model.

    Raises:
        ConfigError: the config is of another kind.
        UnsupportedOption: a config field has a value that changes the graph in a way that is not supported.
    """

    base_model_prefix: ClassVar[str] = "clip"
    config_hint: ClassVar[str] = "Make one with CLIPConfig(text_config=..., vision_config=...)."

    @property
    def clip(self) -> MainLayer:
        """The model under the name of the layer in which transformers 4 kept towers, projections and ``logit_scale``."""
        return MainLayer(self)


class MainLayer:
    """A model under another name; not the model itself, which Keras would save as a part of itself without end."""

    def __init__(self, model: TFCLIPModel) -> None:
        object.__setattr__(self, "_model", model)

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_model"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "_model"), name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs of the model."""
        return object.__getattribute__(self, "_model")(*args, **kwargs)
