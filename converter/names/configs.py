"""Reads config.json: which towers a dual encoder has, every field its rules need, and what is refused."""

from __future__ import annotations

import functools
import importlib.resources
import itertools
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from converter.errors import ConfigError, UnsupportedOption, UnsupportedTower, printable, unreadable
from converter.names.expressions import integer

Side = Literal["vision", "text"]
# Real ones have some KB; parsing 8 MB built for the purpose takes 250 MB of memory.
MAX_CONFIG_BYTES = 8 * 2**20
MAX_CONFIG_DEPTH = 50
MAX_FIELD_CHARACTERS = 10_000
MAX_NUMBER = 2**31

# What a person may have instead of a dual encoder, and where to go with it.
_OTHER_MODELS = {
    "clip": "a full CLIP model; load it with transformers' CLIPModel",
    "siglip": "a full SigLIP model; load it with transformers' SiglipModel",
    "vision-encoder-decoder": "an image-to-text model; load it with transformers' VisionEncoderDecoderModel",
    "encoder-decoder": "a text-to-text model; load it with transformers' EncoderDecoderModel",
}


@dataclass(frozen=True)
class TowerConfig:
    """One tower's config, checked.

    Attributes:
        side: which tower.
        model_type: as in config.json, for example ``"xlm-roberta"``.
        family: name of the rule file, for example ``"roberta"``.
        fields: every honoured field, transformers' default where config.json is silent.
        unknown: fields that the rules do not know; they are kept and reported.
    """

    side: Side
    model_type: str
    family: str
    fields: Mapping[str, Any]
    unknown: tuple[str, ...]

    @property
    def rules(self) -> Mapping[str, Any]:
        """The tower's rule file."""
        return rule_file(self.family)


@dataclass(frozen=True)
class DualEncoderConfig:
    """A dual encoder's config, checked.

    Attributes:
        raw: config.json as it was read, the vision part of a full CLIP config put in its place.
        vision: the vision tower's.
        text: the text tower's.
        fields: the dual encoder's own honoured fields and ``vision_width`` / ``text_width``.
        rewritten: changes made to ``raw`` on reading, in words.
        unknown: fields on the top level that are not known.
    """

    raw: Mapping[str, Any]
    vision: TowerConfig
    text: TowerConfig
    fields: Mapping[str, Any]
    rewritten: tuple[str, ...]
    unknown: tuple[str, ...]

    def tower(self, side: Side) -> TowerConfig:
        """The tower of one side."""
        return self.vision if side == "vision" else self.text

    @property
    def unknown_fields(self) -> tuple[str, ...]:
        """Every field that is not known, with the section it stands in."""
        towers = (f"{tower.side}_config.{name}" for tower in (self.vision, self.text) for name in tower.unknown)
        return (*self.unknown, *towers)


@functools.cache
def rule_file(name: str) -> Mapping[str, Any]:
    """Reads one file of ``rename_rules/``: ``"common"``, ``"dual_encoder"``, or a tower's by its stem."""
    places = {"common": "common", "dual_encoder": "families/vision_text_dual_encoder"}
    path = f"{places.get(name, f'towers/{name}')}.toml"
    text = importlib.resources.files("rename_rules").joinpath(path).read_text("utf-8")
    return tomllib.loads(text)


def supported(side: Side) -> tuple[str, ...]:
    """Model types that have rules, sorted."""
    return tuple(sorted(rule_file("dual_encoder")["towers"][side]))


def read_config(path: Path) -> DualEncoderConfig:
    """Reads and checks a dual encoder's config.json.

    Raises:
        ConfigError: the file is missing, is not JSON, or does not describe a dual encoder.
        UnsupportedTower: a tower's model type has no rules.
        UnsupportedOption: a field has a value that is refused.
    """
    return check_config(read_json(path), where=str(path))


def read_json(path: Path, limit: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """Reads a JSON object from a file of at most ``limit`` bytes."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise ConfigError(f"{path}: not a file; put the original in its place")
        with path.open("rb") as file:
            text = file.read(limit + 1)
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: not found; a checkpoint folder holds config.json beside its weights, as save_pretrained writes it"
        ) from None
    except OSError as error:
        raise ConfigError(unreadable(path, error)) from None
    if len(text) > limit:
        raise ConfigError(f"{path}: larger than {limit:,} bytes, which no config is; restore it from the original")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON: {printable(str(error))}; restore it from the original") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a JSON object, found {type(value).__name__}; restore it from the original")
    if _is_nested(value, MAX_CONFIG_DEPTH):
        raise ConfigError(f"{path}: nested deeper than {MAX_CONFIG_DEPTH}, which no config is; restore the original")
    return value


def _is_nested(value: Any, depth: int) -> bool:
    """Whether lists and objects lie deeper in one another than ``depth``: writing them would overflow the stack."""
    level = [value]
    for _ in range(depth):
        inner = itertools.chain.from_iterable(held.values() if isinstance(held, dict) else held for held in level)
        level = [held for held in inner if isinstance(held, dict | list)]
    return bool(level)


def check_config(raw: Mapping[str, Any], where: str = "config.json") -> DualEncoderConfig:
    """Checks a dual encoder's config, given as the dictionary that config.json holds.

    Args:
        raw: the config.
        where: what messages call it.
    """
    _refuse_other_models(raw, where)
    _refuse_code(raw, f"{where}: auto_map")
    raw, rewritten = _unwrap_clip(raw)
    shared = rule_file("dual_encoder")
    towers = {side: _check_tower(side, raw[f"{side}_config"], f"{where}: {side}_config") for side in ("vision", "text")}
    honoured = shared["config"]["honoured"]
    fields = {name: _checked(raw.get(name, default), default, f"{where}: {name}") for name, default in honoured.items()}
    for side in ("vision", "text"):
        fields[f"{side}_width"] = integer(towers[side].rules.get("width", "hidden_size"), towers[side].fields)
    return DualEncoderConfig(raw, towers["vision"], towers["text"], fields, rewritten, _unknown(raw, shared["config"]))


def check_tower_config(side: Side, raw: Mapping[str, Any], where: str = "config.json") -> TowerConfig:
    """Checks the config of one tower: its own, or that of a model that holds one on that side.

    Args:
        side: which tower is wanted.
        raw: of a tower, a full CLIP or SigLIP model, or a dual encoder.
        where: what messages call it.

    Raises:
        UnsupportedTower: the model type has no rules on that side.
        UnsupportedOption: a field has a value that is refused.
    """
    inner = raw.get(f"{side}_config")
    if isinstance(inner, Mapping):
        raw = {**inner, "model_type": inner.get("model_type", f"{raw.get('model_type')}_{side}_model")}
        where = f"{where}: {side}_config"
    if raw.get("model_type") in ("clip", "siglip"):
        raw = {**raw, "model_type": f"{raw['model_type']}_{side}_model"}
    return _check_tower(side, raw, where)


def _refuse_other_models(raw: Mapping[str, Any], where: str) -> None:
    model_type = raw.get("model_type")
    has_towers = all(isinstance(raw.get(f"{side}_config"), Mapping) for side in ("vision", "text"))
    if has_towers and model_type in (None, "vision-text-dual-encoder"):
        return
    if isinstance(model_type, str) and model_type in _OTHER_MODELS:
        what = _OTHER_MODELS[model_type]
    elif isinstance(model_type, str) and model_type in supported("vision") + supported("text"):
        what = (
            f"a single {model_type} tower; TFVisionTextDualEncoderModel.from_vision_text_pretrained joins two into "
            "a dual encoder"
        )
    elif model_type == "vision-text-dual-encoder":
        what = "a dual encoder without a vision_config and a text_config; restore both from the original"
    else:
        what = (
            f"model_type {printable(repr(model_type), 60)}; convert a folder that VisionTextDualEncoderModel's "
            "save_pretrained wrote"
        )
    raise ConfigError(f"{where}: expected a vision-text-dual-encoder, found {what}")


def _unwrap_clip(raw: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Puts the vision part of a full CLIP config in its place: transformers 4.x takes it, 5.x builds all of CLIP."""
    raw = dict(raw)
    vision = raw["vision_config"]
    if vision.get("model_type") != "clip":
        return raw, ()
    inner = vision.get("vision_config") or vision.get("vision_config_dict") or {}
    if not isinstance(inner, Mapping):
        raise ConfigError(
            "config.json: vision_config is a CLIP config whose own vision_config is not an object; correct the config"
        )
    raw["vision_config"] = {**inner, "model_type": "clip_vision_model"}
    return raw, (
        "config.json: vision_config: a full CLIP config replaced by its vision part, as transformers 4.x reads it",
    )


def _check_tower(side: Side, config: Mapping[str, Any], where: str) -> TowerConfig:
    model_type = config.get("model_type")
    families = rule_file("dual_encoder")["towers"][side]
    if not isinstance(model_type, str) or model_type not in families:
        raise UnsupportedTower(
            f"{where}.model_type {printable(repr(model_type), 60)} has no rules; supported are "
            f"{', '.join(supported(side))}; other towers can be added as described in README"
        )
    _refuse_code(config, f"{where}.auto_map")
    family = families[model_type]
    known = rule_file(family)["config"]
    for name, rule in {**rule_file("common")["refused"], **known.get("refused", {})}.items():
        default = _plain(rule["default"])
        value = config.get(name, default)
        if value not in rule["allowed"] and value != default:
            raise UnsupportedOption(
                f"{where}.{name} is {printable(repr(value), 60)}, supported is "
                f"{' or '.join(map(repr, rule['allowed']))}: {rule['reason']}"
            )
    defaults = {**known["honoured"], **known.get("defaults", {}).get(model_type, {})}
    fields = {
        name: _checked(config.get(name, _plain(default)), default, f"{where}.{name}")
        for name, default in defaults.items()
    }
    return TowerConfig(side, model_type, family, fields, _unknown(config, known))


def _refuse_code(config: Mapping[str, Any], where: str) -> None:
    if config.get("auto_map"):
        raise UnsupportedOption(f"{where} asks for code of its own, which is never run; remove the field")


def _unknown(config: Mapping[str, Any], known: Mapping[str, Any]) -> tuple[str, ...]:
    common = rule_file("common")
    listed_fields = {
        *known["honoured"], *known.get("irrelevant", ()), *known.get("refused", {}),
        *common["irrelevant"], *common["refused"],
    }  # fmt: skip
    return tuple(sorted(name for name in config if name not in listed_fields))


def _plain(default: Any) -> Any:
    """TOML has no null: rule files write it as the string none."""
    return None if default == "none" else default


def _checked(value: Any, default: Any, where: str) -> Any:
    """Checks that a field holds the kind of value that its default is, and gives it back."""
    default = _plain(default)
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_NUMBER
    match default:
        case None | list() | tuple():
            fits = value is None or (
                isinstance(value, bool | int | float | str | list) and len(repr(value)) < MAX_FIELD_CHARACTERS
            )
        case bool():
            fits = isinstance(value, bool)
        case str():
            fits = isinstance(value, str)
        case float():
            fits = number
            value = float(value) if fits else value
        case _:
            # image_size and patch_size may be (height, width); token ids may be missing
            fits = (number and isinstance(value, int)) or (value is None and where.endswith("_id"))
            fits = fits or (where.endswith("_size") and isinstance(value, list) and 1 <= len(value) <= 3)
    if not fits:
        raise ConfigError(
            f"{where} is {printable(repr(value), 60)}, expected a value like {default!r}; correct the config"
        )
    return value
