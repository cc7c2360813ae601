"""Verifies an export again, on any machine: its files by their sums, and what they give by the golden file beside them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from converter.arguments import checked
from converter.errors import (
    ConverterError,
    ParityError,
    SourceError,
    WorkerCrash,
    WorkerError,
    listed,
    printable,
    reading,
)
from converter.exporting.checking.files import Checking, FileCheck, check_file
from converter.exporting.checking.reference import TAPS
from converter.exporting.in_buckets import fetched_export
from converter.exporting.manifest import (
    GOLDEN,
    NAME,
    SHA256,
    Recorded,
    RecordedFile,
    RecordedFormat,
    is_export,
    read_export,
)
from converter.exporting.results import ExportVerification
from converter.exporting.running import Runtime
from converter.folder.addresses import Address
from converter.folder.files import expanded, inside, read_json
from converter.folder.records import hash_file
from converter.parity.finding import Finding
from converter.parity.runners.golden import read_recording

PART = "outputs of "


@checked()
def verify_export(
    folder: str | os.PathLike[str] = ".",
    *,
    seconds: float = 600.0,
    progress: Callable[[str, int, int], None] | None = None,
) -> ExportVerification:
    """Verifies an export with its ``export.json`` and golden file. It needs neither torch nor the source.

    Args:
        folder: the export. One in a bucket is fetched into a temporary folder.
        seconds: time limit of each run.
        progress: called after each part with its name, the number of parts done, and their total.

    Returns:
        What was found about the files, and about the outputs of each format, which runs in its own process. A file whose
        sum differs is not run. A runtime that is not installed leaves its part "not checked".

    Raises:
        SourceError: there is no export, or its ``export.json`` is not what this program writes.
    """
    place = expanded(folder)
    if isinstance(place, Address):
        with fetched_export(place) as copy:
            return replace(verify_export(copy, seconds=seconds, progress=progress), folder=place)
    folder = Path(place)
    with reading(folder):
        if not is_export(folder):
            raise SourceError(f"{folder}: holds no {NAME}; name a folder that `convert export` made")
        recorded = read_export(folder)
        findings, checks = [], {}
        wrong = {file.path: problem for file in recorded.files if (problem := _differs(file, folder)) is not None}
        findings.append(
            Finding("files", "failed" if wrong else "passed", len(recorded.files), NAME, tuple(wrong.values()))
        )
        parts = 1 + len(recorded.formats)
        if progress is not None:
            progress("files", 1, parts)
        for number, one in enumerate(recorded.formats, 2):
            began = time.perf_counter()
            finding, check = _run(
                folder, recorded, one, wrong.keys() & {GOLDEN, *(file.path for file in one.files)}, seconds
            )
            findings.append(replace(finding, seconds=time.perf_counter() - began))
            if check is not None:
                checks[one.target.name] = check
            if progress is not None:
                progress(finding.part, number, parts)
    return ExportVerification(folder, tuple(findings), checks)


def _differs(file: RecordedFile, folder: Path) -> str | None:
    """What is wrong with a file; None if it is unchanged."""
    try:
        path = inside(folder / file.path, folder)
        if not path.is_file():
            return f"{file.path}: not found; copy the whole folder"
        if path.stat().st_size != file.size or hash_file(path, SHA256).sha256 != file.sha256:
            return f"{file.path}: sha256 differs from {NAME}. The file changed after the export; export again."
    except ConverterError as error:
        return str(error)
    return None


def _run(
    folder: Path, recorded: Recorded, one: RecordedFormat, wrong: set[str], seconds: float
) -> tuple[Finding, FileCheck | None]:
    part = f"{PART}{one.target.name}"
    if wrong:
        return Finding(part, "not checked", problems=(f"not run, since {listed(sorted(wrong))} differ",)), None
    try:
        batches = read_recording(folder / GOLDEN).batches
        config = read_json(inside(folder / "config.json", folder))
        if any(name not in batch.taps for batch in batches for name in TAPS):
            raise SourceError(f"{folder / GOLDEN}: lacks embeddings or logits; export again")
        checking = Checking(one.signatures, batches, config, recorded.normalisation, recorded.precision, recorded.gate)
        with Runtime(one.target, folder, recorded.precision, seconds) as runtime:
            check = check_file(runtime, checking, one.target.shown(recorded.precision))
    except WorkerCrash as error:
        return Finding(part, "failed", problems=(str(error),)), None
    except WorkerError as error:
        return Finding(part, "not checked", problems=(str(error),)), None
    except (ConverterError, ParityError) as error:
        return Finding(part, "failed", problems=(printable(str(error), 4000),)), None
    status = "failed" if check.problems else "passed"
    return Finding(part, status, check.compared, GOLDEN, check.problems), check  # type: ignore[arg-type]
