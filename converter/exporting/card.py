"""README.md of an export: what it is, what it may be given, what was measured, and how each file is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from converter.errors import printable
from converter.exporting.results import Export, ExportedFile
from converter.exporting.snippets import snippets
from converter.exporting.targets import TARGETS
from converter.folder.licence import checked as checked_licence

# By format: what the Hub calls a library that loads the folder. A SavedModel needs TensorFlow alone, which is none there.
LIBRARIES = {"onnx": "transformers.js", "litert": "litert"}
_LANGUAGES = {"python": "Python", "kotlin": "Kotlin", "javascript": "JavaScript", "cpp": "C++"}


def metadata(source: Mapping[str, Any], family: str, formats: Sequence[str]) -> list[str]:
    """What the Hub reads of the card: the licence and the source, and a library that loads the folder if there is one.

    Args:
        source: what ``export.json`` says of it.
        family: model type.
        formats: of the files.

    Returns:
        Lines of YAML, the marks around them included.
    """
    libraries = [LIBRARIES[format] for format in formats if format in LIBRARIES]
    fields: dict[str, Any] = {
        **checked_licence(source.get("license")),
        **({"library_name": libraries[0]} if libraries else {}),
        **({"base_model": source["hub"]} if "hub" in source else {}),
        "tags": [family, *formats],
    }
    return ["---", *(f"{name}: {json.dumps(value)}" for name, value in fields.items()), "---", ""]


def card(found: Export) -> str:
    """The whole file, Markdown."""
    lines = [
        *metadata(found.source, found.family, [one.format for one in found.exported]),
        f"# {_code(str(found.source['name']))}, exported",
        "",
        f"A `{found.family}` of `{found.towers[0]}` and `{found.towers[1]}`, {found.options.precision}. Every file was run in "
        "its own runtime and compared with the checkpoint; `export.json` has the figures. To verify it again:",
        "",
        "```console",
        "convert verify .",
        "```",
        "",
        *_inputs(found),
    ]
    for one in found.exported:
        lines += ["", f"## {TARGETS[one.format].label}", "", *_measured(one), *_loading(found, one)]
    return "\n".join(lines) + "\n"


def _inputs(found: Export) -> list[str]:
    limits = found.limits
    height, width = limits["image_size"]
    if found.options.pixels == "uint8":
        pictures = (
            f"Pictures are bytes, channels last, {height} x {width}: the graph rescales and normalises them. Resize and crop "
            "them before, as the processor's file beside this one says."
        )
    else:
        pictures = f"Pictures are what the image processor gives, {height} x {width}: resized, cropped, rescaled and normalised."
    rows = [f"| `{kind}` | {', '.join(said)} |" for kind, said in _wrong(found).items()]
    table = ["", "What a runtime does with wrong inputs:", "", "| input | answer |", "|---|---|", *rows] if rows else []
    return [
        f"{pictures} Ids are from 0 to {limits['vocabulary'] - 1}; a text has {limits['longest_text']} tokens at most. "
        "Embeddings are unit vectors.",
        *table,
    ]


def _wrong(found: Export) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for one in found.exported:
        for kind, said in one.wrong_inputs.items():
            kinds.setdefault(kind, []).append(f"{TARGETS[one.format].label}: {said}")
    return kinds


def _measured(one: ExportedFile) -> list[str]:
    shown = [f"{one.nbytes / 1e6:,.1f} MB."]
    worst = [figure for figure in one.check.figures if figure.greatest is not None]
    if worst:
        shown.append(f"Max abs diff {max(figure.greatest or 0.0 for figure in worst):.1e}.")
    shown += [
        f"{quality.side.capitalize()}s: cosine {quality.cosine_mean:.5f}, least {quality.cosine_min:.5f}."
        for quality in one.check.quality
    ]
    return [" ".join(shown), ""]


def _loading(found: Export, one: ExportedFile) -> list[str]:
    lines = []
    for language, text in snippets(found, one).items():
        lines += [f"{_LANGUAGES[language]}:", "", f"```{language}", text.strip("\n"), "```", ""]
    return lines[:-1]


def _code(text: Any) -> str:
    return printable(str(text), 200).replace("`", "'")
