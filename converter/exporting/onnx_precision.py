"""Converts an ONNX graph to float16 and int8, while its weights are still inputs. Decides which operators change.

int8 is dynamic: a matrix of weights is int8 with a scale for each output, and what it is multiplied with becomes uint8 by the
range of the batch. The nodes are those of ``onnxruntime.quantization.quantize_dynamic``, which ONNX Runtime fuses. Tables
are int8 with a scale for each row; convolutions, biases and norms stay in float32.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from converter.errors import MissingPackage
from converter.exporting.onnx_rewrite import COMPARISONS, Nodes, sorted_nodes
from converter.exporting.onnx_weights import QUANTISED, SCALE

Proto = Any
_MATRIX, _TABLE = 1, 0
_FLOATS = (1, 10, 11, 16)  # of TensorProto
_PLAIN = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}  # a Gemm that is a product and a sum


def halved(graph: Proto, weights: Iterable[str]) -> Proto:
    """The graph in float16, with unchanged inputs and outputs, except for its weights.

    Two things stay in float32: numbers on their way from whole numbers to whole numbers (buckets of positions), and the
    sum of squares that an embedding is divided by.

    Raises:
        MissingPackage: onnxruntime is not installed.
    """
    try:
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError:
        raise MissingPackage("float16 needs onnxruntime: pip install 'dual-encoder-converter[onnx]'") from None
    import onnx

    own = set(weights)
    kept = [value.name for value in (*graph.graph.input, *graph.graph.output) if value.name not in own]
    graph = onnx.shape_inference.infer_shapes(graph)
    exact = _exact(graph)
    between = {name for node in exact for name in node.output}
    for value in [value for value in graph.graph.value_info if value.name in between]:
        graph.graph.value_info.remove(value)  # or the converter would round it on its way from node to node
    made = convert_float_to_float16(
        graph, keep_io_types=kept, disable_shape_infer=True, node_block_list=[node.name for node in exact]
    )
    del made.graph.value_info[:]
    return made


def _exact(graph: Proto) -> list[Proto]:
    """The nodes that stay in float32: what only whole numbers are made of, and the lengths of embeddings."""
    nodes = Nodes(graph)
    exact: dict[str, Proto] = {}
    for node in reversed(sorted_nodes(graph)):
        after = [reader for out in node.output for reader in nodes.readers.get(out, ())]
        if after and all(_ends_in_whole(reader) or reader.name in exact for reader in after):
            exact[node.name] = node
    for root in (node for node in nodes.nodes if node.op_type == "Sqrt"):
        total = nodes.made_by(root.input[0], "ReduceSum")
        square = nodes.made_by(total.input[0], "Mul") if total is not None else None
        if total is not None and square is not None:
            found = (square, total, root, *nodes.readers.get(root.output[0], ()))
            exact |= {node.name: node for node in found}
    return list(exact.values())


def _ends_in_whole(node: Proto) -> bool:
    """Whether a node makes integers or booleans from the values that it reads."""
    if node.op_type == "Cast":
        return all(attribute.i not in _FLOATS for attribute in node.attribute if attribute.name == "to")
    return node.op_type in COMPARISONS


def quantised(graphs: Sequence[Proto], weights: Collection[str]) -> dict[str, int]:
    """Puts int8 in place of the matrices and tables that every graph uses as nothing else.

    Args:
        graphs: changed in place.
        weights: names of the inputs that are weights.

    Returns:
        By name of a weight, the axis that has a scale for each place.
    """
    for graph in graphs:
        _without_gemm(graph, weights)
    uses: dict[str, set[int | None]] = {}
    sizes = {v.name: len(v.type.tensor_type.shape.dim) for graph in graphs for v in graph.graph.input}
    for graph in graphs:
        for node in graph.graph.node:
            for place, name in enumerate(node.input):
                if name in weights:
                    uses.setdefault(name, set()).add(_use(node, place) if sizes[name] == 2 else None)
    axes = {name: axis for name, kinds in uses.items() if len(kinds) == 1 for axis in kinds if axis is not None}
    for graph in graphs:
        _quantise(graph, axes)
    return axes


def _without_gemm(graph: Proto, weights: Collection[str]) -> None:
    """A product and a sum where tf2onnx has made one node of both, as it does where shapes are fixed."""
    from onnx import helper

    made: list[Proto] = []
    for node in graph.graph.node:
        plain = all(
            getattr(a, "f" if a.name in ("alpha", "beta") else "i") == _PLAIN.get(a.name) for a in node.attribute
        )
        if node.op_type != "Gemm" or node.input[1] not in weights or not plain:
            made.append(node)
            continue
        given, matrix, *bias = node.input
        (out,) = node.output
        product = f"{out}_product" if bias else out
        made.append(helper.make_node("MatMul", [given, matrix], [product], f"{node.name}_product"))
        if bias:
            made.append(helper.make_node("Add", [product, *bias], [out], f"{node.name}_sum"))
    _replace_nodes(graph, made)


def _replace_nodes(graph: Proto, made: Iterable[Proto]) -> None:
    nodes = []
    for node in made:
        copy = type(node)()
        copy.CopyFrom(node)
        nodes.append(copy)
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)


def _use(node: Proto, place: int) -> int | None:
    if node.op_type == "MatMul" and place == 1:
        return _MATRIX
    if node.op_type == "Gather" and place == 0 and all(a.i == 0 for a in node.attribute if a.name == "axis"):
        return _TABLE
    return None


def _quantise(graph: Proto, axes: dict[str, int]) -> None:
    from onnx import TensorProto, helper

    made: list[Proto] = []
    shared: dict[str, list[str]] = {}
    for node in graph.graph.node:
        place = 1 if node.op_type == "MatMul" else 0
        name = node.input[place] if len(node.input) > place else ""
        if name not in axes or node.op_type not in ("MatMul", "Gather"):
            made.append(node)
            continue
        whole, scale = (name.removesuffix(":0") + end + ":0" for end in (QUANTISED, SCALE))
        out, own = node.output[0], f"{node.output[0]}_int8"
        if axes[name] == _MATRIX:
            given = node.input[0]
            if given not in shared:
                shared[given] = [f"{given}_{part}" for part in ("quantized", "scale", "zero_point")]
                made.append(helper.make_node("DynamicQuantizeLinear", [given], shared[given], f"{given}_quantize"))
            rows, rows_scale, zero = shared[given]
            made += [
                helper.make_node("MatMulInteger", [rows, whole, zero], [f"{own}_sum"], f"{own}_multiply"),
                helper.make_node("Cast", [f"{own}_sum"], [f"{own}_float"], f"{own}_cast", to=TensorProto.FLOAT),
                helper.make_node("Mul", [rows_scale, scale], [f"{own}_scale"], f"{own}_scales"),
                helper.make_node("Mul", [f"{own}_float", f"{own}_scale"], [out], f"{own}_rescale"),
            ]
        else:
            ids = node.input[1]
            made += [
                helper.make_node("Gather", [whole, ids], [f"{own}_rows"], f"{own}_gather", axis=0),
                helper.make_node("Cast", [f"{own}_rows"], [f"{own}_float"], f"{own}_cast", to=TensorProto.FLOAT),
                helper.make_node("Gather", [scale, ids], [f"{own}_scale"], f"{own}_scales", axis=0),
                helper.make_node("Mul", [f"{own}_float", f"{own}_scale"], [out], f"{own}_rescale"),
            ]
    _replace_nodes(graph, made)
    _declare(graph, axes)


def _declare(graph: Proto, axes: dict[str, int]) -> None:
    """Inputs for what takes the place of the weights that are quantised."""
    from onnx import TensorProto, helper

    for value in [value for value in graph.graph.input if value.name in axes]:
        plain = value.name.removesuffix(":0")
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        scales = [shape[1]] if axes[value.name] == _MATRIX else [shape[0], 1]
        graph.graph.input.extend(
            [
                helper.make_tensor_value_info(f"{plain}{QUANTISED}:0", TensorProto.INT8, shape),
                helper.make_tensor_value_info(f"{plain}{SCALE}:0", TensorProto.FLOAT, scales),
            ]
        )
        graph.graph.input.remove(value)
