"""Picks the class of a model by the family that its config says."""

from __future__ import annotations

import os
from typing import Any

from converter.arguments import checked
from converter.errors import ModelError, listed, printable
from converter.models.registry import family_class
from converter.models.two_towers import TwoTowers
from converter.names.families import families, family, is_family


class AutoTwoTower:
    """Makes a model of the family that a config or a checkpoint belongs to. It has no instances.

    Raises:
        ModelError: it was called; use ``from_pretrained`` or ``from_config``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        del args, kwargs
        raise ModelError(
            "AutoTwoTower only picks a class. "
            "Use AutoTwoTower.from_pretrained(source) or AutoTwoTower.from_config(config)."
        )

    @classmethod
    @checked()
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        revision: str | None = None,
        config: Any = None,
        from_pt: bool = False,
        **kwargs: Any,
    ) -> TwoTowers:
        """Loads a checkpoint of any framework, and of any family that has a model here.

        Args:
            source: a folder that ``save_pretrained`` wrote, a weights file in one, or the id of a model on the Hub
                (``id@revision`` too).
            revision: branch, tag or commit, if ``source`` is an id; ignored for a path.
            config: a transformers config to use instead of the checkpoint's.
            from_pt: accepted for compatibility, ignored: the framework is detected.
            **kwargs: ``name`` of the model; ``dtype`` or ``torch_dtype``; fields of the config to change. A dtype is a Keras
                policy, the dtype of any framework, or ``"auto"`` for the one that the checkpoint was saved in. The
                default is float32. For the Hub: ``subfolder`` (of a folder, too), ``token``, ``cache_dir``,
                ``local_files_only``, ``force_download``.

        Returns:
            The model, built. Its class follows from the family in config.json, for example ``TFCLIPModel``.

        Raises:
            ConverterError: the checkpoint is of no such family, is incomplete or invalid, or the Hub refuses.
        """
        from converter.models.loading import load_two_towers

        loaded: TwoTowers = load_two_towers(None, source, revision=revision, config=config, from_pt=from_pt, **kwargs)
        return loaded

    @classmethod
    def from_config(cls, config: Any, **kwargs: Any) -> TwoTowers:
        """Makes a model with new weights.

        Args:
            config: of transformers.
            **kwargs: of the class: ``name``, ``dtype``, ``trainable`` and ``initial``.

        Returns:
            The model, not built yet.

        Raises:
            ModelError: the config is of no family with a model here.
            ConfigError: its model type does not fit its class.
        """
        model_type = getattr(config, "model_type", None)
        if not is_family(model_type):
            raise ModelError(
                f"config has model_type {printable(repr(model_type), 60)}; expected one of {listed(tuple(families()))}. "
                "Give the config of a model with two towers."
            )
        made: TwoTowers = family_class(family(str(model_type)))(config, **kwargs)
        return made
