"""ConvNeXt (https://arxiv.org/abs/2201.03545): a network of convolutions with the habits of a transformer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converter.models.blocks import block_names
from converter.models.conv_stages import ConvTower, Stem, channels_first, mean_of_grid
from converter.models.embeddings import Patches, pair

Tensor = Any

BLOCK = block_names(depthwise="dwconv", norm="layernorm", up="pwconv1", down="pwconv2")


class ConvNextTower(ConvTower):
    """``convnext``; pooled by the mean of the last grid, which is normed then."""

    main_layer = "convnext"
    stages_at = "encoder/stages"
    shrinking_at = ("downsampling_layer.0", "downsampling_layer.1")

    def inner_eps(self, config: Any) -> float:
        """Whatever the config says."""
        del config
        return 1e-6

    def stem(self, config: Any) -> Any:
        """Patches and their norm."""
        width, std = config.hidden_sizes[0], config.initializer_range
        patches = Patches(config.num_channels, pair(config.patch_size), width, bias=True, std=std)
        names = ("patch_embeddings", "layernorm")
        return self.layer(f"{self.main_layer}/embeddings", Stem, patches, self.inner_eps(config), names)

    def names(self, config: Any) -> Mapping[str, str]:
        """The block's, with a layer scale unless it begins at 0."""
        return {**({"scale": "layer_scale_parameter"} if config.layer_scale_init_value > 0 else {}), **BLOCK}

    def after(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The last grid unchanged, and its mean normed."""
        return channels_first(x), (self.norm(mean_of_grid(x)) if self.add_pooling_layer else None)
