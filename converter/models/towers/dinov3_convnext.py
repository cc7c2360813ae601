"""DINOv3's ConvNeXt (https://arxiv.org/abs/2508.10104): pooled like a vision transformer, its mean as a class token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras import ops

from converter.models.blocks import block_names
from converter.models.conv_stages import ConvTower, Stem, mean_of_grid
from converter.models.embeddings import Patches

Tensor = Any

BLOCK = block_names(
    scale="layer_scale",
    depthwise="depthwise_conv",
    norm="layer_norm",
    up="pointwise_conv1",
    down="pointwise_conv2",
)


class DINOv3ConvNextTower(ConvTower):
    """``dinov3_convnext``; the image is the first hidden state, since the stem belongs to the first stage."""

    main_layer = "dinov3_convnext"
    stages_at = "stages"
    shrinking_at = ("downsample_layers.0", "downsample_layers.1")

    def inner_eps(self, config: Any) -> float:
        """That of all norms."""
        return float(config.layer_norm_eps)

    def stem(self, config: Any) -> Any:
        """Patches of 4 by 4 and their norm."""
        patches = Patches(config.num_channels, (4, 4), config.hidden_sizes[0], bias=True, std=config.initializer_range)
        return self.layer(f"{self.main_layer}/stages.0", Stem, patches, self.inner_eps(config), self.shrinking_at)

    def names(self, config: Any) -> Mapping[str, str]:
        """The block's."""
        del config
        return BLOCK

    def norm_at(self) -> str:
        """The path of the last norm."""
        return f"{self.main_layer}/layer_norm"

    def bias(self, pixel_values: Tensor, training: bool) -> Any:
        """Not a bias: the first hidden state."""
        del training
        return pixel_values

    def after(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The mean of the grid before its patches, all normed, and the first of them."""
        grid = ops.reshape(x, (-1, x.shape[1] * x.shape[2], x.shape[3]))
        x = self.norm(ops.concatenate([mean_of_grid(x)[:, None], grid], axis=1))
        return x, (x[:, 0] if self.add_pooling_layer else None)
