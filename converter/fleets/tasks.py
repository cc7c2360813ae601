"""A task: what to convert, and how, from a line of a list. Decides a line's options, and what identifies it in later runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import blake3

from converter.checkpoints.shards import parse_size
from converter.conversion.formats import choose, default_format, weights_file
from converter.conversion.plan import DTYPES_ASKED, NAMES
from converter.errors import ConverterError, OptionError, listed, printable
from converter.folder.addresses import place_of
from converter.hub.ids import check_revision
from converter.names.frameworks import CANONICAL
from converter.names.layout_files import LAYOUTS_OF_OTHERS, OWN
from converter.specs import Framework

# Of a conversion, what a line may say; as ``convert`` takes them.
OPTIONS = ("dtype", "format", "names", "positions", "layout", "max_shard_size")
COLUMNS = ("source", "revision", "name", *OPTIONS)
MAX_TEXT_CHARACTERS = 4_096


@dataclass(frozen=True)
class Task:
    """A checkpoint to convert.

    Attributes:
        source: path, or id of a model on the Hub, as a conversion takes it.
        label: what results call it: never a path of this machine.
        where: for messages, for example ``"line 3"``.
        hub: True for an id, False for a path, None for what a person named.
        revision: of an id.
        asked_name: the name of its OUT, if the list gives one; else empty.
        options: of ``OPTIONS``.
        name: of its OUT, once all of them are known.
        nbytes: size of its weights, if the list has it; 0 otherwise.
    """

    source: str
    label: str
    where: str
    hub: bool | None = None
    revision: str | None = None
    asked_name: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    nbytes: int = 0

    @property
    def key(self) -> str:
        """The task's identity in later runs: the same source, revision, options and name give the same."""
        said = [self.label, self.source if self.hub is None else "", self.revision, self.asked_name]
        return blake3.blake3(json.dumps([*said, sorted(self.options.items())]).encode()).hexdigest(length=16)


def task_of(fields: Mapping[str, object], to: Framework, where: str) -> Task:
    """A task from a line.

    Args:
        fields: by column.
        to: the framework to convert to.
        where: for messages.

    Raises:
        OptionError: a column that does not exist, an invalid value, or no source.
    """
    if unknown := [str(name) for name in fields if name not in COLUMNS]:
        raise OptionError(f"{where}: {listed(sorted(unknown))}: no such column; choose from {', '.join(COLUMNS)}")
    said = {name: value for name, value in fields.items() if value is not None and value != ""}
    for name, value in said.items():
        if not isinstance(value, str) or len(value) > MAX_TEXT_CHARACTERS or "\0" in value or not _is_text(value):
            shown = printable(repr(value), 60)
            raise OptionError(f"{where}: {name} is {shown}; give a text of {MAX_TEXT_CHARACTERS:,} characters at most")
    texts = {name: str(value) for name, value in said.items()}
    source = texts.pop("source", "").strip()
    if not source:
        raise OptionError(f"{where}: names no source; give a folder, a weights file or the id of a model on the Hub")
    revision, name = texts.pop("revision", None), texts.pop("name", "")
    try:
        place_of(source)  # a URL with a token must not reach the ledger
        _check_options(texts, to)
        if revision is not None:
            check_revision(revision)
    except ConverterError as error:
        raise OptionError(f"{where}: {error}{'' if error.next_step else '; correct it'}") from None
    return Task(source, label_of(source), where, None, revision, name, texts)


def label_of(source: str) -> str:
    """A source's name without folders of this machine: its path as given, unless that is absolute."""
    plain = source.replace("\\", "/")
    absolute = plain.startswith(("/", "~")) or plain[1:2] == ":"
    return plain.rstrip("/").rpartition("/")[2] or "checkpoint" if absolute else source


def _check_options(options: Mapping[str, str], to: Framework) -> None:
    layout = options.get("layout", OWN)
    choose("layout", layout, (OWN, *LAYOUTS_OF_OTHERS))
    weights_file(to, options.get("format") or default_format(to), layout)
    choose("dtype", options.get("dtype", "keep"), DTYPES_ASKED)
    choose("names", options.get("names", "v4"), NAMES if to == CANONICAL else ("v4",))
    choose("positions", options.get("positions", "keep"), ("keep", "flax"))
    parse_size(options.get("max_shard_size"))


def _is_text(value: str) -> bool:
    """False for half a character, which JSON can spell and no file can hold."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
