"""What tf2onnx leaves in a graph that costs time or goes wrong in float16, and what takes its place.

- Layer normalisation in ten nodes becomes one ``LayerNormalization``, which adds squares in float32 for any input.
- An id that is negative becomes one that no table has: ``Gather`` would count it from the end, and give numbers.
- Comparisons of integers by way of float32 (``Less`` of two casts) compare the integers: float16 ends at 65504.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

Proto = Any
COMPARISONS = ("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal")
_EXTREMES = ("Max", "Min")


class Nodes:
    """A graph's nodes by what they make and read, and its constants."""

    def __init__(self, graph: Proto) -> None:
        from onnx import numpy_helper

        self.graph = graph.graph
        self.makers = {out: node for node in self.graph.node for out in node.output}
        self.readers: dict[str, list[Proto]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.constants = {held.name: numpy_helper.to_array(held) for held in self.graph.initializer}

    @property
    def nodes(self) -> list[Proto]:
        """All nodes, in the graph's order."""
        return list(self.graph.node)

    def made_by(self, name: str, kind: str) -> Proto | None:
        """The node that makes a value, if it is of this kind."""
        node = self.makers.get(name)
        return node if node is not None and node.op_type == kind else None

    def number(self, name: str) -> float | None:
        """A constant with one element."""
        held = self.constants.get(name)
        return float(held.reshape(-1)[0]) if held is not None and held.size == 1 else None

    def pairs(self, node: Proto) -> Iterator[tuple[str, str]]:
        """The two inputs of a node whose order does not matter, in both orders."""
        yield node.input[0], node.input[1]
        yield node.input[1], node.input[0]


def simplified(graph: Proto) -> Proto:
    """The graph with fewer nodes that compute the same."""
    import onnx

    types = _types(onnx.shape_inference.infer_shapes(graph))
    nodes = Nodes(graph)
    for node in list(nodes.graph.node):
        if node.op_type in (*COMPARISONS, *_EXTREMES):
            _compare_whole(node, nodes, types)
        elif node.op_type == "Add":
            _join_norm(node, nodes)
        elif node.op_type == "Gather":
            _refuse_negative(node, nodes, types)
    _drop_unread(graph)
    return graph


def _types(inferred: Proto) -> dict[str, int]:
    values = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def _compare_whole(node: Proto, nodes: Nodes, types: Mapping[str, int]) -> None:
    """Compares integers directly if both sides are casts of one type, or integer constants."""
    from onnx import TensorProto, numpy_helper

    sources: dict[int, str] = {}
    for place, name in enumerate(node.input):
        cast = nodes.made_by(name, "Cast")
        if cast is not None and cast.attribute[0].i == TensorProto.FLOAT:
            sources[place] = cast.input[0]
        elif name not in nodes.constants or not _is_whole(nodes.constants[name]):
            return
    kinds = {types.get(name) for name in sources.values()}
    after = nodes.readers.get(node.output[0], [])
    if len(kinds) != 1 or not kinds <= {TensorProto.INT32, TensorProto.INT64}:
        return
    if node.op_type in _EXTREMES and not (after and all(reader.op_type == "Cast" for reader in after)):
        return
    dtype = np.int32 if TensorProto.INT32 in kinds else np.int64
    for place, name in enumerate(node.input):
        if place not in sources:
            sources[place] = f"{name}_{np.dtype(dtype).name}"
            if sources[place] not in nodes.constants:
                nodes.constants[sources[place]] = nodes.constants[name].astype(dtype)
                held = numpy_helper.from_array(nodes.constants[sources[place]], sources[place])
                nodes.graph.initializer.append(held)
    for place, name in sources.items():
        node.input[place] = name


def _refuse_negative(node: Proto, nodes: Nodes, types: Mapping[str, int]) -> None:
    """Looks up a table row by an input, or by an invalid row number."""
    from onnx import TensorProto, helper, numpy_helper

    inputs = {value.name for value in nodes.graph.input}
    ids = node.input[1]
    cast = nodes.made_by(ids, "Cast")
    if node.input[0] not in inputs or (ids if cast is None else cast.input[0]) not in inputs:
        return
    dtype = {TensorProto.INT32: np.int32, TensorProto.INT64: np.int64}.get(types.get(ids, 0))
    if dtype is None:
        return
    zero, none = f"{node.output[0]}_zero", f"{node.output[0]}_no_row"
    nodes.graph.initializer.extend(
        [numpy_helper.from_array(np.array(value, dtype), name) for name, value in ((zero, 0), (none, 2**31 - 1))]
    )
    below, checked = f"{node.output[0]}_negative", f"{node.output[0]}_checked"
    nodes.graph.node.extend(
        [
            helper.make_node("Less", [ids, zero], [below], f"{node.name}_negative"),
            helper.make_node("Where", [below, none, ids], [checked], f"{node.name}_checked"),
        ]
    )
    node.input[1] = checked


def _is_whole(values: np.ndarray[Any, Any]) -> bool:
    return bool(np.isfinite(values).all() and (values == np.round(values)).all() and (np.abs(values) < 2**31).all())


def _join_norm(node: Proto, nodes: Nodes) -> None:
    """Makes a ``LayerNormalization`` of the sum that ends one."""
    from onnx import helper

    found = _norm(node, nodes)
    if found is None:
        return
    x, gamma, beta, epsilon = found
    made = helper.make_node(
        "LayerNormalization", [x, gamma, beta], list(node.output), node.name, axis=-1, epsilon=epsilon
    )
    node.CopyFrom(made)


def _norm(node: Proto, nodes: Nodes) -> tuple[str, str, str, float] | None:
    """Input, gamma, beta and epsilon of ``(x - mean) * rsqrt(mean of squares + epsilon) * gamma + beta``."""
    inputs = {value.name for value in nodes.graph.input}
    for scaled, beta in nodes.pairs(node):
        last = nodes.made_by(scaled, "Mul")
        if last is None or beta not in inputs:
            continue
        for normed, gamma in nodes.pairs(last):
            product = nodes.made_by(normed, "Mul")
            if product is None or gamma not in inputs:
                continue
            for centred, root in nodes.pairs(product):
                x, epsilon = _centred(centred, nodes), _epsilon(root, centred, nodes)
                if x is not None and epsilon is not None:
                    return x, gamma, beta, epsilon
    return None


def _centred(name: str, nodes: Nodes) -> str | None:
    """``x`` of ``x - mean``."""
    node = nodes.made_by(name, "Sub")
    return node.input[0] if node is not None and _mean(node.input[1], nodes, node.input[0].__eq__) else None


def _epsilon(root: str, centred: str, nodes: Nodes) -> float | None:
    """The term added to the mean of squares below the root."""

    def is_square(name: str) -> bool:
        square = nodes.made_by(name, "Mul")
        return square is not None and set(square.input) == {centred}

    reciprocal = nodes.made_by(root, "Reciprocal")
    square_root = nodes.made_by(reciprocal.input[0], "Sqrt") if reciprocal is not None else None
    total = nodes.made_by(square_root.input[0], "Add") if square_root is not None else None
    for mean, epsilon in nodes.pairs(total) if total is not None else ():
        if nodes.number(epsilon) is not None and _mean(mean, nodes, is_square):
            return nodes.number(epsilon)
    return None


def _mean(name: str, nodes: Nodes, of: Callable[[str], bool]) -> bool:
    """Whether a value is the mean over the last axis of another, whose width is the divisor of the sum."""
    node = nodes.made_by(name, "Mul")
    for total, share in nodes.pairs(node) if node is not None else ():
        sum_of = nodes.made_by(total, "ReduceSum")
        if sum_of is not None and nodes.number(share) is not None and of(sum_of.input[0]):
            return nodes.number(sum_of.input[1]) == -1
    return False


def _drop_unread(graph: Proto) -> None:
    """Takes out what nothing reads any longer."""
    kept: list[Proto] = []
    wanted = {value.name for value in graph.graph.output}
    for node in reversed(sorted_nodes(graph)):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            for attribute in node.attribute:
                wanted.update(name for inner in attribute.g.node for name in inner.input)
            kept.append(node)
    copies = []
    for node in reversed(kept):
        copy = type(node)()
        copy.CopyFrom(node)
        copies.append(copy)
    del graph.graph.node[:]
    graph.graph.node.extend(copies)
    for held in [held for held in graph.graph.initializer if held.name not in wanted]:
        graph.graph.initializer.remove(held)


def sorted_nodes(graph: Proto) -> list[Proto]:
    """The nodes in an order in which each follows what it reads; ONNX asks for one, float16's casts come last."""
    makers = {out: place for place, node in enumerate(graph.graph.node) for out in node.output}
    nodes, found, done = list(graph.graph.node), [], [False] * len(graph.graph.node)
    for start in range(len(nodes)):
        waiting = [start]
        while waiting:
            place = waiting[-1]
            before = [makers[name] for name in nodes[place].input if name in makers and not done[makers[name]]]
            if before and not done[place]:
                waiting += before
                continue
            waiting.pop()
            if not done[place]:
                done[place] = True
                found.append(nodes[place])
    return found
