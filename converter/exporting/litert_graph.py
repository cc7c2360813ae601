"""Facts about a .tflite file: its operators and the least runtime that has them.

Read with the classes that LiteRT's own package generates from the format's schema. They check nothing, so a file of
another's is read in a process that may end.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

MARK = b"TFL3"  # at the fifth byte
_LEAST = b"min_runtime_version"


@dataclass(frozen=True, slots=True)
class Graph:
    """What is in a file.

    Attributes:
        operators: how often each is used, over all signatures; custom operators as ``custom:NAME``.
        least: the first version of the runtime that has them; empty if the file does not say.
        axes: of the tensor that has most.
    """

    operators: dict[str, int]
    least: str
    axes: int


def read_graph(data: Any) -> Graph:
    """Reads the graph of a file, all bytes of it, that begins as one of LiteRT does; its weights are not looked at."""
    from ai_edge_litert import schema_py_generated as schema

    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    model = schema.Model.GetRootAs(data, 0)
    kinds = [_kind(model.OperatorCodes(index), names) for index in range(model.OperatorCodesLength())]
    used: Counter[str] = Counter()
    axes = 0
    for index in range(model.SubgraphsLength()):
        graph = model.Subgraphs(index)
        used.update(kinds[graph.Operators(number).OpcodeIndex()] for number in range(graph.OperatorsLength()))
        axes = max([axes, *(graph.Tensors(number).ShapeLength() for number in range(graph.TensorsLength()))])
    return Graph(dict(sorted(used.items())), _least(model), axes)


def _kind(code: Any, names: dict[int, str]) -> str:
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())  # the latter has no room for numbers above 127
    return f"custom:{code.CustomCode().decode()}" if names[number] == "CUSTOM" else names[number]


def _least(model: Any) -> str:
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        if entry.Name() == _LEAST:
            return bytes(model.Buffers(entry.Buffer()).DataAsNumpy()).rstrip(b"\0").decode()
    return ""
