"""The results of exporting, and of verifying an export later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converter.exporting.checking.files import FileCheck
from converter.exporting.normalisation import Normalisation
from converter.exporting.options import ExportOptions
from converter.folder.records import FileRecord
from converter.parity.finding import Finding, Status, status_of
from converter.specs import JSON_FORMAT


@dataclass(frozen=True, slots=True)
class Needs:
    """What an export needs, as far as that can be estimated.

    Attributes:
        memory: bytes at the peak, of the process that writes.
        disk: bytes, what is taken away again at the end included.
    """

    memory: int
    disk: int

    def __str__(self) -> str:
        return f"needs about {self.memory / 1e9:.1f} GB of memory and {self.disk / 1e9:.1f} GB of disk"


@dataclass(frozen=True)
class ExportedFile:
    """One format of an export.

    Attributes:
        format: ``"savedmodel"``, ``"litert"`` or ``"onnx"``.
        files: all of them, as paths from the export's folder, with sha256.
        written: what the writer says: ``versions``, ``least``, ``operators``, ``initializers``.
        signatures: inputs with shapes, dtypes and axes, and outputs, by name.
        check: what running it found.
        wrong_inputs: what its runtime does with inputs out of bounds, by kind.
        float32: size (bytes) and milliseconds of the same format in float32, if this one is not.
        seconds: that writing took.
        peak_memory: of the process that wrote it and those before it, in bytes; None if the system does not report it.
    """

    format: str
    files: tuple[FileRecord, ...]
    written: Mapping[str, Any]
    signatures: Mapping[str, Any]
    check: FileCheck
    wrong_inputs: Mapping[str, str] = field(default_factory=dict)
    float32: Mapping[str, Any] | None = None
    seconds: float = 0.0
    peak_memory: int | None = None

    @property
    def nbytes(self) -> int:
        """Size of all its files."""
        return sum(record.size for record in self.files)

    def to_json(self) -> dict[str, Any]:
        """The form in ``export.json``."""
        told = {name: value for name, value in self.written.items() if name != "files" and value}
        return {
            "format": self.format,
            "files": [record.to_json() for record in self.files],
            "size": self.nbytes,
            **told,
            "signatures": dict(self.signatures),
            "figures": [figure.to_json() for figure in self.check.figures],
            "weights": self.check.weights,
            "batches": dict(self.check.given),
            "not_given": {name: dict(why) for name, why in self.check.not_given.items()},
            "quality": [quality.to_json() for quality in self.check.quality],
            "milliseconds": dict(self.check.milliseconds),
            "float32": None if self.float32 is None else dict(self.float32),
            "wrong_inputs": dict(self.wrong_inputs),
            "seconds": round(self.seconds, 3),
            "peak_memory": self.peak_memory,
        }


@dataclass(frozen=True)
class Export:
    """An export: its source, its files, and the results of running them. ``to_json`` is the content of ``export.json``.

    Attributes:
        folder: that was made.
        source: name, hashes and place on the Hub of the checkpoint, without paths of this machine.
        family: model type.
        towers: model types of vision and text.
        options: the options of the export.
        normalisation: the normalisation inside the graphs; None if pictures come normalised.
        limits: limits on inputs: ids, tokens, image sizes.
        reference: metadata of the run that the files were compared with.
        golden: name and sha256 of the file with that run.
        gate: least cosine allowed; None for float32.
        exported: the formats.
        others: tokenizer, processor and config files, and the card.
        needs: memory and disk, as estimated beforehand.
        seconds: total time.
    """

    folder: Path
    source: Mapping[str, Any]
    family: str
    towers: tuple[str, str]
    options: ExportOptions
    normalisation: Normalisation | None
    limits: Mapping[str, Any]
    reference: Mapping[str, str]
    golden: FileRecord
    gate: float | None
    exported: tuple[ExportedFile, ...]
    others: tuple[FileRecord, ...]
    needs: Needs
    seconds: float
    made_by: str

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dumps``: ``docs/export.schema.json`` describes it."""
        return {
            "format": JSON_FORMAT,
            "made_by": self.made_by,
            "source": dict(self.source),
            "family": self.family,
            "towers": {"vision": self.towers[0], "text": self.towers[1]},
            "precision": self.options.precision,
            "pixels": self.options.pixels,
            "batch": self.options.batch,
            "length": self.options.length,
            "normalisation": None if self.normalisation is None else self.normalisation.to_json(),
            "limits": dict(self.limits),
            "reference": dict(self.reference),
            "golden": self.golden.to_json(),
            "gate": self.gate,
            "exports": [one.to_json() for one in self.exported],
            "files": [record.to_json() for record in self.others],
            "needs": {"memory": self.needs.memory, "disk": self.needs.disk},
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class ExportVerification:
    """The result of verifying an export again.

    Attributes:
        folder: the export.
        findings: about its files, and about the outputs of each format.
        checks: figures by format, of those that ran.
    """

    folder: Path
    findings: tuple[Finding, ...]
    checks: Mapping[str, FileCheck]

    @property
    def status(self) -> Status:
        """``"failed"`` if something differs; ``"not checked"`` if nothing does, but not everything could run."""
        return status_of(self.findings)

    @property
    def passed(self) -> bool:
        """Every file is unchanged, ran, and gave the reference's outputs."""
        return self.status == "passed"

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dumps``: ``docs/export-verification.schema.json`` describes it."""
        return {
            "format": JSON_FORMAT,
            "folder": str(self.folder),
            "passed": self.passed,
            "status": self.status,
            "findings": [finding.to_json() for finding in self.findings],
            "checks": {
                name: {
                    "figures": [figure.to_json() for figure in check.figures],
                    "batches": dict(check.given),
                    "not_given": {one: dict(why) for one, why in check.not_given.items()},
                    "quality": [quality.to_json() for quality in check.quality],
                }
                for name, check in self.checks.items()
            },
        }
