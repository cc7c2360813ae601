"""SigLIP 2 of any resolution (NaFlex): SigLIP, whose images come as patches, with the shape that they have in each image.

Source: https://arxiv.org/abs/2502.14786. transformers never had it in TensorFlow; the interface is PyTorch's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from converter.models.families.siglip import TFSiglipModel

Tensor = Any


class TFSiglip2Model(TFSiglipModel, model_type="siglip2"):
    """Embeds images and texts into one space and scores every pair: transformers' ``Siglip2Model`` on Keras.

    Images come from ``Siglip2ImageProcessor``: patches, which of them count, and how many rows and columns of them each
    image has. Texts are padded to their full length and come without a mask, as the model was trained.

    Args:
        config: a ``Siglip2Config`` of transformers.
        initial: ``"random"``, ``"zeros"``, or ``"empty"`` for a model that is about to be loaded.
        **kwargs: ``name``, ``dtype`` and ``trainable``, as for every Keras model.

    Raises:
        ConfigError: the config is of another kind.
        UnsupportedOption: a config field has a value that changes the graph in a way that is not supported.
    """

    base_model_prefix: ClassVar[str] = "siglip2"
    config_hint: ClassVar[str] = "Make one with Siglip2Config(text_config=..., vision_config=...)."
    fields: ClassVar[tuple[str, ...]] = (
        "input_ids",
        "pixel_values",
        "pixel_attention_mask",
        "spatial_shapes",
        "attention_mask",
        "position_ids",
        "return_loss",
    )

    def get_image_features(  # type: ignore[override]  # as in PyTorch
        self,
        pixel_values: Any = None,
        pixel_attention_mask: Any = None,
        spatial_shapes: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> Tensor:
        """The pooled output of the vision tower, not normalised.

        Args:
            pixel_values: ``(images, patches, channels * patch * patch)``, or a dictionary of inputs.
            pixel_attention_mask: ``(images, patches)``, 1 where a patch is; None: all are patches.
            spatial_shapes: rows and columns of patches, ``(images, 2)``.
            output_attentions: accepted for compatibility, ignored: only the features are returned.
            output_hidden_states: the same.
            return_dict: the same.
            training: whether dropout is on.

        Returns:
            Features ``(images, width)``.

        Raises:
            ModelError: the images do not fit the config.
        """
        del output_attentions, output_hidden_states, return_dict
        given = {"pixel_attention_mask": pixel_attention_mask, "spatial_shapes": spatial_shapes}
        return self._image_features(pixel_values, training, **given)

    def call(  # type: ignore[override]  # likewise
        self,
        input_ids: Tensor = None,
        pixel_values: Tensor = None,
        pixel_attention_mask: Tensor | None = None,
        spatial_shapes: Tensor = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        return_loss: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> Any:
        """Scores every text against every image.

        Args:
            input_ids: ``(texts, length)``, or one dictionary of all inputs.
            pixel_values: ``(images, patches, channels * patch * patch)``.
            pixel_attention_mask: ``(images, patches)``, 1 where a patch is; None: all are patches.
            spatial_shapes: rows and columns of patches, ``(images, 2)``.
            attention_mask: ``(texts, length)``, 1 where a token is; None: all are tokens.
            position_ids: ``(texts, length)``; None: 0, 1, 2 ...
            return_loss: whether to return the sigmoid loss; needs as many images as texts.
            output_attentions: whether the towers return attention weights; None: as their configs say.
            output_hidden_states: whether the towers return hidden states; None: as their configs say.
            return_dict: whether to return a ``DualEncoderOutput`` or a plain tuple; None: as the config says.
            training: whether dropout is on.

        Returns:
            The fields of ``DualEncoderOutput``; ``loss`` has shape ``(1,)`` and is there with ``return_loss`` only.

        Raises:
            ModelError: an input is missing or does not fit the config.
        """
        if isinstance(input_ids, Mapping):
            flags = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
            given = self.inputs_of(input_ids)
            return TFSiglip2Model.call(self, **given, return_dict=return_dict, training=training, **flags)
        texts = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
        images = {
            "pixel_values": pixel_values,
            "pixel_attention_mask": pixel_attention_mask,
            "spatial_shapes": spatial_shapes,
        }
        asked = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        return self._matched(texts, images, return_loss, return_dict, training=training, **asked)
