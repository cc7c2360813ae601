"""The gated MLP, once ("GLU Variants Improve Transformer", https://arxiv.org/abs/2002.05202)."""

from __future__ import annotations

from typing import Any

from keras import ops

Tensor = Any

# The roles that make an MLP a gated one: a separate layer beside ``up``, or one that holds both, the gate first.
GATES = ("gate", "gate_and_up")


def gated_mlp(parts: Any, x: Tensor) -> Tensor:
    """``down(act(gate(x)) * up(x))``.

    Args:
        parts: a block with ``act``, ``down`` and either ``gate`` and ``up`` or ``gate_and_up``.
        x: ``(..., width)``.

    Returns:
        The same shape.
    """
    if "gate" in parts.spec.names:
        gate, inner = parts.gate(x), parts.up(x)
    else:
        gate, inner = ops.split(parts.gate_and_up(x), 2, axis=-1)
    return parts.down(parts.act(gate) * inner)
