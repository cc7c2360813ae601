"""A tower: its own file defines its parts; this file defines once how it is called, checked and saved."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras

from converter.errors import UnsupportedOption, printable
from converter.models.dtypes import model_options
from converter.models.inputs import unpacked
from converter.models.outputs import TowerOutput
from converter.models.parts import Composite
from converter.models.remat import Seeds
from converter.models.transformers4 import Transformers4
from converter.names.rule_files import Side, rule_file
from converter.names.towers import tower_rules

Tensor = Any


class Tower(Transformers4, Composite, keras.Model):
    """Base of all towers; a tower's file sets the class attributes and ``assemble``.

    Args:
        config: of transformers, for a model type whose rule file names this class.
        add_pooling_layer: whether to make the pooler; a dual encoder needs it.
        initial: ``"random"``, ``"zeros"``, or ``"empty"`` for a tower that is about to be loaded.
        name: Keras name; the checkpoint names do not depend on it.

    Raises:
        UnsupportedOption: a config field has a value that changes the graph in a way that is not supported.
    """

    main_layer: ClassVar[str] = ""
    side: ClassVar[Side]
    input_fields: ClassVar[tuple[str, ...]] = ()
    # Whether the last of the hidden states is the last hidden state after its norm, as PyTorch has it.
    ties_last: ClassVar[bool] = False
    # Config fields that make training draw random numbers.
    random_fields: ClassVar[tuple[str, ...]] = (
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "attention_dropout",
        "drop_path_rate",
    )
    # Keras' path of the main layer inside a model, which says it before it builds the tower.
    place: str | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        keras.saving.register_keras_serializable(package="converter")(cls)

    def __init__(
        self,
        config: Any,
        add_pooling_layer: bool = True,
        *,
        initial: str = "random",
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        options = model_options(initial, {**kwargs, "name": name})
        super().__init__(**{**options, "name": name or f"tf_{self.main_layer}_model"})
        self.config = config
        self.add_pooling_layer = add_pooling_layer
        self.initial = initial
        self.embeddings: Any = None
        self.blocks: list[Any] = []
        self.pooler: Any = None
        refuse_options(config, self.side)
        draws = any(getattr(config, field, None) for field in self.random_fields)
        self.seeds = Seeds(name="dropout_seed") if draws else None
        self.assemble(config)

    def assemble(self, config: Any) -> None:
        """Makes the parts: ``embeddings``, ``blocks``, ``pooler`` and others that the tower has."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """What ``from_config`` needs, as JSON."""
        return {
            "config": self.config.to_dict(),
            "add_pooling_layer": self.add_pooling_layer,
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config: Any, custom_objects: Any = None, **kwargs: Any) -> Any:
        """A tower from ``get_config``'s dictionary, or from a config of transformers.

        Args:
            config: either of the two.
            custom_objects: accepted for compatibility with Keras.
            **kwargs: arguments of the constructor.

        Returns:
            A tower that is not built yet.
        """
        del custom_objects
        if not isinstance(config, Mapping):
            return cls(config, **kwargs)
        from transformers import AutoConfig

        options = {**config, **kwargs}
        fields = dict(options.pop("config"))
        return cls(AutoConfig.for_model(fields.pop("model_type"), **fields), **options)

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Loads this tower from a checkpoint of either framework; see ``converter.models.loading.load_tower``."""
        from converter.models.loading import load_tower

        return load_tower(source, cls.side, *args, **kwargs)

    def get_build_config(self) -> dict[str, Any]:
        """Nothing is needed: all shapes come from the config."""
        return {"input_shape": None}

    def build_from_config(self, config: Any) -> None:
        """Builds; the saved shapes do not matter."""
        del config
        self.build()

    def build(self, input_shape: Any = None) -> None:
        """Creates all variables; does nothing when that is done."""
        if self.built or self.place is None:
            super().build(input_shape)
            return
        parent, _, last = self.place.rpartition("/")
        with keras.name_scope(last, override_parent=parent):
            super().build(input_shape)

    def scopes(self, path: str) -> list[str]:
        """The levels of Keras' paths; inside a model the main layer is in ``place``."""
        levels = super().scopes(path)
        return levels if self.place is None else levels[1:]

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Keras' ``compile``, on a model that is built."""
        self.build()
        super().compile(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the tower on inputs of any accepted kind; see ``call``."""
        self.build()
        if len(args) > 1:
            kwargs |= dict(zip(self.input_fields[1:], args[1:], strict=False))
        inputs = unpacked(
            args[0] if args else None, {f: kwargs.pop(f, None) for f in self.input_fields}, self.input_fields
        )
        return self.run(**self.checked(inputs), **kwargs)

    def run(self, **kwargs: Any) -> Any:
        """Calls the tower on inputs that ``checked`` returned, by name."""
        return super().__call__(**kwargs)

    def rematerialized_call(self, layer_call: Any, *args: Any, **kwargs: Any) -> Any:
        """The unchanged call: inside a ``keras.RematScope`` the layers run again, not the whole tower."""
        del args, kwargs
        return layer_call

    def checked(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Inputs as tensors of the backend, refused by name if they do not fit the config."""
        raise NotImplementedError

    def encode(
        self,
        x: Tensor,
        bias: Any,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        training: bool,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Runs the blocks.

        Args:
            x: what enters the first block ``(batch, length, width)``.
            bias: added to the attention scores; a list has one for each block.
            output_attentions: whether to collect attention weights; None: as the config says.
            output_hidden_states: whether to collect hidden states; None: as the config says.
            training: whether dropout is on.

        Returns:
            The last hidden states, and ``hidden_states`` and ``attentions`` by name if requested.
        """
        attentions = asked(output_attentions, self.config, "output_attentions")
        hidden = asked(output_hidden_states, self.config, "output_hidden_states")
        x, states, weights = self.through(self.blocks, x, bias, attentions, hidden, training)
        return x, {
            "hidden_states": tuple(states) if hidden else None,
            "attentions": tuple(weights) if attentions else None,
        }

    def through(
        self, blocks: Sequence[Any], x: Tensor, bias: Any, attentions: bool, hidden: bool, training: bool
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Runs blocks one after another.

        Args:
            blocks: in this order.
            x: what enters the first block ``(batch, length, width)``.
            bias: as ``encode`` has it.
            attentions: whether to collect attention weights.
            hidden: whether to collect hidden states.
            training: whether dropout is on.

        Returns:
            The last hidden states, and what was requested: hidden states from ``x`` on, and attention weights.
        """
        states, weights = [x], []
        for i, block in enumerate(blocks):
            given = bias[i] if isinstance(bias, list) else bias
            x, weight = block(x, given, output_attentions=attentions, training=training)
            if hidden:
                states.append(x)
            if attentions:
                weights.append(weight)
        return x, states, weights

    def answer(self, last: Tensor, pooled: Tensor | None, taps: Mapping[str, Any], return_dict: bool | None) -> Any:
        """The output of the tower, a plain tuple where ``return_dict`` (or the config) says so."""
        if self.ties_last and taps["hidden_states"] is not None:
            taps = {**taps, "hidden_states": (*taps["hidden_states"][:-1], last)}
        made = TowerOutput.of(last_hidden_state=last, pooler_output=pooled, **taps)
        return made if asked(return_dict, self.config, "return_dict", True) else made.to_tuple()


def refuse_options(config: Any, side: Side) -> None:
    """Refuses config fields whose value changes the graph in a way that is not supported, as the rule files list them.

    Raises:
        UnsupportedOption: names the field, what is supported and why.
    """
    fields = config.to_dict()
    own = (tower_rules(side, config.model_type) or {}).get("config", {}).get("refused", {})
    for field, rule in {**rule_file("common")["config"]["refused"], **own}.items():
        default = None if rule["default"] == "none" else rule["default"]
        value = fields.get(field, default)
        if value not in rule["allowed"] and value != default:
            raise UnsupportedOption(
                f"{side}_config.{field} is {printable(repr(value), 60)}, supported is "
                f"{' or '.join(map(repr, rule['allowed']))}: {rule['reason']}. "
                "Change it, or keep this model in PyTorch."
            )


def asked(argument: bool | None, config: Any, field: str, default: bool = False) -> bool:
    """The value of an argument, or if it is None, of the config."""
    return bool(getattr(config, field, default) if argument is None else argument)
