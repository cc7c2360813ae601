"""A dense layer whose channels come in groups (SqueezeBERT, https://arxiv.org/abs/2006.11316): one small one for each."""

from __future__ import annotations

from typing import Any

from keras import ops

from converter.models.parts import Dense, Make, as_dtype

Tensor = Any


class GroupedDense(Dense):
    """``x @ kernel + bias`` of each group of channels alone; in PyTorch a convolution of one token.

    Kernel ``(1, in / groups, out)``, where PyTorch keeps ``(out, in / groups, 1)``.
    """

    def __init__(self, inputs: int, outputs: int, groups: int, *, std: float = 0.02) -> None:
        super().__init__(inputs, outputs, std=std)
        self.groups = groups

    def build(self, make: Make) -> None:
        """Creates ``kernel (1, in / groups, out)`` and ``bias (out,)``."""
        shape = (1, self.inputs // self.groups, self.outputs)
        self.kernel = self.weights["kernel"] = make("kernel", shape, "normal", self.std)
        self.bias = self.weights["bias"] = make("bias", (self.outputs,), "constant", 0.0)

    def __call__(self, x: Tensor) -> Tensor:
        """``(..., in)`` to ``(..., out)``."""
        half, groups = self.compute_dtype, self.groups
        rows = ops.reshape(as_dtype(x, half), (-1, groups, self.inputs // groups))
        kernel = ops.reshape(as_dtype(self.kernel, half), (-1, groups, self.outputs // groups))
        y = ops.matmul(ops.transpose(rows, (1, 0, 2)), ops.transpose(kernel, (1, 0, 2)))
        y = ops.reshape(ops.transpose(y, (1, 0, 2)), (-1, self.outputs))
        return ops.reshape(ops.add(y, as_dtype(self.bias, half)), (*ops.shape(x)[:-1], self.outputs))
