"""The process that writes exports: loads a model once, then writes it in one format after the other.

``python -m converter.exporting.writing`` is that process. Requests, as ``serving`` reads them: ``{"load": path}`` first, then
``{"write": format, "folder", "precision", "options", "normalisation"}``, answered with a ``Written`` and the signatures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from converter.exporting.normalisation import Normalisation
from converter.exporting.options import ExportOptions
from converter.exporting.runners.answering import Answer
from converter.exporting.targets import TARGETS
from converter.parity.runners.serving import hide, remember_models, serve

NEEDS = "pip install 'dual-encoder-converter[tf]'"


def _answering() -> Answer:
    from converter.exporting.signatures import Signature, Written, signatures_of
    from converter.models.loading import load_two_towers

    models: list[Any] = []

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if "load" in request:
            models[:] = [load_two_towers(None, request["load"])]
            (model,) = models
            return {"family": model.config.model_type}
        (model,) = models
        numbers = request["normalisation"]
        options = ExportOptions(**request["options"])
        signatures = signatures_of(model, options, None if numbers is None else Normalisation.from_json(numbers))
        written = TARGETS[request["write"]].write(model, signatures, Path(request["folder"]), request["precision"])
        return {"written": _plain(written), "signatures": _described(signatures)}

    def _plain(written: Written) -> dict[str, Any]:
        return {**asdict(written), "files": [file.as_posix() for file in written.files]}

    def _described(signatures: Sequence[Signature]) -> dict[str, Any]:
        return {
            signature.name: {
                "inputs": [asdict(given) for given in signature.inputs],
                "outputs": [asdict(output) for output in signature.outputs],
            }
            for signature in signatures
        }

    return answer


def _load() -> Answer:
    hide("torch", "flax", "jax")
    remember_models()
    return _answering()


if __name__ == "__main__":
    serve(_load, NEEDS)
