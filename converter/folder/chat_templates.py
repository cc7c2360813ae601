"""The one folder that a tokenizer has: ``additional_chat_templates``, where transformers saves those beside the first.

A file in it is named ``additional_chat_templates/NAME.jinja`` everywhere: in a manifest, a journal, and on the Hub.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from converter.specs import is_file_name

FOLDER = "additional_chat_templates"  # CHAT_TEMPLATE_DIR of transformers 4.52 to 5.x, which looks no deeper
_SUFFIX = ".jinja"
# Models have two or three, of some KB.
MAX_CHAT_TEMPLATES = 64
MAX_CHAT_TEMPLATE_BYTES = 2**20


def is_chat_template(name: object) -> bool:
    """Whether a name, which may come from a stranger, is that of a template in the folder, and of nothing elsewhere."""
    folder, slash, file = name.partition("/") if isinstance(name, str) else ("", "", "")
    if (folder, slash) != (FOLDER, "/") or not file.endswith(_SUFFIX):
        return False
    return is_file_name(file) and file.isprintable() and not file.startswith(".")


def taken_of(names: Iterable[str]) -> tuple[str, ...]:
    """Of some names, those of templates to copy: in order, ``MAX_CHAT_TEMPLATES`` at most."""
    return tuple(sorted(filter(is_chat_template, names))[:MAX_CHAT_TEMPLATES])


def chat_templates_in(folder: Path) -> tuple[str, ...]:
    """Names of a tokenizer's templates; none where the folder of them may not be listed."""
    try:
        return taken_of(name for name in names_in(folder, follow=True) if (folder / name).is_file())
    except OSError:
        return ()


def names_in(folder: Path, follow: bool = False) -> list[str]:
    """Names in a folder; for the folder of templates, unless it is empty, the names in it.

    Args:
        folder: that may be listed.
        follow: whether a link to a folder is one, too.
    """
    found = []
    for path in folder.iterdir():
        is_folder = path.name == FOLDER and path.is_dir() and (follow or not path.is_symlink())
        inner = [f"{FOLDER}/{file.name}" for file in path.iterdir()] if is_folder else []
        found += inner or [path.name]
    return found
