"""MLCD (https://arxiv.org/abs/2407.17331): CLIP's vision tower with rotary positions by row and column, for any image.

The class token is turned too, by angles that are learned.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from converter.models.embeddings import ResizedImageEmbeddings
from converter.models.parts import Raw, widened
from converter.models.rotary import RotaryBlock, cosine_and_sine, grid_turn, patch_numbers
from converter.models.towers.clip_vision import CLIPVisionTower
from converter.models.vision_tower import AnySizeTower

Tensor = Any


class MLCDVisionTower(AnySizeTower, CLIPVisionTower):
    """``mlcd_vision_model``."""

    main_layer = "mlcd"
    root = "mlcd"
    widens = True
    embedding_names = {"token": "class_embedding", "patches": "patch_embedding"}  # noqa: RUF012 - never written to
    embeddings_of = ResizedImageEmbeddings
    block_of = RotaryBlock

    def assemble(self, config: Any) -> None:
        """The class token's angles, then all that CLIP has but positions."""
        half = config.hidden_size // config.num_attention_heads // 2
        self.angles = self.part(
            f"{self.root}/class_pos_emb", Raw((1, half), std=half**-0.5 * config.initializer_factor)
        )
        super().assemble(config)

    def bias(self, pixel_values: Tensor, training: bool) -> Any:
        """Not a bias: by how much each token is turned."""
        del training
        config = self.config
        patches = patch_numbers(*self.embeddings.grid_of(pixel_values))
        head, base = config.hidden_size // config.num_attention_heads, config.rope_parameters["rope_theta"]
        learned = widened(ops.convert_to_tensor(self.angles.value))
        learned = ops.concatenate([learned, learned], axis=-1)
        return tuple(
            ops.concatenate([token, ops.cast(ops.convert_to_tensor(rest), learned.dtype)], axis=0)
            for token, rest in zip(cosine_and_sine(learned), grid_turn(patches, head, base, 0, unit=1.0), strict=True)
        )
