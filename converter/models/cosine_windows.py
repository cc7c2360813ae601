"""Windows whose attention is a scaled cosine, and whose positions are log-spaced (Swin V2, arXiv 2111.09883)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import ops

from converter.models.blocks import BlockSpec, attention
from converter.models.parts import Dense, Raw, in_float32
from converter.models.windows import Size, WindowBlock

Tensor = Any
Array = np.ndarray[Any, Any]

INNER = 512  # width between the two layers that make the bias of a position
STEEPEST = math.log(100.0)  # what the logarithm of the scale is cut to
TINY = 1e-12  # the least length that a vector is divided by


class CosineWindowBlock(WindowBlock):
    """A window block that compares directions; a small network makes the bias of every relative position.

    ``names`` of the spec has ``scale``, ``bias_up`` and ``bias_down`` besides the usual. Norms follow their branches, inside
    the residual. ``pretrained`` is the window that positions are measured by, 0 for the block's own.
    """

    shut = -200.0  # PyTorch adds it twice

    def __init__(
        self, spec: BlockSpec, window: int, shift: int, pretrained: Size, seeds: Any = None, **kwargs: Any
    ) -> None:
        own = {
            "scale": Raw((spec.heads, 1, 1), value=math.log(10.0)),
            "bias_up": Dense(2, INNER, std=spec.spread.up),
            "bias_down": Dense(INNER, spec.heads, bias=False, std=spec.spread.down),
        }
        super().__init__(spec, window, shift, seeds, own=own, **kwargs)
        self.pretrained = pretrained

    def call(  # type: ignore[override]  # Keras calls it by name, with what the tower gives.
        self, x: Tensor, size: Size, training: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Windowed attention, then MLP, each with its norm and its residual; see ``WindowBlock``."""
        y, weights = self.in_windows(x, size, training)
        x = ops.add(x, self.drop_path(self.norm1(y), training))
        y = self.norm2(self.drop_mlp(self.mlp(x), training))
        return ops.add(x, self.drop_path(y, training)), weights

    def shift_of(self, size: Size) -> int:
        """Decided by the config's image size, not by the current one."""
        del size
        return self.shift

    def attend(self, x: Tensor, bias: Tensor | None, training: bool) -> tuple[Tensor, Tensor]:
        """Attention by ``cos(query, key) * scale``, with a separate scale per head."""
        scale = ops.exp(ops.minimum(ops.convert_to_tensor(self.scale.value), STEEPEST))
        return attention(self, x, x, bias, self.spec.heads, self.drop_attention, training, turn=direction, scale=scale)

    def learned(self) -> Tensor:
        """The network's output for every relative position, between 0 and 16."""
        places = log_spaced(self.window, self.pretrained).reshape(-1, 2)
        x = ops.cast(ops.convert_to_tensor(places), self.compute_dtype)
        said = self.by_position(self.bias_down(ops.relu(self.bias_up(x))))
        return in_float32(lambda said: 16.0 * ops.sigmoid(said), said)


def direction(x: Tensor) -> Tensor:
    """``(..., width)`` with the length of every vector 1; the zero vector stays."""

    def scaled(x: Tensor) -> Tensor:
        return x / ops.sqrt(ops.maximum(ops.sum(ops.square(x), axis=-1, keepdims=True), TINY**2))

    return in_float32(scaled, x)


def log_spaced(window: int, pretrained: Size) -> Array:
    """Relative positions in a window, ``sign(d) log2(1 + 8 |d|) / 3`` of distances d that go to 1 at the window's end.

    Args:
        window: side of the windows, in patches.
        pretrained: height and width of the window that a distance of 1 is for; 0 for the window's own.

    Returns:
        ``(2 window - 1, 2 window - 1, 2)``, down and across, in float32 as in PyTorch for any dtype of the model.
    """
    whole = np.arange(1 - window, window, dtype=np.float32)
    ends = [side - 1 for side in pretrained] if pretrained[0] > 0 else [max(window - 1, 1)] * 2
    with np.errstate(divide="ignore", invalid="ignore"):
        axes = [whole / np.float32(end) * np.float32(8) for end in ends]
    # Rounded correctly, as PyTorch's own float32 logarithms are.
    logs = [np.log2((np.abs(d) + np.float32(1)).astype(np.float64)).astype(np.float32) for d in axes]
    spaced = [np.sign(d) * log / np.float32(3) for d, log in zip(axes, logs, strict=True)]
    return np.stack(np.meshgrid(*spaced, indexing="ij"), axis=-1)
