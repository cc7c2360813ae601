"""The small files beside the weights: which are copied, and what of config.json is rewritten."""

from __future__ import annotations

import filecmp
import json
import math
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from converter.errors import ConfigError, SourceError
from converter.folder.chat_templates import MAX_CHAT_TEMPLATE_BYTES, is_chat_template, names_in
from converter.folder.files import inside, read_json, stands_in, write_json
from converter.folder.tokenizer_files import CONFIGS, OF_IMAGES, OURS, TOKENIZER_CONFIG, sidecars_in

_NAME_OR_PATH = "_name_or_path"
# The part of a config about quantised weights, at the top or of a tower.
QUANTISING = "quantization_config"
MAX_SIDECAR_BYTES = 256 * 2**20
_BEGINNING = 200  # bytes, enough to recognise what replaced a file
# Names of files beside weights that are not copied, for the manifest and results.
MAX_LEFT_BEHIND = 1000
_LIKE_SIDECARS = re.compile(
    r"token|vocab|merges|bpe|spm|spiece|sentencepiece|processor|processing|extractor|chat_template"
)


def sidecars_of(sources: tuple[Path, ...]) -> tuple[str, ...]:
    """Names that ``copy_sidecars`` would copy."""
    return tuple(name for name, _ in _named_sidecars(sources))


def _named_sidecars(sources: tuple[Path, ...]) -> tuple[tuple[str, Path], ...]:
    """The tokenizer files of the first of some folders and the image processor's of the last. No code, no weights.

    Returns:
        Each one's name and its folder, by name.
    """
    if not sources:
        return ()
    words = [(name, sources[0]) for name in sidecars_in(sources[0]) if name not in OF_IMAGES]
    pictures = [(name, sources[-1]) for name in OF_IMAGES if (sources[-1] / name).is_file()]
    return tuple(sorted((*words, *pictures), key=lambda found: found[0]))


def most_bytes(name: str) -> int:
    """Size limit of a copied file."""
    return MAX_CHAT_TEMPLATE_BYTES if is_chat_template(name) else MAX_SIDECAR_BYTES


def lies_beside(source: Path) -> tuple[str, ...]:
    """Names beside weights, folders with a slash; without hidden files and files of this program.

    The files in the folder of chat templates.

    None of a folder that may not be listed, whose files can be read all the same.

    Args:
        source: a folder, or a weights file: what lies around that need not be its own, so that only what seems to be of a
            tokenizer or processor is named.
    """
    folder, alone = (source, False) if source.is_dir() else (source.parent, True)
    try:
        seen = [name for name in names_in(folder, follow=True) if not _is_hidden(name) and name not in OURS]
        names = (f"{name}/" if (folder / name).is_dir() else name for name in seen)
        return tuple(sorted(name for name in names if not alone or _LIKE_SIDECARS.search(name)))
    except OSError:
        return ()


def _is_hidden(name: str) -> bool:
    return name.split("/")[-1].startswith(".")


def left_behind(beside: Collection[str], taken: Collection[str]) -> tuple[str, ...]:
    """Files beside weights that are not copied; the first ``MAX_LEFT_BEHIND`` names."""
    left = (name for name in beside if name not in taken and name not in CONFIGS and ".index." not in name)
    return tuple(dict.fromkeys(left))[:MAX_LEFT_BEHIND]


def copy_sidecars(
    sources: tuple[Path, ...], target: Path, for_version_4: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Copies the tokenizer files of the first of some checkpoint folders, and the image processor's of the last.

    A tokenizer is many files, and CLIP's checkpoints have one too: those of two folders must not be mixed. For a reader
    of version 4, tokenizer_config.json of transformers 5.x is changed where 4.x cannot open it.

    Returns:
        Their names, and descriptions of the changes.

    Raises:
        SourceError: one of them is larger than any tokenizer is, a Git LFS pointer or a web page.
        CorruptCheckpoint: one of them is a link out of the folder.
    """
    copied = []
    rewritten: tuple[str, ...] = ()
    for name, folder in _named_sidecars(sources):
        path, most = folder / name, most_bytes(name)
        if path.stat().st_size > most:
            raise SourceError(f"{path}: larger than {most:,} bytes, too large for such a file; remove it")
        (target / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(inside(path, folder), target / name)
        with (target / name).open("rb") as file:
            what = stands_in(file.read(_BEGINNING))
        if what is not None:
            raise SourceError(f"{path}: {what}")
        copied.append(name)
        if name == TOKENIZER_CONFIG:
            rewritten = _mend_tokenizer_config(target / name, for_version_4)
    return tuple(copied), rewritten


def _without_places(config: dict[str, Any], rewritten: list[str]) -> dict[str, Any]:
    """The config without the folders that it was once loaded from, which transformers 4 writes into it and nothing reads."""
    for section in ("", "vision_config", "text_config"):
        held = config.get(section) if section else config
        if isinstance(held, Mapping) and is_place(held.get(_NAME_OR_PATH)):
            kept = {name: value for name, value in held.items() if name != _NAME_OR_PATH}
            config = {**config, section: kept} if section else kept
            rewritten.append(
                f"config.json: {section}{'.' if section else ''}{_NAME_OR_PATH}: left out, a path of a machine"
            )
    return config


def _without_quantising(config: dict[str, Any], rewritten: list[str]) -> dict[str, Any]:
    """The config without what it says of quantised weights: every weight is there as a float."""
    for section in ("", "vision_config", "text_config"):
        held = config.get(section) if section else config
        if isinstance(held, Mapping) and QUANTISING in held:
            kept = {name: value for name, value in held.items() if name != QUANTISING}
            config = {**config, section: kept} if section else kept
            if held[QUANTISING] is not None:
                field = f"{section}{'.' if section else ''}{QUANTISING}"
                rewritten.append(f"config.json: {field}: left out, the weights are not quantised")
    return config


def is_place(value: object) -> bool:
    """Whether a text is a path of somebody's machine rather than the id of a model on the Hub."""
    return isinstance(value, str) and (value.count("/") > 1 or value.startswith(("/", "~", ".")) or "\\" in value)


def _mend_tokenizer_config(path: Path, for_version_4: bool) -> tuple[str, ...]:
    """Takes paths of a machine out of a tokenizer_config.json, and makes one of transformers 5.x one that 4.x opens too.

    4.x takes ``extra_special_tokens`` for a dictionary and fails on the list that 5.x writes; it calls the class
    ``TokenizersBackend`` ``PreTrainedTokenizerFast``. The meaning is the same in both.
    """
    try:
        config = read_json(path)
    except ConfigError:
        if for_version_4:
            raise
        return ()
    rewritten = [*_forget(config), *(_mend(config) if for_version_4 else ())]
    if rewritten:
        write_json(path, config)
    return tuple(f"tokenizer_config.json: {change}" for change in rewritten)


def _forget(config: dict[str, Any]) -> list[str]:
    """Leaves out where a tokenizer was once loaded from, which no version reads."""
    places = [name for name in ("name_or_path", "special_tokens_map_file") if is_place(config.get(name))]
    for name in places:
        del config[name]
    return [f"{name}: left out, a path of a machine" for name in places]


def _mend(config: dict[str, Any]) -> list[str]:
    rewritten = []
    tokens = config.get("extra_special_tokens")
    if isinstance(tokens, list) and "additional_special_tokens" not in config:
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
        rewritten.append("extra_special_tokens -> additional_special_tokens")
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        rewritten.append("tokenizer_class: TokenizersBackend -> PreTrainedTokenizerFast")
    return rewritten


def differing(one: Path, other: Path) -> tuple[str, ...]:
    """Names of small files that two checkpoint folders both have, with different content."""
    theirs = frozenset(sidecars_in(other))
    return tuple(name for name in sidecars_in(one) if name in theirs and not _is_copy(one / name, other / name))


def _is_copy(one: Path, other: Path) -> bool:
    if filecmp.cmp(one, other, shallow=False):
        return True
    if one.name != TOKENIZER_CONFIG:
        return False
    try:
        configs = [read_json(path) for path in (one, other)]
    except ConfigError:
        return False
    for config in configs:
        _forget(config)
        _mend(config)
    return configs[0] == configs[1]


def rewrite_config(
    raw: Mapping[str, Any], scale: Mapping[str, float], float_dtype: str | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Makes the config of the output.

    Args:
        raw: of the source.
        scale: the trained value by the field that it is written to. transformers 4.x does not read a dual encoder's
            from ``tf_model.h5`` but takes ``logit_scale_init_value``. Empty where every reader takes it from the weights.
        float_dtype: the dtype of the floats of the output; None if they are mixed.

    Returns:
        The config, and descriptions of the changes.
    """
    config = dict(raw)
    rewritten = []

    def rewrite(field: str, value: Any) -> None:
        if config.get(field) != value:
            was = f"config.json: {field}: {json.dumps(config[field]) if field in config else 'absent'}"
            rewritten.append(f"{was} -> {json.dumps(value)}")
            config[field] = value

    config = _without_places(config, rewritten)
    for field, value in scale.items():
        if math.isfinite(value):
            rewrite(field, value)
    config = _without_quantising(config, rewritten)
    for field in ("torch_dtype", "dtype"):
        if config.get(field) is not None and float_dtype is not None:
            rewrite(field, float_dtype)
    return config, tuple(rewritten)
