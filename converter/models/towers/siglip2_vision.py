"""SigLIP 2's vision tower (https://arxiv.org/abs/2502.14786): patches that come cut out, and positions for each image's shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from converter.errors import ModelError, UnsupportedOption, printable
from converter.models.attention_pooling import AttentionPooling
from converter.models.blocks import Block
from converter.models.cut_patches import PatchEmbeddings, check_shapes
from converter.models.inputs import as_ids, as_patches
from converter.models.masks import mask_bias
from converter.models.parts import Norm
from converter.models.towers.siglip_vision import EMBEDDINGS, siglip_block
from converter.models.vision_tower import VisionTower

Tensor = Any


class Siglip2VisionTower(VisionTower):
    """``siglip2_vision_model``."""

    main_layer = "siglip2"
    input_fields = ("pixel_values", "pixel_attention_mask", "spatial_shapes")

    def assemble(self, config: Any) -> None:
        """Embeddings, blocks, norm, attention pooling.

        Raises:
            UnsupportedOption: a patch or the positions are not a square, which PyTorch does not support either.
        """
        positions, patch = config.num_patches, config.patch_size
        if not isinstance(patch, int):
            raise UnsupportedOption(
                f"vision_config.patch_size is {printable(repr(patch), 60)}, supported is one integer: a patch is a square. "
                "Set it to the checkpoint's."
            )
        if not isinstance(positions, int) or positions < 1 or math.isqrt(positions) ** 2 != positions:
            raise UnsupportedOption(
                f"vision_config.num_patches is {printable(repr(positions), 60)}, supported is a square such as 256: the "
                "positions are resized as a square grid. Set it to the checkpoint's."
            )
        self.values = config.num_channels * patch**2
        block, width, root = siglip_block(config), config.hidden_size, "siglip2/vision_model"
        self.embeddings = self.layer(f"{root}/embeddings", PatchEmbeddings, self.values, positions, width, EMBEDDINGS)
        self.blocks = self.stack(f"{root}/encoder/layers", config.num_hidden_layers, Block, block, self.seeds)
        self.norm = self.part(f"{root}/post_layernorm", Norm(width, config.layer_norm_eps))
        if self.add_pooling_layer:
            self.pooler = self.layer(f"{root}/head", AttentionPooling, block)

    def call(  # type: ignore[override]  # as in PyTorch
        self,
        pixel_values: Tensor = None,
        pixel_attention_mask: Tensor | None = None,
        spatial_shapes: Tensor = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> Any:
        """Encodes images.

        Args:
            pixel_values: ``(images, patches, channels * patch * patch)``.
            pixel_attention_mask: ``(images, patches)``, 1 where a patch is; None: all are patches.
            spatial_shapes: rows and columns of patches, ``(images, 2)``.
            output_attentions: whether to return attention weights; None: as the config says.
            output_hidden_states: whether to return hidden states; None: as the config says.
            return_dict: whether to return a ``TowerOutput`` or a plain tuple; None: as the config says.
            training: whether dropout is on.

        Returns:
            last_hidden_state ``(images, patches, width)``, pooler_output ``(images, width)`` and what was requested.

        Raises:
            ModelError: the images do not fit the config.
        """
        x = self.embeddings(pixel_values, spatial_shapes)
        bias = None if pixel_attention_mask is None else mask_bias(pixel_attention_mask, x.dtype)
        x, taps = self.encode(x, bias, output_attentions, output_hidden_states, training)
        x = self.norm(x)
        pooled = self.pooler(x, bias) if self.pooler is not None else None
        return self.answer(x, pooled, taps, return_dict)

    @property
    def served(self) -> Mapping[str, tuple[tuple[int | None, ...], str]]:
        """The inputs of an image for a server: patches, any number of them, which of them count, and its shape."""
        return {
            "pixel_values": ((None, None, self.values), "float32"),
            "pixel_attention_mask": ((None, None), "int64"),
            "spatial_shapes": ((None, 2), "int64"),
        }

    def dummy_images(self, count: int) -> dict[str, Tensor]:
        """So many random images of the shape that the positions have."""
        side = self.embeddings.side
        return {
            "pixel_values": keras.random.uniform((count, side**2, self.values), dtype=self.compute_dtype),
            "pixel_attention_mask": ops.ones((count, side**2), "int32"),
            "spatial_shapes": ops.convert_to_tensor(np.full((count, 2), side, np.int32)),
        }

    def checked(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Patches in the compute dtype, a mask and shapes that go with them."""
        missing = [field for field in ("pixel_values", "spatial_shapes") if field not in inputs]
        if missing:
            raise ModelError(
                f"{' and '.join(missing)} missing. Pass what Siglip2ImageProcessor makes: pixel_values "
                f"(images, patches, {self.values}), pixel_attention_mask (images, patches) and spatial_shapes (images, 2)."
            )
        patches = as_patches(inputs["pixel_values"], self.values, self.compute_dtype)
        others = {field: as_ids(value, field) for field, value in inputs.items() if field != "pixel_values"}
        images, length = patches.shape[0], patches.shape[1]
        for field, value in others.items():
            wanted = (images, 2) if field == "spatial_shapes" else (images, length)
            if any(None not in both and both[0] != both[1] for both in zip(value.shape, wanted, strict=True)):
                raise ModelError(
                    f"{field} has shape {tuple(value.shape)}; expected {wanted}, as pixel_values has shape "
                    f"{tuple(patches.shape)}. Pass what the image processor made of the same images."
                )
        check_shapes(others["spatial_shapes"], length)
        return {"pixel_values": patches, **others}
