"""Requests to a worker, and how its answer is read: a run of one model, or texts and pictures turned into inputs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from converter.errors import ParityError, WorkerError
from converter.parity.batches import Batch, same_inputs
from converter.parity.runners.golden import Recording, config_of, read_recording, write_recording
from converter.parity.runners.isolation import Worker
from converter.parity.samples import Samples


def ask_run(
    worker: Worker, source: Path, batches: Sequence[Batch], options: dict[str, Any], seconds: float
) -> Recording:
    """Has a worker that is already running, reference or candidate, run one model; see ``run_reference``."""
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        request = write_request(Path(folder), source, batches, options)
        return read_answer(request, worker.ask(request, seconds), batches)


def read_answer(request: Mapping[str, Any], answer: Mapping[str, Any], batches: Sequence[Batch]) -> Recording:
    """Reads what a run recorded; its metadata gain the seconds and the peak memory (bytes) that the worker reports.

    Raises:
        ParityError: the run did not use exactly the requested inputs.
    """
    recording = read_recording(Path(request["out"]))
    ran, asked = ([(batch.title, batch.inputs) for batch in some] for some in (recording.batches, batches))
    same = len(ran) == len(asked) and all(
        title == wanted and same_inputs(inputs, given)
        for (title, inputs), (wanted, given) in zip(ran, asked, strict=True)
    )
    if not same:
        raise ParityError(f"{request['source']}: did not run the {len(asked)} batches it was given; run it again")
    told = {name: str(answer[name]) for name in ("seconds", "peak_memory") if answer.get(name) is not None}
    return replace(recording, metadata={**recording.metadata, **told})


def write_request(folder: Path, source: Path, batches: Sequence[Batch], options: dict[str, Any]) -> dict[str, Any]:
    """Writes the inputs of a run and returns the request for it; the recording will be at its ``out``.

    Raises:
        ParityError: there is no batch, or no config.json in ``source`` or beside it.
    """
    if not batches:
        raise ParityError("there is no batch to run; give at least one")
    source = source.absolute()
    if not config_of(source).is_file():
        raise ParityError(f"{source}: holds no config.json; name a folder that save_pretrained wrote")
    inputs, out = folder / "inputs.safetensors", folder / "taps.safetensors"
    write_recording(Recording({}, tuple(batches)), inputs)
    return {"source": str(source), "inputs": str(inputs), "out": str(out), "options": options}


def ask_samples(worker: Worker, folder: Path, samples: Samples, seconds: float, longest: int | None = None) -> Batch:
    """Has a reference worker put texts and pictures through a folder's tokenizer and image processor.

    Args:
        worker: of ``start_reference``.
        folder: a checkpoint with its tokenizer and processor files.
        samples: what to put through them.
        seconds: time limit.
        longest: how many tokens a text may have; None: as many as model and tokenizer allow.

    Raises:
        ParityError: there is no processor that can be loaded, or what it makes is not for the folder's model.
    """
    with tempfile.TemporaryDirectory(prefix="parity-") as temporary:
        out = Path(temporary, "samples.safetensors")
        request = {
            "processor": str(folder.absolute()),
            "title": samples.title,
            "texts": list(samples.texts),
            "pictures": [str(path) for path in samples.pictures],
            "longest": longest,
            "out": str(out),
        }
        worker.ask(request, seconds)
        return read_recording(out, taps=False).batches[0]


def run_together(
    sides: Mapping[str, tuple[Worker, Path, dict[str, Any]]], batches: Sequence[Batch], seconds: float
) -> tuple[Recording, Recording]:
    """Asks two workers for a run on the same inputs, at the same time.

    Args:
        sides: ``"reference"`` and ``"candidate"``: a worker, the checkpoint it loads, and its options.
        batches: what both run on.
        seconds: how long each may take.

    Returns:
        The reference's recording and the candidate's.

    Raises:
        WorkerError: one or both could not run here, and nothing is wrong with what they were to run.
        ParityError: one or both refused what they were to run; says how.
    """
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        requests, recordings = {}, {}
        errors: list[ParityError] = []
        for side, (worker, source, options) in sides.items():
            Path(folder, side).mkdir()
            requests[side] = write_request(Path(folder, side), source, batches, options)
            worker.send(requests[side])
        for side, (worker, _, _) in sides.items():
            try:  # what the first one answered is read while the other is still at work
                recordings[side] = read_answer(requests[side], worker.receive(seconds), batches)
            except ParityError as error:
                errors.append(error)
        if errors:
            kind = WorkerError if all(isinstance(error, WorkerError) for error in errors) else ParityError
            raise kind("\n".join(map(str, errors)))
        return recordings["reference"], recordings["candidate"]
