"""What all families of models with two towers share: how a config and the family's rule file become one.

``calling.py`` and ``features.py`` say what such a model computes, ``pretrained.py`` how it is loaded and saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Self

import keras
import transformers

from converter.errors import ConfigError, ModelError
from converter.models.calling import Calling
from converter.models.dtypes import model_options
from converter.models.parts import Composite, Dense, Part, Raw
from converter.models.pretrained import Pretrained
from converter.models.registry import complete, tower_class, width_of
from converter.models.subclasses import adapt_call
from converter.models.tower import Tower
from converter.models.transformers4 import Transformers4
from converter.names.expressions import Value, integer, truth
from converter.names.families import Family, family
from converter.names.frameworks import CANONICAL, KERAS
from converter.names.places import path_in, tower_prefix
from converter.names.rule_files import SIDES, Side

TOWERS: Mapping[str, Side] = MappingProxyType({f"{side}_model": side for side in SIDES})


class TwoTowers(Pretrained, Transformers4, Composite, Calling):
    """Embeds images and texts into one space and scores every pair; a family's class names its model type.

    Args:
        config: of transformers.
        towers: of this package, built or not, by side; the others are made of the config.
        initial: ``"random"``, ``"zeros"``, or ``"empty"`` for a model that is about to be loaded.
        **kwargs: ``name``, ``dtype`` and ``trainable``, as for every Keras model.

    Attributes:
        family: as ``rename_rules/families/`` has it.
        config_class: of transformers.
        base_model_prefix: as transformers 4 had it.
        load_weight_prefix: first level of the variables' names in TensorFlow.
        config_hint: how to make a config, for a message.

    Raises:
        ConfigError: the config is of another kind.
        ModelError: a tower is not one of ours or has no pooled output.
        UnsupportedTower: there is no tower for a model type in the config.
        UnsupportedOption: a config field has a value that changes the graph in a way that is not supported.
    """

    family: ClassVar[Family]
    config_class: ClassVar[Any]
    base_model_prefix: ClassVar[str] = ""
    load_weight_prefix: ClassVar[str] = ""
    config_hint: ClassVar[str] = "Load one with its from_pretrained."

    def __init_subclass__(cls, model_type: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if model_type is None:  # somebody's own class, of the same family
            if not cls.__module__.startswith("converter."):
                adapt_call(cls, cls.fields)
            return
        cls.family = family(model_type)
        cls.config_class = getattr(transformers, cls.family.config_class)
        cls.load_weight_prefix = cls.family.root_scope
        keras.saving.register_keras_serializable(package="converter")(cls)

    def __init__(
        self,
        config: Any,
        *,
        towers: Mapping[Side, Any] = MappingProxyType({}),
        initial: str = "random",
        **kwargs: Any,
    ) -> None:
        config = self.checked_config(config)
        for own in SIDES:
            complete(getattr(config, f"{own}_config"), own)
        options = model_options(initial, kwargs)
        super().__init__(**{**options, "name": options.get("name") or self.load_weight_prefix})
        self.initial = initial
        self.config = config
        self.vision_embed_dim = width_of(config.vision_config, "vision")
        self.text_embed_dim = width_of(config.text_config, "text")
        self.projection_dim = getattr(config, "projection_dim", None)
        modules = {module[CANONICAL]: module for module in self.family.rules["module"]}
        for item in self.family.order:
            if item in modules:
                made = self.part(path_in(KERAS, modules[item]), self._outside(item, modules[item]))
                # A bare tensor is the variable itself, which `build` makes.
                setattr(self, item, None if isinstance(made, Raw) else self.face(made))
            else:
                side: Side = "vision" if item == "vision" else "text"
                setattr(self, f"{side}_model", self.part(f"{side}_model", self._tower(side, towers.get(side))))
        self.vision_model.config, self.text_model.config = config.vision_config, config.text_config

    @classmethod
    def checked_config(cls, config: Any) -> Any:
        """The config, each of its towers with the model type that the family gives it.

        Raises:
            ConfigError: it is of another kind.
        """
        if not isinstance(config, cls.config_class):
            raise ConfigError(
                f"config is a {type(config).__name__}; it has to be of type {cls.config_class.__name__}. {cls.config_hint}"
            )
        for side in SIDES:
            own, default = getattr(config, f"{side}_config"), cls.family.default_tower(side)
            if default is not None and own.model_type not in cls.family.towers(side):
                own.model_type = default  # the name of the whole model, as old files have it
        return config

    def _tower(self, side: Side, given: Any) -> Any:
        if given is None:
            config = getattr(self.config, f"{side}_config")
            kind = tower_class(config, side)
            return kind(config, initial=self.initial, name=f"{side}_model", dtype=self.dtype_policy)
        if not isinstance(given, Tower):
            raise ModelError(
                f"{side}_model is a {type(given).__name__}; expected a {side} tower of converter.models. "
                "Make one with converter.models.build_tower(config), or give a config only."
            )
        tower_class(given.config, side)
        if not given.add_pooling_layer:
            raise ModelError(
                f"{side}_model was made with add_pooling_layer=False and has no pooled output to project. "
                "Make it with its pooling layer."
            )
        return given

    def _outside(self, name: str, module: Mapping[str, Any]) -> Part:
        """Makes what the family keeps outside its towers: a projection, or a bare number."""
        if module["is"] in ("scalar", "tensor"):
            return Raw((1,), value=self.start(name))
        if module["is"] != "dense":
            raise ValueError(f"rename_rules/families/{self.family.stem}.toml: {name}: no part for {module['is']}")
        known = self.family.rules["config"]["honoured"]
        fields: dict[str, Value] = {field: getattr(self.config, field, default) for field, default in known.items()}
        fields |= {"vision_width": self.vision_embed_dim, "text_width": self.text_embed_dim}
        outputs, inputs = (integer(str(axis), fields) for axis in module["shape"])
        bias = truth(module.get("bias", "true"), fields)
        return Dense(inputs, outputs, bias=bias, std=self.spread(inputs))

    def start(self, name: str) -> float:
        """Initial value of a bare number in a new model: from the config, else 0."""
        return float(getattr(self.config, f"{name}_init_value", 0.0))

    def spread(self, inputs: int) -> float:
        """Standard deviation of a new projection with this many inputs."""
        del inputs
        return getattr(self.config, "initializer_range", None) or 0.02

    def build(self, input_shape: Any = None) -> None:
        """Creates all variables under their checkpoint names, once."""
        if self.built:
            return
        for name, side in TOWERS.items():
            tower = getattr(self, name)
            if not tower.built:
                tower.place = f"{self.path}/{self._prefix(side)}".rstrip("/")
        super().build(input_shape)
        for module in self.family.rules["module"]:
            held = self.held[path_in(KERAS, module)]
            if isinstance(held, Raw):
                setattr(self, module[CANONICAL], held.value)

    def named(self, path: str, name: str) -> str:
        """The checkpoint name of a variable: of a tower's, with what the family has in front instead of the main layer."""
        if path not in TOWERS:
            return super().named(path, name)
        side = TOWERS[path]
        return self._prefix(side) + name.removeprefix(f"{getattr(self, path).main_layer}/")

    def _prefix(self, side: Side) -> str:
        return tower_prefix(KERAS, self.family, side, getattr(self, f"{side}_model").main_layer)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Keras' ``compile``; the loss is the family's own, unless another is given."""
        self.build()
        super().compile(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """What ``from_config`` needs, as JSON."""
        return {
            "config": self.config.to_dict(),
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config: Any, custom_objects: Any = None, **kwargs: Any) -> Self:
        """A model with new weights, from ``get_config``'s dictionary or from a config of transformers."""
        del custom_objects
        if not isinstance(config, Mapping):
            return cls(config, **kwargs)
        options = {**config, **kwargs}
        return cls(cls.config_class.from_dict(dict(options.pop("config"))), **options)

    def get_build_config(self) -> dict[str, Any]:
        """Nothing is needed: all shapes come from the config."""
        return {"input_shape": None}

    def build_from_config(self, config: Any) -> None:
        """Builds; the saved shapes do not matter."""
        del config
        self.build()
