"""Follows modules.json: sentence-transformers keeps a model in a folder beside it, for example in ``0_CLIPModel/``.

Source: ``SentenceTransformer.save`` of sentence-transformers: a list of ``{"idx", "name", "path", "type"}``. The first
module is the model. If its path is empty, it is beside modules.json, as newer versions save it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from converter.errors import ConfigError, SourceError, listed, printable
from converter.folder.files import read_json_list
from converter.specs import is_file_name

NAME = "modules.json"
# Real ones have some hundred bytes.
MAX_MODULES_BYTES = 2**20
MAX_MODULES = 100


def first_model(path: Path, has_config: Callable[[str], bool], where: str | None = None) -> str:
    """The first module of a modules.json that has a config.json, by the name of its folder.

    Args:
        path: of modules.json.
        has_config: says whether a folder beside it has one.
        where: what messages call it; its path by default.

    Raises:
        ConfigError: the file is invalid, or a module is not in a folder beside it.
        SourceError: no module has a config.json.
    """
    where = where or str(path)
    modules = read_json_list(path, MAX_MODULES_BYTES)
    if len(modules) > MAX_MODULES:
        raise ConfigError(f"{where}: lists {len(modules):,} modules, more than any model has; restore the original")
    names = [name for module in modules if (name := _folder_of(module, where))]
    for name in names:
        if has_config(name):
            return name
    raise SourceError(
        f"{where}: none of its modules has a config.json ({listed(names) if names else 'it names no folder'}); download "
        "the whole model, or name the folder that holds config.json"
    )


def _folder_of(module: Any, where: str) -> str:
    """Name of a module's folder; empty if it is beside modules.json."""
    name = module.get("path") if isinstance(module, dict) else None
    if name != "" and not is_file_name(name):
        raise ConfigError(
            f"{where}: a module lies in {printable(repr(name), 80)}, expected the name of a folder beside {NAME}; restore "
            "it from the original"
        )
    return str(name)
