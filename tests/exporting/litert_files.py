"""What tests do with .tflite files: one of a tiny model, what a process with LiteRT makes of it, and what lies in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from safetensors.numpy import load_file, save_file

from converter.exporting.litert import write_litert
from converter.exporting.normalisation import Normalisation
from converter.exporting.signatures import ExportOptions, Written, signatures_of
from converter.parity.runners.isolation import Worker
from tests.models import reference
from tests.models.conftest import Case

Array = np.ndarray[Any, Any]
SECONDS = 120
FREE = ExportOptions()


def write(
    case: Case,
    file: Path,
    options: ExportOptions = FREE,
    normalisation: Normalisation | None = None,
    only: str | None = None,
) -> Written:
    """Writes a file of all signatures, or to save time of one."""
    case.keras.build()
    signatures = signatures_of(case.keras, options, normalisation)
    chosen = [signature for signature in signatures if only in (None, signature.name)]
    return write_litert(case.keras, chosen, file, options.precision)


def opened(worker: Worker, file: Path) -> dict[str, Any]:
    return worker.ask({"open": str(file), "threads": 1}, SECONDS)


def run(worker: Worker, signature: str, inputs: Mapping[str, Array], folder: Path) -> dict[str, Array]:
    """What a signature of the file that is open answers."""
    given, found = folder / "inputs.safetensors", folder / "outputs.safetensors"
    save_file({name: np.ascontiguousarray(array) for name, array in inputs.items()}, given)
    worker.ask({"run": signature, "inputs": str(given), "outputs": str(found)}, SECONDS)
    arrays: dict[str, Array] = load_file(found)
    return arrays


def served(case: Case, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Those of some inputs that a server is given."""
    names = (*case.keras.serving_fields, *case.keras.vision_model.served)
    return {name: inputs[name] for name in names}


def wanted(case: Case, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """What PyTorch answers to them."""
    import torch

    with torch.no_grad():
        output = case.torch(**reference.torch_inputs(dict(inputs)))
    names = ("image_embeds", "text_embeds", "logits_per_image", "logits_per_text")
    return {name: reference.as_numpy(output[name]) for name in names}


def difference(found: Array, want: Array) -> float:
    assert found.shape == want.shape
    assert found.size
    assert np.isfinite(found).all()
    return float(np.abs(found.astype(np.float64) - want).max())


def constants(data: Any) -> Iterator[tuple[Any, Array]]:
    """The tensors of a file that hold floats, with their values; those of a ``bytearray`` can be changed in place."""
    model = schema.Model.GetRootAs(data, 0)
    kinds = {schema.TensorType.FLOAT32: np.float32, schema.TensorType.FLOAT16: np.float16}
    for index in range(model.SubgraphsLength()):
        graph = model.Subgraphs(index)
        for number in range(graph.TensorsLength()):
            tensor = graph.Tensors(number)
            buffer = model.Buffers(tensor.Buffer())
            if tensor.Type() in kinds and buffer.DataLength():
                yield tensor, buffer.DataAsNumpy().view(kinds[tensor.Type()])


def channels_of(data: bytes) -> list[tuple[int, int]]:
    """Of every weight that is int8: how many rows it has, and how many scales."""
    model = schema.Model.GetRootAs(data, 0)
    found = []
    for index in range(model.SubgraphsLength()):
        graph = model.Subgraphs(index)
        tensors = [graph.Tensors(number) for number in range(graph.TensorsLength())]
        found += [
            (tensor.Shape(0), tensor.Quantization().ScaleLength())
            for tensor in tensors
            if tensor.Type() == schema.TensorType.INT8 and model.Buffers(tensor.Buffer()).DataLength()
        ]
    return found
