"""The dual encoder: two towers of any kind, two projections without bias, and a learned temperature.

The interface is that of transformers 4's ``TFVisionTextDualEncoderModel``; the towers and everything below are ours,
on Keras 3, so that it runs wherever Keras does. LiT (https://arxiv.org/abs/2111.07991) is trained with
``model.vision_model.trainable = False`` and ``fit``.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar, Self

from converter.arguments import checked
from converter.errors import ModelError
from converter.models.registry import tower_config
from converter.models.tower import Tower
from converter.models.typed_texts import TypedTexts
from converter.names import scopes
from converter.names.configs import check_config
from converter.names.rule_files import SIDES

Tensor = Any


class TFVisionTextDualEncoderModel(TypedTexts, model_type="vision-text-dual-encoder"):
    """Embeds images and texts into one space and scores every pair.

    Args:
        config: a transformers config; its towers' configs are used if no tower is given.
        vision_model: a vision tower of this package, built or not.
        text_model: a text tower of this package, built or not.
        initial: ``"random"``, ``"zeros"``, or ``"empty"`` for a model that is about to be loaded.
        **kwargs: ``name``, ``dtype`` and ``trainable``, as for every Keras model.

    Raises:
        ModelError: neither a config nor both towers were given, or a tower is not from this package or has no pooled output.
        ConfigError: the config is of another kind.
        UnsupportedTower: there is no tower for a model type in the config.
        UnsupportedOption: a config field has a value that changes the graph in a way that is not supported.
    """

    base_model_prefix: ClassVar[str] = "vision_text_dual_encoder"
    config_hint: ClassVar[str] = (
        "Make one with VisionTextDualEncoderConfig.from_vision_text_configs(vision_config, text_config)."
    )

    def __init__(
        self,
        config: Any = None,
        vision_model: Any = None,
        text_model: Any = None,
        *,
        initial: str = "random",
        **kwargs: Any,
    ) -> None:
        if config is None:
            config = self._joint_config(vision_model, text_model)
        super().__init__(config, towers={"vision": vision_model, "text": text_model}, initial=initial, **kwargs)

    @classmethod
    def _joint_config(cls, vision_model: Any, text_model: Any) -> Any:
        if vision_model is None or text_model is None:
            given = [side for side, tower in (("vision", vision_model), ("text", text_model)) if tower is not None]
            raise ModelError(
                "Either a configuration or a vision and a text model has to be provided"
                f"{f'; only {given[0]}_model was given' if given else ''}. "
                "Pass config=, or vision_model= and text_model=."
            )
        for side, tower in (("vision", vision_model), ("text", text_model)):
            if not isinstance(tower, Tower):
                raise ModelError(
                    f"{side}_model is a {type(tower).__name__}; expected a {side} tower of converter.models. "
                    "Make one with converter.models.build_tower(config), or give a config only."
                )
        return cls.config_class.from_vision_text_configs(vision_model.config, text_model.config)

    @classmethod
    def checked_config(cls, config: Any) -> Any:
        """The config, a full CLIP's in a tower's place replaced by its part for that side.

        Raises:
            ConfigError: it is of another kind.
        """
        config = super().checked_config(config)
        for side in SIDES:
            setattr(config, f"{side}_config", tower_config(getattr(config, f"{side}_config"), side))
        return config

    def tf_to_pt_weight_rename(self, tf_weight: str) -> tuple[str]:
        """Removes the main layer from a dotted name: ``text_model.bert.x`` to ``text_model.x``."""
        return scopes.tf_to_pt_weight_rename(tf_weight)

    def pt_to_tf_weight_rename(self, pt_weight: str) -> tuple[str]:
        """Puts the main layer back into a nested (4.x) PyTorch name: the inverse of ``tf_to_pt_weight_rename``."""
        return (scopes.restore_main_layer(pt_weight, check_config(self.config.to_dict())),)

    @classmethod
    @checked()
    def from_vision_text_pretrained(
        cls,
        vision_model_name_or_path: str | os.PathLike[str] | None = None,
        text_model_name_or_path: str | os.PathLike[str] | None = None,
        *model_args: Any,
        **kwargs: Any,
    ) -> Self:
        """Joins two tower checkpoints of any framework. The projections are new: train them before use.

        Args:
            vision_model_name_or_path: checkpoint of the vision tower, of a model with a head on it, or of a full CLIP. It may
                be a folder, a weights file, or the id of a model on the Hub. Not needed with ``vision_model=``.
            text_model_name_or_path: the same for the text tower. Not needed with ``text_model=``.
            *model_args: of both towers: ``add_pooling_layer``.
            **kwargs: ``vision_model`` and ``text_model`` take towers. ``dtype`` or ``torch_dtype`` holds for all. With
                ``vision_`` or ``text_`` in front, ``revision``, ``config``, ``dtype`` or a field of a config is for that
                tower. The others are fields of the dual encoder's config, such as ``projection_dim``.

        Returns:
            The model, built.

        Raises:
            ModelError: a tower has neither a checkpoint nor a model.
            ConverterError: a checkpoint lacks the tower, or is invalid.
        """
        from converter.models.loading import join_towers

        joined: Self = join_towers(cls, vision_model_name_or_path, text_model_name_or_path, *model_args, **kwargs)
        return joined
