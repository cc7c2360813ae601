"""The export targets: a row for each format. Decides its file names and which modules write and run them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from converter.exporting.options import Precision


@dataclass(frozen=True, slots=True)
class Target:
    """A format.

    Attributes:
        name: as ``--to`` takes it.
        label: for people.
        writer: ``"module:function"``, imported in the process that writes. It is called with the model, its signatures, the
            path of ``place`` (of several, the export's folder) and the precision. It returns a ``Written`` with paths
            relative to the export's folder.
        runner: module of the process that runs the files.
        place: what the runner opens, by precision: a file or folder of the export, or several by signature.
        precisions: that it can have.
        memory: peak of writing, in multiples of the float32 weights; measured with ViT-B/32 and BERT-base.
        scratch: disk that writing takes besides the files, in the same multiples.
        weights: ``"module:function"`` that compares the files' weights with the checkpoint's, bit for bit, if the
            format keeps them by name. It is called with the folder of the files and the checkpoint. It returns an object
            with ``problems`` and how many were ``compared``.
    """

    name: str
    label: str
    writer: str
    runner: str
    place: Mapping[Precision, str | Mapping[str, str]]
    memory: float
    weights: str | None = None
    scratch: float = 0.0

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The possible precisions of its weights."""
        return tuple(self.place)

    def places(self, precision: Precision) -> tuple[str, ...]:
        """Every file and folder that the runner opens."""
        place = self.place[precision]
        return (place,) if isinstance(place, str) else tuple(place.values())

    def opened(self, folder: Path, precision: Precision) -> str | dict[str, str]:
        """The same for a request to the runner: full paths."""
        place = self.place[precision]
        return str(folder / place) if isinstance(place, str) else {key: str(folder / one) for key, one in place.items()}

    def shown(self, precision: Precision) -> str:
        """What messages call it."""
        return Path(self.places(precision)[-1]).name

    def write(self, model: Any, signatures: Sequence[Any], folder: Path, precision: Precision) -> Any:
        """Has the writer make the files in a folder; paths of ``Written.files`` are from there."""
        place = self.place[precision]
        return self.write_to(folder / place if isinstance(place, str) else folder, model, signatures, precision)

    def write_to(self, path: Path, model: Any, signatures: Sequence[Any], precision: Precision) -> Any:
        """The same for a custom path, as ``writer`` takes it."""
        return _imported(self.writer)(model, signatures, path, precision)

    def check_weights(self, folder: Path, precision: Precision, source: Path) -> tuple[int, tuple[str, ...]]:
        """How many weights of an export were compared with the checkpoint's bit for bit, and what differs."""
        if self.weights is None:
            return 0, ()
        found = _imported(self.weights)((folder / self.places(precision)[0]).parent, source)
        return found.compared, found.problems


def _imported(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


_GRAPHS = {"encode_image": "vision_model", "encode_text": "text_model", "similarity": "model"}
_ENDS: dict[Precision, str] = {"float32": "", "float16": "_fp16", "int8": "_int8"}
TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        target.name: target
        for target in (
            Target(
                name="savedmodel",
                label="SavedModel",
                writer="converter.exporting.savedmodel:write",
                runner="converter.exporting.runners.savedmodel",
                place={"float32": "saved_model"},
                memory=3.0,
            ),
            Target(
                name="litert",
                label="LiteRT",
                writer="converter.exporting.litert:write_litert",
                runner="converter.exporting.runners.litert",
                scratch=1.0,  # a SavedModel, which its converter reads
                place={"float32": "model.tflite", "float16": "model_fp16.tflite", "int8": "model_int8.tflite"},
                memory=9.0,
            ),
            Target(
                name="onnx",
                label="ONNX",
                writer="converter.exporting.onnx_graph:write_onnx",
                runner="converter.exporting.runners.onnx",
                place={
                    precision: {name: f"onnx/{file}{end}.onnx" for name, file in _GRAPHS.items()}
                    for precision, end in _ENDS.items()
                },
                memory=4.0,
                weights="converter.exporting.onnx_check:check_weights",
            ),
        )
    }
)
