"""``verify``: files, weights and outputs of a checkpoint. Decides what is checked, and what "passed" means."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from converter.arguments import checked
from converter.checkpoints.detect import held, model_folder, read_header
from converter.conversion.streams import check_whole, open_tensors
from converter.errors import ParityError, SourceError, TargetError, WrongFramework, listed, printable, quoted, reading
from converter.folder import manifest
from converter.folder.addresses import Address, place_of
from converter.folder.files import expanded
from converter.folder.manifest import Manifest, read_manifest
from converter.folder.proof import write_proof
from converter.folder.replacing import settle
from converter.hub.ids import hub_id
from converter.hub.obtaining import obtain, obtained
from converter.names.frameworks import CANONICAL
from converter.parity.comparison import ParityReport
from converter.parity.files_and_weights import verify_files, verify_weights
from converter.parity.finding import Finding, Status, status_of
from converter.parity.in_buckets import fetch_sides, record_into
from converter.parity.occasion import Occasion, occasion_of
from converter.parity.options import VerifyOptions
from converter.parity.outputs import NO_REFERENCE, NO_SOURCE_SAID, Outputs, all_batches
from converter.parity.runners.asking import ask_run
from converter.parity.runners.golden import Recording, check_recording_path, config_of, write_recording
from converter.parity.runners.kept import Models
from converter.parity.runners.reference import start_reference
from converter.parity.sources import config_of_source, find_source, places
from converter.parity.sums import canonical_hashes, sum_of, sum_recorded_in
from converter.parity.trial import Trial
from converter.specs import JSON_FORMAT

_NARROW = ("float16", "bfloat16")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verification:
    """The result of verifying a checkpoint.

    Attributes:
        folder: the checkpoint.
        findings: of files and weights and, unless ``weights_only``, of outputs and samples.
        report: figures of the outputs; None if they could not be compared.
        places: the checkpoint, its source and the reference on this machine; no report contains these paths.
        trial: the texts and pictures that were tried; None where there were none.
        occasion: when this was, and of which model.
    """

    folder: Path
    findings: tuple[Finding, ...]
    report: ParityReport | None
    places: tuple[Path, ...] = field(default=(), compare=False, repr=False)
    trial: Trial | None = field(default=None, compare=False, repr=False)
    occasion: Occasion | None = field(default=None, compare=False, repr=False)

    @property
    def status(self) -> Status:
        """``"failed"`` if something differs; ``"not checked"`` if nothing does, but not everything could be compared.

        A manifest, and a processor, may be absent.
        """
        return status_of(self.findings)

    @property
    def passed(self) -> bool:
        """Nothing failed, and everything was checked except what may be absent: a manifest and a processor."""
        return self.status == "passed"

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dumps``: ``docs/report.schema.json`` describes it."""
        return {
            "format": JSON_FORMAT,
            "folder": str(self.folder),
            "out": str(self.folder),
            "passed": self.passed,
            "status": self.status,
            "findings": [finding.to_json() for finding in self.findings],
            "report": None if self.report is None else self.report.to_json(),
        }


@checked()
def verify(
    folder: str | os.PathLike[str] = ".",
    *,
    reference: str | os.PathLike[str] | None = None,
    weights_only: bool = False,
    options: VerifyOptions | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    record: bool = False,
) -> Verification:
    """Verifies a converted checkpoint. All parts run, even if an earlier one fails.

    Args:
        folder: what a conversion made. One in a bucket is downloaded into a temporary folder.
        reference: the source (a folder, the id of a model on the Hub, or the address of a bucket), or a golden reference
            file. None takes the source that the manifest names, from the cache if it is on the Hub, never from a bucket.
        weights_only: skip the outputs; no framework is started.
        options: how outputs are compared.
        progress: called after each part with its name, the number of parts done, and their total.
        record: keep the result as ``parity.json`` in the folder, which ``push`` needs. Nothing is kept if there is no
            manifest, if the outputs were left out or not checked, or if the folder cannot be written to (which is
            logged).

    Returns:
        What was found; ``passed`` says whether the checkpoint matches the source.

    Raises:
        ConverterError: there is no checkpoint to verify, or an option makes no sense.
    """
    return verify_with(
        None,
        folder,
        reference=reference,
        weights_only=weights_only,
        options=options,
        progress=progress,
        record=record,
    )


def verify_with(
    models: Models | None,
    folder: str | os.PathLike[str],
    *,
    reference: str | os.PathLike[str] | None = None,
    weights_only: bool = False,
    options: VerifyOptions | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    record: bool = False,
) -> Verification:
    """As ``verify``, with workers that are kept for further checkpoints where ``models`` are given."""
    place, options, reference = expanded(folder), options or VerifyOptions(), expanded(reference)
    if isinstance(place, Address) or isinstance(reference, Address):
        told: dict[str, Any] = {
            "weights_only": weights_only,
            "options": options,
            "progress": progress,
            "record": record,
        }
        return fetch_sides(
            lambda copy, source: verify_with(models, copy, reference=source, **told), place, reference, record
        )
    folder = Path(place)
    with reading(folder):
        recorded = _recorded(folder)
        given = _given(reference, recorded)
        golden = given if given is not None and _is_golden(given) else None
        source, reason = _source(folder, recorded, None if golden else given)
    outputs = Outputs(folder, source, golden, options, reason, recorded, models)
    findings: list[Finding] = []
    report: ParityReport | None = None
    began = time.perf_counter()

    def add(*new: Finding) -> None:
        nonlocal began
        now = time.perf_counter()
        spent, began = now - began - sum(finding.seconds for finding in new[1:]), now
        for finding in (replace(new[0], seconds=spent), *new[1:]):
            findings.append(finding)
            _log.info("%s: %s: %s", folder, finding.part, finding.status)
            if progress is not None:
                progress(finding.part, len(findings), 2 if weights_only else 4)

    with reading(folder), contextlib.nullcontext() if weights_only else outputs:
        add(verify_files(folder, recorded))
        add(verify_weights(folder, recorded, source, None if golden is None else sum_recorded_in(golden)))
        if not weights_only:
            new, report = outputs.compare()
            add(*(_with_reason(finding, recorded) for finding in new))
    named = (folder, given, source, None if source is None or source.is_dir() else source.parent)
    there = tuple(path for path in named if path is not None)
    found = Verification(folder, tuple(findings), report, there, outputs.trial, occasion_of(folder, recorded))
    if record and recorded is not None and not weights_only and found.status != "not checked":
        try:
            write_proof(folder, found.to_json())
        except TargetError as error:  # a folder that may only be read can be verified all the same
            _log.warning("not recorded: %s", printable(str(error)))
    return found


def _recorded(folder: Path) -> Manifest | None:
    """The manifest of a folder; None of a checkpoint that has none."""
    if not folder.is_dir():
        raise SourceError(f"{folder}: not a folder; name the folder that a conversion made")
    settle(folder)
    recorded = read_manifest(folder)
    if recorded is None and not held(folder):
        raise SourceError(f"{folder}: holds no {manifest.NAME} and no weights; name the folder that a conversion made")
    return recorded


def _with_reason(finding: Finding, recorded: Manifest | None) -> Finding:
    """A finding for outputs that differ because ``--dtype`` rounded the weights."""
    if finding.part != "outputs" or finding.status != "failed" or recorded is None or recorded.dtype not in _NARROW:
        return finding
    reason = (
        f"the conversion rounded the weights to {recorded.dtype} (--dtype), which changes the outputs; raise "
        "--atol (docs/tolerances.md has figures)"
    )
    return replace(finding, problems=(*finding.problems, reason))


def _source(folder: Path, recorded: Manifest | None, given: Path | None) -> tuple[Path | None, str]:
    """The source to compare with, or why there is none.

    Raises:
        SourceError: one was named that proves nothing, or is not whole.
    """
    source = find_source(folder, recorded, [given])
    if source is None:
        return None, _no_reference(folder, recorded)
    problem = ""
    if config_of(source).parent.resolve() == folder.resolve():
        problem = f"{source} is the checkpoint to verify, and always matches itself; name its source with --reference"
    elif not config_of_source(source).is_file():
        problem = f"{source} has no config.json beside it; put the one there that the conversion used"
    if problem and given is not None:
        raise SourceError(problem)
    return (None, problem) if problem else (source, "")


def _no_reference(folder: Path, recorded: Manifest | None) -> str:
    if recorded is None:
        return NO_SOURCE_SAID
    with contextlib.suppress(SourceError):  # a manifest may come from anywhere, and downloads nothing
        if isinstance(address := place_of(recorded.source), Address):
            return f"the source lies in a bucket; compare with it by --reference {quoted(address)}"
    if recorded.hub is None:
        looked_for = [str(path) for path in places(folder, recorded)]
        return f"{NO_REFERENCE}. Looked for: {listed(looked_for, 3)}" if looked_for else NO_REFERENCE
    return (
        f"the source is not in the cache; download it with --reference {printable(f'{recorded.hub}@{recorded.commit}')}"
    )


def _given(reference: str | os.PathLike[str] | None, recorded: Manifest | None) -> Path | None:
    """The named reference, downloaded if it is a model on the Hub: of the framework that OUT is not of."""
    if reference is None:
        return None
    if hub_id(reference) is None:
        if not Path(reference).exists():
            raise SourceError(f"{reference}: not found; name the source's folder or a golden reference file")
        return model_folder(Path(reference))
    return obtain(reference, None if recorded is None else recorded.source_framework).path


@checked()
def record_reference(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: VerifyOptions | None = None,
    *,
    revision: str | None = None,
) -> Recording:
    """Runs PyTorch once and keeps inputs and outputs in one safetensors file, for later verification.

    Args:
        source: a folder with a PyTorch checkpoint, a weights file in one, or the id of a model on the Hub
            (``id@revision`` too).
        out: the file to write, here or in a bucket; must not exist.
        options: all but ``atol``, ``rtol`` and ``backend`` count.
        revision: branch, tag or commit of an id.

    Returns:
        What was written.

    Raises:
        ParityError: the model could not be run, or ``out`` exists or cannot be written.
    """
    options, place, source = options or VerifyOptions(), expanded(out), expanded(source)
    if isinstance(place, Address):
        return record_into(place, lambda path: record_reference(source, path, options, revision=revision))
    path = Path(place)
    check_recording_path(path)
    with obtained(source, CANONICAL, revision) as held_source:
        return _record(held_source.path, path, options)


def _record(checkpoint: Path, path: Path, options: VerifyOptions) -> Recording:
    if check_whole(checkpoint, in_torch=True) != CANONICAL:
        raise WrongFramework(
            f"{checkpoint}: holds no PyTorch weights, which are what a reference is run of; name its source"
        )
    folder = config_of(checkpoint).parent
    samples = options.samples
    with start_reference(options.reference_python) as worker:
        batches, reason = all_batches(worker, checkpoint, folder, options, samples)
        if reason and samples.given:
            raise ParityError(reason)
        recording = ask_run(worker, checkpoint, batches, asdict(options.reference), options.seconds)
    with open_tensors(checkpoint, CANONICAL) as tensors:
        metadata = {**recording.metadata, "weights": json.dumps(asdict(sum_of(canonical_hashes(tensors))))}
    if reason:
        metadata["samples"] = f"none: {reason}"
    recording = replace(recording, metadata=metadata)
    write_recording(recording, path, replace=False)
    return recording


def _is_golden(path: Path) -> bool:
    """Whether a path is a golden reference file rather than a checkpoint."""
    if not path.is_file() or path.suffix != ".safetensors":
        return False
    with contextlib.closing(read_header(path)) as found:
        return any(name.startswith("batch.") for name in found.tensors)
