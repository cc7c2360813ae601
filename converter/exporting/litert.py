"""Writes ``model.tflite``: the signatures over shared weights, of LiteRT's own operators only."""

from __future__ import annotations

import importlib.metadata
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from converter.errors import ModelError, listed, printable
from converter.exporting.litert_graph import read_graph
from converter.exporting.savedmodel import write_saved_model
from converter.exporting.signatures import Precision, Signature, Written
from converter.models.portable import portable

Tensor = Any

# Of what LiteRT's own operators lack, as the converter lists it.
_MISSING = re.compile(r"(?:TF Select|Custom) ops: (.+)")
# LiteRT has ids of both widths, but not every operator for int64, nor does LiteRT.js; vocabularies are far smaller.
IDS = "int32"


def write_litert(model: Any, signatures: Sequence[Signature], file: Path, precision: Precision = "float32") -> Written:
    """Writes a model as one .tflite file.

    Ids are int32. Masks stay in the range of float16, because a GPU or NPU may compute in it, whatever the precision.

    Args:
        model: whose variables the signatures use; built.
        signatures: of ``signatures_of``.
        file: the file to write; a SavedModel lies beside it for a while.
        precision: of the weights. ``"int8"`` is per channel, with activations quantised as they come.

    Returns:
        The file, what made it, the least runtime and the operators.

    Raises:
        ModelError: LiteRT lacks an operator that the model needs.
    """
    import tensorflow as tf

    signatures = [_as_litert_takes_it(signature) for signature in signatures]
    with tempfile.TemporaryDirectory(prefix=".litert-", dir=file.parent) as folder:
        written = write_saved_model(model, signatures, Path(folder, "saved"))
        names = [signature.name for signature in signatures]
        converter = tf.lite.TFLiteConverter.from_saved_model(str(Path(folder, "saved")), signature_keys=names)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        data = _converted(converter)
    file.write_bytes(data)
    graph = read_graph(data)
    return Written(
        files=(Path(file.name),),
        versions={**written.versions, "ai-edge-litert": importlib.metadata.version("ai-edge-litert")},
        least={"runtime": graph.least},
        operators={file.name: graph.operators},
        dtypes={one.name: one.dtype for signature in signatures for one in signature.inputs if one.dtype == IDS},
    )


def _as_litert_takes_it(signature: Signature) -> Signature:
    """A signature whose ids are int32, computed by operators that LiteRT has."""
    inputs = tuple(replace(one, dtype=IDS) if one.dtype == "int64" else one for one in signature.inputs)
    return replace(signature, inputs=inputs, function=_portable(signature.function))


def _portable(function: Callable[..., dict[str, Tensor]]) -> Callable[..., dict[str, Tensor]]:
    def traced(*given: Tensor) -> dict[str, Tensor]:
        with portable():
            return function(*given)

    return traced


def _converted(converter: Any) -> bytes:
    """What the converter makes.

    Raises:
        ModelError: names the operators that it cannot have.
    """
    from tensorflow.lite.python.convert_phase import ConverterError

    try:
        data: bytes = converter.convert()
    except ConverterError as error:
        missing = sorted({name for found in _MISSING.findall(str(error)) for name in found.split(", ")})
        if not missing:
            raise ModelError(f"LiteRT's converter failed: {printable(str(error), 500)}. Export to ONNX.") from None
        raise ModelError(
            f"LiteRT has no operator for TensorFlow's {listed(missing)}, which this model needs. Export to ONNX, which "
            "has one, or change the config, where an activation needs it."
        ) from None
    return data
