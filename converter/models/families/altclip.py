"""AltCLIP: CLIP with an XLM-RoBERTa as its text tower (https://arxiv.org/abs/2211.06679).

transformers never had it in TensorFlow; the interface is ``TFCLIPModel``'s, and texts have token types.
"""

from __future__ import annotations

from typing import ClassVar

from converter.models.families.clip import DrawnAsCLIP
from converter.models.typed_texts import TypedTexts


class TFAltCLIPModel(DrawnAsCLIP, TypedTexts, model_type="altclip"):
    """Embeds images and texts into one space and scores every pair: transformers' ``AltCLIPModel`` on Keras.

    Args:
        config: an ``AltCLIPConfig`` of transformers.
        initial: ``"random"``, ``"zeros"``, or ``"empty"`` for a model that is about to be loaded.
        **kwargs: ``name``, ``dtype`` and ``trainable``, as for every Keras model.

    Raises:
        ConfigError: the config is of another kind.
        UnsupportedOption: a config field has a value that changes the graph in a way that is not supported.
    """

    base_model_prefix: ClassVar[str] = "altclip"
    config_hint: ClassVar[str] = "Make one with AltCLIPConfig(text_config=..., vision_config=...)."
