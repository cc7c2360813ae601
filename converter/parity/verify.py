"""``verify``: files, weights and outputs of a checkpoint. Decides which side runs what, and what "passed" means."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from converter.checkpoints.detect import open_source
from converter.configs import read_json
from converter.errors import ConverterError, ParityError, SourceError, TargetError, printable
from converter.hub.download import obtain
from converter.hub.ids import hub_id
from converter.parity.batches import Batch
from converter.parity.candidate import CandidateOptions, start_candidate
from converter.parity.compare import compare_runs
from converter.parity.comparison import ParityReport, Tolerance
from converter.parity.golden import Recording, read_recording, write_recording
from converter.parity.inputs import make_batches
from converter.parity.isolation import Worker
from converter.parity.reference import ReferenceOptions, ask_run, run_reference, start_reference, write_request
from converter.proof import write_proof
from converter.specs import Framework
from converter.verification import Finding, Manifest, find_source, read_manifest, verify_files, verify_weights

_LOG = logging.getLogger("converter.parity")


@dataclass(frozen=True)
class Verification:
    """What verifying a checkpoint found.

    Attributes:
        folder: the checkpoint.
        findings: of files, weights and, unless only weights were asked for, outputs.
        report: figures of the outputs; None where they could not be compared.
    """

    folder: Path
    findings: tuple[Finding, ...]
    report: ParityReport | None

    @property
    def passed(self) -> bool:
        """Nothing failed, and everything was checked but files that no manifest describes."""
        return all(
            finding.status == "passed" or (finding.part == "files" and finding.status == "not checked")
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


@dataclass(frozen=True)
class VerifyOptions:
    """How outputs are compared.

    Attributes:
        atol: absolute tolerance of every tap.
        rtol: relative tolerance of every tap.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:<number>"``, for PyTorch, and for Keras where its backend
            sees a GPU.
        backend: Keras backend of the candidate, ``"tensorflow"`` or ``"jax"``.
        float64: compute in float64 on both sides, which separates a wrong layout from rounding.
        seed: of the inputs.
        seconds: how long each side may take.
        reference_python: interpreter of another environment for PyTorch.
    """

    atol: float = 1e-4
    rtol: float = 0.0
    device: str = "auto"
    backend: str = "tensorflow"
    float64: bool = False
    seed: int = 0
    seconds: float = 600.0
    reference_python: Path | None = None


def verify(
    folder: str | os.PathLike[str] = ".",
    *,
    reference: str | os.PathLike[str] | None = None,
    weights_only: bool = False,
    options: VerifyOptions | None = None,
    record: bool = False,
) -> Verification:
    """Verifies a converted checkpoint. All parts run, also when an earlier one fails.

    Args:
        folder: what a conversion made.
        reference: the source (a folder, or the id of a model on the Hub), or a golden reference file; None takes the
            source that the manifest names, from the cache if it is on the Hub.
        weights_only: leave the outputs out; no framework is started.
        options: how outputs are compared.
        record: keep what was found as ``parity.json`` in the folder, which ``push`` asks for; nothing is kept where
            there is no manifest, the outputs were left out, or the folder cannot be written to (which is logged).

    Returns:
        What was found; ``passed`` says whether the checkpoint is the source.

    Raises:
        ConverterError: there is no checkpoint to verify, or an option makes no sense.
    """
    folder, options = Path(folder), options or VerifyOptions()
    tolerance = Tolerance(options.atol, options.rtol)
    if not folder.is_dir():
        raise SourceError(f"{folder}: not a folder; name the folder that a conversion made")
    recorded = read_manifest(folder)
    given = _given(reference, recorded)
    golden = given if given is not None and _is_golden(given) else None
    source = find_source(folder, recorded, [None if golden else given])
    findings = [verify_files(folder, recorded), verify_weights(folder, recorded, source)]
    report: ParityReport | None = None
    if not weights_only:
        finding, report = _verify_outputs(folder, source, golden, options, tolerance, _no_reference(recorded))
        findings.append(finding)
    found = Verification(folder, tuple(findings), report)
    if record and recorded is not None and not weights_only:
        try:
            write_proof(folder, found.to_json())
        except TargetError as error:  # a folder that may only be read can be verified all the same
            _LOG.warning("not recorded: %s", error)
    return found


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
        options: ``device``, ``float64``, ``seed``, ``seconds`` and ``reference_python`` count.
        revision: branch, tag or commit of an id.

    Raises:
        ParityError: the model could not be run, or ``out`` exists.
    """
    options, path = options or VerifyOptions(), Path(out)
    if path.exists():
        raise ParityError(f"{path}: exists already; choose another name")
    folder = Path(source) if hub_id(source, revision) is None else obtain(source, "pt", revision).folder
    batches = make_batches(read_json(folder / "config.json"), options.seed)
    recording = run_reference(folder, batches, _reference_options(options), options.reference_python, options.seconds)
    write_recording(recording, path)
    return recording


def _verify_outputs(
    folder: Path,
    source: Path | None,
    golden: Path | None,
    options: VerifyOptions,
    tolerance: Tolerance,
    no_reference: str,
) -> tuple[Finding, ParityReport | None]:
    try:
        if golden is not None:
            theirs = read_recording(golden)
            ours = _run_candidate(folder, _inputs_of(theirs), options, str(theirs.metadata.get("dtype", "float32")))
            against = f"{golden}"
        else:
            sides = _sides(folder, source)
            if sides is None:
                return Finding("outputs", "not checked", problems=(no_reference,)), None
            in_torch, in_keras = sides
            batches = make_batches(read_json(in_torch / "config.json"), options.seed)
            theirs, ours = _run_both(in_torch, in_keras, batches, options)
            against = f"PyTorch on {in_torch}"
        report = compare_runs(ours, theirs, tolerance)
    except ConverterError as error:
        return Finding("outputs", "failed", problems=(str(error),)), None
    problems = () if report.passed else (report.verdict, *report.problems)
    return Finding("outputs", "passed" if report.passed else "failed", report.compared, against, problems), report


def _no_reference(recorded: Manifest | None) -> str:
    if recorded is not None and recorded.hub is not None:
        return (
            "the source is not in the cache, so that there is nothing to run beside it; download it with --reference "
            f"{printable(f'{recorded.hub}@{recorded.commit}')}"
        )
    return "the source is gone, so that there is nothing to run beside it; name it with --reference"


def _sides(folder: Path, source: Path | None) -> tuple[Path, Path] | None:
    """Which folder runs in PyTorch and which in Keras: the PyTorch checkpoint of the two, and the other one."""
    if source is None:
        return None
    source = source if source.is_dir() else source.parent
    return (folder, source) if _framework(folder) == "pt" else (source, folder)


def _framework(folder: Path) -> Framework:
    checkpoint, _ = open_source(folder, None)
    checkpoint.close()
    return checkpoint.framework


def _is_golden(path: Path) -> bool:
    """Whether a path is a golden reference file rather than a checkpoint."""
    if path.is_dir() or path.suffix != ".safetensors":
        return False
    from converter.checkpoints.safetensors import read_header

    return any(name.startswith("batch.") for name in read_header(path).tensors)


def _inputs_of(recording: Recording) -> tuple[Batch, ...]:
    return tuple(Batch(batch.title, batch.inputs) for batch in recording.batches)


def _reference_options(options: VerifyOptions) -> ReferenceOptions:
    return ReferenceOptions(options.device, "float64" if options.float64 else "float32", "sdpa", loss=True)


def _candidate_options(options: VerifyOptions, dtype: str) -> CandidateOptions:
    return CandidateOptions(options.backend, options.device, dtype, loss=True)


def _run_candidate(folder: Path, batches: Sequence[Batch], options: VerifyOptions, dtype: str) -> Recording:
    asked = _candidate_options(options, dtype)
    with start_candidate(asked) as worker:
        return ask_run(worker, folder, batches, asdict(asked), options.seconds)


def _run_both(
    in_torch: Path, in_keras: Path, batches: Sequence[Batch], options: VerifyOptions
) -> tuple[Recording, Recording]:
    """Runs both sides at the same time, each in a process of its own."""
    reference = _reference_options(options)
    candidate = _candidate_options(options, reference.dtype)
    with start_reference(options.reference_python) as torch_worker, start_candidate(candidate) as keras_worker:
        return run_together(
            {
                "reference": (torch_worker, in_torch, asdict(reference)),
                "candidate": (keras_worker, in_keras, asdict(candidate)),
            },
            batches,
            options.seconds,
        )


def run_together(
    sides: Mapping[str, tuple[Worker, Path, dict[str, Any]]], batches: Sequence[Batch], seconds: float
) -> tuple[Recording, Recording]:
    """Asks two workers for a run on the same inputs, at the same time.

    Args:
        sides: ``"reference"`` and ``"candidate"``: a worker, the folder it loads, and its options.
        batches: what both run on.
        seconds: how long each may take.

    Returns:
        The reference's recording and the candidate's.

    Raises:
        ParityError: one or both failed; says how.
    """
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        outs = {}
        for side, (worker, source, options) in sides.items():
            Path(folder, side).mkdir()
            request = write_request(Path(folder, side), source, batches, options)
            outs[side] = Path(request["out"])
            worker.send(request)
        errors = []
        for worker, _, _ in sides.values():
            try:
                worker.receive(seconds)
            except ParityError as error:
                errors.append(str(error))
        if errors:
            raise ParityError("\n".join(errors))
        return read_recording(outs["reference"]), read_recording(outs["candidate"])
