"""MetaCLIP 2's text tower (https://arxiv.org/abs/2507.22062): CLIP's, pooled at the first end-of-text token for any id."""

from __future__ import annotations

from typing import Any

from keras import ops

from converter.models.towers.clip_text import CLIPTextTower

Tensor = Any


class MetaClip2TextTower(CLIPTextTower):
    """``metaclip_2_text_model``."""

    def ends(self, input_ids: Tensor) -> Tensor:
        """1 where the end of a text is; its id is 2 in the released weights, which is no mistake here."""
        return ops.cast(ops.equal(input_ids, self.config.eos_token_id), "int32")
