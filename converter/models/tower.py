"""A tower: what it is made of is said in its own file; how it is called, checked and saved is said here, once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

import keras
from keras import ops

from converter.configs import rule_file
from converter.errors import ModelError, UnsupportedOption, printable
from converter.models.embeddings import after_padding, consecutive, pair
from converter.models.inputs import as_ids, as_pixels, check_range, seen, unpacked
from converter.models.outputs import TowerOutput
from converter.models.parts import Composite

Tensor = Any


class Tower(Composite, keras.Model):
    """Base of all towers; a tower's file sets the class attributes and ``assemble``.

    Args:
        config: of transformers, for one of ``model_types``.
        add_pooling_layer: whether to make the pooler; a dual encoder needs it.
        initial: ``"random"``, or ``"zeros"`` for a tower that is about to be loaded.
        name: Keras name; the checkpoint names do not depend on it.

    Raises:
        UnsupportedOption: a config field has a value that changes the graph in a way that is not supported.
    """

    model_types: ClassVar[tuple[str, ...]] = ()
    main_layer: ClassVar[str] = ""
    side: ClassVar[str] = ""
    input_fields: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, config: Any, add_pooling_layer: bool = True, *, initial: str = "random", name: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(name=name or f"tf_{self.main_layer}_model", **kwargs)
        self.config = config
        self.add_pooling_layer = add_pooling_layer
        self.initial = initial
        self.embeddings: Any = None
        self.blocks: list[Any] = []
        self.pooler: Any = None
        refuse_options(config, self.side)
        dropouts = ("hidden_dropout_prob", "attention_probs_dropout_prob", "attention_dropout", "dropout")
        drops = any(getattr(config, field, 0.0) for field in dropouts)
        self.seeds = keras.random.SeedGenerator(name="dropout_seed") if drops else None
        self.assemble(config)

    def assemble(self, config: Any) -> None:
        """Makes the parts: ``embeddings``, ``blocks``, ``pooler`` and whatever else the tower has."""
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
            custom_objects: taken for Keras' sake.
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

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Keras' ``compile``, on a model that is built."""
        self.build()
        super().compile(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the tower on inputs of any accepted kind; see ``call``."""
        self.build()
        if len(args) > 1:
            names = ("attention_mask", "position_ids", "token_type_ids") if "input_ids" in self.input_fields else ()
            kwargs |= dict(zip(names, args[1:], strict=False))
        inputs = unpacked(args[0] if args else None, {f: kwargs.pop(f, None) for f in self.input_fields}, self.input_fields)
        return self.run(**self.checked(inputs), **kwargs)

    def run(self, **kwargs: Any) -> Any:
        """Calls the tower on inputs that ``checked`` returned, by name."""
        return super().__call__(**kwargs)

    def checked(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Inputs as tensors of the backend, refused by name where they do not fit the config."""
        raise NotImplementedError

    def encode(
        self,
        x: Tensor,
        bias: Tensor | None,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        training: bool,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Runs the blocks.

        Args:
            x: what enters the first block ``(batch, length, width)``.
            bias: added to the attention scores.
            output_attentions: whether to collect attention weights; None: as the config says.
            output_hidden_states: whether to collect hidden states; None: as the config says.
            training: whether dropout is on.

        Returns:
            The last hidden states, and ``hidden_states`` and ``attentions`` by name, where asked for.
        """
        attentions = _asked(output_attentions, self.config, "output_attentions")
        hidden = _asked(output_hidden_states, self.config, "output_hidden_states")
        states, weights = [x], []
        for block in self.blocks:
            x, weight = block(x, bias, output_attentions=attentions, training=training)
            if hidden:
                states.append(x)
            if attentions:
                weights.append(weight)
        return x, {
            "hidden_states": tuple(states) if hidden else None,
            "attentions": tuple(weights) if attentions else None,
        }

    def output(self, last: Tensor, pooled: Tensor | None, taps: Mapping[str, Any], return_dict: bool | None) -> Any:
        """The output of the tower, a plain tuple where ``return_dict`` (or the config) says so."""
        made = TowerOutput.of(last_hidden_state=last, pooler_output=pooled, **taps)
        return made if _asked(return_dict, self.config, "return_dict", True) else made.to_tuple()


class VisionTower(Tower):
    """A tower of images; ``embeddings`` takes pixel values."""

    side = "vision"
    input_fields = ("pixel_values",)
    any_image_size: ClassVar[bool] = False

    def call(
        self,
        pixel_values: Tensor = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> Any:
        """Encodes images.

        Args:
            pixel_values: ``(batch, channels, height, width)``.
            output_attentions: whether to return attention weights; None: as the config says.
            output_hidden_states: whether to return hidden states; None: as the config says.
            return_dict: whether to return a ``TowerOutput`` or a plain tuple; None: as the config says.
            training: whether dropout is on.

        Returns:
            last_hidden_state ``(batch, length, width)``, pooler_output ``(batch, width)`` and what was asked for.

        Raises:
            ModelError: the images do not fit the config.
        """
        if not self.any_image_size and None in tuple(pixel_values.shape[2:]):
            batch = ops.shape(pixel_values)[0]  # named, so that an image of another size fails instead of becoming two
            pixel_values = ops.reshape(pixel_values, (batch, self.config.num_channels, *pair(self.config.image_size)))
        x = self.before(self.embeddings(pixel_values, training=training))
        x, taps = self.encode(x, None, output_attentions, output_hidden_states, training)
        last, pooled = self.after(x)
        return self.output(last, pooled, taps, return_dict)

    def before(self, x: Tensor) -> Tensor:
        """What comes between embeddings and the first block."""
        return x

    def after(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Last hidden state and pooled output of the last block's output."""
        raise NotImplementedError

    def checked(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Pixel values in the compute dtype, of the size that the config says."""
        if "pixel_values" not in inputs:
            raise ModelError("pixel_values is missing. Pass the images as (batch, channels, height, width).")
        pixels = as_pixels(inputs["pixel_values"], self.config.num_channels, self.compute_dtype)
        expected, found = pair(self.config.image_size), tuple(pixels.shape[2:])
        fits = all(size in (None, wanted) for size, wanted in zip(found, expected, strict=True))
        if not fits and not self.any_image_size:
            raise ModelError(
                f"pixel_values is {found[0]} x {found[1]}; image_size is {expected[0]} x {expected[1]}. "
                "Resize the images with the image processor that belongs to this vision tower."
            )
        return {"pixel_values": pixels}


class TextTower(Tower):
    """A tower of texts; ``embeddings`` takes ids."""

    side = "text"
    input_fields = ("input_ids", "attention_mask", "position_ids", "token_type_ids")
    counts_after_padding: ClassVar[bool] = False
    type_table: ClassVar[bool] = True

    def call(
        self,
        input_ids: Tensor = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> Any:
        """Encodes texts.

        Args:
            input_ids: ``(batch, length)``.
            attention_mask: ``(batch, length)``, 1 where a token is, 0 where padding is; None: all are tokens.
            position_ids: ``(batch, length)``; None: counted as the tower counts.
            token_type_ids: ``(batch, length)``; None: all 0.
            output_attentions: whether to return attention weights; None: as the config says.
            output_hidden_states: whether to return hidden states; None: as the config says.
            return_dict: whether to return a ``TowerOutput`` or a plain tuple; None: as the config says.
            training: whether dropout is on.

        Returns:
            last_hidden_state ``(batch, length, width)``, pooler_output ``(batch, width)`` and what was asked for.

        Raises:
            ModelError: the ids do not fit the config.
        """
        if position_ids is None:
            position_ids = self.count(input_ids)
        x = self.embeddings(input_ids, position_ids, token_type_ids, training=training)
        bias = self.bias(input_ids, attention_mask, x.dtype)
        x, taps = self.encode(self.before(x), bias, output_attentions, output_hidden_states, training)
        last, pooled = self.after(x, input_ids)
        return self.output(last, pooled, taps, return_dict)

    def count(self, input_ids: Tensor) -> Tensor:
        """Position ids of tokens that came without."""
        if self.counts_after_padding:
            return after_padding(input_ids, self.config.pad_token_id)
        return consecutive(input_ids)

    def bias(self, input_ids: Tensor, attention_mask: Tensor | None, dtype: Any) -> Tensor | None:
        """What is added to the attention scores: the lowest number of the dtype where the mask is 0."""
        del input_ids
        return None if attention_mask is None else mask_bias(attention_mask, dtype)

    def before(self, x: Tensor) -> Tensor:
        """What comes between embeddings and the first block."""
        return x

    def after(self, x: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """Last hidden state and pooled output of the last block's output."""
        del input_ids
        return x, (self.pooler(x) if self.pooler is not None else None)

    def checked(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Ids as int32, of one shape, inside the tables where that can be seen."""
        if "input_ids" not in inputs:
            raise ModelError("input_ids is missing. Pass the token ids as (batch, length).")
        ids = {field: as_ids(value, field) for field, value in inputs.items()}
        for field, value in ids.items():
            for axis, (found, wanted) in enumerate(zip(value.shape, ids["input_ids"].shape, strict=True)):
                one_row = field == "position_ids" and axis == 0 and found == 1
                if found is not None and wanted is not None and found != wanted and not one_row:
                    raise ModelError(
                        f"{field} has shape {tuple(value.shape)}; input_ids has {tuple(ids['input_ids'].shape)}. "
                        "Give both the same shape."
                    )
        config = self.config
        check_range(ids["input_ids"], config.vocab_size, "input_ids", "vocab_size")
        if "token_type_ids" in ids and self.type_table:
            check_range(ids["token_type_ids"], config.type_vocab_size, "token_type_ids", "type_vocab_size")
        if "position_ids" in ids:
            check_range(ids["position_ids"], config.max_position_embeddings, "position_ids", "max_position_embeddings")
        else:
            self.check_length(ids["input_ids"])
        return ids

    def check_length(self, input_ids: Tensor) -> None:
        """Refuses a text that is longer than the positions reach."""
        length, limit = input_ids.shape[1], self.config.max_position_embeddings
        if self.counts_after_padding:
            limit -= self.config.pad_token_id + 1
            visible = seen(input_ids)
            if visible is not None and visible.size:
                length = int((visible != self.config.pad_token_id).sum(axis=1).max())
        if length is not None and length > limit:
            raise ModelError(
                f"input_ids has {length} tokens in a row; this text tower has positions for {limit} "
                f"(max_position_embeddings = {self.config.max_position_embeddings}). Truncate when tokenizing."
            )


def mask_bias(mask: Tensor, dtype: Any) -> Tensor:
    """``(batch, length)`` of 1 and 0 to ``(batch, 1, 1, length)`` of 0 and the lowest finite number of ``dtype``."""
    dtype = keras.backend.standardize_dtype(dtype)
    lowest = {"float16": -65504.0, "float64": -1.7976931348623157e308}.get(dtype, -3.3895313892515355e38)
    keep = ops.cast(mask, dtype)[:, None, None, :]
    return (1.0 - keep) * lowest


def refuse_options(config: Any, side: str) -> None:
    """Refuses config fields whose value changes the graph in a way that is not supported, as the rule files list them.

    Raises:
        UnsupportedOption: names the field, what is supported and why.
    """
    fields = config.to_dict()
    family = rule_file("dual_encoder")["towers"][side][config.model_type]
    for field, rule in {**rule_file("common")["refused"], **rule_file(family)["config"].get("refused", {})}.items():
        default = None if rule["default"] == "none" else rule["default"]
        value = fields.get(field, default)
        if value not in rule["allowed"] and value != default:
            raise UnsupportedOption(
                f"{side}_config.{field} is {printable(repr(value), 60)}, supported is "
                f"{' or '.join(map(repr, rule['allowed']))}: {rule['reason']}. Change it, or keep this model in PyTorch."
            )


def _asked(argument: bool | None, config: Any, field: str, default: bool = False) -> bool:
    return bool(getattr(config, field, default) if argument is None else argument)
