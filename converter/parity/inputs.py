"""A model's inputs, from its config: token ids, positions and pictures. Decides which inputs it may be given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt, prod
from typing import Any

from converter.errors import ConfigError, ParityError, listed, printable
from converter.names.configs import tower_section
from converter.names.expressions import integer
from converter.names.rule_files import Side
from converter.names.towers import counts_after_padding, input_rules, tower_defaults
from converter.parity.batches import Batch

# No text of these batches is longer, even if a config allows it: attention grows with the square of the length.
MAX_SEQUENCE = 512
MAX_SIDE = 4096
MAX_PIXELS = 3 * 4096**2  # in every channel together
_NEEDED = ("vocab_size", "max_position_embeddings")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What may be given to a text tower.

    Attributes:
        size: how many token ids there are.
        special: those that mean something, in order.
        pad: the id that fills masked positions.
        end: the id that ends every text; None where towers do not look for one.
        types: how many token types there are; 0 where the tower takes none.
        positions: how many position embeddings there are.
        longest: the longest sequence that the positions allow.
        pads_left: whether outputs are defined where the padding is on the left.
        reach: as ``longest``, however long that is.
        shortest: the shortest sequence that the tower takes, padding included.
    """

    size: int
    special: tuple[int, ...]
    pad: int
    end: int | None
    types: int
    positions: int
    longest: int
    pads_left: bool = True
    reach: int = 0
    shortest: int = 1


def read_vocabulary(config: Mapping[str, Any]) -> Vocabulary:
    """A text tower's inputs, from the config of a model with two towers.

    Raises:
        ParityError: a field is missing or out of range, or no token id is without special meaning.
    """
    tower = _tower(config, "text")
    model_type = str(tower.get("model_type"))
    rules, defaults = input_rules("text", model_type), tower_defaults("text", model_type)
    # A tower that knows no words takes any number; its tokenizer has these.
    words = {"vocab_size": rules["vocabulary"]} if "vocabulary" in rules else {}
    fields = {"pad_token_id": rules.get("pad_token_id"), **defaults, **tower, **words}
    missing = [name for name in _NEEDED if not isinstance(fields.get(name), int) or fields[name] < 1]
    if missing:
        raise ParityError(
            f"text_config of {printable(model_type, 60)}: no usable {listed(missing)}; add it to config.json"
        )
    size, positions = fields["vocab_size"], fields["max_position_embeddings"]
    pad = _token(fields.get("pad_token_id"))
    pad = 0 if pad is None or pad >= size else pad
    counted_from = rules.get("padding_id", pad)
    special, end, pads_left = {pad, counted_from}, None, True
    if rules.get("ends_with_eos"):
        literal = model_type in rules.get("literal_eos", ())
        end, pads_left = _end_of_text(_token(fields.get("eos_token_id")), size, literal)
        special.add(end)
        pad = next((token for token in (pad, 0, 1) if token != end), pad)
    pads_left = pads_left and model_type not in rules.get("padded_right", ())
    within = tuple(sorted(token for token in special if token < size))
    reach = positions - (counted_from + 1 if counts_after_padding(model_type, fields) else 0)
    shortest = integer(str(rules.get("shortest", 1)), fields)
    longest = min(MAX_SEQUENCE, reach)
    if len(within) == size or longest < max(1, shortest):
        raise ParityError(
            f"text_config: a vocabulary of {size} and {positions} positions leave no room for a test text; correct the config"
        )
    types = fields.get("type_vocab_size") if "type_vocab_size" in (defaults or fields) else 0
    return Vocabulary(size, within, pad, end, _token(types) or 0, positions, longest, pads_left, reach, shortest)


def _end_of_text(eos: int | None, size: int, literal: bool) -> tuple[int, bool]:
    """The id that ends a CLIP text, and whether CLIP finds it there.

    CLIP pools at the first end token. An ``eos_token_id`` of 2 means the greatest id in the text, and without a match
    position 0 is used (transformers, ``CLIPTextModel``). With causal attention, position 0 sees nothing but padding if
    that is on the left. If the id is ``literal`` (MetaCLIP 2), 2 means 2.
    """
    if eos is None or (eos == 2 and not literal):
        return size - 1, eos == 2
    return (eos, True) if eos < size else (size - 1, False)


def _token(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def check_golden_inputs(batches: Sequence[Batch], config: Mapping[str, Any], where: str) -> None:
    """Checks that inputs from a file fit the model of a config, and can distinguish it from another model.

    Args:
        batches: as they were read.
        config: of a model with two towers.
        where: what messages call the file.

    Raises:
        ParityError: the model has no embedding for an id, a position or a type, or takes other pictures. Or no batch has
            several images and several texts, or none has masked positions.
    """
    text = read_vocabulary(config)
    sizes = {"input_ids": text.size, "position_ids": text.positions, "token_type_ids": text.types}
    for number, batch in enumerate(batches):
        for name, size in sizes.items():
            given = batch.inputs.get(name)
            if given is not None and given.max() >= size:
                raise ParityError(
                    f"{where}: {name} of batch {number} go up to {given.max()}, the model has {size}; record the file "
                    "from this model"
                )
        if (wanted := wanted_instead(batch.inputs, config)) is not None:
            raise ParityError(
                f"{where}: batch {number} has pictures of {batch.inputs['pixel_values'].shape[1:]}, the model takes "
                f"{wanted}; record the file from this model"
            )
    many = any(min(len(batch.inputs["pixel_values"]), len(batch.inputs["input_ids"])) > 1 for batch in batches)
    if not many or (text.longest > 1 and all(batch.mask.all() for batch in batches)):
        raise ParityError(
            f"{where}: no batch of several images and texts, or none with masked positions, so it cannot "
            "distinguish models; record the file again with 'convert reference'"
        )


def wanted_instead(inputs: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    """The pictures that the model of a config takes, if those of a batch are others; None if they fit."""
    shape, patch = inputs["pixel_values"].shape[1:], patch_side(config)
    channels, height, width = image_shape(config)
    if patch is None:
        fits = len(shape) == 3 and shape[0] == channels
        fits = fits and (takes_any_size(config) or shape[1:] == (height, width))
        return None if fits else f"{(channels, height, width)}"
    values = channels * patch * patch
    return None if "spatial_shapes" in inputs and shape[1:] == (values,) else f"(patches, {values}) and spatial_shapes"


def takes_any_size(config: Mapping[str, Any]) -> bool:
    """Whether the vision tower's output for a picture of another size than its own is defined: it resizes."""
    return bool(input_rules("vision", _tower(config, "vision").get("model_type")).get("any_size"))


def patch_side(config: Mapping[str, Any]) -> int | None:
    """How many pixels a patch has in each direction, where the vision tower takes pictures that are cut up; else None."""
    tower = _tower(config, "vision")
    if not input_rules("vision", tower.get("model_type")).get("patches"):
        return None
    side = tower.get("patch_size", tower_defaults("vision", tower.get("model_type"))["patch_size"])
    return side if isinstance(side, int) else None


def image_shape(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """Channels, height and width of a picture that the config of a model with two towers describes.

    For a tower that takes pictures of any shape, cut up, that is the square for which it has positions.

    Raises:
        ParityError: they are no sizes.
    """
    tower = _tower(config, "vision")
    fields: dict[str, Any] = {**tower_defaults("vision", tower.get("model_type")), **tower}
    name = "num_patches" if input_rules("vision", tower.get("model_type")).get("patches") else "image_size"
    said: Any = fields.get(name)
    size = said if name == "image_size" else _side(said, patch_side(config))
    channels: Any = fields.get("num_channels")
    sides = [size, size] if isinstance(size, int) else list(size) if isinstance(size, list | tuple) else []
    sizes = (*sides, channels)
    if len(sides) != 2 or not all(isinstance(n, int) and 1 <= n <= MAX_SIDE for n in sizes) or prod(sizes) > MAX_PIXELS:
        raise ParityError(
            f"vision_config: {name} {printable(repr(said), 60)} and num_channels {printable(repr(channels), 60)} "
            "do not describe an image; correct the config"
        )
    return channels, sides[0], sides[1]


def with_image_size(config: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """A config as if it described pictures of this height and width: what a tower is given, not what it is."""
    return {**config, "vision_config": {**_tower(config, "vision"), "image_size": list(size)}}


def _side(patches: Any, patch: int | None) -> int | None:
    """The side in pixels of a square with this many patches, or None."""
    if patch is None or not isinstance(patches, int) or patches < 1 or isqrt(patches) ** 2 != patches:
        return None
    return isqrt(patches) * patch


def _tower(config: Mapping[str, Any], side: Side) -> Mapping[str, Any]:
    """The config of one tower as the config class of its family reads it; a missing section may mean a tower."""
    try:
        tower, _ = tower_section(side, config)
    except ConfigError as error:
        raise ParityError(str(error)) from None
    if tower is config:
        raise ParityError(f"config.json: no {side}_config; expected the config of a model with two towers")
    return tower
