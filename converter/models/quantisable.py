"""Parts that keep what quantisation made of their weights (https://arxiv.org/abs/2101.01321), and compute without it.

The integers, their scales and the range of the values belong to the checkpoint. They are stored, never read, never
trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from converter.models.parts import Dense, Embedding, Make, Norm, Part

# From where a range grows: nothing has passed yet.
NARROWEST = 1e-5


def keep(part: Part, make: Make, shapes: Mapping[str, Sequence[int]], values: Mapping[str, float] = {}) -> None:
    """Creates untrained tensors beside the weights of a part, by name and shape; 0 without a value."""
    for name, shape in shapes.items():
        part.weights[name] = make(name, tuple(shape), "constant", values.get(name, 0.0), trainable=False)


class QuantisableDense(Dense):
    """A dense layer; ``weight_integer`` has the layout of PyTorch's weight, ``(out, in)``."""

    def build(self, make: Make) -> None:
        """Creates ``kernel``, ``bias`` and their integers, with a scale for each output."""
        super().build(make)
        outputs = (self.outputs,)
        shapes = {"weight_integer": (self.outputs, self.inputs), "bias_integer": outputs, "fc_scaling_factor": outputs}
        keep(self, make, shapes)


class QuantisableEmbedding(Embedding):
    """A table of rows."""

    def build(self, make: Make) -> None:
        """Creates the table and its integers, with one scale."""
        super().build(make)
        keep(self, make, {"weight_integer": (self.rows, self.width), "weight_scaling_factor": (1,)})


class QuantisableNorm(Norm):
    """Layer normalisation."""

    def build(self, make: Make) -> None:
        """Creates ``gamma``, ``beta``, and by how much integers are shifted."""
        super().build(make)
        keep(self, make, {"shift": (1,)})


class Range(Part):
    """The range of the values, and the scale of their integers."""

    def build(self, make: Make) -> None:
        """Creates the three numbers."""
        ends = {"x_min": -NARROWEST, "x_max": NARROWEST}
        keep(self, make, dict.fromkeys((*ends, "act_scaling_factor"), (1,)), ends)
