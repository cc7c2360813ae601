"""Reads another program's config as transformers' own, and writes it: by the fields that its layout's files name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from converter.errors import ConfigError, UnsupportedOption, listed, printable
from converter.names.expressions import evaluate, truth
from converter.names.families import family as get_family
from converter.names.layout_files import LAYOUTS_OF_OTHERS, families_of, kind_of, kinds_of, layout_file
from converter.names.rule_files import SIDES, Side

Checked = Callable[[Any, Any, str], Any]
_SECTIONS = ("model", *SIDES)
_NONE = "none"
# The meaning of special words in a rule file: null, and the text with that spelling.
_ALOUD = {_NONE: None, "'none'": "none"}
_SHOWN = 60  # characters of a value that are shown


@dataclass(frozen=True)
class Translated:
    """Another program's config, in transformers' words.

    Attributes:
        raw: config.json as transformers would have it.
        layout: whose it was.
        processor: the preprocessor_config.json that belongs to it; None if the config does not say.
        tokenizer: id of a tokenizer that gives the ids that the model was trained with.
        cleaning: a description of what the program does to texts before that tokenizer; empty if the tokenizer does it.
    """

    raw: dict[str, Any]
    layout: str
    processor: Mapping[str, Any] | None
    tokenizer: str
    cleaning: str


def layout_of(raw: Mapping[str, Any]) -> str | None:
    """The layout that a config belongs to: OpenCLIP's file, or just one of its model configs; None for transformers'."""
    model = raw.get("model_cfg", raw)
    if isinstance(model, Mapping) and "model_type" not in raw and {"vision_cfg", "text_cfg"} <= model.keys():
        return LAYOUTS_OF_OTHERS[0]
    return LAYOUTS_OF_OTHERS[0] if "model_cfg" in raw and "model_type" not in raw else None


def to_ours(raw: Mapping[str, Any], layout: str, where: str, checked: Checked) -> Translated:
    """Translates a config.

    Args:
        raw: as its file holds it.
        layout: the layout that it belongs to.
        where: what messages call it.
        checked: checks one field's value against its default, as ``configs`` does.

    Raises:
        ConfigError: it is invalid.
        UnsupportedOption: it describes a model that transformers has no class for; the message names it.
    """
    sections = _sections(raw, where)
    said = _named(sections, layout)
    _refuse_other_models(said, layout, where)
    kind = next(kind for kind in kinds_of(layout).values() if bool(kind.get("trunks")) == said["vision_known_trunk"])
    _refuse_values(sections, kind, layout, where)
    fields: dict[str, dict[str, Any]] = {"model": {}}
    for section in _SECTIONS:
        trunk = kind.get("trunks", {}).get(said["vision_timm_model_name"], {}) if section == "vision" else {}
        held = {**sections[section], **trunk}
        fields[section] = {**fields["model"]}
        for name, said_by_default in kind[section]["honoured"].items():
            default = None if said_by_default == _NONE else said_by_default
            value = held.get(name, default)
            if name in kind[section].get("only", ()):  # one of a few, checked above; false equals the default
                fields[section][name] = default if value is False else value
            else:
                fields[section][name] = checked(value, said_by_default, _path(where, section, name))
    _check_square(fields["vision"], where)
    of = str(evaluate(kind["family"], {"text_pool_type": fields["text"].get("pool_type")}))
    ours = {
        section: {name: evaluate(rule, fields[section]) for name, rule in kind[section]["ours"].items()}
        for section in _SECTIONS
    }
    towers = {f"{side}_config": {"model_type": get_family(of).default_tower(side), **ours[side]} for side in SIDES}
    config = {"architectures": [get_family(of).classes["pt"]], "model_type": of, **ours["model"], **towers}
    tokenizer = sections["text"].get("hf_tokenizer_name") or kind["processor"]["tokenizer"]
    if not isinstance(tokenizer, str):
        raise ConfigError(f"{_path(where, 'text', 'hf_tokenizer_name')} is not a string; correct the config")
    processor = _processor(raw, kind, fields["vision"]["image_size"], where)
    return Translated(config, layout, processor, printable(tokenizer, 200), _cleaning(sections["text"], layout))


def to_theirs(
    config: Mapping[str, Any], family: str, layout: str, fields: Mapping[Side, Mapping[str, Any]]
) -> dict[str, Any]:
    """Writes a config as another program has it; the processor's part is left to ``preprocess_cfg``.

    Args:
        config: top-level fields of ours.
        family: model type.
        layout: whose config is wanted.
        fields: of the towers, by side.

    Raises:
        UnsupportedOption: the layout has no such model.
    """
    kind = kind_of(layout, family)
    if kind is None:
        raise UnsupportedOption(
            f"{layout_file(layout)['title']} has no {family}; it has {listed(list(families_of(layout)))}"
        )
    all_of = {f"{side}_{name}": value for side in SIDES for name, value in fields[side].items()}
    known = {
        **kind.get("constants", {}),
        **config,
        **all_of,
        "family": family,
        "trunk": _trunk(kind, fields["vision"], layout),
    }
    inner: dict[str, Mapping[str, Any]] = {"model": {}, **{str(side): of for side, of in fields.items()}}
    found = {
        section: {name: evaluate(rule, {**known, **inner[section]}) for name, rule in kind[section]["theirs"].items()}
        for section in _SECTIONS
    }
    sides = {f"{side}_cfg": {name: value for name, value in found[side].items() if value is not None} for side in SIDES}
    return {**found["model"], **sides}


def preprocess_cfg(processor: Mapping[str, Any], kind: Mapping[str, Any], image_size: int) -> dict[str, Any]:
    """Another program's words for a preprocessor_config.json, which may be empty."""
    resample = processor.get("resample", 3)
    means = [processor.get(f"image_{name}") or kind["processor"][name] for name in ("mean", "std")]
    return {
        "size": [image_size, image_size],
        "mode": "RGB",
        "mean": means[0],
        "std": means[1],
        "interpolation": "bilinear" if resample == 2 else "bicubic",
        "resize_mode": kind["processor"]["resize_mode"],
    }


def _sections(raw: Mapping[str, Any], where: str) -> dict[str, Mapping[str, Any]]:
    model = raw.get("model_cfg", raw)
    if not isinstance(model, Mapping):
        raise ConfigError(f"{where}: model_cfg is {printable(repr(model), 60)}, expected an object; correct the config")
    found: dict[str, Mapping[str, Any]] = {
        "model": {name: value for name, value in model.items() if name != "preprocess_cfg"}
    }
    for side in SIDES:
        section = model.get(f"{side}_cfg")
        if not isinstance(section, Mapping):
            raise ConfigError(
                f"{where}: {side}_cfg is {printable(repr(section), 60)}, expected an object; restore it from the original"
            )
        found[side] = dict(section)
    return found


def _named(sections: Mapping[str, Mapping[str, Any]], layout: str) -> dict[str, Any]:
    """What distinguishes one kind of model from another."""
    trunk = sections["vision"].get("timm_model_name") or ""
    trunks = [name for kind in kinds_of(layout).values() for name in kind.get("trunks", ())]
    return {
        "model_multimodal": bool(sections["model"].get("multimodal_cfg")),
        "text_hf_model_name": sections["text"].get("hf_model_name") or "",
        "vision_timm_model_name": trunk if isinstance(trunk, str) else repr(trunk),
        "vision_known_trunk": isinstance(trunk, str) and trunk in trunks,
        "vision_layers_listed": isinstance(sections["vision"].get("layers"), list),
    }


def _refuse_other_models(said: Mapping[str, Any], layout: str, where: str) -> None:
    for rule in layout_file(layout)["refused"]:
        if truth(rule["when"], said):
            name = f" ({printable(repr(said[rule['named']]), _SHOWN)})" if "named" in rule else ""
            raise UnsupportedOption(
                f"{where}: {rule['why']}{name}; transformers has no class for it. Of {layout_file(layout)['title']}, its own "
                "ViT models and SigLIP are converted"
            )


def _refuse_values(sections: Mapping[str, Mapping[str, Any]], kind: Mapping[str, Any], layout: str, where: str) -> None:
    """Refuses unknown fields, and fields that mean another model, even by default."""
    common = layout_file(layout)
    for section in _SECTIONS:
        rules, blocks = kind[section], common["blocks"] if section != "model" else {}
        only = {**blocks, **rules.get("only", {})}
        known = {*only, *rules["honoured"], *common["irrelevant"][section], *common["told_apart_by"][section]}
        for name, choices in only.items():
            value = sections[section].get(name, common["silence"][section].get(name))
            allowed = [_ALOUD.get(choice, choice) if isinstance(choice, str) else choice for choice in choices]
            if not _is_one_of(value, allowed):
                silent = "" if name in sections[section] else " by default"
                raise UnsupportedOption(
                    f"{_path(where, section, name)} is {printable(repr(value), _SHOWN)}{silent}, supported is "
                    f"{' or '.join(map(repr, allowed))}: transformers has no class for such a model"
                )
        for name, value in sections[section].items():
            if name not in known:
                raise UnsupportedOption(
                    f"{_path(where, section, name)} is {printable(repr(value), _SHOWN)}: {common['title']} 3.3 has "
                    "no such field, and it may change the model; remove it"
                )


def _is_one_of(value: Any, allowed: list[Any]) -> bool:
    """Whether a value is one of some; false and null count the same, like an explicit default."""
    if value is None or value is False:
        return None in allowed or any(choice is False for choice in allowed)
    return any(type(value) is type(choice) and value == choice for choice in allowed)


def _cleaning(text: Mapping[str, Any], layout: str) -> str:
    options = text.get("tokenizer_kwargs")
    clean = options.get("clean") if isinstance(options, Mapping) else None
    found: str = layout_file(layout)["cleaning"].get(clean, "") if isinstance(clean, str) else ""
    return found if text.get("hf_tokenizer_name") else ""


def _check_square(vision: Mapping[str, Any], where: str) -> None:
    size = vision["image_size"]
    if isinstance(size, list) and (len(set(map(repr, size))) != 1 or not isinstance(size[0], int)):
        raise UnsupportedOption(f"{_path(where, 'vision', 'image_size')} is {size!r}: images that are not square")


def _trunk(kind: Mapping[str, Any], vision: Mapping[str, Any], layout: str) -> str:
    """The trunk that has a vision tower's sizes and is made for its images; empty where the layout's towers are its own.

    Raises:
        UnsupportedOption: there is no such model.
    """
    if "trunks" not in kind:
        return ""
    sized = {
        field: rule for field, rule in kind["vision"]["ours"].items() if rule in next(iter(kind["trunks"].values()))
    }
    for name, trunk in kind["trunks"].items():
        # By its name only: the program takes all sizes of the tower from it.
        if name.endswith(f"_{vision['image_size']}") and all(vision[field] == trunk[of] for field, of in sized.items()):
            return str(name)
    said = [f"{name} {vision[name]!r}" for name in (*sized, "image_size")]
    raise UnsupportedOption(
        f"{layout_file(layout)['title']} has no vision tower with {listed(said, len(said))}; keep transformers' layout"
    )


def _processor(raw: Mapping[str, Any], kind: Mapping[str, Any], image_size: Any, where: str) -> dict[str, Any] | None:
    """The preprocessor_config.json that does what ``preprocess_cfg`` says."""
    said = raw.get("preprocess_cfg")
    if said is None:
        return None
    if not isinstance(said, Mapping):
        raise ConfigError(
            f"{where}: preprocess_cfg is {printable(repr(said), 60)}, expected an object; correct the config"
        )
    size = said.get("size", image_size)
    size = size[0] if isinstance(size, list) and len(size) == 2 and size[0] == size[1] else size
    mean, std = (said.get(name, kind["processor"][name]) for name in ("mean", "std"))
    numbers = all(
        isinstance(values, list) and len(values) == 3 and all(type(value) in (int, float) for value in values)
        for values in (mean, std)
    )
    if type(size) is not int or not 0 < size < 2**16 or not numbers:
        raise ConfigError(
            f"{where}: preprocess_cfg has size {printable(repr(size), 60)}, mean {printable(repr(mean), 60)} and std "
            f"{printable(repr(std), 60)}; expected a size and three numbers each; correct the config"
        )
    choices: dict[str, dict[str, Any]] = {
        "interpolation": {"bicubic": 3, "bilinear": 2},
        "resize_mode": {"shortest": True, "squash": False},
    }
    chosen = {name: said.get(name, kind["processor"].get(name, "bicubic")) for name in choices}
    for name, value in chosen.items():
        if not isinstance(value, str) or value not in choices[name]:
            raise UnsupportedOption(
                f"{where}: preprocess_cfg.{name} is {printable(repr(value), 60)}, supported is "
                f"{' or '.join(map(repr, choices[name]))}; correct the config"
            )
    shortest = choices["resize_mode"][chosen["resize_mode"]]
    square = {"height": size, "width": size}
    found = {"do_center_crop": True, "crop_size": square} if shortest else {}
    return {
        "image_processor_type": "CLIPImageProcessor" if shortest else "SiglipImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size} if shortest else square,
        "resample": choices["interpolation"][chosen["interpolation"]],
        **found,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
        "do_convert_rgb": True,
    }


def _path(where: str, section: str, name: str) -> str:
    name = printable(name, _SHOWN)
    return f"{where}: {name}" if section == "model" else f"{where}: {section}_cfg.{name}"
