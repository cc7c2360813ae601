"""Calling a model with two towers: its inputs, how it scores every pair, and its loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from converter.errors import ModelError
from converter.models.features import Features
from converter.models.inputs import seen, unpacked
from converter.models.losses import clip_loss, per_replica
from converter.models.outputs import DualEncoderOutput
from converter.models.parts import unit, widened

Tensor = Any

FLAGS = ("output_attentions", "output_hidden_states", "return_dict", "training")
DUMMY_IDS = ((7, 6, 0, 0, 1), (1, 2, 3, 0, 0), (0, 0, 0, 4, 5))


def wants_loss(value: Any) -> bool:
    """Whether ``return_loss`` asks for the loss: a bool, or a tensor of them, as a dataset has one for each sample.

    A graph that is being traced cannot look at a tensor; that it was given at all counts there.
    """
    if value is None or isinstance(value, bool):
        return bool(value)
    values = seen(value)
    return True if values is None or values.dtype.kind == "O" else bool(values.size and values.all())


class Calling(Features, keras.Model):
    """A model with a ``vision_model`` and a ``text_model``; a family overrides ``score`` and ``loss_of``.

    Attributes:
        fields: what a call takes, in the order of its arguments; ``FLAGS`` follow.
        serving_fields: what a text is to a server.
    """

    fields: ClassVar[tuple[str, ...]] = ("input_ids", "pixel_values", "attention_mask", "position_ids", "return_loss")
    serving_fields: ClassVar[tuple[str, ...]] = ("input_ids", "attention_mask")

    config: Any
    logit_scale: Any

    def score(self, text_units: Tensor, image_units: Tensor) -> Tensor:
        """Scores every text against every image.

        Args:
            text_units: ``(texts, projection_dim)``, each of length 1.
            image_units: ``(images, projection_dim)``, each of length 1.

        Returns:
            Logits ``(texts, images)``: the cosines, times ``exp(logit_scale)``.
        """
        scale = ops.cast(ops.convert_to_tensor(self.logit_scale), text_units.dtype)
        return ops.matmul(text_units, ops.transpose(image_units)) * ops.exp(scale)

    def loss_of(self, logits_per_text: Tensor) -> Tensor:
        """The loss of ``(n, n)`` logits, where text i belongs to image i; a scalar."""
        return clip_loss(logits_per_text)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the model on inputs of any accepted kind; see ``call``."""
        self.build()
        kwargs |= dict(zip((*self.fields, *FLAGS)[1:], args[1:], strict=False))
        given = {field: kwargs.pop(field, None) for field in self.fields}
        for field in set(self.text_model.input_fields).difference(self.fields):
            if kwargs.pop(field, None) is not None:
                raise ModelError(f"{type(self).__name__} takes no {field}: its texts have none. Leave it out.")
        inputs = unpacked(args[0] if args else None, given, self.fields)
        return super().__call__(**self._tensors(inputs), **kwargs)

    def _tensors(self, inputs: dict[str, Any]) -> dict[str, Any]:
        missing = [field for field in ("input_ids", "pixel_values") if field not in inputs]
        if missing:
            raise ModelError(
                f"{' and '.join(missing)} missing; the dual encoder needs texts and images. "
                "Use get_text_features or get_image_features for one of them alone."
            )
        of_images = self.vision_model.input_fields
        given = self.vision_model.checked({f: v for f, v in inputs.items() if f in of_images})
        ids = self.text_model.checked({f: v for f, v in inputs.items() if f not in (*of_images, "return_loss")})
        images, texts = given["pixel_values"].shape[0], ids["input_ids"].shape[0]
        loss = wants_loss(inputs.get("return_loss"))
        if loss and images is not None and texts is not None and images != texts:
            raise ModelError(
                f"return_loss with {images} images and {texts} texts: the loss pairs text i with image i. "
                "Give as many texts as images, or leave return_loss out."
            )
        return {**ids, **given, "return_loss": loss}

    def call(
        self,
        input_ids: Tensor = None,
        pixel_values: Tensor = None,
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
            pixel_values: ``(images, channels, height, width)``.
            attention_mask: ``(texts, length)``, 1 where a token is; None: all are tokens.
            position_ids: ``(texts, length)``; None: counted as the tower counts.
            return_loss: whether to return the loss; needs as many images as texts.
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
            return Calling.call(self, **self.inputs_of(input_ids), return_dict=return_dict, training=training, **flags)
        texts = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
        asked = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        images = {"pixel_values": pixel_values}
        return self._matched(texts, images, return_loss, return_dict, training=training, **asked)

    def _matched(
        self,
        texts: Mapping[str, Any],
        images: Mapping[str, Any],
        return_loss: Any,
        return_dict: bool | None,
        **flags: Any,
    ) -> Any:
        """The result of ``call``: from inputs of texts and of images by name, and the flags of both towers."""
        as_dict = getattr(self.config, "return_dict", True) if return_dict is None else return_dict
        vision = self.vision_model.run(**images, **flags, return_dict=True)
        text = self.text_model.run(**texts, **flags, return_dict=True)
        # Half precision is rounded at the end only: scores are differences of numbers near each other.
        image_units = unit(widened(self.project("vision", vision)))
        text_units = unit(widened(self.project("text", text)))
        scores = self.score(text_units, image_units)
        image_embeds, text_embeds, logits_per_text = (
            ops.cast(made, self.compute_dtype) for made in (image_units, text_units, scores)
        )
        made = DualEncoderOutput.of(
            loss=ops.reshape(self.loss_of(logits_per_text), (1,)) if return_loss else None,
            logits_per_image=ops.transpose(logits_per_text),
            logits_per_text=logits_per_text,
            text_embeds=text_embeds,
            image_embeds=image_embeds,
            text_model_output=text,
            vision_model_output=vision,
        )
        return made if as_dict else made.to_tuple()

    def inputs_of(self, first: Any) -> dict[str, Any]:
        """Inputs by name, as ``call`` takes them, from one dictionary or list."""
        return self._tensors(unpacked(first, {}, self.fields))

    def rematerialized_call(self, layer_call: Any, *args: Any, **kwargs: Any) -> Any:
        """The call, unchanged: inside a ``keras.RematScope`` the layers run again, not the whole model."""
        del args, kwargs
        return layer_call

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Tensor:
        """The family's loss, so that ``fit`` works on pairs of images and texts without labels.

        Args:
            x: the inputs.
            y: labels; used only if ``compile`` was given a loss.
            y_pred: what ``call`` returned.
            sample_weight: for a loss given to ``compile``.
            training: passed on.

        Returns:
            A scalar. Under ``tf.distribute`` it is this replica's share, from its own pairs.
        """
        if getattr(self, "_compile_loss", None) is not None and y is not None:
            given = {"x": x, "y": y, "y_pred": y_pred, "sample_weight": sample_weight}
            return super().compute_loss(**given, training=training)
        loss = self.loss_of(y_pred["logits_per_text"])
        return per_replica(ops.sum(ops.stack([loss, *(ops.cast(extra, loss.dtype) for extra in self.losses)])))

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """Three short texts and three random images that the model accepts."""
        ids = np.array(DUMMY_IDS, "int32")
        ids %= getattr(self.config.text_config, "vocab_size", 1 + ids.max())
        return {**self.vision_model.dummy_images(len(DUMMY_IDS)), "input_ids": ops.convert_to_tensor(ids)}
