"""Facts about a checkpoint to publish: where it comes from, and whether it was verified."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converter.errors import SourceError, TargetError, printable
from converter.folder import manifest, proof
from converter.folder.files import is_link, json_bytes, read_json
from converter.folder.manifest import MAX_MANIFEST_BYTES, Manifest, read_manifest
from converter.folder.proof import Proof, read_proof
from converter.folder.records import SUMS, hash_file
from converter.folder.replacing import settle
from converter.hub.ids import COMMIT, is_id
from converter.names.families import JOINED, Family, family, is_family
from converter.names.layout_files import OWN, layout_of_weights
from converter.parity.files_and_weights import verify_files
from converter.specs import Framework

# Stands for a source that is on no Hub, in a card's command too.
SOURCE = "SOURCE"
# An option's values that may appear unquoted in a card.
_PLAIN = re.compile(r"[A-Za-z0-9_. +-]{1,255}")


@dataclass(frozen=True)
class Evidence:
    """A checkpoint that may be published.

    Attributes:
        folder: its folder.
        recorded: its manifest.
        raw: the unchanged manifest.
        proof: its passing verification; None if it was published unverified.
        files: names of the files to publish.
        source: what does not change of it: ``id@commit``, or the sum of its files' sums. If those are not known, because it
            was in memory or was not checked, the sum of the output.
        rewritten: what is published instead of a file, by name: without paths and names of this machine.
    """

    folder: Path
    recorded: Manifest
    raw: Mapping[str, Any]
    proof: Proof | None
    files: tuple[str, ...]
    source: str
    rewritten: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def framework(self) -> Framework:
        """Whose weights they are."""
        return self.recorded.target_framework

    @property
    def family(self) -> Family:
        """Which kind of model it is; manifests of version 0.1 know one kind only."""
        return family(self.raw.get("family", JOINED))

    @property
    def layout(self) -> str | None:
        """Their layout; None for transformers' own."""
        return next((layout for name in self.files if (layout := layout_of_weights(name)) is not None), None)

    @property
    def is_summed(self) -> bool:
        """Whether the sums of the source's files are known."""
        return _is_summed(self.raw)


def gather(folder: Path, allow_unverified: bool) -> Evidence:
    """Reads and checks what is known of a checkpoint.

    Args:
        folder: what a conversion made.
        allow_unverified: whether one that does not match its manifest or was not verified is taken, too.

    Raises:
        SourceError: it is not what a conversion made.
        TargetError: it does not match its manifest, or was not shown to be equal to its source.
    """
    settle(folder)
    recorded = read_manifest(folder) if folder.is_dir() else None
    if not folder.exists():
        raise SourceError(f"{folder}: not found; name the folder that a conversion made")
    if recorded is None:
        raise SourceError(f"{folder}: no conversion made this folder (no {manifest.NAME}); convert first, then push")
    if recorded.hub is not None and not (is_id(recorded.hub) and COMMIT.fullmatch(recorded.commit or "")):
        raise SourceError(
            f"{folder}: {manifest.NAME} names a source that is not a Hub model: "
            f"{printable(f'{recorded.hub}@{recorded.commit}')}; convert again"
        )
    found = verify_files(folder, recorded)
    if found.status != "passed" and not allow_unverified:
        problem = found.problems[0] if found.problems else "it lists no files"
        raise TargetError(
            f"{folder}: does not match its {manifest.NAME}: {problem}; convert again, or push it anyway with --allow-unverified"
        )
    held = read_proof(folder)
    if isinstance(held, str) and not allow_unverified:
        raise TargetError(
            f"{folder}: not verified against its source: {held}; run `convert verify {folder}`, or push it anyway "
            "with --allow-unverified"
        )
    names = [*recorded.files, manifest.NAME, *(() if isinstance(held, str) else (proof.NAME,))]
    for name in names:
        if not (folder / name).is_file() or is_link(folder, name):
            raise TargetError(f"{folder / name}: not a file; convert again")
        if name == "README.md":
            raise TargetError(f"{folder}: {manifest.NAME} lists a README.md, which no conversion writes; convert again")
    raw = read_json(folder / manifest.NAME, MAX_MANIFEST_BYTES)
    if not is_family(raw.get("family", JOINED)):
        raise SourceError(
            f"{folder}: {manifest.NAME} names an unknown family: {printable(repr(raw['family']), 60)}; convert "
            "again, or update this program"
        )
    source = _source(folder, recorded, raw)
    rewritten = _without_paths(folder, recorded, raw, proof.NAME in names)
    return Evidence(folder, recorded, raw, None if isinstance(held, str) else held, tuple(names), source, rewritten)


def _without_paths(folder: Path, recorded: Manifest, raw: Mapping[str, Any], proven: bool) -> dict[str, bytes]:
    """Manifest and verification as the world may see them.

    A manifest names a local source by its path from OUT. That shows the folders of the user who converted it, and does not help
    others. A verification refers to that manifest by its sum.
    """
    public = json.loads(json.dumps(raw))
    if recorded.hub is None:
        public["source"]["path"] = SOURCE
        public.pop("left_behind", None)  # names of files that do not concern others
    found = {manifest.NAME: json_bytes(public)} if public != raw else {}
    if proven:
        record = read_json(folder / proof.NAME, proof.MAX_BYTES)
        shown = proof.without_names(record)
        if found:
            shown["manifest_sha256"] = hashlib.sha256(found[manifest.NAME]).hexdigest()
        if shown != record:
            found[proof.NAME] = json_bytes(shown)
    return found


def _is_summed(raw: Mapping[str, Any]) -> bool:
    files = raw["source"]["files"]
    return bool(files) and all(any(item.get(kind) for kind in SUMS) for item in files)


def _source(folder: Path, recorded: Manifest, raw: Mapping[str, Any]) -> str:
    if recorded.hub is not None:
        return f"{recorded.hub}@{recorded.commit}"
    files = raw["source"]["files"]
    if not _is_summed(raw):
        files = {name: hash_file(folder / name, ("sha256",)).sha256 for name in recorded.files}
    return f"sha256:{hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()}"


def option_words(raw: Mapping[str, Any]) -> list[str]:
    """The options of a conversion for the command line, without those at their defaults.

    A manifest may come from anywhere, and readers run what they copy. So every value is quoted as one word for a shell. A
    value that is not plain is replaced by a placeholder, because a card has marks and fences of its own.
    """
    words = []
    defaults = {"dtype": "keep", "names": "v4", "max_shard_size": None, "positions": "keep", "layout": OWN}
    for name, value in raw.get("options", {}).items():
        if name in ("format", "config", *defaults) and value != defaults.get(name, ""):
            word = shlex.quote(str(value)) if _PLAIN.fullmatch(str(value)) else name.upper()
            words.append(f"--{name.replace('_', '-')} {word}")
    return words
