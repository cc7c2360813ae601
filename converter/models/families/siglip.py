"""SigLIP, and SigLIP 2 of fixed resolution: two towers, a learned temperature and bias, a sigmoid for each pair.

Source: https://arxiv.org/abs/2303.15343. transformers never had it in TensorFlow; the interface is ``TFCLIPModel``'s.
"""

from __future__ import annotations

from typing import Any, ClassVar

from keras import ops

from converter.models.losses import sigmoid_loss
from converter.models.two_towers import TwoTowers
from converter.names.rule_files import Side

Tensor = Any


class TFSiglipModel(TwoTowers, model_type="siglip"):
    """Embeds images and texts into one space and scores every pair: transformers' ``SiglipModel`` on Keras.

    Texts are padded to their full length and come without a mask, as the model was trained: the last position is pooled.

    Args:
        config: a ``SiglipConfig`` of transformers.
        initial: ``"random"``, ``"zeros"``, or ``"empty"`` for a model that is about to be loaded.
        **kwargs: ``name``, ``dtype`` and ``trainable``, as for every Keras model.

    Raises:
        ConfigError: the config is of another kind.
        UnsupportedOption: a config field has a value that changes the graph in a way that is not supported.
    """

    base_model_prefix: ClassVar[str] = "siglip"
    config_hint: ClassVar[str] = "Make one with SiglipConfig(text_config=..., vision_config=...)."
    serving_fields: ClassVar[tuple[str, ...]] = ("input_ids",)

    logit_bias: Any

    def project(self, side: Side, output: Any) -> Tensor:
        """The unchanged pooled output: the towers end in the common space."""
        del side
        return output.pooler_output

    def score(self, text_units: Tensor, image_units: Tensor) -> Tensor:
        """Cosines, times ``exp(logit_scale)``, plus ``logit_bias``; ``(texts, images)``."""
        return super().score(text_units, image_units) + ops.cast(
            ops.convert_to_tensor(self.logit_bias), text_units.dtype
        )

    def loss_of(self, logits_per_text: Tensor) -> Tensor:
        """The sigmoid loss of ``(n, n)`` logits, where text i belongs to image i; a scalar."""
        return sigmoid_loss(logits_per_text)
