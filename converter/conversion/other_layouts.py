"""What a checkpoint in another program's layout needs beside its tensors: that program's config, or a processor's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converter.conversion.formats import choose
from converter.errors import TargetError, UnsupportedOption, listed
from converter.folder.files import read_json, write_json
from converter.folder.tokenizer_files import OF_IMAGES
from converter.names.configs import TwoTowerConfig, check_config
from converter.names.frameworks import CANONICAL
from converter.names.layout_configs import preprocess_cfg, to_theirs
from converter.names.layout_files import LAYOUTS_OF_OTHERS, OWN, families_of, kind_of, layout_file
from converter.names.rule_files import SIDES
from converter.specs import Framework

PROCESSOR = OF_IMAGES[0]


def check_layout(layout: str, target: Framework, config: TwoTowerConfig, options: Mapping[str, Any]) -> None:
    """Refuses a layout that does not exist, or that cannot hold the request.

    Raises:
        TargetError: it cannot.
        UnsupportedOption: it has no such model.
    """
    choose("layout", layout, (OWN, *LAYOUTS_OF_OTHERS))
    if layout == OWN:
        return
    title = layout_file(layout)["title"]
    if target != CANONICAL or options.get("names", "v4") != "v4":
        raise TargetError(
            f"layout {layout} has PyTorch's tensors under its own names; use `convert to pt` without --names"
        )
    if options.get("max_shard_size") is not None:
        raise TargetError(f"{title} reads no shards; leave out max_shard_size")
    family = config.family.model_type
    if kind_of(layout, family) is None:
        raise UnsupportedOption(f"{title} has no {config.family.title}; it has {listed(list(families_of(layout)))}")
    theirs_of(config, layout, {})


def theirs_of(config: TwoTowerConfig, layout: str, processor: Mapping[str, Any]) -> dict[str, Any]:
    """The config that another program reads, checked by reading it again.

    Args:
        config: of the source.
        layout: whose config is wanted.
        processor: a preprocessor_config.json, or nothing.

    Raises:
        UnsupportedOption: the program has no model that computes the same.
    """
    family = config.family.model_type
    fields = {side: config.tower(side).fields for side in SIDES}
    model = to_theirs(config.fields, family, layout, fields)
    said = preprocess_cfg(processor, kind_of(layout, family) or {}, model["vision_cfg"]["image_size"])
    found = {"model_cfg": model, "preprocess_cfg": said}
    again = check_config(found, layout_file(layout)["config"])
    differ = [
        f"{side}_config.{name} is {value!r}, its own {again.tower(side).fields[name]!r}"
        for side in SIDES
        for name, value in fields[side].items()
        if not _same(name, value, again.tower(side).fields[name], fields[side])
    ]
    if differ:
        raise UnsupportedOption(
            f"{layout_file(layout)['title']} has no such {config.family.title}: {listed(differ)}; keep transformers' layout"
        )
    return found


def _same(name: str, ours: object, theirs: object, fields: Mapping[str, Any]) -> bool:
    if name == "eos_token_id" and theirs == 2:
        # The position of the highest id, or its first position: the same.
        return ours in (2, fields["vocab_size"] - 1)
    # Which ids begin and fill up a text, tokenizers know; the models do not ask.
    return ours == theirs or name in ("bos_token_id", "pad_token_id") or (name == "eos_token_id" and theirs is None)


def write_config(staging: Path, config: TwoTowerConfig, layout: str) -> str:
    """Writes another program's config into a folder that already has the processor files; returns its name."""
    name = str(layout_file(layout)["config"])
    held = staging / PROCESSOR
    processor = read_json(held) if held.exists() else {}
    write_json(staging / name, theirs_of(config, layout, processor))
    return name


def write_processor(staging: Path, config: TwoTowerConfig) -> tuple[str, ...]:
    """Writes the processor's config that another program's asks for, unless the source had one; gives its name."""
    if config.processor is None or any((staging / name).exists() for name in OF_IMAGES):
        return ()
    write_json(staging / PROCESSOR, config.processor)
    return (PROCESSOR,)
