"""The object graph that TensorFlow 2 keeps in a checkpoint: which variable hangs where, and what it was called when made.

A variable's key in the checkpoint is the way to it (``variables/3``), which says nothing; beside it the graph keeps its
full name (``tf_vision_text_dual_encoder_model/logit_scale``).
Source: tensorflow/core/protobuf/trackable_object_graph.proto.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from converter.checkpoints.wire import UnsoundMessage, fields, message, number, text

KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
# Objects of a model of 50,000 tensors that is exported: layers, lists, functions.
MAX_NODES = 500_000
_VALUE = "VARIABLE_VALUE"
_BEHIND = f"/.ATTRIBUTES/{_VALUE}"  # of every key
# The step counter of an optimizer, which no other object has.
_STEPS = {"iter", "iterations", "_iterations"}
# Where Keras keeps metrics, and what it keeps for itself of a model that is saved.
_ASIDE = {"keras_api", "save_counter", "metrics", "_metrics"}
_TRAINING = "state of a training run, no weight"


@dataclass(slots=True)
class _Node:
    """An object: the objects that it holds by the name it has for each, and what the checkpoint has of it by full name."""

    children: list[tuple[str, int]] = field(default_factory=list)
    values: list[tuple[str, str]] = field(default_factory=list)


def variables(graph: bytes) -> tuple[dict[str, str], dict[str, str]]:
    """The full names of a checkpoint's variables.

    Args:
        graph: the message.

    Returns:
        Two mappings. The first has the full name of everything that a model holds, by key in the checkpoint. The second
        says why the rest, which a training run holds, is no weight, by the path to it.

    Raises:
        UnsoundMessage: it is no object graph.
    """
    held = [message(value) for place, value in fields(graph) if place == 1]
    if len(held) > MAX_NODES:
        raise UnsoundMessage(f"has {len(held):,} objects")
    nodes = [_node(data) for data in held]
    reached = _reached(nodes)
    weights: dict[str, str] = {}
    aside: dict[str, str] = {}
    for place, node in enumerate(nodes):
        for name, key in node.values:
            if place in reached:
                weights[key] = name
            else:
                aside[key.removesuffix(_BEHIND)] = _TRAINING
    return weights, aside


def _node(data: bytes) -> _Node:
    node = _Node()
    for place, value in fields(data):
        if place == 1:
            held = dict(fields(message(value)))
            node.children.append((text(held.get(2, b"")), number(held.get(1, 0))))
        elif place == 2:
            held = dict(fields(message(value)))
            if text(held.get(1, b"")) == _VALUE:
                node.values.append((text(held.get(2, b"")), text(held.get(3, b""))))
    return node


def _reached(nodes: list[_Node]) -> set[int]:
    """The objects that hang on the first one by other ways than through an optimizer or a metric."""
    reached, waiting = set(), [0] if nodes else []
    while waiting:
        place = waiting.pop()
        if place in reached:
            continue
        if place >= len(nodes):
            raise UnsoundMessage(f"names object {place:,} of {len(nodes):,}")
        if _STEPS.intersection(name for name, _ in nodes[place].children):
            continue
        reached.add(place)
        waiting += [child for name, child in nodes[place].children if name not in _ASIDE]
    return reached
