"""``parity.json``: what verifying a checkpoint found, bound to its manifest, so that it can be shown before publishing.

It counts for one ``conversion.json`` only, whose sha256 it holds, and for the files as they were. If the manifest has no sums
(``--no-check``), it holds the sums itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.errors import ConfigError, TargetError, printable
from converter.folder import manifest
from converter.folder.chat_templates import is_chat_template
from converter.folder.files import read_json, write_json
from converter.folder.manifest import VERSION
from converter.folder.records import SUMS, hash_file
from converter.folder.staging import staged_file

NAME = "parity.json"
FORMAT = 2
# By format (1 is version 0.1's), the kind of the sums in ``files``.
_SUMMED_BY = {1: "sha256", 2: "blake3"}
_OF_FINDINGS = ("part", "status", "compared")
MAX_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Proof:
    """A recorded verification.

    Attributes:
        passed: whether files, weights and outputs were compared and are equal.
        verified_by: program and version.
        findings: part, status and how much was compared.
        report: figures of the outputs, as ``ParityReport.to_json`` has them; None if they were not compared.
    """

    passed: bool
    verified_by: str
    findings: tuple[Mapping[str, Any], ...]
    report: Mapping[str, Any] | None


def write_proof(folder: Path, verification: Mapping[str, Any]) -> Path:
    """Records a verification in the checkpoint that it is of.

    Args:
        folder: the checkpoint, with its manifest.
        verification: ``Verification.to_json()``.

    Raises:
        TargetError: the folder has no manifest, or cannot be written to.
    """
    path = folder / NAME
    try:
        record = _record_of(folder, verification)
        with staged_file(path) as fresh:
            write_json(fresh, record)
    except OSError as error:
        raise TargetError(
            f"{path}: cannot be written: {error.strerror}; keep the figures with --report FILE.json instead"
        ) from None
    return path


def _record_of(folder: Path, verification: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "verified_by": f"dual-encoder-converter {VERSION}",
        "manifest_sha256": _manifest_sum(folder),
        "files": {name: _sum(folder / name, FORMAT) for name in _unhashed(folder)},
        "passed": verification["passed"],
        # Not what it was compared with, which is a path of this machine.
        "findings": [{name: finding[name] for name in _OF_FINDINGS} for finding in verification["findings"]],
        "report": _without_names(verification["report"]),
    }


def without_names(record: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded verification without the names of folders that the sides lay in; version 0.1 recorded them."""
    return {**record, "report": _without_names(record["report"])}


def _without_names(report: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if report is None:
        return None
    sides = {
        side: {name: value for name, value in report[side].items() if name != "source"}
        for side in ("candidate", "reference")
        if isinstance(report.get(side), Mapping)
    }
    return {**report, **sides}


def read_proof(folder: Path) -> Proof | str:
    """Reads the recorded verification; or says why it does not count."""
    path = folder / NAME
    if not path.is_file() or path.is_symlink():
        return f"no {NAME}"
    try:
        raw = read_json(path, MAX_BYTES)
        if raw.get("format") not in tuple(_SUMMED_BY):
            return f"{NAME} was written by another version"
        if raw["manifest_sha256"] != _manifest_sum(folder):
            return f"{NAME} belongs to another {manifest.NAME}"
        for name in _unhashed(folder):
            if _sum(folder / name, raw["format"]) != raw["files"].get(name):
                return f"{printable(name)} differs from the file that {NAME} describes"
        findings = tuple(dict(finding) for finding in raw["findings"])
        statuses = {str(finding["part"]): finding["status"] for finding in findings}
        report = raw["report"] if isinstance(raw["report"], Mapping) else None
        if raw["passed"] is not True or report is None or report.get("passed") is not True:
            return f"{NAME} records a failed verification"
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        return f"{NAME} was not written by `convert verify` ({printable(str(error), 100)})"
    needed = ("files", "weights", "outputs")
    if any(statuses.get(part) != "passed" for part in needed) or "failed" in statuses.values():
        return f"{NAME} does not record that files, weights and outputs passed"
    return Proof(True, str(raw.get("verified_by", "")), findings, report)


def _sum(path: Path, written_in: int) -> str:
    kind = _SUMMED_BY[written_in]
    return hash_file(path, (kind,)).sums[kind]


def _manifest_sum(folder: Path) -> str:
    path = folder / manifest.NAME
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        raise TargetError(f"{folder}: has no {manifest.NAME}, so nothing can be recorded; convert again") from None


def _unhashed(folder: Path) -> list[str]:
    files = read_json(folder / manifest.NAME, MAX_BYTES)["files"]
    names = [item["name"] for item in files if not SUMS.keys() & item.keys()]
    return [name for name in names if Path(name).name == name or is_chat_template(name)]
