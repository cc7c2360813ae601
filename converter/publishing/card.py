"""The model card and the pull request's text: a section between two marks, and three fields of the metadata.

Everything else in the card stays unchanged, byte for byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from converter.errors import SourceError, printable
from converter.folder import proof
from converter.folder.licence import checked as checked_licence
from converter.names.frameworks import KERAS, command, framework_name, frameworks
from converter.names.layout_files import layout_file
from converter.publishing.evidence import SOURCE, Evidence, option_words

BEGIN, END = "<!-- dual-encoder-converter: begin -->", "<!-- dual-encoder-converter: end -->"
# From the last start mark before an end mark: a single mark, such as in an example, is not ours.
_SECTION = re.compile(f"{re.escape(BEGIN)}(?:(?!{re.escape(BEGIN)}).)*?{re.escape(END)}", re.DOTALL)
_METADATA = re.compile(r"\A(\s*---[ \t]*\r?\n)(.*?)(^---[ \t]*(?:\r?\n|\Z))", re.DOTALL | re.MULTILINE)
_PARTS = 12


def title(evidence: Evidence) -> str:
    """The title of a pull request."""
    return f"Add {framework_name(evidence.framework)} weights"


def marker(evidence: Evidence) -> str:
    """The identity of a pull request of ours: the source at its commit, and the framework."""
    return f"<!-- dual-encoder-converter: {printable(evidence.source, 300)} {evidence.framework} -->"


def section(evidence: Evidence, repository: str) -> str:
    """The source, the figures of parity, how to reproduce them, and how to load it; Markdown."""
    recorded, raw = evidence.recorded, evidence.raw
    way = command(recorded.source_framework, recorded.target_framework)
    source = evidence.source if recorded.hub is not None else SOURCE
    described = f"Converted from `{_code(evidence.source)}`"
    if recorded.hub is not None:
        described = (
            f"Converted from [`{_code(recorded.hub)}`](https://huggingface.co/{recorded.hub}) at commit "
            f"`{_code(recorded.commit)}`"
        )
    elif not recorded.source_files:
        described = "Made from weights in memory (a trained model, or two towers combined)"
    elif not evidence.is_summed:
        described = "Converted from files without recorded sums"
    reproducing = [
        "To reproduce them:",
        "",
        "```console",
        f"convert {way} {_code(source)} out {' '.join(option_words(raw))}".rstrip(),
        "convert verify out",
        "```",
        "",
    ]
    lines = [
        f"## {framework_name(evidence.framework)} weights",
        "",
        f"{described} by `{_code(raw.get('made_by'))}`.",
        "",
        *_parity(evidence),
        "",
        *(reproducing if recorded.source_files else ()),
        "To load them:",
        "",
        "```python",
        *_loading(evidence, repository),
        "```",
    ]
    return "\n".join(lines)


def edited(text: str, evidence: Evidence, repository: str, alone: bool = True) -> str:
    """The card with our section and our metadata in it.

    Args:
        text: the current card, or empty.
        evidence: about what is published.
        repository: where to.
        alone: whether the repository has no weights of another framework, whose library the card would name otherwise.

    Raises:
        SourceError: its metadata is not YAML, or is spelled so that it cannot be added to.
    """
    text = text.removeprefix("\ufeff")
    ending = "\r\n" if "\r\n" in text else "\n"
    body = f"{BEGIN}\n{section(evidence, repository)}\n{END}".replace("\n", ending)
    if _SECTION.search(text):
        text = _SECTION.sub(lambda _: body, text, count=1)
    else:
        apart = "" if not text else ending if text.endswith("\n") else ending * 2
        text = f"{text}{apart}{body}{ending}"
    held = metadata(text)
    changes = {
        name: value for name, value in _wanted(held, evidence, repository, alone).items() if held.get(name) != value
    }
    return _with_metadata(text, held, changes) if changes else text


def metadata(text: str) -> dict[str, Any]:
    """The metadata of a card, as huggingface_hub reads it.

    Raises:
        SourceError: it is not YAML.
    """
    match = _METADATA.search(text)
    if not match or not match[2].strip():
        return {}
    from huggingface_hub import RepoCard

    try:
        found: dict[str, Any] = RepoCard(text).data.to_dict()
    except Exception as error:  # any exception of the YAML library
        raise SourceError(
            f"README.md: its metadata cannot be read: {printable(str(error), 200)}; correct it on the Hub first"
        ) from None
    return found


def _wanted(held: Mapping[str, Any], evidence: Evidence, repository: str, alone: bool) -> dict[str, Any]:
    listed = _listed(held.get("tags"))
    library = held.get("library_name") or _library(evidence, alone)
    wanted = {
        **({} if library is None else {"library_name": library}),
        **({} if held.get("license") else licence_of_source(evidence.raw.get("source"))),
        "tags": [
            *listed,
            *(tag for tag in (evidence.family.model_type, frameworks()[evidence.framework].tag) if tag not in listed),
        ],
    }
    source = evidence.recorded.hub
    if source is not None and source != repository:
        bases = _listed(held.get("base_model"))
        if source not in bases:
            wanted["base_model"] = [*bases, source] if bases else source
    return wanted


def _library(evidence: Evidence, alone: bool) -> str | None:
    """The library that loads the weights; None where the repository holds others, which the Hub knows by itself."""
    if evidence.layout is not None:
        return str(layout_file(evidence.layout)["library"])
    if evidence.framework != KERAS:
        return "transformers"
    return "dual-encoder-converter" if alone else None


def licence_of_source(source: Any) -> dict[str, str]:
    """The licence that a manifest has recorded of its source; what cannot be one is left out."""
    return checked_licence(source.get("license")) if isinstance(source, Mapping) else {}


def _listed(value: Any) -> list[Any]:
    """A field that may hold one thing, several, or nothing."""
    return value if isinstance(value, list) else [] if value in (None, "") else [value]


def _with_metadata(text: str, held: Mapping[str, Any], changes: Mapping[str, Any]) -> str:
    """Sets some fields and keeps the lines of all others; checked by reading it again."""
    from huggingface_hub.utils import yaml_dump

    match = _METADATA.search(text)
    opening, block, closing = match.groups() if match else ("---\n", "", "---\n")
    rest = text[match.end() :] if match else text
    for name, value in changes.items():
        block = _set_field(block, name, yaml_dump({name: value}))
    changed = f"{opening}{block}{closing}{rest}"
    try:
        if metadata(changed) == {**held, **changes}:
            return changed
    except SourceError:
        pass  # an anchor that was cut off, or one mapping in braces
    wanted = ", ".join(f"{name}: {json.dumps(value, default=str)}" for name, value in changes.items())
    raise SourceError(
        "README.md: its metadata cannot be changed without touching other fields; set these on the Hub first: "
        f"{printable(wanted, 500)}"
    )


def _set_field(block: str, name: str, dumped: str) -> str:
    lines = block.splitlines(keepends=True)
    ending = "\r\n" if any(line.endswith("\r\n") for line in lines) else "\n"
    dumped = dumped.replace("\n", ending)
    begin = next((number for number, line in enumerate(lines) if re.match(rf"{name}[ \t]*:", line)), None)
    if begin is None:
        return block + ("" if not block or block.endswith("\n") else ending) + dumped
    end = begin + 1
    while end < len(lines) and lines[end][:1] in (" ", "\t", "-", "#", "\r", "\n"):
        end += 1
    while end > begin + 1 and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
        end -= 1  # text above the next field belongs to that
    return "".join([*lines[:begin], dumped, *lines[end:]])


def _parity(evidence: Evidence) -> list[str]:
    if evidence.proof is None or evidence.proof.report is None:
        return ["**Not verified**: published without comparing it with its source."]
    report = evidence.proof.report
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for tap in report.get("taps", ()):
        rows.setdefault(str(tap.get("where", "?")).partition(",")[0], []).append(tap)
    table = ["| output | max abs diff | values compared |", "|---|---:|---:|"]
    for part, taps in list(rows.items())[:_PARTS]:
        greatest = max(
            (tap["greatest_absolute"] for tap in taps if _is_number(tap.get("greatest_absolute"))), default=None
        )
        compared = sum(tap["compared"] for tap in taps if isinstance(tap.get("compared"), int))
        shown = "-" if greatest is None else f"{greatest:.1e}"
        table.append(f"| {_plain(part)} | {shown} | {compared:,} |")
    verdict = str(report.get("verdict", "")).removeprefix("equal: ").removeprefix("within tolerance: ")
    sides = [f"{_runs(report.get(side))} ({side})" for side in ("reference", "candidate")]
    return [
        f"All tensors match the source bit for bit, and all layer outputs are within tolerance: {_plain(verdict)} "
        f"({' against '.join(sides)}). `{proof.NAME}` has all figures.",
        "",
        *table,
    ]


def _runs(run: Any) -> str:
    if not isinstance(run, Mapping):
        return "?"
    return _plain(", ".join(str(run.get(name, "?")) for name in ("framework", "dtype", "device")))


def _loading(evidence: Evidence, repository: str) -> list[str]:
    if evidence.layout is not None:
        return [line.format(repository=repository) for line in layout_file(evidence.layout)["loading"]]
    of = ""
    home, name = "transformers", evidence.family.classes[evidence.framework]
    if evidence.framework == KERAS:
        home, towers = "converter", evidence.raw.get("towers")
        if isinstance(towers, Mapping) and evidence.family.is_in_transformers_4(evidence.framework, towers):
            of = "  # or from transformers 4.x"
    elif not frameworks()[evidence.framework].transformers_5:
        of = "  # transformers 4.x"
    elif evidence.raw["options"].get("names") == "v5":
        if any(place.own_dialects for place in evidence.family.places.values()):
            of = "  # 5.6 or later"
        elif "v5" in evidence.family.rules.get("dialects", {}):
            of = "  # 5.x"
    return [f"from {home} import {name}{of}", "", f'model = {name}.from_pretrained("{repository}")']


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _code(value: Any) -> str:
    """Text from a file, for between backticks."""
    return printable(str(value), 200).replace("`", "'")


def _plain(value: str) -> str:
    """Text from a file, without markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|!~&])", r"\\\1", printable(value, 500))
