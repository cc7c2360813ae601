"""MetaCLIP 2: CLIP, trained on texts of the whole world (https://arxiv.org/abs/2507.22062).

transformers never had it in TensorFlow; the interface is ``TFCLIPModel``'s.
"""

from __future__ import annotations

from typing import ClassVar

from converter.models.families.clip import DrawnAsCLIP
from converter.models.two_towers import TwoTowers


class TFMetaClip2Model(DrawnAsCLIP, TwoTowers, model_type="metaclip_2"):
    """Embeds images and texts into one space and scores every pair: transformers' ``MetaClip2Model`` on Keras.

    Args:
        config: a ``MetaClip2Config`` of transformers.
        initial: ``"random"``, ``"zeros"``, or ``"empty"`` for a model that is about to be loaded.
        **kwargs: ``name``, ``dtype`` and ``trainable``, as for every Keras model.

    Raises:
        ConfigError: the config is of another kind.
        UnsupportedOption: a config field has a value that changes the graph in a way that is not supported.
    """

    base_model_prefix: ClassVar[str] = "metaclip_2"
    config_hint: ClassVar[str] = "Make one with MetaClip2Config(text_config=..., vision_config=...)."
