"""``verify``: files, weights and outputs of a checkpoint. Decides what is checked, and what "passed" means."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from converter import manifest
from converter.checkpoints.detect import WEIGHTS
from converter.errors import ParityError, SourceError, TargetError, printable
from converter.hub.download import obtain
from converter.hub.ids import hub_id
from converter.parity.comparison import ParityReport
from converter.parity.golden import Recording, check_recording_path, write_recording
from converter.parity.outputs import NO_REFERENCE, Outputs, VerifyOptions, all_batches
from converter.parity.reference import ask_run, start_reference
from converter.proof import write_proof
from converter.specs import Framework
from converter.verification import (
    OPTIONAL_PARTS,
    Finding,
    Manifest,
    find_source,
    read_manifest,
    verify_files,
    verify_weights,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verification:
    """What verifying a checkpoint found.

    Attributes:
        folder: the checkpoint.
        findings: of files, weights and, unless only weights were asked for, outputs, and texts and pictures.
        report: figures of the outputs; None where they could not be compared.
    """

    folder: Path
    findings: tuple[Finding, ...]
    report: ParityReport | None

    @property
    def passed(self) -> bool:
        """Nothing failed, and everything was checked but what may be absent: a manifest, and a processor."""
        return all(
            finding.status == "passed" or (finding.part in OPTIONAL_PARTS and finding.status == "not checked")
            for finding in self.findings
        )

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dumps``."""
        return {
            "folder": str(self.folder),
            "passed": self.passed,
            "findings": [finding.to_json() for finding in self.findings],
            "report": None if self.report is None else self.report.to_json(),
        }


def verify(
    folder: str | os.PathLike[str] = ".",
    *,
    reference: str | os.PathLike[str] | None = None,
    weights_only: bool = False,
    options: VerifyOptions | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    record: bool = False,
) -> Verification:
    """Verifies a converted checkpoint. All parts run, also when an earlier one fails.

    Args:
        folder: what a conversion made.
        reference: the source (a folder, or the id of a model on the Hub), or a golden reference file; None takes the
            source that the manifest names, from the cache if it is on the Hub.
        weights_only: leave the outputs out; no framework is started.
        options: how outputs are compared.
        progress: called after each part with its name, how many parts are done, and how many there are.
        record: keep what was found as ``parity.json`` in the folder, which ``push`` asks for; nothing is kept where
            there is no manifest, the outputs were left out, or the folder cannot be written to (which is logged).

    Returns:
        What was found; ``passed`` says whether the checkpoint is the source.

    Raises:
        ConverterError: there is no checkpoint to verify, or an option makes no sense.
    """
    folder, options = Path(folder), options or VerifyOptions()
    if not folder.is_dir():
        raise SourceError(f"{folder}: not a folder; name the folder that a conversion made")
    recorded = read_manifest(folder)
    if recorded is None and not any((folder / name).is_file() for names in WEIGHTS.values() for name in names):
        raise SourceError(f"{folder}: holds no {manifest.NAME} and no weights; name the folder that a conversion made")
    given = _given(reference, recorded)
    golden = given if given is not None and _is_golden(given) else None
    source = find_source(folder, recorded, [None if golden else given])
    outputs = Outputs(folder, source, golden, options, _no_reference(recorded))
    findings: list[Finding] = []
    report: ParityReport | None = None

    def add(*new: Finding) -> None:
        for finding in new:
            findings.append(finding)
            _log.info("%s: %s: %s", folder, finding.part, finding.status)
            if progress is not None:
                progress(finding.part, len(findings), 2 if weights_only else 4)

    with contextlib.nullcontext() if weights_only else outputs:
        add(verify_files(folder, recorded))
        add(verify_weights(folder, recorded, source))
        if not weights_only:
            new, report = outputs.compare()
            add(*new)
    found = Verification(folder, tuple(findings), report)
    if record and recorded is not None and not weights_only:
        try:
            write_proof(folder, found.to_json())
        except TargetError as error:  # a folder that may only be read can be verified all the same
            _log.warning("not recorded: %s", printable(str(error)))
    return found


def _no_reference(recorded: Manifest | None) -> str:
    if recorded is None or recorded.hub is None:
        return NO_REFERENCE
    return (
        "the source is not in the cache, so that there is nothing to run beside it; download it with --reference "
        f"{printable(f'{recorded.hub}@{recorded.commit}')}"
    )


def _given(reference: str | os.PathLike[str] | None, recorded: Manifest | None) -> Path | None:
    """The reference that was named, downloaded where it is a model on the Hub: of the framework that OUT is not of."""
    if reference is None:
        return None
    if hub_id(reference) is None:
        if not Path(reference).exists():
            raise SourceError(f"{reference}: not found; name the source's folder or a golden reference file")
        return Path(reference)
    wanted: Framework | None = None if recorded is None else "tf" if recorded.direction == "tf2pt" else "pt"
    return obtain(reference, wanted).path


def record_reference(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: VerifyOptions | None = None,
    *,
    revision: str | None = None,
) -> Recording:
    """Runs PyTorch once and keeps inputs and outputs in one safetensors file, to verify with later.

    Args:
        source: a folder with a PyTorch checkpoint, or the id of a model on the Hub (``id@revision`` too).
        out: the file to write; must not exist.
        options: all but ``atol``, ``rtol`` and ``backend`` count.
        revision: branch, tag or commit of an id.

    Returns:
        What was written.

    Raises:
        ParityError: the model could not be run, or ``out`` exists or cannot be written.
    """
    options, path = options or VerifyOptions(), Path(out)
    check_recording_path(path)
    folder = Path(source) if hub_id(source, revision) is None else obtain(source, "pt", revision).folder
    samples = options.samples
    with start_reference(options.reference_python) as worker:
        batches, reason = all_batches(worker, folder, folder, options, samples)
        if reason and samples.given:
            raise ParityError(reason)
        recording = ask_run(worker, folder, batches, asdict(options.reference), options.seconds)
    if reason:
        recording = replace(recording, metadata={**recording.metadata, "samples": f"none: {reason}"})
    write_recording(recording, path, replace=False)
    return recording


def _is_golden(path: Path) -> bool:
    """Whether a path is a golden reference file rather than a checkpoint."""
    if not path.is_file() or path.suffix != ".safetensors":
        return False
    from converter.checkpoints.safetensors import read_header

    return any(name.startswith("batch.") for name in read_header(path).tensors)
