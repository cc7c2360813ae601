"""What all image towers share: how they are called and what they refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

import keras
from keras import ops

from converter.errors import ModelError
from converter.models.embeddings import pair
from converter.models.inputs import as_pixels
from converter.models.tower import Tower

Tensor = Any
Size = tuple[int, int]


class VisionTower(Tower):
    """A tower of images; ``embeddings`` takes pixel values."""

    side = "vision"
    input_fields: ClassVar[tuple[str, ...]] = ("pixel_values",)
    main_input_name = "pixel_values"
    # Whether hidden states take the variables' dtype: under PyTorch's autocast tokens are float32, and what they join becomes so.
    widens: ClassVar[bool] = False

    def call(
        self,
        pixel_values: Tensor = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> Any:
        """Encodes images.

        Args:
            pixel_values: ``(batch, channels, height, width)``.
            output_attentions: whether to return attention weights; None: as the config says.
            output_hidden_states: whether to return hidden states; None: as the config says.
            return_dict: whether to return a ``TowerOutput`` or a plain tuple; None: as the config says.
            training: whether dropout is on.

        Returns:
            last_hidden_state ``(batch, length, width)``, pooler_output ``(batch, width)`` and what was requested.

        Raises:
            ModelError: the images do not fit the config.
        """
        if None in tuple(pixel_values.shape[2:]):
            batch = ops.shape(pixel_values)[0]  # named, so that an image of another size fails instead of becoming two
            pixel_values = ops.reshape(pixel_values, (batch, self.config.num_channels, *pair(self.config.image_size)))
        x = self.before(self.embeddings(pixel_values, training=training))
        x, taps = self.encode(x, self.bias(pixel_values, training), output_attentions, output_hidden_states, training)
        last, pooled = self.after(x)
        return self.answer(last, pooled, taps, return_dict)

    @property
    def served(self) -> Mapping[str, tuple[tuple[int | None, ...], str]]:
        """The inputs of an image for a server: shape, None where it is free, and dtype of each."""
        return {"pixel_values": ((None, self.config.num_channels, *pair(self.config.image_size)), "float32")}

    def dummy_images(self, count: int) -> dict[str, Tensor]:
        """So many random images that the tower accepts."""
        shape = (count, self.config.num_channels, *pair(self.config.image_size))
        return {"pixel_values": keras.random.uniform(shape, dtype=self.compute_dtype)}

    def bias(self, pixel_values: Tensor, training: bool) -> Any:
        """What is added to the attention scores, for all blocks or in a list for each; None: nothing."""
        del pixel_values, training

    def before(self, x: Tensor) -> Tensor:
        """What comes between embeddings and the first block."""
        return ops.cast(x, self.variable_dtype) if self.widens else x

    def after(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Last hidden state and pooled output of the last block's output: normalised, and the pooler's view of them."""
        x = self.norm(x)
        return x, (self.pooler(x) if self.pooler is not None else None)

    def checked(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Pixel values in the compute dtype, of the size that the config says."""
        if "pixel_values" not in inputs:
            raise ModelError("pixel_values is missing. Pass the images as (batch, channels, height, width).")
        pixels = as_pixels(inputs["pixel_values"], self.config.num_channels, self.compute_dtype)
        height, width = pixels.shape[2:]
        # A size that a graph does not know is taken to be the config's, see ``call``.
        self.check_size(pair(self.config.image_size) if None in (height, width) else (height, width))
        return {"pixel_values": pixels}

    def check_size(self, size: Size) -> None:
        """Refuses images of this height and width where the tower cannot encode them.

        It is asked before Keras calls the tower, since Keras would bury the message in its own.

        Raises:
            ModelError: says what size is expected.
        """
        if size != pair(self.config.image_size):
            self.refuse_size(size)

    def refuse_size(self, size: Size) -> NoReturn:
        """Says that only the config's image size will do."""
        expected = pair(self.config.image_size)
        raise ModelError(
            f"pixel_values is {size[0]} x {size[1]}; image_size is {expected[0]} x {expected[1]}. "
            "Resize the images with the image processor that belongs to this vision tower."
        )


class AnySizeTower(VisionTower):
    """A tower whose embeddings take images of any size, and report those without positions."""

    def check_size(self, size: Size) -> None:
        """Any size that has a patch, and whose positions can be had."""
        self.embeddings.check_size(size)


class ClassTokenTower(AnySizeTower):
    """Such a tower, pooled at the class token after the norm."""

    def after(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Normalised hidden states, and the class token's."""
        x = self.norm(x)
        return x, x[:, 0]
