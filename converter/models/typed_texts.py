"""Families whose texts have token types, as BERT's have: one more input of a call and of ``get_text_features``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from converter.models.two_towers import TwoTowers

Tensor = Any


class TypedTexts(TwoTowers):
    """Two towers whose text tower takes token types."""

    fields: ClassVar[tuple[str, ...]] = (*TwoTowers.fields, "token_type_ids")

    def get_text_features(  # type: ignore[override]  # token types stand where transformers 4 had them
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        token_type_ids: Any = None,
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
            token_type_ids: ``(texts, length)``; None: all 0.
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
        given = {"attention_mask": attention_mask, "position_ids": position_ids, "token_type_ids": token_type_ids}
        return self._text_features(input_ids, training, **given)

    def call(  # type: ignore[override]  # likewise
        self,
        input_ids: Tensor = None,
        pixel_values: Tensor = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        return_loss: bool | None = None,
        token_type_ids: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> Any:
        """Scores every text against every image.

        Args:
            input_ids: ``(texts, length)``, or one dictionary of all inputs.
            pixel_values: ``(images, channels, height, width)``.
            attention_mask: ``(texts, length)``, 1 where a token is; None: all are tokens.
            position_ids: ``(texts, length)``; None: counted as the tower counts.
            return_loss: whether to return the contrastive loss; needs as many images as texts.
            token_type_ids: ``(texts, length)``; None: all 0.
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
            return TypedTexts.call(self, **given, return_dict=return_dict, training=training, **flags)
        texts = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
        texts["token_type_ids"] = token_type_ids
        asked = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        images = {"pixel_values": pixel_values}
        return self._matched(texts, images, return_loss, return_dict, training=training, **asked)
