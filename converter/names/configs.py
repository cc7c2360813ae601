"""Reads config.json: the family of a model, its towers, every field that the rules need, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converter.errors import ConfigError, UnsupportedOption, UnsupportedTower, listed, printable
from converter.folder.files import read_json
from converter.names.expressions import Value, evaluate, integer
from converter.names.families import JOINED, Family, families, family, is_family
from converter.names.layout_configs import layout_of, to_ours
from converter.names.layout_files import LAYOUTS_OF_OTHERS, layout_file
from converter.names.meant import meant
from converter.names.refused import refusals
from converter.names.rule_files import SIDES, Side, rule_file, supported, tower_files
from converter.names.towers import honoured

# The name of a dual encoder in the examples of transformers before it was one of its models.
HYBRID = "hybrid-clip"
MAX_FIELD_CHARACTERS = 10_000
MAX_NUMBER = 2**31

# Models that a person may have instead of one with two towers, and what to do with them.
_OTHER_MODELS = {
    "vision-encoder-decoder": "an image-to-text model; load it with transformers' VisionEncoderDecoderModel",
    "encoder-decoder": "a text-to-text model; load it with transformers' EncoderDecoderModel",
}


@dataclass(frozen=True)
class TowerConfig:
    """One tower's config, checked.

    Attributes:
        side: which tower.
        model_type: as in config.json, for example ``"xlm-roberta"``.
        stem: of its file in ``rename_rules/towers/``, for example ``"roberta"``.
        fields: every honoured field, transformers' default where config.json is silent.
        unknown: fields that the rules do not know; they are kept and reported.
    """

    side: Side
    model_type: str
    stem: str
    fields: Mapping[str, Any]
    unknown: tuple[str, ...]

    @property
    def rules(self) -> Mapping[str, Any]:
        """The tower's rule file."""
        return rule_file(f"towers/{self.stem}")


@dataclass(frozen=True)
class TwoTowerConfig:
    """The config of a model with two towers, checked.

    Attributes:
        raw: config.json as it was read, the vision part of a full CLIP config put in its place.
        family: which kind of model it is.
        vision: the vision tower's.
        text: the text tower's.
        fields: the model's own honoured fields and ``vision_width`` / ``text_width``.
        rewritten: descriptions of the changes made to ``raw`` on reading.
        unknown: fields on the top level that are not known.
        layout: the layout of this config's weights; None for transformers' own.
        processor: the preprocessor_config.json that another program's config asks for.
        tokenizer: id of the tokenizer that goes with such a config.
        cleaning: a description of what the other program does to texts before that tokenizer, or empty.
    """

    raw: Mapping[str, Any]
    family: Family
    vision: TowerConfig
    text: TowerConfig
    fields: Mapping[str, Any]
    rewritten: tuple[str, ...]
    unknown: tuple[str, ...]
    layout: str | None = None
    processor: Mapping[str, Any] | None = None
    tokenizer: str | None = None
    cleaning: str = ""

    def tower(self, side: Side) -> TowerConfig:
        """The tower of one side."""
        return self.vision if side == "vision" else self.text

    @property
    def unknown_fields(self) -> tuple[str, ...]:
        """Every unknown field, with its section."""
        towers = (f"{tower.side}_config.{name}" for tower in (self.vision, self.text) for name in tower.unknown)
        return (*self.unknown, *towers)


def read_config(path: Path) -> TwoTowerConfig:
    """Reads and checks the config.json of a model with two towers.

    Raises:
        ConfigError: the file is missing, is not JSON, or does not describe such a model.
        UnsupportedTower: a tower's model type has no rules.
        UnsupportedOption: a field has a value that is refused.
    """
    return check_config(read_json(path), where=str(path))


def read_given(path: str | os.PathLike[str]) -> TwoTowerConfig:
    """As ``read_config``, of a file that a person has named."""
    if str(path).lstrip().startswith("{"):
        raise ConfigError("config is the text of a config.json, expected its path or a dict; pass json.loads(TEXT)")
    if not os.path.lexists(path):
        raise ConfigError(f"{path}: not found; --config (in Python config=) takes the path of a config.json here")
    return read_config(Path(path))


def config_beside(folder: Path, weights: Collection[Path] = ()) -> Path:
    """The config of the weights in a folder: config.json, or another program's, which goes with its own weights.

    Args:
        folder: that holds the weights.
        weights: the files that they were read from.
    """
    own = folder / "config.json"
    for said in map(layout_file, LAYOUTS_OF_OTHERS):
        theirs = folder / str(said["config"])
        if theirs.exists() and (not own.exists() or any(path.name in said["weights"].values() for path in weights)):
            return theirs
    return own


def check_config(raw: Mapping[str, Any], where: str = "config.json") -> TwoTowerConfig:
    """Checks the config of a model with two towers, given as the dictionary that config.json holds.

    Args:
        raw: the config.
        where: what messages call it.
    """
    if (layout := layout_of(raw)) is not None:
        return _from_layout(raw, layout, where)
    of = family_of(raw, where)
    _refuse_code(raw, f"{where}: auto_map")
    raw, rewritten = _unwrapped(raw, of)
    if raw.get("model_type") == HYBRID:
        raw["model_type"] = of.model_type
        rewritten = (*rewritten, f'config.json: model_type: "{HYBRID}" -> "{of.model_type}"')
    vision, text = (_check_side(of, side, raw, f"{where}: {side}_config") for side in SIDES)
    for tower in (vision, text):
        _check_required(tower, raw.get(f"{tower.side}_config") or {}, f"{where}: {tower.side}_config")
    known = of.rules["config"]
    fields = {
        name: _checked(raw.get(name, default), default, f"{where}: {name}")
        for name, default in known["honoured"].items()
    }
    for tower in (vision, text):
        fields[f"{tower.side}_width"] = integer(tower.rules.get("width", "hidden_size"), tower.fields)
    return TwoTowerConfig(raw, of, vision, text, fields, rewritten, _unknown(raw, known))


def _from_layout(raw: Mapping[str, Any], layout: str, where: str) -> TwoTowerConfig:
    """As ``check_config``, of another program's config."""
    found = to_ours(raw, layout, where, _checked)
    name = layout_file(layout)["config"]
    said = (f"{name}: written as a config.json of {found.raw['architectures'][0]}",)
    return replace(
        check_config(found.raw, where),
        layout=layout,
        rewritten=said,
        processor=found.processor,
        tokenizer=found.tokenizer,
        cleaning=found.cleaning,
    )


def check_tower_config(side: Side, raw: Mapping[str, Any], where: str = "config.json") -> TowerConfig:
    """Checks the config of one tower: its own, or that of a model that holds one on that side.

    Args:
        side: which tower is wanted.
        raw: of a tower, or of a model with two towers of any family.
        where: what messages call it.

    Raises:
        UnsupportedTower: the model type has no rules on that side.
        UnsupportedOption: a field has a value that is refused.
    """
    raw, within = tower_section(side, raw, where)
    return _check_tower(side, raw, within)


def tower_section(side: Side, raw: Mapping[str, Any], where: str = "config.json") -> tuple[Mapping[str, Any], str]:
    """The config of one tower, and its name in messages: the section of a model with two towers, else all of it.

    Args:
        side: which tower is wanted.
        raw: of a tower, or of a model with two towers of any family.
        where: what messages call ``raw``.
    """
    model_type = raw.get("model_type")
    inside = isinstance(raw.get(f"{side}_config"), Mapping)
    if is_family(model_type) and family(str(model_type)).default_tower(side) is not None:
        return _section(family(str(model_type)), side, raw, f"{where}: {side}_config"), f"{where}: {side}_config"
    if inside:
        if is_family(raw[f"{side}_config"].get("model_type")):
            return tower_section(side, raw[f"{side}_config"], f"{where}: {side}_config")
        raw = {"model_type": f"{model_type}_{side}_model", **raw[f"{side}_config"]}
        where = f"{where}: {side}_config"
    # A model's name for a tower of it, as CLIP's vision_config says it in old files.
    said, of_model = raw.get("model_type"), f"{raw.get('model_type')}_{side}_model"
    if said not in (*supported(side), *refusals(side)) and of_model in supported(side):
        raw = {**raw, "model_type": of_model}
    return raw, where


def family_of(raw: Mapping[str, Any], where: str) -> Family:
    """The family that a config is of; nothing else of it is looked at.

    Args:
        raw: the config.
        where: what messages call it.

    Raises:
        ConfigError: it is of none, or lacks what a model of its family cannot be without.
    """
    model_type = raw.get("model_type")
    has_towers = all(isinstance(raw.get(f"{side}_config"), Mapping) for side in SIDES)
    if model_type is None and has_towers:
        return family(JOINED)
    if model_type == HYBRID and has_towers:
        return family(JOINED)
    if is_family(model_type):
        found = family(str(model_type))
        if has_towers or all(found.default_tower(side) for side in SIDES):
            return found
        what = f"a {model_type} without a vision_config and a text_config; restore both from the original"
    elif isinstance(model_type, str) and model_type in _OTHER_MODELS:
        what = _OTHER_MODELS[model_type]
    elif isinstance(model_type, str) and model_type in supported("vision") + supported("text"):
        what = (
            f"a single {model_type} tower; join two into a dual encoder with `convert combine VISION TEXT OUT` (in Python "
            "combine)"
        )
    elif "architecture" in raw and "pretrained_cfg" in raw:
        what = "a timm model, whose tensors have other names; take the same model in transformers' format"
    elif has_towers and (right := meant(model_type, (HYBRID, *families()))) is not None:
        right = JOINED if right == HYBRID else right
        what = f"model_type {printable(repr(model_type), 60)}; write {right!r} if you mean that"
    elif model_type is None:
        what = "no model_type; add that of the original to config.json, or take its own config.json with --config FILE"
    else:
        what = (
            f"model_type {printable(repr(model_type), 60)}; convert a folder that save_pretrained of such a model wrote"
        )
    raise ConfigError(f"{where}: expected a model with two towers ({listed(tuple(families()))}), found {what}")


def _unwrapped(raw: Mapping[str, Any], of: Family) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Puts the vision part of a full CLIP config in its place: transformers 4.x takes it, 5.x builds all of CLIP."""
    raw = dict(raw)
    vision = raw.get("vision_config")
    if (
        of.default_tower("vision") is not None
        or not isinstance(vision, Mapping)
        or not is_family(vision.get("model_type"))
    ):
        return raw, ()
    whole = family(str(vision["model_type"]))
    tower = whole.default_tower("vision")
    if tower is None:
        return raw, ()
    inner = vision.get("vision_config") or vision.get("vision_config_dict") or {}
    if not isinstance(inner, Mapping):
        raise ConfigError(
            f"config.json: vision_config is a {whole.title} config whose own vision_config is not an object; "
            "correct the config"
        )
    raw["vision_config"] = {**inner, "model_type": tower}
    return raw, (
        f"config.json: vision_config: a full {whole.title} config replaced by its vision part, as transformers 4.x reads it",
    )


def _check_side(of: Family, side: Side, raw: Mapping[str, Any], where: str) -> TowerConfig:
    if of.default_tower(side) is None:
        found = _check_tower(side, raw[f"{side}_config"], where)
        if found.model_type not in supported(side):
            reason = refusals(side).get(found.model_type, "transformers has inside its own family only")
            raise UnsupportedTower(
                f"{where}: a {of.title} cannot have a {found.model_type}, which {reason}; supported are "
                f"{', '.join(supported(side))}"
            )
        return found
    return _check_tower(side, _section(of, side, raw, where), where)


def _section(of: Family, side: Side, raw: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The section of a tower in the config of a family that has its own towers, as its config class reads it.

    Such a class builds the family's tower for any ``model_type`` in the section, and uses defaults for missing fields.
    Fields of ``text_config_dict`` / ``vision_config_dict`` replace those of the section, their defaults included. A
    field that the section refuses stays refused: transformers 5 does not know all such fields as the class' own, and
    keeps them.
    """
    section = _object(raw.get(f"{side}_config"), where)
    said = section.get("model_type")
    tower = said if said in of.towers(side) else of.default_tower(side)
    if of.config_dicts and raw.get(f"{side}_config_dict") is not None:
        replacing = _object(raw[f"{side}_config_dict"], f"{where}_dict")
        replaced = rule_file(f"towers/{tower_files(side)[str(tower)]}")["config"]["honoured"]
        section = {name: value for name, value in section.items() if name not in replaced} | dict(replacing)
    return {**section, "model_type": tower}


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} is {printable(repr(value), 60)}, expected an object; correct the config")
    return value


def _small_object(value: Any, where: str) -> Mapping[str, Any] | None:
    if len(repr(value)) >= MAX_FIELD_CHARACTERS:
        raise ConfigError(f"{where} is {printable(repr(value), 60)}, larger than any; correct the config")
    return None if value is None else _object(value, where)


def _check_tower(side: Side, config: Mapping[str, Any], where: str) -> TowerConfig:
    model_type = config.get("model_type")
    files = tower_files(side)
    if model_type is None:
        raise UnsupportedTower(
            f"{where} has no model_type, which says what tower it is; add the one of the original, one of "
            f"{', '.join(supported(side))}"
        )
    other = "text" if side == "vision" else "vision"
    if isinstance(model_type, str) and model_type not in files and model_type in tower_files(other):
        raise UnsupportedTower(
            f"{where}: {model_type} is a {other} tower where the {side} tower belongs; the vision tower comes first, then "
            "the text tower"
        )
    if isinstance(model_type, str) and model_type not in files and (reason := refusals(side).get(model_type)):
        raise UnsupportedTower(
            f"{where}.model_type {model_type!r} {reason}; supported are {', '.join(supported(side))}"
        )
    if (right := meant(model_type, supported(side), side)) is not None and model_type not in files:
        raise UnsupportedTower(
            f"{where}.model_type {printable(repr(model_type), 60)} has no rules; write {right!r} if you mean that"
        )
    if not isinstance(model_type, str) or model_type not in files:
        raise UnsupportedTower(
            f"{where}.model_type {printable(repr(model_type), 60)} has no rules; supported are "
            f"{', '.join(supported(side))}; other towers can be added as described in docs/towers.md"
        )
    _refuse_code(config, f"{where}.auto_map")
    known = rule_file(f"towers/{files[model_type]}")["config"]
    for name, rule in {**rule_file("common")["config"]["refused"], **known.get("refused", {})}.items():
        default = _plain(rule["default"])
        value = config.get(name, default)
        if value not in rule["allowed"] and value != default:
            raise UnsupportedOption(
                f"{where}.{name} is {printable(repr(value), 60)}, supported is "
                f"{' or '.join(map(repr, rule['allowed']))}: {rule['reason']}"
            )
    defaults = honoured(known, model_type)
    off = {name for name in known.get("nullable", ()) if config.get(name, defaults[name]) is None}
    fields: dict[str, Any] = {}
    for name, default in defaults.items():
        value = config.get(name, _plain(default))
        if name in known.get("objects", ()):
            fields[name] = _small_object(value, f"{where}.{name}")
            continue
        is_list = name in known.get("one_each", ()) and isinstance(value, list)
        fields[name] = None if name in off else _checked(value, [] if is_list else default, f"{where}.{name}")
    for name, other in known.get("same_as", {}).items():
        if fields[name] is None:
            fields[name] = fields[other]
    return TowerConfig(side, model_type, files[model_type], fields, _unknown(config, known))


def required_fields(tower: TowerConfig) -> dict[str, Value]:
    """Fields that a model with two towers asks of this tower's config, though its own class has none; with their values."""
    required = tower.rules["config"].get("required", {})
    return {name: evaluate(rule["value"], tower.fields) for name, rule in required.items() if "value" in rule}


def required_choices(tower: TowerConfig) -> dict[str, tuple[Value, ...]]:
    """Fields that a model with two towers asks of this tower's config, by what each may be."""
    required = tower.rules["config"].get("required", {})
    among = {name: evaluate(rule["among"], tower.fields) for name, rule in required.items() if "among" in rule}
    return {name: tuple(values) for name, values in among.items() if isinstance(values, tuple)}


def _check_required(tower: TowerConfig, config: Mapping[str, Any], where: str) -> None:
    only = {name: (value,) for name, value in required_fields(tower).items()}
    for name, values in {**only, **required_choices(tower)}.items():
        if config.get(name) not in values:
            expected = f"{'one of ' if len(values) > 1 else ''}{listed(list(map(str, values)))}"
            raise ConfigError(
                f"{where}.{name} is {printable(repr(config.get(name)), 60)}, expected {expected}: "
                f"{tower.rules['config']['required'][name]['reason']}; set it"
            )


def _refuse_code(config: Mapping[str, Any], where: str) -> None:
    if config.get("auto_map"):
        raise UnsupportedOption(f"{where} asks for code of its own, which is never run; remove the field")


def _unknown(config: Mapping[str, Any], known: Mapping[str, Any]) -> tuple[str, ...]:
    common = rule_file("common")["config"]
    listed_fields = {
        *known["honoured"], *known.get("irrelevant", ()), *known.get("refused", {}), *known.get("required", {}),
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
