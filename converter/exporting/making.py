"""Makes an export in a new folder: writes each format, runs it, and raises if one differs from the model."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from converter.errors import ExportError, MissingPackage, ParityError
from converter.exporting.card import card
from converter.exporting.checking.figures import SIDES
from converter.exporting.checking.files import Checking, FileCheck, check_file, timed
from converter.exporting.checking.inputs import Named
from converter.exporting.checking.wrong_inputs import wrong_inputs
from converter.exporting.manifest import GOLDEN, NAME, SHA256
from converter.exporting.normalisation import Normalisation
from converter.exporting.options import ExportOptions, Precision
from converter.exporting.results import Export, ExportedFile, Needs
from converter.exporting.running import ENVIRONMENT, Runtime
from converter.exporting.targets import Target
from converter.folder.files import write_json
from converter.folder.manifest import VERSION
from converter.folder.records import FileRecord, hash_file
from converter.folder.sidecars import copy_sidecars, rewrite_config
from converter.names.configs import check_config
from converter.parity.runners.golden import Recording, write_recording
from converter.parity.runners.isolation import Worker

_BESIDE = ".float32"
README = "README.md"
_SHOWN = 3  # of the problems of a file


@dataclass(frozen=True, slots=True)
class Making:
    """The export to make, and what it is compared with.

    Attributes:
        source: the checkpoint.
        config: its config.json.
        options: of the export.
        normalisation: what goes into the graphs.
        targets: the formats.
        recording: embeddings and logits of the reference.
        gate: least cosine; None of float32.
        limits: of inputs.
        seconds: time limit of each step.
        step: called before each step.
    """

    source: Path
    config: Mapping[str, Any]
    options: ExportOptions
    normalisation: Normalisation | None
    targets: tuple[Target, ...]
    recording: Recording
    gate: float | None
    limits: Mapping[str, Any]
    seconds: float
    step: Callable[[str], None]


def make(making: Making, fresh: Path, out: Path, source: Mapping[str, Any], needs: Needs, began: float) -> Export:
    """Fills a new folder, which becomes ``out``.

    Raises:
        ExportError: a format cannot be written or run, or is not the model.
    """
    fresh = fresh.absolute()  # the worker runs in another folder
    with Worker("export", "converter.exporting.writing", ENVIRONMENT) as worker:
        _ask(worker, {"load": str(making.source.absolute())}, making.seconds)
        written = [_write(worker, making, target, fresh) for target in making.targets]
    exported = tuple(_checked(making, target, fresh, *one) for target, one in zip(making.targets, written, strict=True))
    shutil.rmtree(fresh / _BESIDE, ignore_errors=True)
    write_recording(making.recording, fresh / GOLDEN)
    config, _ = rewrite_config(making.config, {}, None)
    write_json(fresh / "config.json", config)
    home = making.source if making.source.is_dir() else making.source.parent
    copied, _ = copy_sidecars((home,), fresh, for_version_4=False)
    known = check_config(making.config)
    found = Export(
        folder=out,
        source=source,
        family=known.family.model_type,
        towers=(known.vision.model_type, known.text.model_type),
        options=making.options,
        normalisation=making.normalisation,
        limits=making.limits,
        reference=making.recording.metadata,
        golden=hash_file(fresh / GOLDEN, SHA256),
        gate=making.gate,
        exported=exported,
        others=(),
        needs=needs,
        seconds=0.0,
        made_by=f"dual-encoder-converter {VERSION}",
    )
    (fresh / README).write_text(card(found), "utf-8")
    others = tuple(hash_file(fresh / name, SHA256) for name in ("config.json", *copied, README))
    found = replace(found, others=others, seconds=time.perf_counter() - began)
    write_json(fresh / NAME, found.to_json())
    return found


def _write(worker: Worker, making: Making, target: Target, fresh: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Writes one format, and if it is not float32 also a float32 file, to compare the times."""
    making.step(f"writing {target.label}")
    numbers = None if making.normalisation is None else making.normalisation.to_json()
    request = {
        "write": target.name,
        "folder": str(fresh),
        "precision": making.options.precision,
        "options": asdict(making.options),
        "normalisation": numbers,
    }
    answer = _ask(worker, request, making.seconds)
    for said in answer["signatures"].values():
        for given in said["inputs"]:
            given["dtype"] = answer["written"]["dtypes"].get(given["name"], given["dtype"])
    if making.options.precision == "float32":
        return answer, None
    beside = fresh / _BESIDE
    beside.mkdir(exist_ok=True)
    return answer, _ask(worker, {**request, "folder": str(beside), "precision": "float32"}, making.seconds)


def _ask(worker: Worker, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    try:
        return worker.ask(request, seconds)
    except MissingPackage:
        raise
    except ParityError as error:
        raise ExportError(str(error)) from None


def _checked(
    making: Making, target: Target, fresh: Path, answer: Mapping[str, Any], beside: Mapping[str, Any] | None
) -> ExportedFile:
    """Runs one format on everything, and refuses it if it differs from the model."""
    making.step(f"verifying {target.label}")
    precision = making.options.precision
    checking = Checking(
        named(answer["signatures"]),
        making.recording.batches,
        making.config,
        making.normalisation,
        precision,
        making.gate if making.gate is not None else 1.0,
    )
    with Runtime(target, fresh, precision, making.seconds, threads=1) as runtime:
        check = check_file(runtime, checking, target.shown(precision))
        compared, differing = target.check_weights(fresh, precision, making.source)
        check = replace(check, weights=compared, problems=(*check.problems, *differing))
        if check.problems:
            raise ExportError(_refusal(check))
        wrong = wrong_inputs(runtime, checking, making.limits)
    making.step(f"timing {target.label}")
    check = replace(check, milliseconds=_times(making, target, fresh, precision, checking))
    return ExportedFile(
        target.name,
        tuple(_record(fresh, name) for name in answer["written"]["files"]),
        answer["written"],
        answer["signatures"],
        check,
        wrong,
        None if beside is None else _beside(making, target, fresh / _BESIDE, checking, beside),
        float(answer["seconds"]),
        answer.get("peak_memory"),
    )


def _beside(
    making: Making, target: Target, folder: Path, checking: Checking, answer: Mapping[str, Any]
) -> dict[str, Any]:
    size = sum((folder / name).stat().st_size for name in answer["written"]["files"])
    return {"size": size, "milliseconds": _times(making, target, folder, "float32", checking)}


def _times(making: Making, target: Target, folder: Path, precision: Precision, checking: Checking) -> dict[str, float]:
    with Runtime(target, folder, precision, making.seconds, threads=1, exact=False) as runtime:
        return {name: round(value, 4) for side in SIDES for name, value in timed(runtime, checking, side).items()}


def _refusal(check: FileCheck) -> str:
    """The first problems, and how many more there are; nothing that was written is kept."""
    more = len(check.problems) - _SHOWN
    shown = (*check.problems[:_SHOWN], *([f"{more} more like these"] if more > 0 else []))
    return f"{'; '.join(shown)}. Nothing was written: the files are not the model"


def _record(fresh: Path, name: str) -> FileRecord:
    return replace(hash_file(fresh / name, SHA256), name=name)


def named(signatures: Mapping[str, Any]) -> tuple[Named, ...]:
    """Signatures as the writer describes them."""
    return tuple(
        Named(
            name,
            {one["name"]: (tuple(one["shape"]), one["dtype"]) for one in said["inputs"]},
            tuple(one["name"] for one in said["outputs"]),
        )
        for name, said in signatures.items()
    )
