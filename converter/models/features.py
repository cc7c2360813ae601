"""Features of texts or images by themselves: a tower's output, projected into the common space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from converter.models.inputs import unpacked
from converter.names.rule_files import Side

Tensor = Any


class Features:
    """Mixin of models with a ``vision_model`` and a ``text_model``; a family overrides ``project``."""

    build: Callable[..., None]
    vision_model: Any
    text_model: Any
    visual_projection: Any
    text_projection: Any

    def project(self, side: Side, output: Any) -> Tensor:
        """Takes a tower's output into the common space.

        Args:
            side: which tower.
            output: its ``TowerOutput``.

        Returns:
            Features ``(n, projection_dim)``, not normalised.
        """
        projection = self.visual_projection if side == "vision" else self.text_projection
        return projection(output.pooler_output)

    def get_text_features(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> Tensor:
        """Projects texts into the common space, without normalising.

        Args:
            input_ids: ``(texts, length)``, or a dictionary of inputs.
            attention_mask: ``(texts, length)``; None: all are tokens.
            position_ids: ``(texts, length)``; None: counted as the tower counts.
            output_attentions: accepted for compatibility, ignored: only the features are returned.
            output_hidden_states: the same.
            return_dict: the same.
            training: whether dropout is on.

        Returns:
            Features ``(texts, projection_dim)``.

        Raises:
            ModelError: an input does not fit the config.
        """
        del output_attentions, output_hidden_states, return_dict
        return self._text_features(input_ids, training, attention_mask=attention_mask, position_ids=position_ids)

    def _text_features(self, input_ids: Any, training: bool, **given: Any) -> Tensor:
        self.build()
        inputs = unpacked(input_ids, given, ("input_ids", *given))
        return self.project("text", self.text_model(**inputs, return_dict=True, training=training))

    def get_image_features(
        self,
        pixel_values: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> Tensor:
        """Projects images into the common space, without normalising.

        Args:
            pixel_values: ``(images, channels, height, width)``, or a dictionary of inputs.
            output_attentions: accepted for compatibility, ignored: only the features are returned.
            output_hidden_states: the same.
            return_dict: the same.
            training: whether dropout is on.

        Returns:
            Features ``(images, projection_dim)``.

        Raises:
            ModelError: the images do not fit the config.
        """
        del output_attentions, output_hidden_states, return_dict
        return self._image_features(pixel_values, training)

    def _image_features(self, pixel_values: Any, training: bool, **given: Any) -> Tensor:
        self.build()
        inputs = unpacked(pixel_values, given, ("pixel_values", *given))
        return self.project("vision", self.vision_model(**inputs, return_dict=True, training=training))
