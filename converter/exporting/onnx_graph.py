"""Three ONNX graphs over one file of weights. Decides how a graph is traced, named and written.

A graph is traced with the weights as inputs. So they are not copied while TensorFlow's graph becomes ONNX's; a plain
tf2onnx run takes 17 GB at 796 MB. Each also keeps its checkpoint name: ``weights.safetensors`` is the TensorFlow checkpoint
of what the graphs use, and an initializer has the same name there (``text_model/bert/pooler/dense/kernel:0``). The layout
is TensorFlow's; ``Written.initializers`` gives PyTorch's name and the way between them.
"""

from __future__ import annotations

import collections
import importlib.metadata
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from converter.errors import MissingPackage, TargetError
from converter.exporting.onnx_precision import halved, quantised
from converter.exporting.onnx_rewrite import simplified, sorted_nodes
from converter.exporting.onnx_weights import SUFFIXES, Weight, key_of, weights_name, write_weights
from converter.exporting.signatures import (
    ENCODE_IMAGE,
    ENCODE_TEXT,
    PIXELS,
    SIMILARITY,
    Axis,
    Input,
    Output,
    Precision,
    Signature,
    Written,
    tensor_specs,
)
from converter.models.names import named_variables
from converter.models.portable import portable
from converter.names.configs import check_config
from converter.names.frameworks import CANONICAL, KERAS
from converter.names.rules import compile_rules
from converter.specs import StoredTensor
from converter.tensors.layouts import LAYOUTS

OPSET = 18
FOLDER = "onnx"
FILES: Mapping[str, str] = {ENCODE_IMAGE: "vision_model", ENCODE_TEXT: "text_model", SIMILARITY: "model"}
_SIDES = {"pixel_values": {2: "height", 3: "width"}, PIXELS: {1: "height", 2: "width"}}  # where these are free
_WEIGHT = "weight_"
_NEEDS = "ONNX needs tf2onnx, onnx and onnxruntime: pip install 'dual-encoder-converter[onnx]'"
_PACKAGES = ("tf2onnx", "onnx", "tensorflow", "keras")

Proto = Any
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Traced:
    """The graphs of a model, without weights, and where these are.

    Attributes:
        graphs: ONNX models by the signature's name; weights are inputs, named as initializers shall be.
        variables: Keras variables by checkpoint name.
        origins: as ``Written.initializers``.
    """

    graphs: Mapping[str, Proto]
    variables: Mapping[str, Any]
    origins: Mapping[str, Mapping[str, str]]


def write_onnx(
    model: Any,
    signatures: Sequence[Signature],
    folder: Path,
    precision: Precision = "float32",
    progress: Callable[[str], None] | None = None,
) -> Written:
    """Writes a model's signatures as ``onnx/vision_model.onnx``, ``text_model.onnx`` and ``model.onnx``, with their weights.

    Args:
        model: with two towers, built.
        signatures: as ``signatures_of`` gives them.
        folder: gets a folder ``onnx``.
        precision: ``"float16"`` and ``"int8"`` add ``_fp16`` and ``_int8`` to every name.
        progress: called with the name of each file that is about to be made.

    Returns:
        The result of writing; paths are relative to ``folder``.

    Raises:
        MissingPackage: tf2onnx or onnx is not installed.
        ModelError: a weight is not finite in the requested precision.
        TargetError: there is such an export already.
    """
    return write_traced(trace(model, signatures, progress), folder, precision)


def trace(model: Any, signatures: Sequence[Signature], progress: Callable[[str], None] | None = None) -> Traced:
    """Traces the signatures once, for any number of precisions."""
    variables = named_variables(model)
    graphs = {}
    for signature in signatures:
        if progress is not None:
            progress(f"{FILES[signature.name]}.onnx")
        graphs[signature.name] = _graph(signature, variables)
    return Traced(graphs, variables, _origins(model))


def write_traced(traced: Traced, folder: Path, precision: Precision = "float32") -> Written:
    """Writes traced graphs and their weights in one precision; see ``write_onnx``."""
    home = folder / FOLDER
    home.mkdir(parents=True, exist_ok=True)
    if (home / weights_name(precision)).exists():
        raise TargetError(f"{home / weights_name(precision)} exists already; choose another folder")
    graphs, weights = _in_precision(traced, precision)
    stored = write_weights(home / weights_name(precision), weights)
    files, operators = [], {}
    for name, graph in graphs.items():
        path = home / f"{FILES[name]}{SUFFIXES[precision]}.onnx"
        _append(graph, stored)
        path.write_bytes(graph.SerializeToString())
        files.append(path)
        operators[f"{FOLDER}/{path.name}"] = dict(collections.Counter(node.op_type for node in graph.graph.node))
    return Written(
        files=tuple(path.relative_to(folder) for path in (*files, home / weights_name(precision))),
        versions={package: _version(package) for package in _PACKAGES},
        least={"opset": OPSET},
        operators=operators,
        initializers={key_of(weight.name): {**traced.origins[weight.of], **weight.stored_as} for weight in weights},
    )


def _in_precision(traced: Traced, precision: Precision) -> tuple[dict[str, Proto], list[Weight]]:
    """Copies of the graphs, and the weights that they use."""
    graphs = {}
    for name, graph in traced.graphs.items():
        graphs[name] = type(graph)()
        graphs[name].CopyFrom(graph)
    axes: Mapping[str, int] = {}
    if precision == "float16":
        graphs = {name: halved(graph, _weights_of(graph)) for name, graph in graphs.items()}
    elif precision == "int8":
        axes = quantised(list(graphs.values()), {key_of(name) for name in traced.variables})
    used = {name for graph in traced.graphs.values() for name in _weights_of(graph)}
    weights: list[Weight] = []
    for name, variable in traced.variables.items():
        if key_of(name) in used:
            weights += _weights(name, variable, precision, axes.get(key_of(name)))
    return graphs, weights


def _weights(name: str, variable: Any, precision: Precision, axis: int | None) -> list[Weight]:
    shape = tuple(int(size) for size in variable.shape)
    read = variable.numpy
    if axis is not None:
        return Weight.quantised(name, shape, read, axis)
    if precision == "float16":
        return [Weight.halved(name, shape, read)]
    return [Weight(name, name, "float32", shape, read)]


def _graph(signature: Signature, variables: Mapping[str, Any]) -> Proto:
    """One signature as ONNX, weights as inputs under the names of initializers."""
    try:
        import onnx  # noqa: F401 - tf2onnx needs it and says so less clearly
        import tf2onnx
    except ImportError:
        raise MissingPackage(_NEEDS) from None
    import tensorflow as tf

    specs = tensor_specs(signature.inputs)
    states = list(variables.values())
    given = [
        *specs,
        *(tf.TensorSpec(v.shape, v.dtype, name=f"{_WEIGHT}{number}") for number, v in enumerate(states)),
    ]

    def function(*tensors: Any) -> Any:
        weights = zip(states, tensors[len(specs) :], strict=True)
        with portable(), keras.StatelessScope(state_mapping=list(weights)):
            return signature.function(*tensors[: len(specs)])

    traced = tf.function(function, input_signature=given, autograph=False)
    graph, _ = tf2onnx.convert.from_function(traced, input_signature=given, opset=OPSET)
    _rename(graph, {f"{_WEIGHT}{number}": key_of(name) for number, name in enumerate(variables)})
    known = {*(given.name for given in signature.inputs), *map(key_of, variables)}
    if captured := [given.name for given in graph.graph.input if given.name not in known]:
        raise ValueError(f"{signature.name}: {captured} are tensors from outside the graph; make them NumPy's")
    _name_axes(graph, signature)
    return simplified(graph)


def _rename(graph: Proto, names: Mapping[str, str]) -> None:
    """Gives weights their names, and takes out those that nothing uses."""
    used = set()
    for node in graph.graph.node:
        for place, name in enumerate(node.input):
            if name in names:
                node.input[place] = names[name]
                used.add(names[name])
    kept = []
    for given in graph.graph.input:
        if given.name not in names or names[given.name] in used:
            given.name = names.get(given.name, given.name)
            kept.append(given)
    _replace(graph.graph.input, kept)


def _name_axes(graph: Proto, signature: Signature) -> None:
    """Names the free axes of inputs and outputs, puts both in the signature's order, and says what is fixed."""
    both: tuple[tuple[Any, Sequence[Input | Output]], ...] = (
        (graph.graph.input, signature.inputs),
        (graph.graph.output, signature.outputs),
    )
    for values, own in both:
        held = {value.name: value for value in values}
        order = {item.name: place for place, item in enumerate(own)}
        for item in own:
            shape = held[item.name].type.tensor_type.shape
            sides = _SIDES.get(item.name, {})
            for place, (dim, axis) in enumerate(zip(shape.dim, item.axes, strict=True)):
                _set(dim, axis or sides.get(place, f"{item.name}_{place}"))
        _replace(values, sorted(held.values(), key=lambda value: order.get(value.name, len(order))))
    del graph.graph.value_info[:]


def _set(dim: Any, axis: Axis) -> None:
    if isinstance(axis, str):
        dim.dim_param = axis
    else:
        dim.dim_value = axis


def _append(graph: Proto, stored: Mapping[str, StoredTensor]) -> None:
    """Makes initializers of the weights among the inputs: places in the file beside the graph."""
    from onnx import TensorProto

    kept = []
    types = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "int8": TensorProto.INT8}
    for given in graph.graph.input:
        tensor = stored.get(given.name)
        if tensor is None or tensor.extent is None:
            kept.append(given)
            continue
        held = graph.graph.initializer.add()
        held.name, held.data_type = given.name, types[tensor.dtype]
        held.dims.extend(tensor.shape)
        held.data_location = TensorProto.EXTERNAL
        place = {"location": tensor.extent.path.name, "offset": tensor.extent.offset, "length": tensor.extent.nbytes}
        for key, value in place.items():
            entry = held.external_data.add()
            entry.key, entry.value = key, str(value)
    _replace(graph.graph.input, kept)
    _replace(graph.graph.node, sorted_nodes(graph))


def _replace(field: Any, values: Iterable[Any]) -> None:
    """Puts others in place of a repeated field's messages."""
    copies = []
    for value in values:
        copy = type(value)()
        copy.CopyFrom(value)
        copies.append(copy)
    del field[:]
    field.extend(copies)


def _weights_of(graph: Proto) -> Iterator[str]:
    return (given.name for given in graph.graph.input if given.name.endswith(":0"))


def _origins(model: Any) -> dict[str, dict[str, str]]:
    """What each framework calls a variable, and how PyTorch's tensor becomes it."""
    found = {}
    for rule in compile_rules(check_config(model.config.to_dict())).tensors:
        axes = LAYOUTS[rule.layouts[KERAS]].axes
        layout = "as in both" if axes is None else f"as in TensorFlow: PyTorch's axes {', '.join(map(str, axes))}"
        found[rule.names[KERAS]] = {"tensorflow": rule.names[KERAS], "pytorch": rule.names[CANONICAL], "layout": layout}
    return found


def _version(package: str) -> str:
    for name in (package, f"{package}-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def onnx_files(folder: str | os.PathLike[str], precision: Precision = "float32") -> dict[str, Path]:
    """The path of each signature's graph in an export."""
    return {name: Path(folder, FOLDER, f"{file}{SUFFIXES[precision]}.onnx") for name, file in FILES.items()}
